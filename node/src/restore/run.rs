//! One run of a restore: one backup from S3 onto this node. The live configuration and databases are replaced only
//! after their replacements are complete, and a failure can be rolled back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::checksum::digests;
use shared::command::Candidate;
use shared::exit_code::ExitCode;
use shared::manifest::Index;
use shared::operation::Operation;
use shared::report::exceptions::Exception;
use tokio::join;
use tokio::time::sleep;

use crate::agent::failure::{Failure, Result};
use crate::application;
use crate::context::Context;
use crate::images;
use crate::objects::contents::Contents;
use crate::postgres::ADMIN_DATABASE;
use crate::postgres::orphans::end_tools_and_sessions;
use crate::postgres::own_databases::{OLD_PREFIX, RESTORE_PREFIX, drop_with_prefixes};
use crate::postgres::server::Server;
use crate::postgres::system_setting;
use crate::restore::globals::Existing;
use crate::restore::placement::Placement;
use crate::restore::preflight::Capabilities;
use crate::restore::swap::{Pair, Swapped};
use crate::restore::{database, fetch, globals, swap, targets};
use crate::s3::download;
use crate::settings::Exceptions;

/// How often a restore checks whether the server is working for it.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Counts the agent's sessions in which the server itself works, and does not wait for a client or a lock. For example,
/// creating an index can take minutes without a byte on any stream.
const WORKING_SESSIONS: &str = "SELECT to_json(count(*)) FROM (
    SELECT row_to_json(a) AS a FROM pg_stat_activity a
    WHERE application_name = 'rekindle' AND state = 'active' AND pid <> pg_backend_pid()) s
  WHERE coalesce(a->>'waiting', 'false') <> 'true'
    AND coalesce(a->>'wait_event_type', '') NOT IN ('Lock', 'Client')";

/// A backup that is being restored, and what must be undone if that fails.
pub(crate) struct RestoreRun<'c> {
    context: &'c Context,
    index: Index,
    /// The target on this node of each archived path.
    targets: Vec<PathBuf>,
    /// The part of the names of databases that differs between runs.
    tag: String,
    postgres_started: bool,
    placement: Option<Placement>,
    swapped: Option<Swapped>,
    application_started: bool,
    /// The reasons why images were not loaded.
    unloaded_images: Vec<String>,
}

/// The data of a finished restore.
#[derive(Debug)]
pub(crate) struct RestoredData {
    /// The number of restored rows, as counted on the server.
    pub(crate) rows: u64,
    /// How long clients could not reach the live databases.
    pub(crate) swap: Duration,
    /// The server with the data.
    pub(crate) server: Server,
    /// What the server refused to restore other than rows.
    pub(crate) exceptions: Vec<Exception>,
}

impl<'c> RestoreRun<'c> {
    /// Reads the backup's index, and checks that all objects in it are in S3. Changes nothing on the node.
    ///
    /// `postgres_started` is whether an earlier run has already started Postgres.
    pub(crate) async fn prepare(
        context: &'c Context,
        operation: &Operation,
        candidate: &Candidate,
        postgres_started: bool,
    ) -> Result<Self> {
        let index =
            download::index(&context.bucket, &context.settings.application, candidate).await?;
        let configured = &context.settings.configuration_paths;
        let targets = targets::targets(&context.root, configured, &index.configuration_paths)?;
        for path in configured {
            let archived = |one: &String| *path == Path::new(one);
            if !index.configuration_paths.iter().any(archived) {
                tracing::warn!(path = %path.display(), "the backup does not contain this configured path; it stays as it is");
            }
        }
        download::check_objects(&context.bucket, &index).await?;
        let name = format!("{operation} {candidate}");
        let tag = digests(name.as_bytes()).sha256.as_str()[..8].to_owned();
        Ok(Self {
            context,
            index,
            targets,
            tag,
            postgres_started,
            placement: None,
            swapped: None,
            application_started: false,
            unloaded_images: Vec::new(),
        })
    }

