//! Makes this node ready: restores the newest usable backup, or starts an empty application at its first boot.
//!
//! A launch restore never overwrites the data of a node that was already restored. An in-place restore always does.

mod checks;
mod database;
mod exceptions;
mod fetch;
mod globals;
pub mod load;
mod placement;
mod preflight;
mod run;
mod swap;
pub mod targets;
pub mod unpack;
mod verify;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use shared::command::{Candidate, Mode, RestoreCommand};
use shared::exit_code::ExitCode;
use shared::manifest::Lineage;
use shared::operation::Operation;
use shared::report::exceptions::ReportedExceptions;
use shared::report::{RestoreOutcome, RestoreReport, SkippedBackup, shorten};
use time::OffsetDateTime;

use crate::agent::failure::{Failure, Result};
use crate::agent::marker::Marker;
use crate::agent::watchdog::peak_memory_kib;
use crate::application;
use crate::context::Context;
use crate::leftovers;
use crate::postgres::server::Server;
use crate::restore::run::{RestoreRun, RestoredData};

/// How many bytes of the report the reasons of all skipped backups get. Their ids and exit codes need the others.
const REASONS: usize = 1_500;

/// The result of a restore.
struct Restored {
    outcome: RestoreOutcome,
    /// The newer backups that could not be restored, newest first.
    skipped: Vec<SkippedBackup>,
    /// What the server refused to restore, other than rows.
    exceptions: ReportedExceptions,
    /// How long clients could not reach the live databases.
    swap: Duration,
}

impl Restored {
    /// Returns the result of a restore that swapped no databases.
    fn without_swap(outcome: RestoreOutcome, skipped: Vec<SkippedBackup>) -> Self {
        Self {
            outcome,
            skipped,
            exceptions: ReportedExceptions::default(),
            swap: Duration::ZERO,
        }
    }
}

/// Restores the first usable one of the candidates, which are ordered from newest to oldest. Without candidates, a
/// launch is a first boot.
pub(crate) async fn run(context: &Context, command: &RestoreCommand) -> Result<RestoreReport> {
    let (operation, candidates) = (&command.operation_id, &command.candidates);
    let started = Instant::now();
    let restored = if command.mode == Mode::InPlace {
        Box::pin(in_place(context, operation, candidates)).await?
    } else if let Some(lineage) = lineage_of_ready_node(context).await? {
        leftovers::remove(context).await?;
        already_restored(context, operation, lineage).await
    } else if candidates.is_empty() {
        first_boot(context, operation).await?
    } else {
        Box::pin(from_newest_usable(context, operation, candidates)).await?
    };
    Ok(RestoreReport {
        operation_id: operation.clone(),
        outcome: restored.outcome,
        skipped: restored.skipped,
        exceptions: restored.exceptions,
        seconds: started.elapsed().as_secs_f64(),
        swap_seconds: restored.swap.as_secs_f64(),
        peak_memory_kib: peak_memory_kib(),
    })
}

/// Returns the origin of this instance's data if it already has the application's data, otherwise `None`.
///
/// A marker alone does not prove it, because the volume may be a new one: the server must have the cluster of the
/// marker.
async fn lineage_of_ready_node(context: &Context) -> Result<Option<Lineage>> {
    let Some(marker) = context.marker()? else {
        return Ok(None);
    };
    // Do not start anything: if the server of a restored node is down, the node must not be restored again.
    application::wait_for_postgres(context).await?;
    let server = Server::read(&context.postgres).await?;
    let lineage = marker.lineage_of(&server.system_identifier);
    tracing::info!(valid = lineage.is_some(), "the node has a restored marker");
    Ok(lineage)
}

/// Returns the result of an earlier restore of this node. The report of that restore may be lost.
async fn already_restored(context: &Context, operation: &Operation, lineage: Lineage) -> Restored {
    let (backup_id, skipped) = match lineage {
        Lineage::Restored { backup_id, skipped } => (Some(backup_id), skipped),
        Lineage::FirstBoot | Lineage::Adopted => (None, Vec::new()),
    };
    let skipped = skipped.into_iter().map(|backup_id| SkippedBackup {
        backup_id,
        // The only one that leads to an older backup.
        exit_code: ExitCode::Verification,
        reason: "skipped by an earlier command, and its report is lost; the node's log contains the reason"
            .to_owned(),
    });
    let exceptions = match &backup_id {
        Some(backup_id) => exceptions::stored(context, operation, backup_id).await,
        None => ReportedExceptions::default(),
    };
    let outcome = RestoreOutcome::AlreadyRestored { backup_id };
    Restored {
        exceptions,
        ..Restored::without_swap(outcome, skipped.collect())
    }
}

/// Starts the empty application.
async fn first_boot(context: &Context, operation: &Operation) -> Result<Restored> {
    application::start_postgres(context).await?;
    application::wait_for_postgres(context).await?;
    application::start(context).await?;
    application::wait_healthy(context).await?;
    let server = Server::read(&context.postgres).await?;
    context.write_marker(operation, &server, Lineage::FirstBoot)?;
    Ok(Restored::without_swap(
        RestoreOutcome::FirstBoot,
        Vec::new(),
    ))
}

