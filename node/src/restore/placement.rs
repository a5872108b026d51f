//! Puts an unpacked configuration in the place of the live one, path by path, and can take that back.
//!
//! Everything is staged beside its path, on the same file system, so that each exchange is one rename. A path
//! that is a mount point cannot be renamed: it is staged inside, and what is in it is exchanged.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use shared::report::ExitCode;

use crate::agent::failure::{Failure, OrFail as _, Result};

/// How the names of staging directories begin.
const PREFIX: &str = ".rekindle-restore-";
/// What is staged, within the staging directory.
const CONTENT: &str = "content";

/// Staged configuration, and how far it has been put in place.
#[derive(Debug)]
pub(crate) struct Placement {
    places: Vec<Place>,
    /// The exchanges that were made, in order.
    moved: Vec<Moved>,
}

#[derive(Debug)]
struct Place {
    live: PathBuf,
    staging: PathBuf,
    mounted: bool,
}

/// One rename that was done.
#[derive(Debug)]
enum Moved {
    /// Both names exist, and were exchanged.
    Exchanged { live: PathBuf, staged: PathBuf },
    /// The live name did not exist.
    Added { live: PathBuf, staged: PathBuf },
    /// The staged name did not exist.
    Removed { live: PathBuf, staged: PathBuf },
    /// A mount point's own attributes were set.
    Attributes { live: PathBuf, before: fs::Metadata },
}

impl Placement {
    /// Makes a staging directory for every path of the node; whatever an earlier attempt left there is removed.
    pub(crate) fn prepare(paths: &[PathBuf]) -> Result<Self> {
        let mounts = mount_points().or_fail(
            ExitCode::ConfigurationRestore,
            || "read which file systems are mounted",
        )?;
        let mut placement = Self {
            places: Vec::new(),
            moved: Vec::new(),
        };
        for (number, live) in paths.iter().enumerate() {
            let resolved = resolved(live);
            if let Some(inner) = mounts
                .iter()
                .find(|mount| **mount != resolved && mount.starts_with(&resolved))
            {
                // Exchanging the directory would take along, and then remove, what is mounted in it.
                let message = format!(
                    "{} is a mount point within the configured path {}: unmount it, or configure the paths beside it",
                    inner.display(),
                    live.display()
                );
                return Err(Failure::new(ExitCode::ConfigurationRestore, message));
            }
            let mounted = mounts.contains(&resolved);
            let beside = match live.parent() {
                Some(parent) if !mounted => parent,
                _ => live,
            };
            let staging = beside.join(format!("{PREFIX}{number}"));
            placement.places.push(Place {
                live: live.clone(),
                staging,
                mounted,
            });
        }
        // All leftovers go before the first directory is made: several paths may lie beside each other.
        let places = &placement.places;
        let made = places
            .iter()
            .try_for_each(Place::clear)
            .and_then(|()| places.iter().try_for_each(Place::make));
        if made.is_err() {
            placement.remove_staging();
        }
        made?;
        Ok(placement)
    }

    /// Returns where each path is to be unpacked.
    pub(crate) fn targets(&self) -> Vec<PathBuf> {
        let targets = self.places.iter().map(|place| place.staging.join(CONTENT));
        targets.collect()
    }

    /// Exchanges all paths. If one cannot be, those before it are put back.
    pub(crate) fn put_in_place(&mut self) -> Result<()> {
        for number in 0..self.places.len() {
            if let Err((path, error)) = self.put(number) {
                self.put_back()?;
                return Err(error).or_fail(ExitCode::ConfigurationRestore, || {
                    format!("put {} in place", path.display())
                });
            }
        }
        Ok(())
    }

    /// Puts back what was there before.
    pub(crate) fn put_back(&mut self) -> Result<()> {
        while let Some(moved) = self.moved.last() {
            let (path, undone) = match moved {
                Moved::Exchanged { live, staged } => (live, exchange(staged, live)),
                Moved::Added { live, staged } => (live, fs::rename(live, staged)),
                Moved::Removed { live, staged } => (live, fs::rename(staged, live)),
                Moved::Attributes { live, before } => (live, set_attributes(live, before)),
            };
            undone.or_fail(ExitCode::ConfigurationRestore, || {
                format!("put the former {} back", path.display())
            })?;
            // Only now: as long as something is not back, nothing that is staged may be removed.
            self.moved.pop();
        }
        Ok(())
    }

