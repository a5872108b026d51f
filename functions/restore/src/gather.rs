//! The facts about a launching instance, read from AWS. Events are hints; nothing of them but the instance's id
//! is believed here.

use futures_util::future::try_join_all;
use futures_util::try_join;
use shared::aws::autoscaling::{self, APPLICATION_TAG, Group, LAUNCH_HOOK, LifecycleState, Member};
use shared::aws::ssm::{self, Ping};
use shared::aws::{Aws, catalog, s3, state};
use shared::env::Config;
use shared::id::{ApplicationName, BackupId, InstanceId, OperationId};
use shared::layout::{self, BackupState};
use shared::manifest::{self, MOST_MANIFEST_BYTES, Manifest};
use shared::{Error, Result, budget};
use time::OffsetDateTime;

use crate::attempt::{self, Attempt};
use crate::choose::{self, Backups, Committed, Readable, Stock};
use crate::decide::{Agent, Facts, Predecessor, Standing};

/// Names the restore of a launch. Every path to it derives the same name: AWS tells the minute sweep the
/// instance, and not the lifecycle action's token.
pub(crate) fn operation(instance: &InstanceId) -> Result<OperationId> {
    format!("launch-{instance}")
        .parse()
        .map_err(|error| Error::contract(instance.as_str(), format!("{error}")))
}

/// What an earlier look found out that stays the same while an instance waits.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    group: String,
    began_at: OffsetDateTime,
}

/// Gathers what the decision about one instance rests on. A `launch` that was found out before is not asked for
/// again; where there is none, it is kept there for the next look.
pub(crate) async fn facts(
    aws: &Aws,
    config: &Config,
    instance: &InstanceId,
    root_volume_replaced: bool,
    launch: &mut Option<Launch>,
) -> Result<Facts> {
    let now = OffsetDateTime::now_utc();
    let mut facts = Facts {
        now,
        instance_id: instance.clone(),
        group: String::new(),
        standing: Standing::Elsewhere("in no group".to_owned()),
        application: Err("the group was not looked at".to_owned()),
        root_volume_replaced,
        launched_at: now,
        predecessor: None,
        agent: Agent::Unregistered,
        attempts: Vec::new(),
    };
    if let Some(known) = launch {
        facts.group.clone_from(&known.group);
    } else if let Some((group, state)) = autoscaling::membership(&aws.autoscaling, instance).await?
    {
        (facts.group, facts.standing) = (group, standing(&state));
        // Most events find the work done, by another delivery or by the sweep: those cost one call.
        if matches!(facts.standing, Standing::Elsewhere(_)) {
            return Ok(facts);
        }
    } else {
        return Ok(facts);
    }
    let began_at = async {
        match launch {
            Some(known) => Ok(Some(known.began_at)),
            None => autoscaling::launched_at(&aws.autoscaling, &facts.group, instance).await,
        }
    };
    let (group, began_at, agent) = try_join!(
        autoscaling::group(&aws.autoscaling, &facts.group),
        began_at,
        agent(aws, instance),
    )?;
    facts.application = application_of(&facts.group, group.as_ref());
    let members = group.map(|group| group.members).unwrap_or_default();
    let own = members.iter().find(|it| it.instance_id == *instance);
    facts.standing = own.map_or_else(
        || Standing::Elsewhere("in no group".to_owned()),
        |own| standing(&own.state),
    );
    facts.predecessor = predecessor(&members, instance);
    // A launch that the group has not recorded yet began just now.
    facts.launched_at = began_at.unwrap_or(now);
    facts.agent = agent;
    facts.attempts = attempts(aws, config, instance, &facts).await?;
    *launch = began_at.map(|began_at| Launch {
        group: facts.group.clone(),
        began_at,
    });
    Ok(facts)
}

fn standing(state: &LifecycleState) -> Standing {
    match state {
        LifecycleState::PendingWait => Standing::Waiting,
        LifecycleState::WarmedPendingWait => Standing::WaitingForWarmPool,
        other => Standing::Elsewhere(other.to_string()),
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
        format!(
            "give the group {name:?} the tag {APPLICATION_TAG}, or take its hook {LAUNCH_HOOK} away"
        )
    })
}

/// Finds the member that the restore has to wait for. One that serves goes before one that leaves: it will have
/// to leave, too.
fn predecessor(members: &[Member], instance: &InstanceId) -> Option<Predecessor> {
    let others = || members.iter().filter(|it| it.instance_id != *instance);
    // An unhealthy one is being replaced: where the group launches first, it leaves only after this launch.
    let active = others().find(|it| it.state == LifecycleState::InService && it.healthy);
    let leaving = || others().find(|it| it.state.is_terminating());
    let active = active.map(|it| Predecessor::Active(it.instance_id.clone()));
    active.or_else(|| leaving().map(|it| Predecessor::Leaving(it.instance_id.clone())))
}

