//! One backup, from S3 onto this node: nothing live changes before what replaces it is complete, and a failure
//! takes back whatever was changed.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::checksum::digests;
use shared::command::Candidate;
use shared::id::OperationId;
use shared::layout;
use shared::manifest::{Index, ObjectRecord};
use shared::report::ExitCode;
use tokio::join;
use tokio::time::sleep;

use crate::agent::application as health;
use crate::agent::context::Context;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::backup::contents::{Contents, DatabaseContents};
use crate::images;
use crate::postgres::ADMIN_DATABASE;
use crate::postgres::container;
use crate::postgres::database::{OLD_PREFIX, RESTORE_PREFIX};
use crate::postgres::encoding;
use crate::postgres::server::Server;
use crate::restore::globals::Existing;
use crate::restore::placement::Placement;
use crate::restore::preflight::Offer;
use crate::restore::swap;
use crate::restore::swap::{Pair, Swapped};
use crate::restore::unpack::{UnpackError, unpack};
use crate::restore::{globals, load, targets as configured, verify};
use crate::s3::download;

/// The largest compressed contents and globals that are read.
const MOST_DESCRIPTION_BYTES: u64 = 32 * 1024 * 1024;
/// The largest globals before compression: some hundred thousand roles.
const MOST_GLOBALS_BYTES: u64 = 64 * 1024 * 1024;
/// How often the server is asked whether it works.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Counts the agent's own sessions in which the server, and not the client or somebody's lock, is what takes so
/// long: building an index moves no byte for minutes.
const WORKING: &str = "SELECT to_json(count(*)) FROM (
    SELECT row_to_json(a) AS a FROM pg_stat_activity a
    WHERE application_name = 'rekindle' AND state = 'active' AND pid <> pg_backend_pid()) s
  WHERE coalesce(a->>'waiting', 'false') <> 'true'
    AND coalesce(a->>'wait_event_type', '') NOT IN ('Lock', 'Client')";

/// A backup that is being restored.
pub(crate) struct Attempt<'c> {
    context: &'c Context,
    index: Index,
    /// Where the archived paths go on this node.
    paths: Vec<PathBuf>,
    /// What tells the names that this attempt makes from those of others.
    tag: String,
    placement: Option<Placement>,
    swapped: Option<Swapped>,
    application_started: bool,
    /// What kept images from being loaded.
    unloaded_images: Vec<String>,
}

/// What an attempt brought.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Rows counted, as many as the backup has.
    pub(crate) rows: u64,
    /// How long the live databases were out of reach.
    pub(crate) swap: Duration,
    /// The server that was restored into.
    pub(crate) server: Server,
}

impl<'c> Attempt<'c> {
    /// Reads what the backup is and checks, without a change to anything, that all of it is in S3.
    pub(crate) async fn prepare(
        context: &'c Context,
        operation: &OperationId,
        candidate: &Candidate,
    ) -> Result<Self> {
        let index = download::index(context, candidate).await?;
        let configured = &context.settings.configuration_paths;
        let paths = configured::places(&context.root, configured, &index.configuration_paths)?;
        for path in configured {
            let archived = |one: &String| *path == Path::new(one);
            if !index.configuration_paths.iter().any(archived) {
                tracing::warn!(path = %path.display(), "the backup has nothing of this configured path; it stays as it is");
            }
        }
        download::check_objects(context, &index).await?;
        let named = format!("{operation} {candidate}");
        let tag = digests(named.as_bytes()).sha256.as_str()[..8].to_owned();
        Ok(Self {
            context,
            index,
            paths,
            tag,
            placement: None,
            swapped: None,
            application_started: false,
            unloaded_images: Vec::new(),
        })
    }

