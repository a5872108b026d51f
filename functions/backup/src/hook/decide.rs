//! The rule by which the end of a final backup answers the terminate hook.

use shared::aws::autoscaling::LifecycleResult;

/// The end of a final backup, as far as the terminate hook depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalBackup {
    /// It is in S3, committed or quarantined.
    Committed,
    /// The node had no data to save.
    NothingToSave,
    /// The node was busy with another command, which may end in time.
    Postponed,
    /// It failed.
    Failed,
    /// Its command was cancelled. The invocation that answers the hook records the failure.
    Cancelled,
}

/// Returns the answer to the terminate hook, or `None` if the instance keeps waiting.
pub fn answer(backup: FinalBackup, retains_on_abandon: bool) -> Option<LifecycleResult> {
    match backup {
        FinalBackup::Postponed => None,
        // The disk holds the data that was not saved. If the group does not keep the disk, waiting saves nothing.
        FinalBackup::Failed | FinalBackup::Cancelled if retains_on_abandon => {
            Some(LifecycleResult::Abandon)
        }
        FinalBackup::Committed
        | FinalBackup::NothingToSave
        | FinalBackup::Failed
        | FinalBackup::Cancelled => Some(LifecycleResult::Continue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_hook_keeps_the_data() {
        use LifecycleResult::{Abandon, Continue};
        let table = [
            (FinalBackup::Committed, Some(Continue), Some(Continue)),
            (FinalBackup::NothingToSave, Some(Continue), Some(Continue)),
            (FinalBackup::Postponed, None, None),
            (FinalBackup::Failed, Some(Abandon), Some(Continue)),
        ];
        for (backup, retaining, plain) in table {
            assert_eq!(
                (answer(backup, true), answer(backup, false)),
                (retaining, plain),
                "{backup:?}"
            );
        }
    }
}
