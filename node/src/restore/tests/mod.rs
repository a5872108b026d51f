//! Configuration from one node to another: archived, unpacked, put in place and compared.

mod access;
mod holes;
mod kinds;
mod locked;
mod long_paths;
mod mounts;

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::fs::{IFlags, OFlags, ioctl_getflags};
use tempfile::TempDir;

use crate::files::tree::write_tree;
use crate::restore::placement::Placement;
use crate::restore::unpack::unpack;

/// An old and a new node, each a directory with the configured path `etc/app`.
struct Nodes(TempDir);

impl Nodes {
    fn new() -> Self {
        let nodes = Self(tempfile::tempdir().unwrap());
        for node in ["old", "new"] {
            fs::create_dir_all(nodes.0.path().join(node).join("etc")).unwrap();
        }
        nodes
    }

    fn old(&self) -> PathBuf {
        self.0.path().join("old/etc/app")
    }

    fn new_node(&self) -> PathBuf {
        self.0.path().join("new/etc/app")
    }

    /// Backs up the old node, and restores onto the new one.
    fn restore(&self) {
        restore(&archive(&self.old()), &self.new_node());
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // Otherwise the directory could not be removed.
        let mut unlock = Command::new("chattr");
        unlock.args(["-R", "-f", "-i", "-a"]).arg(self.0.path());
        drop(unlock.status());
    }
}

fn archive(path: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    write_tree(&[path.to_owned()], &mut archive).unwrap();
    archive
}

/// Puts the archive in place of a live path, and can still put the former one back.
fn put_in_place(archive: &[u8], live: &Path) -> Placement {
    let mut placement = Placement::prepare(&[live.to_owned()]).unwrap();
    unpack(archive, &placement.staged_paths()).unwrap();
    placement.put_in_place().unwrap();
    placement
}

/// Restores the archive; checks that no staging directory is left.
fn restore(archive: &[u8], live: &Path) {
    put_in_place(archive, live).remove_staging();
    assert_nothing_is_staged(live);
}

/// Undoes a restore; checks that no staging directory is left.
fn roll_back(mut placement: Placement, live: &Path) {
    placement.put_back().unwrap();
    placement.remove_staging();
    assert_nothing_is_staged(live);
}

fn assert_nothing_is_staged(live: &Path) {
    let beside = live.parent().unwrap();
    let names = fs::read_dir(beside).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [live.file_name().unwrap()]);
}

/// Runs `work`, and returns the lines that it logs.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Mutex::new(File::create(&path).unwrap()))
        .finish();
    tracing::subscriber::with_default(log, work);
    let text = fs::read_to_string(&path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let run = Command::new(program).args(arguments).arg(path).status();
    run.unwrap().success()
}

/// Returns each path below a directory with everything that a restore must keep, except for holes.
fn listing(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let name = path.strip_prefix(top).unwrap().to_owned();
        found.insert(name, description(&path, &metadata));
    }
    found
}

fn description(path: &Path, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let (mut content, mut names, mut flags) = (Vec::new(), 0, IFlags::empty());
    let mut attributes = BTreeMap::new();
    if kind.is_symlink() {
        content = fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec();
    } else {
        for name in xattr::list(path).unwrap() {
            attributes.insert(name.clone(), xattr::get(path, &name).unwrap());
        }
    }
    if kind.is_file() {
        content = fs::read(path).unwrap();
        names = metadata.nlink();
    }
    if kind.is_file() || kind.is_dir() {
        flags = flags_of(path).unwrap();
    }
    format!(
        "{kind:?} {:o} {}:{} {}.{:09} {names} {flags:?} {attributes:?} {:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        shared::checksum::digests(&content).sha256,
    )
}

/// Returns the flags of `chattr` that forbid changes.
fn flags_of(path: &Path) -> io::Result<IFlags> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file: File = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let read = ioctl_getflags(&file).unwrap_or(IFlags::empty());
    Ok(read & (IFlags::IMMUTABLE | IFlags::APPEND))
}
