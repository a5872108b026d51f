//! A machine outside every group, prepared like any other, on which a test runs the shipped agent by hand; and
//! backups that somebody has tampered with so that every hash still fits.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared::checksum::digests;
use shared::command::Candidate;
use shared::id::{ApplicationName, BackupId, RunId};
use shared::layout;
use shared::manifest::{Index, Manifest, ObjectRecord};
use shared::report::Report;
use tokio::process::{Child, Command};

use crate::nodes::machine::Node;
use crate::nodes::protected::Protected;
use crate::nodes::registry;
use crate::nodes::registry::{Files, Rows};
use crate::standin::world::Binaries;

/// A prepared machine that no group knows.
pub struct Spare {
    /// The machine.
    pub node: Arc<Node>,
}

/// What the agent answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit status; none where it was killed.
    pub code: Option<i32>,
    /// Its standard output: the report.
    pub output: String,
    /// Its standard error: the log.
    pub log: String,
}

impl Answer {
    /// Reads the report.
    pub fn report(&self) -> Result<Report> {
        Report::from_output(&self.output).with_context(|| format!("{self:?}"))
    }
}

/// Everything on a machine that a restore may change.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// The rows of every database that is no template, whatever its name.
    pub databases: BTreeMap<String, Rows>,
    /// The configuration.
    pub files: Files,
    /// What lies beside the configured paths.
    pub beside: Vec<String>,
}

impl Spare {
    /// Boots a machine with the settings of `application` and an empty Postgres that is not started yet.
    pub async fn boot(protected: &Protected, application: &str) -> Result<Self> {
        let world = &protected.world;
        let surroundings = world.surroundings(application)?;
        let id = format!("i-{}", &uuid::Uuid::new_v4().simple().to_string()[..17]);
        let node = Node::boot(&id, "none", &surroundings, Arc::new(|| None)).await?;
        registry::prepare(
            &node,
            application,
            world.bucket(),
            &protected.load(application)?,
        )
        .await?;
        node.finish_boot()?;
        Ok(Self { node })
    }

