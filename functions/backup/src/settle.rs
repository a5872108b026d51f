//! Seeing a finished backup command through: its report, the commit, and the terminate hook of a final one.

use std::time::Duration;

use shared::aws::autoscaling::{self, Completion, Group, TERMINATE_HOOK};
use shared::aws::ssm::{self, CommandRecord, Invocation, InvocationStatus};
use shared::command::{BackupCommand, Purpose};
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId};
use shared::report::ExitCode;
use shared::{Error, Result};
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::commit::{self, Commit, Finished};
use crate::decide::{self, Ending, FinalBackup, FinishedFacts};
use crate::failures::report;
use crate::function::Function;
use crate::outcome::CaughtUp;
use crate::{retire, stored};

/// SSM's event may be a few seconds ahead of what SSM answers.
const STATUS_TRIES: u32 = 5;
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// The kind of failure by which a terminated instance's newest rows are lost.
const NO_FINAL_BACKUP: &str = "NoFinalBackup";

/// A backup command on one instance of a protected group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The group.
    pub(crate) group: &'a Group,
    /// Its application.
    pub(crate) application: &'a ApplicationName,
    /// The instance.
    pub(crate) instance: &'a InstanceId,
    /// The command, as SSM recorded it.
    pub(crate) record: &'a CommandRecord,
}

/// Sees a command through on the instance that an event names.
pub(crate) async fn on_event(
    function: &Function,
    command: &CommandId,
    instance: &InstanceId,
) -> Result<CaughtUp> {
    let record = ssm::command(&function.aws.ssm, command)
        .await?
        .ok_or_else(|| {
            Error::Refused(format!(
                "SSM does not know the command {command}: check who sent the event"
            ))
        })?;
    let (group, application) = protected_group(function, instance).await?;
    let target = Target {
        group: &group,
        application: &application,
        instance,
        record: &record,
    };
    settle(function, target).await
}

/// Finds the protected group of an instance; its tag is the only thing that says where a backup belongs.
async fn protected_group(
    function: &Function,
    instance: &InstanceId,
) -> Result<(Group, ApplicationName)> {
    let client = &function.aws.autoscaling;
    match autoscaling::membership(client, instance).await? {
        Some((name, _)) => named_group(function, &name).await,
        None => former_group(function, instance).await,
    }
}

/// Finds the protected group that launched an instance which has left since: a backup that was complete before
/// the node was lost is its application's newest.
async fn former_group(
    function: &Function,
    instance: &InstanceId,
) -> Result<(Group, ApplicationName)> {
    let client = &function.aws.autoscaling;
    for group in autoscaling::protected_groups(client).await? {
        let launched = autoscaling::launched_at(client, &group.name, instance).await?;
        if launched.is_some()
            && let Some(application) = group.application()?
        {
            return Ok((group, application));
        }
    }
    Err(Error::Refused(format!(
        "{instance} is in no Auto Scaling group, and no protected group recorded its launch, so its application is not \
         known: what it left stays uncommitted, and is restored by hand from below backups/ if it is needed"
    )))
}

/// Reads a protected group by its name.
pub(crate) async fn named_group(
    function: &Function,
    name: &str,
) -> Result<(Group, ApplicationName)> {
    let group = autoscaling::group(&function.aws.autoscaling, name).await?;
    let group =
        group.ok_or_else(|| Error::Refused(format!("there is no Auto Scaling group {name:?}")))?;
    let application = group.application()?.ok_or_else(|| {
        let tag = autoscaling::APPLICATION_TAG;
        Error::Refused(format!(
            "the group {name:?} is not protected: it has no tag {tag}"
        ))
    })?;
    Ok((group, application))
}

