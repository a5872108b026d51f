//! One backup: everything into S3, the index last. The backup exists only when a function commits it.

pub(crate) mod configuration;
pub mod contents;
pub(crate) mod dump;
pub(crate) mod stream;
pub mod tree;

use std::io::Read as _;
use std::process::Stdio;
use std::time::Instant;

use shared::checksum::digests;
use shared::command::{BackupCommand, Purpose};
use shared::id::RunId;
use shared::layout;
use shared::manifest::{
    DatabaseRecord, Index, Lineage, Node, ObjectRecord, SCHEMA_VERSION, Timing, Versions,
};
use shared::report::{BackupReport, ExitCode};
use time::OffsetDateTime;

use crate::agent::application as health;
use crate::agent::context::Context;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::marker::Marker;
use crate::agent::state::LAUNCH_PREFIX;
use crate::agent::watchdog::peak_memory_kib;
use crate::backup::configuration as capture;
use crate::backup::contents::{Contents, DatabaseContents};
use crate::images;
use crate::postgres::container;
use crate::postgres::database;
use crate::postgres::server::Server;
use crate::restore;
use crate::s3::upload::Upload;

/// Takes the backup and returns what a function needs to commit it.
pub(crate) async fn run(context: &Context, command: &BackupCommand) -> Result<BackupReport> {
    let (started, began) = (Instant::now(), tokio::time::Instant::now());
    // A node that was never restored may have no server yet, and has nothing to save either.
    let marker = marker(context, command.purpose)?;
    let server = Server::ask(&context.postgres).await?;
    let lineage = lineage(context, command.purpose, marker, &server)?;
    capture::check(&context.settings, &context.root)?;
    container::end_leftovers(&context.postgres).await?;
    restore::remove_leftovers(context).await;

    let mut attempt = Attempt::begin(context, command, began)?;
    if command.purpose == Purpose::Final {
        let stopping = health::stop(&context.settings.commands, &context.root);
        let stopping = context.progress.patiently(stopping);
        if let Err(failure) = attempt.timed("stop", stopping).await {
            // What the application still writes may be lost with the node; without a backup, more would be.
            tracing::error!(
                cause = failure.chain(),
                "backing up the running application"
            );
        }
    }
    let (index_object, index) = attempt.all(server.clone(), lineage.clone()).await?;
    if command.purpose == Purpose::Adopt && lineage == Lineage::Adopted {
        adopt(context, command, &server)?;
    }
    let report = BackupReport {
        operation_id: command.operation_id.clone(),
        backup_id: command.backup_id.clone(),
        run_id: index.run_id.clone(),
        index_sha256: index_object.sha256,
        index_size: index_object.size,
        databases: index.databases.len() as u64,
        tables: index.tables(),
        rows: index.rows(),
        bytes: index.bytes() + index_object.size,
        seconds: started.elapsed().as_secs_f64(),
        peak_memory_kib: peak_memory_kib(),
    };
    tracing::info!(
        backup_id = %report.backup_id, run_id = %report.run_id, databases = report.databases,
        rows = report.rows, bytes = report.bytes, seconds = report.seconds,
        peak_memory_kib = report.peak_memory_kib, "backup complete in S3"
    );
    Ok(report)
}

/// Retires the node after its final backup: it is never again backed up as the truth, and a launch of the same
/// instance, out of a warm pool, restores afresh.
pub(crate) fn retire(state: &crate::agent::state::State) -> Result<()> {
    Marker::remove(state.root())?;
    state.forget(LAUNCH_PREFIX)
}

/// Returns the marker that was written on this instance for this application; a node without one is refused, unless it is
/// being adopted.
fn marker(context: &Context, purpose: Purpose) -> Result<Option<Marker>> {
    let application = &context.settings.application;
    let marker = Marker::load(&context.root)?;
    let marker = marker.filter(|marker| marker.is_of(application, &context.instance_id));
    if marker.is_some() || purpose == Purpose::Adopt {
        return Ok(marker);
    }
    Err(not_restored(context, ""))
}

/// Returns how the node's data came here; those of another cluster did not come by the marker's restore.
fn lineage(
    context: &Context,
    purpose: Purpose,
    marker: Option<Marker>,
    server: &Server,
) -> Result<Lineage> {
    let cluster = &server.system_identifier;
    match marker.filter(|marker| &marker.system_identifier == cluster) {
        Some(marker) => Ok(marker.lineage),
        None if purpose == Purpose::Adopt => Ok(Lineage::Adopted),
        None => Err(not_restored(
            context,
            &format!(" with the cluster {cluster}"),
        )),
    }
}

fn not_restored(context: &Context, cluster: &str) -> Failure {
    let message = format!(
        "{}{cluster} has no valid restored marker for the application {}: replace the instance, or send the adopt event if \
         its data are the truth",
        context.instance_id, context.settings.application
    );
    Failure::new(ExitCode::NotRestored, message)
}

/// Declares the node's data to be the application's, now that they are all in S3.
fn adopt(context: &Context, command: &BackupCommand, server: &Server) -> Result<()> {
    let marker = Marker {
        application: context.settings.application.clone(),
        instance_id: context.instance_id.clone(),
        system_identifier: server.system_identifier.clone(),
        lineage: Lineage::Adopted,
        operation_id: command.operation_id.clone(),
        time: OffsetDateTime::now_utc(),
    };
    marker.store(&context.root)
}

/// One attempt at a backup, with names of its own.
struct Attempt<'c> {
    context: &'c Context,
    command: &'c BackupCommand,
    began: tokio::time::Instant,
    run_id: RunId,
    objects: Vec<ObjectRecord>,
    timings: Vec<Timing>,
}

