//! Restores in place: an operator chose a backup for a node that serves.
//!
//! The backup function was asked, and had the node backed up first. That backup's operation names the choice, so that
//! the sweep needs no event to see what is to follow it.

use futures_util::future::try_join_all;
use futures_util::try_join;
use shared::aws::autoscaling::{Group, LifecycleState};
use shared::aws::ssm::CommandRecord;
use shared::aws::{Aws, s3, ssm};
use shared::command::{self, Candidate, InPlace, Mode, RestoreCommand};
use shared::env::Config;
use shared::event::CommandStatus;
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId, OperationId};
use shared::layout::BackupState;
use shared::manifest::{MOST_MANIFEST_BYTES, Manifest};
use shared::metrics;
use shared::report::{RestoreOutcome, RestoreReport};
use shared::{Error, Result, agent, budget};
use time::OffsetDateTime;
use tracing::{error, info};

use crate::attempt::{self, Attempt, Progress};
use crate::decide::in_place::{Decision, Facts, decide};
use crate::reason::Reason;

/// A restore in place that an operator asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    operation_id: OperationId,
    what: InPlace,
    /// The instance whose data are to be replaced.
    pub(crate) instance_id: InstanceId,
    /// The application of its group; none where it has left.
    application: Option<ApplicationName>,
    group: Option<&'a Group>,
}

/// Returns the restores in place that operators asked for, as far back as their backups may be committed.
pub(crate) async fn asked<'a>(
    aws: &Aws,
    config: &Config,
    groups: &'a [Group],
    now: OffsetDateTime,
) -> Result<Vec<Asked<'a>>> {
    let since = now - budget::seconds(budget::COMMIT_WINDOW);
    let backups = ssm::commands(&aws.ssm, &config.backup_document, since, false, None).await?;
    let succeeded = backups.iter().filter(|record| record.status.is_success());
    Ok(succeeded
        .filter_map(|record| read_request(record, groups))
        .collect())
}

fn read_request<'a>(record: &CommandRecord, groups: &'a [Group]) -> Option<Asked<'a>> {
    let what = InPlace::after_backup(&command::operation(&record.parameters).ok()?)?;
    let operation_id = what.restore().ok()?;
    let instance_id = record.instance_ids.first()?.clone();
    let group = groups.iter().find(|group| {
        let mut members = group.members.iter();
        members.any(|member| member.instance_id == instance_id)
    });
    Some(Asked {
        operation_id,
        what,
        application: group.and_then(|group| group.application().ok().flatten()),
        instance_id,
        group,
    })
}

/// Sends a restore in place where it is due; tells whether it did.
pub(crate) async fn follow(
    aws: &Aws,
    config: &Config,
    asked: &Asked<'_>,
    now: OffsetDateTime,
) -> Result<bool> {
    // Without a group there is nobody who says which application's backups the instance may have.
    let Some(application) = &asked.application else {
        return Ok(false);
    };
    let (what, instance) = (&asked.what, &asked.instance_id);
    let (backed_up, attempts) = try_join!(
        manifest(aws, config, application, &what.before),
        attempts(aws, config, asked, now)
    )?;
    let facts = Facts {
        instance_id: instance.clone(),
        serves: asked.group.is_some_and(|group| serves(group, instance)),
        backed_up: backed_up.is_some(),
        attempts,
    };
    if decide(&facts) != Decision::Send {
        return Ok(false);
    }
    let chosen = manifest(aws, config, application, &what.chosen).await?;
    let chosen = chosen.ok_or_else(|| {
        Error::Refused(format!(
            "the backup {} that an operator chose for {instance} is not there any more",
            what.chosen
        ))
    })?;
    send(aws, config, asked, chosen.candidate()).await?;
    Ok(true)
}

fn serves(group: &Group, instance: &InstanceId) -> bool {
    let in_service = |state: &LifecycleState| *state == LifecycleState::InService;
    let mut serving = group.members.iter().filter(|it| in_service(&it.state));
    serving.next().is_some_and(|it| it.instance_id == *instance) && serving.next().is_none()
}

