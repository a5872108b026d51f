//! The one form in which both functions record a failure: one ERROR line in the log, and one count of the metric `Failures`.
//!
//! Fields of the line: `kind`, `reason` and `remedy`, `application` where the failure concerns one, and the ids `group`,
//! `instance_id`, `command_id` and `backup_id` as far as they are known. `docs/errors.md` has a row for each kind.

use time::OffsetDateTime;
use tracing::{error, field};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::id::{ApplicationName, BackupId, CommandId, InstanceId};
use crate::metrics;
use crate::report::ExitCode;

/// Defines the kinds of the functions' own failures in one table: the word and the remedy.
macro_rules! kinds {
    ($($variant:ident, $remedy:literal;)*) => {
        /// The kind of a failure: the field `kind` of the log and the dimension `Kind` of the metric `Failures`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", stringify!($variant), "`: see [`Kind::remedy`].")] $variant,)*
            /// The agent ended with this exit code.
            Agent(ExitCode),
        }

        impl Kind {
            /// Every kind of the functions' own; the agent's are [`ExitCode::ALL`].
            pub const OWN: &[Self] = &[$(Self::$variant,)*];

            /// Returns the stable word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                    Self::Agent(exit_code) => exit_code.word(),
                }
            }

            /// Returns the action that an operator takes.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$variant => $remedy,)*
                    Self::Agent(exit_code) => exit_code.remedy(),
                }
            }
        }
    };
}

kinds! {
    Config, "Deploy template.yaml unchanged: it sets every variable that the reason names.";
    Event, "Correct the sender of the event; the reason names the field. The event is not retried.";
    AwsUnavailable, "Wait: Lambda and the sweep retry. If it lasts, check AWS' health dashboard and the account's quotas.";
    AwsRefused, "Check the function's role, the bucket's policy and the names in the reason.";
    Contract, "Deploy functions and agent from one version, and check which other program writes to the bucket.";
    Refused, "Correct the group's tag, its size, or the request, as the reason says.";
    ImageUnsaved, "Check the container engine on the node; the backup's data are complete, only an image is missing.";
    CommitLate, "Find out why the command ended more than two hours after it was sent; the next backup is not affected.";
    NoFinalBackup, "Restore the newest backup's successor from the instance's volume if it still exists; data written after the newest backup are lost.";
    QuarantinedLineage, "Send accept-quarantined if this node's data are the right ones, else reject-quarantined.";
    QuarantinedSuperseded, "Send reject-quarantined: another instance holds the application's current data. Send accept-quarantined only to restore this backup.";
    QuarantinedLoss, "Send accept-quarantined if the data were deleted on purpose, else reject-quarantined and restore an older backup.";
    QuarantinedUnknown, "Restore the unreadable manifest from its noncurrent version, or send accept-quarantined.";
    Retention, "Check the function's access to the bucket; the next committed backup runs retention again.";
    AgentNeverCame, "Check that the AMI starts the SSM agent, that the node's role has AmazonSSMManagedInstanceCore, and that the subnet reaches SSM.";
    AgentLost, "Read the instance's console output: its SSM agent registered, then stopped answering.";
    BackupsGone, "Correct BackupBucketName, or restore the manifests from their noncurrent versions. To begin again with an empty application, delete the parameter /rekindle/<application>.";
    BackupsUnknown, "Correct BackupBucketName, or the restore function's access to manifests/ and to the parameter /rekindle/<application>.";
    NewerSchema, "Deploy the newer version of Rekindle again: an older backup would lose data that it can restore.";
    UnreadableManifest, "Restore the manifest from its noncurrent version, or delete it.";
    NoReadableManifest, "Restore the newest manifests below manifests/<application>/ from their noncurrent versions.";
    ApplicationShared, "Give each group its own tag rekindle:application, or empty the other group first.";
    PredecessorActive, "Let the group terminate before it launches: maximum size 1, instance maintenance policy 0 % to 100 %, and AZRebalance suspended where there is no such policy.";
    NotProtected, "Give the group the tag rekindle:application, or delete its hook rekindle-launch.";
    RootVolumeReplaced, "Refresh instances by replacing them; the strategy ReplaceRootVolume is not supported.";
    NewerBackup, "None for the data: the next launch restores the newer backup. Find out why a terminate hook expired, and send reject-quarantined for the final backup of the abandoned instance.";
    FenceBroken, "Check why the predecessor does not terminate; data that it wrote after its newest backup are not in this restore.";
    CommandTimedOut, "Check the node's memory first (a killed agent looks like a timeout), then the size of the database.";
    CommandCancelled, "None, if an operator cancelled the command.";
    CommandUndeliverable, "Check that the function may send its document to this instance, and that the instance runs Linux.";
    CommandFailed, "Read the command's output in SSM: the agent ended without a report.";
    BreakerFailed, "Check the restore function's role and the parameter /rekindle/<application>/breaker. While launches fail, suspend the group's process Launch by hand; if the alarm LaunchesSuspended stays on and the record is closed, resume it by hand.";
    HardCap, "Find out why the restore did not end within two hours: the command's output in SSM, the size of the database, S3's throughput.";
}

