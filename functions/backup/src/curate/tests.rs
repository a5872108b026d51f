use super::*;
use crate::testing::{Bucket, function, keys, put};

const BACKUP: &str = "20260901T021500.000Z";
const ASIDE: &str = "quarantine/dtr/2026-09-01/20260901T021500.000Z.json";
const COMMITTED: &str = "manifests/dtr/2026-09-01/20260901T021500.000Z.json";
const PIN: &str = "pins/dtr/20260901T021500.000Z";

fn application() -> ApplicationName {
    "dtr".parse().unwrap()
}

fn backup() -> BackupId {
    BACKUP.parse().unwrap()
}

fn decision(outcome: Result<Outcome>) -> String {
    match outcome {
        Ok(Outcome::Curated { decision, .. }) => decision,
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn only_what_is_there_can_be_pinned_and_an_unpinned_backup_leaves_no_trace() {
    let bucket = Bucket::default();
    let function = function(&bucket, &[]);
    let error = pin(&function, &application(), &backup()).await.unwrap_err();
    assert!(error.chain().contains("has no backup"), "{error:?}");
    assert_eq!(keys(&bucket, ""), Vec::<String>::new());

    put(&bucket, COMMITTED, b"{}");
    for _ in 0..2 {
        assert!(decision(pin(&function, &application(), &backup()).await).starts_with("pinned"));
    }
    assert_eq!(keys(&bucket, "pins/"), [PIN]);
    for _ in 0..2 {
        assert!(
            decision(unpin(&function, &application(), &backup()).await).starts_with("unpinned")
        );
    }
    assert_eq!(keys(&bucket, "pins/"), Vec::<String>::new());
}

#[tokio::test]
async fn a_rejected_backup_is_none_any_more() {
    let bucket = Bucket::default();
    put(&bucket, ASIDE, b"{}");
    let function = function(&bucket, &[]);
    assert!(decision(reject(&function, &application(), &backup()).await).starts_with("rejected"));
    let error = reject(&function, &application(), &backup())
        .await
        .unwrap_err();
    assert!(error.chain().contains("under quarantine"), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_accepted_and_leaves_no_pin() {
    let bucket = Bucket::default();
    let function = function(&bucket, &[]);
    let error = accept(&function, &application(), &backup())
        .await
        .unwrap_err();
    assert!(error.chain().contains("has no backup"), "{error:?}");
    put(&bucket, ASIDE, b"{");
    let error = accept(&function, &application(), &backup())
        .await
        .unwrap_err();
    assert!(error.chain().contains("not readable"), "{error:?}");
    assert_eq!(keys(&bucket, ""), [ASIDE]);
}
