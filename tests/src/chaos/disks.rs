//! Small disks of nodes, which can be full: tmpfs mounts, for which one has to be root.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};

use crate::lock::lock;
use crate::nodes::machine::Node;

/// Room for a cluster with the write-ahead log that a restore asks for.
const SIZE: &str = "size=1400m";

/// The small disks of a lane's nodes.
#[derive(Debug, Default)]
pub struct Disks {
    plan: Mutex<Option<&'static str>>,
    /// Instances, and where their small disks are mounted.
    mounted: Mutex<Vec<(String, PathBuf)>>,
}

impl Disks {
    /// Tells whether this process may mount anything.
    pub fn possible() -> bool {
        rustix::process::geteuid().is_root()
            && tempfile::tempdir().is_ok_and(|folder| {
                let mounted = mount(folder.path()).is_ok();
                mounted && unmount(folder.path()).is_ok()
            })
    }

    /// Gives the nodes that boot from now on a small disk for this part of them.
    pub fn plan(&self, part: &'static str) {
        *lock(&self.plan) = Some(part);
    }

    /// Gives the nodes that boot from now on no small disk.
    pub fn forget_plan(&self) {
        *lock(&self.plan) = None;
    }

    /// Does for a node that boots what is planned.
    pub fn boot(&self, node: &Node) -> Result<()> {
        let plan = *lock(&self.plan);
        match plan {
            Some(part) => self.mount(node, part),
            None => Ok(()),
        }
    }

    /// Puts a small disk under the agent's directory of a node that runs already.
    pub fn cover(&self, node: &Node) -> Result<()> {
        let directory = node.root().join("var/lib/rekindle");
        let aside = node.root().join("var/lib/aside");
        run(Command::new("cp").arg("-a").arg(&directory).arg(&aside))?;
        self.mount(node, "var/lib/rekindle")?;
        let everything = aside.join(".");
        run(Command::new("cp").arg("-a").arg(everything).arg(&directory))?;
        std::fs::remove_dir_all(&aside).context("remove the copy")
    }

    fn mount(&self, node: &Node, part: &str) -> Result<()> {
        let path = node.root().join(part);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        mount(&path)?;
        lock(&self.mounted).push((node.id().to_owned(), path));
        Ok(())
    }

    /// Makes room on the disks of the nodes that are still there, and takes away those of the others.
    pub fn tidy(&self, there: impl Fn(&str) -> bool) -> Result<()> {
        let mut mounted = lock(&self.mounted);
        for (instance, path) in mounted.iter() {
            if there(instance) {
                empty(path)?;
            } else {
                remove(path)?;
            }
        }
        mounted.retain(|(instance, _)| there(instance));
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

/// Writes into a directory until nothing goes in any more.
pub fn fill(directory: &Path) -> Result<()> {
    let mut file = std::fs::File::create(directory.join("filler")).context("fill the disk")?;
    let zeros = vec![0; 1 << 20];
    while file.write_all(&zeros).is_ok() {}
    // What is smaller than a piece fits still.
    while file.write_all(&zeros[..512]).is_ok() {}
    Ok(())
}

fn empty(directory: &Path) -> Result<()> {
    match std::fs::remove_file(directory.join("filler")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("make room on a disk")
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

/// Takes a disk away. The node's directory, which could not be erased because of it, goes with the stand-in.
fn remove(path: &Path) -> Result<()> {
    if path.exists() { unmount(path) } else { Ok(()) }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {words}");
    Ok(())
}
