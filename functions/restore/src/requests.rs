//! The operator's request `resume`. IAM's `lambda:InvokeFunction` is the only authorisation.

use shared::Result;
use shared::aws::autoscaling::{self, Group};
use shared::aws::breaker as record;
use shared::function::context::Context;
use shared::id::ApplicationName;
use time::OffsetDateTime;
use tracing::info;

use crate::answer::{Answer, Launches, ResumedGroup};
use crate::breaker;
use crate::breaker::decide::{OnResume, on_resume};

/// Closes the breaker of an application, and resumes the launches that Rekindle suspended. A repetition is harmless.
pub(crate) async fn resume(context: &Context, application: ApplicationName) -> Result<Answer> {
    let protected = autoscaling::protected_groups(&context.aws.autoscaling).await?;
    let mut groups = Vec::new();
    for group in protected {
        if group.serves(&application) {
            groups.push(resume_group(context, &application, group).await?);
        }
    }
    if groups.is_empty() {
        return Err(autoscaling::no_group(&application));
    }
    Ok(Answer::Resumed {
        application,
        groups,
    })
}

async fn resume_group(
    context: &Context,
    application: &ApplicationName,
    group: Group,
) -> Result<ResumedGroup> {
    let now = OffsetDateTime::now_utc();
    let (suspended, group) = (group.launches_suspended, group.name);
    let known = record::read(&context.aws.ssm, application, &group).await?;
    let (launches, resume, record) = match on_resume(known.as_ref(), suspended, now) {
        OnResume::Resume(record) => (Launches::Resumed, true, Some(record)),
        OnResume::Close { resume, breaker } => (Launches::NoLongerOnTrial, resume, Some(breaker)),
        OnResume::NothingToDo => (Launches::WereNotSuspended, false, None),
        OnResume::SuspendedBySomebodyElse(record) => {
            (Launches::SuspendedBySomebodyElse, false, record)
        }
    };
    if let Some(record) = &record {
        breaker::write_not_open(context, application, &group, record, resume, now).await?;
    }
    let message = launches.message();
    info!(decision = "resume", %application, group, closed = record.is_some(), message);
    Ok(ResumedGroup {
        group,
        launches,
        message,
    })
}
