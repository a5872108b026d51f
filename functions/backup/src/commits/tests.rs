//! What is said of commits is believed, and nothing else follows from it.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ErrorMetadata;
use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2Error, ListObjectsV2Output};
use aws_sdk_s3::types::Object;
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use shared::aws::lazy;
use time::Duration;
use time::macros::datetime;

use super::*;
use crate::decide::retention;
use crate::testing::{Bucket, function, keys, put};

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

fn application() -> ApplicationName {
    "dtr".parse().unwrap()
}

fn ago(minutes: i64) -> BackupId {
    BackupId::at(NOW - Duration::minutes(minutes))
}

#[tokio::test]
async fn what_is_said_is_known_as_far_back_as_was_asked() {
    let bucket = Bucket::default();
    let function = function(&bucket, &[]);
    for minutes in [0, 5, 20, 35] {
        say(&function, &application(), &ago(minutes)).await;
    }
    // Said a second time, by another delivery of the same event.
    say(&function, &application(), &ago(5)).await;
    assert_eq!(keys(&bucket, "commits/").len(), 4);

    let mut failures = Failures::new(&function.config);
    let mut commits = Commits::unlisted(NOW);
    assert_eq!(commits.newest(&application()), None);
    commits
        .reach(&function, ago(20).time(), &mut failures)
        .await;
    // What came meanwhile is for the next event, and so is what would be read twice.
    say(&function, &application(), &ago(10)).await;
    commits
        .reach(&function, ago(15).time(), &mut failures)
        .await;
    let known =
        |commits: &Commits| [5, 10, 20, 35].map(|age| commits.has(&application(), &ago(age)));
    assert_eq!(known(&commits), [true, false, true, false]);
    commits
        .reach(&function, ago(60).time(), &mut failures)
        .await;
    assert_eq!(known(&commits), [true, false, true, true]);
    assert!(!commits.has(&"gitea".parse().unwrap(), &ago(5)));
    assert_eq!(commits.newest(&application()), Some(&ago(0)));
    assert_eq!(failures.finish().unwrap(), 0);
}

#[tokio::test]
async fn what_is_no_commit_is_passed_over() {
    let bucket = Bucket::default();
    put(
        &bucket,
        "commits/20261123T021500.000Z/Not A Application",
        b"",
    );
    put(&bucket, "commits/20261123T021600.000Z", b"");
    let function = function(&bucket, &[]);
    let mut failures = Failures::new(&function.config);
    let mut commits = Commits::unlisted(NOW);
    commits
        .reach(&function, ago(20).time(), &mut failures)
        .await;
    assert!(commits.said.is_empty(), "{commits:?}");
}

#[tokio::test]
async fn where_something_was_not_listed_no_backup_is_the_newest() {
    let mut function = function(&Bucket::default(), &[]);
    let key = layout::commit(&application(), &ago(30));
    let answer = move || {
        let said = Object::builder().key(key.clone()).build();
        let page = ListObjectsV2Output::builder().name("bucket");
        page.contents(said).build()
    };
    let rule = mock!(Client::list_objects_v2)
        .sequence()
        .http_status(403, None)
        .output(answer)
        .build();
    let s3 = mock_client!(aws_sdk_s3, RuleMode::Sequential, [&rule]);
    function.aws.s3 = lazy(|| s3);
    let mut failures = Failures::new(&function.config);
    let mut commits = Commits::unlisted(NOW);
    for minutes in [20, 60] {
        let since = ago(minutes).time();
        commits.reach(&function, since, &mut failures).await;
    }
    assert!(commits.has(&application(), &ago(30)));
    assert_eq!(commits.newest(&application()), None);
    assert_eq!(failures.finish().unwrap(), 1);
}

/// What is said is believed, so retention must leave its manifest alone for as long as it is listed.
#[test]
fn no_manifest_goes_while_its_commit_is_listed() {
    let listed = budget::COMMIT_WINDOW + budget::BACKUP_EVENT_AGE;
    assert!(seconds(listed) < retention::UNTOUCHED);
}

#[tokio::test]
async fn a_listing_that_fails_is_a_failure_once_and_nothing_is_known() {
    let mut function = function(&Bucket::default(), &[]);
    let refused = mock!(Client::list_objects_v2).then_error(|| {
        let code = ErrorMetadata::builder().code("AccessDenied").build();
        ListObjectsV2Error::generic(code)
    });
    let s3 = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&refused]);
    function.aws.s3 = lazy(|| s3);
    let mut failures = Failures::new(&function.config);
    let mut commits = Commits::unlisted(NOW);
    for minutes in [20, 20, 10] {
        let since = ago(minutes).time();
        commits.reach(&function, since, &mut failures).await;
    }
    assert_eq!(commits.newest(&application()), None);
    assert_eq!(refused.num_calls(), 1);
    assert_eq!(failures.finish().unwrap(), 1);
}
