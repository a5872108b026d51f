//! The settings of the node: one TOML file. All its problems are reported at once.

mod problems;
mod read;
mod rules;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};

use shared::exit_code::ExitCode;
use shared::id::ApplicationName;

use crate::agent::failure::{Failure, OrFail as _, Result};

/// The path of the settings, relative to the root.
pub(crate) const PATH: &str = "etc/rekindle/node.toml";

/// The default of the time limits for Postgres and the application, in seconds.
const DEFAULT_TIMEOUT: u32 = 300;

/// The settings of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The application, which is the prefix of the keys of its backups.
    pub application: ApplicationName,
    /// The bucket of backups.
    pub bucket: String,
    /// The bucket's region. `None` means the instance's own region.
    pub region: Option<String>,
    /// Seconds without progress after which the agent ends.
    pub stall_limit_seconds: u32,
    /// `[configuration] paths`: absolute paths of directories and files. None of them contains another.
    pub configuration_paths: Vec<PathBuf>,
    /// `[postgres]`.
    pub postgres: PostgresSettings,
    /// `[images] containers`: the agent saves the images of these containers. Empty by default.
    pub image_containers: Vec<String>,
    /// `[commands]`.
    pub commands: Commands,
}

/// How to connect to Postgres, and what to save from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// The server.
    pub server: Server,
    /// The superuser to connect as. `postgres` by default.
    pub user: String,
    /// The databases to save. `None` means all that allow connections.
    pub databases: Option<Vec<String>>,
    /// Whether a restore sets the bootstrap superuser's password to the one in the backup.
    pub bootstrap_role_password: BootstrapRolePassword,
    /// What a restore does about tablespaces that the new node may not have.
    pub tablespaces: Tablespaces,
    /// Whether a backup is restored although the server refuses some of its statements.
    pub exceptions: Exceptions,
    /// How long to wait until the server accepts connections, in seconds. 300 by default.
    pub ready_timeout_seconds: u32,
}

/// Where the server's tools run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Inside this container, by `docker exec -i`.
    Container(String),
    /// On the node, with its own client tools.
    Direct {
        /// A host name, or the directory of a Unix socket.
        host: String,
        /// The port. 5432 by default.
        port: u16,
    },
}

/// `bootstrap_role_password = "restore" | "keep"`. Restore by default: the application's configuration, which is
/// restored too, contains that password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapRolePassword {
    Restore,
    Keep,
}

/// `tablespaces = "fail" | "default"`. Fail by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tablespaces {
    Fail,
    Default,
}

/// `exceptions = "admit" | "refuse"`. Admit by default: the node that was backed up served in that state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceptions {
    Admit,
    Refuse,
}

/// The application's own commands. Each is a program with its arguments, and runs without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// Starts Postgres after its configuration is restored. `None` if it starts by itself.
    pub start_postgres: Option<Vec<String>>,
    /// Starts the application.
    pub start: Option<Vec<String>>,
    /// Stops the application before a final backup, but not Postgres.
    pub stop: Option<Vec<String>>,
    /// Exits with 0 if the application serves.
    pub health: Option<Vec<String>>,
    /// How long the application may take to become healthy, in seconds. 300 by default.
    pub health_timeout_seconds: u32,
}

impl Settings {
    /// Reads the settings of the node with this root. The failure lists every problem with its line.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let path = root.join(PATH);
        let text = std::fs::read_to_string(&path).or_fail(ExitCode::Settings, || {
            format!(
                "cannot read {}; let the instance's user data write it (see docs/settings.md)",
                path.display()
            )
        })?;
        Self::parse(&text).map_err(|problems| {
            let message = format!("{}:\n{}", path.display(), problems.join("\n"));
            Failure::new(ExitCode::Settings, message)
        })
    }

    /// Reads the text of the settings. Fails with one line per problem.
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
            health_timeout_seconds: DEFAULT_TIMEOUT,
        }
    }
}

impl fmt::Display for Settings {
    /// Writes all settings, with the defaults of those that are not set, for `rekindle-node check`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = self.region.as_deref().unwrap_or("the instance's own");
        writeln!(f, "application: {}", self.application)?;
        writeln!(f, "bucket: {} (region: {region})", self.bucket)?;
        writeln!(
            f,
            "stall limit: {} seconds without progress",
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
            [] => writeln!(f, "images: none")?,
            names => writeln!(f, "images: those of the containers {}", names.join(", "))?,
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
