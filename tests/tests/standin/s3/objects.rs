//! Single objects, listings, and the faults that a test can inject.

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::RequestId as _;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_sdk_s3::types::ChecksumMode;
use aws_sdk_s3::types::ChecksumType;
use axum::http::StatusCode;
use rekindle_tests::standin::s3::{S3, S3Fault};
use shared::checksum::digests;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::setup::{bytes, code, settings, start};
use super::{BUCKET, MIB};

#[tokio::test]
async fn a_conditional_put_never_overwrites() {
    let setup = start().await;
    let put = || {
        let put = setup.client.put_object().bucket(BUCKET).key("manifest");
        put.body(ByteStream::from_static(b"{}"))
    };
    put().if_none_match("*").send().await.unwrap();
    let again = put().if_none_match("*").send().await.unwrap_err();
    assert_eq!(code(&again), "PreconditionFailed");
    assert_eq!(again.raw_response().unwrap().status().as_u16(), 412);
    // Without the bucket policy, an unconditional put replaces the object.
    put().send().await.unwrap();

    setup.s3.deny_overwrite(BUCKET);
    assert_eq!(code(&put().send().await.unwrap_err()), "AccessDenied");
    let upload = setup.start_upload("dump").await;
    let part = setup.part("dump", &upload, 1, b"bytes").await;
    let crc64 = digests(b"bytes").crc64;
    let complete = || setup.complete("dump", &upload, vec![part.clone()], crc64.as_str());
    let bare = complete().set_if_none_match(None).send().await.unwrap_err();
    assert_eq!(code(&bare), "AccessDenied");
    put().key("dump").if_none_match("*").send().await.unwrap();
    let late = complete().send().await.unwrap_err();
    assert_eq!(code(&late), "PreconditionFailed");
}

#[tokio::test]
async fn of_many_concurrent_conditional_puts_exactly_one_succeeds() {
    let setup = start().await;
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..16 {
        let put = setup
            .client
            .put_object()
            .bucket(BUCKET)
            .key("claim")
            .if_none_match("*");
        let put = put.body(ByteStream::from(vec![number]));
        puts.spawn(async move { put.send().await.is_ok() });
    }
    let won = puts.join_all().await.into_iter().filter(|&won| won).count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_single_put_is_verified_and_reports_its_checksum() {
    let setup = start().await;
    let put = || {
        let put = setup.client.put_object().bucket(BUCKET).key("index.json");
        put.body(ByteStream::from_static(b"{\"objects\":[]}"))
    };
    let wrong = digests(b"something else").crc64;
    let refused = put()
        .checksum_crc64_nvme(wrong.as_str())
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "BadDigest");
    assert!(setup.s3.path(BUCKET, "index.json").is_err());
    let right = digests(b"{\"objects\":[]}").crc64;
    for put in [
        put().checksum_crc64_nvme(right.as_str()),
        put().checksum_algorithm(ChecksumAlgorithm::Crc64Nvme),
    ] {
        put.send().await.unwrap();
        let head = setup.client.head_object().bucket(BUCKET).key("index.json");
        let plain = head.clone().send().await.unwrap();
        assert_eq!(plain.checksum_crc64_nvme(), None);
        let head = head
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .unwrap();
        assert_eq!(head.checksum_crc64_nvme(), Some(right.as_str()));
        assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
    }
}

/// Some clients send the checksum after the body, in an aws-chunked trailer.
#[tokio::test]
async fn a_checksum_in_a_trailer_is_verified() {
    let setup = start().await;
    let body = bytes(3 * MIB);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &body).unwrap();
    let put = setup.client.put_object().bucket(BUCKET).key("streamed");
    let put = put.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let trailer = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&trailer);
    setup.s3.on_request(move |call| {
        seen.fetch_or(call.headers.contains_key("x-amz-trailer"), Ordering::SeqCst);
        None
    });
    let put = put.body(ByteStream::from_path(file.path()).await.unwrap());
    let done = put.send().await.unwrap();
    assert!(trailer.load(Ordering::SeqCst), "the SDK sent no trailer");
    assert_eq!(
        done.checksum_crc64_nvme(),
        Some(digests(&body).crc64.as_str())
    );
    assert_eq!(setup.s3.read(BUCKET, "streamed").unwrap(), body);
}

