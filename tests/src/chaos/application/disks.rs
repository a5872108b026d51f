//! Small disks for nodes, which can fill up: tmpfs mounts, which need root.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};

use crate::lock::lock;
use crate::nodes::machine::Node;

/// Enough for a cluster with the write-ahead log of a restore.
const SIZE: &str = "size=1400m";

/// The small disks of an application's nodes.
#[derive(Debug, Default)]
pub struct Disks {
    plan: Mutex<Option<&'static str>>,
    /// The instances, and the mount points of their small disks.
    mounted: Mutex<Vec<(String, PathBuf)>>,
}

impl Disks {
    /// Returns whether this process may mount a tmpfs.
    pub fn possible() -> bool {
        rustix::process::geteuid().is_root()
            && tempfile::tempdir().is_ok_and(|folder| {
                let mounted = mount(folder.path()).is_ok();
                mounted && unmount(folder.path()).is_ok()
            })
    }

    /// Gives every node that boots from now on a small disk at this path.
    pub fn plan(&self, part: &'static str) {
        *lock(&self.plan) = Some(part);
    }

    /// Gives the nodes that boot from now on no small disk.
    pub fn forget_plan(&self) {
        *lock(&self.plan) = None;
    }

    /// Mounts the planned disk on a node that boots.
    pub fn boot(&self, node: &Node) -> Result<()> {
        let plan = *lock(&self.plan);
        match plan {
            Some(part) => self.mount(node, part),
            None => Ok(()),
        }
    }

    /// Moves the agent's directory of a running node to a small disk.
    pub fn cover(&self, node: &Node) -> Result<()> {
        let directory = node.root().join("var/lib/rekindle");
        let copy = node.root().join("var/lib/copy");
        run(Command::new("cp").arg("-a").arg(&directory).arg(&copy))?;
        self.mount(node, "var/lib/rekindle")?;
        let everything = copy.join(".");
        run(Command::new("cp").arg("-a").arg(everything).arg(&directory))?;
        std::fs::remove_dir_all(&copy).context("remove the copy")
    }

    fn mount(&self, node: &Node, part: &str) -> Result<()> {
        let path = node.root().join(part);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        mount(&path)?;
        lock(&self.mounted).push((node.id().to_owned(), path));
        Ok(())
    }

    /// Empties the disks of the nodes that still exist, and unmounts the others.
    pub fn clean_up(&self, exists: impl Fn(&str) -> bool) -> Result<()> {
        let mut mounted = lock(&self.mounted);
        for (instance, path) in mounted.iter() {
            if exists(instance) {
                empty(path)?;
            } else {
                remove(path)?;
            }
        }
        mounted.retain(|(instance, _)| exists(instance));
        Ok(())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for (_, path) in lock(&self.mounted).iter() {
            if let Err(problem) = remove(path) {
                tracing::warn!("clean up: {problem:#}");
            }
        }
    }
}

/// Fills the disk of a directory.
pub fn fill(directory: &Path) -> Result<()> {
    let mut file = std::fs::File::create(directory.join("filler")).context("fill the disk")?;
    let zeros = vec![0; 1 << 20];
    while file.write_all(&zeros).is_ok() {}
    // Less than a whole block may still fit.
    while file.write_all(&zeros[..512]).is_ok() {}
    Ok(())
}

fn empty(directory: &Path) -> Result<()> {
    match std::fs::remove_file(directory.join("filler")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("empty a disk")
        }
        _ => Ok(()),
    }
}

fn mount(path: &Path) -> Result<()> {
    let mut command = Command::new("mount");
    run(command.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(path))
}

fn unmount(path: &Path) -> Result<()> {
    run(Command::new("umount").arg("-l").arg(path))
}

/// Unmounts a disk. The stand-in deletes the node's directory, which the mount kept from being deleted.
fn remove(path: &Path) -> Result<()> {
    if path.exists() { unmount(path) } else { Ok(()) }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {errors}");
    Ok(())
}
