//! Protected groups, their nodes, and the application of each. Only a group's tag names the application.

use shared::aws::autoscaling::{self, Group, Member};
use shared::function::context::Context;
use shared::id::{ApplicationName, InstanceId, Subject};
use shared::{Error, Result};

/// A node of a protected group, or an instance that was one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    /// The group, or the one that the instance has left.
    pub(crate) group: &'a Group,
    /// The application of the group.
    pub(crate) application: &'a ApplicationName,
    /// The instance.
    pub(crate) instance: &'a InstanceId,
}

impl<'a> Node<'a> {
    /// Returns the node's ids for the log.
    pub(crate) fn subject(self) -> Subject<'a> {
        Subject {
            application: Some(self.application),
            group: Some(&self.group.name),
            instance_id: Some(self.instance),
            ..Subject::default()
        }
    }
}

/// A group with an application.
#[derive(Debug)]
pub(crate) struct ProtectedGroup {
    group: Group,
    application: ApplicationName,
}

impl ProtectedGroup {
    /// Returns an instance as a node of this group.
    pub(crate) fn node<'a>(&'a self, instance: &'a InstanceId) -> Node<'a> {
        Node {
            group: &self.group,
            application: &self.application,
            instance,
        }
    }
}

/// Returns the protected group with this name.
pub(crate) async fn named(context: &Context, name: &str) -> Result<ProtectedGroup> {
    let group = autoscaling::group(&context.aws.autoscaling, name).await?;
    let group =
        group.ok_or_else(|| Error::Refused(format!("there is no Auto Scaling group {name:?}")))?;
    let application = group.application()?.ok_or_else(|| {
        let tag = autoscaling::APPLICATION_TAG;
        Error::Refused(format!(
            "the group {name:?} is not protected: it has no tag {tag}"
        ))
    })?;
    Ok(ProtectedGroup { group, application })
}

/// Returns the protected group of an instance. If the instance has left its group, returns the group that launched it.
pub(crate) async fn of_instance(
    context: &Context,
    instance: &InstanceId,
) -> Result<ProtectedGroup> {
    match autoscaling::membership(&context.aws.autoscaling, instance).await? {
        Some((name, _)) => named(context, &name).await,
        None => that_launched(context, instance).await,
    }
}

/// Returns the protected group that launched an instance. A backup that was complete before its node was lost is still
/// the newest of its application.
async fn that_launched(context: &Context, instance: &InstanceId) -> Result<ProtectedGroup> {
    let client = &context.aws.autoscaling;
    for group in autoscaling::protected_groups(client).await? {
        let launched = autoscaling::launched_at(client, &group.name, instance).await?;
        if launched.is_some()
            && let Some(application) = group.application()?
        {
            return Ok(ProtectedGroup { group, application });
        }
    }
    Err(Error::Refused(format!(
        "{instance} is in no Auto Scaling group, and no protected group recorded its launch, so its application is \
         unknown: its backup stays uncommitted; if it is needed, restore its objects below backups/ by hand"
    )))
}

/// A member of a group with a valid application tag.
#[derive(Debug, Clone)]
pub(crate) struct ProtectedMember<'a> {
    group: &'a Group,
    application: ApplicationName,
    member: &'a Member,
}

impl ProtectedMember<'_> {
    /// Returns the member as a node.
    pub(crate) fn node(&self) -> Node<'_> {
        Node {
            group: self.group,
            application: &self.application,
            instance: &self.member.instance_id,
        }
    }

    /// Returns whether the member waits in its terminate hook.
    pub(crate) fn waits_in_terminate_hook(&self) -> bool {
        self.member.state.is_in_terminate_hook()
    }
}

/// Returns every member of every group with a valid application tag.
pub(crate) fn protected_members(groups: &[Group]) -> Vec<ProtectedMember<'_>> {
    let mut members = Vec::new();
    for group in groups {
        if let Some(application) = group.valid_application() {
            members.extend(group.members.iter().map(|member| ProtectedMember {
                group,
                application: application.clone(),
                member,
            }));
        }
    }
    members
}