#[tokio::test]
async fn head_does_not_report_damage_at_rest() {
    let setup = start().await;
    let crc64 = digests(b"0123456789").crc64;
    setup.put("a", b"0123456789").await;
    let head = async |key: &str| {
        let head = setup.client.head_object().bucket(BUCKET).key(key);
        head.checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .unwrap()
    };
    let get = async |key: &str| {
        let get = setup
            .client
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
        get.body
            .collect()
            .await
            .map(aws_sdk_s3::primitives::AggregatedBytes::to_vec)
    };
    let before = head("a").await;

    setup.s3.flip(BUCKET, "a", 3).unwrap();
    assert_eq!(setup.s3.read(BUCKET, "a").unwrap(), b"012\xcc456789");
    assert!(
        get("a").await.is_err(),
        "the SDK itself compares the checksum"
    );
    setup.s3.truncate(BUCKET, "a", 2).unwrap();
    assert_eq!(setup.s3.read(BUCKET, "a").unwrap(), b"01");
    let after = head("a").await;
    assert_eq!(after.version_id(), before.version_id());
    assert_eq!(after.content_length(), Some(10));
    assert!(after.checksum_crc64_nvme().is_some());

    setup.s3.replace(BUCKET, "a", b"0123456789").unwrap();
    let replaced = head("a").await;
    assert_ne!(replaced.version_id(), before.version_id());
    assert_eq!(replaced.checksum_crc64_nvme(), Some(crc64.as_str()));
    assert_eq!(get("a").await.unwrap(), b"0123456789");

    setup.put("b", b"other").await;
    setup.s3.swap(BUCKET, "a", "b").unwrap();
    assert_eq!(setup.s3.read(BUCKET, "a").unwrap(), b"other");
    assert_eq!(head("a").await.checksum_crc64_nvme(), Some(crc64.as_str()));
}

#[tokio::test]
async fn requests_for_missing_things_get_the_error_codes_of_s3() {
    let setup = start().await;
    setup.put("a", b"1").await;
    let get = || setup.client.get_object().bucket(BUCKET).key("a");
    assert_eq!(code(&get().key("b").send().await.unwrap_err()), "NoSuchKey");
    assert_eq!(
        code(&get().bucket("nowhere").send().await.unwrap_err()),
        "NoSuchBucket"
    );
    assert_eq!(
        code(&get().version_id("x").send().await.unwrap_err()),
        "NoSuchVersion"
    );
    let head = setup
        .client
        .head_object()
        .bucket(BUCKET)
        .key("b")
        .send()
        .await
        .unwrap_err();
    assert_eq!(head.raw_response().unwrap().status().as_u16(), 404);
    let list = setup
        .client
        .list_objects_v2()
        .bucket("nowhere")
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&list), "NoSuchBucket");
    assert!(list.request_id().is_some());

    let delete = setup.client.delete_object().bucket(BUCKET).key("a");
    delete.clone().send().await.unwrap();
    delete.send().await.unwrap();
    assert_eq!(code(&get().send().await.unwrap_err()), "NoSuchKey");
}

