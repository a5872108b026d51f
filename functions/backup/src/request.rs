//! What an operator asks for by hand; IAM alone says who may.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _};
use shared::aws::autoscaling::Group;
use shared::aws::catalog;
use shared::command::{BackupCommand, InPlace, Purpose};
use shared::event::Request;
use shared::id::{ApplicationName, BackupId};
use shared::layout::BackupState;
use shared::{Error, Result};
use time::OffsetDateTime;

use crate::decide::{self, Start};
use crate::failures::Failures;
use crate::function::Function;
use crate::outcome::{Outcome, Summary};
use crate::start;
use crate::tick::{self, Facts};
use crate::{curate, stored};

/// The most backups that one listing names.
const MOST_LISTED: usize = 200;
/// How many manifests are read in parallel.
const READS: usize = 8;

/// Handles an operator's request.
pub(crate) async fn on_request(
    function: &Function,
    request: Request,
    now: OffsetDateTime,
) -> Result<Outcome> {
    match request {
        Request::BackupNow { application } => {
            let command = tick::command(BackupId::at(now), Purpose::Manual)?;
            back_up(function, &application, &command, now).await
        }
        Request::Adopt {
            application,
            over_existing_backups,
        } => {
            let newest = newest(function, &application, BackupState::Committed, 1, now).await?;
            decide::on_adopt(newest.first(), over_existing_backups).map_err(Error::Refused)?;
            let command = tick::command(BackupId::at(now), Purpose::Adopt)?;
            back_up(function, &application, &command, now).await
        }
        Request::ListBackups { application, limit } => {
            list(function, application, limit, now).await
        }
        Request::AcceptQuarantined {
            application,
            backup_id,
        } => curate::accept(function, &application, &backup_id).await,
        Request::RejectQuarantined {
            application,
            backup_id,
        } => curate::reject(function, &application, &backup_id).await,
        Request::Pin {
            application,
            backup_id,
        } => curate::pin(function, &application, &backup_id).await,
        Request::Unpin {
            application,
            backup_id,
        } => curate::unpin(function, &application, &backup_id).await,
        Request::RestoreBackup {
            application,
            backup_id,
            before,
        } => {
            let chosen = match (backup_id, before) {
                (Some(backup), None) => known(function, &application, backup).await?,
                (None, Some(time)) => newest_before(function, &application, time).await?,
                _ => {
                    let message = "give `backup_id`, or `before` with a time: one of the two";
                    return Err(Error::Event(message.to_owned()));
                }
            };
            restore_in_place(function, &application, chosen, now).await
        }
        Request::Resume { .. } => Err(Error::Event(
            "launches are the restore function's; send this event there".to_owned(),
        )),
        // `Event::parse` makes a sweep of it.
        Request::Sweep => Err(Error::Event("a sweep is no request".to_owned())),
    }
}

async fn back_up(
    function: &Function,
    application: &ApplicationName,
    command: &BackupCommand,
    now: OffsetDateTime,
) -> Result<Outcome> {
    let facts = Facts::gather(function, now).await?;
    let group = group_of(&facts.groups, application)?;
    let target = match decide::on_tick(&facts.of_group(group, None)) {
        Start::Start {
            application,
            instance,
        } => (application, instance),
        Start::Skip(reason) => {
            return Err(Error::Refused(format!("no backup is started: {reason}")));
        }
    };
    let mut failures = Failures::new(&function.config);
    let started = start::start(function, command, &[target], &mut failures).await;
    failures.finish()?;
    Ok(match started.into_iter().next() {
        Some(started) => Outcome::Requested(started),
        None => Outcome::Refused {
            kind: "Refused".to_owned(),
            message: "the command could not be sent; the log says why".to_owned(),
        },
    })
}

/// Asks for the backup that precedes a restore in place. What the restore function finds it to be, once it has a
/// manifest, is the command to restore.
async fn restore_in_place(
    function: &Function,
    application: &ApplicationName,
    chosen: BackupId,
    now: OffsetDateTime,
) -> Result<Outcome> {
    let before = BackupId::at(now);
    let command = BackupCommand {
        backup_id: before.clone(),
        operation_id: InPlace { chosen, before }.backup()?,
        purpose: Purpose::PreRestore,
    };
    back_up(function, application, &command, now).await
}

