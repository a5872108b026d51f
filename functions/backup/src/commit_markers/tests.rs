//! Each marker is listed once, and after a failed listing markers may be missing.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ErrorMetadata;
use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2Error, ListObjectsV2Output};
use aws_sdk_s3::types::Object;
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use shared::aws::lazy;
use time::Duration;
use time::macros::datetime;

use super::*;
use crate::retention::decide::UNTOUCHED;
use crate::testing::{Bucket, context, keys, put};

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

fn application() -> ApplicationName {
    "dtr".parse().unwrap()
}

fn ago(minutes: i64) -> BackupId {
    BackupId::at(NOW - Duration::minutes(minutes))
}

#[tokio::test]
async fn markers_are_known_as_far_back_as_they_were_listed() {
    let bucket = Bucket::default();
    let context = context(&bucket, &[]);
    for minutes in [0, 5, 20, 35] {
        write(&context, &application(), &ago(minutes)).await;
    }
    // Written again by another delivery of the same event.
    write(&context, &application(), &ago(5)).await;
    assert_eq!(keys(&bucket, "commits/").len(), 4);

    let mut failures = Failures::new(&context);
    let mut markers = CommitMarkers::unlisted(NOW);
    assert_eq!(markers.newest(&application()), None);
    markers
        .list_since(&context, ago(20).time(), &mut failures)
        .await;
    // A marker that was written after the first listing is not seen: no time span is listed twice.
    write(&context, &application(), &ago(10)).await;
    markers
        .list_since(&context, ago(15).time(), &mut failures)
        .await;
    let known = |markers: &CommitMarkers| {
        [5, 10, 20, 35].map(|age| markers.contains(&application(), &ago(age)))
    };
    assert_eq!(known(&markers), [true, false, true, false]);
    markers
        .list_since(&context, ago(60).time(), &mut failures)
        .await;
    assert_eq!(known(&markers), [true, false, true, true]);
    assert!(!markers.contains(&"gitea".parse().unwrap(), &ago(5)));
    assert_eq!(markers.newest(&application()), Some(&ago(0)));
    assert_eq!(failures.finish().unwrap(), 0);
}

#[tokio::test]
async fn keys_that_are_no_markers_are_skipped() {
    let bucket = Bucket::default();
    put(
        &bucket,
        "commits/20261123T021500.000Z/Not An Application",
        b"",
    );
    put(&bucket, "commits/20261123T021600.000Z", b"");
    let context = context(&bucket, &[]);
    let mut failures = Failures::new(&context);
    let mut markers = CommitMarkers::unlisted(NOW);
    markers
        .list_since(&context, ago(20).time(), &mut failures)
        .await;
    assert!(markers.listed.is_empty(), "{markers:?}");
}

#[tokio::test]
async fn after_a_failed_listing_no_backup_is_the_newest() {
    let mut context = context(&Bucket::default(), &[]);
    let key = layout::commit(&application(), &ago(30));
    let answer = move || {
        let marker = Object::builder().key(key.clone()).build();
        let page = ListObjectsV2Output::builder().name("bucket");
        page.contents(marker).build()
    };
    let rule = mock!(Client::list_objects_v2)
        .sequence()
        .http_status(403, None)
        .output(answer)
        .build();
    let s3 = mock_client!(aws_sdk_s3, RuleMode::Sequential, [&rule]);
    context.aws.s3 = lazy(|| s3);
    let mut failures = Failures::new(&context);
    let mut markers = CommitMarkers::unlisted(NOW);
    for minutes in [20, 60] {
        let since = ago(minutes).time();
        markers.list_since(&context, since, &mut failures).await;
    }
    assert!(markers.contains(&application(), &ago(30)));
    assert_eq!(markers.newest(&application()), None);
    assert_eq!(failures.finish().unwrap(), 1);
}

/// A marker proves that its backup is committed, so retention must keep the manifest while the marker is listed.
#[test]
fn no_manifest_is_deleted_while_its_marker_is_listed() {
    let listed = budget::COMMIT_WINDOW + budget::BACKUP_EVENT_AGE;
    assert!(seconds(listed) < UNTOUCHED);
}

#[tokio::test]
async fn a_failed_listing_is_recorded_once_and_leaves_no_newest() {
    let mut context = context(&Bucket::default(), &[]);
    let refused = mock!(Client::list_objects_v2).then_error(|| {
        let code = ErrorMetadata::builder().code("AccessDenied").build();
        ListObjectsV2Error::generic(code)
    });
    let s3 = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&refused]);
    context.aws.s3 = lazy(|| s3);
    let mut failures = Failures::new(&context);
    let mut markers = CommitMarkers::unlisted(NOW);
    for minutes in [20, 20, 10] {
        let since = ago(minutes).time();
        markers.list_since(&context, since, &mut failures).await;
    }
    assert_eq!(markers.newest(&application()), None);
    assert_eq!(refused.num_calls(), 1);
    assert_eq!(failures.finish().unwrap(), 1);
}
