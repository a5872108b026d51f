//! A tick of the schedule: starts the due backups, reconciles older ones, measures each application.

pub mod decide;
mod measure;

use shared::Result;
use shared::aws::autoscaling::Group;
use shared::budget::{self, seconds};
use shared::command::Purpose;
use shared::function::context::Context;
use shared::function::failure;
use shared::function::failure::Failures;
use shared::id::{BackupId, Subject};
use shared::kind::Kind;
use time::OffsetDateTime;
use tracing::{field, info, warn};

use crate::answer::{Answer, Skipped, Started};
use crate::commit_markers::CommitMarkers;
use crate::reconcile::{self, SentCommands};
use crate::start::decide::{Skip, Start, on_start};
use crate::start::snapshot::Snapshot;
use crate::start::{self, send};

/// Handles a tick. `scheduled` is the time that names the backups, the same for every delivery of the tick.
pub(crate) async fn on_tick(
    context: &Context,
    scheduled: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Answer> {
    let mut failures = Failures::new(context);
    let snapshot = Snapshot::read(context, now).await?;

    let (started, skipped) = match decide::reason_to_skip(scheduled, now) {
        Some(reason) => (Vec::new(), skip_all(&snapshot, &reason)),
        None => start_due(context, &snapshot, scheduled, &mut failures).await,
    };

    let mut markers = CommitMarkers::unlisted(now);
    let sent = SentCommands {
        groups: &snapshot.groups,
        records: &snapshot.backups,
        since: now - seconds(budget::COMMIT_WINDOW),
    };
    let handled = reconcile::reconcile(context, sent, &mut markers, &mut failures).await;

    let applications = snapshot.applications();
    measure::measure_all(context, &applications, &mut markers, now, &mut failures).await;
    let failures = failures.finish()?;
    Ok(Answer::Tick {
        started,
        skipped,
        handled,
        failures,
    })
}

/// Starts a backup of every group that is ready for one.
async fn start_due(
    context: &Context,
    snapshot: &Snapshot,
    scheduled: OffsetDateTime,
    failures: &mut Failures<'_>,
) -> (Vec<Started>, Vec<Skipped>) {
    let backup_id = BackupId::at(scheduled);
    let (mut targets, mut skipped) = (Vec::new(), Vec::new());
    for group in &snapshot.groups {
        match on_start(&snapshot.start_facts(group, Some(&backup_id))) {
            Start::Start(target) => targets.push(target),
            Start::Skip(skip) => {
                log_skip(context, group, &skip);
                skipped.push(skipped_group(group, skip.to_string()));
            }
        }
    }
    let command = start::command(backup_id, Purpose::Scheduled);
    let started = send::to_all(context, &command, &targets, failures).await;
    (started, skipped)
}

fn skip_all(snapshot: &Snapshot, reason: &str) -> Vec<Skipped> {
    warn!(reason, decision = "skip-late-tick", "no backup was started");
    let groups = snapshot.groups.iter();
    groups
        .map(|group| skipped_group(group, reason.to_owned()))
        .collect()
}

fn skipped_group(group: &Group, reason: String) -> Skipped {
    Skipped {
        group: group.name.clone(),
        reason,
    }
}

/// Logs why a group has no new backup. Only a refusal is a failure: other reasons may be gone at the next tick. If they
/// stay, the age of the newest backup raises an alarm.
fn log_skip(context: &Context, group: &Group, skip: &Skip) {
    let application = group.valid_application();
    let reason = skip.to_string();
    if skip.is_refusal() {
        let subject = Subject {
            application: application.as_ref(),
            group: Some(&group.name),
            ..Subject::default()
        };
        let message = "the group is not backed up";
        failure::record(context, subject, Kind::Refused, message, &reason);
        return;
    }
    let (application, group) = (application.map(field::display), group.name.as_str());
    match skip {
        Skip::AgentNotRegistered(_) | Skip::AgentConnectionLost(_) => {
            warn!(
                application,
                group,
                decision = "skip",
                reason,
                "no backup was started"
            );
        }
        _ => info!(
            application,
            group,
            decision = "skip",
            reason,
            "no backup was started"
        ),
    }
}
