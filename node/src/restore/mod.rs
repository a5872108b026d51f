//! Makes this node ready: restores the newest usable backup, or starts an empty application at a first boot.
//!
//! A launch restore never overwrites a node that is restored already; a restore in place does nothing else.

mod globals;
pub mod load;
pub(crate) mod placement;
mod preflight;
mod run;
mod swap;
pub mod targets;
pub mod unpack;
mod verify;

use std::time::Instant;

use shared::command::{Candidate, Mode, RestoreCommand};
use shared::id::OperationId;
use shared::manifest::Lineage;
use shared::report::{ExitCode, RestoreOutcome, RestoreReport, SkippedBackup};
use time::OffsetDateTime;

use crate::agent::application as health;
use crate::agent::context::Context;
use crate::agent::failure::{Failure, Result};
use crate::agent::marker::Marker;
use crate::agent::watchdog::peak_memory_kib;
use crate::backup::configuration as capture;
use crate::postgres::container;
use crate::postgres::database::{OLD_PREFIX, RESTORE_PREFIX};
use crate::postgres::server::Server;
use crate::restore::run::Attempt;

/// Restores the first of the candidates, newest first, that can be; none of them asks for a first boot.
pub(crate) async fn run(context: &Context, command: &RestoreCommand) -> Result<RestoreReport> {
    let (operation, candidates) = (&command.operation_id, &command.candidates);
    let began = Instant::now();
    let mut report = RestoreReport {
        operation_id: operation.clone(),
        outcome: RestoreOutcome::FirstBoot,
        skipped: Vec::new(),
        seconds: 0.0,
        swap_seconds: 0.0,
        peak_memory_kib: 0,
    };
    if command.mode == Mode::InPlace {
        (report.outcome, report.swap_seconds) =
            Box::pin(in_place(context, operation, candidates)).await?;
    } else if let Some(lineage) = ready_with(context).await? {
        container::end_leftovers(&context.postgres).await?;
        remove_leftovers(context).await;
        (report.outcome, report.skipped) = as_restored_before(lineage);
    } else if candidates.is_empty() {
        report.outcome = first_boot(context, operation).await?;
    } else {
        (report.outcome, report.swap_seconds) = Box::pin(from_backup(
            context,
            operation,
            candidates,
            &mut report.skipped,
        ))
        .await?;
    }
    report.seconds = began.elapsed().as_secs_f64();
    report.peak_memory_kib = peak_memory_kib();
    Ok(report)
}

/// Reports what an earlier command did here, whose own report may be lost.
fn as_restored_before(lineage: Lineage) -> (RestoreOutcome, Vec<SkippedBackup>) {
    let (backup_id, skipped) = match lineage {
        Lineage::Restored { backup_id, skipped } => (Some(backup_id), skipped),
        Lineage::FirstBoot | Lineage::Adopted => (None, Vec::new()),
    };
    let skipped = skipped.into_iter().map(|backup_id| SkippedBackup {
        backup_id,
        // The marker keeps no exit codes.
        exit_code: ExitCode::Restore,
        reason: "an earlier command passed it over, whose report is lost; the node's log says why"
            .to_owned(),
    });
    (
        RestoreOutcome::AlreadyRestored { backup_id },
        skipped.collect(),
    )
}

/// Removes what a restore that was killed behind its last step left on a node that was ready by then.
pub(crate) async fn remove_leftovers(context: &Context) {
    let databases = swap::drop_all(&context.postgres, &[RESTORE_PREFIX, OLD_PREFIX]).await;
    let paths = context.settings.configuration_paths.iter();
    let paths = paths.map(|path| capture::on_node(&context.root, path));
    for problem in [databases, placement::remove_leftovers(paths)] {
        if let Err(failure) = problem {
            tracing::warn!(
                problem = failure.chain(),
                "what a restore left stays behind"
            );
        }
    }
}

/// Returns how this instance came by its application's data, if it has them already. The marker alone does not prove it:
/// the volume may be a fresh one.
async fn ready_with(context: &Context) -> Result<Option<Lineage>> {
    let Some(marker) = Marker::load(&context.root)? else {
        return Ok(None);
    };
    if !marker.is_of(&context.settings.application, &context.instance_id) {
        return Ok(None);
    }
    // Nothing is started here: a node that is restored and whose server is down is not to be restored again.
    let (postgres, settings) = (&context.postgres, &context.settings.postgres);
    let waiting = health::wait_for_postgres(postgres, settings);
    context.progress.patiently(waiting).await?;
    let server = Server::ask(postgres).await?;
    let valid = marker.valid_for(
        &context.settings.application,
        &context.instance_id,
        &server.system_identifier,
    );
    tracing::info!(valid, "the node has a marker");
    Ok(valid.then_some(marker.lineage))
}

async fn first_boot(context: &Context, operation: &OperationId) -> Result<RestoreOutcome> {
    let (commands, root) = (&context.settings.commands, &context.root);
    let (postgres, settings) = (&context.postgres, &context.settings.postgres);
    let starting = async {
        health::start_postgres(commands, root).await?;
        health::wait_for_postgres(postgres, settings).await?;
        health::start(commands, root).await?;
        health::wait_healthy(commands, root).await
    };
    context.progress.patiently(starting).await?;
    let server = Server::ask(postgres).await?;
    mark(context, operation, &server, Lineage::FirstBoot)?;
    Ok(RestoreOutcome::FirstBoot)
}

