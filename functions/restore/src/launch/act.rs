//! Carries out the decision about a launching instance: at most one answer, heartbeat or command.

use shared::aws::autoscaling::{self, Completion, LAUNCH_HOOK, LifecycleResult};
use shared::aws::ssm;
use shared::command::{Candidate, Mode, RestoreCommand};
use shared::function::context::Context;
use shared::function::failure;
use shared::function::metrics::{self, Metric};
use shared::id::{CommandId, InstanceId, Subject};
use shared::kind::Kind;
use shared::operation::Operation;
use shared::report::{RestoreOutcome, RestoreReport};
use shared::{Result, budget};
use tracing::{field, info};

use super::candidates::{self, Backups, Choice, UnreadableBackup};
use super::decide::{self, LaunchDecision, LaunchFacts};
use super::reason::Reason;
use super::{facts, subject};
use crate::attempts;
use crate::breaker::{self, Launch, NextLaunch};
use crate::exceptions;

/// The result of one pass over an instance, as the function's answer names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaunchStep {
    /// It does not wait in the hook any more.
    AlreadyResolved,
    /// Its group has no application, so this function does not answer the hook.
    NotProtected,
    /// It passed into the warm pool without a restore.
    PassedIntoWarmPool,
    /// Its SSM agent does not accept commands yet.
    WaitingForAgent,
    /// A predecessor's final backup may still come.
    WaitingForPredecessor,
    /// This pass sent it a restore.
    SentRestore,
    /// This pass sent it a first boot.
    SentFirstBoot,
    /// It runs an earlier command.
    AlreadyRunning,
    /// It was admitted: CONTINUE.
    Admitted,
    /// It was abandoned: ABANDON.
    Abandoned,
}

impl LaunchStep {
    /// Returns the name in the function's answer.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyResolved => "already-resolved",
            Self::NotProtected => "not-protected",
            Self::PassedIntoWarmPool => "passed-into-warm-pool",
            Self::WaitingForAgent => "waiting-for-agent",
            Self::WaitingForPredecessor => "waiting-for-predecessor",
            Self::SentRestore => "sent-restore",
            Self::SentFirstBoot => "sent-first-boot",
            Self::AlreadyRunning => "already-running",
            Self::Admitted => "admitted",
            Self::Abandoned => "abandoned",
        }
    }

    /// Returns whether the instance is not ready, so that another pass has to follow soon.
    pub(crate) fn is_waiting(self) -> bool {
        matches!(self, Self::WaitingForAgent | Self::WaitingForPredecessor)
    }
}

/// An instance in the launch hook, with its facts.
pub(super) struct LaunchingInstance<'a> {
    context: &'a Context,
    facts: &'a LaunchFacts,
}

impl<'a> LaunchingInstance<'a> {
    pub(super) fn new(context: &'a Context, facts: &'a LaunchFacts) -> Self {
        Self { context, facts }
    }

    /// Carries out the decision.
    pub(super) async fn act(&self, decision: LaunchDecision) -> Result<LaunchStep> {
        match decision {
            LaunchDecision::AlreadyResolved => Ok(LaunchStep::AlreadyResolved),
            LaunchDecision::NotProtected { problem } => {
                let message = "an instance waits in the launch hook of a group without an application; it gets no answer";
                self.record(Kind::NotProtected, message, &problem);
                Ok(LaunchStep::NotProtected)
            }
            LaunchDecision::PassIntoWarmPool => {
                self.answer(LifecycleResult::Continue).await?;
                Ok(LaunchStep::PassedIntoWarmPool)
            }
            LaunchDecision::WaitForAgent => Ok(LaunchStep::WaitingForAgent),
            LaunchDecision::WaitForPredecessor { .. } => Ok(LaunchStep::WaitingForPredecessor),
            LaunchDecision::ChooseBackup { fence_broken_by } => {
                self.choose_backup(fence_broken_by.as_ref()).await
            }
            LaunchDecision::AlreadyRunning { heartbeat, .. } => {
                if heartbeat {
                    self.heartbeat().await?;
                }
                Ok(LaunchStep::AlreadyRunning)
            }
            LaunchDecision::Admit { command_id, report } => self.admit(&command_id, &report).await,
            LaunchDecision::Abandon(reason) => {
                self.abandon(&reason).await?;
                Ok(LaunchStep::Abandoned)
            }
        }
    }