/// Sees a command through: commits what it left, and answers the hook if it was a final one.
pub(crate) async fn settle(function: &Function, target: Target<'_>) -> Result<CaughtUp> {
    let Target {
        group,
        application,
        instance,
        record,
    } = target;
    if function.is_settled(&record.command_id, instance) {
        return Ok(CaughtUp {
            application: Some(application.clone()),
            instance_id: instance.clone(),
            backup_id: None,
            decision: "settled before".to_owned(),
        });
    }
    let command = BackupCommand::from_parameters(&record.parameters)?;
    let invocation = finished_invocation(function, &record.command_id, instance).await?;
    let now = OffsetDateTime::now_utc();
    let facts = FinishedFacts {
        command,
        requested_at: record.requested_at,
        invocation,
        now,
    };
    let ending = decide::on_finished(&facts);

    let Acted {
        backup,
        decision,
        committed,
    } = act(function, target, &facts, &ending).await?;
    if facts.command.purpose == Purpose::Final
        && let Some(backup) = backup
    {
        let answered = answer_hook(function, group, instance, backup).await?;
        // Mostly the one who cancelled it has answered before, and not always.
        if backup == FinalBackup::Cancelled && answered == Some(Completion::Done) {
            tell_no_final_backup(function, application, instance, "its command was cancelled");
        }
    }
    if backup.is_some() {
        function.remember(&record.command_id, instance);
    }
    // After the hook, which waits for its answer, and only where a backup has just succeeded.
    if let Some(backup) = &committed {
        retire::after(function, application, backup, now).await;
    }
    Ok(CaughtUp {
        application: Some(application.clone()),
        instance_id: instance.clone(),
        backup_id: committed,
        decision,
    })
}

/// Answers the terminate hook after a final backup, or after what became of it; not at all while one may come.
pub(crate) async fn answer_hook(
    function: &Function,
    group: &Group,
    instance: &InstanceId,
    backup: FinalBackup,
) -> Result<Option<Completion>> {
    let Some(result) = decide::answer(backup, group.retains_on_abandon) else {
        return Ok(None);
    };
    let client = &function.aws.autoscaling;
    let completion =
        autoscaling::complete(client, &group.name, TERMINATE_HOOK, instance, result).await?;
    let (group, result) = (group.name.as_str(), result.as_str());
    match completion {
        Completion::Done => {
            info!(group, instance_id = %instance, result, "the terminate hook has its answer");
        }
        Completion::AlreadyResolved => {
            info!(group, instance_id = %instance, result, "the terminate hook had its answer before");
        }
    }
    Ok(Some(completion))
}

/// What was done about an ending.
struct Acted {
    /// What it means for a terminate hook.
    backup: Option<FinalBackup>,
    /// The decision in words.
    decision: String,
    /// The backup that exists since now.
    committed: Option<BackupId>,
}

impl Acted {
    fn new(backup: impl Into<Option<FinalBackup>>, decision: impl Into<String>) -> Self {
        Self {
            backup: backup.into(),
            decision: decision.into(),
            committed: None,
        }
    }
}

/// Does what an ending asks for.
async fn act(
    function: &Function,
    target: Target<'_>,
    facts: &FinishedFacts,
    ending: &Ending,
) -> Result<Acted> {
    let Target {
        group,
        application,
        instance,
        record,
    } = target;
    let failed = |kind: &str, message: String| {
        let backup = &facts.command.backup_id;
        let message = if facts.command.purpose == Purpose::Final {
            format!(
                "what was written on {instance} since its last backup is lost: its final backup {backup} {message}"
            )
        } else {
            format!("the backup {backup} of {instance} {message}")
        };
        report(&function.config, Some(application), kind, &message);
        Ok(Acted::new(FinalBackup::Failed, message))
    };
    match ending {
        Ending::StillRunning(status) => Ok(Acted::new(None, format!("the command is {status}"))),
        Ending::Commit(answer) => {
            let finished = Finished {
                group,
                application,
                instance,
                command_id: &record.command_id,
                command: &facts.command,
                report: answer,
            };
            match commit::commit(function, &finished, facts.now).await {
                Ok(commit) => Ok(delivered(function, &finished, &commit)),
                Err(error) if error.retryable() => Err(error),
                Err(error) => failed(error.kind(), format!("is not committed: {}", error.chain())),
            }
        }
        // A late duplicate of an event that did its work.
        Ending::TooLate(backup_id)
            if stored::is_settled(function, application, backup_id).await? =>
        {
            info!(application = %application, backup_id = %backup_id, instance_id = %instance, command_id = %record.command_id,
                decision = "AlreadyCommitted", "a late event of a backup that was committed in time");
            Ok(Acted::new(FinalBackup::Committed, "committed before"))
        }
        Ending::TooLate(_) => failed(
            "CommitLate",
            "ended too long ago to be committed".to_owned(),
        ),
        Ending::Rejected(problem) => failed("Contract", format!("is not committed: {problem}")),
        // Nobody has to do anything about these two: the next backup will do, and what was never restored has
        // nothing to save.
        Ending::Busy => {
            warn!(application = %application, instance_id = %instance, decision = "Busy", "{}", ExitCode::Busy.remedy());
            Ok(Acted::new(FinalBackup::Postponed, "the node was busy"))
        }
        Ending::NotRestored(message) if facts.command.purpose == Purpose::Final => {
            info!(application = %application, instance_id = %instance, decision = "NothingToSave", "{message}");
            Ok(Acted::new(
                FinalBackup::NothingToSave,
                "the node was never restored",
            ))
        }
        Ending::Unreported {
            status: InvocationStatus::Cancelled,
            ..
        } if facts.command.purpose == Purpose::Final => Ok(Acted::new(
            FinalBackup::Cancelled,
            "the final backup was cancelled",
        )),
        Ending::NotRestored(message) => {
            let code = ExitCode::NotRestored;
            failed(
                code.word(),
                format!("was refused: {message}. {}", code.remedy()),
            )
        }
        Ending::Failed { code, message } => failed(
            code.word(),
            format!("failed with {code}: {message}. {}", code.remedy()),
        ),
        Ending::Unreported { status, errors } => {
            let kind = match facts.command.purpose {
                Purpose::Final => NO_FINAL_BACKUP,
                _ => status.end().kind(),
            };
            // What the agent logged before does not say how it ended.
            let words = errors.lines().next_back().unwrap_or("no error output");
            let hint = match status {
                InvocationStatus::TimedOut | InvocationStatus::ExecutionTimedOut => {
                    ". SSM says so too of an agent that was killed: look at the node's memory"
                }
                _ => "",
            };
            let message = format!("ended {status} without a report; its last words: {words}{hint}");
            failed(kind, message)
        }
    }
}

