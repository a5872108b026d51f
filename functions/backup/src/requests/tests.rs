//! Operators' requests about one backup, and the objects that they leave.

use super::pins::{pin, unpin};
use super::quarantine::{accept, reject};
use super::*;
use crate::testing::{Bucket, context, keys, put};

const BACKUP: &str = "20260901T021500.000Z";
const QUARANTINED: &str = "quarantine/dtr/2026-09-01/20260901T021500.000Z.json";
const COMMITTED: &str = "manifests/dtr/2026-09-01/20260901T021500.000Z.json";
const PIN: &str = "pins/dtr/20260901T021500.000Z";

fn application() -> ApplicationName {
    "dtr".parse().unwrap()
}

fn backup() -> BackupId {
    BACKUP.parse().unwrap()
}

fn decision(answer: Result<Answer>) -> String {
    match answer {
        Ok(Answer::Done { decision, .. }) => decision.to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn only_an_existing_backup_can_be_pinned_and_an_unpinned_one_leaves_no_pin() {
    let bucket = Bucket::default();
    let context = context(&bucket, &[]);
    let error = pin(&context, &application(), &backup()).await.unwrap_err();
    assert!(error.chain().contains("has no backup"), "{error:?}");
    assert_eq!(keys(&bucket, ""), Vec::<String>::new());

    put(&bucket, COMMITTED, b"{}");
    for _ in 0..2 {
        assert_eq!(
            decision(pin(&context, &application(), &backup()).await),
            "pin"
        );
    }
    assert_eq!(keys(&bucket, "pins/"), [PIN]);
    for _ in 0..2 {
        let unpinned = unpin(&context, &application(), &backup()).await;
        assert_eq!(decision(unpinned), "unpin");
    }
    assert_eq!(keys(&bucket, "pins/"), Vec::<String>::new());
}

#[tokio::test]
async fn a_rejected_backup_does_not_exist_any_more() {
    let bucket = Bucket::default();
    put(&bucket, QUARANTINED, b"{}");
    let context = context(&bucket, &[]);
    assert_eq!(
        decision(reject(&context, &application(), &backup()).await),
        "reject"
    );
    let error = reject(&context, &application(), &backup())
        .await
        .unwrap_err();
    assert!(error.chain().contains("under quarantine"), "{error:?}");
}

#[tokio::test]
async fn an_unreadable_backup_is_not_accepted_and_leaves_no_pin() {
    let bucket = Bucket::default();
    let context = context(&bucket, &[]);
    let error = accept(&context, &application(), &backup())
        .await
        .unwrap_err();
    assert!(error.chain().contains("has no backup"), "{error:?}");
    put(&bucket, QUARANTINED, b"{");
    let error = accept(&context, &application(), &backup())
        .await
        .unwrap_err();
    assert!(error.chain().contains("not readable"), "{error:?}");
    assert_eq!(keys(&bucket, ""), [QUARANTINED]);
}
