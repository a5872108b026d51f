//! The data of Auto Scaling: groups and their instances, hooks and activities.

use std::collections::BTreeMap;
use std::fmt;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::standin::fault::{ApiError, ApiResult};

/// The processes of Auto Scaling that an operator can suspend.
pub const PROCESSES: [&str; 9] = [
    "AddToLoadBalancer",
    "AlarmNotification",
    "AZRebalance",
    "HealthCheck",
    "InstanceRefresh",
    "Launch",
    "ReplaceUnhealthy",
    "ScheduledActions",
    "Terminate",
];

/// An Auto Scaling group.
#[derive(Debug, Clone)]
pub struct Group {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) desired: usize,
    pub(crate) zone: String,
    pub(crate) created: OffsetDateTime,
    pub(crate) tags: Vec<Tag>,
    pub(crate) hooks: Vec<Hook>,
    /// The suspended processes, with the time of the suspension.
    pub(crate) suspended: BTreeMap<String, OffsetDateTime>,
    pub(crate) retain_on_abandon: bool,
    pub(crate) members: Vec<Member>,
    pub(crate) activities: Vec<Activity>,
    /// The number of consecutive launches whose hook was abandoned.
    pub(crate) failed_launches: u32,
    /// There is no launch before this time.
    pub(crate) back_off: Option<OffsetDateTime>,
    pub(crate) deleting: bool,
}

/// A tag of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The tag's name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether instances get it at launch.
    pub propagate: bool,
}

/// The two transitions that a hook can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// `autoscaling:EC2_INSTANCE_LAUNCHING`.
    Launching,
    /// `autoscaling:EC2_INSTANCE_TERMINATING`.
    Terminating,
}

impl Transition {
    /// Returns AWS's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launching => "autoscaling:EC2_INSTANCE_LAUNCHING",
            Self::Terminating => "autoscaling:EC2_INSTANCE_TERMINATING",
        }
    }

    /// Reads AWS's name.
    pub fn parse(text: &str) -> ApiResult<Self> {
        [Self::Launching, Self::Terminating]
            .into_iter()
            .find(|transition| transition.as_str() == text)
            .ok_or_else(|| {
                ApiError::validation(format!(
                    "Invalid LifecycleTransition: {text}. Valid values are: \
                     [autoscaling:EC2_INSTANCE_LAUNCHING, autoscaling:EC2_INSTANCE_TERMINATING]"
                ))
            })
    }
}

/// The answer to a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookResult {
    /// The transition continues.
    Continue,
    /// The instance is abandoned.
    Abandon,
}

impl HookResult {
    /// Returns AWS's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }

    /// Reads AWS's name.
    pub fn parse(text: &str) -> ApiResult<Self> {
        [Self::Continue, Self::Abandon]
            .into_iter()
            .find(|result| result.as_str() == text)
            .ok_or_else(|| {
                ApiError::validation(format!(
                    "Invalid Lifecycle Action Result {text}: use CONTINUE or ABANDON"
                ))
            })
    }
}

/// A lifecycle hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// Its name, unique in the group.
    pub name: String,
    /// The transition that it holds.
    pub transition: Transition,
    /// The time until the default result, in seconds of AWS's time. A heartbeat restarts it.
    pub heartbeat_timeout: u32,
    /// The result if nobody answers. AWS's default is ABANDON.
    pub default_result: HookResult,
    /// Text for the events.
    pub metadata: Option<String>,
}

impl Hook {
    /// Returns the time after which heartbeats have no effect, in seconds of AWS's time.
    pub fn global_timeout(&self) -> u32 {
        self.heartbeat_timeout.saturating_mul(100).min(172_800)
    }
}

/// The lifecycle state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// EC2 is starting it.
    Pending,
    /// A launch hook holds it.
    PendingWait,
    /// The launch hooks are answered.
    PendingProceed,
    /// It is in service.
    InService,
    /// The load balancer drains it.
    Terminating,
    /// A terminate hook holds it.
    TerminatingWait,
    /// The terminate hooks are answered.
    TerminatingProceed,
    /// A terminate hook was abandoned, and the group retains such instances.
    TerminatingRetained,
}

impl Lifecycle {
    /// Returns whether the instance counts towards the desired capacity.
    pub fn counts(self) -> bool {
        matches!(
            self,
            Self::Pending | Self::PendingWait | Self::PendingProceed | Self::InService
        )
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "Pending",
            Self::PendingWait => "Pending:Wait",
            Self::PendingProceed => "Pending:Proceed",
            Self::InService => "InService",
            Self::Terminating => "Terminating",
            Self::TerminatingWait => "Terminating:Wait",
            Self::TerminatingProceed => "Terminating:Proceed",
            Self::TerminatingRetained => "Terminating:Retained",
        })
    }
}

/// One hook that holds an instance.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    pub(crate) hook: Hook,
    pub(crate) token: String,
    pub(crate) deadline: OffsetDateTime,
    pub(crate) global_deadline: OffsetDateTime,
    /// The result and its reason, or `None` if there is none yet.
    pub(crate) result: Option<(HookResult, &'static str)>,
}

/// An instance of a group.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) state: Lifecycle,
    pub(crate) healthy: bool,
    /// Whether the machine has power. A health check detects a machine without power.
    pub(crate) running: bool,
    /// When the state ends by itself, or `None` if it does not.
    pub(crate) due: Option<OffsetDateTime>,
    pub(crate) health_check_at: Option<OffsetDateTime>,
    pub(crate) waits: Vec<Wait>,
    /// Whether it was ever in service.
    pub(crate) served: bool,
    /// The id of its running or last activity.
    pub(crate) activity: String,
}

/// One entry of a group's history.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    pub(crate) id: String,
    pub(crate) instance: String,
    pub(crate) description: String,
    pub(crate) cause: String,
    pub(crate) started: OffsetDateTime,
    pub(crate) ended: Option<OffsetDateTime>,
    pub(crate) status: &'static str,
    pub(crate) message: Option<String>,
    pub(crate) progress: u8,
}

impl Group {
    /// Returns whether this process of Auto Scaling is suspended.
    pub(crate) fn is_suspended(&self, process: &str) -> bool {
        self.suspended.contains_key(process)
    }

    /// Returns the hooks of a transition.
    pub(crate) fn hooks_of(&self, transition: Transition) -> Vec<Hook> {
        let hooks = self.hooks.iter();
        hooks
            .filter(|hook| hook.transition == transition)
            .cloned()
            .collect()
    }

    /// Returns the activity with this id, or `None` if there is none.
    pub(crate) fn activity(&mut self, id: &str) -> Option<&mut Activity> {
        self.activities
            .iter_mut()
            .find(|activity| activity.id == id)
    }
}

/// All groups, by name.
pub(crate) type ByName = BTreeMap<String, Group>;

/// Adds a new activity to the group's history and returns its id.
pub(super) fn record_activity(
    group: &mut Group,
    instance: &str,
    description: &str,
    cause: &str,
    now: OffsetDateTime,
) -> String {
    let id = Uuid::new_v4().to_string();
    group.activities.push(Activity {
        id: id.clone(),
        instance: instance.to_owned(),
        description: description.to_owned(),
        cause: cause.to_owned(),
        started: now,
        ended: None,
        status: "InProgress",
        message: None,
        progress: 0,
    });
    id
}
