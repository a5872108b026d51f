//! The application's settings: one TOML file on the node, checked as a whole.

mod problems;
mod read;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};

use shared::id::ApplicationName;
use shared::report::ExitCode;

use crate::agent::failure::{Failure, OrFail as _, Result};

/// Where the settings are, below the root.
pub(crate) const PATH: &str = "etc/rekindle/node.toml";

/// Everything the agent knows about the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What the node's backups are filed under.
    pub application: ApplicationName,
    /// The bucket of backups.
    pub bucket: String,
    /// The bucket's region; the instance's own where it is not set.
    pub region: Option<String>,
    /// Seconds without progress after which the agent ends itself.
    pub stall_limit_seconds: u32,
    /// `[configuration] paths`: absolute paths of directories and files, none inside another.
    pub configuration_paths: Vec<PathBuf>,
    /// `[postgres]`.
    pub postgres: PostgresSettings,
    /// `[images] containers`: the containers whose images are saved with the backups; none by default.
    pub image_containers: Vec<String>,
    /// `[commands]`.
    pub commands: Commands,
}

/// How to reach Postgres, and what to save of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// The server.
    pub server: Server,
    /// The superuser to connect as; `postgres` by default.
    pub user: String,
    /// The databases; every one that allows connections where it is not set.
    pub databases: Option<Vec<String>>,
    /// Whether the bootstrap superuser gets the password of the backup.
    pub bootstrap_role_password: BootstrapRolePassword,
    /// What to do about tablespaces that the new node may not have.
    pub tablespaces: Tablespaces,
    /// How long to wait for the server to accept connections.
    pub ready_timeout_seconds: u32,
}

/// Where the server's own tools are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Inside this container, by `docker exec -i`.
    Container(String),
    /// On the node, with its own client tools.
    Direct {
        /// A host name, or the directory of a Unix socket.
        host: String,
        /// The port; 5432 by default.
        port: u16,
    },
}

/// `bootstrap_role_password = "restore" | "keep"`; restore by default, since the application's password
/// travels with its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapRolePassword {
    Restore,
    Keep,
}

/// `tablespaces = "fail" | "default"`; fail by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tablespaces {
    Fail,
    Default,
}

/// The application's own commands, each a program and its arguments: no shell reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// Starts Postgres, once its configuration is in place. None where it starts by itself.
    pub start_postgres: Option<Vec<String>>,
    /// Starts the application.
    pub start: Option<Vec<String>>,
    /// Stops the application, but not Postgres: before a final backup.
    pub stop: Option<Vec<String>>,
    /// Exits with 0 once the application serves.
    pub health: Option<Vec<String>>,
    /// How long the application may take to become healthy; 300 by default.
    pub health_timeout_seconds: u32,
}

impl Settings {
    /// Reads the settings of the node with this root. The failure names every problem, each with its line.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let path = root.join(PATH);
        let text = std::fs::read_to_string(&path).or_fail(ExitCode::Settings, || {
            format!(
                "read {}: the instance's user data writes it, see the README's settings reference",
                path.display()
            )
        })?;
        Self::parse(&text).map_err(|problems| {
            let message = format!("{}:\n{}", path.display(), problems.join("\n"));
            Failure::new(ExitCode::Settings, message)
        })
    }

    /// Reads the settings' text; fails with one line per problem.
    pub fn parse(text: &str) -> std::result::Result<Self, Vec<String>> {
        read::read(text)
    }
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            start_postgres: None,
            start: None,
            stop: None,
            health: None,
            health_timeout_seconds: read::DEFAULT_TIMEOUT,
        }
    }
}

impl fmt::Display for Settings {
    /// Says what the agent will do, for `rekindle-node check`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = self.region.as_deref().unwrap_or("the instance's own");
        writeln!(f, "application: {}", self.application)?;
        writeln!(f, "bucket: {} (region: {region})", self.bucket)?;
        writeln!(
            f,
            "gives up after {} seconds without progress",
            self.stall_limit_seconds
        )?;
        for path in &self.configuration_paths {
            writeln!(f, "configuration: {}", path.display())?;
        }
        match &self.postgres.server {
            Server::Container(name) => write!(f, "Postgres: in the container {name}")?,
            Server::Direct { host, port } => write!(f, "Postgres: at {host}, port {port}")?,
        }
        writeln!(f, ", as {}", self.postgres.user)?;
        match &self.postgres.databases {
            Some(names) => writeln!(f, "databases: {}", names.join(", "))?,
            None => writeln!(f, "databases: all that allow connections")?,
        }
        match self.image_containers.as_slice() {
            [] => writeln!(f, "images: none are saved")?,
            names => writeln!(f, "images: those of {}", names.join(", "))?,
        }
        let commands = [
            ("start_postgres", &self.commands.start_postgres),
            ("start", &self.commands.start),
            ("stop", &self.commands.stop),
            ("health", &self.commands.health),
        ];
        for (name, command) in commands {
            match command {
                Some(command) => writeln!(f, "{name}: {command:?}")?,
                None => writeln!(f, "{name}: no command")?,
            }
        }
        write!(f, "the settings are complete")
    }
}

#[cfg(test)]
mod tests;
