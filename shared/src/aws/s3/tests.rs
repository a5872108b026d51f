//! The newest backups among many, bounded reads, and writes that never overwrite.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2Input, ListObjectsV2Output};
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::types::{CommonPrefix, Object};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

fn stack() -> StackName {
    "dtr".parse().unwrap()
}

/// Answers a listing as S3 does, 1,000 keys a page, and counts the calls.
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
                // What a token ended with has been given already, with everything below it.
                if request.continuation_token() != Some(entry.as_str()) {
                    entries.insert(entry);
                }
            }
            let page: Vec<String> = entries.iter().take(1_000).cloned().collect();
            let truncated = entries.len() > page.len();
            let (prefixes, objects): (Vec<String>, Vec<String>) =
                page.iter().cloned().partition(|entry| entry.ends_with('/'));
            ListObjectsV2Output::builder()
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
    let found = newest_backups(&client, "bucket", &stack(), count, NOW)
        .await
        .unwrap();
    (found, calls.load(Ordering::Relaxed))
}

fn every_minute(minutes: i64) -> BTreeSet<String> {
    let backups = (0..minutes).map(|age| BackupId::at(NOW - Duration::minutes(age)));
    backups
        .map(|backup| layout::manifest(&stack(), &backup))
        .collect()
}

#[tokio::test]
async fn the_newest_backups_cost_as_many_calls_however_many_there_are() {
    let expected: Vec<BackupId> = (0..3)
        .map(|age| BackupId::at(NOW - Duration::minutes(age)))
        .collect();
    let (few, calls_few) = newest(every_minute(200), 3).await;
    let (many, calls_many) = newest(every_minute(20_000), 3).await;
    assert_eq!((&few, &many), (&expected, &expected));
    assert_eq!((calls_few, calls_many), (2, 2));
}

#[tokio::test]
async fn the_newest_of_a_whole_day_are_beyond_its_first_page() {
    let noon = NOW.replace_hour(23).unwrap();
    let keys = (0..1_380)
        .map(|age| layout::manifest(&stack(), &BackupId::at(noon - Duration::minutes(age))))
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
async fn backups_of_long_ago_are_found_as_well() {
    let old = [40, 400, 1_500].map(|days| BackupId::at(NOW - Duration::days(days)));
    let keys = old
        .iter()
        .map(|backup| layout::manifest(&stack(), backup))
        .collect();
    let (found, _) = newest(keys, 3).await;
    assert_eq!(found, old);
}

#[tokio::test]
async fn what_is_no_manifest_of_this_stack_does_not_count() {
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
async fn an_object_larger_than_agreed_is_not_read() {
    let body = || {
        GetObjectOutput::builder()
            .body(ByteStream::from_static(b"12345"))
            .build()
    };
    let unsized_rule = mock!(Client::get_object).then_output(body);
    let sized_rule = mock!(Client::get_object).then_output(|| {
        GetObjectOutput::builder()
            .content_length(5)
            .body(ByteStream::from_static(b"12345"))
            .build()
    });
    for rule in [unsized_rule, sized_rule] {
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&rule]);
        assert_eq!(
            read(&client, "bucket", "key", None, 5).await.unwrap(),
            b"12345"
        );
        let error = read(&client, "bucket", "key", None, 4).await.unwrap_err();
        assert_eq!(
            error.chain(),
            "key: it has more than the 4 bytes that are read"
        );
    }
}

#[tokio::test]
async fn a_head_tells_what_s3_verified() {
    let rule = mock!(Client::head_object)
        .match_requests(|request| request.checksum_mode() == Some(&ChecksumMode::Enabled))
        .then_output(|| {
            HeadObjectOutput::builder()
                .content_length(9)
                .checksum_crc64_nvme("rosUhgp5mIg=")
                .checksum_type(ChecksumType::FullObject)
                .version_id("v1")
                .build()
        });
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&rule]);
    let found = head(&client, "bucket", "key", Some("v1"))
        .await
        .unwrap()
        .unwrap();
    let crc64 = Some("rosUhgp5mIg=".parse().unwrap());
    assert_eq!(
        found,
        Head {
            size: 9,
            crc64,
            full_object: true,
            version_id: Some("v1".to_owned())
        }
    );

    let missing = mock!(Client::head_object)
        .sequence()
        .http_status(404, None)
        .build();
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&missing]);
    assert_eq!(head(&client, "bucket", "key", None).await.unwrap(), None);
}

#[tokio::test]
async fn a_denied_bucket_is_not_taken_for_an_empty_one() {
    let denied = mock!(Client::head_object)
        .sequence()
        .http_status(403, None)
        .build();
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&denied]);
    let error = head(&client, "bucket", "key", None).await.unwrap_err();
    assert_eq!(
        (error.aws_code(), error.retryable()),
        (Some("AccessDenied"), false)
    );
    assert!(error.chain().contains("check REKINDLE_BUCKET"), "{error:?}");

    let body = "<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>";
    let missing = mock!(Client::list_objects_v2)
        .sequence()
        .http_status(404, Some(body.to_owned()))
        .build();
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&missing]);
    let error = newest_backups(&client, "elsewhere", &stack(), 1, NOW)
        .await
        .unwrap_err();
    assert_eq!(error.aws_code(), Some("NoSuchBucket"));
    assert!(
        error.chain().contains(r#"there is no bucket "elsewhere""#),
        "{error:?}"
    );
    assert!(error.chain().contains("NoSuchBucket"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_never_overwrites_and_waits_for_another() {
    let error = |code: &str| {
        Some(format!(
            "<Error><Code>{code}</Code><Message>m</Message></Error>"
        ))
    };
    let put = mock!(Client::put_object)
        .match_requests(|request| {
            request.if_none_match() == Some("*")
                && request.checksum_crc64_nvme() == Some("rosUhgp5mIg=")
        })
        .sequence()
        .http_status(409, error("ConditionalRequestConflict"))
        .times(2)
        .output(|| PutObjectOutput::builder().version_id("v1").build())
        .http_status(412, error("PreconditionFailed"))
        .build();
    let client = mock_client!(aws_sdk_s3, RuleMode::Sequential, [&put]);
    let bytes = b"123456789".to_vec();
    let created = create(&client, "bucket", "key", bytes.clone(), "text/plain")
        .await
        .unwrap();
    assert_eq!(
        created,
        Created::Now {
            version_id: Some("v1".to_owned())
        }
    );
    let again = create(&client, "bucket", "key", bytes, "text/plain")
        .await
        .unwrap();
    assert_eq!(again, Created::AlreadyThere);
}