/// Replaces this node's data by those of one backup.
///
/// Until the restore is finished or rolled back, the node has no marker, so it is not backed up. If the agent is killed
/// meanwhile, a replacement node restores the backup that precedes the in-place restore.
async fn in_place(
    context: &Context,
    operation: &Operation,
    candidates: &[Candidate],
) -> Result<Restored> {
    let [candidate] = candidates else {
        let message = format!(
            "refused the in-place restore: it must name exactly one backup, not {}",
            candidates.len()
        );
        return Err(Failure::new(ExitCode::Usage, message));
    };
    let root = &context.root;
    let mut run = RestoreRun::prepare(context, operation, candidate, false).await?;
    let marker = Marker::load(root)?;
    Marker::remove(root)?;
    let replacing = async {
        application::stop(context).await?;
        let result = run.restore().await;
        finish(run, result, operation, candidate, Vec::new()).await
    };
    let failure = match replacing.await {
        Ok(restored) => return Ok(restored),
        Err(failure) => failure,
    };
    // If the rollback failed too, nothing may use the node.
    if failure.code != ExitCode::NodeState {
        if let Some(marker) = marker {
            marker.store(root)?;
        }
        let starting = async {
            application::start(context).await?;
            application::wait_healthy(context).await
        };
        if let Err(second) = starting.await {
            let message = format!(
                "{failure}; the restore was rolled back, but the application did not start again: {second}"
            );
            return Err(Failure::new(failure.code, message));
        }
    }
    Err(failure)
}

/// Restores the first usable candidate.
async fn from_newest_usable(
    context: &Context,
    operation: &Operation,
    candidates: &[Candidate],
) -> Result<Restored> {
    let mut launch = LaunchRestore {
        context,
        operation,
        postgres_started: false,
        skipped: Vec::new(),
    };
    for candidate in candidates {
        let failure = match launch.restore_with_retry(candidate).await {
            Ok(restored) => return Ok(restored),
            Err(failure) => failure,
        };
        if candidates.len() == 1 || !older_backup_may_work(failure.code) {
            return Err(failure);
        }
        let reason = failure.chain();
        tracing::error!(backup_id = %candidate.backup_id, reason, "skipped a backup");
        launch.skipped.push(SkippedBackup {
            backup_id: candidate.backup_id.clone(),
            exit_code: failure.code,
            reason,
        });
    }
    Err(no_usable_backup(launch.skipped))
}

/// Returns the failure of a restore that skipped all backups. Each reason gets its share of the report.
fn no_usable_backup(skipped: Vec<SkippedBackup>) -> Failure {
    let most = REASONS / skipped.len().max(1);
    let reasons: Vec<String> = skipped
        .into_iter()
        .map(|mut one| {
            shorten(&mut one.reason, most);
            format!("{}: {} ({})", one.backup_id, one.reason, one.exit_code)
        })
        .collect();
    let message = format!("no backup could be restored: {}", reasons.join("; "));
    Failure::new(ExitCode::NoUsableBackup, message)
}

/// Returns whether objects of the backup are damaged or missing, so that an older one may succeed. If the cause is the
/// node, its settings, its server or S3, an older backup would lose data without need.
fn older_backup_may_work(code: ExitCode) -> bool {
    code == ExitCode::Verification
}

/// A launch restore, which may try several backups.
struct LaunchRestore<'c> {
    context: &'c Context,
    operation: &'c Operation,
    postgres_started: bool,
    skipped: Vec<SkippedBackup>,
}

impl LaunchRestore<'_> {
    /// Restores a backup. Retries it once if the server may be the cause of the failure: it was restarted, or had too
    /// little memory. An older backup would lose data.
    async fn restore_with_retry(&mut self, candidate: &Candidate) -> Result<Restored> {
        match self.restore(candidate).await {
            Err(failure) if failure.code == ExitCode::Restore => {
                let reason = failure.chain();
                tracing::warn!(backup_id = %candidate.backup_id, reason, "trying the same backup again");
                self.postgres_started = false;
                self.restore(candidate).await
            }
            result => result,
        }
    }

    async fn restore(&mut self, candidate: &Candidate) -> Result<Restored> {
        let (context, operation) = (self.context, self.operation);
        let mut run =
            RestoreRun::prepare(context, operation, candidate, self.postgres_started).await?;
        let result = run.restore().await;
        self.postgres_started = run.postgres_started();
        finish(run, result, operation, candidate, self.skipped.clone()).await
    }
}

/// Writes the marker after a successful run, and rolls a failed one back.
async fn finish(
    run: RestoreRun<'_>,
    result: Result<RestoredData>,
    operation: &Operation,
    candidate: &Candidate,
    skipped: Vec<SkippedBackup>,
) -> Result<Restored> {
    let backup_id = &candidate.backup_id;
    let data = match result {
        Ok(data) => data,
        Err(failure) => {
            let failure = run.with_unloaded_images(failure);
            tracing::warn!(%backup_id, reason = failure.chain(), "rolling the restore back");
            return Err(match run.roll_back().await {
                Ok(()) => failure,
                Err(second) => Failure::new(
                    ExitCode::NodeState,
                    format!(
                        "{failure}; and the restore could not be rolled back: {second}; replace the node"
                    ),
                ),
            });
        }
    };
    let lineage = Lineage::Restored {
        backup_id: backup_id.clone(),
        skipped: skipped.iter().map(|one| one.backup_id.clone()).collect(),
    };
    let context = run.context();
    // Before the marker: with a marker, the agent does not restore again, and would not find these exceptions again.
    let exceptions = exceptions::store(context, operation, backup_id, &data.exceptions).await;
    context.write_marker(operation, &data.server, lineage)?;
    run.clean_up().await;
    let index = run.index();
    let age = (OffsetDateTime::now_utc() - index.started_at).whole_seconds();
    let outcome = RestoreOutcome::Restored {
        backup_id: backup_id.clone(),
        // Negative if the clocks of the two nodes differ.
        age_seconds: u64::try_from(age).unwrap_or(0),
        rows: data.rows,
        bytes: index.bytes(),
    };
    Ok(Restored {
        outcome,
        skipped,
        exceptions,
        swap: data.swap,
    })
}
