//! What Auto Scaling knows: groups, their members, hooks and activities.

use std::collections::BTreeMap;
use std::fmt;

use time::OffsetDateTime;

use crate::standin::fault::{ApiError, ApiResult};

/// What Auto Scaling does by itself and an operator may suspend.
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
    /// The processes that are suspended, and since when.
    pub(crate) suspended: BTreeMap<String, OffsetDateTime>,
    pub(crate) retain_on_abandon: bool,
    pub(crate) members: Vec<Member>,
    pub(crate) activities: Vec<Activity>,
    /// Launches in a row whose hook was abandoned.
    pub(crate) failed_launches: u32,
    /// No launch before this moment.
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

/// The two transitions that a hook may hold up.
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

/// How a hook is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookResult {
    /// Go on.
    Continue,
    /// Give the instance up.
    Abandon,
}

impl HookResult {
    /// Returns AWS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }

    /// Reads AWS's word.
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
    /// Which transition it holds up.
    pub transition: Transition,
    /// AWS's seconds until the default result; a heartbeat starts them anew.
    pub heartbeat_timeout: u32,
    /// The result when nobody answers; AWS's default is ABANDON.
    pub default_result: HookResult,
    /// Text that the events carry.
    pub metadata: Option<String>,
}

impl Hook {
    /// AWS's seconds after which heartbeats no longer help.
    pub fn global_timeout(&self) -> u32 {
        self.heartbeat_timeout.saturating_mul(100).min(172_800)
    }
}

/// Where a member is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// EC2 is starting it.
    Pending,
    /// A launch hook holds it.
    PendingWait,
    /// The launch hooks are answered.
    PendingProceed,
    /// It serves.
    InService,
    /// The load balancer drains it.
    Terminating,
    /// A terminate hook holds it.
    TerminatingWait,
    /// The terminate hooks are answered.
    TerminatingProceed,
    /// A terminate hook was abandoned, and the group keeps such instances.
    TerminatingRetained,
}

impl Lifecycle {
    /// Tells whether the member counts towards the desired capacity.
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

/// One hook that holds a member.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    pub(crate) hook: Hook,
    pub(crate) token: String,
    pub(crate) deadline: OffsetDateTime,
    pub(crate) global_deadline: OffsetDateTime,
    pub(crate) result: Option<(HookResult, &'static str)>,
}

/// An instance of a group.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) state: Lifecycle,
    pub(crate) healthy: bool,
    /// Whether the machine has power: a health check finds a dead one.
    pub(crate) running: bool,
    /// When the present state ends by itself, where it does.
    pub(crate) due: Option<OffsetDateTime>,
    pub(crate) health_check_at: Option<OffsetDateTime>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) served: bool,
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

    pub(crate) fn hooks_of(&self, transition: Transition) -> Vec<Hook> {
        let hooks = self.hooks.iter();
        hooks
            .filter(|hook| hook.transition == transition)
            .cloned()
            .collect()
    }

    pub(crate) fn activity(&mut self, id: &str) -> Option<&mut Activity> {
        self.activities
            .iter_mut()
            .find(|activity| activity.id == id)
    }
}

/// All groups, by name.
pub(crate) type ByName = BTreeMap<String, Group>;
