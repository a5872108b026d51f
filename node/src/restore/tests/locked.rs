//! Immutable and append-only files are replaced, keep their flags, and are restored with the flags of the old node.

use std::fs;
use std::path::Path;

use rustix::fs::IFlags;

use super::{Nodes, archive, flags_of, listing, put_in_place, restore, roll_back, run};
use crate::files::staging;

/// Sets or clears a flag. Prints why the test is skipped if that is impossible.
fn change_flag(flag: &str, path: &Path) -> bool {
    let changed = run("chattr", &[flag], path);
    if !changed {
        eprintln!(
            "skipped: chattr {flag} failed; the file system must have flags, and the tests must run as root"
        );
    }
    changed
}

/// Creates a configuration with flags of both kinds, on files and directories. Returns false if that is impossible.
fn create_locked(top: &Path, text: &str) -> bool {
    fs::create_dir_all(top.join("logs/deep")).unwrap();
    fs::create_dir_all(top.join("closed")).unwrap();
    for name in ["resolv.conf", "closed/file", "logs/deep/log", "usual"] {
        fs::write(top.join(name), text).unwrap();
    }
    fs::hard_link(top.join("resolv.conf"), top.join("second name")).unwrap();
    let flags = [
        ("+i", "resolv.conf"),
        ("+a", "logs/deep/log"),
        ("+a", "logs"),
        ("+i", "closed"),
    ];
    flags
        .iter()
        .all(|(flag, name)| change_flag(flag, &top.join(name)))
}

#[test]
fn flags_are_restored_and_do_not_prevent_the_next_restore() {
    let nodes = Nodes::new();
    if !create_locked(&nodes.old(), "old") {
        return;
    }
    let before = listing(&nodes.old());
    let archive = archive(&nodes.old());
    for _ in 0..3 {
        restore(&archive, &nodes.new_node());
        assert_eq!(listing(&nodes.new_node()), before);
    }
}

#[test]
fn a_rollback_keeps_the_flags_of_the_former_files() {
    let nodes = Nodes::new();
    fs::create_dir(nodes.old()).unwrap();
    fs::write(nodes.old().join("resolv.conf"), "without flags").unwrap();
    if !create_locked(&nodes.new_node(), "new") || !change_flag("+i", &nodes.new_node()) {
        return;
    }
    let before = listing(&nodes.new_node());
    let placement = put_in_place(&archive(&nodes.old()), &nodes.new_node());
    assert_eq!(listing(&nodes.new_node()), listing(&nodes.old()));
    roll_back(placement, &nodes.new_node());
    assert_eq!(listing(&nodes.new_node()), before);
}

#[test]
fn a_configured_path_with_flags_in_an_immutable_directory_is_replaced() {
    for flag in ["+i", "+a"] {
        let nodes = Nodes::new();
        fs::write(nodes.old(), "old").unwrap();
        fs::write(nodes.new_node(), "new").unwrap();
        let around = nodes.new_node().parent().unwrap().to_owned();
        let locked = [&nodes.old(), &nodes.new_node(), &around];
        if !locked.iter().all(|path| change_flag(flag, path)) {
            return;
        }
        let (before, flags) = (listing(&nodes.new_node()), flags_of(&around).unwrap());
        assert!(!flags.is_empty());
        let archive = archive(&nodes.old());

        let placement = put_in_place(&archive, &nodes.new_node());
        roll_back(placement, &nodes.new_node());
        assert_eq!(listing(&nodes.new_node()), before);
        restore(&archive, &nodes.new_node());
        assert_eq!(listing(&nodes.new_node()), listing(&nodes.old()));
        assert_eq!(flags_of(&around).unwrap(), flags);
    }
}

#[test]
fn an_immutable_leftover_of_an_earlier_restore_is_removed() {
    let nodes = Nodes::new();
    let beside = nodes.new_node().parent().unwrap().to_owned();
    let leftover = beside.join(format!("{}0/content", staging::PREFIX));
    if !create_locked(&leftover, "left") || !change_flag("+i", leftover.parent().unwrap()) {
        return;
    }
    staging::remove_leftovers([nodes.new_node()].into_iter()).unwrap();
    assert_eq!(fs::read_dir(&beside).unwrap().count(), 0);
    assert_eq!(flags_of(&beside).unwrap(), IFlags::empty());
}
