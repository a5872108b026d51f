use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::attributes::timestamp;
use super::*;
use crate::files::tree::write_tree;
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use tar::{Builder, Header};

fn archived(paths: &[PathBuf]) -> Vec<u8> {
    let mut archive = Vec::new();
    write_tree(paths, &mut archive).unwrap();
    archive
}

fn places(targets: &[PathBuf]) -> Places {
    let numbered = targets.iter().enumerate();
    numbered
        .map(|(number, target)| (number.to_string().into(), target.clone()))
        .collect()
}

#[test]
fn an_archived_tree_is_restored_with_all_attributes() {
    let source = tempfile::tempdir().unwrap();
    let tree = source.path().join("tree");
    let odd = tree.join(OsStr::from_bytes(b"not \xff utf-8"));
    let deep = tree.join("long ".repeat(30)).join("longer ".repeat(30));
    fs::create_dir_all(&odd).unwrap();
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    fs::write(deep.join("file"), vec![7; 100_000]).unwrap();
    fs::write(tree.join("program"), "#!/bin/sh").unwrap();
    fs::hard_link(tree.join("program"), odd.join("same program")).unwrap();
    std::os::unix::fs::symlink("../nowhere/at all", tree.join("link")).unwrap();
    rustix::fs::mknodat(
        CWD,
        tree.join("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o620),
        0,
    )
    .unwrap();
    xattr::set(deep.join("file"), "user.lines", b"a\nb\0=\n").unwrap();
    xattr::set(&tree, "user.directory", b"x").unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(tree.join("program"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(tree.join("link"), Some(1234), Some(4321)).unwrap();
    }
    fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o1500)).unwrap();
    let single = source.path().join("single");
    fs::write(&single, "one file").unwrap();
    let long_ago = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: -5,
            tv_nsec: 123_456_789,
        },
    };
    rustix::fs::utimensat(CWD, tree.join("link"), &long_ago, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    rustix::fs::utimensat(CWD, &tree, &long_ago, AtFlags::empty()).unwrap();

    let archive = archived(&[tree, single]);
    let target = tempfile::tempdir().unwrap();
    let targets = ["0", "1"].map(|name| target.path().join(name));
    unpack(&archive[..], &places(&targets)).unwrap();
    assert!(
        archived(&targets) == archive,
        "the unpacked tree makes a different archive"
    );
}

/// Name, type and link of an entry.
type Crafted<'a> = (&'a str, EntryType, &'a str);

/// Returns an archive with these entries, which the library itself would refuse to write.
fn crafted(entries: &[Crafted<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, link) in entries {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let content: &[u8] = if *kind == EntryType::Regular {
            b"x"
        } else {
            b""
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn an_archive_that_leads_out_of_its_targets_is_refused() {
    use EntryType::{Block, Char, Directory, Link, Regular, Symlink};
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    let root = ("0/", Directory, "");
    let cases: &[(&str, &[Crafted<'_>])] = &[
        ("leads out", &[root, ("0/../x", Regular, "")]),
        ("leads out", &[root, (&format!("{path}/x"), Regular, "")]),
        ("leads out", &[root, ("../x", Regular, "")]),
        ("no configured path", &[root, ("", Regular, "")]),
        ("no configured path", &[root, ("1/x", Regular, "")]),
        ("no configured path", &[root, ("etc/passwd", Regular, "")]),
        ("no configured path", &[root, ("00", Symlink, path)]),
        ("no configured path", &[root, ("+0/x", Regular, "")]),
        (
            "not in a directory",
            &[root, ("0/l", Symlink, path), ("0/l/x", Regular, "")],
        ),
        (
            "not in a directory",
            &[("0", Symlink, path), ("0/x", Regular, "")],
        ),
        ("not in a directory", &[root, ("0/no/x", Regular, "")]),
        (
            "twice",
            &[root, ("0/x", Symlink, path), ("0/x", Regular, "")],
        ),
        ("leads out", &[root, ("0/x", Link, "/etc/passwd")]),
        ("leads out", &[root, ("0/x", Link, "0/../../x")]),
        ("links to a file that is not", &[root, ("0/x", Link, "0/y")]),
        (
            "links to a file that is not",
            &[root, ("0/d/", Directory, ""), ("0/x", Link, "0/d")],
        ),
        ("never restored", &[root, ("0/x", Char, "")]),
        ("never restored", &[root, ("0/x", Block, "")]),
        ("nothing of the configured path 0", &[]),
    ];
    for (problem, entries) in cases {
        let target = tempfile::tempdir().unwrap();
        let error = unpack(&crafted(entries)[..], &places(&[target.path().join("0")])).unwrap_err();
        assert!(matches!(error, UnpackError::Archive(_)), "{error:?}");
        assert!(
            error.to_string().contains(problem),
            "{error} is not {problem:?}"
        );
        assert_eq!(
            fs::read_dir(outside.path()).unwrap().count(),
            0,
            "{entries:?}"
        );
        assert_eq!(
            fs::read_dir(target.path())
                .unwrap()
                .filter(|entry| { entry.as_ref().unwrap().file_name() != "0" })
                .count(),
            0,
            "{entries:?}"
        );
    }
}

#[test]
fn no_time_overflows() {
    let far = [
        "170141183460469231731687303715884105727",
        "-9223372036854775809.5",
        "9223372036854775808",
        "1.-5",
        "--1",
        "",
    ];
    for text in far {
        assert_eq!(timestamp(text), None, "{text}");
    }
    let read = timestamp("-9223372036854775807.25").unwrap();
    assert_eq!(
        (read.tv_sec, read.tv_nsec),
        (-9_223_372_036_854_775_808, 750_000_000)
    );
}

#[test]
fn an_archive_that_ends_early_is_refused() {
    let whole = crafted(&[("0", EntryType::Regular, "")]);
    // The header is complete, the content is missing.
    for length in [100, 512, 512 + 1 - 1] {
        let target = tempfile::tempdir().unwrap();
        assert!(
            unpack(&whole[..length], &places(&[target.path().join("0")])).is_err(),
            "{length}"
        );
    }
}