    async fn choose_backup(&self, fence_broken_by: Option<&InstanceId>) -> Result<LaunchStep> {
        let sources = facts::sources(self.context, self.facts).await?;
        let (candidates, unreadable) = match candidates::choose(&sources) {
            Choice::Abandon(reason) => {
                self.abandon(&reason).await?;
                return Ok(LaunchStep::Abandoned);
            }
            Choice::FirstBoot => (Vec::new(), Vec::new()),
            Choice::Restore {
                candidates,
                unreadable,
            } => (candidates, unreadable),
        };
        let step = self.send(candidates).await?;
        if !step.is_waiting() {
            self.record_unreadable(&unreadable);
            self.record_broken_fence(fence_broken_by);
        }
        Ok(step)
    }

    /// Sends the restore command. A second delivery is harmless: the agent runs an operation once.
    async fn send(&self, candidates: Vec<Candidate>) -> Result<LaunchStep> {
        let instance = &self.facts.instance_id;
        let command = RestoreCommand {
            operation_id: Operation::LaunchRestore(instance.clone()),
            mode: Mode::Launch,
            candidates,
        };
        let comment = format!("Rekindle: restore {instance}");
        let sent = attempts::send(self.context, instance, &command, &comment).await;
        let application = self.facts.application().map(field::display);
        let group = &self.facts.group;
        match sent {
            Ok(command_id) => {
                let mut candidates = command.candidates.iter();
                let newest = candidates.next().map(|newest| &newest.backup_id);
                info!(
                    decision = "send-restore", application, group, instance_id = %instance, %command_id,
                    backup_id = newest.map(field::display), fallbacks = candidates.len(), "sent the restore command"
                );
                Ok(match newest {
                    Some(_) => LaunchStep::SentRestore,
                    None => LaunchStep::SentFirstBoot,
                })
            }
            // SSM may refuse an instance in the first moments after its registration.
            Err(error) if ssm::refuses_instance(&error) => {
                if let Some(reason) = decide::agent_silent(self.facts) {
                    self.abandon(&reason).await?;
                    return Ok(LaunchStep::Abandoned);
                }
                info!(
                    decision = "wait-for-agent", application, group, instance_id = %instance,
                    "SSM does not accept a command for the instance yet"
                );
                Ok(LaunchStep::WaitingForAgent)
            }
            Err(error) => Err(error),
        }
    }

    /// Admits a restored instance, unless a newer backup of another instance was committed during its restore.
    async fn admit(&self, command_id: &CommandId, report: &RestoreReport) -> Result<LaunchStep> {
        let backups = match facts::backups(self.context, self.facts).await {
            Ok(backups) => backups,
            // The hook of a restored instance must not expire because S3 fails.
            Err(error) => {
                self.heartbeat().await?;
                return Err(error);
            }
        };
        if let Some(reason) = candidates::newer_backup(&self.facts.instance_id, report, &backups) {
            if self.abandon(&reason).await? == Completion::Done {
                self.record_skipped(command_id, report);
            }
            return Ok(LaunchStep::Abandoned);
        }
        if let Some(launch) = self.launch() {
            breaker::before_admitting(self.context, launch).await;
        }
        // Only the pass that answers the hook logs the result.
        if self.answer(LifecycleResult::Continue).await? == Completion::Done {
            self.log_admitted(command_id, report);
            self.record_skipped(command_id, report);
            self.record_exceptions(command_id, report);
            self.record_unknown_backups(backups);
        }
        Ok(LaunchStep::Admitted)
    }

    async fn abandon(&self, reason: &Reason) -> Result<Completion> {
        let next = match self.launch() {
            Some(launch) => {
                breaker::before_abandoning(self.context, launch, reason.permanent()).await?
            }
            // Nothing is abandoned in a group without an application.
            None => NextLaunch::Allowed,
        };
        let message = match next {
            NextLaunch::Allowed => "abandoned the launch; the group launches another instance",
            NextLaunch::Suspended => "abandoned the launch; the group launches nothing for now",
        };
        // If the answer fails, the next pass finds the same reason and records it.
        let completion = self.answer(LifecycleResult::Abandon).await?;
        if completion == Completion::Done {
            let subject = Subject {
                command_id: reason.command_id(),
                ..subject(self.facts)
            };
            failure::record(
                self.context,
                subject,
                reason.kind(),
                message,
                &reason.to_string(),
            );
        }
        Ok(completion)
    }

