//! Checking a finished backup in S3, and committing it: the one place where a backup begins to exist.
//!
//! The order is the guarantee: every object is checked, then the guard is asked, then the manifest is put, among the
//! committed ones or aside, then the application's state, and what tells ticks of it.

#[cfg(test)]
mod tests;

use futures_util::join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use shared::aws::autoscaling::Group;
use shared::aws::s3::{self, Created};
use shared::aws::state;
use shared::checksum::digests;
use shared::command::BackupCommand;
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId};
use shared::layout::{self, BackupState};
use shared::manifest::{Index, MOST_INDEX_BYTES, Manifest, ObjectRecord, SCHEMA_VERSION};
use shared::metrics::{self, Metric};
use shared::report::BackupReport;
use shared::{Error, Result};
use time::OffsetDateTime;
use tracing::warn;

use crate::decide::guard::Doubt;
use crate::failures::report;
use crate::function::Function;
use crate::{admission, commits, stored};

/// How many objects are looked at in parallel.
const HEADS: usize = 16;

/// A backup that a node reports, with what the function itself knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Finished<'a> {
    /// The instance's group, or the one that it has left.
    pub(crate) group: &'a Group,
    /// From the tag of the group, never from the report.
    pub(crate) application: &'a ApplicationName,
    /// The instance that the command ran on.
    pub(crate) instance: &'a InstanceId,
    /// The command.
    pub(crate) command_id: &'a CommandId,
    /// What it asked.
    pub(crate) command: &'a BackupCommand,
    /// What the node answered.
    pub(crate) report: &'a BackupReport,
}

/// What became of a backup that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The backup exists since now.
    New,
    /// The same backup was committed before.
    Repeated,
    /// It is kept aside since now.
    KeptAside(Doubt),
    /// The same backup was kept aside before.
    KeptAsideBefore,
}

/// Commits a backup after checking every object of it. Committing the same one twice is harmless.
pub(crate) async fn commit(
    function: &Function,
    finished: &Finished<'_>,
    now: OffsetDateTime,
) -> Result<Commit> {
    let (index_object, index) = read_index(function, finished).await?;
    if let Some(before) = settled(function, finished.application, &index, &index_object).await? {
        return Ok(before);
    }
    check_objects(function, index.needed()).await?;
    let doubt =
        admission::doubt(function, finished.group, finished.application, &index, now).await?;
    let state = match doubt {
        None => BackupState::Committed,
        Some(_) => BackupState::Quarantined,
    };
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        committed_at: now,
        command_id: finished.command_id.clone(),
        index_object,
        quarantined_for: doubt.as_ref().map(Doubt::to_string),
        index,
    };
    if !put_manifest(function, finished.application, state, &manifest).await? {
        // Another delivery of the same event was faster.
        let (index, object) = (&manifest.index, &manifest.index_object);
        let before = settled(function, finished.application, index, object).await?;
        return Ok(before.unwrap_or(Commit::Repeated));
    }
    if let Some(doubt) = doubt {
        return Ok(Commit::KeptAside(doubt));
    }
    tell_unsaved_images(function, finished.application, &manifest.index);
    measure(function, finished, &manifest, now);
    tell(function, finished.application, &manifest.index.backup_id).await;
    Ok(Commit::New)
}

/// Says what became of this backup before, if it has a manifest. Whoever committed it may not have come to tell of it.
async fn settled(
    function: &Function,
    application: &ApplicationName,
    index: &Index,
    index_object: &ObjectRecord,
) -> Result<Option<Commit>> {
    let backup = &index.backup_id;
    let Some((state, before)) = stored::anywhere(function, application, backup).await? else {
        return Ok(None);
    };
    if before.index_object.sha256 != index_object.sha256 {
        let other = &before.index;
        return Err(Error::Refused(format!(
            "the backup {backup} is already committed from the run {} on {}; the run {} on {} stays uncommitted",
            other.run_id, other.node.instance_id, index.run_id, index.node.instance_id
        )));
    }
    if state == BackupState::Quarantined {
        return Ok(Some(Commit::KeptAsideBefore));
    }
    tell(function, application, backup).await;
    Ok(Some(Commit::Repeated))
}

/// Writes down what follows from a manifest, for those who do not read it.
async fn tell(function: &Function, application: &ApplicationName, backup: &BackupId) {
    join!(
        ensure_state(function, application, backup),
        commits::say(function, application, backup)
    );
}

/// Writes the application's state. The backup is committed all the same where that fails, and every tick repairs it.
async fn ensure_state(function: &Function, application: &ApplicationName, backup: &BackupId) {
    match state::ensure(&function.aws.ssm, application, backup).await {
        Ok(_) => function.remember_state(application),
        Err(error) => {
            warn!(application = %application, backup_id = %backup, problem = error.chain(), "the application's state is not written yet");
        }
    }
}

