//! What is to be done, decided from facts alone: no calls, no clock, no environment, no log.
//!
//! Every variant is a sentence of the runbook. A refusal is a decision, not an error.

pub mod guard;
mod hook;
pub mod retention;
#[cfg(test)]
mod tests;

use std::fmt;

use shared::aws::ssm::{Invocation, InvocationStatus, Ping};
use shared::budget;
use shared::command::{BackupCommand, Purpose};
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId};
use shared::report::{BackupReport, ExitCode, Report};
use time::{Duration, OffsetDateTime};

pub use self::hook::{
    FinalBackup, FinalCommand, Leaving, Terminating, TerminatingFacts, answer, final_operation,
    is_overdue, leaving, on_terminating,
};

/// Returns a number of the timing budget, as times are counted here.
pub fn seconds(number: u32) -> Duration {
    Duration::seconds(i64::from(number))
}

/// Says why a tick starts no backup at all, if it starts none.
pub fn late(scheduled: OffsetDateTime, now: OffsetDateTime) -> Option<String> {
    let age = (now - scheduled).whole_seconds();
    if age > i64::from(budget::BACKUP_EVENT_AGE) {
        return Some(format!(
            "the tick is {age} s old, and after {} s the next one is better",
            budget::BACKUP_EVENT_AGE
        ));
    }
    if age < -i64::from(budget::MARGIN) {
        return Some(format!(
            "the tick lies {} s in the future: check who sent it",
            -age
        ));
    }
    None
}

/// What a start depends on, for one group.
#[derive(Debug, Clone)]
pub struct GroupFacts {
    /// The group's application, or what is wrong with its tag.
    pub application: Result<ApplicationName, String>,
    /// Other groups that claim the same application.
    pub rivals: Vec<String>,
    /// The members in service.
    pub in_service: Vec<InstanceId>,
    /// What SSM says of the only member in service; none where its agent is not registered.
    pub ping: Option<Ping>,
    /// A Rekindle command that is executing there.
    pub executing: Option<CommandId>,
    /// A command that already asked for the same backup.
    pub requested: Option<CommandId>,
}

/// Whether a group's backup is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Back this instance up.
    Start {
        /// The application to file it under.
        application: ApplicationName,
        /// The instance.
        instance: InstanceId,
    },
    /// Leave the group alone this time.
    Skip(Skip),
}

/// Why a group's backup is not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// The tag names no application.
    MalformedTag(String),
    /// Two groups would write under one name.
    ApplicationClaimedTwice(Vec<String>),
    /// Nothing serves at the moment: a replacement is on its way.
    NoInstanceInService,
    /// Rekindle keeps single nodes; with two, neither is known to hold the truth.
    SeveralInService(Vec<InstanceId>),
    /// This event was delivered before.
    AlreadyRequested(CommandId),
    /// A backup or a restore is running there.
    CommandExecuting(CommandId),
    /// SSM does not know the instance.
    AgentNotRegistered(InstanceId),
    /// SSM knows the instance, but its agent does not answer.
    AgentConnectionLost(InstanceId),
}

impl Skip {
    /// Tells whether somebody has to change something, or whether the next tick may find it otherwise.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::MalformedTag(_) | Self::ApplicationClaimedTwice(_) | Self::SeveralInService(_)
        )
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MalformedTag(problem) => f.write_str(problem),
            Self::ApplicationClaimedTwice(groups) => write!(
                f,
                "the groups {} have the same application tag; give each its own",
                groups.join(", ")
            ),
            Self::NoInstanceInService => f.write_str("no instance is InService"),
            Self::SeveralInService(instances) => {
                let names: Vec<&str> = instances.iter().map(InstanceId::as_str).collect();
                write!(
                    f,
                    "{} are all InService; set the group's maximum size to 1",
                    names.join(", ")
                )
            }
            Self::AlreadyRequested(command) => {
                write!(f, "the command {command} already asked for this backup")
            }
            Self::CommandExecuting(command) => write!(f, "the command {command} is executing"),
            Self::AgentNotRegistered(instance) => write!(
                f,
                "the SSM agent of {instance} is not registered; check the agent, its role and its network"
            ),
            Self::AgentConnectionLost(instance) => write!(
                f,
                "the SSM agent of {instance} does not answer; check the instance and its network"
            ),
        }
    }
}

