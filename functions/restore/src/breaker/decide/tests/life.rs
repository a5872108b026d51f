//! The breaker through whole lives of a group: whatever happens, and in whatever order.

use proptest::prelude::*;

use super::*;

/// A group as AWS has it, driven by the rules as `circuit` and `request` drive it.
#[derive(Debug)]
struct Life {
    now: OffsetDateTime,
    breaker: Option<Breaker>,
    suspended: bool,
    /// Whether the suspension that stands is an operator's.
    by_operator: bool,
    launches: Vec<Launch>,
    instances: u32,
    /// Launches that failed since the last success, resumption or suspension that let the group start anew.
    in_row: u32,
    on_trial: bool,
}

/// What happens to it.
#[derive(Debug, Clone)]
enum Happening {
    /// A launch fails; the function is cut off after so many of the steps at a trip.
    Fails {
        permanent: bool,
        cut_off_after: Option<usize>,
    },
    /// A launch succeeds.
    Succeeds,
    /// Time passes, and a sweep comes.
    Passes {
        minutes: u32,
    },
    /// The operator suspends or resumes launches behind Rekindle's back, or asks it to resume.
    Suspends,
    ResumesByHand,
    Asks,
}

fn happening() -> impl Strategy<Value = Happening> {
    let fails = (any::<bool>(), prop::option::of(0_usize..2)).prop_map(|(permanent, cut)| {
        Happening::Fails {
            permanent,
            cut_off_after: cut,
        }
    });
    prop_oneof![
        6 => fails,
        1 => Just(Happening::Succeeds),
        6 => (0_u32..300).prop_map(|minutes| Happening::Passes { minutes }),
        1 => Just(Happening::Suspends),
        1 => Just(Happening::ResumesByHand),
        1 => Just(Happening::Asks),
    ]
}

impl Life {
    fn begin() -> Self {
        Self {
            now: NOW,
            breaker: None,
            suspended: false,
            by_operator: false,
            launches: vec![],
            instances: 0,
            in_row: 0,
            on_trial: false,
        }
    }

    fn launch(&mut self) -> Option<InstanceId> {
        if self.suspended {
            return None;
        }
        self.instances += 1;
        self.now += MINUTE;
        Some(instance(self.instances))
    }

    fn record(&mut self, instance_id: InstanceId, end: LaunchEnd) {
        let launch = Launch {
            instance_id: Some(instance_id),
            started_at: self.now,
            end,
        };
        self.launches.insert(0, launch);
        self.now += MINUTE;
    }

    fn resume(&mut self) {
        assert!(
            !self.by_operator,
            "an operator's suspension was resumed: {self:?}"
        );
        self.suspended = false;
    }

    fn fail(&mut self, permanent: bool, cut_off_after: Option<usize>) {
        let Some(instance_id) = self.launch() else {
            return;
        };
        self.in_row += 1;
        let must_trip = permanent || self.in_row >= MOST_FAILURES || self.on_trial;
        // Cut off once at the most: the next pass over the instance, which still waits, goes on.
        for cut_off_after in [cut_off_after, None] {
            let decision = on_failure(&FailedLaunch {
                now: self.now,
                instance_id: instance_id.clone(),
                permanent,
                launches: self.launches.clone(),
                suspended: self.suspended,
                breaker: self.breaker.clone(),
            });
            if cut_off_after == Some(0) {
                continue;
            }
            match decision {
                OnFailure::Trip { breaker, .. } => {
                    self.breaker = Some(breaker);
                    if cut_off_after == Some(1) {
                        continue;
                    }
                    self.suspended = true;
                }
                OnFailure::Relaunch { .. }
                | OnFailure::AlreadyTripped
                | OnFailure::SuspendedBySomebodyElse => {}
            }
        }
        assert_eq!(self.suspended, must_trip, "{self:?}");
        self.record(instance_id, LaunchEnd::Failed);
    }

    fn succeed(&mut self) {
        let Some(instance_id) = self.launch() else {
            return;
        };
        if let OnSuccess::Close { resume, breaker } = on_success(self.breaker.as_ref(), self.now) {
            if resume {
                self.resume();
            }
            self.breaker = Some(breaker);
        }
        self.record(instance_id, LaunchEnd::Successful);
        (self.in_row, self.on_trial) = (0, false);
    }

    fn sweep(&mut self) {
        let watched = WatchedGroup {
            now: self.now,
            waiting: vec![],
            suspended: self.suspended,
            breaker: self.breaker.clone(),
        };
        match on_sweep(&watched) {
            OnSweep::Nothing => {}
            OnSweep::HalfOpen(breaker) => {
                self.resume();
                self.breaker = Some(breaker);
                self.on_trial = true;
            }
            OnSweep::RecordResumed(breaker) => self.breaker = Some(breaker),
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Fails {
                permanent,
                cut_off_after,
            } => self.fail(*permanent, *cut_off_after),
            Happening::Succeeds => self.succeed(),
            Happening::Passes { minutes } => {
                // A sweep comes each minute.
                for _ in 0..*minutes {
                    self.now += MINUTE;
                    self.sweep();
                }
            }
            Happening::Suspends => {
                // Where launches are suspended, one cannot suspend them; where the hand was quicker than the sweep
                // that would have noted it, the record is in the way.
                self.settle();
                self.by_operator |= !self.suspended;
                self.suspended = true;
            }
            Happening::ResumesByHand => {
                self.on_trial |= self.suspended && !self.by_operator;
                (self.suspended, self.by_operator) = (false, false);
            }
            Happening::Asks => {
                match on_resume(self.breaker.as_ref(), self.suspended, self.now) {
                    OnResume::Resume(breaker) => {
                        self.resume();
                        self.breaker = Some(breaker);
                    }
                    OnResume::Close { breaker, .. }
                    | OnResume::SuspendedBySomebodyElse(Some(breaker)) => {
                        self.breaker = Some(breaker);
                    }
                    OnResume::NothingToDo | OnResume::SuspendedBySomebodyElse(None) => return,
                }
                (self.in_row, self.on_trial) = (0, false);
            }
        }
    }

    fn settle(&mut self) {
        self.now += budget::seconds(budget::BREAKER_SETTLE);
        self.sweep();
    }
}

proptest! {
    /// Whatever happens in whatever order: failures that repeat stop, an operator's suspension stays until the operator
    /// ends it, and Rekindle's own ends by itself within the longest wait.
    #[test]
    fn a_group_neither_relaunches_for_ever_nor_stays_stopped(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut life = Life::begin();
        for happening in &happenings {
            life.happen(happening);
        }
        let minutes = budget::BREAKER_LONGEST_WAIT / 60;
        life.happen(&Happening::Passes { minutes });
        prop_assert_eq!(life.suspended, life.by_operator, "{:?}", life);
    }
}