/// Makes sure that a backup is there and can be read, before anything is done for its sake.
async fn known(
    function: &Function,
    application: &ApplicationName,
    backup: BackupId,
) -> Result<BackupId> {
    match stored::anywhere(function, application, &backup).await? {
        Some(_) => Ok(backup),
        None => Err(stored::unknown(application, &backup)),
    }
}

/// Returns the newest committed backup that was asked for before a time and can be read.
async fn newest_before(
    function: &Function,
    application: &ApplicationName,
    time: OffsetDateTime,
) -> Result<BackupId> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let all = catalog::all(client, bucket, application, BackupState::Committed).await?;
    for backup in all.range(..BackupId::at(time)).rev() {
        match stored::on_shelf(function, application, BackupState::Committed, backup).await {
            Ok(Some(_)) => return Ok(backup.clone()),
            Ok(None) | Err(Error::Contract { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Refused(format!(
        "the application {application} has no readable backup of before {time}"
    )))
}

async fn newest(
    function: &Function,
    application: &ApplicationName,
    state: BackupState,
    count: usize,
    now: OffsetDateTime,
) -> Result<Vec<BackupId>> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    catalog::newest(client, bucket, application, state, count, now).await
}

fn group_of<'a>(groups: &'a [Group], application: &ApplicationName) -> Result<&'a Group> {
    let found = groups
        .iter()
        .find(|group| group.application_tag.as_deref() == Some(application.as_str()));
    found.ok_or_else(|| {
        Error::Refused(format!(
            "no Auto Scaling group has the tag rekindle:application={application}"
        ))
    })
}

async fn list(
    function: &Function,
    application: ApplicationName,
    limit: usize,
    now: OffsetDateTime,
) -> Result<Outcome> {
    let limit = limit.clamp(1, MOST_LISTED);
    let mut ids = Vec::new();
    for state in [BackupState::Committed, BackupState::Quarantined] {
        let newest = newest(function, &application, state, limit, now).await?;
        ids.extend(newest.into_iter().map(|id| (id, state)));
    }
    ids.sort_by(|(a, _), (b, _)| b.cmp(a));
    ids.truncate(limit);
    let pinned = catalog::pinned(&function.aws.s3, &function.config.bucket, &application).await?;
    let (application_name, pinned) = (&application, &pinned);
    let summaries: Vec<Result<Summary>> = stream::iter(ids)
        .map(|(id, state)| summary(function, application_name, pinned, state, id))
        .buffered(READS)
        .collect()
        .await;
    let backups = summaries.into_iter().collect::<Result<Vec<Summary>>>()?;
    Ok(Outcome::Backups {
        application,
        backups,
    })
}

/// An unreadable manifest must not hide the others: it is listed with what is wrong with it.
async fn summary(
    function: &Function,
    application: &ApplicationName,
    pinned: &BTreeSet<BackupId>,
    state: BackupState,
    backup_id: BackupId,
) -> Result<Summary> {
    let unreadable = |backup_id, problem: String| Ok(Summary::Unreadable { backup_id, problem });
    match stored::on_shelf(function, application, state, &backup_id).await {
        Ok(Some(manifest)) => Ok(Summary::Backup {
            pinned: pinned.contains(&backup_id),
            backup_id,
            purpose: manifest.index.purpose,
            committed_at: manifest.committed_at,
            rows: manifest.index.rows(),
            bytes: manifest.index.bytes(),
            instance_id: manifest.index.node.instance_id,
            // What was accepted since is as good as any other.
            quarantined_for: manifest
                .quarantined_for
                .filter(|_| state == BackupState::Quarantined),
        }),
        Ok(None) => unreadable(backup_id, "it was deleted since it was listed".to_owned()),
        Err(error) if error.retryable() => Err(error),
        Err(error) => unreadable(backup_id, error.chain()),
    }
}
