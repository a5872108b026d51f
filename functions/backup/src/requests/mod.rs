//! The requests of operators. IAM alone authorizes them.

pub mod decide;
mod list;
mod pins;
pub(crate) mod quarantine;
mod reply;
#[cfg(test)]
mod tests;

use shared::aws::autoscaling::{self, Group};
use shared::aws::catalog;
use shared::command::{BackupCommand, Purpose};
use shared::event::Request;
use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId};
use shared::layout::BackupState;
use shared::operation::{InPlace, Operation};
use shared::{Error, Result};
use time::OffsetDateTime;

use self::reply::unknown;
use crate::answer::Answer;
use crate::start::decide::{Start, on_start};
use crate::start::snapshot::Snapshot;
use crate::start::{self, send};

/// Handles an operator's request.
pub(crate) async fn on_request(
    context: &Context,
    request: Request,
    now: OffsetDateTime,
) -> Result<Answer> {
    match request {
        Request::BackupNow { application } => {
            let command = start::command(BackupId::at(now), Purpose::Manual);
            back_up(context, &application, &command, now).await
        }
        Request::Adopt {
            application,
            over_existing_backups,
        } => adopt(context, &application, over_existing_backups, now).await,
        Request::ListBackups { application, limit } => {
            list::list(context, application, limit, now).await
        }
        Request::AcceptQuarantined {
            application,
            backup_id,
        } => quarantine::accept(context, &application, &backup_id).await,
        Request::RejectQuarantined {
            application,
            backup_id,
        } => quarantine::reject(context, &application, &backup_id).await,
        Request::Pin {
            application,
            backup_id,
        } => pins::pin(context, &application, &backup_id).await,
        Request::Unpin {
            application,
            backup_id,
        } => pins::unpin(context, &application, &backup_id).await,
        Request::RestoreBackup {
            application,
            backup_id,
            before,
        } => {
            let chosen = choose(context, &application, backup_id, before).await?;
            restore_in_place(context, &application, chosen, now).await
        }
        Request::Resume { .. } => Err(Error::Event(
            "launches belong to the restore function; send this event there".to_owned(),
        )),
        // `Event::parse` makes a sweep of it.
        Request::Sweep => Err(Error::Event("a sweep is not a request".to_owned())),
    }
}

/// Requests a backup of an application's node.
async fn back_up(
    context: &Context,
    application: &ApplicationName,
    command: &BackupCommand,
    now: OffsetDateTime,
) -> Result<Answer> {
    let snapshot = Snapshot::read(context, now).await?;
    let group = group_of(&snapshot.groups, application)?;
    let target = match on_start(&snapshot.start_facts(group, None)) {
        Start::Start(target) => target,
        Start::Skip(skip) => {
            return Err(Error::Refused(format!("no backup was started: {skip}")));
        }
    };
    let started = send::to_one(context, command, target).await?;
    Ok(Answer::Requested(started))
}

fn group_of<'a>(groups: &'a [Group], application: &ApplicationName) -> Result<&'a Group> {
    let found = groups.iter().find(|group| group.serves(application));
    found.ok_or_else(|| autoscaling::no_group(application))
}

/// Requests a backup of the data of a running node, which an operator declares to be the application's current data.
async fn adopt(
    context: &Context,
    application: &ApplicationName,
    over_existing_backups: bool,
    now: OffsetDateTime,
) -> Result<Answer> {
    let (client, bucket) = (&context.aws.s3, &context.config.bucket);
    let state = BackupState::Committed;
    let newest = catalog::newest(client, bucket, application, state, 1, now).await?;
    decide::on_adopt(newest.first(), over_existing_backups).map_err(Error::Refused)?;
    let command = start::command(BackupId::at(now), Purpose::Adopt);
    back_up(context, application, &command, now).await
}

/// Requests the backup that precedes an in-place restore. When this backup is committed, the restore function reads
/// from the operation of its command which backup to restore.
async fn restore_in_place(
    context: &Context,
    application: &ApplicationName,
    chosen: BackupId,
    now: OffsetDateTime,
) -> Result<Answer> {
    let before = BackupId::at(now);
    let command = BackupCommand {
        backup_id: before.clone(),
        operation_id: Operation::PreRestoreBackup(InPlace { chosen, before }),
        purpose: Purpose::PreRestore,
    };
    back_up(context, application, &command, now).await
}

/// Returns the backup that an in-place restore uses: the given one, or the newest one before a time.
async fn choose(
    context: &Context,
    application: &ApplicationName,
    backup: Option<BackupId>,
    before: Option<OffsetDateTime>,
) -> Result<BackupId> {
    match (backup, before) {
        // Check the chosen backup before the node takes the backup that precedes the restore.
        (Some(backup), None) => match context.manifests(application).find(&backup).await? {
            Some(_) => Ok(backup),
            None => Err(unknown(application, &backup)),
        },
        (None, Some(time)) => newest_before(context, application, time).await,
        _ => {
            let message = "give either `backup_id`, or `before` with a time";
            Err(Error::Event(message.to_owned()))
        }
    }
}

/// Returns the newest committed backup before `time` that has a readable manifest.
async fn newest_before(
    context: &Context,
    application: &ApplicationName,
    time: OffsetDateTime,
) -> Result<BackupId> {
    let (client, bucket) = (&context.aws.s3, &context.config.bucket);
    let (state, manifests) = (BackupState::Committed, context.manifests(application));
    let all = catalog::all(client, bucket, application, state).await?;
    for backup in all.range(..BackupId::at(time)).rev() {
        if manifests.read_valid(state, backup).await?.is_some() {
            return Ok(backup.clone());
        }
    }
    Err(Error::Refused(format!(
        "the application {application} has no readable backup before {time}"
    )))
}
