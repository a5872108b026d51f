//! Replaces the live configuration by the unpacked one, path by path, and can undo the replacement.
//!
//! Each path is staged beside the live one, on the same file system, so that one rename exchanges both. A mount point
//! cannot be renamed: it is staged inside, and the entries of the directory are exchanged one by one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use shared::exit_code::ExitCode;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::files::mounts::{mount_points, resolved};
use crate::files::staging::{self, names_in};
use crate::files::{create_private_directory, unless_missing};

/// The name of the staged path in its staging directory.
const CONTENT: &str = "content";

/// The staged configuration, and the renames that were made.
#[derive(Debug)]
pub(crate) struct Placement {
    targets: Vec<Target>,
    /// The renames that were made, in order.
    moved: Vec<Moved>,
}

/// One path of the configuration.
#[derive(Debug)]
struct Target {
    live: PathBuf,
    /// The staging directory.
    staging: PathBuf,
    /// Whether the live path is a mount point.
    mounted: bool,
}

/// One rename that was made.
#[derive(Debug)]
enum Moved {
    /// Both names existed and were exchanged.
    Exchanged { live: PathBuf, staged: PathBuf },
    /// The live name did not exist.
    Added { live: PathBuf, staged: PathBuf },
    /// The staged name did not exist.
    Removed { live: PathBuf, staged: PathBuf },
    /// A mount point's own attributes were set.
    Attributes { live: PathBuf, before: fs::Metadata },
}

impl Placement {
    /// Removes the staging directories of earlier restores, then creates one for each path.
    pub(crate) fn prepare(paths: &[PathBuf]) -> Result<Self> {
        let mounts = mount_points().or_fail(
            ExitCode::ConfigurationRestore,
            || "cannot read the mount points",
        )?;
        let targets = paths.iter().enumerate();
        let targets: Result<Vec<Target>> = targets
            .map(|(number, live)| target(number, live, &mounts))
            .collect();
        let placement = Self {
            targets: targets?,
            moved: Vec::new(),
        };
        // Remove all leftovers before the first directory is created: several paths can have the same parent.
        let targets = &placement.targets;
        let created = targets
            .iter()
            .try_for_each(Target::remove_leftovers)
            .and_then(|()| targets.iter().try_for_each(Target::create_staging));
        if created.is_err() {
            placement.remove_staging();
        }
        created?;
        Ok(placement)
    }

    /// Returns the path to which each archived path must be unpacked.
    pub(crate) fn staged_paths(&self) -> Vec<PathBuf> {
        let targets = self.targets.iter();
        targets.map(|target| target.staging.join(CONTENT)).collect()
    }

    /// Replaces all live paths. If one fails, the ones before it are restored.
    pub(crate) fn put_in_place(&mut self) -> Result<()> {
        for number in 0..self.targets.len() {
            if let Err((path, error)) = self.replace_target(number) {
                self.put_back()?;
                return Err(error).or_fail(ExitCode::ConfigurationRestore, || {
                    format!("cannot replace {}", path.display())
                });
            }
        }
        Ok(())
    }

    /// Undoes all renames, so that the former live paths are back.
    pub(crate) fn put_back(&mut self) -> Result<()> {
        while let Some(moved) = self.moved.last() {
            let (path, undone) = match moved {
                Moved::Exchanged { live, staged } => (live, exchange(staged, live)),
                Moved::Added { live, staged } => (live, fs::rename(live, staged)),
                Moved::Removed { live, staged } => (live, fs::rename(staged, live)),
                Moved::Attributes { live, before } => (live, set_attributes(live, before)),
            };
            undone.or_fail(ExitCode::ConfigurationRestore, || {
                format!("cannot move the former {} back", path.display())
            })?;
            // Forget the rename only now: until it is undone, the staging directory contains the former path.
            self.moved.pop();
        }
        Ok(())
    }

    /// Removes the staging directories with their content: the former live paths, once they were replaced.
    pub(crate) fn remove_staging(&self) {
        for target in &self.targets {
            if let Err(error) = staging::remove(&target.staging) {
                // Nothing reads it, and the next backup or restore removes it.
                tracing::warn!(path = %target.staging.display(), %error, "cannot remove a staging directory");
            }
        }
    }

    fn replace_target(&mut self, number: usize) -> std::result::Result<(), (PathBuf, io::Error)> {
        let Some(target) = self.targets.get(number) else {
            return Ok(());
        };
        let (live, content) = (target.live.clone(), target.staging.join(CONTENT));
        if !target.mounted {
            return self.replace(&live, &content).map_err(|error| (live, error));
        }
        let staging_name = target.staging.file_name().map(OsString::from);
        let names = names_in(&live)
            .and_then(|names| Ok((names, names_in(&content)?)))
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

    /// Exchanges the live and the staged path. Either may be missing.
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

/// Returns where a path is live and staged. Fails if another file system is mounted within the path: replacing the path
/// would move and then remove what is mounted there.
fn target(number: usize, live: &Path, mounts: &BTreeSet<PathBuf>) -> Result<Target> {
    let resolved = resolved(live);
    if let Some(inner) = mounts
        .iter()
        .find(|mount| **mount != resolved && mount.starts_with(&resolved))
    {
        let message = format!(
            "cannot replace the configured path {}: a file system is mounted within it, at {}; unmount it, or configure \
             only the paths beside it",
            live.display(),
            inner.display()
        );
        return Err(Failure::new(ExitCode::ConfigurationRestore, message));
    }
    let mounted = mounts.contains(&resolved);
    let beside = match live.parent() {
        Some(parent) if !mounted => parent,
        _ => live,
    };
    Ok(Target {
        live: live.to_owned(),
        staging: beside.join(format!("{}{number}", staging::PREFIX)),
        mounted,
    })
}

impl Target {
    /// Removes the staging directories of earlier restores beside this one.
    fn remove_leftovers(&self) -> Result<()> {
        let beside = self.staging.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(beside).or_fail(ExitCode::ConfigurationRestore, || {
            format!("cannot create the directory {}", beside.display())
        })?;
        staging::remove_from(beside)
    }

    /// Creates the staging directory, which only root can read.
    fn create_staging(&self) -> Result<()> {
        create_private_directory(&self.staging).or_fail(ExitCode::ConfigurationRestore, || {
            format!("cannot create the directory {}", self.staging.display())
        })
    }
}

/// Exchanges two paths in one step, or in three renames if the file system cannot do that.
fn exchange(staged: &Path, live: &Path) -> io::Result<()> {
    match renameat_with(CWD, staged, CWD, live, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            exchange_in_three_renames(staged, live)
        }
        exchanged => Ok(exchanged?),
    }
}

fn exchange_in_three_renames(staged: &Path, live: &Path) -> io::Result<()> {
    // No archived path ends like this, so the name is free.
    let mut former = staged.as_os_str().to_owned();
    former.push(".rekindle-former");
    let former = PathBuf::from(former);
    fs::rename(live, &former)?;
    if let Err(error) = fs::rename(staged, live) {
        fs::rename(&former, live)?;
        return Err(error);
    }
    fs::rename(&former, staged)
}

fn set_attributes(path: &Path, wanted: &fs::Metadata) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    fs::set_permissions(path, wanted.permissions())
}

fn exists(path: &Path) -> io::Result<bool> {
    Ok(unless_missing(fs::symlink_metadata(path))?.is_some())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
        let targets = placement.staged_paths();
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
        write(&placement.staged_paths()[0], "new");
        write(&placement.staged_paths()[1], "new");
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
            live: live.clone(),
            staging,
            mounted: true,
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
}
