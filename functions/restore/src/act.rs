//! What a decision about an instance means for AWS: at most one answer, heartbeat or command.

use serde::Serialize;
use shared::aws::autoscaling::{self, Completion, LAUNCH_HOOK, LifecycleResult};
use shared::aws::{Aws, ssm};
use shared::command::{Candidate, Mode, RestoreCommand};
use shared::env::Config;
use shared::id::{CommandId, InstanceId};
use shared::metrics::{self, Metric};
use shared::report::{RestoreOutcome, RestoreReport};
use shared::{Result, agent, budget};
use tracing::{error, field, info};

use crate::choose::{self, Backups, PassedOver, Source};
use crate::circuit::{self, Next};
use crate::decide::{self, Decision, Facts};
use crate::gather;
use crate::reason::Reason;

/// What came of one pass over an instance, as the function's answer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It had its answer before.
    AlreadyResolved,
    /// It gets no answer from here.
    NotProtected,
    /// It was let into the warm pool.
    PassedIntoWarmPool,
    /// Its agent takes no command yet.
    WaitingForAgent,
    /// A predecessor's final backup may still come.
    WaitingForPredecessor,
    /// A restore was sent to it just now.
    SentRestore,
    /// A first boot was sent to it just now.
    SentFirstBoot,
    /// A restore that an operator asked for was sent to it just now.
    SentInPlace,
    /// It works on what was sent before.
    AlreadyRunning,
    /// It was let into service.
    Continued,
    /// It will be replaced.
    Abandoned,
}

impl Outcome {
    /// Tells whether there is nothing to do but look again soon.
    pub(crate) fn is_waiting(self) -> bool {
        matches!(self, Self::WaitingForAgent | Self::WaitingForPredecessor)
    }
}

/// Acts on a decision.
pub(crate) async fn on(
    aws: &Aws,
    config: &Config,
    facts: &Facts,
    decision: Decision,
) -> Result<Outcome> {
    match decision {
        Decision::AlreadyResolved { .. } => Ok(Outcome::AlreadyResolved),
        Decision::NotProtected { problem } => {
            refuse(config, facts, &problem);
            Ok(Outcome::NotProtected)
        }
        Decision::PassIntoWarmPool => {
            answer(aws, facts, LifecycleResult::Continue).await?;
            Ok(Outcome::PassedIntoWarmPool)
        }
        Decision::WaitForAgent => Ok(Outcome::WaitingForAgent),
        Decision::WaitForPredecessor { .. } => Ok(Outcome::WaitingForPredecessor),
        Decision::ChooseBackup { fence_broken_by } => {
            choose_backup(aws, config, facts, fence_broken_by.as_ref()).await
        }
        Decision::AlreadyRunning { heartbeat, .. } => {
            if heartbeat {
                let (group, instance) = (&facts.group, &facts.instance_id);
                autoscaling::heartbeat(&aws.autoscaling, group, LAUNCH_HOOK, instance).await?;
            }
            Ok(Outcome::AlreadyRunning)
        }
        Decision::Continue { command_id, report } => {
            admit(aws, config, facts, &command_id, &report).await
        }
        Decision::Abandon(reason) => abandon(aws, config, facts, &reason).await,
    }
}

async fn choose_backup(
    aws: &Aws,
    config: &Config,
    facts: &Facts,
    fence_broken_by: Option<&InstanceId>,
) -> Result<Outcome> {
    let stock = gather::stock(aws, config, facts).await?;
    let (candidates, passed_over) = match choose::source(&stock) {
        Source::Abandon(reason) => return abandon(aws, config, facts, &reason).await,
        Source::FirstBoot => (Vec::new(), Vec::new()),
        Source::Restore {
            candidates,
            passed_over,
        } => (candidates, passed_over),
    };
    let outcome = send(aws, config, facts, candidates).await?;
    if !outcome.is_waiting() {
        tell_concessions(config, facts, &passed_over, fence_broken_by);
    }
    Ok(outcome)
}

