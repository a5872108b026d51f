//! The site of the measurements: its own S3, machines with real Postgres, and the contenders' programs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::Request;
use shared::command::Candidate;
use shared::id::BackupId;
use shared::layout;
use shared::report::{BackupReport, Report, RestoreReport};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::process::{Program, Run, cpu_seconds_of_tree, run};
use super::profile;
use super::sample::Sample;
use crate::fixtures::registry;
use crate::fixtures::registry::{MAIN_DATABASE, Seed};
use crate::http;
use crate::nodes::machine::{MachineSettings, Node};
use crate::nodes::open_to_all;
use crate::nodes::postgres::Cluster;
use crate::standin::Binaries;
use crate::standin::s3::{ACCESS_KEY, S3, SECRET_KEY};

/// The bucket.
pub const BUCKET: &str = "rekindle-bench";
/// The application of every backup.
pub const APPLICATION: &str = "registry";
const REGION: &str = "eu-central-1";
/// The most bytes that S3 needs: 4 GB of database, as the original and Postgres' fastest dump write them.
const ROOM: u64 = 6_000_000_000;

/// The programs to measure, as AWS would run them.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The agent.
    pub agent: PathBuf,
    /// The directory of the functions' binaries.
    pub functions: PathBuf,
    /// The directory of Python's virtual environment, which has the aws CLI and boto3.
    pub python: PathBuf,
}

impl Programs {
    /// Returns the programs that a stand-in runs.
    pub(super) fn binaries(&self) -> Binaries {
        Binaries {
            functions: self.functions.clone(),
            agent: self.agent.clone(),
        }
    }

    /// Returns an error that names the first missing program.
    pub fn check(&self) -> Result<()> {
        for path in [
            self.agent.clone(),
            self.functions.join("backup"),
            self.functions.join("restore"),
            self.python.join("bin/aws"),
        ] {
            ensure!(
                path.is_file(),
                "{} is missing: run `make bench`",
                path.display()
            );
        }
        Ok(())
    }
}

/// The site. Dropping it deletes everything in it.
pub struct Site {
    /// The programs.
    pub programs: Programs,
    /// The bucket's store.
    pub s3: S3,
    /// The machines' surroundings, with the endpoint of S3.
    pub surroundings: MachineSettings,
    /// The cluster that every machine gets a copy of.
    pristine: Cluster,
    machines: AtomicU64,
    backups: AtomicU64,
    server: JoinHandle<()>,
    disk: TempDir,
    memory: TempDir,
}

impl Site {
    /// Prepares an empty site. S3 stores in memory if there is enough, so that it does not use the machine's disk.
    pub async fn prepare(programs: Programs) -> Result<Self> {
        let disk = directory(std::env::temp_dir().as_path())?;
        let memory = directory(&store())?;
        let s3 = S3::new(&memory.path().join("s3"))?;
        s3.create_bucket(BUCKET)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let behind = s3.clone();
        let routes = Router::new().fallback(move |request: Request| {
            let s3 = behind.clone();
            async move { s3.handle(request).await }
        });
        let server = tokio::spawn(http::serve("the S3 of the bench", listener, routes));
        let surroundings = MachineSettings {
            directory: disk.path().join("nodes"),
            endpoint,
            region: REGION.to_owned(),
            reboot: Duration::ZERO,
            credentials: (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned()),
        };
        std::fs::create_dir_all(&surroundings.directory)?;
        open_to_all(&surroundings.directory)?;
        let pristine = Cluster::create(&disk.path().join("pristine")).await?;
        Ok(Self {
            programs,
            s3,
            pristine,
            surroundings,
            machines: AtomicU64::new(1),
            backups: AtomicU64::new(0),
            server,
            disk,
            memory,
        })
    }

    /// Returns a directory on the disk.
    pub fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// Returns a directory in memory, or on the disk if the machine has too little memory.
    pub fn memory(&self) -> &Path {
        self.memory.path()
    }

    /// Boots a machine with an empty, running Postgres, these configured paths and Rekindle's settings.
    pub async fn machine(&self, paths: &[&str]) -> Result<Arc<Node>> {
        self.machine_at(paths, &self.surroundings).await
    }

