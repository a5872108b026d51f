//! A real Postgres cluster in a directory of its own, as a node of the stand-in has it.
//!
//! The server refuses to run as root, so everything runs as the user `postgres` when the tests are root.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_postgres::{Client, NoTls};

mod programs;

pub use self::programs::{bin_directory, free_port};

use self::programs::{as_postgres, give_to_postgres, quoted, run};
use crate::nodes::machine::write_program;
use crate::wait::wait_for;

const START_LIMIT: Duration = Duration::from_mins(1);

/// A cluster. Killed, but not erased, when it is dropped.
pub struct Cluster {
    directory: PathBuf,
    bin: PathBuf,
    port: u16,
}

impl Cluster {
    /// Initialises a cluster in a directory that is absent or empty; it is not started yet.
    ///
    /// Its superuser is `postgres`, trusted from this machine; it listens on a free port of 127.0.0.1 and on a
    /// socket within the directory.
    pub async fn create(directory: &Path) -> Result<Self> {
        let cluster = Self::place(directory)?;
        let data = cluster.data();
        let data = data.to_string_lossy();
        let initdb = cluster.bin.join("initdb");
        let arguments = [
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            "--no-instructions",
        ];
        run(&as_postgres(&initdb, &arguments)).await?;
        cluster.equip()
    }

    /// Makes another one of a cluster that was never started, in a directory that is absent or empty. Both have the same
    /// system identifier.
    pub async fn copy(&self, directory: &Path) -> Result<Self> {
        let copy = Self::place(directory)?;
        let from = format!("{}/.", self.data().display());
        let to = copy.data().display().to_string();
        run(&["cp", "-a", &from, &to].map(str::to_owned)).await?;
        copy.equip()
    }

    /// Makes the directories of a cluster that is yet to come.
    fn place(directory: &Path) -> Result<Self> {
        let cluster = Self {
            directory: std::path::absolute(directory)?,
            bin: bin_directory()?,
            port: free_port()?,
        };
        std::fs::create_dir_all(&cluster.directory)?;
        for part in ["data", "run"] {
            let path = cluster.directory.join(part);
            std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
            give_to_postgres(&path)?;
        }
        Ok(cluster)
    }

    /// Gives a cluster that is not started yet its settings and scripts.
    fn equip(self) -> Result<Self> {
        self.configure()?;
        self.write_script("start", &self.start_arguments())?;
        self.write_script("stop", &self.control_arguments(&["stop", "-m", "fast"]))?;
        Ok(self)
    }

    /// Describes a server that a container runs on a port of 127.0.0.1, and that these shell scripts start and stop.
    pub fn in_container(directory: &Path, port: u16, start: &str, stop: &str) -> Result<Self> {
        let cluster = Self {
            directory: std::path::absolute(directory)?,
            bin: bin_directory()?,
            port,
        };
        std::fs::create_dir_all(&cluster.directory)?;
        write_program(&cluster.start_script(), start)?;
        write_program(&cluster.stop_script(), stop)?;
        Ok(cluster)
    }