/// Tells that an instance ends without the final backup that it should have had; returns the message.
pub(crate) fn tell_no_final_backup(
    function: &Function,
    application: &ApplicationName,
    instance: &InstanceId,
    reason: &str,
) -> String {
    let message = format!("{instance} ends without a final backup: {reason}");
    report(
        &function.config,
        Some(application),
        NO_FINAL_BACKUP,
        &message,
    );
    message
}

/// Says what became of a complete backup.
fn delivered(function: &Function, finished: &Finished<'_>, commit: &Commit) -> Acted {
    let report = finished.report;
    let decision = match commit {
        Commit::New => "Commit",
        Commit::Repeated => "AlreadyCommitted",
        Commit::KeptAside(_) => "Quarantine",
        Commit::KeptAsideBefore => "AlreadyQuarantined",
    };
    info!(
        application = %finished.application,
        backup_id = %report.backup_id,
        instance_id = %finished.instance,
        command_id = %finished.command_id,
        purpose = finished.command.purpose.as_str(),
        rows = report.rows,
        bytes = report.bytes,
        seconds = report.seconds,
        decision,
        "the backup is complete"
    );
    // What is kept aside is kept as well: nothing is lost with its node.
    let mut acted = Acted::new(FinalBackup::Committed, "committed");
    match commit {
        Commit::New => acted.committed = Some(report.backup_id.clone()),
        Commit::Repeated => "committed before".clone_into(&mut acted.decision),
        Commit::KeptAside(doubt) => {
            acted.decision = format!(
                "the backup {} is kept aside, and restores go on from the newest before it: {doubt}; send \
                 accept-quarantined if it is good, reject-quarantined if it is not",
                report.backup_id
            );
            let application = Some(finished.application);
            self::report(&function.config, application, doubt.kind(), &acted.decision);
        }
        Commit::KeptAsideBefore => "kept aside before".clone_into(&mut acted.decision),
    }
    acted
}

async fn finished_invocation(
    function: &Function,
    command: &CommandId,
    instance: &InstanceId,
) -> Result<Invocation> {
    let mut tries = 1;
    loop {
        let invocation = ssm::invocation(&function.aws.ssm, command, instance).await?;
        let invocation = invocation.ok_or_else(|| {
            Error::Refused(format!(
                "SSM knows of no invocation of the command {command} on {instance}"
            ))
        })?;
        if invocation.status.is_finished() || tries == STATUS_TRIES {
            return Ok(invocation);
        }
        tries += 1;
        tokio::time::sleep(STATUS_PAUSE).await;
    }
}
