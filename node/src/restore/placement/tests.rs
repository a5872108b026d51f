use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

/// Writes a file with its directories.
fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Writes a new configuration into the staging directories.
fn stage(placement: &Placement) {
    let targets: Vec<PathBuf> = placement.staged_paths().into_values().collect();
    write(&targets[0].join("new"), "new");
    write(&targets[1], "new");
    write(&targets[2].join("deep/new"), "new");
}

#[test]
fn the_configuration_is_replaced_and_put_back() {
    let root = tempfile::tempdir().unwrap();
    let paths = ["etc/app", "etc/app.conf", "not/yet/there"].map(|path| root.path().join(path));
    write(&paths[0].join("old"), "old");
    write(&paths[1], "old");
    write(
        &root.path().join("etc/.rekindle-restore-7/content"),
        "leftover",
    );

    let mut placement = Placement::prepare(&paths).unwrap();
    stage(&placement);
    placement.put_in_place().unwrap();
    assert_eq!(read(&paths[0].join("new")).as_deref(), Some("new"));
    assert_eq!(read(&paths[0].join("old")), None);
    assert_eq!(read(&paths[1]).as_deref(), Some("new"));
    assert_eq!(read(&paths[2].join("deep/new")).as_deref(), Some("new"));

    placement.put_back().unwrap();
    placement.remove_staging();
    assert_eq!(read(&paths[0].join("old")).as_deref(), Some("old"));
    assert_eq!(read(&paths[0].join("new")), None);
    assert_eq!(read(&paths[1]).as_deref(), Some("old"));
    assert!(!paths[2].exists());
    let mut names = names_in(&root.path().join("etc")).unwrap();
    names.sort();
    assert_eq!(names, ["app", "app.conf"]);
}

#[test]
fn three_renames_exchange_two_paths_or_leave_the_live_one() {
    let root = tempfile::tempdir().unwrap();
    let (staged, live) = (root.path().join("staged"), root.path().join("live"));
    write(&staged, "new");
    write(&live, "old");
    exchange_in_three_renames(&staged, &live).unwrap();
    assert_eq!(read(&staged).as_deref(), Some("old"));
    assert_eq!(read(&live).as_deref(), Some("new"));

    fs::remove_file(&staged).unwrap();
    exchange_in_three_renames(&staged, &live).unwrap_err();
    assert_eq!(names_in(root.path()).unwrap(), ["live"]);
    assert_eq!(read(&live).as_deref(), Some("new"));
}

#[test]
fn if_one_path_cannot_be_replaced_the_others_are_put_back() {
    let root = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|path| root.path().join(path));
    write(&paths[0], "old");
    let mut placement = Placement::prepare(&paths).unwrap();
    for path in placement.staged_paths().values() {
        write(path, "new");
    }
    // This live path cannot exist, because its parent is a file.
    placement.targets[1].live = paths[0].join("below a file");
    let failure = placement.put_in_place().unwrap_err();
    assert_eq!(failure.code, ExitCode::ConfigurationRestore);
    assert_eq!(read(&paths[0]).as_deref(), Some("old"));
}

#[test]
fn the_entries_of_a_mount_point_are_exchanged_one_by_one() {
    let root = tempfile::tempdir().unwrap();
    let live = root.path().join("mounted");
    write(&live.join("both"), "old");
    write(&live.join("gone"), "old");
    let staging = live.join(".rekindle-restore-0");
    write(&staging.join("content/both"), "new");
    write(&staging.join("content/fresh"), "new");
    fs::set_permissions(staging.join("content"), fs::Permissions::from_mode(0o750)).unwrap();
    let before = fs::metadata(&live).unwrap().mode();

    let target = Target {
        name: "0".into(),
        live: live.clone(),
        staging,
        mounted: true,
        inner: BTreeSet::new(),
    };
    let mut placement = Placement {
        targets: vec![target],
        moved: Vec::new(),
    };
    placement.put_in_place().unwrap();
    assert_eq!(read(&live.join("both")).as_deref(), Some("new"));
    assert_eq!(read(&live.join("fresh")).as_deref(), Some("new"));
    assert_eq!(read(&live.join("gone")), None);
    assert_eq!(fs::metadata(&live).unwrap().mode() & 0o7777, 0o750);

    placement.put_back().unwrap();
    placement.remove_staging();
    let mut names = names_in(&live).unwrap();
    names.sort();
    assert_eq!(names, ["both", "gone"]);
    assert_eq!(read(&live.join("both")).as_deref(), Some("old"));
    assert_eq!(fs::metadata(&live).unwrap().mode(), before);
}
