//! The timing budget: all time limits in seconds, and the rules between them.
//!
//! template.yaml is the only other place with these numbers; a test compares both.
//! In SSM, `TimeoutSeconds` limits the delivery only. If the SSM agent dies, its command stays `InProgress` until
//! `TimeoutSeconds + executionTimeout` have passed.

use std::time::Duration;

/// Seconds between two scheduled backups: the template's default.
pub const SCHEDULE: u32 = 900;
/// Seconds between two sweeps.
pub const SWEEP: u32 = 60;
/// `Timeout` of both functions: the longest that Lambda allows.
pub const LAMBDA: u32 = 900;
/// The load balancer's deregistration delay: an instance drains for this time before its terminate hook.
pub const DEREGISTRATION_DELAY: u32 = 30;

/// `TimeoutSeconds` of every command: how long the SSM agent may take to accept it.
pub const DELIVERY: u32 = 30;
/// `executionTimeout` of a scheduled, manual or adopting backup.
pub const BACKUP_EXECUTION: u32 = 780;
/// `executionTimeout` of a final backup.
pub const FINAL_EXECUTION: u32 = 900;
/// `executionTimeout` of a restore, including its fallbacks.
pub const RESTORE_EXECUTION: u32 = 5_100;

/// How long a launching instance may take to register with SSM, including cloud-init.
pub const SSM_READY: u32 = 600;
/// The fence: how long a restore waits for a terminating predecessor's final backup.
pub const FENCE: u32 = 1_080;
/// How long the agent waits for cloud-init at the start of a restore.
pub const CLOUD_INIT: u32 = 300;
/// The default of the node's setting `stall_limit_seconds`: after this time without progress, the agent ends itself.
pub const STALL: u32 = 600;

/// `HeartbeatTimeout` of the launch hook.
pub const LAUNCH_HEARTBEAT: u32 = 1_800;
/// `HeartbeatTimeout` of the terminate hook.
pub const TERMINATE_HEARTBEAT: u32 = 1_200;
/// How long after its launch an instance is kept in its hook by heartbeats, at most.
pub const HARD_CAP: u32 = 7_200;

/// `MaximumEventAgeInSeconds` of the backup function: after this time, the next tick backs up.
pub const BACKUP_EVENT_AGE: u32 = 600;
/// `MaximumEventAgeInSeconds` of the restore function.
pub const RESTORE_EVENT_AGE: u32 = 900;
/// How long after its command was requested a backup may be committed. A late duplicate of an event must not commit a
/// backup again that retention has deleted.
pub const COMMIT_WINDOW: u32 = 7_200;

/// How long launches stay suspended after the breaker tripped for the first time; each further trip doubles it. After
/// this time, a short outage is over, and Lambda no longer retries the launch's own events.
pub const BREAKER_FIRST_WAIT: u32 = 900;
/// The longest such suspension: Rekindle tries a launch at least six times a day.
pub const BREAKER_LONGEST_WAIT: u32 = 14_400;
/// How long after its launch a failed instance waits in its hook for the breaker's calls to succeed. After this time it
/// is abandoned without the breaker, so that its hook does not expire.
pub const BREAKER_PATIENCE: u32 = 1_680;
/// How long after the breaker's record was written the suspension of launches may still take effect. Each of the two
/// calls takes at most a minute.
pub const SUSPENSION_DELAY: u32 = 120;

/// The margin for delays that are not measured: the delivery of an event, a cold start, a retry.
pub const MARGIN: u32 = 60;

/// The rules between the numbers, each with its reason. The left number must not exceed the right one.
pub const INEQUALITIES: &[(&str, u32, u32)] = &[
    (
        "a scheduled backup ends before the next one starts",
        DELIVERY + BACKUP_EXECUTION + MARGIN,
        SCHEDULE,
    ),
    (
        "a final backup fits into the terminate hook",
        DELIVERY + FINAL_EXECUTION + MARGIN,
        TERMINATE_HEARTBEAT,
    ),
    (
        "the fence outlasts a predecessor's draining and final backup",
        DEREGISTRATION_DELAY + DELIVERY + FINAL_EXECUTION + MARGIN,
        FENCE,
    ),
    (
        "waiting for SSM and for the fence needs no heartbeat",
        SSM_READY + FENCE + MARGIN,
        LAUNCH_HEARTBEAT,
    ),
    (
        "a retried invocation still finds the launch hook open",
        LAMBDA + 2 * MARGIN,
        LAUNCH_HEARTBEAT,
    ),
    (
        "a restore fits under the hard cap",
        SSM_READY + FENCE + DELIVERY + RESTORE_EXECUTION + MARGIN,
        HARD_CAP,
    ),
    (
        "an instance is abandoned without its breaker before its hook expires",
        BREAKER_PATIENCE + SWEEP + MARGIN,
        LAUNCH_HEARTBEAT,
    ),
    (
        "no event of a failed launch is retried when the next launch is tried",
        RESTORE_EVENT_AGE,
        BREAKER_FIRST_WAIT,
    ),
    (
        "the breaker's wait can double at least once",
        2 * BREAKER_FIRST_WAIT,
        BREAKER_LONGEST_WAIT,
    ),
    (
        "a suspension takes effect before its record counts as resumed",
        2 * SWEEP,
        SUSPENSION_DELAY,
    ),
    (
        "several sweeps can send a heartbeat before the launch hook expires",
        3 * SWEEP,
        LAUNCH_HEARTBEAT,
    ),
    (
        "a tick is dropped before the next one",
        BACKUP_EVENT_AGE,
        SCHEDULE,
    ),
    (
        "a launch event is dropped before its hook expires",
        RESTORE_EVENT_AGE + MARGIN,
        LAUNCH_HEARTBEAT,
    ),
    (
        "a finished backup can still be committed after a lost event",
        2 * SCHEDULE + BACKUP_EXECUTION,
        COMMIT_WINDOW,
    ),
    (
        "the agent ends a stalled backup before SSM does",
        STALL + MARGIN,
        BACKUP_EXECUTION,
    ),
    (
        "the agent ends a stalled restore before SSM does",
        CLOUD_INIT + STALL + MARGIN,
        RESTORE_EXECUTION,
    ),
];

/// Returns a number of this table, in seconds, as a duration.
pub fn seconds(number: u32) -> Duration {
    Duration::from_secs(u64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_obey_their_rules() {
        for (reason, left, right) in INEQUALITIES {
            assert!(left <= right, "{reason}: {left} s > {right} s");
        }
    }

    #[test]
    fn aws_accepts_the_numbers() {
        const { assert!(LAMBDA <= 900) };
        assert!(
            (30..=7200).contains(&LAUNCH_HEARTBEAT) && (30..=7200).contains(&TERMINATE_HEARTBEAT)
        );
        assert!((30..=2_592_000).contains(&DELIVERY));
        assert!(
            [BACKUP_EXECUTION, FINAL_EXECUTION, RESTORE_EXECUTION]
                .iter()
                .all(|t| (5..=172_800).contains(t))
        );
        assert!(
            (60..=21_600).contains(&BACKUP_EVENT_AGE) && (60..=21_600).contains(&RESTORE_EVENT_AGE)
        );
        // The hook's global timeout is the lower of 48 h and 100 heartbeats.
        const { assert!(HARD_CAP <= 100 * LAUNCH_HEARTBEAT && HARD_CAP <= 172_800) };
    }
}
