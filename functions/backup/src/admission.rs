//! What the guard has to know of an application before a backup may become its newest.

use shared::aws::autoscaling::Group;
use shared::aws::{catalog, ssm};
use shared::command::Purpose;
use shared::id::{ApplicationName, BackupId, InstanceId};
use shared::layout::BackupState;
use shared::manifest::Index;
use shared::{Error, Result, budget};
use time::OffsetDateTime;

use crate::decide::guard::{self, Doubt, Predecessor, Profile};
use crate::decide::seconds;
use crate::function::Function;
use crate::stored;

/// How many of the newest backups are looked at, at the most, to find one that can be read.
const MOST_PREDECESSORS: usize = 24;

/// Says why a backup that is complete must be kept aside, if it must.
pub(crate) async fn doubt(
    function: &Function,
    group: &Group,
    application: &ApplicationName,
    index: &Index,
    now: OffsetDateTime,
) -> Result<Option<Doubt>> {
    let new = Profile::from(index);
    if new.purpose != Purpose::Adopt
        && let Some(by) = successor(function, group, &new.instance_id, now).await?
    {
        return Ok(Some(Doubt::Superseded { by }));
    }
    let predecessor = predecessor(function, application, &new.backup_id, now).await?;
    let continued = match guard::continues(&new, &predecessor) {
        Ok(None) => return Ok(None),
        Ok(Some(continued)) => continued,
        Err(doubt) => return Ok(Some(doubt)),
    };
    let reference = match predecessor {
        Predecessor::Newest(newest) if newest.backup_id == continued => newest,
        _ => match profile(function, application, &continued).await? {
            Ok(profile) => profile,
            Err(problem) => return Ok(Some(Doubt::ReferenceUnreadable { problem })),
        },
    };
    Ok(guard::compare(&new, &reference).err())
}

/// Returns the member of the group that was given the application's data after this instance.
async fn successor(
    function: &Function,
    group: &Group,
    instance: &InstanceId,
    now: OffsetDateTime,
) -> Result<Option<InstanceId>> {
    let others = || {
        let members = group.members.iter().map(|member| &member.instance_id);
        members.filter(|other| *other != instance)
    };
    if others().next().is_none() {
        return Ok(None);
    }
    let own = restored_at(function, instance, now).await?;
    for other in others() {
        // None is before every time: an instance that was restored long ago, or started by hand.
        if restored_at(function, other, now).await? > own {
            return Ok(Some(other.clone()));
        }
    }
    Ok(None)
}

/// Returns when an instance was last asked to restore, unless that has failed.
async fn restored_at(
    function: &Function,
    instance: &InstanceId,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>> {
    let since = now - seconds(budget::COMMIT_WINDOW + budget::HARD_CAP);
    let document = &function.config.restore_document;
    let commands = ssm::commands(&function.aws.ssm, document, since, false, Some(instance)).await?;
    let alive = commands
        .iter()
        .filter(|command| !command.status.is_finished() || command.status.is_success());
    Ok(alive.map(|command| command.requested_at).max())
}

async fn predecessor(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
    now: OffsetDateTime,
) -> Result<Predecessor> {
    let (s3, bucket) = (&function.aws.s3, &function.config.bucket);
    let newest = catalog::newest(
        s3,
        bucket,
        application,
        BackupState::Committed,
        MOST_PREDECESSORS,
        now,
    )
    .await?;
    let mut problem = None;
    for older in newest.iter().filter(|older| *older < backup) {
        match stored::on_shelf(function, application, BackupState::Committed, older).await {
            Ok(Some(manifest)) => {
                return Ok(Predecessor::Newest(Profile::from(&manifest.index)));
            }
            // Deleted since it was listed.
            Ok(None) => {}
            Err(error @ Error::Contract { .. }) => {
                problem.get_or_insert_with(|| error.chain());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(problem.map_or(Predecessor::None, Predecessor::Unreadable))
}

/// Reads what the guard looks at in a backup, or says what is wrong with it.
async fn profile(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<std::result::Result<Profile, String>> {
    match stored::anywhere(function, application, backup).await {
        Ok(Some((_, manifest))) => Ok(Ok(Profile::from(&manifest.index))),
        Ok(None) => Ok(Err(format!("the backup {backup} is not there any more"))),
        Err(error @ Error::Contract { .. }) => Ok(Err(error.chain())),
        Err(error) => Err(error),
    }
}