    /// Boots a machine with other surroundings.
    pub async fn machine_at(
        &self,
        paths: &[&str],
        surroundings: &MachineSettings,
    ) -> Result<Arc<Node>> {
        let number = self.machines.fetch_add(1, Ordering::Relaxed);
        let id = format!("i-{number:017x}");
        let node = Node::boot(&id, APPLICATION, surroundings, Arc::new(|| None)).await?;
        let directory = node.root().join("var/lib/postgresql");
        let cluster = self.pristine.copy(&directory).await?;
        let settings = format!(
            "application = \"{APPLICATION}\"\nbucket = \"{BUCKET}\"\n\n[configuration]\npaths = {paths:?}\n\n[postgres]\n\
             host = \"{}\"\nport = {}\ndatabases = [\"{MAIN_DATABASE}\"]\n",
            cluster.socket_directory().display(),
            cluster.port(),
        );
        std::fs::write(node.root().join("etc/rekindle/node.toml"), settings)?;
        for path in paths {
            std::fs::create_dir_all(node.root().join(path.trim_start_matches('/')))?;
        }
        cluster.set("shared_buffers", "128MB")?;
        cluster.start().await?;
        node.attach(cluster);
        node.finish_boot()?;
        Ok(node)
    }

    /// Boots a machine with a registry of about this number of bytes.
    pub async fn registry(&self, bytes: u64) -> Result<Arc<Node>> {
        /// The size of an empty database, and the average size of a registry's row with its indexes, both measured.
        const BYTES_WITHOUT_ROWS: u64 = 7_500_000;
        const BYTES_OF_A_ROW: u64 = 244;
        let node = self.machine(&[]).await?;
        let rows = bytes.saturating_sub(BYTES_WITHOUT_ROWS) / BYTES_OF_A_ROW;
        let main = node.cluster()?.connect(MAIN_DATABASE).await?;
        registry::create(&main, Seed { rows, seed: 1 }).await?;
        // Otherwise autovacuum would do this during a run.
        main.batch_execute("VACUUM (ANALYZE)").await?;
        main.batch_execute("CHECKPOINT").await?;
        Ok(node)
    }

    /// Returns the environment of a machine's programs: its own tools, the aws CLI, and libpq's variables.
    pub fn environment(&self, node: &Node) -> Result<BTreeMap<String, String>> {
        let cluster = node.cluster()?;
        let mut environment = node.environment()?;
        let path = environment.remove("PATH").unwrap_or_default();
        let python = self.programs.python.join("bin");
        for (name, value) in [
            ("PATH", format!("{}:{path}", python.display())),
            ("PGHOST", cluster.socket_directory().display().to_string()),
            ("PGPORT", cluster.port().to_string()),
            ("PGUSER", "postgres".to_owned()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
        ] {
            environment.insert(name.to_owned(), value);
        }
        Ok(environment)
    }

    /// Runs a script on a machine.
    pub(super) async fn script(&self, node: &Node, script: &str) -> Result<Run> {
        let program = Program::script(script, self.environment(node)?);
        self.on_machine(node, program).await
    }

    /// Runs a program on a machine, and measures the server's CPU time meanwhile.
    async fn on_machine(&self, node: &Node, program: Program) -> Result<Run> {
        let server = node.cluster()?.postmaster()?;
        let before = cpu_seconds_of_tree(server)?;
        let mut run = run(program).await?;
        run.sample.server_cpu_seconds = Some(cpu_seconds_of_tree(server)? - before);
        Ok(run)
    }

    async fn agent(&self, node: &Node, arguments: &[&str]) -> Result<(Sample, Report)> {
        let mut line = vec![self.programs.agent.display().to_string()];
        line.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let environment = node.environment()?;
        let run = self.on_machine(node, Program { line, environment }).await?;
        let report = Report::from_output(&run.output);
        let report = report.with_context(|| format!("no report: {}", run.output))?;
        Ok((run.sample, report))
    }

    /// Backs a machine up with the agent. The first backup adopts the machine.
    pub async fn back_up(&self, node: &Node) -> Result<(Sample, BackupReport)> {
        let number = self.backups.fetch_add(1, Ordering::Relaxed);
        let at = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + number);
        let backup = BackupId::at(at);
        let marker = node.marker();
        let purpose = if marker.is_file() {
            "scheduled"
        } else {
            "adopt"
        };
        let arguments = [
            "backup",
            "--operation-id",
            backup.as_str(),
            "--backup-id",
            backup.as_str(),
            "--purpose",
            purpose,
        ];
        let (mut sample, report) = self.agent(node, &arguments).await?;
        let Report::Backup(report) = report else {
            anyhow::bail!("the agent's report is not a backup's: {report:?}");
        };
        sample.s3_bytes = Some(report.bytes);
        Ok((sample, report))
    }