/// Sends the restore. Whoever sends it twice is put right by the node, which runs an operation once.
async fn send(
    aws: &Aws,
    config: &Config,
    facts: &Facts,
    candidates: Vec<Candidate>,
) -> Result<Outcome> {
    let instance = &facts.instance_id;
    let agent = agent::publish(aws, config).await?;
    let command = RestoreCommand {
        operation_id: gather::operation(instance)?,
        mode: Mode::Launch,
        candidates,
    };
    let sent = ssm::send(
        &aws.ssm,
        &config.restore_document,
        std::slice::from_ref(instance),
        command.parameters(&agent, budget::RESTORE_EXECUTION),
        budget::DELIVERY,
        &format!("Rekindle: restore {instance}"),
    )
    .await;
    match sent {
        Ok(command_id) => {
            let mut candidates = command.candidates.iter();
            let newest = candidates.next().map(|newest| &newest.backup_id);
            info!(
                instance_id = %instance, group = facts.group, %command_id, backup_id = newest.map(field::display),
                fallbacks = candidates.len(), "sent the restore document"
            );
            Ok(match newest {
                Some(_) => Outcome::SentRestore,
                None => Outcome::SentFirstBoot,
            })
        }
        // It is registered, and not ready: in the first moments both can be so.
        Err(error) if ssm::refuses_instance(&error) => {
            if let Decision::Abandon(reason) = decide::agent_silent(facts) {
                return abandon(aws, config, facts, &reason).await;
            }
            info!(instance_id = %instance, group = facts.group, "SSM refuses the instance still");
            Ok(Outcome::WaitingForAgent)
        }
        Err(error) => Err(error),
    }
}

/// Lets a restored instance into service, unless a newer backup was committed while it was restored.
async fn admit(
    aws: &Aws,
    config: &Config,
    facts: &Facts,
    command_id: &CommandId,
    report: &RestoreReport,
) -> Result<Outcome> {
    let backups = match gather::backups(aws, config, facts).await {
        Ok(backups) => backups,
        // What is ready must not lose its hook while S3 cannot be asked.
        Err(error) => {
            let (group, instance) = (&facts.group, &facts.instance_id);
            autoscaling::heartbeat(&aws.autoscaling, group, LAUNCH_HOOK, instance).await?;
            return Err(error);
        }
    };
    if let Some(reason) = choose::overtaken(&facts.instance_id, report, &backups) {
        if give_up(aws, config, facts, &reason).await? == Completion::Done {
            tell_skipped(config, facts, command_id, report);
        }
        return Ok(Outcome::Abandoned);
    }
    circuit::before_continuing(aws, config, facts).await;
    // What the node has is told once, by whoever let it into service.
    if answer(aws, facts, LifecycleResult::Continue).await? == Completion::Done {
        tell_restored(config, facts, command_id, report);
        tell_skipped(config, facts, command_id, report);
        tell_unlisted(config, facts, backups);
    }
    Ok(Outcome::Continued)
}

/// Says that nobody knows whether there is a newer backup by now. What was restored was the newest one when it was
/// chosen, and may be all that there is.
fn tell_unlisted(config: &Config, facts: &Facts, backups: Backups) {
    let reason = match backups {
        Backups::Unknown(problem) => Reason::BackupsUnknown { problem },
        Backups::Gone => Reason::BackupsGone,
        Backups::Committed(_) | Backups::NeverAny => return,
    };
    let kind = reason.kind();
    error!(
        kind, instance_id = %facts.instance_id, group = facts.group, reason = %reason, remedy = reason.remedy(),
        "let into service without another look at the backups"
    );
    count(config, facts, kind);
}

/// Says what a restore had to put up with.
fn tell_concessions(
    config: &Config,
    facts: &Facts,
    passed_over: &[PassedOver],
    fence_broken_by: Option<&InstanceId>,
) {
    for PassedOver { backup_id, problem } in passed_over {
        let kind = "UnreadableManifest";
        error!(
            kind, instance_id = %facts.instance_id, group = facts.group, %backup_id, reason = problem,
            remedy = "look at this manifest and its noncurrent versions",
            "a committed backup is not offered to the restore"
        );
        count(config, facts, kind);
    }
    if let Some(predecessor) = fence_broken_by {
        let kind = "FenceBroken";
        error!(
            kind, instance_id = %facts.instance_id, group = facts.group, %predecessor,
            remedy = "check what keeps the predecessor from terminating; what it wrote after its last backup is not in this restore",
            "restoring although a predecessor is still terminating {} seconds after the launch", budget::FENCE
        );
        count(config, facts, kind);
    }
}

