//! What a pass deletes, and in which order.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::types::ChecksumType;
use serde_json::Value;
use shared::aws::catalog;
use shared::layout;
use time::Duration;
use time::macros::datetime;

use super::*;
use crate::testing::{Bucket, Stored, context, context_with_deletions, keys, put};

pub(super) const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);
const RUN: &str = "0a1b2c3d";

pub(super) fn application() -> ApplicationName {
    "dtr".parse().unwrap()
}

pub(super) fn hours_ago(hours: i64) -> BackupId {
    BackupId::at(NOW - Duration::hours(hours))
}

/// Stores a backup of one object. Returns the key of the object.
fn backed_up(bucket: &Bucket, state: BackupState, backup: &BackupId) -> String {
    let key = state.manifest(&application(), backup);
    put(bucket, &key, manifest(backup, &[]).as_bytes());
    stored_run(bucket, backup, RUN)
}

fn stored_run(bucket: &Bucket, backup: &BackupId, run: &str) -> String {
    let key = index_of(backup, run);
    put(bucket, &key, b"index");
    key
}

fn index_of(backup: &BackupId, run: &str) -> String {
    layout::object(&application(), backup, &run.parse().unwrap(), layout::INDEX)
}

/// Returns the manifest of a backup of one object, with these images.
pub(super) fn manifest(backup: &BackupId, images: &[Value]) -> String {
    let object = serde_json::json!({
        "key": index_of(backup, RUN), "size": 1, "sha256": "0".repeat(64), "crc64": "rosUhgp5mIg="
    });
    serde_json::json!({
        "schema_version": 1, "committed_at": "2026-11-23T02:15:09Z",
        "command_id": "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11", "index_object": object,
        "index": {
            "schema_version": 1, "application": "dtr", "backup_id": backup, "run_id": RUN, "operation_id": backup,
            "purpose": "scheduled",
            "node": {"instance_id": "i-04d1c8f7a2b3e6905", "system_identifier": "7", "lineage": {"kind": "first-boot"}},
            "versions": {"server": 150_018, "pg_dump": "pg_dump 15", "agent": "0.1.0"},
            "started_at": "2026-11-23T02:15:03Z", "finished_at": "2026-11-23T02:15:09Z",
            "databases": [], "configuration_paths": [], "objects": [], "timings": [], "images": images,
        },
    })
    .to_string()
}

/// Makes a pass after the commit of the newest backup.
async fn pass(context: &Context) -> Result<Deleted> {
    let pass = Pass {
        context,
        application: &application(),
        now: NOW,
    };
    pass.run(&hours_ago(0)).await
}

async fn committed(context: &Context) -> BTreeSet<BackupId> {
    let s3 = &context.aws.s3;
    let all = catalog::all(s3, "bucket", &application(), BackupState::Committed).await;
    all.unwrap()
}

#[tokio::test]
async fn manifests_are_deleted_before_their_objects_and_kept_backups_are_complete() {
    let bucket = Bucket::default();
    let all: BTreeSet<BackupId> = (0..40 * 24).map(hours_ago).collect();
    for backup in &all {
        backed_up(&bucket, BackupState::Committed, backup);
    }
    let pinned = hours_ago(39 * 24);
    put(&bucket, &layout::pin(&application(), &pinned), b"");
    let deletions: Arc<Mutex<usize>> = Arc::default();
    let count = Arc::clone(&deletions);
    let context = context_with_deletions(&bucket, &[], &[], move |objects, key| {
        *count.lock().unwrap() += 1;
        if let Some((backup, _)) = layout::run_of_object(&application(), key) {
            let manifest = layout::manifest(&application(), &backup);
            assert!(
                !objects.contains_key(&manifest),
                "{manifest} names a missing object"
            );
        }
    });
    let mut passes = 0;
    while pass(&context).await.unwrap().backups > 0 {
        passes += 1;
    }
    assert!(passes > 1, "one pass deleted all");
    let left = committed(&context).await;
    let expired = decide::expired(&context.config.retention, &all, &[pinned].into(), NOW);
    assert_eq!(left.len() + expired.len(), all.len());
    assert!(expired.iter().all(|backup| !left.contains(backup)));
    assert_eq!(keys(&bucket, "backups/").len(), left.len());
    assert_eq!(*deletions.lock().unwrap(), 2 * expired.len());
}

#[tokio::test]
async fn the_newest_readable_backups_stay_whatever_their_age() {
    let bucket = Bucket::default();
    let old = |number: i64| hours_ago(1_000 * 24 + number);
    for number in 0..20 {
        backed_up(&bucket, BackupState::Committed, &old(number));
    }
    put(&bucket, &layout::manifest(&application(), &old(1)), b"{");
    let context = context(&bucket, &[]);
    pass(&context).await.unwrap();
    let good: BTreeSet<BackupId> = (0..9).filter(|number| *number != 1).map(old).collect();
    assert_eq!(committed(&context).await, good);
}

#[tokio::test]
async fn a_pin_during_the_deletion_restores_the_manifest() {
    let bucket = Bucket::default();
    let old = |number: i64| hours_ago(60 * 24 + number);
    for number in 0..30 {
        backed_up(&bucket, BackupState::Committed, &old(number));
    }
    let late = old(29);
    let (pin, manifest) = (
        layout::pin(&application(), &late),
        layout::manifest(&application(), &late),
    );
    let context = context_with_deletions(&bucket, &[], &[], move |objects, key| {
        if key == manifest {
            let stored = Stored {
                bytes: Vec::new(),
                checksum_type: ChecksumType::FullObject,
            };
            objects.insert(pin.clone(), stored);
        }
    });
    pass(&context).await.unwrap();
    let left = committed(&context).await;
    assert!(left.contains(&late) && left.len() == 9, "{left:?}");
    assert_eq!(
        keys(&bucket, &layout::backup(&application(), &late)).len(),
        1
    );
}

#[tokio::test]
async fn only_old_runs_that_no_manifest_names_are_deleted() {
    let bucket = Bucket::default();
    let mut kept = vec![
        backed_up(&bucket, BackupState::Committed, &hours_ago(100)),
        backed_up(&bucket, BackupState::Quarantined, &hours_ago(101)),
        stored_run(&bucket, &hours_ago(47), "99999999"),
        "backups/dtr/notes.txt".to_owned(),
    ];
    put(&bucket, "backups/dtr/notes.txt", b"an operator's own");
    stored_run(&bucket, &hours_ago(100), "99999999");
    stored_run(&bucket, &hours_ago(102), "99999999");
    let operation = "launch-i-0123abcd".parse().unwrap();
    for hours in [100, 102] {
        let key = layout::exceptions(&application(), &hours_ago(hours), &operation);
        put(&bucket, &key, b"{}");
        if hours == 100 {
            kept.push(key);
        }
    }
    let context = context(&bucket, &[]);
    let expected = Deleted {
        orphans: 2,
        ..Deleted::default()
    };
    assert_eq!(pass(&context).await.unwrap(), expected);
    kept.sort();
    assert_eq!(keys(&bucket, "backups/"), kept);
}
