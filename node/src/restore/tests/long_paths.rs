//! A path that the kernel cannot open as a whole does not stop the backup of the others.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::{Nodes, archive, listing, logged, restore};

/// Creates nested directories, and a file in the innermost one. Works around the kernel's limit with file descriptors.
fn create_deep(top: &Path, depth: usize, name: &str) {
    fs::create_dir_all(top).unwrap();
    let mut directory = openat(CWD, top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&directory, name, Mode::RWXU).unwrap();
        directory = openat(&directory, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    openat(&directory, "file", flags, Mode::RUSR).unwrap();
}

#[test]
fn a_path_that_is_too_long_is_left_out_and_the_others_are_restored() {
    let nodes = Nodes::new();
    create_deep(&nodes.old().join("deep"), 30, &"d".repeat(200));
    create_deep(&nodes.old().join("many"), 300, &"x".repeat(20));
    fs::write(nodes.old().join("app.conf"), "kept").unwrap();

    let mut archived = Vec::new();
    let log = logged(|| archived = archive(&nodes.old()));
    let archive = archived;
    let left_out = log.iter().filter(|line| line.contains("left out"));
    let left_out: Vec<&String> = left_out.collect();
    assert_eq!(left_out.len(), 2, "{log:?}");
    for line in left_out {
        assert!(line.contains("ERROR") && line.len() < 600, "{line}");
    }
    restore(&archive, &nodes.new_node());
    let kept = listing(&nodes.new_node());
    assert!(kept.contains_key(Path::new("app.conf")));
    let deepest = kept.keys().map(|path| path.as_os_str().len()).max();
    assert!(deepest.unwrap() > 3_700, "{deepest:?}");
    // A restore onto the node that still has the long path.
    restore(&archive, &nodes.old());
    assert_eq!(listing(&nodes.old()), kept);
}

#[test]
fn a_path_of_the_longest_length_is_restored() {
    let nodes = Nodes::new();
    let mut deepest = nodes.old();
    while deepest.as_os_str().len() <= 3_700 {
        deepest.push("d".repeat(200));
    }
    fs::create_dir_all(&deepest).unwrap();
    let rest = 4_000 - deepest.as_os_str().len() - 1;
    fs::write(deepest.join("f".repeat(rest.min(255))), "deep").unwrap();
    nodes.restore();
    assert_eq!(listing(&nodes.new_node()), listing(&nodes.old()));
}