    fn launch(&self) -> Option<Launch<'_>> {
        Some(Launch {
            now: self.facts.now,
            application: self.facts.application()?,
            group: &self.facts.group,
            instance_id: &self.facts.instance_id,
            can_wait: !self.facts.breaker_patience_is_over(),
        })
    }

    async fn answer(&self, result: LifecycleResult) -> Result<Completion> {
        let (group, instance) = (&self.facts.group, &self.facts.instance_id);
        let client = &self.context.aws.autoscaling;
        let completion =
            autoscaling::complete(client, group, LAUNCH_HOOK, instance, result).await?;
        if completion == Completion::AlreadyResolved {
            info!(
                decision = "already-answered",
                application = self.facts.application().map(field::display),
                group,
                instance_id = %instance,
                result = result.as_str(),
                "the launch hook was answered before"
            );
        }
        Ok(completion)
    }

    async fn heartbeat(&self) -> Result<()> {
        let (group, instance) = (&self.facts.group, &self.facts.instance_id);
        let client = &self.context.aws.autoscaling;
        autoscaling::heartbeat(client, group, LAUNCH_HOOK, instance).await?;
        Ok(())
    }

    fn record(&self, kind: Kind, message: &str, reason: &str) {
        failure::record(self.context, subject(self.facts), kind, message, reason);
    }

    fn record_unreadable(&self, unreadable: &[UnreadableBackup]) {
        for UnreadableBackup { backup_id, problem } in unreadable {
            let subject = Subject {
                backup_id: Some(backup_id),
                ..subject(self.facts)
            };
            let message = "a committed backup is not offered to the restore";
            failure::record(
                self.context,
                subject,
                Kind::UnreadableManifest,
                message,
                problem,
            );
        }
    }

    fn record_broken_fence(&self, predecessor: Option<&InstanceId>) {
        if let Some(predecessor) = predecessor {
            let reason = format!(
                "{predecessor} is still terminating {} seconds after the launch of {}",
                budget::FENCE,
                self.facts.instance_id
            );
            let message = "the restore does not wait any longer for the predecessor's final backup";
            self.record(Kind::FenceBroken, message, &reason);
        }
    }

    fn record_skipped(&self, command_id: &CommandId, report: &RestoreReport) {
        for skipped in &report.skipped {
            let subject = Subject {
                command_id: Some(command_id),
                backup_id: Some(&skipped.backup_id),
                ..subject(self.facts)
            };
            let message = "a newer backup could not be restored, so an older one was";
            let kind = Kind::Agent(skipped.exit_code);
            failure::record(self.context, subject, kind, message, &skipped.reason);
        }
    }

    fn record_exceptions(&self, command_id: &CommandId, report: &RestoreReport) {
        let subject = Subject {
            command_id: Some(command_id),
            backup_id: report.outcome.backup_id(),
            ..subject(self.facts)
        };
        exceptions::record(self.context, subject, report);
    }

    /// Records that the second check for a newer backup failed. The instance is admitted: the restored backup was the
    /// newest when it was chosen, and may be the only one.
    fn record_unknown_backups(&self, backups: Backups) {
        let reason = match backups {
            Backups::Unknown(problem) => Reason::BackupsUnknown { problem },
            Backups::Gone => Reason::BackupsGone,
            Backups::Committed(_) | Backups::NeverAny => return,
        };
        let message = "admitted without a second check for a newer backup";
        self.record(reason.kind(), message, &reason.to_string());
    }

    fn log_admitted(&self, command_id: &CommandId, report: &RestoreReport) {
        let decision = "admit";
        let application = self.facts.application();
        let (name, group) = (application.map(field::display), &self.facts.group);
        let (instance_id, seconds) = (&self.facts.instance_id, report.seconds);
        let mut values = vec![(Metric::RestoreSeconds, seconds)];
        match &report.outcome {
            RestoreOutcome::Restored {
                backup_id,
                age_seconds,
                rows,
                bytes,
            } => {
                info!(
                    decision, application = name, group, %instance_id, %command_id, %backup_id, age_seconds, rows,
                    bytes, seconds, swap_seconds = report.swap_seconds, "restored and admitted"
                );
                values.push((Metric::RestoredAge, whole(*age_seconds)));
            }
            RestoreOutcome::FirstBoot => info!(
                decision, application = name, group, %instance_id, %command_id, seconds,
                "started the application empty at its first boot, and admitted the instance"
            ),
            RestoreOutcome::AlreadyRestored { backup_id } => {
                info!(
                    decision, application = name, group, %instance_id, %command_id,
                    backup_id = backup_id.as_ref().map(field::display),
                    "restored by an earlier command, and admitted"
                );
                // This command did not restore, so its duration is not measured.
                values.clear();
            }
        }
        if let Some(application) = application {
            let namespace = &self.context.config.metric_namespace;
            metrics::measured(namespace, self.facts.now, application, &values);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is a float, and whole seconds stay exact for 285 million years"
)]
fn whole(seconds: u64) -> f64 {
    seconds as f64
}
