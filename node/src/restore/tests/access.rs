//! Each restored object has only its own access control list, owner and mode, whatever the new node's directories have.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use super::{Nodes, archive, is_root, listing, put_in_place, restore};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Returns an access control list: read, write and search for the owner, and these rights for the user 1234.
fn acl(rights: u16) -> Vec<u8> {
    let anyone = u32::MAX;
    let entries = [
        (1, 7, anyone),
        (2, rights, 1234),
        (4, 5, anyone),
        (0x10, 7, anyone),
        (0x20, 0, anyone),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (kind, rights, id) in entries {
        list.extend(u16::to_le_bytes(kind));
        list.extend(u16::to_le_bytes(rights));
        list.extend(u32::to_le_bytes(id));
    }
    list
}

/// Gives the directories of both nodes a default list. Returns false if the file system has none.
fn with_default_acl(nodes: &Nodes) -> bool {
    for live in [nodes.old(), nodes.new_node()] {
        if let Err(error) = xattr::set(live.parent().unwrap(), DEFAULT, &acl(7)) {
            eprintln!("skipped: {error}");
            return false;
        }
    }
    true
}

/// Creates a configuration, most of it without an access control list.
fn create_configuration(top: &Path) {
    fs::create_dir_all(top.join("keys/empty")).unwrap();
    fs::create_dir(top.join("shared")).unwrap();
    fs::write(top.join("keys/key.pem"), "secret").unwrap();
    fs::write(top.join("keys/large"), vec![1; 1 << 20]).unwrap();
    fs::write(top.join("shared/report"), "for 1234").unwrap();
    symlink("keys", top.join("link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        top.join("fifo"),
        rustix::fs::FileType::Fifo,
        0o620.into(),
        0,
    )
    .unwrap();
    for (name, mode) in [("", 0o750), ("keys", 0o750), ("keys/key.pem", 0o640)] {
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn a_restored_file_does_not_inherit_an_access_control_list() {
    let nodes = Nodes::new();
    create_configuration(&nodes.old());
    if !with_default_acl(&nodes) {
        return;
    }
    let shared = nodes.old().join("shared");
    xattr::set(&shared, DEFAULT, &acl(5)).unwrap();
    xattr::set(shared.join("report"), ACCESS, &acl(4)).unwrap();
    let before = listing(&nodes.old());
    let archive = archive(&nodes.old());

    let placement = put_in_place(&archive, &nodes.new_node());
    let staged = placement.staged_paths().into_values().next().unwrap();
    for attribute in [ACCESS, DEFAULT] {
        let list = xattr::get(staged.parent().unwrap(), attribute).unwrap();
        assert_eq!(list, None, "the staging directory has {attribute}");
    }
    placement.remove_staging();
    assert_eq!(listing(&nodes.new_node()), before);

    // Again, in place of the restored configuration.
    restore(&archive, &nodes.new_node());
    assert_eq!(listing(&nodes.new_node()), before);
}

#[test]
fn a_restored_single_file_does_not_inherit_an_access_control_list() {
    let nodes = Nodes::new();
    fs::write(nodes.old(), "secret").unwrap();
    fs::set_permissions(nodes.old(), fs::Permissions::from_mode(0o640)).unwrap();
    if with_default_acl(&nodes) {
        nodes.restore();
        assert_eq!(listing(&nodes.new_node()), listing(&nodes.old()));
    }
}

#[test]
fn a_set_group_id_directory_does_not_change_the_group_of_a_restored_file() {
    if !is_root() {
        eprintln!("skipped: only root can change groups");
        return;
    }
    let nodes = Nodes::new();
    create_configuration(&nodes.old());
    let around = nodes.new_node().parent().unwrap().to_owned();
    chown(&around, None, Some(4321)).unwrap();
    fs::set_permissions(&around, fs::Permissions::from_mode(0o2775)).unwrap();
    nodes.restore();
    assert_eq!(listing(&nodes.new_node()), listing(&nodes.old()));
}
