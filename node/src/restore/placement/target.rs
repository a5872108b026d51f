//! Where the paths of the configuration are live, and where they are staged.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::exit_code::ExitCode;

use crate::agent::failure::{OrFail as _, Result};
use crate::files::directory::keeping_time;
use crate::files::mounts::{reason_to_leave, resolved, within};
use crate::files::{create_private_directory, flags, shown, staging};

/// The name of the staged path in its staging directory.
pub(super) const CONTENT: &str = "content";

/// A path that is replaced: a configured path, or a mount point within one.
#[derive(Debug)]
pub(super) struct Target {
    /// The name of its entry in the archive.
    pub(super) name: PathBuf,
    pub(super) live: PathBuf,
    /// The staging directory.
    pub(super) staging: PathBuf,
    /// Whether the live path is a mount point.
    pub(super) mounted: bool,
    /// The mount points within the live path.
    pub(super) inner: BTreeSet<PathBuf>,
}

/// Returns the targets of a configured path: the path itself, then each mount point within it. Names the mount points that
/// stay as they are in the log.
pub(super) fn targets(number: usize, live: &Path, mounts: &BTreeSet<PathBuf>) -> Vec<Target> {
    let inner = within(live, mounts);
    let number = number.to_string();
    let mounted = mounts.contains(&resolved(live));
    let beside = match live.parent() {
        Some(parent) if !mounted => parent,
        _ => live,
    };
    let staging = |beside: &Path| beside.join(format!("{}{number}", staging::PREFIX));
    let mut targets = vec![Target {
        name: PathBuf::from(&number),
        live: live.to_owned(),
        staging: staging(beside),
        mounted,
        inner: inner.clone(),
    }];
    let mut left: Vec<&Path> = Vec::new();
    for mount in &inner {
        if left.iter().any(|left| mount.starts_with(left)) {
            continue;
        }
        let reason = match reason_to_leave(mount) {
            Ok(None) => {
                let below = mount.strip_prefix(live).unwrap_or(mount);
                targets.push(Target {
                    name: Path::new(&number).join(below),
                    live: mount.clone(),
                    staging: staging(mount),
                    mounted: true,
                    inner: inner
                        .iter()
                        .filter(|other| *other != mount && other.starts_with(mount))
                        .cloned()
                        .collect(),
                });
                continue;
            }
            Ok(Some(reason)) => reason.to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(mount = %shown(mount), reason, "the restore leaves this mount point as it is");
        left.push(mount);
    }
    targets
}

impl Target {
    /// Returns whether it is a mount point within a configured path.
    pub(super) fn is_mount_within(&self) -> bool {
        self.name.components().count() > 1
    }

    /// Removes the staging directories of earlier restores beside this one.
    pub(super) fn remove_leftovers(&self) -> Result<()> {
        let beside = self.beside();
        fs::create_dir_all(beside).or_fail(ExitCode::ConfigurationRestore, || {
            format!("cannot create the directory {}", shown(beside))
        })?;
        staging::remove_from(beside)
    }

    /// Creates the staging directory, which only root can read.
    pub(super) fn create_staging(&self) -> Result<()> {
        let create =
            || flags::while_cleared(&[self.beside()], || create_private_directory(&self.staging));
        self.keeping_time(create)
            .or_fail(ExitCode::ConfigurationRestore, || {
                format!("cannot create the directory {}", shown(&self.staging))
            })
    }

    /// Removes the staging directory with its content.
    pub(super) fn remove_staging(&self) -> io::Result<()> {
        self.keeping_time(|| staging::remove(&self.staging))
    }

    fn beside(&self) -> &Path {
        self.staging.parent().unwrap_or(Path::new("/"))
    }

    /// Runs `work` on the staging directory. If that is in the live path, the live path's time stays as it was.
    fn keeping_time(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.mounted {
            keeping_time(self.beside(), work)
        } else {
            work()
        }
    }
}
