//! A context and a real Postgres for the unit tests: a cluster in a temporary directory with a Unix socket, removed when
//! it is dropped. If the server is not installed, the tests fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shared::exit_code::ExitCode;
use tempfile::TempDir;

use crate::agent::watchdog::Progress;
use crate::context::Context;
use crate::postgres::Postgres;
use crate::s3::Bucket;
use crate::s3::open_uploads::OpenUploads;
use crate::settings::{
    BootstrapRolePassword, Exceptions, PostgresSettings, Server, Settings, Tablespaces,
};

/// Returns the context of a node without a server. It connects to nothing.
pub(crate) async fn context(root: &Path) -> Context {
    let settings = "application = 'app'\nbucket = 'backups'\nregion = 'eu-west-1'\n\
                    [configuration]\npaths = ['/etc/app']\n[postgres]\nhost = '/nonexistent'\n";
    let settings = Settings::parse(settings).unwrap();
    let progress = Progress::default();
    Context {
        root: root.to_owned(),
        bucket: Bucket::open(&settings, &progress, &OpenUploads::default()).await,
        instance_id: "i-0123abcd".parse().unwrap(),
        postgres: Postgres::new(settings.postgres.clone()),
        settings,
        progress,
    }
}

/// A running cluster.
pub(crate) struct Cluster {
    directory: TempDir,
    /// The settings of a node with this cluster.
    pub(crate) settings: PostgresSettings,
}

impl Cluster {
    /// Creates and starts an empty cluster: UTF-8, locale C, superuser `postgres`, no password.
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("rekindle-pg-")
            .tempdir()
            .unwrap();
        if rustix::process::geteuid().is_root() {
            let path = directory.path();
            run(Command::new("chown").arg("postgres:").arg(path));
        }
        let settings = PostgresSettings {
            server: Server::Direct {
                host: directory.path().to_str().unwrap().to_owned(),
                port: 5432,
            },
            user: "postgres".to_owned(),
            databases: None,
            bootstrap_role_password: BootstrapRolePassword::Restore,
            tablespaces: Tablespaces::Fail,
            exceptions: Exceptions::Admit,
            ready_timeout_seconds: 20,
        };
        let cluster = Self {
            directory,
            settings,
        };
        run(server_tool("initdb")
            .args([
                "--no-sync",
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
            ])
            .arg(cluster.data()));
        cluster.start_server();
        cluster
    }

    /// Starts the server again after [`Self::stop_server`].
    pub(crate) fn start_server(&self) {
        let options = format!(
            "-k {} -p 5432 -c listen_addresses='' -c fsync=off",
            self.directory.path().display()
        );
        run(server_tool("pg_ctl")
            .args(["-w", "-s", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.directory.path().join("log"))
            .args(["-o", &options, "start"]));
    }

    /// Stops the server. The data stay on disk.
    pub(crate) fn stop_server(&self) {
        let mut command = server_tool("pg_ctl");
        command.args(["-w", "-s", "-m", "immediate", "-D"]);
        // The test may have stopped the server already.
        command.arg(self.data()).arg("stop").status().ok();
    }

    /// Returns the temporary directory of the cluster.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the agent's client of this cluster.
    pub(crate) fn postgres(&self) -> Postgres {
        Postgres::new(self.settings.clone())
    }

    /// Runs SQL, and returns psql's output without the final newline.
    pub(crate) async fn sql(&self, database: &str, script: &str) -> String {
        // The agent's sessions have an empty search path.
        let script = format!("SET search_path = public;\n{script}");
        let output = self
            .postgres()
            .script(database, &script, ExitCode::Internal)
            .await
            .unwrap();
        output.trim_end_matches('\n').to_owned()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop_server();
    }
}

/// Prepares a program of the newest installed server. It runs as the user postgres: the server refuses to run as root.
fn server_tool(program: &str) -> Command {
    let newest = std::fs::read_dir("/usr/lib/postgresql")
        .expect("tests need a PostgreSQL server: apt-get install postgresql")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(program)))
        .filter(|path| path.exists())
        .max_by_key(|path| major_version(path))
        .expect("tests need a PostgreSQL server: apt-get install postgresql");
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(newest);
        command
    } else {
        Command::new(newest)
    };
    command.current_dir("/");
    command
}

fn major_version(binary: &Path) -> u32 {
    let version = binary.ancestors().nth(2).and_then(Path::file_name);
    version
        .and_then(|name| name.to_str()?.parse().ok())
        .unwrap_or(0)
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
