//! The points at which a full run strikes: requests, programs, log lines.

use super::tap::Caller::{self, Agent, Backup, Restore};
use super::tap::Seen;

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Who asks.
    pub caller: Caller,
    /// For what.
    pub operation: &'static str,
    /// Of which kind of object; empty for services other than S3.
    pub object: &'static str,
}

/// Makes a point.
pub(super) const fn point(caller: Caller, operation: &'static str, object: &'static str) -> Point {
    Point {
        caller,
        operation,
        object,
    }
}

/// Requests to S3 during a backup.
pub(super) const BACKUP_STORAGE: &[Point] = &[
    point(Agent, "GetObject", "agent"),
    point(Agent, "PutObject", "dump 0"),
    point(Agent, "PutObject", "dump 1"),
    point(Agent, "PutObject", "globals"),
    point(Agent, "PutObject", "configuration"),
    point(Agent, "PutObject", "contents"),
    point(Agent, "PutObject", "index"),
    point(Backup, "HeadObject", "agent"),
    point(Backup, "PutObject", "agent"),
    point(Backup, "GetObject", "index"),
    point(Backup, "HeadObject", "dump 0"),
    point(Backup, "HeadObject", "globals"),
    point(Backup, "ListObjectsV2", "manifests"),
    point(Backup, "GetObject", "manifest"),
    point(Backup, "PutObject", "manifest"),
    point(Backup, "PutObject", "commits"),
    point(Backup, "ListObjectsV2", "commits"),
    point(Backup, "ListObjectsV2", "quarantine"),
    point(Backup, "ListObjectsV2", "attempts"),
    point(Backup, "ListObjectsV2", "pins"),
    point(Backup, "DeleteObjects", ""),
];

/// Requests to S3 for a dump that is uploaded in parts.
pub(super) const LARGE_STORAGE: &[Point] = &[
    point(Agent, "CreateMultipartUpload", "dump 1"),
    point(Agent, "UploadPart", "dump 1"),
    point(Agent, "CompleteMultipartUpload", "dump 1"),
    point(Agent, "AbortMultipartUpload", "dump 1"),
];

/// Requests to S3 during a restore.
pub(super) const RESTORE_STORAGE: &[Point] = &[
    point(Restore, "ListObjectsV2", "manifests"),
    point(Restore, "GetObject", "manifest"),
    point(Restore, "HeadObject", "agent"),
    point(Restore, "PutObject", "agent"),
    point(Agent, "GetObject", "agent"),
    point(Agent, "GetObject", "index"),
    point(Agent, "HeadObject", "dump 0"),
    point(Agent, "HeadObject", "dump 1"),
    point(Agent, "HeadObject", "globals"),
    point(Agent, "HeadObject", "configuration"),
    point(Agent, "HeadObject", "contents"),
    point(Agent, "GetObject", "contents"),
    point(Agent, "GetObject", "configuration"),
    point(Agent, "GetObject", "globals"),
    point(Agent, "GetObject", "dump 0"),
    point(Agent, "GetObject", "dump 1"),
];

/// Calls of the other services during a backup.
pub(super) const BACKUP_CALLS: &[&str] = &[
    "DescribeAutoScalingGroups",
    "DescribeInstanceInformation",
    "ListCommands",
    "GetCommandInvocation",
    "SendCommand",
    "GetParameter",
    "PutParameter",
];

/// Calls of the restore function while a node is replaced.
pub(super) const RESTORE_CALLS: &[&str] = &[
    "DescribeAutoScalingInstances",
    "DescribeAutoScalingGroups",
    "DescribeScalingActivities",
    "DescribeInstanceInformation",
    "ListCommands",
    "GetCommandInvocation",
    "GetParameter",
    "SendCommand",
    "CompleteLifecycleAction",
    "RecordLifecycleActionHeartbeat",
    "PutParameter",
    "SuspendProcesses",
    "ResumeProcesses",
];

/// Calls of the backup function about a node that is lost. SSM of the stand-in gives a command up before the function
/// would, so that nothing is cancelled here.
pub(super) const LOSS_CALLS: &[&str] = &["ListCommandInvocations"];

/// Calls of the backup function while a node is replaced; the activities are those of a node that has left its group
/// before its command's event comes.
pub(super) const FINAL_CALLS: &[&str] = &[
    "DescribeAutoScalingInstances",
    "DescribeAutoScalingGroups",
    "DescribeScalingActivities",
    "ListCommands",
    "GetCommandInvocation",
    "SendCommand",
    "CompleteLifecycleAction",
];

/// Programs that a backup runs, and how often.
pub(super) const BACKUP_CHILDREN: &[(&str, u32)] = &[
    ("psql", 4),
    ("pg_dump", 3),
    ("pg_restore", 2),
    ("pg_dumpall", 1),
];

/// Programs that a restore runs, and how often.
pub(super) const RESTORE_CHILDREN: &[(&str, u32)] = &[
    ("start-postgres", 1),
    // On two cores: each further one is one more for every database, as is a look at a Postgres that does not answer yet.
    ("psql", 18),
    ("pg_restore", 2),
    ("registry-start", 1),
    ("registry-health", 1),
];

/// What an agent logs during a backup.
pub(super) const BACKUP_LINES: &[&str] = &[
    "\"stage\":\"list\"",
    "\"stage\":\"dump notary\"",
    "\"stage\":\"dump postgres\"",
    "\"stage\":\"globals\"",
    "\"stage\":\"configuration\"",
    "\"stage\":\"contents\"",
    "backup complete in S3",
];

/// What an agent logs during a restore.
pub(super) const RESTORE_LINES: &[&str] = &[
    "\"database\":\"notary\"",
    "\"database\":\"postgres\"",
    "\"message\":\"swapped\"",
    "\"message\":\"dropped\"",
];

/// Tells whether the list has a request.
pub(super) fn has(seen: &Seen) -> bool {
    let points = [BACKUP_STORAGE, LARGE_STORAGE, RESTORE_STORAGE].concat();
    let calls = [
        (Backup, [BACKUP_CALLS, LOSS_CALLS, FINAL_CALLS].concat()),
        (Restore, RESTORE_CALLS.to_vec()),
    ];
    let calls = calls
        .iter()
        .any(|(caller, calls)| *caller == seen.caller && calls.contains(&seen.operation.as_str()));
    // What a function asks of one object of a backup, it asks of all.
    let alike = |point: &Point| {
        point.caller == seen.caller
            && point.operation == seen.operation
            && (point.caller != Agent || point.object == seen.object)
    };
    if seen.storage {
        points.iter().any(alike)
    } else {
        calls
    }
}

/// Returns what a point is called.
pub(super) fn named(point: &Point) -> String {
    let name = format!("{} {} {}", point.caller, point.operation, point.object);
    name.trim_end().to_owned()
}

/// Tells whether an answer to this operation has an `ETag`.
pub(super) fn names_etag(operation: &str) -> bool {
    [
        "PutObject",
        "GetObject",
        "HeadObject",
        "UploadPart",
        "CompleteMultipartUpload",
    ]
    .contains(&operation)
}
