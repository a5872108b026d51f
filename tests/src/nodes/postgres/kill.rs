//! Kills a server as the loss of an instance does, and removes the files that a boot of the machine would remove.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::{Cluster, LIMIT};
use crate::nodes::process_ids;
use crate::wait::wait_for;

impl Cluster {
    /// Kills all processes of the server, as a lost instance does, and waits for their end.
    pub async fn kill(&self) -> Result<()> {
        self.kill_processes()?;
        wait_for("the server's processes to end", LIMIT, async || {
            let left = self.processes().map_err(|error| error.to_string())?;
            if left.is_empty() {
                Ok(Some(()))
            } else {
                Err(format!("{left:?} still run"))
            }
        })
        .await?;
        self.remove_remains()
    }

    /// Kills all processes of the server without waiting for their end.
    pub fn kill_now(&self) -> Result<()> {
        self.kill_processes()?;
        self.remove_remains()
    }

    /// Removes the server's shared memory and its lock files, as a boot does. A boot ends every process. Here the dead
    /// postmaster may remain as a zombie that nobody reaps, and with its lock Postgres would refuse to start again.
    fn remove_remains(&self) -> Result<()> {
        self.free_shared_memory();
        let socket = format!(".s.PGSQL.{}.lock", self.port);
        for lock in [
            self.data().join("postmaster.pid"),
            self.socket_directory().join(socket),
        ] {
            match std::fs::remove_file(lock) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context("remove the dead server's lock");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Frees the shared memory of a killed server. The kernel keeps one segment for each killed server and has room for
    /// a limited number of them.
    pub(crate) fn free_shared_memory(&self) {
        if let Some(segment) = self.shared_memory() {
            // Fails if the segment is gone already, which is fine.
            Command::new("ipcrm")
                .args(["--shmem-id", &segment])
                .stderr(Stdio::null())
                .status()
                .ok();
        }
    }

    /// Returns the id of the server's shared memory segment: the second field in line 7 of `postmaster.pid`.
    pub(super) fn shared_memory(&self) -> Option<String> {
        let lock = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let id = lock.lines().nth(6)?.split_whitespace().nth(1)?;
        Some(id.to_owned())
    }

    /// Returns the process ids of the server: all its processes work in the data directory.
    pub(super) fn processes(&self) -> Result<Vec<i32>> {
        let data = self.data();
        let mut found = process_ids()?;
        // A dead process has no working directory.
        found.retain(|id| {
            std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd == data)
        });
        Ok(found)
    }

    fn kill_processes(&self) -> Result<()> {
        for pid in self.processes()? {
            let Some(pid) = rustix::process::Pid::from_raw(pid) else {
                continue;
            };
            match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).context("kill the server"),
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.kill_processes() {
            tracing::warn!(%error, directory = %self.directory.display(), "a Postgres server may still run");
        }
        self.free_shared_memory();
    }
}
