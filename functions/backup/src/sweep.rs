//! The one-minute sweep: finishes commands and terminate hooks after a lost event.

use shared::Result;
use shared::aws::autoscaling;
use shared::aws::ssm::{self, CommandQuery};
use shared::budget::{self, seconds};
use shared::function::context::Context;
use shared::function::failure::Failures;
use time::OffsetDateTime;

use crate::answer::Answer;
use crate::commit_markers::CommitMarkers;
use crate::reconcile::{self, SentCommands};
use crate::{groups, terminating};

/// Handles a sweep. It covers the commands of the newest tick; ticks cover older ones.
pub(crate) async fn on_sweep(context: &Context, now: OffsetDateTime) -> Result<Answer> {
    let mut failures = Failures::new(context);
    let groups = autoscaling::protected_groups(&context.aws.autoscaling).await?;
    let since = now - seconds(budget::SCHEDULE + budget::BACKUP_EXECUTION);
    let query = CommandQuery::new(&context.config.backup_document, since);
    let records = ssm::commands(&context.aws.ssm, query).await?;
    let mut markers = CommitMarkers::unlisted(now);
    let sent = SentCommands {
        groups: &groups,
        records: &records,
        since,
    };
    let mut handled = reconcile::reconcile(context, sent, &mut markers, &mut failures).await;
    for member in groups::protected_members(&groups) {
        if member.waits_in_terminate_hook() {
            let node = member.node();
            let advanced = terminating::advance_once(context, node).await;
            let message = "the terminate hook was not advanced";
            handled.extend(failures.keep(node.subject(), message, advanced).flatten());
        }
    }
    let failures = failures.finish()?;
    Ok(Answer::Sweep { handled, failures })
}
