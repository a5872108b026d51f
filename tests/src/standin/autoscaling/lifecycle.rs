//! The lifecycle of one instance: its transitions after a time or after answers to hooks.
//!
//! It does no I/O: `now` is an argument, and the effects outside of Auto Scaling are returned as [`Effect`]s.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::events;
use super::model::{Group, HookResult, Lifecycle, Member, Transition, Wait};
use crate::standin::clock::Clock;

/// An effect outside of Auto Scaling after a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start a machine for an instance of a group.
    Boot {
        /// The group.
        group: String,
        /// The instance.
        instance: String,
    },
    /// Cut the machine's power and erase its disk.
    Discard {
        /// The instance.
        instance: String,
    },
    /// Send an event.
    Emit(Value),
}

/// The times of Auto Scaling's own steps, in seconds of AWS's time.
#[derive(Debug, Clone)]
pub struct Pace {
    /// From the launch until the machine runs.
    pub boot: f64,
    /// From the answer to a hook until the next state.
    pub proceed: f64,
    /// The load balancer's deregistration delay.
    pub drain: f64,
    /// Between two health checks.
    pub health_check: f64,
    /// The wait after the first abandoned launch. It doubles with each further one.
    pub back_off: f64,
    /// The longest of these waits.
    pub max_back_off: f64,
    /// The region.
    pub region: String,
    /// The speed of time.
    pub clock: Clock,
}

impl Pace {
    /// Returns the times of AWS.
    pub fn new(region: &str, clock: Clock) -> Self {
        Self {
            boot: 20.0,
            proceed: 5.0,
            drain: 30.0,
            health_check: 15.0,
            back_off: 15.0,
            max_back_off: 300.0,
            region: region.to_owned(),
            clock,
        }
    }
}

/// Advances an instance by the step that is due at `now`. Returns `false` if it has left the group.
pub(super) fn step(
    group: &mut Group,
    member: &mut Member,
    pace: &Pace,
    now: OffsetDateTime,
    effects: &mut Vec<Effect>,
) -> bool {
    let due = member.due.is_some_and(|due| due <= now);
    match member.state {
        Lifecycle::Pending if due => {
            if !enter_hooks(group, member, Transition::Launching, pace, now, effects) {
                proceed(member, Lifecycle::PendingProceed, pace, now);
            }
        }
        Lifecycle::PendingWait => match hook_result(member, now) {
            Some((HookResult::Continue, _)) => {
                group.failed_launches = 0;
                progress(group, member, "InProgress", 60);
                proceed(member, Lifecycle::PendingProceed, pace, now);
            }
            Some((HookResult::Abandon, reason)) => {
                abandon_launch(group, member, &reason, pace, now, effects);
            }
            None => {}
        },
        Lifecycle::PendingProceed if due => {
            member.state = Lifecycle::InService;
            member.served = true;
            member.due = None;
            finish(group, member, "Successful", None, pace, now, effects);
        }
        Lifecycle::Terminating if due => {
            if !enter_hooks(group, member, Transition::Terminating, pace, now, effects) {
                proceed(member, Lifecycle::TerminatingProceed, pace, now);
            }
        }
        Lifecycle::TerminatingWait => match hook_result(member, now) {
            Some((HookResult::Abandon, _)) if group.retain_on_abandon => {
                member.state = Lifecycle::TerminatingRetained;
                member.due = None;
            }
            Some(_) => {
                progress(group, member, "InProgress", 80);
                proceed(member, Lifecycle::TerminatingProceed, pace, now);
            }
            None => {}
        },
        Lifecycle::TerminatingProceed if due => {
            effects.push(Effect::Discard {
                instance: member.id.clone(),
            });
            finish(group, member, "Successful", None, pace, now, effects);
            return false;
        }
        Lifecycle::Pending
        | Lifecycle::PendingProceed
        | Lifecycle::InService
        | Lifecycle::Terminating
        | Lifecycle::TerminatingProceed
        | Lifecycle::TerminatingRetained => {}
    }
    true
}

/// Starts to terminate an instance in any state, and records the activity.
pub(super) fn terminate(
    group: &mut Group,
    member: &mut Member,
    cause: &str,
    pace: &Pace,
    now: OffsetDateTime,
) {
    // The launch is cancelled, but its hook did not fail.
    if let Some(activity) = group.activity(&member.activity)
        && activity.ended.is_none()
    {
        activity.status = "Cancelled";
        activity.ended = Some(now);
    }
    let description = format!("Terminating EC2 instance: {}", member.id);
    member.activity = super::model::record_activity(group, &member.id, &description, cause, now);
    member.state = Lifecycle::Terminating;
    member.waits.clear();
    // Only an instance that was in service has connections of a load balancer to drain.
    let drain = if member.served { pace.drain } else { 0.0 };
    member.due = Some(pace.clock.after(now, drain));
}

