//! The breaker of a group over time, with random events in random order.

use proptest::prelude::*;

use super::*;

/// A group in AWS, to which the decisions are applied as `breaker` and `requests` do it.
#[derive(Debug)]
struct Life {
    now: OffsetDateTime,
    breaker: Option<Breaker>,
    suspended: bool,
    /// Whether an operator made the current suspension.
    by_operator: bool,
    launches: Vec<Launch>,
    instances: u32,
    /// The number of failed launches since the last success or the last request to resume.
    in_row: u32,
    on_trial: bool,
}

/// An event in the life of a group.
#[derive(Debug, Clone)]
enum Event {
    /// A launch fails. If it trips the breaker, the function may be cut off after this number of steps.
    Fails {
        permanent: bool,
        cut_off_after: Option<usize>,
    },
    /// A launch succeeds.
    Succeeds,
    /// Time passes, with a sweep each minute.
    Passes { minutes: u32 },
    /// An operator suspends the launches in Auto Scaling.
    Suspends,
    /// An operator resumes the launches in Auto Scaling.
    ResumesByHand,
    /// An operator sends the request `resume`.
    Requests,
}

fn event() -> impl Strategy<Value = Event> {
    let fails =
        (any::<bool>(), prop::option::of(0_usize..2)).prop_map(|(permanent, cut)| Event::Fails {
            permanent,
            cut_off_after: cut,
        });
    prop_oneof![
        6 => fails,
        1 => Just(Event::Succeeds),
        6 => (0_u32..300).prop_map(|minutes| Event::Passes { minutes }),
        1 => Just(Event::Suspends),
        1 => Just(Event::ResumesByHand),
        1 => Just(Event::Requests),
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
        // Cut off once at most: the instance still waits, and the next pass over it continues.
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

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Fails {
                permanent,
                cut_off_after,
            } => self.fail(*permanent, *cut_off_after),
            Event::Succeeds => self.succeed(),
            Event::Passes { minutes } => {
                // There is a sweep each minute.
                for _ in 0..*minutes {
                    self.now += MINUTE;
                    self.sweep();
                }
            }
            Event::Suspends => {
                // Before the next sweep has recorded that somebody resumed the launches, a new suspension would count
                // as Rekindle's. So let that sweep happen first.
                self.wait_for_sweep();
                self.by_operator |= !self.suspended;
                self.suspended = true;
            }
            Event::ResumesByHand => {
                self.on_trial |= self.suspended && !self.by_operator;
                (self.suspended, self.by_operator) = (false, false);
            }
            Event::Requests => {
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

    fn wait_for_sweep(&mut self) {
        self.now += budget::seconds(budget::SUSPENSION_DELAY);
        self.sweep();
    }
}

proptest! {
    /// Repeated failures stop the launches. An operator's suspension stays until the operator ends it. Rekindle's own
    /// suspension ends by itself within the longest wait.
    #[test]
    fn a_group_neither_launches_without_end_nor_stays_suspended(events in prop::collection::vec(event(), 0..60)) {
        let mut life = Life::begin();
        for event in &events {
            life.apply(event);
        }
        let minutes = budget::BREAKER_LONGEST_WAIT / 60;
        life.apply(&Event::Passes { minutes });
        prop_assert_eq!(life.suspended, life.by_operator, "{:?}", life);
    }
}
