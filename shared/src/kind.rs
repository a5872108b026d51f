//! The kinds of failure, each with a stable word and a remedy. `docs/errors.md` has a row for each kind.

use crate::exit_code::ExitCode;

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
            /// Every kind of the functions' own failures; the agent's are [`ExitCode::ALL`].
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
    Config, "Deploy template.yaml unchanged: it sets every variable and attaches the layer that the reason names.";
    Event, "Correct the sender of the event; the reason names the field. A retry does not help.";
    AwsUnavailable, "Wait: Lambda and the sweep retry the call. If the failures continue, check the AWS Health Dashboard and the account's quotas.";
    AwsRefused, "Check the function's role, the bucket's policy and the names in the reason.";
    Contract, "Deploy functions and agent from one version, and check which other program writes to the bucket.";
    Refused, "Correct the group's tag, the group's size or the request; the reason names which.";
    ImageUnsaved, "Check the container engine on the node: the backup's data are complete, but an image is missing.";
    CommitLate, "Find out why the command ended more than two hours after it was sent; later backups are not affected.";
    NoFinalBackup, "Recover the data from the instance's volume if it still exists: data written after the newest backup are in no backup.";
    QuarantinedLineage, "Send accept-quarantined if this node's data are the current data, otherwise reject-quarantined.";
    QuarantinedSuperseded, "Send reject-quarantined: another instance holds the application's current data. Send accept-quarantined only to restore this backup.";
    QuarantinedLoss, "Send accept-quarantined if the data were deleted on purpose. Otherwise send reject-quarantined and restore an older backup.";
    QuarantinedUnknown, "Restore the unreadable manifest from its noncurrent version, or send accept-quarantined.";
    Retention, "Check the function's access to the bucket; the next commit runs retention again.";
    AgentNeverCame, "Check that the AMI starts the SSM agent, that the node's role has AmazonSSMManagedInstanceCore, and that the subnet reaches SSM.";
    AgentLost, "Read the instance's console output: its SSM agent registered, then stopped answering.";
    BackupsGone, "Correct BackupBucketName, or restore the manifests from their noncurrent versions. To start with an empty application, delete the parameter /rekindle/<application>.";
    BackupsUnknown, "Correct BackupBucketName, or the restore function's access to manifests/ and to the parameter /rekindle/<application>.";
    NewerSchema, "Deploy the newer version of Rekindle again: an older backup would lose data that it can restore.";
    UnreadableManifest, "Restore the manifest from its noncurrent version, or delete it.";
    NoReadableManifest, "Restore the newest manifests below manifests/<application>/ from their noncurrent versions.";
    ApplicationShared, "Give each group its own tag rekindle:application, or empty the other group first.";
    PredecessorActive, "Set the group's maximum size to 1 and its instance maintenance policy to 0 % to 100 %, so that it terminates before it launches. If the group has no such policy, suspend its process AZRebalance.";
    NotProtected, "Give the group the tag rekindle:application, or delete its hook rekindle-launch.";
    RootVolumeReplaced, "Refresh instances by replacing them; the strategy ReplaceRootVolume is not supported.";
    NewerBackup, "Find out why a terminate hook expired, and send reject-quarantined for the final backup of the abandoned instance. The next launch restores the newer backup.";
    FenceBroken, "Check why the predecessor does not terminate: data that it wrote after its newest backup are not in this restore.";
    CommandTimedOut, "Check the node's memory first (a killed agent looks like a timeout), then the size of the database.";
    CommandCancelled, "Find out who cancelled the command, unless an operator did so on purpose.";
    CommandUndeliverable, "Check that the function may send its document to this instance, and that the instance runs Linux.";
    CommandFailed, "Read the command's output in SSM: the agent ended without a report.";
    BreakerFailed, "Check the restore function's role and the parameter /rekindle/<application>/breaker. While launches fail, suspend the group's process Launch yourself. If the alarm LaunchesSuspended stays on although the record is closed, resume the process yourself.";
    RestoreExceptions, "Read the object that the reason names: for each exception it has the server's error and the SQL that restores the missing part.";
    HardCap, "Find out why the restore did not end within two hours: check the command's output in SSM, the size of the database and S3's throughput.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_remedy_is_a_sentence_and_each_word_is_used_once() {
        let agent = ExitCode::ALL.iter().map(|code| Kind::Agent(*code));
        let all: Vec<Kind> = Kind::OWN.iter().copied().chain(agent).collect();
        let words: std::collections::BTreeSet<&str> =
            all.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), all.len());
        for kind in all {
            let remedy = kind.remedy();
            assert!(
                remedy.starts_with(char::is_uppercase) && remedy.ends_with('.'),
                "{remedy}"
            );
        }
    }
}
