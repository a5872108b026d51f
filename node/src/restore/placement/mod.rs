//! Replaces the live configuration by the unpacked one, path by path, and can undo the replacement.
//!
//! Each path is staged beside the live one, on the same file system, so that one rename exchanges both. A mount point and
//! the directories around it cannot be renamed: they stay in place, and their entries are exchanged one by one. What is
//! mounted within a path is staged inside that mount, and is replaced like a path of its own.

mod target;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use shared::exit_code::ExitCode;

use self::target::{CONTENT, Target, targets};
use crate::agent::failure::{OrFail as _, Result};
use crate::files::directory::DirectoryAttributes;
use crate::files::mounts::mount_points;
use crate::files::staging::names_in;
use crate::files::{create_private_directory, flags, shown, unless_missing};
use crate::restore::unpack::Places;

/// The staged configuration, and the renames that were made.
#[derive(Debug)]
pub(crate) struct Placement {
    targets: Vec<Target>,
    /// The renames that were made, in order.
    moved: Vec<Moved>,
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
    /// The entries of a directory that stays in place are replaced, and then its own attributes.
    Attributes {
        live: PathBuf,
        before: DirectoryAttributes,
    },
}

/// The result of replacing a path: an error belongs to this path or to one below it.
type Replaced = std::result::Result<(), (PathBuf, io::Error)>;

impl Placement {
    /// Removes the staging directories of earlier restores, then creates one for each path.
    pub(crate) fn prepare(paths: &[PathBuf]) -> Result<Self> {
        let mounts = mount_points().or_fail(
            ExitCode::ConfigurationRestore,
            || "cannot read the mount points",
        )?;
        let paths = paths.iter().enumerate();
        let targets = paths.flat_map(|(number, live)| targets(number, live, &mounts));
        let placement = Self {
            targets: targets.collect(),
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
    pub(crate) fn staged_paths(&self) -> Places {
        let targets = self.targets.iter();
        targets
            .map(|target| (target.name.clone(), target.staging.join(CONTENT)))
            .collect()
    }

    /// Replaces all live paths. If one fails, the ones before it are restored.
    pub(crate) fn put_in_place(&mut self) -> Result<()> {
        for number in 0..self.targets.len() {
            if let Err((path, error)) = self.replace_target(number) {
                self.put_back()?;
                return Err(error).or_fail(ExitCode::ConfigurationRestore, || {
                    format!("cannot replace {}", shown(&path))
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
                Moved::Added { live, staged } => (live, rename(live, staged)),
                Moved::Removed { live, staged } => (live, rename(staged, live)),
                Moved::Attributes { live, before } => (live, before.set(live)),
            };
            undone.or_fail(ExitCode::ConfigurationRestore, || {
                format!("cannot move the former {} back", shown(path))
            })?;
            // Forget the rename only now: until it is undone, the staging directory contains the former path.
            self.moved.pop();
        }
        Ok(())
    }

    /// Removes the staging directories with their content: the former live paths, once they were replaced.
    pub(crate) fn remove_staging(&self) {
        for target in &self.targets {
            if let Err(error) = target.remove_staging() {
                // Nothing reads it, and the next backup or restore removes it.
                tracing::warn!(path = %target.staging.display(), %error, "cannot remove a staging directory");
            }
        }
    }

    fn replace_target(&mut self, number: usize) -> Replaced {
        let Some(target) = self.targets.get(number) else {
            return Ok(());
        };
        let (live, content) = (target.live.clone(), target.staging.join(CONTENT));
        let (inner, is_mount_within) = (target.inner.clone(), target.is_mount_within());
        if !target.mounted && inner.is_empty() {
            return self.replace(&live, &content).map_err(|error| (live, error));
        }
        if is_mount_within && !exists(&content).map_err(|error| (live.clone(), error))? {
            tracing::warn!(mount = %shown(&live), "the backup has nothing of this mount point; its files stay as they are");
            return Ok(());
        }
        self.replace_entries(&live, &content, &inner)
    }

    /// Replaces a path. Directories around mount points stay in place, and so do the mount points.
    fn replace_around(
        &mut self,
        live: &Path,
        staged: &Path,
        inner: &BTreeSet<PathBuf>,
    ) -> Replaced {
        if inner.contains(live) {
            // A target of its own, or a mount that is left as it is.
            return Ok(());
        }
        if inner.iter().any(|mount| mount.starts_with(live)) {
            return self.replace_entries(live, staged, inner);
        }
        let replaced = self.replace(live, staged);
        replaced.map_err(|error| (live.to_owned(), error))
    }

    /// Replaces the entries and the attributes of a directory that stays in place.
    fn replace_entries(
        &mut self,
        live: &Path,
        staged: &Path,
        inner: &BTreeSet<PathBuf>,
    ) -> Replaced {
        let at_live = |error| (live.to_owned(), error);
        let mut names = names_in(live).map_err(at_live)?;
        let wanted = match unless_missing(fs::symlink_metadata(staged)).map_err(at_live)? {
            // A symbolic link in the archive must not lead to other directories of the node.
            Some(metadata) if !metadata.is_dir() => return Err(at_live(cannot_merge())),
            Some(_) => {
                names.extend(names_in(staged).map_err(at_live)?);
                // Now, because exchanging the entries changes the staged directory's time.
                Some(DirectoryAttributes::read(staged).map_err(at_live)?)
            }
            None => {
                // The former entries are moved into it.
                let around = staged.parent().unwrap_or(staged);
                let create = || create_private_directory(staged);
                flags::while_cleared(&[around], create).map_err(at_live)?;
                None
            }
        };
        // First, so that it is undone last: undoing the entries changes the directory's time.
        self.moved.push(Moved::Attributes {
            live: live.to_owned(),
            before: DirectoryAttributes::read(live).map_err(at_live)?,
        });
        let names: BTreeSet<OsString> = names.into_iter().collect();
        for name in names {
            let path = live.join(&name);
            if self.targets.iter().all(|target| target.staging != path) {
                self.replace_around(&path, &staged.join(&name), inner)?;
            }
        }
        match wanted {
            Some(wanted) => wanted.set(live).map_err(at_live),
            None => Ok(()),
        }
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
                rename(&staged, &live)?;
                self.moved.push(Moved::Added { live, staged });
            }
            (true, false) => {
                rename(&live, &staged)?;
                self.moved.push(Moved::Removed { live, staged });
            }
            (false, false) => {}
        }
        Ok(())
    }
}

/// Exchanges two paths in one step, or in three renames if the file system cannot do that.
fn exchange(staged: &Path, live: &Path) -> io::Result<()> {
    while_movable(staged, live, || {
        match renameat_with(CWD, staged, CWD, live, RenameFlags::EXCHANGE) {
            Err(
                rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP,
            ) => exchange_in_three_renames(staged, live),
            exchanged => Ok(exchanged?),
        }
    })
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    while_movable(from, to, || fs::rename(from, to))
}

/// Runs `work`, which renames two paths, while neither they nor the directories around them are immutable.
fn while_movable(
    one: &Path,
    other: &Path,
    work: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let beside = |path: &'_ Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    let (beside_one, beside_other) = (beside(one), beside(other));
    flags::while_cleared(&[one, other, &beside_one, &beside_other], work)
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

/// Returns the error for a live directory that cannot be replaced by a file.
fn cannot_merge() -> io::Error {
    io::Error::other(
        "a file system is mounted at it or within it, but the backup has no directory here; unmount it",
    )
}

fn exists(path: &Path) -> io::Result<bool> {
    Ok(unless_missing(fs::symlink_metadata(path))?.is_some())
}

#[cfg(test)]
mod tests;
