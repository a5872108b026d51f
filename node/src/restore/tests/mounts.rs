//! What is mounted within a configured path is backed up with it. A restore puts the configuration in place around the
//! mounts of the new node, and their files into them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::{Nodes, archive, listing, logged, put_in_place, restore, roll_back, run};
use crate::backup::configuration::warn_of_mounts;
use crate::files::mounts::{mount_points, within};
use crate::restore::placement::Placement;
use crate::restore::unpack::unpack;
use crate::settings::Settings;

/// A mounted file system, unmounted at the end of the test.
struct Mount(PathBuf);

impl Mount {
    /// Creates a directory and mounts a file system there. Returns `None` if the tests may not mount.
    fn new(path: &Path, arguments: &[&str]) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = run("mount", arguments, path);
        if !mounted {
            eprintln!("skipped: mount failed; the tests must run as root");
        }
        mounted.then(|| Self(path.to_owned()))
    }

    fn tmpfs(path: &Path) -> Option<Self> {
        Self::new(path, &["-t", "tmpfs", "-o", "size=5m", "rekindle-test"])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l"], &self.0);
    }
}

fn write(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Creates a configuration around the mount points `secrets` and `deep/er/data`, and files in them. Other entries differ
/// with `node`, or exist on one node only.
fn fill(top: &Path, node: &str) {
    for name in [
        "app.conf",
        "secrets/token",
        "deep/er/data/table",
        "deep/er/own",
        "deep/own",
    ] {
        write(top.join(name), node);
    }
    for place in ["", "secrets", "deep", "deep/er", "deep/er/data"] {
        write(
            top.join(place).join(format!("only {node}")).join("file"),
            node,
        );
    }
    let mode = if node == "old" { 0o710 } else { 0o755 };
    for place in ["", "secrets", "deep", "deep/er"] {
        fs::set_permissions(top.join(place), fs::Permissions::from_mode(mode)).unwrap();
    }
    if node == "old" {
        xattr::set(top.join("deep"), "user.note", b"old").unwrap();
    } else {
        xattr::set(top, "user.gone", b"new").unwrap();
    }
    // Other kinds on the other node.
    let odd = top.join("deep/odd");
    match node {
        "old" => symlink("../app.conf", odd).unwrap(),
        _ => write(odd.join("file"), "new"),
    }
}

#[test]
fn a_configuration_with_mounts_in_it_is_replaced_and_rolled_back() {
    let nodes = Nodes::new();
    let mut mounts = Vec::new();
    for live in [nodes.old(), nodes.new_node()] {
        for place in ["secrets", "deep/er/data"] {
            let Some(mount) = Mount::tmpfs(&live.join(place)) else {
                return;
            };
            mounts.push(mount);
        }
    }
    fill(&nodes.old(), "old");
    fill(&nodes.new_node(), "new");
    let (old, new) = (listing(&nodes.old()), listing(&nodes.new_node()));
    let archive = archive(&nodes.old());

    let placement = put_in_place(&archive, &nodes.new_node());
    roll_back(placement, &nodes.new_node());
    assert_eq!(listing(&nodes.new_node()), new);
    for _ in 0..2 {
        restore(&archive, &nodes.new_node());
        assert_eq!(listing(&nodes.new_node()), old);
    }
    let names: Vec<PathBuf> = within(&nodes.new_node(), &mount_points().unwrap())
        .into_iter()
        .collect();
    let expected = ["deep/er/data", "secrets"].map(|place| nodes.new_node().join(place));
    assert_eq!(names, expected);
}

/// `rekindle-node check` and each backup call the same function.
#[test]
fn each_mount_is_named_in_one_warning() {
    let nodes = Nodes::new();
    let settings = "application = 'app'\nbucket = 'backups'\nregion = 'eu-west-1'\n\
                    [configuration]\npaths = ['/etc/app']\n[postgres]\nhost = '/nonexistent'\n";
    let settings = Settings::parse(settings).unwrap();
    let root = nodes.0.path().join("old");
    let warn = || warn_of_mounts(&settings, &root);
    assert_eq!(logged(warn), [""; 0]);
    let (secrets, proc) = (nodes.old().join("secrets"), nodes.old().join("proc"));
    let Some(_secrets) = Mount::tmpfs(&secrets) else {
        return;
    };
    let _proc = Mount::new(&proc, &["-t", "proc", "proc"]);
    let log = logged(warn);
    assert_eq!(log.len(), 2, "{log:?}");
    for (line, mount, meaning) in [
        (&log[0], proc, "has none of its files"),
        (&log[1], secrets, "the backup has its files"),
    ] {
        assert!(line.contains("WARN") && line.contains(meaning), "{line}");
        assert!(
            line.contains(&format!("mount={} ", mount.display())),
            "{line}"
        );
    }
}

#[test]
fn a_mount_of_one_node_only_does_not_prevent_the_restore() {
    let nodes = Nodes::new();
    fill(&nodes.old(), "old");
    fill(&nodes.new_node(), "new");
    let Some(_only_new) = Mount::tmpfs(&nodes.new_node().join("extra/mount")) else {
        return;
    };
    write(nodes.new_node().join("extra/mount/file"), "new");
    write(nodes.new_node().join("extra/gone/file"), "new");
    let mut expected = listing(&nodes.old());
    nodes.restore();
    let mut restored = listing(&nodes.new_node());
    // The backup has nothing of this mount, so it keeps its files.
    for name in ["extra", "extra/mount", "extra/mount/file"] {
        assert!(restored.remove(Path::new(name)).is_some(), "{name}");
    }
    expected.remove(Path::new(""));
    restored.remove(Path::new(""));
    assert_eq!(restored, expected);

    // The other direction: the old node's mount becomes a plain directory.
    let third = nodes.0.path().join("third/etc/app");
    restore(&archive(&nodes.new_node()), &third);
    assert_eq!(listing(&third), listing(&nodes.new_node()));
}

#[test]
fn a_mount_in_a_mount_and_a_configured_mount_point_are_restored() {
    let nodes = Nodes::new();
    let mut mounts = Vec::new();
    for live in [nodes.old(), nodes.new_node()] {
        for place in ["", "inner", "inner/most"] {
            let Some(mount) = Mount::tmpfs(&live.join(place)) else {
                return;
            };
            mounts.push(mount);
        }
    }
    for (top, text) in [(nodes.old(), "old"), (nodes.new_node(), "new")] {
        for place in ["a", "inner/b", "inner/most/c"] {
            write(top.join(place), text);
        }
    }
    let new = listing(&nodes.new_node());
    let placement = put_in_place(&archive(&nodes.old()), &nodes.new_node());
    assert_eq!(read(&nodes.new_node().join("inner/most/c")), "old");
    roll_back(placement, &nodes.new_node());
    assert_eq!(listing(&nodes.new_node()), new);
    nodes.restore();
    assert_eq!(listing(&nodes.new_node()), listing(&nodes.old()));
    // The mounts are removed in the order of this list.
    mounts.reverse();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn mounts_that_cannot_be_written_are_left_as_they_are() {
    let nodes = Nodes::new();
    let source = nodes.0.path().join("source");
    write(source.join("file"), "mounted");
    write(nodes.old().join("app.conf"), "old");
    for name in ["read-only", "single"] {
        write(nodes.old().join(name).join("file"), "old");
    }
    write(nodes.new_node().join("single/file"), "new");
    let bind = ["--bind", "-o", "ro", source.to_str().unwrap()];
    let file = source.join("file");
    let Some(_kernel_old) = Mount::new(&nodes.old().join("proc"), &["-t", "proc", "proc"]) else {
        return;
    };
    let place = |name: &str| nodes.new_node().join(name);
    let _kernel = Mount::new(&place("proc"), &["-t", "proc", "proc"]);
    let _read_only = Mount::new(&place("read-only"), &bind).unwrap();
    assert!(run(
        "mount",
        &["--bind", file.to_str().unwrap()],
        &place("single/file")
    ));
    let _single = Mount(place("single/file"));

    nodes.restore();
    assert_eq!(read(&place("app.conf")), "old");
    assert_eq!(read(&place("read-only/file")), "mounted");
    assert_eq!(read(&place("single/file")), "mounted");
    assert!(place("proc/self").exists());
}

#[test]
fn a_symbolic_link_in_the_backup_does_not_lead_out_of_a_directory_around_a_mount() {
    let nodes = Nodes::new();
    write(nodes.0.path().join("outside/file"), "untouched");
    fs::create_dir(nodes.old()).unwrap();
    symlink("../../../outside", nodes.old().join("deep")).unwrap();
    let Some(_mount) = Mount::tmpfs(&nodes.new_node().join("deep/mount")) else {
        return;
    };
    write(nodes.new_node().join("deep/file"), "new");
    let mut placement = Placement::prepare(&[nodes.new_node()]).unwrap();
    unpack(&archive(&nodes.old())[..], &placement.staged_paths()).unwrap();
    let failure = placement.put_in_place().unwrap_err().to_string();
    assert!(
        failure.contains("deep: a file system is mounted"),
        "{failure}"
    );
    placement.remove_staging();
    assert_eq!(read(&nodes.0.path().join("outside/file")), "untouched");
    assert_eq!(read(&nodes.new_node().join("deep/file")), "new");
    let names: BTreeSet<_> = listing(&nodes.0.path().join("outside"))
        .into_keys()
        .collect();
    assert_eq!(names.len(), 2);
}
