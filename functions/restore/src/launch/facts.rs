//! The facts about a launching instance, read from AWS. From the event, only the instance's id is used.

use futures_util::try_join;
use shared::aws::autoscaling::{self, APPLICATION_TAG, Group, LAUNCH_HOOK, LifecycleState, Member};
use shared::aws::manifests::Manifests;
use shared::aws::ssm;
use shared::aws::{catalog, state};
use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId, InstanceId};
use shared::layout::BackupState;
use shared::operation::Operation;
use shared::{Error, Result, budget, manifest};
use time::OffsetDateTime;

use super::candidates::{self, Backups, Committed, ManifestRead, Sources};
use super::decide::{LaunchFacts, Predecessor};
use crate::attempts::{self, RestoreAttempt};

/// Facts of an earlier pass that do not change while an instance waits.
#[derive(Debug, Clone)]
pub(super) struct KnownLaunch {
    group: String,
    began_at: OffsetDateTime,
}

/// Returns the facts about one instance, and the facts that the next pass need not read again. `known` has such facts
/// from an earlier pass, or is `None` in the first pass.
pub(super) async fn gather(
    context: &Context,
    instance: &InstanceId,
    root_volume_replaced: bool,
    known: Option<KnownLaunch>,
) -> Result<(LaunchFacts, Option<KnownLaunch>)> {
    let (autoscaling, now) = (&context.aws.autoscaling, OffsetDateTime::now_utc());
    let group_name = if let Some(known) = &known {
        known.group.clone()
    } else {
        match autoscaling::membership(autoscaling, instance).await? {
            Some((group, state)) if state.is_in_launch_hook() => group,
            // For most events, another delivery or the sweep has finished the launch before. These events end here,
            // after one call.
            membership => {
                let (group, state) = membership.unzip();
                let group = group.unwrap_or_default();
                return Ok((elsewhere(instance, group, state, now), None));
            }
        }
    };
    let began_at = async {
        match &known {
            Some(known) => Ok(Some(known.began_at)),
            None => autoscaling::launched_at(autoscaling, &group_name, instance).await,
        }
    };
    let pings = ssm::ping(&context.aws.ssm, std::slice::from_ref(instance));
    let (group, began_at, pings) = try_join!(
        autoscaling::group(autoscaling, &group_name),
        began_at,
        pings,
    )?;
    let attempts = attempts(context, instance, began_at, now).await?;
    let own = group.as_ref().and_then(|group| {
        let mut members = group.members.iter();
        members.find(|it| it.instance_id == *instance)
    });
    let facts = LaunchFacts {
        now,
        instance_id: instance.clone(),
        state: own.map(|own| own.state.clone()),
        application: application_of(&group_name, group.as_ref()),
        root_volume_replaced,
        // If the group has not recorded the launch yet, the launch began just now.
        launched_at: began_at.unwrap_or(now),
        predecessor: group
            .as_ref()
            .and_then(|group| predecessor(group, instance)),
        ping: pings.get(instance).copied(),
        attempts,
        group: group_name,
    };
    let known = began_at.map(|began_at| KnownLaunch {
        group: facts.group.clone(),
        began_at,
    });
    Ok((facts, known))
}

/// Returns the facts about an instance that does not wait in the launch hook. The decision needs no others.
fn elsewhere(
    instance_id: &InstanceId,
    group: String,
    state: Option<LifecycleState>,
    now: OffsetDateTime,
) -> LaunchFacts {
    LaunchFacts {
        now,
        instance_id: instance_id.clone(),
        group,
        state,
        application: Err("the group was not read".to_owned()),
        root_volume_replaced: false,
        launched_at: now,
        predecessor: None,
        ping: None,
        attempts: Vec::new(),
    }
}

fn application_of(
    name: &str,
    group: Option<&Group>,
) -> std::result::Result<ApplicationName, String> {
    let application = group
        .map_or(Ok(None), Group::application)
        .map_err(|error| error.chain())?;
    application.ok_or_else(|| {
        format!("the group {name:?} has the hook {LAUNCH_HOOK}, but no tag {APPLICATION_TAG}")
    })
}

