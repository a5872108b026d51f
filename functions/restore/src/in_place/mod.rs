//! In-place restores: an operator chose a backup for a node in service.
//!
//! The operator sends the request to the backup function, which first backs up the node. The operation of that backup
//! has the chosen backup's id, so the sweep finds every requested restore in SSM's list of commands, without an event.

pub mod decide;

use futures_util::try_join;
use shared::aws::autoscaling::{self, Group};
use shared::aws::ssm::{self, CommandQuery, CommandRecord};
use shared::command::{self, Candidate, Mode, RestoreCommand};
use shared::event::CommandStatus;
use shared::function::context::Context;
use shared::function::failure;
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId, Subject};
use shared::operation::{InPlace, Operation};
use shared::report::{RestoreOutcome, RestoreReport};
use shared::verdict::{self, Verdict};
use shared::{Error, Result, budget};
use time::OffsetDateTime;
use tracing::{field, info};

use self::decide::{InPlaceDecision, InPlaceFacts};
use crate::attempts::{self, RestoreAttempt};
use crate::exceptions;

/// An in-place restore that an operator requested.
#[derive(Debug, Clone)]
pub(crate) struct InPlaceRequest<'a> {
    restore: InPlace,
    /// The instance; the restore replaces its data.
    pub(crate) instance_id: InstanceId,
    /// The application of its group.
    pub(crate) application: ApplicationName,
    group: &'a Group,
}

impl InPlaceRequest<'_> {
    /// Returns the ids for the log.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject {
            application: Some(&self.application),
            group: Some(&self.group.name),
            instance_id: Some(&self.instance_id),
            backup_id: Some(&self.restore.chosen),
            ..Subject::default()
        }
    }

    fn operation(&self) -> Operation {
        Operation::InPlaceRestore(self.restore.clone())
    }
}

/// Returns the in-place restores that operators requested, if the backup before the restore has succeeded. Looks back
/// for the time in which backups may be committed.
pub(crate) async fn requested<'a>(
    context: &Context,
    groups: &'a [Group],
    now: OffsetDateTime,
) -> Result<Vec<InPlaceRequest<'a>>> {
    let since = now - budget::seconds(budget::COMMIT_WINDOW);
    let query = CommandQuery::new(&context.config.backup_document, since);
    let backups = ssm::commands(&context.aws.ssm, query).await?;
    let succeeded = backups.iter().filter(|record| record.status.is_success());
    Ok(succeeded
        .filter_map(|record| read_request(record, groups))
        .collect())
}

/// Returns the request in a command, or `None` if the command is of another operation, or if its instance has left its
/// group: nothing else proves which application the instance belongs to.
fn read_request<'a>(record: &CommandRecord, groups: &'a [Group]) -> Option<InPlaceRequest<'a>> {
    let Ok(Operation::PreRestoreBackup(restore)) = command::operation(&record.parameters) else {
        return None;
    };
    let instance_id = record.instance_ids.first()?.clone();
    let group = groups.iter().find(|group| {
        let mut members = group.members.iter();
        members.any(|member| member.instance_id == instance_id)
    })?;
    Some(InPlaceRequest {
        restore,
        application: group.valid_application()?,
        instance_id,
        group,
    })
}

/// Sends an in-place restore if it is due, and returns its command, or `None` if it is not due.
pub(crate) async fn send_if_due(
    context: &Context,
    request: &InPlaceRequest<'_>,
    now: OffsetDateTime,
) -> Result<Option<CommandId>> {
    let (restore, instance) = (&request.restore, &request.instance_id);
    let manifests = context.manifests(&request.application);
    let (backed_up, attempts) = try_join!(
        manifests.find(&restore.before),
        attempts(context, request, now)
    )?;
    let facts = InPlaceFacts {
        serves: serves(request.group, instance),
        backed_up: backed_up.is_some(),
        attempts,
    };
    if decide::decide(&facts) != InPlaceDecision::Send {
        return Ok(None);
    }
    // An operator may choose a quarantined backup, too.
    let chosen = manifests.find(&restore.chosen).await?;
    let (_, chosen) = chosen.ok_or_else(|| {
        Error::Refused(format!(
            "the backup {} that an operator chose for {instance} does not exist any more; request another one",
            restore.chosen
        ))
    })?;
    let command_id = send(context, request, chosen.candidate()).await?;
    info!(
        decision = "send-in-place-restore", application = %request.application, group = request.group.name,
        instance_id = %instance, %command_id, backup_id = %restore.chosen, "sent the restore that an operator requested"
    );
    Ok(Some(command_id))
}

