//! A real Postgres cluster in a directory of its own, for one node of the stand-in.
//!
//! The server refuses to run as root. If the tests run as root, its programs run as the user `postgres`.
//!
//! [`setup`] creates clusters, [`kill`] ends them without a shutdown, and [`programs`] finds and runs the server's
//! programs.

mod kill;
mod programs;
mod setup;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_postgres::{Client, NoTls};

pub use self::programs::{bin_directory, free_port};

use self::programs::run;
use crate::wait::wait_for;

/// How long a server may take to start, and its processes to end.
const LIMIT: Duration = Duration::from_mins(1);

/// A cluster. When it is dropped, its server is killed and its directory stays.
pub struct Cluster {
    directory: PathBuf,
    bin: PathBuf,
    port: u16,
}

impl Cluster {
    /// Starts the server and waits until it accepts connections. Succeeds if it runs already.
    pub async fn start(&self) -> Result<()> {
        run(&[self.start_script().to_string_lossy().into_owned()])
            .await
            .with_context(|| format!("start Postgres; its log: {}", self.server_log()))?;
        wait_for("Postgres to accept connections", LIMIT, async || {
            self.connect("postgres")
                .await
                .map(Some)
                .map_err(|error| format!("{error:#}"))
        })
        .await?;
        Ok(())
    }

    /// Shuts the server down in order. Succeeds if it does not run.
    pub async fn stop(&self) -> Result<()> {
        run(&[self.stop_script().to_string_lossy().into_owned()]).await
    }

    /// Kills the server and erases the directory.
    pub async fn destroy(self) -> Result<()> {
        self.kill().await?;
        std::fs::remove_dir_all(&self.directory)
            .with_context(|| format!("erase {}", self.directory.display()))
    }

    /// Connects as the superuser, over TCP. A background task serves the connection until the client is dropped.
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

    /// Returns the directory with all files of this cluster.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the executable that starts the server and waits for it. It succeeds if the server runs already.
    pub fn start_script(&self) -> PathBuf {
        self.directory.join("start")
    }

    /// Returns the executable that shuts the server down. It succeeds if the server does not run.
    pub fn stop_script(&self) -> PathBuf {
        self.directory.join("stop")
    }

    /// Returns the server's log; empty if there is none.
    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
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
}

#[cfg(test)]
mod tests;
