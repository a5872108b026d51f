//! Sends a final backup, and follows it until the SSM agent has accepted it.

use shared::Result;
use shared::aws::ssm::{self, InvocationStatus};
use shared::command::{BackupCommand, Purpose};
use shared::function::answer::Handled;
use shared::id::{BackupId, CommandId};
use shared::operation::Operation;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::info;

use super::decide;
use super::facts::status;
use super::instance::{PAUSE, Terminating};
use crate::start::send;

/// A final backup that was sent.
pub(super) struct Delivery {
    pub(super) command_id: CommandId,
    pub(super) requested_at: OffsetDateTime,
    /// The decision for the answer.
    pub(super) decision: &'static str,
}

impl Terminating<'_> {
    /// Sends the final backup. Gives up if SSM refuses the instance.
    pub(super) async fn send(&self) -> Result<Handled> {
        let node = self.node;
        let command = BackupCommand {
            operation_id: Operation::FinalBackup(node.instance.clone()),
            backup_id: BackupId::at(OffsetDateTime::now_utc()),
            purpose: Purpose::Final,
        };
        let instances = std::slice::from_ref(node.instance);
        let command_id = match send::send(self.context, &command, instances).await {
            Ok(command_id) => command_id,
            Err(error) if ssm::refuses_instance(&error) => {
                return self.give_up("SSM refuses the instance").await;
            }
            Err(error) => return Err(error),
        };
        info!(
            application = %node.application,
            group = node.group.name,
            instance_id = %node.instance,
            %command_id,
            backup_id = %command.backup_id,
            decision = "start",
            "requested the final backup"
        );
        self.deliver(Delivery {
            command_id,
            requested_at: OffsetDateTime::now_utc(),
            decision: "send-final-backup",
        })
        .await
    }

    /// Waits until the agent has accepted the command: its ping may be minutes old, and a dead node must not delay its
    /// replacement. The event of the finished command follows. If this invocation ends first, the sweep continues.
    pub(super) async fn deliver(&self, delivery: Delivery) -> Result<Handled> {
        let command = &delivery.command_id;
        let (began, wait) = (Instant::now(), self.wait.unwrap_or_default());
        while began.elapsed() + PAUSE < wait {
            match status(self.context, self.node, command).await? {
                Some(status) if !status.is_undelivered() => {
                    let message = format!("the final backup is {status}");
                    return Ok(self.in_progress(command, delivery.decision, message));
                }
                _ if decide::is_overdue(delivery.requested_at, OffsetDateTime::now_utc()) => {
                    return self.cancel(command).await;
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
        let message = "the final backup is on its way".to_owned();
        Ok(self.in_progress(command, delivery.decision, message))
    }

    /// Cancels an undelivered command and gives up. If the agent accepts the command first, the backup continues.
    pub(super) async fn cancel(&self, command: &CommandId) -> Result<Handled> {
        ssm::cancel(&self.context.aws.ssm, command).await?;
        let status = status(self.context, self.node, command).await?;
        if let Some(status @ (InvocationStatus::InProgress | InvocationStatus::Success)) = status {
            let message =
                format!("the final backup is {status}; it was accepted before it was cancelled");
            return Ok(self.in_progress(command, "wait-for-final-backup", message));
        }
        self.give_up("its SSM agent did not accept the command in time")
            .await
    }

    fn in_progress(&self, command: &CommandId, decision: &'static str, message: String) -> Handled {
        Handled {
            command_id: Some(command.clone()),
            ..self.handled_with(decision, message)
        }
    }
}