    /// Removes the staging directories, and with them whatever they hold by now.
    pub(crate) fn remove_staging(&self) {
        for place in &self.places {
            if let Err(error) = remove(&place.staging) {
                // Nothing reads it any more, and the next attempt or backup removes it first.
                tracing::warn!(path = %place.staging.display(), %error, "a staging directory stays behind");
            }
        }
    }

    fn put(&mut self, number: usize) -> std::result::Result<(), (PathBuf, io::Error)> {
        let Some(place) = self.places.get(number) else {
            return Ok(());
        };
        let (live, content) = (place.live.clone(), place.staging.join(CONTENT));
        if !place.mounted {
            return self.replace(&live, &content).map_err(|error| (live, error));
        }
        let staging_name = place.staging.file_name().map(OsString::from);
        let names = children(&live)
            .and_then(|names| Ok((names, children(&content)?)))
            .map_err(|error| (live.clone(), error))?;
        let names: BTreeSet<OsString> = names.0.into_iter().chain(names.1).collect();
        for name in names {
            if Some(&name) == staging_name.as_ref() {
                continue;
            }
            let path = live.join(&name);
            self.replace(&path, &content.join(&name))
                .map_err(|error| (path, error))?;
        }
        let attributes = || {
            let before = fs::metadata(&live)?;
            let wanted = fs::metadata(&content)?;
            set_attributes(&live, &wanted)?;
            Ok(before)
        };
        let before = attributes().map_err(|error| (live.clone(), error))?;
        self.moved.push(Moved::Attributes { live, before });
        Ok(())
    }

    /// Gives the live name to what is staged, and the staged one to what was live, where either exists.
    fn replace(&mut self, live: &Path, staged: &Path) -> io::Result<()> {
        let (live, staged) = (live.to_owned(), staged.to_owned());
        match (exists(&live)?, exists(&staged)?) {
            (true, true) => {
                exchange(&staged, &live)?;
                self.moved.push(Moved::Exchanged { live, staged });
            }
            (false, true) => {
                fs::rename(&staged, &live)?;
                self.moved.push(Moved::Added { live, staged });
            }
            (true, false) => {
                fs::rename(&live, &staged)?;
                self.moved.push(Moved::Removed { live, staged });
            }
            (false, false) => {}
        }
        Ok(())
    }
}

impl Place {
    /// Removes the staging directories of earlier attempts.
    fn clear(&self) -> Result<()> {
        let beside = self.staging.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(beside).or_fail(ExitCode::ConfigurationRestore, || {
            format!("make {}", beside.display())
        })?;
        clear(beside)
    }

    /// Makes the staging directory, closed to others.
    fn make(&self) -> Result<()> {
        fs::create_dir(&self.staging)
            .and_then(|()| fs::set_permissions(&self.staging, fs::Permissions::from_mode(0o700)))
            .or_fail(ExitCode::ConfigurationRestore, || {
                format!("make {}", self.staging.display())
            })
    }
}

/// Exchanges two names at once, or, on a file system that cannot, one after the other.
fn exchange(staged: &Path, live: &Path) -> io::Result<()> {
    match renameat_with(CWD, staged, CWD, live, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            let aside = staged.with_extension("aside");
            fs::rename(live, &aside)?;
            if let Err(error) = fs::rename(staged, live) {
                fs::rename(&aside, live)?;
                return Err(error);
            }
            fs::rename(&aside, staged)
        }
        exchanged => Ok(exchanged?),
    }
}

fn set_attributes(path: &Path, wanted: &fs::Metadata) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    fs::set_permissions(path, wanted.permissions())
}

fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn children(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

/// Removes the staging directories of earlier attempts beside and within the node's paths.
pub(crate) fn remove_leftovers(paths: impl Iterator<Item = PathBuf>) -> Result<()> {
    for path in paths {
        let beside = path.parent().unwrap_or(Path::new("/"));
        for directory in [beside, &path].into_iter().filter(|one| one.is_dir()) {
            clear(directory)?;
        }
    }
    Ok(())
}

fn clear(directory: &Path) -> Result<()> {
    remove_staged(directory).or_fail(ExitCode::ConfigurationRestore, || {
        format!("clear {}", directory.display())
    })
}

fn remove_staged(directory: &Path) -> io::Result<()> {
    for name in children(directory)? {
        if name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            tracing::info!(path = %directory.join(&name).display(), "removing what an earlier attempt left");
            remove(&directory.join(&name))?;
        }
    }
    Ok(())
}