/// Puts a chosen backup in the place of what this node has. Until that is done, or taken back, the node is neither the
/// one nor the other, and is not backed up: whatever ends the agent meanwhile, a replacement goes on from the backup
/// that was taken before.
async fn in_place(
    context: &Context,
    operation: &OperationId,
    candidates: &[Candidate],
) -> Result<(RestoreOutcome, f64)> {
    let [candidate] = candidates else {
        let message = "a restore in place names one backup";
        return Err(Failure::new(ExitCode::Usage, message));
    };
    let (root, commands) = (&context.root, &context.settings.commands);
    let prepared = Attempt::prepare(context, operation, candidate).await?;
    let marker = Marker::load(root)?;
    Marker::remove(root)?;
    let replaced = async {
        context
            .progress
            .patiently(health::stop(commands, root))
            .await?;
        carry_out(prepared, operation, candidate, &[], &mut false).await
    };
    let failure = match replaced.await {
        Ok(restored) => return Ok(restored),
        Err(failure) => failure,
    };
    // Nothing is built upon a node whose restore could not be taken back.
    if failure.code != ExitCode::NodeState {
        if let Some(marker) = marker {
            marker.store(root)?;
        }
        let starting = async {
            health::start(commands, root).await?;
            health::wait_healthy(commands, root).await
        };
        if let Err(second) = context.progress.patiently(starting).await {
            let message = format!("{failure}; and the application does not serve again: {second}");
            return Err(Failure::new(failure.code, message));
        }
    }
    Err(failure)
}

async fn from_backup(
    context: &Context,
    operation: &OperationId,
    candidates: &[Candidate],
    skipped: &mut Vec<SkippedBackup>,
) -> Result<(RestoreOutcome, f64)> {
    let mut postgres_started = false;
    for candidate in candidates {
        let first = attempt(
            context,
            operation,
            candidate,
            skipped,
            &mut postgres_started,
        )
        .await;
        let tried = match first {
            // A server that was restarted or ran out of memory fails a restore as well. An older backup would lose
            // data for that, so this one gets a second chance first.
            Err(failure) if failure.code == ExitCode::Restore => {
                let reason = failure.chain();
                tracing::warn!(backup_id = %candidate.backup_id, reason, "trying the same backup again");
                postgres_started = false;
                attempt(
                    context,
                    operation,
                    candidate,
                    skipped,
                    &mut postgres_started,
                )
                .await
            }
            settled => settled,
        };
        let failure = match tried {
            Ok(restored) => return Ok(restored),
            Err(failure) => failure,
        };
        if candidates.len() == 1 || !another_may_do(failure.code) {
            return Err(failure);
        }
        let reason = failure.chain();
        tracing::error!(backup_id = %candidate.backup_id, reason, "skipped a backup");
        skipped.push(SkippedBackup {
            backup_id: candidate.backup_id.clone(),
            exit_code: failure.code,
            reason,
        });
    }
    let reasons: Vec<String> = skipped
        .iter()
        .map(|one| format!("{}: {} ({})", one.backup_id, one.reason, one.exit_code))
        .collect();
    let message = format!("no backup could be restored: {}", reasons.join("; "));
    Err(Failure::new(ExitCode::NoUsableBackup, message))
}

/// Tells whether the backup is to blame, so that an older one may succeed. Where the node, its settings or S3 as
/// a whole are, an older backup would fail alike, or would silently lose what the newest one still has.
fn another_may_do(code: ExitCode) -> bool {
    matches!(code, ExitCode::Verification | ExitCode::Restore)
}

async fn attempt(
    context: &Context,
    operation: &OperationId,
    candidate: &Candidate,
    skipped: &[SkippedBackup],
    postgres_started: &mut bool,
) -> Result<(RestoreOutcome, f64)> {
    let prepared = Attempt::prepare(context, operation, candidate).await?;
    carry_out(prepared, operation, candidate, skipped, postgres_started).await
}

async fn carry_out(
    mut attempt: Attempt<'_>,
    operation: &OperationId,
    candidate: &Candidate,
    skipped: &[SkippedBackup],
    postgres_started: &mut bool,
) -> Result<(RestoreOutcome, f64)> {
    let outcome = match attempt.run(postgres_started).await {
        Ok(outcome) => outcome,
        Err(failure) => {
            let failure = attempt.explained(failure);
            tracing::warn!(backup_id = %candidate.backup_id, reason = failure.chain(), "taking the restore back");
            return Err(match attempt.roll_back().await {
                Ok(()) => failure,
                // Nothing may be built upon a node in this state.
                Err(second) => Failure::new(
                    ExitCode::NodeState,
                    format!(
                        "{failure}; and it could not be taken back: {second}; replace the node"
                    ),
                ),
            });
        }
    };
    let lineage = Lineage::Restored {
        backup_id: candidate.backup_id.clone(),
        skipped: skipped.iter().map(|one| one.backup_id.clone()).collect(),
    };
    mark(attempt.context(), operation, &outcome.server, lineage)?;
    attempt.clean_up().await;
    let index = attempt.index();
    let age = (OffsetDateTime::now_utc() - index.started_at).whole_seconds();
    let restored = RestoreOutcome::Restored {
        backup_id: candidate.backup_id.clone(),
        // The clocks of two nodes may differ.
        age_seconds: u64::try_from(age).unwrap_or(0),
        rows: outcome.rows,
        bytes: index.bytes(),
    };
    Ok((restored, outcome.swap.as_secs_f64()))
}

fn mark(
    context: &Context,
    operation: &OperationId,
    server: &Server,
    lineage: Lineage,
) -> Result<()> {
    let marker = Marker {
        application: context.settings.application.clone(),
        instance_id: context.instance_id.clone(),
        system_identifier: server.system_identifier.clone(),
        lineage,
        operation_id: operation.clone(),
        time: OffsetDateTime::now_utc(),
    };
    marker.store(&context.root)
}