    fn configure(&self) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let mut settings = std::fs::read_to_string(&path)?;
        write!(
            settings,
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             shared_buffers = 32MB\nmax_connections = 50\nmax_locks_per_transaction = 200\nlogging_collector = off\n\
             dynamic_shared_memory_type = mmap\n",
            self.port,
            self.socket_directory().display()
        )?;
        std::fs::write(&path, settings).with_context(|| format!("write {}", path.display()))
    }

    fn control_arguments(&self, verb: &[&str]) -> Vec<String> {
        let data = self.data();
        let data = data.to_string_lossy();
        let mut arguments = vec!["-D", &data, "-w", "-t", "60", "-s"];
        arguments.extend(verb);
        as_postgres(&self.bin.join("pg_ctl"), &arguments)
    }

    fn start_arguments(&self) -> Vec<String> {
        let log = self.log();
        self.control_arguments(&["-l", &log.to_string_lossy(), "start"])
    }

    /// Writes an executable script of one `pg_ctl`, which is fine where the server is as wanted already.
    fn write_script(&self, verb: &str, arguments: &[String]) -> Result<()> {
        let status = self.control_arguments(&["status"]);
        let wanted = if verb == "start" { "" } else { "! " };
        let script = format!(
            "#!/bin/sh\n# Generated. Succeeds where there is nothing to {verb}.\nif {wanted}{} >/dev/null 2>&1; then\n  \
             exit 0\nfi\nexec {} </dev/null >/dev/null\n",
            quoted(&status),
            quoted(arguments)
        );
        let path = self.directory.join(verb);
        std::fs::write(&path, script)?;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Starts the server and waits until it answers; fine where it runs already.
    pub async fn start(&self) -> Result<()> {
        run(&[self.start_script().to_string_lossy().into_owned()])
            .await
            .with_context(|| format!("the server says: {}", self.server_log()))?;
        wait_for("Postgres to answer", START_LIMIT, async || {
            self.connect("postgres")
                .await
                .map(Some)
                .map_err(|error| format!("{error:#}"))
        })
        .await?;
        Ok(())
    }

    /// Shuts the server down in order; fine where it does not run.
    pub async fn stop(&self) -> Result<()> {
        run(&[self.stop_script().to_string_lossy().into_owned()]).await
    }

    /// Kills the whole server at once, as a lost instance does.
    pub async fn kill(&self) -> Result<()> {
        self.kill_processes()?;
        wait_for("the server's processes to end", START_LIMIT, async || {
            let left = self.processes().map_err(|error| error.to_string())?;
            if left.is_empty() {
                Ok(Some(()))
            } else {
                Err(format!("{left:?} are left"))
            }
        })
        .await?;
        self.remove_remains()
    }

    /// Kills the whole server without waiting for its end.
    pub fn kill_now(&self) -> Result<()> {
        self.kill_processes()?;
        self.remove_remains()
    }

    /// Removes what a boot would have: the server's shared memory, and its locks. A boot ends every process for good; here
    /// the dead postmaster may remain as a zombie that nobody reaps, for which Postgres would refuse to start again.
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

    /// Frees what a killed server leaves outside of its directory, as the end of its machine would have done: the
    /// kernel keeps a segment of each until it has no room for another one.
    pub(crate) fn free_shared_memory(&self) {
        if let Some(segment) = self.shared_memory() {
            // One that has gone is as good.
            Command::new("ipcrm")
                .args(["--shmem-id", &segment])
                .stderr(Stdio::null())
                .status()
                .ok();
        }
    }

    /// Returns the id of the server's segment of shared memory, which its lock names in the seventh line, after the key.
    fn shared_memory(&self) -> Option<String> {
        let lock = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let id = lock.lines().nth(6)?.split_whitespace().nth(1)?;
        Some(id.to_owned())
    }

    /// Kills the server and erases the directory.
    pub async fn destroy(self) -> Result<()> {
        self.kill().await?;
        std::fs::remove_dir_all(&self.directory)
            .with_context(|| format!("erase {}", self.directory.display()))
    }

    /// Connects as the superuser, over TCP. The connection is served in the background until the client is dropped.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        let mut settings = tokio_postgres::Config::new();
        settings
            .host("127.0.0.1")
            .port(self.port)
            .user("postgres")
            .dbname(database);
        let (client, connection) = settings
            .connect(NoTls)
            .await
            .with_context(|| format!("connect to {database} on port {}", self.port))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a Postgres connection ended");
            }
        });
        Ok(client)
    }

    /// Returns the TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of the Unix socket.
    pub fn socket_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Returns the directory that holds everything of this cluster.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the executable that starts the server and waits for it, and succeeds where it runs already.
    pub fn start_script(&self) -> PathBuf {
        self.directory.join("start")
    }

    /// Returns the executable that shuts the server down, and succeeds where it does not run.
    pub fn stop_script(&self) -> PathBuf {
        self.directory.join("stop")
    }

    /// Returns the server's log.
    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Gives a setting of the server another value, from its next start on.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let mut settings = std::fs::read_to_string(&path)?;
        writeln!(settings, "{name} = '{value}'")?;
        std::fs::write(&path, settings).with_context(|| format!("write {}", path.display()))
    }

    /// Returns the process id of the running server.
    pub fn postmaster(&self) -> Result<u32> {
        let path = self.data().join("postmaster.pid");
        let text = std::fs::read_to_string(&path)?;
        let first = text.lines().next().unwrap_or_default();
        first
            .parse()
            .with_context(|| format!("read {}", path.display()))
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.socket_directory().join("server.log")
    }

    /// Finds the postmaster, by its command line, and everything it has forked: all of them work in the data directory.
    fn processes(&self) -> Result<Vec<i32>> {
        let data = self.data();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A process may end while it is looked at, and a dead one has no working directory.
            if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data) {
                found.push(pid);
            }
        }
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
            tracing::warn!(%error, directory = %self.directory.display(), "a Postgres server may be left running");
        }
        self.free_shared_memory();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_survives_a_kill_and_both_scripts_are_idempotent() {
        let directory = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let cluster = Cluster::create(&directory.path().join("postgres"))
            .await
            .unwrap();
        cluster.start().await.unwrap();
        cluster.start().await.unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        client
            .batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
            .await
            .unwrap();
        assert!(
            cluster
                .socket_directory()
                .join(format!(".s.PGSQL.{}", cluster.port()))
                .exists()
        );

        let segment = cluster.shared_memory().unwrap();
        assert!(is_kept(&segment));
        cluster.kill().await.unwrap();
        assert!(cluster.connect("postgres").await.is_err());
        assert!(!is_kept(&segment), "the kernel keeps {segment}");
        cluster.start().await.unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        let kept: i32 = client
            .query_one("SELECT n FROM kept", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(kept, 7);

        cluster.stop().await.unwrap();
        cluster.stop().await.unwrap();
        assert_eq!(cluster.processes().unwrap(), Vec::<i32>::new());
        let path = cluster.directory().to_owned();
        cluster.destroy().await.unwrap();
        assert!(!path.exists());
    }

    fn is_kept(segment: &str) -> bool {
        let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let mut ids = segments
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        ids.any(|id| id == segment)
    }
}
