//! What an operator asks for by hand; IAM alone says who may.

use serde::Serialize;
use shared::aws::autoscaling::{self, Group};
use shared::aws::{Aws, breaker};
use shared::id::ApplicationName;
use shared::{Error, Result};
use time::OffsetDateTime;
use tracing::info;

use crate::circuit;
use crate::decide::breaker::{OnResume, on_resume};

/// What a request to resume came to, as the function's answer has it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Resumed {
    /// The application.
    pub(crate) application: ApplicationName,
    /// Its group; more than one where somebody gave two the same tag.
    pub(crate) groups: Vec<ResumedGroup>,
}

/// What a request to resume came to in one group.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ResumedGroup {
    /// The group.
    pub(crate) group: String,
    /// What stands now.
    pub(crate) launches: Launches,
    /// In words.
    pub(crate) message: &'static str,
}

/// Whether a group may launch, after a request to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Launches {
    /// It could not, and may again.
    Resumed,
    /// It could before, on trial, and may fail anew now before it is stopped.
    NoLongerOnTrial,
    /// It could before.
    WereNotSuspended,
    /// It cannot: that was not Rekindle's doing.
    SuspendedBySomebodyElse,
}

impl Launches {
    fn message(self) -> &'static str {
        match self {
            Self::Resumed => "Rekindle had suspended this group's launches, and has resumed them.",
            Self::NoLongerOnTrial => {
                "This group's launches were resumed before; failures are counted anew from now on."
            }
            Self::WereNotSuspended => "Rekindle has suspended nothing of this group.",
            Self::SuspendedBySomebodyElse => {
                "Not Rekindle has suspended this group's launches, so it does not resume them: \
                 aws autoscaling resume-processes --scaling-processes Launch --auto-scaling-group-name <group>"
            }
        }
    }
}

/// Closes the breaker of an application, and resumes what it suspended. Asking again is harmless.
pub(crate) async fn resume(aws: &Aws, application: ApplicationName) -> Result<Resumed> {
    let protected = autoscaling::protected_groups(&aws.autoscaling).await?;
    let mut groups = Vec::new();
    for group in protected {
        // Another group's malformed tag is not this application's concern.
        if group
            .application()
            .is_ok_and(|it| it.as_ref() == Some(&application))
        {
            groups.push(resume_group(aws, &application, group).await?);
        }
    }
    if groups.is_empty() {
        return Err(Error::Refused(format!(
            "no Auto Scaling group has the tag {}={application}",
            autoscaling::APPLICATION_TAG
        )));
    }
    Ok(Resumed {
        application,
        groups,
    })
}

async fn resume_group(
    aws: &Aws,
    application: &ApplicationName,
    group: Group,
) -> Result<ResumedGroup> {
    let now = OffsetDateTime::now_utc();
    let suspended = group.launches_suspended;
    let group = group.name;
    let known = breaker::read(&aws.ssm, application, &group).await?;
    let (launches, resume, record) = match on_resume(known.as_ref(), suspended, now) {
        OnResume::Resume(record) => (Launches::Resumed, true, Some(record)),
        OnResume::Close { resume, breaker } => (Launches::NoLongerOnTrial, resume, Some(breaker)),
        OnResume::NothingToDo => (Launches::WereNotSuspended, false, None),
        OnResume::SuspendedBySomebodyElse(record) => {
            (Launches::SuspendedBySomebodyElse, false, record)
        }
    };
    if let Some(record) = &record {
        circuit::record(aws, application, &group, record, resume, now).await?;
    }
    let message = launches.message();
    info!(decision = "resume", group, %application, closed = record.is_some(), message);
    Ok(ResumedGroup {
        group,
        launches,
        message,
    })
}
