//! The rules that decide whether a backup of a group starts.

#[cfg(test)]
mod tests;

use std::fmt;

use shared::aws::ssm::Ping;
use shared::id::{ApplicationName, CommandId, InstanceId};

/// The facts about one group on which the start of a backup depends.
#[derive(Debug, Clone)]
pub struct StartFacts {
    /// The group's application, or the defect of its tag.
    pub application: Result<ApplicationName, String>,
    /// All groups with this application, if there is more than one.
    pub rivals: Vec<String>,
    /// The members in service.
    pub in_service: Vec<InstanceId>,
    /// The ping of the only member in service, `None` if its SSM agent is not registered.
    pub ping: Option<Ping>,
    /// A Rekindle command that is executing there.
    pub executing: Option<CommandId>,
    /// A command that requested the same backup before.
    pub requested: Option<CommandId>,
}

/// Whether a backup of a group starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Send the command to this node.
    Start(Target),
    /// Start no backup this time.
    Skip(Skip),
}

/// The node that a backup is requested from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The application.
    pub application: ApplicationName,
    /// The instance.
    pub instance: InstanceId,
}

/// The reason why no backup of a group starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// The tag names no application.
    MalformedTag(String),
    /// Two groups would write the backups of one application.
    ApplicationClaimedTwice(Vec<String>),
    /// No instance serves: a replacement is launching.
    NoInstanceInService,
    /// Several instances serve: it is unknown which one has the current data.
    SeveralInService(Vec<InstanceId>),
    /// This event was delivered before.
    AlreadyRequested(CommandId),
    /// A backup or a restore is running there.
    CommandExecuting(CommandId),
    /// SSM does not know the instance.
    AgentNotRegistered(InstanceId),
    /// SSM knows the instance, but its agent does not answer.
    AgentConnectionLost(InstanceId),
}

impl Skip {
    /// Returns whether an operator has to change something. Other reasons may be gone at the next tick.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::MalformedTag(_) | Self::ApplicationClaimedTwice(_) | Self::SeveralInService(_)
        )
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MalformedTag(problem) => f.write_str(problem),
            Self::ApplicationClaimedTwice(groups) => write!(
                f,
                "the groups {} have the same application tag; give each its own",
                groups.join(", ")
            ),
            Self::NoInstanceInService => f.write_str("no instance is InService"),
            Self::SeveralInService(instances) => {
                let names: Vec<&str> = instances.iter().map(InstanceId::as_str).collect();
                write!(
                    f,
                    "{} are all InService; set the group's maximum size to 1",
                    names.join(", ")
                )
            }
            Self::AlreadyRequested(command) => {
                write!(f, "the command {command} already requested this backup")
            }
            Self::CommandExecuting(command) => write!(f, "the command {command} is executing"),
            Self::AgentNotRegistered(instance) => write!(
                f,
                "the SSM agent of {instance} is not registered; check the agent, its role and its network"
            ),
            Self::AgentConnectionLost(instance) => write!(
                f,
                "the SSM agent of {instance} does not answer; check the instance and its network"
            ),
        }
    }
}

impl Skip {
    /// Returns the reason to skip an instance whose agent has this ping, or `None` if the agent answers.
    pub(super) fn of_ping(ping: Option<Ping>, instance: &InstanceId) -> Option<Self> {
        match ping {
            Some(Ping::Online) => None,
            Some(Ping::ConnectionLost) => Some(Self::AgentConnectionLost(instance.clone())),
            None => Some(Self::AgentNotRegistered(instance.clone())),
        }
    }
}

/// Decides whether a backup of one group starts.
pub fn on_start(facts: &StartFacts) -> Start {
    let application = match &facts.application {
        Ok(application) => application.clone(),
        Err(problem) => return Start::Skip(Skip::MalformedTag(problem.clone())),
    };
    if !facts.rivals.is_empty() {
        return Start::Skip(Skip::ApplicationClaimedTwice(facts.rivals.clone()));
    }
    let instance = match facts.in_service.as_slice() {
        [] => return Start::Skip(Skip::NoInstanceInService),
        [instance] => instance.clone(),
        several => return Start::Skip(Skip::SeveralInService(several.to_vec())),
    };
    if let Some(command) = &facts.requested {
        return Start::Skip(Skip::AlreadyRequested(command.clone()));
    }
    if let Some(command) = &facts.executing {
        return Start::Skip(Skip::CommandExecuting(command.clone()));
    }
    match Skip::of_ping(facts.ping, &instance) {
        Some(skip) => Start::Skip(skip),
        None => Start::Start(Target {
            application,
            instance,
        }),
    }
}
