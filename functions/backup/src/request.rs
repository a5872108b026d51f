//! What an operator asks for by hand; IAM alone says who may.

use futures_util::stream::{self, StreamExt as _};
use shared::aws::autoscaling::Group;
use shared::aws::s3;
use shared::command::Purpose;
use shared::event::Request;
use shared::id::{BackupId, StackName};
use shared::manifest::{MOST_MANIFEST_BYTES, Manifest};
use shared::{Error, Result, layout};
use time::OffsetDateTime;

use crate::decide::{self, Start};
use crate::failures::Failures;
use crate::function::Function;
use crate::outcome::{Outcome, Summary};
use crate::start;
use crate::tick::{self, Facts};

/// The most backups that one listing names.
const MOST_LISTED: usize = 200;
/// How many manifests are read in parallel.
const READS: usize = 8;

/// Handles an operator's request.
pub(crate) async fn on_request(
    function: &Function,
    request: Request,
    now: OffsetDateTime,
) -> Result<Outcome> {
    match request {
        Request::BackupNow { stack } => back_up(function, &stack, Purpose::Manual, now).await,
        Request::Adopt {
            stack,
            over_existing_backups,
        } => {
            let newest =
                s3::newest_backups(&function.aws.s3, &function.config.bucket, &stack, 1, now)
                    .await?;
            decide::on_adopt(newest.first(), over_existing_backups).map_err(Error::Refused)?;
            back_up(function, &stack, Purpose::Adopt, now).await
        }
        Request::ListBackups { stack, limit } => list(function, stack, limit, now).await,
        // `Event::parse` makes a sweep of it.
        Request::Sweep => Err(Error::Event("a sweep is no request".to_owned())),
    }
}

async fn back_up(
    function: &Function,
    stack: &StackName,
    purpose: Purpose,
    now: OffsetDateTime,
) -> Result<Outcome> {
    let facts = Facts::gather(function, now).await?;
    let group = group_of(&facts.groups, stack)?;
    let command = tick::command(BackupId::at(now), purpose)?;
    let target = match decide::on_tick(&facts.of_group(group, None)) {
        Start::Start { stack, instance } => (stack, instance),
        Start::Skip(reason) => {
            return Err(Error::Refused(format!("no backup is started: {reason}")));
        }
    };
    let mut failures = Failures::new(&function.config);
    let started = start::start(function, &command, &[target], &mut failures).await;
    failures.finish()?;
    Ok(match started.into_iter().next() {
        Some(started) => Outcome::Requested(started),
        None => Outcome::Refused {
            kind: "Refused".to_owned(),
            message: "the command could not be sent; the log says why".to_owned(),
        },
    })
}

fn group_of<'a>(groups: &'a [Group], stack: &StackName) -> Result<&'a Group> {
    let found = groups
        .iter()
        .find(|group| group.stack_tag.as_deref() == Some(stack.as_str()));
    found.ok_or_else(|| {
        Error::Refused(format!(
            "no Auto Scaling group has the tag rekindle:stack={stack}"
        ))
    })
}

async fn list(
    function: &Function,
    stack: StackName,
    limit: usize,
    now: OffsetDateTime,
) -> Result<Outcome> {
    let (s3, bucket) = (&function.aws.s3, &function.config.bucket);
    let ids = s3::newest_backups(s3, bucket, &stack, limit.clamp(1, MOST_LISTED), now).await?;
    let stack_name = &stack;
    let summaries: Vec<Result<Summary>> = stream::iter(ids)
        .map(|id| async move { summary(function, stack_name, id).await })
        .buffered(READS)
        .collect()
        .await;
    let backups = summaries.into_iter().collect::<Result<Vec<Summary>>>()?;
    Ok(Outcome::Backups { stack, backups })
}

/// An unreadable manifest must not hide the others: it is listed with what is wrong with it.
async fn summary(function: &Function, stack: &StackName, backup_id: BackupId) -> Result<Summary> {
    let (s3, bucket) = (&function.aws.s3, &function.config.bucket);
    let key = layout::manifest(stack, &backup_id);
    let manifest = match s3::read(s3, bucket, &key, None, MOST_MANIFEST_BYTES).await {
        Ok(bytes) => Manifest::parse(&bytes, stack, &backup_id),
        Err(error) => Err(error),
    };
    match manifest {
        Ok(manifest) => Ok(Summary::Backup {
            backup_id,
            purpose: manifest.index.purpose,
            committed_at: manifest.committed_at,
            rows: manifest.index.rows(),
            bytes: manifest.index.bytes(),
            instance_id: manifest.index.node.instance_id,
        }),
        Err(error) if error.retryable() => Err(error),
        Err(error) => Ok(Summary::Unreadable {
            backup_id,
            problem: error.chain(),
        }),
    }
}