async fn attempts(
    aws: &Aws,
    config: &Config,
    asked: &Asked<'_>,
    now: OffsetDateTime,
) -> Result<Vec<Attempt>> {
    let (document, instance) = (&config.restore_document, &asked.instance_id);
    let since = now - budget::seconds(budget::COMMIT_WINDOW);
    let sent = ssm::commands(&aws.ssm, document, since, false, Some(instance)).await?;
    let own = sent.into_iter().filter(|record| {
        command::operation(&record.parameters).is_ok_and(|it| it == asked.operation_id)
    });
    let attempts = own.map(async |record| {
        let step = ssm::invocation(&aws.ssm, &record.command_id, instance).await?;
        Ok(Attempt {
            progress: attempt::progress(&record.status, step.as_ref(), &asked.operation_id),
            command_id: record.command_id,
            requested_at: record.requested_at,
        })
    });
    try_join_all(attempts).await
}

/// Reads a backup's manifest, whether it is committed or kept aside: an operator's choice is free.
async fn manifest(
    aws: &Aws,
    config: &Config,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Option<Manifest>> {
    for state in [BackupState::Committed, BackupState::Quarantined] {
        let key = state.manifest(application, backup);
        match s3::read(&aws.s3, &config.bucket, &key, None, MOST_MANIFEST_BYTES).await {
            Ok(bytes) => return Manifest::parse(&bytes, application, backup).map(Some),
            Err(error) if s3::is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn send(aws: &Aws, config: &Config, asked: &Asked<'_>, candidate: Candidate) -> Result<()> {
    let instance = &asked.instance_id;
    let agent = agent::publish(aws, config).await?;
    let command = RestoreCommand {
        operation_id: asked.operation_id.clone(),
        mode: Mode::InPlace,
        candidates: vec![candidate],
    };
    let command_id = ssm::send(
        &aws.ssm,
        &config.restore_document,
        std::slice::from_ref(instance),
        command.parameters(&agent, budget::RESTORE_EXECUTION),
        budget::DELIVERY,
        &format!("Rekindle: restore {} in place", asked.what.chosen),
    )
    .await?;
    info!(
        instance_id = %instance, %command_id, backup_id = %asked.what.chosen, decision = "send-in-place",
        "sent the restore that an operator asked for"
    );
    Ok(())
}

/// Tells what became of a restore in place; nothing where the command was none.
pub(crate) async fn tell(aws: &Aws, config: &Config, finished: &CommandStatus) -> Result<()> {
    let (command_id, instance) = (&finished.command_id, &finished.instance_id);
    let Some(record) = ssm::command(&aws.ssm, command_id).await? else {
        return Ok(());
    };
    let operation = command::operation(&record.parameters);
    let Some((operation, what)) = operation
        .ok()
        .and_then(|it| InPlace::of_restore(&it).map(|what| (it, what)))
    else {
        return Ok(());
    };
    let step = ssm::invocation(&aws.ssm, command_id, instance).await?;
    match attempt::progress(&record.status, step.as_ref(), &operation) {
        Progress::Succeeded(report) => tell_success(instance, &what, &report),
        Progress::Failed(failure) => {
            let command_id = CommandId::clone(command_id);
            let reason = Reason::RestoreFailed {
                command_id,
                failure,
            };
            let (kind, now) = (reason.kind(), OffsetDateTime::now_utc());
            error!(
                kind, instance_id = %instance, backup_id = %what.chosen, before = %what.before, reason = %reason,
                remedy = reason.remedy(),
                "the node was not restored in place; what it had is in the backup before"
            );
            metrics::failed(&config.metric_namespace, now, None, kind);
        }
        Progress::Executing | Progress::Unclear => {}
    }
    Ok(())
}

fn tell_success(instance: &InstanceId, what: &InPlace, report: &RestoreReport) {
    let rows = match &report.outcome {
        RestoreOutcome::Restored { rows, .. } => Some(*rows),
        RestoreOutcome::FirstBoot | RestoreOutcome::AlreadyRestored { .. } => None,
    };
    info!(
        instance_id = %instance, backup_id = %what.chosen, before = %what.before, rows, seconds = report.seconds,
        swap_seconds = report.swap_seconds, "restored in place"
    );
}