/// Moves the instance to the wait state of a transition and sends the event of each hook. Returns `false` if there are
/// no hooks.
fn enter_hooks(
    group: &mut Group,
    member: &mut Member,
    transition: Transition,
    pace: &Pace,
    now: OffsetDateTime,
    effects: &mut Vec<Effect>,
) -> bool {
    let hooks = group.hooks_of(transition);
    if hooks.is_empty() {
        return false;
    }
    member.state = match transition {
        Transition::Launching => Lifecycle::PendingWait,
        Transition::Terminating => Lifecycle::TerminatingWait,
    };
    member.due = None;
    progress(group, member, "MidLifecycleAction", 50);
    member.waits.clear();
    for hook in hooks {
        let token = Uuid::new_v4().to_string();
        effects.push(Effect::Emit(events::lifecycle_action(
            group,
            &member.id,
            &hook,
            &token,
            &pace.region,
        )));
        member.waits.push(Wait {
            token,
            deadline: pace.clock.after(now, f64::from(hook.heartbeat_timeout)),
            global_deadline: pace.clock.after(now, f64::from(hook.global_timeout())),
            result: None,
            hook,
        });
    }
    true
}

/// Returns the result of the hooks and its reason, or `None` if a hook is not answered yet. One ABANDON decides at once.
fn hook_result(member: &mut Member, now: OffsetDateTime) -> Option<(HookResult, String)> {
    for wait in &mut member.waits {
        let expired = wait.deadline.min(wait.global_deadline) <= now;
        if wait.result.is_none() && expired {
            wait.result = Some((wait.hook.default_result, "Heartbeat Timeout"));
        }
    }
    let mut results = member.waits.iter().filter_map(|wait| {
        let (result, reason) = wait.result?;
        Some((wait, result, reason))
    });
    let abandoned = results.find(|(_, result, _)| *result == HookResult::Abandon);
    let result = match abandoned {
        Some((wait, result, reason)) => Some((
            result,
            format!(
                "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token {} was \
                 abandoned: {reason}",
                wait.token
            ),
        )),
        None if member.waits.iter().all(|wait| wait.result.is_some()) => {
            Some((HookResult::Continue, String::new()))
        }
        None => None,
    };
    if result.is_some() {
        member.waits.clear();
    }
    result
}

/// Cancels a launch, starts to terminate the instance, and delays the next launch.
fn abandon_launch(
    group: &mut Group,
    member: &mut Member,
    reason: &str,
    pace: &Pace,
    now: OffsetDateTime,
    effects: &mut Vec<Effect>,
) {
    let exponent = i32::try_from(group.failed_launches.min(20)).unwrap_or(20);
    let wait = (pace.back_off * 2f64.powi(exponent)).min(pace.max_back_off);
    group.failed_launches += 1;
    group.back_off = Some(pace.clock.after(now, wait));
    if let Some(activity) = group.activity(&member.activity) {
        activity.description = format!("{}.  Status Reason: {reason}", activity.description);
    }
    finish(group, member, "Cancelled", Some(reason), pace, now, effects);
    let cause = format!(
        "At {} an instance was taken out of service in response to a launch that was abandoned.",
        crate::standin::clock::whole_seconds(now)
    );
    terminate(group, member, &cause, pace, now);
}

/// Moves an instance to a state that ends by itself.
fn proceed(member: &mut Member, state: Lifecycle, pace: &Pace, now: OffsetDateTime) {
    member.state = state;
    member.due = Some(pace.clock.after(now, pace.proceed));
}

/// Updates the running activity.
fn progress(group: &mut Group, member: &Member, status: &'static str, percent: u8) {
    if let Some(activity) = group.activity(&member.activity) {
        activity.status = status;
        activity.progress = percent;
    }
}

/// Ends the running activity and sends its event.
fn finish(
    group: &mut Group,
    member: &Member,
    status: &'static str,
    message: Option<&str>,
    pace: &Pace,
    now: OffsetDateTime,
    effects: &mut Vec<Effect>,
) {
    let Some(activity) = group.activity(&member.activity) else {
        return;
    };
    activity.status = status;
    activity.message = message.map(str::to_owned);
    activity.ended = Some(now);
    activity.progress = 100;
    let activity = activity.clone();
    let detail_type = match (activity.description.starts_with("Launching"), status) {
        (true, "Successful") => "EC2 Instance Launch Successful",
        (true, _) => "EC2 Instance Launch Unsuccessful",
        (false, "Successful") => "EC2 Instance Terminate Successful",
        (false, _) => "EC2 Instance Terminate Unsuccessful",
    };
    effects.push(Effect::Emit(events::activity(
        group,
        &activity,
        detail_type,
        &pace.region,
        now,
    )));
}
