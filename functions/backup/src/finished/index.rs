//! A complete backup and its index. The index must be the one in the report, from this command on this instance.

use std::fmt::Display;

use shared::aws::s3;
use shared::checksum::digests;
use shared::command::BackupCommand;
use shared::function::context::Context;
use shared::id::{CommandId, Subject};
use shared::layout;
use shared::manifest::{Index, MOST_INDEX_BYTES, ObjectRecord};
use shared::report::BackupReport;
use shared::{Error, Result};

use crate::groups::Node;

/// A backup that a node reports as complete, with the facts that do not come from the node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompleteBackup<'a> {
    /// The node that the command ran on.
    pub(crate) node: Node<'a>,
    /// The command.
    pub(crate) command_id: &'a CommandId,
    /// The command's content.
    pub(crate) command: &'a BackupCommand,
    /// The node's report.
    pub(crate) report: &'a BackupReport,
}

impl CompleteBackup<'_> {
    /// Returns the backup's ids for the log.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            command_id: Some(self.command_id),
            backup_id: Some(&self.report.backup_id),
            ..self.node.subject()
        }
    }
}

/// Returns the record of the index that a report names, and the index.
pub(super) async fn read(
    context: &Context,
    backup: &CompleteBackup<'_>,
) -> Result<(ObjectRecord, Index)> {
    let (application, report) = (backup.node.application, backup.report);
    let (s3, bucket) = (&context.aws.s3, context.config.bucket.as_str());
    let (backup_id, run_id) = (&report.backup_id, &report.run_id);
    let key = layout::object(application, backup_id, run_id, layout::INDEX);
    let size = report.index_size;
    if size > MOST_INDEX_BYTES {
        let problem = format!("it has {size} bytes, at most {MOST_INDEX_BYTES} are read");
        return Err(Error::contract(key, problem));
    }
    let head = s3::head(s3, bucket, &key, None).await?;
    let head = head.ok_or_else(|| {
        Error::contract(
            &key,
            "it is not in the bucket: check `bucket` and `application` in the node's settings",
        )
    })?;
    let bytes = s3::read(s3, bucket, &key, head.version_id.as_deref(), size).await?;
    let digests = digests(&bytes);
    if (digests.size, &digests.sha256) != (size, &report.index_sha256) {
        return Err(Error::contract(
            key,
            "it is not the index that the node reported",
        ));
    }
    let index = Index::parse(&bytes, application, backup_id, run_id)?;
    check_origin(backup, &index, &key)?;
    let object = ObjectRecord {
        key,
        version_id: head.version_id,
        size: digests.size,
        sha256: digests.sha256,
        crc64: digests.crc64,
    };
    Ok((object, index))
}

/// Checks that the index is of this command on this instance.
fn check_origin(backup: &CompleteBackup<'_>, index: &Index, key: &str) -> Result<()> {
    let (command, instance) = (backup.command, backup.node.instance);
    let differs = |name: &str, found: &dyn Display, expected: &dyn Display| {
        let problem = format!("its {name} is {found}, expected {expected}");
        Err(Error::contract(key, problem))
    };
    if &index.node.instance_id != instance {
        return differs("instance", &index.node.instance_id, instance);
    }
    if index.operation_id != command.operation_id {
        return differs("operation", &index.operation_id, &command.operation_id);
    }
    if index.purpose != command.purpose {
        let (found, expected) = (index.purpose.as_str(), command.purpose.as_str());
        return differs("purpose", &found, &expected);
    }
    Ok(())
}
