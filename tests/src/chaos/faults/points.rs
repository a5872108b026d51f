//! The points at which a full run injects faults: requests, programs and log lines.

use crate::chaos::application::interceptor::Caller::{self, Agent, Backup, Restore};
use crate::chaos::application::interceptor::Request;

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The caller.
    pub caller: Caller,
    /// The operation.
    pub operation: &'static str,
    /// The kind of S3 object; empty for other services.
    pub object: &'static str,
}

/// Returns a point.
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

/// Calls of the backup function about a lost node. The stand-in's SSM times a command out before the function would
/// cancel it, so that `CancelCommand` is not in the list.
pub(super) const LOSS_CALLS: &[&str] = &["ListCommandInvocations"];

/// Calls of the backup function while a node is replaced. It reads the scaling activities if the node has left its group
/// before the event of its command is delivered.
pub(super) const FINAL_CALLS: &[&str] = &[
    "DescribeAutoScalingInstances",
    "DescribeAutoScalingGroups",
    "DescribeScalingActivities",
    "ListCommands",
    "GetCommandInvocation",
    "SendCommand",
    "CompleteLifecycleAction",
];

/// The programs that a backup runs, and how often.
pub(super) const BACKUP_CHILDREN: &[(&str, u32)] = &[
    ("psql", 4),
    ("pg_dump", 3),
    ("pg_restore", 2),
    ("pg_dumpall", 1),
];

/// The programs that a restore runs, and how often.
pub(super) const RESTORE_CHILDREN: &[(&str, u32)] = &[
    ("start-postgres", 1),
    // Measured on two cores: each further core adds one for each database, and so does each poll of a Postgres that does
    // not answer yet.
    ("psql", 18),
    ("pg_restore", 2),
    ("registry-start", 1),
    ("registry-health", 1),
];

/// Texts of the agent's log lines during a backup.
pub(super) const BACKUP_LINES: &[&str] = &[
    "\"stage\":\"list\"",
    "\"stage\":\"dump notary\"",
    "\"stage\":\"dump postgres\"",
    "\"stage\":\"globals\"",
    "\"stage\":\"configuration\"",
    "\"stage\":\"contents\"",
    "backup complete in S3",
];

/// Texts of the agent's log lines during a restore.
pub(super) const RESTORE_LINES: &[&str] = &[
    "\"database\":\"notary\"",
    "\"database\":\"postgres\"",
    "\"message\":\"swapped\"",
    "\"message\":\"dropped\"",
];

/// Returns whether the list has a request.
pub(in crate::chaos) fn has(request: &Request) -> bool {
    let points = [BACKUP_STORAGE, LARGE_STORAGE, RESTORE_STORAGE].concat();
    let calls = [
        (Backup, [BACKUP_CALLS, LOSS_CALLS, FINAL_CALLS].concat()),
        (Restore, RESTORE_CALLS.to_vec()),
    ];
    let calls = calls.iter().any(|(caller, calls)| {
        *caller == request.caller && calls.contains(&request.operation.as_str())
    });
    // A function makes the same requests for every object of a backup.
    let alike = |point: &Point| {
        point.caller == request.caller
            && point.operation == request.operation
            && (point.caller != Agent || point.object == request.object)
    };
    if request.storage {
        points.iter().any(alike)
    } else {
        calls
    }
}

/// Returns the name of a point.
pub(super) fn named(point: &Point) -> String {
    let name = format!("{} {} {}", point.caller, point.operation, point.object);
    name.trim_end().to_owned()
}

/// Returns whether the answer to an operation has an `ETag`.
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