/// Decides whether one group is backed up now.
pub fn on_tick(facts: &GroupFacts) -> Start {
    let application = match &facts.application {
        Ok(application) => application.clone(),
        Err(problem) => return Start::Skip(Skip::MalformedTag(problem.clone())),
    };
    if !facts.rivals.is_empty() {
        return Start::Skip(Skip::ApplicationClaimedTwice(facts.rivals.clone()));
    }
    let instance = match facts.in_service.as_slice() {
        [] => return Start::Skip(Skip::NoInstanceInService),
        [instance] => instance.clone(),
        several => return Start::Skip(Skip::SeveralInService(several.to_vec())),
    };
    if let Some(command) = &facts.requested {
        return Start::Skip(Skip::AlreadyRequested(command.clone()));
    }
    if let Some(command) = &facts.executing {
        return Start::Skip(Skip::CommandExecuting(command.clone()));
    }
    match facts.ping {
        Some(Ping::Online) => Start::Start {
            application,
            instance,
        },
        Some(Ping::ConnectionLost) => Start::Skip(Skip::AgentConnectionLost(instance)),
        None => Start::Skip(Skip::AgentNotRegistered(instance)),
    }
}

/// What is known of a backup command on one instance.
#[derive(Debug, Clone)]
pub struct FinishedFacts {
    /// What was asked, as SSM recorded it.
    pub command: BackupCommand,
    /// When it was asked.
    pub requested_at: OffsetDateTime,
    /// What it came to.
    pub invocation: Invocation,
    /// The time of this decision.
    pub now: OffsetDateTime,
}

/// How a backup command ended on one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It has not ended.
    StillRunning(InvocationStatus),
    /// The node says that a backup is complete: check it, then commit it.
    Commit(BackupReport),
    /// It succeeded too long ago: what it left may have been retired since, unless it is committed already.
    TooLate(BackupId),
    /// What the node says is not an answer to this command.
    Rejected(String),
    /// Another Rekindle command held the node. The next one will do.
    Busy,
    /// The node holds nothing that may be backed up.
    NotRestored(String),
    /// It failed, and said why.
    Failed {
        /// The kind of failure, with its remedy.
        code: ExitCode,
        /// The node's own words.
        message: String,
    },
    /// It ended without a word of the agent: too late, cancelled, killed, or never delivered.
    Unreported {
        /// What SSM says.
        status: InvocationStatus,
        /// What the document's step left on standard error.
        errors: String,
    },
}

/// Decides what a backup command's ending means.
pub fn on_finished(facts: &FinishedFacts) -> Ending {
    let invocation = &facts.invocation;
    if !invocation.status.is_finished() {
        return Ending::StillRunning(invocation.status.clone());
    }
    let report = Report::from_output(&invocation.output);
    if invocation.status == InvocationStatus::Success {
        return match report {
            Ok(Report::Backup(report)) => on_success(facts, report),
            Ok(Report::Failure(_) | Report::Restore(_)) => Ending::Rejected(
                "the command succeeded, but its report is not a backup's".to_owned(),
            ),
            Err(error) => Ending::Rejected(error.chain()),
        };
    }
    if let Ok(Report::Failure(report)) = report {
        return match report.exit_code {
            ExitCode::Busy => Ending::Busy,
            ExitCode::NotRestored => Ending::NotRestored(report.message),
            code => Ending::Failed {
                code,
                message: report.message,
            },
        };
    }
    // The document's own script ends with an exit code of the same table when there is no agent to report.
    match invocation.exit_code() {
        Some(code) if invocation.status == InvocationStatus::Failed => Ending::Failed {
            code,
            message: invocation.errors.trim().to_owned(),
        },
        _ => Ending::Unreported {
            status: invocation.status.clone(),
            errors: invocation.errors.trim().to_owned(),
        },
    }
}

fn on_success(facts: &FinishedFacts, report: BackupReport) -> Ending {
    let command = &facts.command;
    if report.operation_id != command.operation_id {
        return Ending::Rejected(format!(
            "the report answers the operation {}, the command asked for {}",
            report.operation_id, command.operation_id
        ));
    }
    // Only a final backup's operation is not named after its backup: asked a second time under another name, the
    // node repeats the answer that it gave under the first.
    if report.backup_id != command.backup_id && command.purpose != Purpose::Final {
        return Ending::Rejected(format!(
            "the report names the backup {}, the command asked for {}",
            report.backup_id, command.backup_id
        ));
    }
    let window = seconds(budget::COMMIT_WINDOW);
    let age = facts.now - report.backup_id.time();
    if facts.now - facts.requested_at > window || age > window {
        return Ending::TooLate(report.backup_id);
    }
    if age < -seconds(budget::MARGIN) {
        return Ending::Rejected(format!(
            "the backup {} lies in the future",
            report.backup_id
        ));
    }
    Ending::Commit(report)
}

/// Decides whether an operator may take a running node under protection.
pub fn on_adopt(newest: Option<&BackupId>, over_existing_backups: bool) -> Result<(), String> {
    match newest {
        Some(backup) if !over_existing_backups => Err(format!(
            "the application already has backups, the newest is {backup}: adopting makes this node's data the newest; \
             repeat the request with \"over_existing_backups\": true if that is meant"
        )),
        _ => Ok(()),
    }
}
