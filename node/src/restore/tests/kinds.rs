//! Unusual files that were always restored, or refused with their name, and must stay so.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, utimensat};

use super::{Nodes, archive, is_root, listing, put_in_place, roll_back};
use crate::files::tree::write_tree;

/// Sets the time of the last change. Does not follow a symbolic link.
fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn create_links_and_odd_names(top: &Path) {
    fs::create_dir_all(top.join("conf.d/empty")).unwrap();
    fs::write(top.join("conf.d/10-a.conf"), "a\r\nno end of the line").unwrap();
    fs::hard_link(top.join("conf.d/10-a.conf"), top.join("conf.d/hard link")).unwrap();
    for (target, name) in [
        ("10-a.conf", "relative"),
        ("/nowhere/at/all", "dangling"),
        ("..", "up"),
        (&"x".repeat(3_000), "long target"),
    ] {
        symlink(target, top.join("conf.d").join(name)).unwrap();
    }
    let long = "n".repeat(255);
    let names: [&[u8]; 6] = [
        b"new\nline",
        b"not \xff\xfe utf-8",
        b"-rf *",
        b"back\\slash",
        b".#lock",
        long.as_bytes(),
    ];
    for name in names {
        fs::write(top.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let mode = Mode::from_raw_mode(0o620);
    rustix::fs::mknodat(CWD, top.join("queue"), FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn files_of_every_kind_are_restored_with_all_attributes() {
    if !is_root() {
        eprintln!("skipped: only root can change owners");
        return;
    }
    let nodes = Nodes::new();
    let top = nodes.old();
    create_links_and_odd_names(&top);
    fs::create_dir(top.join("tls")).unwrap();
    for (name, id, mode) in [("tls/key.pem", 4_294_967_000, 0), ("tls/suid", 33, 0o6755)] {
        fs::write(top.join(name), "x").unwrap();
        chown(top.join(name), Some(id), Some(id)).unwrap();
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    // Revision 2 of a file capability: cap_net_bind_service.
    let capability: Vec<u8> = [0x0200_0001_u32, 1 << 10, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    xattr::set(top.join("tls/suid"), "security.capability", &capability).unwrap();
    xattr::set(top.join("tls"), "trusted.label", b"1").unwrap();
    xattr::set(
        top.join("conf.d/10-a.conf"),
        "user.comment",
        b"a\nb\0c=\xff",
    )
    .unwrap();
    for (name, mode) in [("conf.d", 0o1777), ("tls", 0o2750)] {
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    touch(&top.join("conf.d/10-a.conf"), -2_147_483_647, 123_456_789);
    touch(&top.join("tls/suid"), 13_537_929_600, 999_999_999);
    touch(&top.join("conf.d/dangling"), -1, 500_000_000);

    nodes.restore();
    assert_eq!(listing(&nodes.new_node()), listing(&top));
    // A socket has no content: its server creates it again.
    let socket = std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
    nodes.restore();
    assert!(!nodes.new_node().join("socket").exists());
    drop(socket);
}

#[test]
fn a_device_is_named_and_refused() {
    let nodes = Nodes::new();
    let device = nodes.old().join("chroot/dev/null");
    fs::create_dir_all(device.parent().unwrap()).unwrap();
    let number = rustix::fs::makedev(1, 3);
    let made = rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::RWXU, number);
    if let Err(error) = made {
        eprintln!("skipped: {error}");
        return;
    }
    let error = write_tree(&[nodes.old()], &mut Vec::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("chroot/dev/null: it is a device"),
        "{error}"
    );
}

#[test]
fn a_path_of_another_kind_on_the_new_node_is_replaced_and_rolled_back() {
    for kind in ["file", "link"] {
        let nodes = Nodes::new();
        fs::create_dir(nodes.old()).unwrap();
        fs::write(nodes.old().join("app.conf"), "x").unwrap();
        let elsewhere = nodes.0.path().join("new/elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("other"), "precious").unwrap();
        match kind {
            "file" => fs::write(nodes.new_node(), "default of the package").unwrap(),
            _ => symlink("../elsewhere", nodes.new_node()).unwrap(),
        }
        let (before, beside) = (listing(&nodes.new_node()), listing(&elsewhere));
        let placement = put_in_place(&archive(&nodes.old()), &nodes.new_node());
        assert_eq!(listing(&nodes.new_node()), listing(&nodes.old()));
        roll_back(placement, &nodes.new_node());
        assert_eq!(listing(&nodes.new_node()), before);
        nodes.restore();
        assert_eq!(listing(&nodes.new_node()), listing(&nodes.old()));
        assert_eq!(listing(&elsewhere), beside);
    }
}

#[test]
fn a_file_that_is_rewritten_all_the_time_never_makes_a_damaged_archive() {
    let nodes = Nodes::new();
    fs::create_dir(nodes.old()).unwrap();
    let path = nodes.old().join("cache");
    fs::write(&path, "").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut file = fs::File::create(&path).unwrap();
                for _ in 0..1_000 {
                    file.write_all(&[7; 10_000]).unwrap();
                }
            }
        });
        for _ in 0..50 {
            let mut bytes = Vec::new();
            match write_tree(&[nodes.old()], &mut bytes) {
                Ok(_) => super::restore(&bytes, &nodes.new_node()),
                Err(error) => assert!(error.to_string().contains("truncated"), "{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
