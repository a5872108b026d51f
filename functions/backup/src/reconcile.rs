//! Finishes backup commands that ended without effect: the event of their end was lost, or has not come yet.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use shared::Result;
use shared::aws::autoscaling::Group;
use shared::aws::ssm::{self, CommandRecord, InvocationStatus};
use shared::budget::{self, seconds};
use shared::command::{BackupCommand, Purpose};
use shared::function::answer::Handled;
use shared::function::context::Context;
use shared::function::failure::Failures;
use shared::id::{CommandId, InstanceId, Subject};
use shared::layout::BackupState;
use time::OffsetDateTime;
use tracing::info;

use crate::commit_markers::{self, CommitMarkers};
use crate::finished::{self, SentCommand};
use crate::groups::{self, ProtectedMember};

/// The backup commands of a time span, and the groups that they were sent to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentCommands<'a> {
    /// The protected groups.
    pub(crate) groups: &'a [Group],
    /// The commands.
    pub(crate) records: &'a [CommandRecord],
    /// Commands that were sent earlier are ignored.
    pub(crate) since: OffsetDateTime,
}

/// Finishes every command that succeeded on a member of a protected group, if its backup has no manifest.
pub(crate) async fn reconcile(
    context: &Context,
    sent: SentCommands<'_>,
    markers: &mut CommitMarkers,
    failures: &mut Failures<'_>,
) -> Vec<Handled> {
    let members = groups::protected_members(sent.groups);
    let open = open_commands(context, sent, &members);
    let requested = open.iter().filter_map(|open| open.command.as_ref());
    if let Some(first) = requested.map(|command| command.backup_id.time()).min() {
        // A backup's id is the time of its tick, and the tick's event may be late by this age. Only somebody else can
        // have sent an older id, and that must not cause a long listing.
        let earliest = sent.since - seconds(budget::BACKUP_EVENT_AGE);
        let since = first.max(earliest);
        markers.list_since(context, since, failures).await;
    }
    let mut reconciler = Reconciler {
        context,
        markers,
        statuses: HashMap::new(),
    };
    let mut handled = Vec::new();
    for open in &open {
        let result = reconciler.reconcile(open).await;
        let subject = Subject {
            command_id: Some(&open.record.command_id),
            ..open.member.node().subject()
        };
        let message = "a finished backup command was not reconciled";
        handled.extend(failures.keep(subject, message, result).flatten());
    }
    handled
}

/// A command on a member that is not known to be handled.
struct OpenCommand<'a> {
    member: &'a ProtectedMember<'a>,
    record: &'a CommandRecord,
    /// The command's content, or `None` if Rekindle did not send the command.
    command: Option<BackupCommand>,
}

fn open_commands<'a>(
    context: &Context,
    sent: SentCommands<'a>,
    members: &'a [ProtectedMember<'a>],
) -> Vec<OpenCommand<'a>> {
    let mut open = Vec::new();
    let recent = sent.records.iter();
    for record in recent.filter(|record| record.requested_at >= sent.since) {
        let command = BackupCommand::from_parameters(&record.parameters).ok();
        for member in members {
            let instance = member.node().instance;
            if !record.instance_ids.contains(instance) {
                continue;
            }
            let handled = (record.command_id.clone(), instance.clone());
            if !context.handled_commands.contains(&handled) {
                open.push(OpenCommand {
                    member,
                    record,
                    command: command.clone(),
                });
            }
        }
    }
    open
}

/// The memory of one pass over many commands.
struct Reconciler<'a> {
    context: &'a Context,
    markers: &'a mut CommitMarkers,
    /// The status of each command on its instances, read once for each command.
    statuses: HashMap<CommandId, Vec<(InstanceId, InvocationStatus)>>,
}

impl Reconciler<'_> {
    /// Finishes a command if its backup is complete. Returns `None` if there was nothing to do.
    async fn reconcile(&mut self, open: &OpenCommand<'_>) -> Result<Option<Handled>> {
        let (node, record) = (open.member.node(), open.record);
        // Somebody else sent the command. The event of its end would not commit anything either.
        let Some(command) = &open.command else {
            self.remember(open);
            return Ok(None);
        };
        // `terminating::advance_once` handles final backups.
        if command.purpose == Purpose::Final && open.member.waits_in_terminate_hook() {
            return Ok(None);
        }
        let backup = &command.backup_id;
        if self.markers.contains(node.application, backup) {
            self.remember(open);
            return Ok(None);
        }
        let status = self.status(record, node.instance).await?;
        let Some(status) = status.filter(InvocationStatus::is_finished) else {
            return Ok(None);
        };
        // The command's event records a failure. If that event is lost, the age of the newest backup raises the alarm.
        if status != InvocationStatus::Success {
            self.remember(open);
            return Ok(None);
        }
        let manifests = self.context.manifests(node.application);
        if let Some(state) = manifests.locate(backup).await? {
            self.remember(open);
            if state == BackupState::Committed {
                // The process that committed it did not write the marker.
                commit_markers::write(self.context, node.application, backup).await;
                self.markers.add(node.application.clone(), backup.clone());
            }
            return Ok(None);
        }
        info!(
            application = %node.application,
            group = node.group.name,
            instance_id = %node.instance,
            command_id = %record.command_id,
            backup_id = %backup,
            decision = "reconcile",
            "the command succeeded without a manifest: its event was lost or has not come yet"
        );
        let handled = finished::finish(self.context, SentCommand { node, record }).await?;
        Ok(Some(handled))
    }

    async fn status(
        &mut self,
        record: &CommandRecord,
        instance: &InstanceId,
    ) -> Result<Option<InvocationStatus>> {
        let command = &record.command_id;
        let statuses = match self.statuses.entry(command.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                unknown.insert(ssm::invocations(&self.context.aws.ssm, command).await?)
            }
        };
        let status = statuses.iter().find(|(of, _)| of == instance);
        Ok(status.map(|(_, status)| status.clone()))
    }

    /// Remembers that a command needs no further call on this instance.
    fn remember(&self, open: &OpenCommand<'_>) {
        let instance = open.member.node().instance.clone();
        let handled = (open.record.command_id.clone(), instance);
        self.context.handled_commands.insert(handled);
    }
}
