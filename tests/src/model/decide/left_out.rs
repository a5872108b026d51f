//! The shipped decisions that the model leaves out on purpose, each with the reason.
//!
//! The functions exist for their `match`: a new variant of a decision does not compile until its reason is here or the
//! model handles it.

use backup::hook::decide::FinalBackup;
use restore::breaker::decide::OnResume;
use restore::in_place::decide::InPlaceDecision;

/// Returns why the model leaves out a decision about an in-place restore.
pub fn in_place(decision: &InPlaceDecision) -> &'static str {
    match decision {
        InPlaceDecision::Wait | InPlaceDecision::Send | InPlaceDecision::Over => {
            "an in-place restore has no hook and no successor, and its backup is committed first; end-to-end tests cover it"
        }
    }
}

/// Returns why the model leaves out a decision about an operator's `resume`.
pub fn on_resume(decision: &OnResume) -> &'static str {
    match decision {
        OnResume::Resume(_)
        | OnResume::Close { .. }
        | OnResume::NothingToDo
        | OnResume::SuspendedBySomebodyElse(_) => {
            "an operator may resume launches at any time and any number of times, so that no bound on launches can hold"
        }
    }
}

/// Returns why the model leaves out a result of a final backup, or `None` if the model has it.
pub fn final_backup(result: FinalBackup) -> Option<&'static str> {
    match result {
        FinalBackup::Committed
        | FinalBackup::NothingToSave
        | FinalBackup::Failed
        | FinalBackup::Cancelled => None,
        FinalBackup::Postponed => {
            Some("it leaves the hook unanswered: the model makes no call instead")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decision_that_is_left_out_has_a_reason() {
        assert!(in_place(&InPlaceDecision::Send).contains("in-place restore"));
        assert!(on_resume(&OnResume::NothingToDo).contains("operator"));
        assert!(final_backup(FinalBackup::Postponed).is_some());
        assert_eq!(final_backup(FinalBackup::Committed), None);
    }
}