#[tokio::test]
async fn listings_are_ordered_and_paginated() {
    let setup = start().await;
    for key in ["a/2", "a/1", "b/1", "a/10", "c"] {
        setup.put(key, key.as_bytes()).await;
    }
    let mut keys = Vec::new();
    let mut pages = setup.client.list_objects_v2().bucket(BUCKET).prefix("a/");
    pages = pages.max_keys(2);
    let mut pages = pages.into_paginator().send();
    while let Some(page) = pages.next().await {
        keys.extend(
            page.unwrap()
                .contents()
                .iter()
                .map(|object| object.key().unwrap().to_owned()),
        );
    }
    assert_eq!(keys, ["a/1", "a/10", "a/2"]);
    let top = setup.client.list_objects_v2().bucket(BUCKET).delimiter("/");
    let top = top.send().await.unwrap();
    let prefixes: Vec<_> = top
        .common_prefixes()
        .iter()
        .filter_map(|one| one.prefix())
        .collect();
    assert_eq!(prefixes, ["a/", "b/"]);
    assert_eq!(top.contents().len(), 1);
    assert!(top.contents()[0].e_tag().is_some());

    // If a page ends with a common prefix, the next page continues after it.
    let mut names = Vec::new();
    let one = setup.client.list_objects_v2().bucket(BUCKET).max_keys(1);
    let mut pages = one.delimiter("/").into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        let folders = page.common_prefixes().iter().map(|one| one.prefix());
        let objects = page.contents().iter().map(|one| one.key());
        names.extend(folders.chain(objects).flatten().map(str::to_owned));
    }
    assert_eq!(names, ["a/", "b/", "c"]);
    let after = setup.client.list_objects_v2().bucket(BUCKET);
    let after = after.prefix("a/").start_after("a/1").send().await.unwrap();
    let after: Vec<_> = after
        .contents()
        .iter()
        .filter_map(|one| one.key())
        .collect();
    assert_eq!(after, ["a/10", "a/2"]);

    // A deleted object is not listed any more, and neither is a common prefix without objects.
    let delete = setup.client.delete_object().bucket(BUCKET).key("b/1");
    delete.send().await.unwrap();
    let top = setup.client.list_objects_v2().bucket(BUCKET).delimiter("/");
    assert_eq!(top.send().await.unwrap().common_prefixes().len(), 1);
    // Another stand-in on the same directory lists the same objects.
    let next = S3::new(setup.root.path()).unwrap();
    assert_eq!(next.keys(BUCKET, "").unwrap(), ["a/1", "a/10", "a/2", "c"]);
}

#[tokio::test]
async fn denials_and_faults_apply_only_where_they_are_injected() {
    let setup = start().await;
    setup.put("a/1", b"1").await;
    let get = || setup.client.get_object().bucket(BUCKET).key("a/1");
    setup.s3.deny("GetObject", BUCKET, "a/");
    assert_eq!(code(&get().send().await.unwrap_err()), "AccessDenied");
    setup.s3.deny("ListObjectsV2", BUCKET, "manifests/");
    let list = setup
        .client
        .list_objects_v2()
        .bucket(BUCKET)
        .prefix("manifests/x");
    assert_eq!(code(&list.send().await.unwrap_err()), "AccessDenied");
    setup.s3.allow_all();
    get().send().await.unwrap();

    let fault = |fault: S3Fault| {
        setup.s3.on_request(move |call| {
            let writes = ["PutObject", "CompleteMultipartUpload"];
            writes
                .contains(&call.operation.as_str())
                .then(|| fault.clone())
        });
    };
    let put = |key: &str| {
        let put = setup.client.put_object().bucket(BUCKET).key(key);
        put.body(ByteStream::from_static(b"x"))
    };
    fault(S3Fault::Error(
        StatusCode::SERVICE_UNAVAILABLE,
        "SlowDown".to_owned(),
    ));
    assert_eq!(code(&put("b").send().await.unwrap_err()), "SlowDown");
    fault(S3Fault::Reset);
    assert!(put("b").send().await.is_err());
    assert!(setup.s3.path(BUCKET, "b").is_err());
    fault(S3Fault::LoseReply);
    assert!(put("b").send().await.is_err());
    assert_eq!(setup.s3.read(BUCKET, "b").unwrap(), b"x");
    fault(S3Fault::Stall(Duration::from_millis(200)));
    let before = std::time::Instant::now();
    put("c").send().await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(200));

    let upload = setup.start_upload("d").await;
    let part = setup.part("d", &upload, 1, b"bytes").await;
    fault(S3Fault::OkWithError("InternalError".to_owned()));
    let crc64 = digests(b"bytes").crc64;
    let complete = setup.complete("d", &upload, vec![part], crc64.as_str());
    assert_eq!(code(&complete.send().await.unwrap_err()), "InternalError");
    setup.s3.clear_hook();
    assert_eq!(setup.s3.counts()["GetObject"], 2);
}

#[tokio::test]
async fn requests_must_be_signed_with_the_secret() {
    let setup = start().await;
    let stranger = Client::from_conf(settings(&setup.endpoint, "another").build());
    let refused = stranger.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(code(&refused.unwrap_err()), "SignatureDoesNotMatch");
}