    /// Returns what the attempt works with.
    pub(crate) fn context(&self) -> &'c Context {
        self.context
    }

    /// Returns the backup's index.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Restores everything and starts the application. After a failure the caller must roll back.
    pub(crate) async fn run(&mut self, postgres_started: &mut bool) -> Result<Outcome> {
        let context = self.context;
        let (postgres, settings) = (&context.postgres, &context.settings);
        let progress = &context.progress;
        let (contents, text) = self.descriptions_and_configuration().await?;
        self.unloaded_images = images::load(context, &self.index).await;
        if !*postgres_started {
            let starting = health::start_postgres(&settings.commands, &context.root);
            progress.patiently(starting).await?;
            *postgres_started = true;
        }
        let waiting = health::wait_for_postgres(postgres, &settings.postgres);
        progress.patiently(waiting).await?;
        container::end_leftovers(postgres).await?;
        // Each is a session of its own, and a small restore consists of little else. None is cut off by another's failure:
        // a server goes on with what it was asked to drop.
        let (dropped, server, offer, existing) = join!(
            swap::drop_all(postgres, &[RESTORE_PREFIX, OLD_PREFIX]),
            Server::ask(postgres),
            Offer::ask(postgres),
            Existing::ask(postgres)
        );
        dropped?;
        let (server, offer, existing) = (server?, offer?, existing?);
        offer
            .check(postgres, &server, &self.index, &contents)
            .await?;
        globals::restore(postgres, &settings.postgres, &existing, &text).await?;
        let mut rows: u64 = 0;
        let mut pairs = Vec::new();
        for (number, recorded) in contents.databases.iter().enumerate() {
            let new = format!("{RESTORE_PREFIX}{}_{number}", self.tag);
            let restoring = Box::pin(self.database(number, &new, recorded, server.version));
            rows = rows.saturating_add(while_the_server_works(context, restoring).await?);
            pairs.push(Pair {
                live: recorded.properties.name.clone(),
                new,
                old: format!("{OLD_PREFIX}{}_{number}", self.tag),
            });
        }
        let swapped = swap::swap(postgres, &pairs, server.version).await?;
        let swap = swapped.took;
        self.swapped = Some(swapped);

        self.application_started = true;
        let starting = health::start(&settings.commands, &context.root);
        progress.patiently(starting).await?;
        let waiting = health::wait_healthy(&settings.commands, &context.root);
        progress.patiently(waiting).await?;
        Ok(Outcome { rows, swap, server })
    }

    /// Adds to what did not start the images that it may have missed.
    pub(crate) fn explained(&self, failure: Failure) -> Failure {
        let code = failure.code;
        let may_miss = [
            ExitCode::StartCommand,
            ExitCode::PostgresUnreachable,
            ExitCode::HealthCheck,
        ];
        if self.unloaded_images.is_empty() || !may_miss.contains(&code) {
            return failure;
        }
        let unloaded = self.unloaded_images.join("; ");
        Failure::new(
            code,
            format!(
                "{}; images that were not loaded: {unloaded}",
                failure.chain()
            ),
        )
    }

    /// Removes what the restored node does not need any more. It is in good order whatever happens here.
    pub(crate) async fn clean_up(&self) {
        if let Some(placement) = &self.placement {
            placement.remove_staging();
        }
        let Some(swapped) = &self.swapped else {
            return;
        };
        if let Err(failure) = swapped.forget(&self.context.postgres).await {
            tracing::warn!(
                problem = failure.chain(),
                "a replaced database stays behind"
            );
        }
    }

    /// Takes back whatever the attempt changed. Roles and tablespaces stay: they harm nobody, and the next
    /// backup's own are applied over them.
    pub(crate) async fn roll_back(mut self) -> Result<()> {
        let context = self.context;
        if self.application_started {
            let stopping = health::stop(&context.settings.commands, &context.root);
            if let Err(failure) = context.progress.patiently(stopping).await {
                // An application that did not start need not stop either; its data are put back all the same.
                tracing::warn!(problem = failure.chain(), "the application was not stopped");
            }
        }
        // Each is put back even where the other cannot be.
        let databases = async {
            let Some(swapped) = self.swapped.take() else {
                return Ok(());
            };
            let server = Server::ask(&context.postgres).await?;
            swapped.undo(&context.postgres, server.version).await
        };
        let databases = databases.await;
        let configuration = match &mut self.placement {
            Some(placement) => placement.put_back().map(|()| placement.remove_staging()),
            None => Ok(()),
        };
        databases.and(configuration)?;
        // A server that is not there holds none of this attempt's databases that the next one would not remove.
        if let Err(failure) = swap::drop_all(&context.postgres, &[RESTORE_PREFIX]).await {
            tracing::warn!(
                problem = failure.chain(),
                "a database of the failed attempt stays behind"
            );
        }
        Ok(())
    }

    fn record(&self, name: &str) -> Result<&ObjectRecord> {
        self.index
            .object(name)
            .or_fail(ExitCode::Verification, || "read the backup's index")
    }

    async fn contents(&self) -> Result<Contents> {
        let record = self.record(layout::CONTENTS)?;
        let bytes = download::whole(self.context, record, MOST_DESCRIPTION_BYTES).await?;
        let contents = Contents::from_bytes(&bytes)?;
        let described: Vec<&str> = contents
            .databases
            .iter()
            .map(|database| database.properties.name.as_str())
            .collect();
        let listed: Vec<&str> = self
            .index
            .databases
            .iter()
            .map(|database| database.name.as_str())
            .collect();
        if described != listed {
            let message = format!(
                "the backup's contents describe the databases {described:?}, its index lists {listed:?}"
            );
            return Err(Failure::new(ExitCode::Verification, message));
        }
        Ok(contents)
    }

    async fn globals(&self) -> Result<String> {
        let record = self.record(layout::GLOBALS)?;
        let bytes = download::whole(self.context, record, MOST_DESCRIPTION_BYTES).await?;
        let decode = || -> anyhow::Result<String> {
            let mut text = Vec::new();
            zstd::Decoder::new(&bytes[..])?
                .take(MOST_GLOBALS_BYTES + 1)
                .read_to_end(&mut text)?;
            anyhow::ensure!(
                text.len() as u64 <= MOST_GLOBALS_BYTES,
                "they have more than {MOST_GLOBALS_BYTES} bytes"
            );
            Ok(encoding::decode(&text))
        };
        decode().or_fail(ExitCode::Verification, || "read the backup's globals")
    }

    /// Reads what the databases have to come to, and the globals, and meanwhile unpacks the configuration to one side;
    /// exchanges it for the live one once all are what was committed. Whoever fails waits for the others: what is unpacked
    /// must not be going on when it is removed.
    async fn descriptions_and_configuration(&mut self) -> Result<(Contents, String)> {
        let placement = self.placement.insert(Placement::prepare(&self.paths)?);
        let targets = placement.targets();
        let (contents, globals, unpacked) =
            join!(self.contents(), self.globals(), self.unpack(targets));
        let described = (contents?, globals?);
        unpacked?;
        if let Some(placement) = &mut self.placement {
            placement.put_in_place()?;
        }
        Ok(described)
    }

    async fn unpack(&self, targets: Vec<PathBuf>) -> Result<()> {
        let record = self.record(layout::CONFIGURATION)?;
        let (downloading, reader) = download::stream(self.context, record);
        let unpacking = tokio::task::spawn_blocking(move || {
            let decoder = zstd::Decoder::new(reader).map_err(UnpackError::Read)?;
            unpack(decoder, &targets)
        });
        let (downloaded, unpacked) = join!(downloading, unpacking);
        // An archive that is not the one that was committed is no reason to look at what is wrong in it.
        downloaded?;
        let doing = || "unpack the configuration";
        let unpacked = unpacked.or_fail(ExitCode::Internal, doing)?;
        unpacked.map_err(|error| {
            let code = match error {
                UnpackError::Archive(_) | UnpackError::Read(_) => ExitCode::Verification,
                UnpackError::Write { .. } => ExitCode::ConfigurationRestore,
            };
            Failure {
                code,
                cause: anyhow::Error::new(error).context(doing()),
            }
        })
    }

    /// Restores one database under a new name and compares it with what was recorded; returns its rows.
    async fn database(
        &self,
        number: usize,
        new: &str,
        recorded: &DatabaseContents,
        server_version: u32,
    ) -> Result<u64> {
        let context = self.context;
        let postgres = &context.postgres;
        let tablespaces = context.settings.postgres.tablespaces;
        let properties = &recorded.properties;
        properties
            .create(postgres, new, server_version, tablespaces)
            .await?;
        let record = self.record(&layout::dump(number))?;
        let plain = self.index.databases.get(number);
        let plain = plain.map_or(0, |database| database.dump_bytes);
        load::dump(context, record, plain, new, server_version).await?;
        let rows =
            verify::verify(postgres, new, recorded, server_version, load::sessions()).await?;
        properties.apply(postgres, new).await?;
        tracing::info!(database = properties.name, rows, "restored and verified");
        Ok(rows)
    }
}

/// Counts a server that is at work for the agent as something that moves.
async fn while_the_server_works<T>(context: &Context, step: impl Future<Output = T>) -> T {
    let looking = async {
        loop {
            sleep(LOOK_EVERY).await;
            let code = ExitCode::PostgresUnreachable;
            let working: Result<u64> = context.postgres.query(ADMIN_DATABASE, WORKING, code).await;
            if working.is_ok_and(|count| count > 0) {
                context.progress.touch();
            }
        }
    };
    tokio::select! {
        done = step => done,
        never = looking => never,
    }
}