/// Returns the member that the restore has to wait for, or `None` if there is none. If one member is in service and
/// another is terminating, returns the one in service, because it has to terminate, too.
fn predecessor(group: &Group, instance: &InstanceId) -> Option<Predecessor> {
    let is_other = |it: &&Member| it.instance_id != *instance;
    // An unhealthy member is being replaced. If the group launches first, it terminates the member only after this
    // launch.
    let mut serving = group.in_service().filter(is_other);
    if let Some(it) = serving.find(|it| it.healthy) {
        return Some(Predecessor::Active(it.instance_id.clone()));
    }
    let mut others = group.members.iter().filter(is_other);
    let terminating = others.find(|it| it.state.is_terminating())?;
    Some(Predecessor::Terminating(terminating.instance_id.clone()))
}

async fn attempts(
    context: &Context,
    instance: &InstanceId,
    began_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<Vec<RestoreAttempt>> {
    // If the group does not list the launch yet, every command that may belong to it counts.
    let since = began_at.unwrap_or(now - budget::seconds(budget::HARD_CAP));
    let commands = attempts::sent_since(context, instance, since).await?;
    let operation = Operation::LaunchRestore(instance.clone());
    attempts::judge(context, instance, &operation, commands).await
}

/// Returns the facts for the choice of the application's backups.
///
/// # Errors
/// Retryable errors only: a refusal by AWS is a fact, [`Backups::Unknown`].
pub(super) async fn sources(context: &Context, facts: &LaunchFacts) -> Result<Sources> {
    let application = application(facts)?;
    let groups = autoscaling::protected_groups(&context.aws.autoscaling).await?;
    let sharing = groups.into_iter().find(|group| {
        // An empty group has no node.
        group.name != facts.group && !group.members.is_empty() && group.serves(application)
    });
    Ok(Sources {
        shared_with: sharing.map(|group| group.name),
        backups: backups(context, facts).await?,
    })
}

/// Returns the application of an instance that gets a restore; `decide` has refused an instance without one.
fn application(facts: &LaunchFacts) -> Result<&ApplicationName> {
    let application = facts.application.as_ref();
    application.map_err(|problem| Error::Refused(problem.clone()))
}

/// Returns the application's backups.
///
/// # Errors
/// Retryable errors only.
pub(super) async fn backups(context: &Context, facts: &LaunchFacts) -> Result<Backups> {
    match list_backups(context, facts).await {
        Err(error) if !error.retryable() => Ok(Backups::Unknown(error.chain())),
        listed => listed,
    }
}

async fn list_backups(context: &Context, facts: &LaunchFacts) -> Result<Backups> {
    let (application, now) = (application(facts)?, facts.now);
    let (client, bucket) = (&context.aws.s3, &context.config.bucket);
    let (state, most) = (BackupState::Committed, candidates::MOST_MANIFESTS);
    let newest = catalog::newest(client, bucket, application, state, most, now).await?;
    if newest.is_empty() {
        return Ok(match state::read(&context.aws.ssm, application).await {
            Ok(None) => Backups::NeverAny,
            // A parameter that cannot be parsed exists, so there were backups.
            Ok(Some(_)) | Err(Error::Contract { .. }) => Backups::Gone,
            Err(error) => return Err(error),
        });
    }
    let manifests = context.manifests(application);
    let mut committed = Vec::new();
    for backup_id in newest {
        let manifest = read_manifest(manifests, &backup_id).await?;
        committed.push(Committed {
            backup_id,
            manifest,
        });
        if candidates::is_enough(&committed) {
            break;
        }
    }
    Ok(Backups::Committed(committed))
}

async fn read_manifest(manifests: Manifests<'_>, backup: &BackupId) -> Result<ManifestRead> {
    match manifests.read(BackupState::Committed, backup).await {
        Ok(Some(manifest)) => Ok(ManifestRead::Readable {
            candidate: manifest.candidate(),
            instance_id: manifest.index.node.instance_id,
        }),
        Ok(None) => Ok(ManifestRead::Unreadable(
            "it was deleted after it was listed".to_owned(),
        )),
        Err(error) if manifest::is_newer_schema(&error) => {
            Ok(ManifestRead::NewerSchema(error.chain()))
        }
        Err(error @ Error::Contract { .. }) => Ok(ManifestRead::Unreadable(error.chain())),
        Err(error) => Err(error),
    }
}