/// Reads the index that the report names, if it is the one that the report means.
async fn read_index(function: &Function, finished: &Finished<'_>) -> Result<(ObjectRecord, Index)> {
    let Finished {
        application,
        report,
        ..
    } = *finished;
    let (s3, bucket) = (&function.aws.s3, function.config.bucket.as_str());
    let key = layout::object(
        application,
        &report.backup_id,
        &report.run_id,
        layout::INDEX,
    );
    if report.index_size > MOST_INDEX_BYTES {
        let problem = format!(
            "it has {} bytes, at most {MOST_INDEX_BYTES} are read",
            report.index_size
        );
        return Err(Error::contract(key, problem));
    }
    let head = s3::head(s3, bucket, &key, None).await?;
    let head = head.ok_or_else(|| {
        Error::contract(
            &key,
            "it is not in the bucket: check `bucket` and `application` in the node's settings",
        )
    })?;
    let bytes = s3::read(
        s3,
        bucket,
        &key,
        head.version_id.as_deref(),
        report.index_size,
    )
    .await?;
    let digests = digests(&bytes);
    if (digests.size, &digests.sha256) != (report.index_size, &report.index_sha256) {
        return Err(Error::contract(
            key,
            "it is not the index that the node reported",
        ));
    }
    let index = Index::parse(&bytes, application, &report.backup_id, &report.run_id)?;
    check_origin(finished, &index, &key)?;
    let object = ObjectRecord {
        key,
        version_id: head.version_id,
        size: digests.size,
        sha256: digests.sha256,
        crc64: digests.crc64,
    };
    Ok((object, index))
}

/// Checks that the index answers this command on this instance.
fn check_origin(finished: &Finished<'_>, index: &Index, key: &str) -> Result<()> {
    let command = finished.command;
    let differs = |what: &str, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
        Err(Error::contract(
            key,
            format!("its {what} is {found}, expected {expected}"),
        ))
    };
    if &index.node.instance_id != finished.instance {
        return differs("instance", &index.node.instance_id, finished.instance);
    }
    if index.operation_id != command.operation_id {
        return differs("operation", &index.operation_id, &command.operation_id);
    }
    if index.purpose != command.purpose {
        return differs(
            "purpose",
            &index.purpose.as_str(),
            &command.purpose.as_str(),
        );
    }
    Ok(())
}

/// Holds every object in the bucket against what is recorded of it.
pub(crate) async fn check_objects(
    function: &Function,
    objects: impl IntoIterator<Item = &ObjectRecord>,
) -> Result<()> {
    stream::iter(objects)
        .map(|record| check_object(function, record))
        .buffer_unordered(HEADS)
        .try_collect()
        .await
}

async fn check_object(function: &Function, record: &ObjectRecord) -> Result<()> {
    let (s3, bucket) = (&function.aws.s3, function.config.bucket.as_str());
    let head = s3::head(s3, bucket, &record.key, record.version_id.as_deref()).await?;
    let Some(head) = head else {
        return Err(Error::contract(
            &record.key,
            "the index lists it, but it is not in the bucket",
        ));
    };
    let problem = if head.size != record.size {
        format!("it has {} bytes, the index says {}", head.size, record.size)
    } else if head.crc64.as_ref() != Some(&record.crc64) {
        format!(
            "S3's CRC-64 of it is not {}, as the index says",
            record.crc64
        )
    } else if !head.full_object {
        "its checksum does not cover the whole object".to_owned()
    } else if record.version_id.is_some() && head.version_id != record.version_id {
        "it is another version than the index says".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::contract(&record.key, problem))
}

/// Says which images the node could not save. The backup counts all the same: its data are complete.
fn tell_unsaved_images(function: &Function, application: &ApplicationName, index: &Index) {
    if !index.unsaved_images.is_empty() {
        let message = format!(
            "the backup {} is without images that [images] in the node's settings asks for: {}",
            index.backup_id,
            index.unsaved_images.join("; ")
        );
        report(
            &function.config,
            Some(application),
            "ImageUnsaved",
            &message,
        );
    }
}

/// Puts the manifest on a state; tells whether the place was free.
async fn put_manifest(
    function: &Function,
    application: &ApplicationName,
    state: BackupState,
    manifest: &Manifest,
) -> Result<bool> {
    let (s3, bucket) = (&function.aws.s3, function.config.bucket.as_str());
    let key = state.manifest(application, &manifest.index.backup_id);
    let bytes = serde_json::to_vec_pretty(manifest)
        .map_err(|error| Error::contract(&key, error.to_string()))?;
    let created = s3::create(s3, bucket, &key, bytes, "application/json").await?;
    Ok(created != Created::AlreadyThere)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is a floating-point number"
)]
fn measure(function: &Function, finished: &Finished<'_>, manifest: &Manifest, now: OffsetDateTime) {
    let index = &manifest.index;
    let values = [
        (
            Metric::BackupAge,
            (now - index.backup_id.time()).as_seconds_f64(),
        ),
        (Metric::BackupBytes, index.bytes() as f64),
        (Metric::BackupSeconds, finished.report.seconds),
        (Metric::BackupRows, index.rows() as f64),
    ];
    metrics::measured(
        &function.config.metric_namespace,
        now,
        finished.application,
        &values,
    );
}