async fn agent(aws: &Aws, instance: &InstanceId) -> Result<Agent> {
    let pings = ssm::ping(&aws.ssm, std::slice::from_ref(instance)).await?;
    Ok(match pings.get(instance) {
        None => Agent::Unregistered,
        Some(Ping::ConnectionLost) => Agent::Lost,
        Some(Ping::Online) => Agent::Online,
    })
}

async fn attempts(
    aws: &Aws,
    config: &Config,
    instance: &InstanceId,
    facts: &Facts,
) -> Result<Vec<Attempt>> {
    let operation = &operation(instance)?;
    // Without a record of the launch, all commands that could belong to it are looked at.
    let since = if facts.launched_at == facts.now {
        facts.now - budget::seconds(budget::HARD_CAP)
    } else {
        facts.launched_at
    };
    let document = &config.restore_document;
    let commands = ssm::commands(&aws.ssm, document, since, false, Some(instance)).await?;
    let attempts = commands.into_iter().map(async |command| {
        let step = ssm::invocation(&aws.ssm, &command.command_id, instance).await?;
        Ok(Attempt {
            progress: attempt::progress(&command.status, step.as_ref(), operation),
            command_id: command.command_id,
            requested_at: command.requested_at,
        })
    });
    try_join_all(attempts).await
}

/// Gathers what the application has to restore from. Only what may differ the next time is an error: a refusal is a
/// fact like any other.
pub(crate) async fn stock(aws: &Aws, config: &Config, facts: &Facts) -> Result<Stock> {
    let application = application(facts)?;
    let groups = autoscaling::protected_groups(&aws.autoscaling).await?;
    let sharing = groups.into_iter().find(|group| {
        // A group that is empty has no node, and one whose own tag is malformed has no application.
        let same_application = group
            .application()
            .is_ok_and(|other| other.as_ref() == Some(application));
        group.name != facts.group && !group.members.is_empty() && same_application
    });
    Ok(Stock {
        shared_with: sharing.map(|group| group.name),
        backups: backups(aws, config, facts).await?,
    })
}

/// Returns the application of an instance that a decision is acted upon: one without is refused before.
fn application(facts: &Facts) -> Result<&ApplicationName> {
    let application = facts.application.as_ref();
    application.map_err(|problem| Error::Refused(problem.clone()))
}

/// Gathers what S3 has of the instance's application. Only what may differ the next time is an error.
pub(crate) async fn backups(aws: &Aws, config: &Config, facts: &Facts) -> Result<Backups> {
    match listed(aws, config, facts).await {
        Err(error) if !error.retryable() => Ok(Backups::Unknown(error.chain())),
        listed => listed,
    }
}

async fn listed(aws: &Aws, config: &Config, facts: &Facts) -> Result<Backups> {
    let (application, now) = (application(facts)?, facts.now);
    let most = choose::MOST_MANIFESTS;
    let newest = catalog::newest(
        &aws.s3,
        &config.bucket,
        application,
        BackupState::Committed,
        most,
        now,
    )
    .await?;
    if newest.is_empty() {
        return Ok(match state::read(&aws.ssm, application).await {
            Ok(None) => Backups::NeverAny,
            // A parameter that cannot be understood is still one: somebody had backups.
            Ok(Some(_)) | Err(Error::Contract { .. }) => Backups::Gone,
            Err(error) => return Err(error),
        });
    }
    let mut committed = Vec::new();
    for backup_id in newest {
        let manifest = manifest(aws, config, application, &backup_id).await?;
        committed.push(Committed {
            backup_id,
            manifest,
        });
        if choose::is_enough(&committed) {
            break;
        }
    }
    Ok(Backups::Committed(committed))
}

async fn manifest(
    aws: &Aws,
    config: &Config,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Readable> {
    let key = layout::manifest(application, backup);
    let bytes = s3::read(&aws.s3, &config.bucket, &key, None, MOST_MANIFEST_BYTES).await;
    let parsed = bytes.and_then(|bytes| Manifest::parse(&bytes, application, backup));
    match parsed {
        Ok(manifest) => Ok(Readable::Yes {
            candidate: manifest.candidate(),
            instance_id: manifest.index.node.instance_id,
        }),
        Err(error) if manifest::is_newer_schema(&error) => {
            Ok(Readable::ByNewerVersion(error.chain()))
        }
        // Taken away between the listing and the reading, damaged, or another application's.
        Err(error) if s3::is_missing(&error) || matches!(error, Error::Contract { .. }) => {
            Ok(Readable::No(error.chain()))
        }
        Err(error) => Err(error),
    }
}