/// Says what the node has, and measures it.
fn tell_restored(config: &Config, facts: &Facts, command_id: &CommandId, report: &RestoreReport) {
    let mut values = vec![(Metric::RestoreSeconds, report.seconds)];
    match &report.outcome {
        RestoreOutcome::Restored {
            backup_id,
            age_seconds,
            rows,
            bytes,
        } => {
            info!(
                instance_id = %facts.instance_id, group = facts.group, %command_id, %backup_id, age_seconds, rows,
                bytes, seconds = report.seconds, swap_seconds = report.swap_seconds, "restored, and let into service"
            );
            values.push((Metric::RestoredAge, whole(*age_seconds)));
        }
        RestoreOutcome::FirstBoot => info!(
            instance_id = %facts.instance_id, group = facts.group, %command_id, seconds = report.seconds,
            "started empty at the application's first boot, and let into service"
        ),
        RestoreOutcome::AlreadyRestored { backup_id } => {
            info!(
                instance_id = %facts.instance_id, group = facts.group, %command_id,
                backup_id = backup_id.as_ref().map(field::display),
                "was restored by an earlier command, and let into service"
            );
            // This command took no time worth measuring.
            values.clear();
        }
    }
    if let Ok(application) = &facts.application {
        metrics::measured(&config.metric_namespace, facts.now, application, &values);
    }
}

fn tell_skipped(config: &Config, facts: &Facts, command_id: &CommandId, report: &RestoreReport) {
    for skipped in &report.skipped {
        let kind = skipped.exit_code.word();
        error!(
            kind, instance_id = %facts.instance_id, group = facts.group, %command_id,
            backup_id = %skipped.backup_id, reason = skipped.reason, remedy = skipped.exit_code.remedy(),
            "a newer backup could not be restored, an older one was"
        );
        count(config, facts, kind);
    }
}

async fn abandon(aws: &Aws, config: &Config, facts: &Facts, reason: &Reason) -> Result<Outcome> {
    give_up(aws, config, facts, reason).await?;
    Ok(Outcome::Abandoned)
}

async fn give_up(aws: &Aws, config: &Config, facts: &Facts, reason: &Reason) -> Result<Completion> {
    let next = match circuit::before_abandoning(aws, config, facts, reason).await? {
        Next::Replaced => "the group replaces the instance",
        Next::Nothing => "the group launches nothing for now",
    };
    // Told once, by whoever abandons it. Should the answer fail, the next pass finds the same reason.
    let completion = answer(aws, facts, LifecycleResult::Abandon).await?;
    if completion == Completion::Done {
        let kind = reason.kind();
        error!(
            kind, instance_id = %facts.instance_id, group = facts.group,
            application = facts.application.as_ref().ok().map(field::display), reason = %reason, remedy = reason.remedy(),
            "abandoned the launch; {next}"
        );
        count(config, facts, kind);
    }
    Ok(completion)
}

fn refuse(config: &Config, facts: &Facts, problem: &str) {
    let kind = "NotProtected";
    error!(
        kind, instance_id = %facts.instance_id, group = facts.group, remedy = problem,
        "an instance waits in the launch hook of a group that names no application; it gets no answer"
    );
    count(config, facts, kind);
}

async fn answer(aws: &Aws, facts: &Facts, result: LifecycleResult) -> Result<Completion> {
    let (group, instance) = (&facts.group, &facts.instance_id);
    let completion =
        autoscaling::complete(&aws.autoscaling, group, LAUNCH_HOOK, instance, result).await?;
    if completion == Completion::AlreadyResolved {
        let result = result.as_str();
        info!(instance_id = %instance, group, result, "the launch hook had its answer before");
    }
    Ok(completion)
}

fn count(config: &Config, facts: &Facts, kind: &str) {
    let application = facts.application.as_ref().ok();
    metrics::failed(&config.metric_namespace, facts.now, application, kind);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is a float, and whole seconds stay exact for 285 million years"
)]
fn whole(seconds: u64) -> f64 {
    seconds as f64
}
