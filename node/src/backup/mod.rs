//! One backup: uploads every object to S3, the index last. The backup exists only once a function commits it.

pub(crate) mod configuration;
pub(crate) mod dump;
mod origin;

use std::io::Read as _;

use shared::checksum::digests;
use shared::command::{BackupCommand, Purpose};
use shared::exit_code::ExitCode;
use shared::id::RunId;
use shared::layout;
use shared::manifest::{
    DatabaseRecord, Index, Lineage, Node, ObjectRecord, SCHEMA_VERSION, Timing, Versions,
};
use shared::report::BackupReport;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::agent::failure::{OrFail as _, Result};
use crate::agent::marker::Marker;
use crate::agent::state::State;
use crate::agent::watchdog::peak_memory_kib;
use crate::application;
use crate::context::Context;
use crate::images::{self, Saved};
use crate::leftovers;
use crate::objects::contents::{Contents, DatabaseContents};
use crate::postgres::database::list::{DROPPED, Databases, is_gone, list};
use crate::postgres::server::Server;
use crate::postgres::setting::{self, Setting};
use crate::postgres::system_setting;
use crate::s3::upload::Upload;

/// Takes the backup, and returns what a function needs to commit it.
pub(crate) async fn run(context: &Context, command: &BackupCommand) -> Result<BackupReport> {
    let started = Instant::now();
    // A node that was never restored may have no server, so check the marker before the server.
    let marker = origin::marker(context, command.purpose)?;
    let server = Server::read(&context.postgres).await?;
    let lineage = origin::lineage(context, command.purpose, marker, &server)?;
    configuration::check(&context.settings, &context.root)?;
    configuration::warn_of_mounts(&context.settings, &context.root);
    leftovers::remove(context).await?;

    let mut run = BackupRun::new(context, command, started)?;
    if command.purpose == Purpose::Final {
        run.stop_application().await;
    }
    let (mut databases, versions) = run.list_databases(&server).await?;
    let started_at = OffsetDateTime::now_utc();
    let (records, contents) = run.dump(&mut databases).await?;
    // After the dumps, so that the globals contain every owner in them, and the configuration every file of a row.
    let settings = run.upload_globals_and_configuration().await?;
    let system_settings = system_setting::list(&context.postgres, server.version).await?;
    let contents = Contents::new(settings, system_settings, contents);
    run.upload_contents(&contents).await?;
    // Last, because a restore can do without them.
    let images = run.save_images().await?;

    let index = Index {
        schema_version: SCHEMA_VERSION,
        application: context.settings.application.clone(),
        backup_id: command.backup_id.clone(),
        run_id: run.run_id.clone(),
        operation_id: command.operation_id.clone(),
        purpose: command.purpose,
        node: Node {
            instance_id: context.instance_id.clone(),
            system_identifier: server.system_identifier.clone(),
            lineage: lineage.clone(),
        },
        versions,
        started_at,
        finished_at: OffsetDateTime::now_utc(),
        databases: records,
        skipped_databases: databases.skipped,
        configuration_paths: configuration_paths(context),
        objects: std::mem::take(&mut run.objects),
        images: images.images,
        unsaved_images: images.unsaved,
        timings: std::mem::take(&mut run.timings),
    };
    let index_object = run.upload_index(&index).await?;
    if command.purpose == Purpose::Adopt && lineage == Lineage::Adopted {
        origin::adopt(context, command, &server)?;
    }
    Ok(report(command, &index, index_object, started))
}

/// Decommissions the node after its final backup: it is not backed up again, and if the instance is launched again from
/// a warm pool, it is restored again.
pub(crate) fn decommission(state: &State) -> Result<()> {
    Marker::remove(state.root())?;
    state.forget_launches()
}

/// One run of a backup, with its own keys in S3.
struct BackupRun<'c> {
    context: &'c Context,
    command: &'c BackupCommand,
    started: Instant,
    run_id: RunId,
    objects: Vec<ObjectRecord>,
    timings: Vec<Timing>,
}

impl<'c> BackupRun<'c> {
    fn new(context: &'c Context, command: &'c BackupCommand, started: Instant) -> Result<Self> {
        Ok(Self {
            context,
            command,
            started,
            run_id: random_run_id()?,
            objects: Vec::new(),
            timings: Vec::new(),
        })
    }

    /// Stops the application before its final backup. If that fails, the backup continues. It then lacks the data that
    /// the application still writes, but without it all data since the last backup would be lost.
    async fn stop_application(&mut self) {
        let stopping = application::stop(self.context);
        if let Err(failure) = self.timed("stop", stopping).await {
            tracing::error!(
                reason = failure.chain(),
                "cannot stop the application; backing it up while it runs"
            );
        }
    }

