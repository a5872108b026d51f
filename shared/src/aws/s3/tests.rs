//! Bounded reads, and writes that never overwrite.

use aws_sdk_s3::operation::delete_objects::DeleteObjectsOutput;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_smithy_mocks::{RuleMode, mock, mock_client};

use super::*;

#[tokio::test]
async fn an_object_larger_than_the_limit_is_not_read() {
    let body = || {
        GetObjectOutput::builder()
            .e_tag("\"1\"")
            .body(ByteStream::from_static(b"12345"))
            .build()
    };
    let unsized_rule = mock!(Client::get_object).then_output(body);
    let sized_rule = mock!(Client::get_object).then_output(|| {
        GetObjectOutput::builder()
            .e_tag("\"1\"")
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
            "key: it has more than the 4 bytes that are read; check which program wrote it"
        );
    }
}

#[tokio::test]
async fn a_head_request_returns_the_checksum_that_s3_verified() {
    let rule = mock!(Client::head_object)
        .match_requests(|request| request.checksum_mode() == Some(&ChecksumMode::Enabled))
        .then_output(|| {
            HeadObjectOutput::builder()
                .e_tag("\"1\"")
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
async fn a_response_without_an_etag_is_requested_again_and_never_used() {
    let head_rule = mock!(Client::head_object)
        .then_output(|| HeadObjectOutput::builder().content_length(9).build());
    let get_rule = mock!(Client::get_object).then_output(|| {
        let body = ByteStream::from_static(b"<Error><Code>InternalError</Code></Error>");
        GetObjectOutput::builder().body(body).build()
    });
    let put_rule = mock!(Client::put_object).then_output(|| PutObjectOutput::builder().build());
    let rules = [&head_rule, &get_rule, &put_rule];
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules);
    let headed = head(&client, "bucket", "key", None).await.map(|_| ());
    let got = read(&client, "bucket", "key", None, 100).await.map(|_| ());
    let put = create(&client, "bucket", "key", vec![1], "text/plain").await;
    for refused in [headed, got, put.map(|_| ())] {
        let error = refused.unwrap_err();
        assert_eq!(
            (error.aws_code(), error.retryable()),
            (Some(NOT_OF_S3), true)
        );
    }
    assert_eq!((head_rule.num_calls(), get_rule.num_calls()), (3, 3));
}

#[tokio::test]
async fn a_denied_bucket_is_not_treated_as_an_empty_one() {
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
}

#[tokio::test(start_paused = true)]
async fn a_write_never_overwrites_and_waits_for_a_concurrent_one() {
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
        .output(|| {
            PutObjectOutput::builder()
                .e_tag("\"1\"")
                .version_id("v1")
                .build()
        })
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

#[tokio::test]
async fn the_error_names_an_object_that_was_not_deleted() {
    let denied = aws_sdk_s3::types::Error::builder()
        .key("backups/dtr/x")
        .code("AccessDenied")
        .message("no")
        .build();
    let rule = mock!(Client::delete_objects)
        .match_requests(|request| {
            request
                .delete()
                .is_some_and(|delete| delete.objects().len() == 2)
        })
        .then_output(move || {
            DeleteObjectsOutput::builder()
                .errors(denied.clone())
                .build()
        });
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&rule]);
    let keys = ["backups/dtr/x", "backups/dtr/y"].map(str::to_owned);
    let error = delete(&client, "bucket", &keys).await.unwrap_err();
    assert_eq!(
        (error.aws_code(), error.retryable()),
        (Some("AccessDenied"), false)
    );
    assert!(error.chain().contains("backups/dtr/x: no"), "{error:?}");
}