fn serves(group: &Group, instance: &InstanceId) -> bool {
    let mut serving = group.in_service();
    serving.next().is_some_and(|it| it.instance_id == *instance) && serving.next().is_none()
}

async fn attempts(
    context: &Context,
    request: &InPlaceRequest<'_>,
    now: OffsetDateTime,
) -> Result<Vec<RestoreAttempt>> {
    let (instance, operation) = (&request.instance_id, request.operation());
    let since = now - budget::seconds(budget::COMMIT_WINDOW);
    let commands = attempts::sent_since(context, instance, since).await?;
    let own = commands.into_iter().filter(|record| {
        command::operation(&record.parameters).is_ok_and(|found| found == operation)
    });
    attempts::judge(context, instance, &operation, own).await
}

async fn send(
    context: &Context,
    request: &InPlaceRequest<'_>,
    candidate: Candidate,
) -> Result<CommandId> {
    let command = RestoreCommand {
        operation_id: request.operation(),
        mode: Mode::InPlace,
        candidates: vec![candidate],
    };
    let comment = format!("Rekindle: restore {} in place", request.restore.chosen);
    attempts::send(context, &request.instance_id, &command, &comment).await
}

/// Logs the end of an in-place restore. Does nothing for any other command.
pub(crate) async fn report_end(context: &Context, finished: &CommandStatus) -> Result<()> {
    let (command_id, instance_id) = (&finished.command_id, &finished.instance_id);
    let Some(record) = ssm::command(&context.aws.ssm, command_id).await? else {
        return Ok(());
    };
    let Ok(operation) = command::operation(&record.parameters) else {
        return Ok(());
    };
    let Operation::InPlaceRestore(restore) = &operation else {
        return Ok(());
    };
    let step = ssm::invocation(&context.aws.ssm, command_id, instance_id).await?;
    let ended = match verdict::of_restore(&record.status, step.as_ref(), &operation) {
        Verdict::Pending | Verdict::Executing => return Ok(()),
        Verdict::Succeeded(report) => Ok(report),
        Verdict::Failed(failure) => Err(failure),
    };
    let group = group_of(context, instance_id).await?;
    let application = group.as_ref().and_then(Group::valid_application);
    let subject = Subject {
        application: application.as_ref(),
        group: group.as_ref().map(|group| group.name.as_str()),
        instance_id: Some(instance_id),
        command_id: Some(command_id),
        backup_id: Some(&restore.chosen),
    };
    match ended {
        Ok(report) => {
            log_restored(subject, &restore.before, &report);
            exceptions::record(context, subject, &report);
        }
        Err(failure) => {
            let message = "the in-place restore failed; the backup before it has the node's data";
            let reason = format!("{} (backup before: {})", failure.message, restore.before);
            failure::record(context, subject, failure.kind(), message, &reason);
        }
    }
    Ok(())
}

async fn group_of(context: &Context, instance: &InstanceId) -> Result<Option<Group>> {
    let client = &context.aws.autoscaling;
    match autoscaling::membership(client, instance).await? {
        Some((name, _)) => autoscaling::group(client, &name).await,
        None => Ok(None),
    }
}

fn log_restored(subject: Subject<'_>, before: &BackupId, report: &RestoreReport) {
    let rows = match &report.outcome {
        RestoreOutcome::Restored { rows, .. } => Some(*rows),
        RestoreOutcome::FirstBoot | RestoreOutcome::AlreadyRestored { .. } => None,
    };
    info!(
        decision = "restored-in-place",
        application = subject.application.map(field::display),
        group = subject.group,
        instance_id = subject.instance_id.map(field::display),
        command_id = subject.command_id.map(field::display),
        backup_id = subject.backup_id.map(field::display),
        %before, rows, seconds = report.seconds, swap_seconds = report.swap_seconds,
        "restored in place"
    );
}