/// The ids that a failure concerns, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// The application.
    pub application: Option<&'a ApplicationName>,
    /// The Auto Scaling group.
    pub group: Option<&'a str>,
    /// The instance.
    pub instance_id: Option<&'a InstanceId>,
    /// The SSM command.
    pub command_id: Option<&'a CommandId>,
    /// The backup.
    pub backup_id: Option<&'a BackupId>,
}

impl<'a> Subject<'a> {
    /// Returns a subject of which only the application is known.
    pub fn application(application: &'a ApplicationName) -> Self {
        Self {
            application: Some(application),
            ..Self::default()
        }
    }
}

/// Records a failure: one ERROR line, one count of the metric. `message` is a short fixed sentence, `reason` has the details.
pub fn record(context: &Context, subject: Subject<'_>, kind: Kind, message: &str, reason: &str) {
    log(subject, kind.as_str(), message, reason, kind.remedy());
    let (namespace, now) = (&context.config.metric_namespace, OffsetDateTime::now_utc());
    metrics::failed(namespace, now, subject.application, kind.as_str());
}

/// Writes one ERROR line by the log contract, without a metric.
pub(crate) fn log(subject: Subject<'_>, kind: &str, message: &str, reason: &str, remedy: &str) {
    error!(
        application = subject.application.map(field::display),
        group = subject.group,
        instance_id = subject.instance_id.map(field::display),
        command_id = subject.command_id.map(field::display),
        backup_id = subject.backup_id.map(field::display),
        kind,
        reason,
        remedy,
        "{message}"
    );
}

impl Error {
    /// Records this error and returns it marked, so that nobody records it again.
    #[must_use]
    pub fn recorded(self, context: &Context, subject: Subject<'_>, message: &str) -> Self {
        if matches!(self, Self::Recorded(_)) {
            return self;
        }
        record(context, subject, self.kind(), message, &self.chain());
        Self::Recorded(Box::new(self))
    }
}

/// The failures of an invocation that works on several applications: one application's failure does not stop the others.
#[derive(Debug)]
pub struct Failures<'a> {
    context: &'a Context,
    retry: Option<Error>,
    count: usize,
}

impl<'a> Failures<'a> {
    /// Starts without failures.
    pub fn new(context: &'a Context) -> Self {
        Self {
            context,
            retry: None,
            count: 0,
        }
    }

    /// Records a failure. The first retryable one is kept for [`Failures::finish`].
    pub fn add(&mut self, subject: Subject<'_>, message: &str, error: Error) {
        self.count += 1;
        let error = error.recorded(self.context, subject, message);
        if error.retryable() && self.retry.is_none() {
            self.retry = Some(error);
        }
    }

    /// Returns the value, or `None` after recording the failure in its place.
    pub fn keep<T>(&mut self, subject: Subject<'_>, message: &str, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.add(subject, message, error))
            .ok()
    }

    /// Returns how many failures there were, or an error if Lambda should retry the event.
    pub fn finish(self) -> Result<usize> {
        match self.retry {
            Some(error) => Err(error),
            None => Ok(self.count),
        }
    }
}
