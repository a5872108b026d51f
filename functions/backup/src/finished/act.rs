//! Acts on the end of a backup command: one method for each ending.

use shared::Result;
use shared::aws::ssm::CommandRecord;
use shared::command::Purpose;
use shared::function::context::Context;
use shared::function::failure;
use shared::id::{BackupId, Subject};
use shared::kind::Kind;
use shared::report::BackupReport;
use shared::verdict::{Cause, CommandFailure};
use tracing::{info, warn};

use super::commit::{self, Commit};
use super::decide::{Ending, FinishedFacts};
use super::index::CompleteBackup;
use crate::groups::Node;
use crate::hook::decide::FinalBackup;

/// A backup command that was sent to a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentCommand<'a> {
    /// The node.
    pub(crate) node: Node<'a>,
    /// The command, as SSM recorded it.
    pub(crate) record: &'a CommandRecord,
}

/// The result of acting on the end of a command.
pub(super) struct FinishResult {
    /// The end for the terminate hook of a final backup, `None` if the command has not ended.
    pub(super) final_backup: Option<FinalBackup>,
    /// The decision for the log and the answer.
    pub(super) decision: &'static str,
    /// The reason for a person.
    pub(super) message: Option<String>,
    /// The backup that was committed.
    pub(super) committed: Option<BackupId>,
}

impl FinishResult {
    fn new(final_backup: impl Into<Option<FinalBackup>>, decision: &'static str) -> Self {
        Self {
            final_backup: final_backup.into(),
            decision,
            message: None,
            committed: None,
        }
    }

    fn because(self, message: String) -> Self {
        let message = Some(message);
        Self { message, ..self }
    }
}

/// A command on a node, with the facts about its end.
pub(super) struct FinishedRun<'a> {
    pub(super) context: &'a Context,
    pub(super) sent: SentCommand<'a>,
    pub(super) facts: &'a FinishedFacts,
}

impl FinishedRun<'_> {
    /// Acts on the end of the command, and returns the result. A failure that a retry would not change is recorded.
    pub(super) async fn act(&self, ending: Ending) -> Result<FinishResult> {
        match ending {
            Ending::StillRunning(status) => Ok(FinishResult::new(None, "still-running")
                .because(format!("the command is {status}"))),
            Ending::Commit(report) => self.commit(&report).await,
            Ending::TooLate(backup) => self.too_late(&backup).await,
            Ending::Busy => Ok(self.busy()),
            Ending::NotRestored(failure) if self.is_final() => Ok(self.without_backup(
                FinalBackup::NothingToSave,
                "nothing-to-save",
                &failure,
                "the node was never restored, so there is nothing to save",
            )),
            // The invocation that answers the hook records the failure.
            Ending::Cancelled(failure) if self.is_final() => Ok(self.without_backup(
                FinalBackup::Cancelled,
                "cancelled",
                &failure,
                "the final backup was cancelled",
            )),
            Ending::NotRestored(failure) | Ending::Cancelled(failure) | Ending::Failed(failure) => {
                Ok(self.failed(self.kind(&failure), failure.message.clone()))
            }
        }
    }

    fn is_final(&self) -> bool {
        self.facts.command.purpose == Purpose::Final
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            command_id: Some(&self.sent.record.command_id),
            backup_id: Some(&self.facts.command.backup_id),
            ..self.sent.node.subject()
        }
    }

    async fn commit(&self, report: &BackupReport) -> Result<FinishResult> {
        let backup = CompleteBackup {
            node: self.sent.node,
            command_id: &self.sent.record.command_id,
            command: &self.facts.command,
            report,
        };
        match commit::commit(self.context, &backup, self.facts.now).await {
            Ok(commit) => Ok(self.committed(report, commit)),
            Err(error) if error.retryable() => Err(error),
            Err(error) => Ok(self.failed(error.kind(), error.chain())),
        }
    }

    /// Logs a complete backup. A quarantined one is in S3 as well, so nothing is lost with its node.
    fn committed(&self, report: &BackupReport, commit: Commit) -> FinishResult {
        let decision = match commit {
            Commit::New => "commit",
            Commit::Repeated => "already-committed",
            Commit::Quarantined(_) => "quarantine",
            Commit::AlreadyQuarantined => "already-quarantined",
        };
        info!(
            application = %self.sent.node.application,
            backup_id = %report.backup_id,
            instance_id = %self.sent.node.instance,
            command_id = %self.sent.record.command_id,
            purpose = self.facts.command.purpose.as_str(),
            rows = report.rows,
            bytes = report.bytes,
            seconds = report.seconds,
            decision,
            "the backup is complete"
        );
        let result = FinishResult::new(FinalBackup::Committed, decision);
        match commit {
            Commit::New => FinishResult {
                committed: Some(report.backup_id.clone()),
                ..result
            },
            Commit::Repeated | Commit::AlreadyQuarantined => result,
            Commit::Quarantined(quarantine) => {
                let subject = Subject {
                    backup_id: Some(&report.backup_id),
                    ..self.subject()
                };
                let message = "the backup is quarantined; restores use the newest backup before it";
                let reason = quarantine.to_string();
                failure::record(self.context, subject, quarantine.kind(), message, &reason);
                result.because(reason)
            }
        }
    }

    /// Records that a command ended too late to be committed, unless an earlier event committed its backup in time.
    async fn too_late(&self, backup: &BackupId) -> Result<FinishResult> {
        let node = self.sent.node;
        let manifests = self.context.manifests(node.application);
        if manifests.locate(backup).await?.is_none() {
            let reason = "the command ended too long ago to be committed".to_owned();
            return Ok(self.failed(Kind::CommitLate, reason));
        }
        let decision = "already-committed";
        info!(
            application = %node.application,
            backup_id = %backup,
            instance_id = %node.instance,
            command_id = %self.sent.record.command_id,
            decision,
            "a late event of a backup that was committed in time"
        );
        Ok(FinishResult::new(FinalBackup::Committed, decision))
    }

    /// Logs that the node was busy. An operator need not act: the next backup succeeds, and the sweep repeats a final
    /// backup.
    fn busy(&self) -> FinishResult {
        let decision = "busy";
        warn!(
            application = %self.sent.node.application,
            backup_id = %self.facts.command.backup_id,
            instance_id = %self.sent.node.instance,
            command_id = %self.sent.record.command_id,
            decision,
            "the node was busy with another Rekindle command"
        );
        FinishResult::new(FinalBackup::Postponed, decision)
    }

    /// Logs that a final backup ended without a backup and without a failure of its own.
    fn without_backup(
        &self,
        final_backup: FinalBackup,
        decision: &'static str,
        failure: &CommandFailure,
        message: &str,
    ) -> FinishResult {
        info!(
            application = %self.sent.node.application,
            instance_id = %self.sent.node.instance,
            command_id = %self.sent.record.command_id,
            decision,
            reason = failure.message,
            "{message}"
        );
        FinishResult::new(final_backup, decision).because(failure.message.clone())
    }

    /// Returns the kind of failure. A final backup that SSM ended has a kind of its own, because the data are lost with
    /// the node.
    fn kind(&self, failure: &CommandFailure) -> Kind {
        match failure.cause {
            Cause::Command(_) if self.is_final() => Kind::NoFinalBackup,
            _ => failure.kind(),
        }
    }

    fn failed(&self, kind: Kind, reason: String) -> FinishResult {
        let message = if self.is_final() {
            "the final backup failed; data written since the newest backup is lost"
        } else {
            "the backup failed"
        };
        failure::record(self.context, self.subject(), kind, message, &reason);
        FinishResult::new(FinalBackup::Failed, "failed").because(reason)
    }
}