    /// Boots a machine that has data of its own: a table, a database and configuration that a failing restore
    /// must not touch.
    pub async fn with_data(protected: &Protected, application: &str) -> Result<Self> {
        let spare = Self::boot(protected, application).await?;
        let cluster = spare.node.cluster()?;
        cluster.start().await?;
        let main = cluster.connect(registry::MAIN_DATABASE).await?;
        let script = "CREATE TABLE precious (what text);
            INSERT INTO precious SELECT 'before ' || i FROM generate_series(1, 20) i";
        main.batch_execute(script).await?;
        main.batch_execute("CREATE DATABASE diary").await?;
        let diary = cluster.connect("diary").await?;
        diary
            .batch_execute("CREATE TABLE entry AS SELECT 1 AS day")
            .await?;
        for path in registry::CONFIGURATION {
            let path = spare.node.root().join(path).join("precious.yml");
            std::fs::write(&path, "kept: yes\n")
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(spare)
    }

    /// Starts the agent with these arguments.
    pub fn start(&self, arguments: &[&str]) -> Result<Child> {
        Command::new(Binaries::find()?.agent)
            .args(arguments)
            .env_clear()
            .envs(self.node.environment()?)
            .current_dir(self.node.root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the agent")
    }

    /// Starts a restore.
    pub fn start_restore(&self, operation: &str, candidates: &[Candidate]) -> Result<Child> {
        let candidates: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        let candidates = candidates.join(",");
        self.start(&[
            "restore",
            "--operation-id",
            operation,
            "--candidates",
            &candidates,
        ])
    }

    /// Runs a restore to its end.
    pub async fn restore(&self, operation: &str, candidates: &[Candidate]) -> Result<Answer> {
        ended(self.start_restore(operation, candidates)?).await
    }

    /// Makes the machine one that was never restored, as a fresh instance is.
    pub fn forget_restore(&self) -> Result<()> {
        let marker = self.marker();
        std::fs::remove_file(&marker).with_context(|| format!("remove {}", marker.display()))
    }

    /// Returns the path of the `restored` marker.
    pub fn marker(&self) -> std::path::PathBuf {
        self.node.root().join("var/lib/rekindle/restored.json")
    }

    /// Reads everything that a restore may change.
    pub async fn holding(&self) -> Result<Holding> {
        holding(&self.node).await
    }
}

/// Waits for an agent's end.
pub async fn ended(agent: Child) -> Result<Answer> {
    let output = agent.wait_with_output().await.context("run the agent")?;
    Ok(Answer {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        log: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Reads everything on a node that a restore may change.
pub async fn holding(node: &Node) -> Result<Holding> {
    let cluster = node.cluster()?;
    let template = cluster.connect("template1").await?;
    let names = template
        .query(
            "SELECT datname::text FROM pg_database WHERE NOT datistemplate",
            &[],
        )
        .await
        .context("list the databases")?;
    drop(template);
    let mut databases = BTreeMap::new();
    for name in names {
        let name: String = name.get(0);
        let rows = registry::rows(&cluster.connect(&name).await?).await?;
        databases.insert(name, rows);
    }
    let mut beside = Vec::new();
    for path in registry::CONFIGURATION {
        let path = node.root().join(path);
        for entry in std::fs::read_dir(path.parent().unwrap_or(&path))? {
            beside.push(entry?.path().display().to_string());
        }
    }
    beside.sort();
    Ok(Holding {
        databases,
        files: registry::files(&node.root())?,
        beside,
    })
}

/// The parts of a backup, by their names within it, while they are being tampered with.
pub type Parts = BTreeMap<String, Vec<u8>>;

/// Copies a backup as another attempt at it, changed by whoever may write to the bucket: sizes and hashes of the
/// parts and of the index fit. Only the manifest of the result is missing: see [`commit`].
pub fn forge(
    protected: &Protected,
    genuine: &Manifest,
    change: impl FnOnce(&mut Index, &mut Parts) -> Result<()>,
) -> Result<Manifest> {
    let (s3, bucket) = (protected.world.s3(), protected.world.bucket());
    let mut index = genuine.index.clone();
    let old = layout::run_prefix(&index.application, &index.backup_id, &index.run_id);
    let run = &uuid::Uuid::new_v4().simple().to_string()[..8];
    index.run_id = run.parse::<RunId>()?;
    let new = layout::run_prefix(&index.application, &index.backup_id, &index.run_id);
    let mut parts = Parts::new();
    for record in &index.objects {
        let name = record.key.strip_prefix(&old).context("an alien key")?;
        parts.insert(name.to_owned(), s3.read(bucket, &record.key)?);
    }
    for database in &mut index.databases {
        database.key = database.key.replace(&old, &new);
    }
    change(&mut index, &mut parts)?;
    let put = |name: &str, bytes: &[u8]| -> Result<ObjectRecord> {
        let key = format!("{new}{name}");
        s3.replace(bucket, &key, bytes)?;
        let found = digests(bytes);
        Ok(ObjectRecord {
            key,
            version_id: None,
            size: bytes.len() as u64,
            sha256: found.sha256,
            crc64: found.crc64,
        })
    };
    index.objects.clear();
    for (name, bytes) in &parts {
        index.objects.push(put(name, bytes)?);
    }
    let index_object = put(layout::INDEX, &serde_json::to_vec(&index)?)?;
    Ok(Manifest {
        index,
        index_object,
        ..genuine.clone()
    })
}

/// Puts a copy of a backup into the bucket, as if it had been taken at another time.
pub fn age(protected: &Protected, genuine: &Manifest, to: &BackupId) -> Result<()> {
    let (s3, bucket) = (protected.world.s3(), protected.world.bucket());
    let from = &genuine.index.backup_id;
    let renamed = |text: &str| {
        text.replace(from.as_str(), to.as_str())
            .replace(&from.day(), &to.day())
    };
    for record in genuine.index.objects.iter().chain([&genuine.index_object]) {
        let bytes = s3.read(bucket, &record.key)?;
        s3.replace(bucket, &renamed(&record.key), &bytes)?;
    }
    let mut manifest = genuine.clone();
    manifest.index.backup_id = to.clone();
    let key = layout::manifest(&manifest.index.application, to);
    s3.replace(bucket, &key, &serde_json::to_vec(&manifest)?)
}

/// Rewrites the part of a backup that says what is in its databases.
pub fn edit_contents(part: &mut Vec<u8>, change: impl FnOnce(&mut Value)) -> Result<()> {
    let mut contents: Value = serde_json::from_slice(&zstd::decode_all(&part[..])?)?;
    change(&mut contents);
    *part = zstd::encode_all(&serde_json::to_vec(&contents)?[..], 3)?;
    Ok(())
}

/// Puts a forged manifest in the place of the genuine one.
pub fn commit(protected: &Protected, forged: &Manifest) -> Result<()> {
    let key = layout::manifest(&forged.index.application, &forged.index.backup_id);
    let bytes = serde_json::to_vec_pretty(forged)?;
    let world = &protected.world;
    world.s3().replace(world.bucket(), &key, &bytes)
}

/// Changes the JSON of a committed manifest, as somebody may who can write to the bucket.
pub fn change_manifest(
    protected: &Protected,
    genuine: &Manifest,
    change: impl FnOnce(&mut Value),
) -> Result<()> {
    let application: &ApplicationName = &genuine.index.application;
    let key = layout::manifest(application, &genuine.index.backup_id);
    let mut json = serde_json::to_value(genuine)?;
    change(&mut json);
    let world = &protected.world;
    world
        .s3()
        .replace(world.bucket(), &key, &serde_json::to_vec(&json)?)
}

/// Returns the process ids of programs of a node whose command line contains all of `words`.
pub fn processes(node: &Node, words: &[&str]) -> Result<Vec<i32>> {
    let marker = format!("REKINDLE_ROOT={}", node.root().display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list processes")? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let Some(number) = number else { continue };
        // A process may end while it is looked at.
        let text = |name: &str| -> String {
            let bytes = std::fs::read(path.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', "\n")
        };
        let line = text("cmdline");
        if words.iter().all(|word| line.contains(word))
            && text("environ").lines().any(|variable| variable == marker)
        {
            found.push(number);
        }
    }
    Ok(found)
}

/// Kills processes at once.
pub fn kill(processes: &[i32]) -> Result<()> {
    ensure!(!processes.is_empty(), "there is no process to kill");
    for number in processes {
        let pid = rustix::process::Pid::from_raw(*number).context("a process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
            .with_context(|| format!("kill {number}"))?;
    }
    Ok(())
}

/// Finds a file by its name anywhere below a directory.
pub fn find(directory: &Path, name: &str) -> Result<Option<std::path::PathBuf>> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir()
            && let Some(found) = find(&entry.path(), name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