impl<'c> Attempt<'c> {
    fn begin(
        context: &'c Context,
        command: &'c BackupCommand,
        began: tokio::time::Instant,
    ) -> Result<Self> {
        Ok(Self {
            context,
            command,
            began,
            run_id: random_run_id()?,
            objects: Vec::new(),
            timings: Vec::new(),
        })
    }

    /// Puts everything into S3, and returns the index with its object.
    async fn all(&mut self, server: Server, lineage: Lineage) -> Result<(ObjectRecord, Index)> {
        let context = self.context;
        let listing = database::list(&context.postgres, &context.settings.postgres);
        let (pg_dump, databases) =
            tokio::join!(pg_dump_version(context), self.timed("list", listing));
        let (pg_dump, databases) = (pg_dump?, databases?);
        let versions = Versions {
            server: server.version,
            pg_dump,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
        };

        let started_at = OffsetDateTime::now_utc();
        let (mut records, mut contents) = (Vec::new(), Vec::new());
        for (number, properties) in databases.into_iter().enumerate() {
            let key = self.key(&layout::dump(number));
            let dumping = dump::database(context, key, &properties);
            let stage = format!("dump {}", properties.name);
            let dump = self.timed(&stage, dumping).await?;
            records.push(DatabaseRecord {
                name: properties.name.clone(),
                key: dump.object.key.clone(),
                tables: dump.archive.tables.len() as u64,
                rows: dump.archive.tables.iter().map(|table| table.rows).sum(),
                dump_bytes: dump.bytes,
                database_bytes: properties.size,
            });
            self.objects.push(dump.object);
            contents.push(DatabaseContents {
                properties,
                tables: dump.archive.tables,
                relations: dump.archive.relations,
            });
        }

        // After the databases, so that every owner in them finds its role, and every row its file.
        let globals = dump::globals(context, self.key(layout::GLOBALS));
        let configuration = capture::configuration(context, self.key(layout::CONFIGURATION));
        // Neither is cut off by the other's failure: an upload that was begun is ended or taken back.
        let (globals, configuration) = tokio::join!(
            clocked("globals", globals),
            clocked("configuration", configuration)
        );
        if let (Err(_), Err(failure)) = (&globals, &configuration) {
            tracing::error!(problem = failure.chain(), "the configuration failed, too");
        }
        for ended in [globals, configuration] {
            let (object, timing) = ended?;
            self.objects.push(object);
            self.timings.push(timing);
        }

        let contents = Contents::new(contents).to_bytes()?;
        let putting = put(context, self.key(layout::CONTENTS), &contents);
        let contents = self.timed("contents", putting).await?;
        self.objects.push(contents);

        // Last, since the data do without them.
        let (purpose, began) = (self.command.purpose, self.began);
        let saving = async { Ok(images::save(context, purpose, began).await) };
        let saved = self.timed("images", saving).await?;

        let index = Index {
            schema_version: SCHEMA_VERSION,
            application: context.settings.application.clone(),
            backup_id: self.command.backup_id.clone(),
            run_id: self.run_id.clone(),
            operation_id: self.command.operation_id.clone(),
            purpose: self.command.purpose,
            node: Node {
                instance_id: context.instance_id.clone(),
                system_identifier: server.system_identifier,
                lineage,
            },
            versions,
            started_at,
            finished_at: OffsetDateTime::now_utc(),
            databases: records,
            configuration_paths: configuration_paths(context),
            objects: std::mem::take(&mut self.objects),
            images: saved.images,
            unsaved_images: saved.unsaved,
            timings: std::mem::take(&mut self.timings),
        };
        let bytes = serde_json::to_vec(&index).or_fail(ExitCode::Internal, || "write the index")?;
        let object = put(context, self.key(layout::INDEX), &bytes).await?;
        Ok((object, index))
    }

    fn key(&self, name: &str) -> String {
        let application = &self.context.settings.application;
        layout::object(application, &self.command.backup_id, &self.run_id, name)
    }

    async fn timed<T>(&mut self, stage: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (done, timing) = clocked(stage, work).await?;
        self.timings.push(timing);
        Ok(done)
    }
}

/// Does a stage's work, and says how long it took.
async fn clocked<T>(stage: &str, work: impl Future<Output = Result<T>>) -> Result<(T, Timing)> {
    let started = Instant::now();
    let done = work.await?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(stage, seconds, "stage finished");
    let stage = stage.to_owned();
    Ok((done, Timing { stage, seconds }))
}

/// Puts an object whose bytes are all at hand.
async fn put(context: &Context, key: String, bytes: &[u8]) -> Result<ObjectRecord> {
    let mut upload = Upload::new(context, key);
    upload.write(bytes).await?;
    upload.finish(&digests(bytes)).await
}

fn configuration_paths(context: &Context) -> Vec<String> {
    let paths = context.settings.configuration_paths.iter();
    // They were read from a text file.
    paths
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

fn random_run_id() -> Result<RunId> {
    let doing = || "draw a random run id";
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .or_fail(ExitCode::Internal, doing)?;
    format!("{:08x}", u32::from_ne_bytes(bytes))
        .parse()
        .or_fail(ExitCode::Internal, doing)
}

async fn pg_dump_version(context: &Context) -> Result<String> {
    let mut command = context.postgres.tool("pg_dump");
    command.arg("--version").stdin(Stdio::null());
    let output = command
        .output()
        .await
        .or_fail(ExitCode::Dump, || "start pg_dump")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let message = format!(
            "pg_dump --version failed ({}): {}",
            output.status,
            words.trim()
        );
        return Err(Failure::new(ExitCode::Dump, message));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