/// Removes a staging directory with all that is in it, but never what somebody has mounted there since.
fn remove(path: &Path) -> io::Result<()> {
    let resolved = resolved(path);
    if let Some(mount) = mount_points()?
        .iter()
        .find(|mount| mount.starts_with(&resolved))
    {
        return Err(io::Error::other(format!(
            "{} is mounted in it",
            mount.display()
        )));
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns the path as the kernel's mount table would have it: without symbolic links on the way to its last name.
fn resolved(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .and_then(|parent| fs::canonicalize(parent).ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// Lists the mount points of this process.
fn mount_points() -> io::Result<BTreeSet<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points
        .map(|point| PathBuf::from(unescaped(point)))
        .collect())
}

/// Reads the kernel's octal escapes, such as `\040` for a space.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, following)) = rest.split_first() {
        let escaped = following.get(..3).filter(|_| first == b'\\');
        let code = escaped
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() {
            &following[3..]
        } else {
            following
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file with its directories.
    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn staged(placement: &Placement) {
        let targets = placement.targets();
        write(&targets[0].join("new"), "new");
        write(&targets[1], "new");
        write(&targets[2].join("deep/new"), "new");
    }

    #[test]
    fn configuration_is_exchanged_and_put_back_whole() {
        let root = tempfile::tempdir().unwrap();
        let paths = ["etc/app", "etc/app.conf", "not/yet/there"].map(|path| root.path().join(path));
        write(&paths[0].join("old"), "old");
        write(&paths[1], "old");
        write(
            &root.path().join("etc/.rekindle-restore-7/content"),
            "leftover",
        );

        let mut placement = Placement::prepare(&paths).unwrap();
        staged(&placement);
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
        let mut names = children(&root.path().join("etc")).unwrap();
        names.sort();
        assert_eq!(names, ["app", "app.conf"]);
    }

    #[test]
    fn a_path_that_cannot_be_placed_puts_the_others_back() {
        let root = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|path| root.path().join(path));
        write(&paths[0], "old");
        let mut placement = Placement::prepare(&paths).unwrap();
        write(&placement.targets()[0], "new");
        write(&placement.targets()[1], "new");
        // Someone takes the staged file away and leaves a name that leads nowhere.
        placement.places[1].live = paths[0].join("below a file");
        let failure = placement.put_in_place().unwrap_err();
        assert_eq!(failure.code, ExitCode::ConfigurationRestore);
        assert_eq!(read(&paths[0]).as_deref(), Some("old"));
    }

    #[test]
    fn what_is_in_a_mount_point_is_exchanged_one_by_one() {
        let root = tempfile::tempdir().unwrap();
        let live = root.path().join("mounted");
        write(&live.join("both"), "old");
        write(&live.join("gone"), "old");
        let staging = live.join(".rekindle-restore-0");
        write(&staging.join("content/both"), "new");
        write(&staging.join("content/fresh"), "new");
        fs::set_permissions(staging.join("content"), fs::Permissions::from_mode(0o750)).unwrap();
        let before = fs::metadata(&live).unwrap().mode();

        let place = Place {
            live: live.clone(),
            staging,
            mounted: true,
        };
        let mut placement = Placement {
            places: vec![place],
            moved: Vec::new(),
        };
        placement.put_in_place().unwrap();
        assert_eq!(read(&live.join("both")).as_deref(), Some("new"));
        assert_eq!(read(&live.join("fresh")).as_deref(), Some("new"));
        assert_eq!(read(&live.join("gone")), None);
        assert_eq!(fs::metadata(&live).unwrap().mode() & 0o7777, 0o750);

        placement.put_back().unwrap();
        placement.remove_staging();
        let mut names = children(&live).unwrap();
        names.sort();
        assert_eq!(names, ["both", "gone"]);
        assert_eq!(read(&live.join("both")).as_deref(), Some("old"));
        assert_eq!(fs::metadata(&live).unwrap().mode(), before);
    }

    #[test]
    fn the_kernels_mount_table_is_read() {
        assert!(mount_points().unwrap().contains(Path::new("/proc")));
        assert_eq!(unescaped(r"/a\040b\134c"), r"/a b\c");
    }
}