    /// Returns the databases to back up, and the versions of the programs.
    async fn list_databases(&mut self, server: &Server) -> Result<(Databases, Versions)> {
        let context = self.context;
        let listing = list(&context.postgres, &context.settings.postgres);
        let (pg_dump, databases) =
            tokio::join!(pg_dump_version(context), self.timed("list", listing));
        let versions = Versions {
            server: server.version,
            pg_dump: pg_dump?,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok((databases?, versions))
    }

    /// Dumps each database. Returns their records for the index and their contents. A database that is dropped meanwhile
    /// is left out.
    async fn dump(
        &mut self,
        databases: &mut Databases,
    ) -> Result<(Vec<DatabaseRecord>, Vec<DatabaseContents>)> {
        let context = self.context;
        let is_any = context.settings.postgres.databases.is_none();
        let (mut records, mut contents) = (Vec::new(), Vec::new());
        for properties in std::mem::take(&mut databases.wanted) {
            let key = self.key(&layout::dump(records.len()));
            let dumping = dump::database(context, &key, &properties);
            let stage = format!("dump {}", properties.name);
            let dump = match self.timed(&stage, dumping).await {
                // A configured database must be in every backup.
                Err(_) if is_any && is_gone(&context.postgres, &properties.name).await => {
                    databases.skip(&properties.name, DROPPED);
                    continue;
                }
                dump => dump?,
            };
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
        Ok((records, contents))
    }

    /// Uploads the globals and the configuration. Returns the settings of all roles, which the globals lack.
    async fn upload_globals_and_configuration(&mut self) -> Result<Vec<Setting>> {
        let globals = dump::globals(self.context, self.key(layout::GLOBALS));
        let configuration = configuration::upload(self.context, self.key(layout::CONFIGURATION));
        // If one fails, wait for the others: an upload that has begun must be completed or aborted.
        let (globals, configuration, settings) = tokio::join!(
            measured("globals", globals),
            measured("configuration", configuration),
            setting::of_all_roles(&self.context.postgres)
        );
        if let (Err(_), Err(failure)) = (&globals, &configuration) {
            tracing::error!(
                reason = failure.chain(),
                "cannot upload the configuration either"
            );
        }
        for uploaded in [globals, configuration] {
            let (object, timing) = uploaded?;
            self.objects.push(object);
            self.timings.push(timing);
        }
        settings
    }

    async fn upload_contents(&mut self, contents: &Contents) -> Result<()> {
        let contents = contents.to_bytes()?;
        let uploading = upload(self.context, self.key(layout::CONTENTS), &contents);
        let object = self.timed("contents", uploading).await?;
        self.objects.push(object);
        Ok(())
    }

    async fn save_images(&mut self) -> Result<Saved> {
        let (context, purpose, started) = (self.context, self.command.purpose, self.started);
        let saving = async { Ok(images::save(context, purpose, started).await) };
        self.timed("images", saving).await
    }

    async fn upload_index(&self, index: &Index) -> Result<ObjectRecord> {
        let bytes =
            serde_json::to_vec(index).or_fail(ExitCode::Internal, || "cannot write the index")?;
        upload(self.context, self.key(layout::INDEX), &bytes).await
    }

    fn key(&self, name: &str) -> String {
        let application = &self.context.settings.application;
        layout::object(application, &self.command.backup_id, &self.run_id, name)
    }

    /// Runs a stage, and records how long it took.
    async fn timed<T>(&mut self, stage: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (done, timing) = measured(stage, work).await?;
        self.timings.push(timing);
        Ok(done)
    }
}

/// Runs a stage, and returns its result and how long it took.
async fn measured<T>(stage: &str, work: impl Future<Output = Result<T>>) -> Result<(T, Timing)> {
    let started = Instant::now();
    let done = work.await?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(stage, seconds, "stage finished");
    let stage = stage.to_owned();
    Ok((done, Timing { stage, seconds }))
}

/// Uploads an object from memory.
async fn upload(context: &Context, key: String, bytes: &[u8]) -> Result<ObjectRecord> {
    let mut upload = Upload::new(&context.bucket, key);
    upload.write(bytes).await?;
    upload.finish(&digests(bytes)).await
}

/// Returns the report of a finished backup, and logs it.
fn report(
    command: &BackupCommand,
    index: &Index,
    index_object: ObjectRecord,
    started: Instant,
) -> BackupReport {
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
    report
}

fn configuration_paths(context: &Context) -> Vec<String> {
    let paths = context.settings.configuration_paths.iter();
    // The settings are a UTF-8 file, so no path loses a byte.
    paths
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

fn random_run_id() -> Result<RunId> {
    let doing = || "cannot generate a random run id";
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .or_fail(ExitCode::Internal, doing)?;
    format!("{:08x}", u32::from_ne_bytes(bytes))
        .parse()
        .or_fail(ExitCode::Internal, doing)
}

async fn pg_dump_version(context: &Context) -> Result<String> {
    let pg_dump = context.postgres.tool("pg_dump").arg("--version");
    let output = pg_dump.output(ExitCode::Dump).await?;
    let text = String::from_utf8_lossy(&output);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
