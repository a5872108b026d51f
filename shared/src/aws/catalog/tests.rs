//! The newest backups among many, and keys that are not backups.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2Input, ListObjectsV2Output};
use aws_sdk_s3::types::{CommonPrefix, Object};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

fn application() -> ApplicationName {
    "dtr".parse().unwrap()
}

/// A bucket that lists its keys as S3 does, 1,000 a page, and counts the calls.
fn bucket(keys: BTreeSet<String>) -> (Rule, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let rule =
        mock!(Client::list_objects_v2).then_compute_output(move |request: &ListObjectsV2Input| {
            counted.fetch_add(1, Ordering::Relaxed);
            let prefix = request.prefix().unwrap_or_default();
            let after = request
                .continuation_token()
                .or(request.start_after())
                .unwrap_or_default();
            let mut entries: BTreeSet<String> = BTreeSet::new();
            for key in keys
                .iter()
                .filter(|key| key.starts_with(prefix) && key.as_str() > after)
            {
                let entry = match request
                    .delimiter()
                    .and_then(|delimiter| key[prefix.len()..].find(delimiter))
                {
                    Some(end) => key[..=prefix.len() + end].to_owned(),
                    None => key.clone(),
                };
                // The page before ended with this entry.
                if request.continuation_token() != Some(entry.as_str()) {
                    entries.insert(entry);
                }
            }
            let page: Vec<String> = entries.iter().take(1_000).cloned().collect();
            let truncated = entries.len() > page.len();
            let (prefixes, objects): (Vec<String>, Vec<String>) =
                page.iter().cloned().partition(|entry| entry.ends_with('/'));
            ListObjectsV2Output::builder()
                .name("bucket")
                .is_truncated(truncated)
                .set_next_continuation_token(truncated.then(|| page.last().cloned()).flatten())
                .set_common_prefixes(Some(
                    prefixes
                        .into_iter()
                        .map(|prefix| CommonPrefix::builder().prefix(prefix).build())
                        .collect(),
                ))
                .set_contents(Some(
                    objects
                        .into_iter()
                        .map(|key| Object::builder().key(key).build())
                        .collect(),
                ))
                .build()
        });
    (rule, calls)
}

async fn newest(keys: BTreeSet<String>, count: usize) -> (Vec<BackupId>, usize) {
    let (rule, calls) = bucket(keys);
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&rule]);
    let found = super::newest(
        &client,
        "bucket",
        &application(),
        BackupState::Committed,
        count,
        NOW,
    )
    .await
    .unwrap();
    (found, calls.load(Ordering::Relaxed))
}

fn every_minute(minutes: i64) -> BTreeSet<String> {
    let backups = (0..minutes).map(|age| BackupId::at(NOW - Duration::minutes(age)));
    backups
        .map(|backup| layout::manifest(&application(), &backup))
        .collect()
}

#[tokio::test]
async fn the_number_of_calls_does_not_depend_on_the_number_of_backups() {
    let expected: Vec<BackupId> = (0..3)
        .map(|age| BackupId::at(NOW - Duration::minutes(age)))
        .collect();
    let (few, calls_few) = newest(every_minute(200), 3).await;
    let (many, calls_many) = newest(every_minute(20_000), 3).await;
    assert_eq!((&few, &many), (&expected, &expected));
    assert_eq!((calls_few, calls_many), (2, 2));
}

#[tokio::test]
async fn the_newest_backups_of_a_full_day_are_on_its_second_page() {
    let noon = NOW.replace_hour(23).unwrap();
    let keys = (0..1_380)
        .map(|age| layout::manifest(&application(), &BackupId::at(noon - Duration::minutes(age))))
        .collect();
    let (found, _) = newest(keys, 2).await;
    assert_eq!(
        found,
        [
            BackupId::at(noon),
            BackupId::at(noon - Duration::minutes(1))
        ]
    );
}

#[tokio::test]
async fn recent_commit_markers_cost_one_call_for_each_thousand() {
    let names = ["dtr", "gitea"].map(|name| name.parse::<ApplicationName>().unwrap());
    let markers = |from: i64, to: i64| -> BTreeSet<(ApplicationName, BackupId)> {
        let ages = from..to;
        ages.map(|age| BackupId::at(NOW - Duration::minutes(age)))
            .flat_map(|backup| {
                names
                    .clone()
                    .map(|application| (application, backup.clone()))
            })
            .collect()
    };
    let mut keys: BTreeSet<String> = markers(0, 20_000)
        .iter()
        .map(|(application, backup)| layout::commit(application, backup))
        .collect();
    keys.insert("commits/20261123T021500.000Z/No Application".to_owned());
    let (rule, calls) = bucket(keys);
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&rule]);
    let ago = |minutes| NOW - Duration::minutes(minutes);
    let expected = [
        (ago(120), NOW + Duration::minutes(1), markers(0, 121), 1),
        // `since` is included, `until` is not.
        (ago(240), ago(120), markers(121, 241), 1),
        (ago(1_200), ago(0), markers(1, 1_201), 3),
    ];
    for (since, until, expected, most_calls) in expected {
        let before = calls.load(Ordering::Relaxed);
        let found = commits(&client, "bucket", since, until).await.unwrap();
        assert_eq!(BTreeSet::from_iter(found), expected);
        assert_eq!(calls.load(Ordering::Relaxed) - before, most_calls);
    }
}

#[tokio::test]
async fn all_quarantined_applications_are_listed_with_one_call() {
    let mut keys = BTreeSet::from(["quarantine/No Application/notes".to_owned()]);
    for name in ["dtr", "gitea"] {
        let application = name.parse().unwrap();
        let backups = (0..2_000).map(|age| BackupId::at(NOW - Duration::minutes(age)));
        keys.extend(backups.map(|backup| BackupState::Quarantined.manifest(&application, &backup)));
    }
    let (rule, calls) = bucket(keys);
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&rule]);
    let found = applications(&client, "bucket", BackupState::Quarantined).await;
    let expected = ["dtr", "gitea"].map(|name| name.parse().unwrap());
    assert_eq!(found.unwrap(), expected.into());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn old_backups_are_found() {
    let old = [40, 400, 1_500].map(|days| BackupId::at(NOW - Duration::days(days)));
    let keys = old
        .iter()
        .map(|backup| layout::manifest(&application(), backup))
        .collect();
    let (found, _) = newest(keys, 3).await;
    assert_eq!(found, old);
}

#[tokio::test]
async fn only_manifests_of_this_application_count() {
    let keys = [
        "manifests/dtr/2026-11-23/notes.json",
        "manifests/dtr/2026-11-22/20261123T021500.000Z.json",
        "manifests/dtr/notes/20261123T021500.000Z.json",
        "manifests/dtr-two/2026-11-23/20261123T021500.000Z.json",
    ];
    let (found, _) = newest(keys.map(str::to_owned).into(), 3).await;
    assert_eq!(found, []);
}

#[tokio::test]
async fn a_missing_bucket_is_not_treated_as_an_empty_one() {
    let body = "<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>";
    let missing = mock!(Client::list_objects_v2)
        .sequence()
        .http_status(404, Some(body.to_owned()))
        .build();
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&missing]);
    let error = super::newest(
        &client,
        "elsewhere",
        &application(),
        BackupState::Committed,
        1,
        NOW,
    )
    .await
    .unwrap_err();
    assert_eq!(error.aws_code(), Some("NoSuchBucket"));
    assert!(
        error.chain().contains(r#"there is no bucket "elsewhere""#),
        "{error:?}"
    );
    assert!(error.chain().contains("NoSuchBucket"), "{error:?}");
}