    /// Deletes a backup's objects.
    pub async fn delete(&self, backup: &BackupReport) -> Result<()> {
        let prefix = layout::backup(&APPLICATION.parse()?, &backup.backup_id);
        self.delete_below(&prefix).await
    }

    /// Deletes the objects below a prefix.
    pub async fn delete_below(&self, prefix: &str) -> Result<()> {
        for key in self.s3.keys(BUCKET, prefix)? {
            self.s3.remove(BUCKET, &key).await?;
        }
        Ok(())
    }

    /// Restores a backup onto a machine with the agent.
    pub async fn restore(
        &self,
        node: &Node,
        backup: &BackupReport,
    ) -> Result<(Sample, RestoreReport)> {
        let candidate = Candidate {
            backup_id: backup.backup_id.clone(),
            run_id: backup.run_id.clone(),
            index_sha256: backup.index_sha256.clone(),
            index_version: None,
        };
        let operation = format!("launch-{}", node.id());
        let candidate = candidate.to_string();
        let arguments = [
            "restore",
            "--operation-id",
            &operation,
            "--candidates",
            &candidate,
        ];
        let (mut sample, report) = self.agent(node, &arguments).await?;
        let Report::Restore(report) = report else {
            anyhow::bail!("the agent's report is not a restore's: {report:?}");
        };
        sample.s3_bytes = Some(backup.bytes);
        Ok((sample, report))
    }

    /// Returns the profiles of a backup of one machine, and of its restore onto another.
    pub(super) async fn profiles(&self, node: &Node, target: &Node) -> Result<[Vec<String>; 2]> {
        let (backup, done) = profile::of(self.back_up(node)).await?;
        // Without a profiler there is no backup either.
        let Some((_, report)) = done else {
            return Ok([backup.clone(), backup]);
        };
        let (restore, _) = profile::of(self.restore(target, &report)).await?;
        self.delete(&report).await?;
        Ok([backup, restore])
    }

    /// Returns the size of one object.
    pub fn size(&self, key: &str) -> Result<u64> {
        let size = std::fs::metadata(self.s3.path(BUCKET, key)?)?.len();
        ensure!(size > 0, "{key} is empty");
        Ok(size)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Machines that were restored and are no longer needed.
///
/// For minutes after a deletion, ext4 checks every freed inode before it allocates another one, which would slow the next
/// contender down. The machines are therefore deleted at the end, unless they are too large to be kept.
pub(super) struct StoppedMachines {
    large: bool,
    machines: Vec<Arc<Node>>,
}

impl StoppedMachines {
    pub(super) fn new(large: bool) -> Self {
        Self {
            large,
            machines: Vec::new(),
        }
    }

    /// Stops a machine, and deletes it if it is large.
    pub(super) async fn stop(&mut self, machine: Arc<Node>) -> Result<()> {
        if self.large {
            return machine.discard().await;
        }
        machine.kill().await?;
        self.machines.push(machine);
        Ok(())
    }

    /// Deletes every machine.
    pub(super) async fn discard(self) -> Result<()> {
        for machine in self.machines {
            machine.discard().await?;
        }
        Ok(())
    }
}

/// Returns the parent directory of S3's store: in memory, or on the disk if the machine has too little memory.
pub(super) fn store() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |it| it.f_bavail * it.f_frsize);
    if free < ROOM {
        return std::env::temp_dir();
    }
    memory.to_owned()
}

fn directory(parent: &Path) -> Result<TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("rekindle-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("make a directory in {}", parent.display()))?;
    open_to_all(directory.path())?;
    Ok(directory)
}
