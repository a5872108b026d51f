//! The check whether a complete backup is quarantined. Reads the facts for the rules in `decide`.

pub mod decide;

use std::result::Result as StdResult;

use shared::aws::catalog;
use shared::aws::ssm::{self, CommandQuery};
use shared::budget::{self, seconds};
use shared::command::Purpose;
use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId, InstanceId};
use shared::layout::BackupState;
use shared::manifest::Index;
use shared::{Error, Result};
use time::OffsetDateTime;

use self::decide::{OlderBackup, Profile, QuarantineReason};
use crate::groups::Node;

/// How many of the newest backups are read at most to find a readable one.
const MOST_OLDER_BACKUPS: usize = 24;

/// Returns the reason why a complete backup must be quarantined, or `None` if it may be committed.
pub(super) async fn reason(
    context: &Context,
    node: Node<'_>,
    index: &Index,
    now: OffsetDateTime,
) -> Result<Option<QuarantineReason>> {
    let new = Profile::from(index);
    if new.purpose != Purpose::Adopt
        && let Some(by) = successor(context, node, now).await?
    {
        return Ok(Some(QuarantineReason::Superseded { by }));
    }
    let application = node.application;
    let older = newest_older(context, application, &new.backup_id, now).await?;
    let continued = match decide::continues(&new, &older) {
        Ok(None) => return Ok(None),
        Ok(Some(continued)) => continued,
        Err(reason) => return Ok(Some(reason)),
    };
    let reference = match older {
        OlderBackup::Newest(newest) if newest.backup_id == continued => newest,
        _ => match profile(context, application, &continued).await? {
            Ok(profile) => profile,
            Err(problem) => return Ok(Some(QuarantineReason::ReferenceUnreadable { problem })),
        },
    };
    Ok(decide::compare(&new, &reference).err())
}

/// Returns the member of the group that received the application's data after this node did, or `None`.
async fn successor(
    context: &Context,
    node: Node<'_>,
    now: OffsetDateTime,
) -> Result<Option<InstanceId>> {
    let members = node.group.members.iter().map(|member| &member.instance_id);
    let others: Vec<&InstanceId> = members.filter(|other| *other != node.instance).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let own = restored_at(context, node.instance, now).await?;
    for other in others {
        // `None` sorts before every time. It means that the instance was restored long ago, or was started by hand.
        if restored_at(context, other, now).await? > own {
            return Ok(Some(other.clone()));
        }
    }
    Ok(None)
}

/// Returns when the last restore was sent to an instance, except for failed ones. `None` if there is none.
async fn restored_at(
    context: &Context,
    instance: &InstanceId,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>> {
    let since = now - seconds(budget::COMMIT_WINDOW + budget::HARD_CAP);
    let query = CommandQuery::new(&context.config.restore_document, since).on(instance);
    let commands = ssm::commands(&context.aws.ssm, query).await?;
    let not_failed = commands
        .iter()
        .filter(|command| !command.status.is_finished() || command.status.is_success());
    Ok(not_failed.map(|command| command.requested_at).max())
}

/// Returns the newest committed backup that is older than this one and has a readable manifest.
async fn newest_older(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
    now: OffsetDateTime,
) -> Result<OlderBackup> {
    let (s3, bucket) = (&context.aws.s3, &context.config.bucket);
    let (state, manifests) = (BackupState::Committed, context.manifests(application));
    let newest = catalog::newest(s3, bucket, application, state, MOST_OLDER_BACKUPS, now).await?;
    let mut problem = None;
    for older in newest.iter().filter(|older| *older < backup) {
        match manifests.read(state, older).await {
            Ok(Some(manifest)) => {
                return Ok(OlderBackup::Newest(Profile::from(&manifest.index)));
            }
            // It was deleted after the listing.
            Ok(None) => {}
            Err(error @ Error::Contract { .. }) => {
                problem.get_or_insert_with(|| error.chain());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(problem.map_or(OlderBackup::None, OlderBackup::Unreadable))
}

/// Returns the profile of a backup, or as the inner `Err` the reason why it cannot be read.
async fn profile(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<StdResult<Profile, String>> {
    match context.manifests(application).find(backup).await {
        Ok(Some((_, manifest))) => Ok(Ok(Profile::from(&manifest.index))),
        Ok(None) => Ok(Err(format!("the backup {backup} does not exist any more"))),
        Err(error @ Error::Contract { .. }) => Ok(Err(error.chain())),
        Err(error) => Err(error),
    }
}