    pub(crate) fn context(&self) -> &'c Context {
        self.context
    }

    /// Returns the backup's index.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Returns whether this run or an earlier one has started Postgres.
    pub(crate) fn postgres_started(&self) -> bool {
        self.postgres_started
    }

    /// Restores everything and starts the application. After a failure the caller must roll back.
    pub(crate) async fn restore(&mut self) -> Result<RestoredData> {
        let (postgres, settings) = (&self.context.postgres, &self.context.settings);
        let (contents, globals) = self.replace_configuration().await?;
        self.unloaded_images = images::load(self.context, &self.index).await;
        self.start_postgres().await?;
        end_tools_and_sessions(postgres).await?;
        let (server, existing) = self.preflight(&contents).await?;
        let of_all_roles = &contents.settings;
        let mut exceptions = globals::restore(
            postgres,
            &settings.postgres,
            &existing,
            &globals,
            of_all_roles,
        )
        .await?;
        let (rows, pairs, more) = self.restore_databases(&contents, &server).await?;
        exceptions.extend(more);
        exceptions.extend(system_setting::restore(postgres, &contents.system_settings).await?);
        self.check_exceptions(&exceptions)?;
        let swapped = swap::swap(postgres, &pairs, server.version).await?;
        let swap = swapped.took;
        self.swapped = Some(swapped);
        self.start_application().await?;
        Ok(RestoredData {
            rows,
            swap,
            server,
            exceptions,
        })
    }

    /// Fails if there are exceptions and the settings refuse them.
    fn check_exceptions(&self, exceptions: &[Exception]) -> Result<()> {
        if exceptions.is_empty() || self.context.settings.postgres.exceptions == Exceptions::Admit {
            return Ok(());
        }
        let texts: Vec<String> = exceptions.iter().map(Exception::text).collect();
        let message = format!(
            "the server refuses parts of the backup, and [postgres] exceptions is \"refuse\": {}",
            texts.join("; ")
        );
        Err(Failure::new(ExitCode::ExceptionsRefused, message))
    }

    /// Reads the contents and the globals, and meanwhile unpacks the configuration into staging directories. Replaces
    /// the live configuration once all three are complete and verified.
    async fn replace_configuration(&mut self) -> Result<(Contents, String)> {
        let (context, index) = (self.context, &self.index);
        let placement = self.placement.insert(Placement::prepare(&self.targets)?);
        // If one fails, wait for the others: the staging directories can be removed only after unpacking has ended.
        let (contents, globals, unpacked) = join!(
            fetch::contents(context, index),
            fetch::globals(context, index),
            fetch::unpack_configuration(context, index, placement.staged_paths())
        );
        let (contents, globals) = (contents?, globals?);
        unpacked?;
        placement.put_in_place()?;
        Ok((contents, globals))
    }

    async fn start_postgres(&mut self) -> Result<()> {
        if !self.postgres_started {
            application::start_postgres(self.context).await?;
            self.postgres_started = true;
        }
        application::wait_for_postgres(self.context).await
    }

    /// Checks that the backup can be restored on the server, and drops the databases of earlier restores. Returns the
    /// server and the roles and tablespaces that it already has.
    async fn preflight(&self, contents: &Contents) -> Result<(Server, Existing)> {
        let postgres = &self.context.postgres;
        // Side by side, because each is a session of its own, and a small restore consists of little else. If one
        // fails, wait for the others: the server would continue to drop a database anyway.
        let (dropped, server, capabilities, existing) = join!(
            drop_with_prefixes(postgres, &[RESTORE_PREFIX, OLD_PREFIX]),
            Server::read(postgres),
            Capabilities::read(postgres),
            Existing::read(postgres)
        );
        dropped?;
        let (server, capabilities, existing) = (server?, capabilities?, existing?);
        capabilities
            .check(postgres, &server, &self.index, contents)
            .await?;
        Ok((server, existing))
    }

    /// Restores each database under a temporary name. Returns the number of rows, the names for the swap, and the
    /// exceptions.
    async fn restore_databases(
        &self,
        contents: &Contents,
        server: &Server,
    ) -> Result<(u64, Vec<Pair>, Vec<Exception>)> {
        let mut rows: u64 = 0;
        let (mut pairs, mut exceptions) = (Vec::new(), Vec::new());
        for (number, recorded) in contents.databases.iter().enumerate() {
            let new = format!("{RESTORE_PREFIX}{}_{number}", self.tag);
            let restoring = database::Restore {
                context: self.context,
                index: &self.index,
                number,
                temporary: &new,
                recorded,
                server_version: server.version,
            };
            let restoring = Box::pin(restoring.run());
            let (restored, more) = with_progress_of_server(self.context, restoring).await?;
            rows = rows.saturating_add(restored);
            exceptions.extend(more);
            pairs.push(Pair {
                live: recorded.properties.name.clone(),
                new,
                old: format!("{OLD_PREFIX}{}_{number}", self.tag),
            });
        }
        Ok((rows, pairs, exceptions))
    }

    async fn start_application(&mut self) -> Result<()> {
        self.application_started = true;
        application::start(self.context).await?;
        application::wait_healthy(self.context).await
    }

    /// Adds the images that could not be loaded to a failure that they may have caused.
    pub(crate) fn with_unloaded_images(&self, failure: Failure) -> Failure {
        let code = failure.code;
        let may_need_images = [
            ExitCode::StartCommand,
            ExitCode::PostgresUnreachable,
            ExitCode::HealthCheck,
        ];
        if self.unloaded_images.is_empty() || !may_need_images.contains(&code) {
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

    /// Removes what the node no longer needs after a successful restore. A failure is only logged: the node is ready.
    pub(crate) async fn clean_up(&self) {
        if let Some(placement) = &self.placement {
            placement.remove_staging();
        }
        let Some(swapped) = &self.swapped else {
            return;
        };
        if let Err(failure) = swapped.drop_replaced(&self.context.postgres).await {
            tracing::warn!(
                reason = failure.chain(),
                "cannot drop the replaced databases; the next backup or restore tries again"
            );
        }
    }

    /// Undoes all changes of this run, except for roles, tablespaces and settings by `ALTER SYSTEM`: they are harmless, and
    /// the next restore sets them to those of its backup.
    pub(crate) async fn roll_back(mut self) -> Result<()> {
        let context = self.context;
        if self.application_started
            && let Err(failure) = application::stop(context).await
        {
            // An application that did not start may be impossible to stop. Its data are put back anyway.
            tracing::warn!(reason = failure.chain(), "cannot stop the application");
        }
        // Put the configuration back even if the databases could not be.
        let databases = self.undo_swap().await;
        let configuration = match &mut self.placement {
            Some(placement) => placement.put_back().map(|()| placement.remove_staging()),
            None => Ok(()),
        };
        databases.and(configuration)?;
        // If the server is down, the next restore drops the databases.
        if let Err(failure) = drop_with_prefixes(&context.postgres, &[RESTORE_PREFIX]).await {
            tracing::warn!(
                reason = failure.chain(),
                "cannot drop the databases of the failed restore; the next backup or restore tries again"
            );
        }
        Ok(())
    }

    async fn undo_swap(&mut self) -> Result<()> {
        match self.swapped.take() {
            Some(swapped) => swapped.undo(&self.context.postgres).await,
            None => Ok(()),
        }
    }
}

/// Runs a step, during which work of the server for the agent counts as progress for the watchdog.
async fn with_progress_of_server<T>(context: &Context, step: impl Future<Output = T>) -> T {
    let checking = async {
        loop {
            sleep(CHECK_EVERY).await;
            let (query, code) = (WORKING_SESSIONS, ExitCode::PostgresUnreachable);
            let working: Result<u64> = context.postgres.query(ADMIN_DATABASE, query, code).await;
            if working.is_ok_and(|count| count > 0) {
                context.progress.touch();
            }
        }
    };
    tokio::select! {
        done = step => done,
        never = checking => never,
    }
}
