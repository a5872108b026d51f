//! The dispatch of events. Every event is a hint: it leads to steps that read the facts from AWS again.

use shared::event::Event;
use shared::function::context::Context;
use shared::function::lambda::Deadline;
use shared::{Error, Result};
use time::OffsetDateTime;

use crate::answer::Answer;
use crate::{finished, requests, sweep, terminating, tick};

/// Handles one event.
pub(crate) async fn handle(context: &Context, event: Event, deadline: Deadline) -> Result<Answer> {
    let now = OffsetDateTime::now_utc();
    match event {
        Event::Tick { scheduled } => tick::on_tick(context, scheduled, now).await,
        Event::Sweep => sweep::on_sweep(context, now).await,
        Event::CommandFinished(command) => {
            let handled = finished::on_event(context, &command).await?;
            Ok(Answer::Handled(handled))
        }
        Event::InstanceTerminating(action) => {
            let handled = terminating::on_event(context, &action, deadline).await?;
            Ok(Answer::Handled(handled))
        }
        Event::InstanceLaunching(_) => Err(Error::Event(
            "the launch hook belongs to the restore function; correct the rule's target".to_owned(),
        )),
        Event::Request(request) => requests::on_request(context, request, now).await,
    }
}
