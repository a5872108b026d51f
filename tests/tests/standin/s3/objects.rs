//! Single objects, listings, and what goes wrong with them on request.

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

use super::world::{bytes, code, settings, world};
use super::{BUCKET, MIB};

#[tokio::test]
async fn nobody_overwrites() {
    let world = world().await;
    let put = || {
        let put = world.client.put_object().bucket(BUCKET).key("manifest");
        put.body(ByteStream::from_static(b"{}"))
    };
    put().if_none_match("*").send().await.unwrap();
    let again = put().if_none_match("*").send().await.unwrap_err();
    assert_eq!(code(&again), "PreconditionFailed");
    assert_eq!(again.raw_response().unwrap().status().as_u16(), 412);
    // Without the policy, S3 replaces.
    put().send().await.unwrap();

    world.s3.deny_overwrite(BUCKET);
    assert_eq!(code(&put().send().await.unwrap_err()), "AccessDenied");
    let upload = world.start("dump").await;
    let part = world.part("dump", &upload, 1, b"bytes").await;
    let crc64 = digests(b"bytes").crc64;
    let complete = || world.complete("dump", &upload, vec![part.clone()], crc64.as_str());
    let bare = complete().set_if_none_match(None).send().await.unwrap_err();
    assert_eq!(code(&bare), "AccessDenied");
    put().key("dump").if_none_match("*").send().await.unwrap();
    let late = complete().send().await.unwrap_err();
    assert_eq!(code(&late), "PreconditionFailed");
}

#[tokio::test]
async fn of_many_concurrent_creators_one_wins() {
    let world = world().await;
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..16 {
        let put = world
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
    let world = world().await;
    let put = || {
        let put = world.client.put_object().bucket(BUCKET).key("index.json");
        put.body(ByteStream::from_static(b"{\"objects\":[]}"))
    };
    let wrong = digests(b"something else").crc64;
    let refused = put()
        .checksum_crc64_nvme(wrong.as_str())
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "BadDigest");
    assert!(world.s3.path(BUCKET, "index.json").is_err());
    let right = digests(b"{\"objects\":[]}").crc64;
    for put in [
        put().checksum_crc64_nvme(right.as_str()),
        put().checksum_algorithm(ChecksumAlgorithm::Crc64Nvme),
    ] {
        put.send().await.unwrap();
        let head = world.client.head_object().bucket(BUCKET).key("index.json");
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

/// Some clients send the checksum only after the body, in an aws-chunked trailer.
#[tokio::test]
async fn a_checksum_in_a_trailer_is_verified() {
    let world = world().await;
    let body = bytes(3 * MIB);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &body).unwrap();
    let put = world.client.put_object().bucket(BUCKET).key("streamed");
    let put = put.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let trailer = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&trailer);
    world.s3.on_request(move |call| {
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
    assert_eq!(world.s3.read(BUCKET, "streamed").unwrap(), body);
}

#[tokio::test]
async fn damage_at_rest_is_not_seen_by_head() {
    let world = world().await;
    let crc64 = digests(b"0123456789").crc64;
    world.put("a", b"0123456789").await;
    let head = async |key: &str| {
        let head = world.client.head_object().bucket(BUCKET).key(key);
        head.checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .unwrap()
    };
    let get = async |key: &str| {
        let get = world
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

    world.s3.flip(BUCKET, "a", 3).unwrap();
    assert_eq!(world.s3.read(BUCKET, "a").unwrap(), b"012\xcc456789");
    assert!(
        get("a").await.is_err(),
        "the SDK itself compares the checksum"
    );
    world.s3.truncate(BUCKET, "a", 2).unwrap();
    assert_eq!(world.s3.read(BUCKET, "a").unwrap(), b"01");
    let after = head("a").await;
    assert_eq!(after.version_id(), before.version_id());
    assert_eq!(after.content_length(), Some(10));
    assert!(after.checksum_crc64_nvme().is_some());

    world.s3.replace(BUCKET, "a", b"0123456789").unwrap();
    let replaced = head("a").await;
    assert_ne!(replaced.version_id(), before.version_id());
    assert_eq!(replaced.checksum_crc64_nvme(), Some(crc64.as_str()));
    assert_eq!(get("a").await.unwrap(), b"0123456789");

    world.put("b", b"other").await;
    world.s3.swap(BUCKET, "a", "b").unwrap();
    assert_eq!(world.s3.read(BUCKET, "a").unwrap(), b"other");
    assert_eq!(head("a").await.checksum_crc64_nvme(), Some(crc64.as_str()));
}

#[tokio::test]
async fn what_is_missing_has_s3s_names() {
    let world = world().await;
    world.put("a", b"1").await;
    let get = || world.client.get_object().bucket(BUCKET).key("a");
    assert_eq!(code(&get().key("b").send().await.unwrap_err()), "NoSuchKey");
    assert_eq!(
        code(&get().bucket("nowhere").send().await.unwrap_err()),
        "NoSuchBucket"
    );
    assert_eq!(
        code(&get().version_id("x").send().await.unwrap_err()),
        "NoSuchVersion"
    );
    let head = world
        .client
        .head_object()
        .bucket(BUCKET)
        .key("b")
        .send()
        .await
        .unwrap_err();
    assert_eq!(head.raw_response().unwrap().status().as_u16(), 404);
    let list = world
        .client
        .list_objects_v2()
        .bucket("nowhere")
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&list), "NoSuchBucket");
    assert!(list.request_id().is_some());

    let delete = world.client.delete_object().bucket(BUCKET).key("a");
    delete.clone().send().await.unwrap();
    delete.send().await.unwrap();
    assert_eq!(code(&get().send().await.unwrap_err()), "NoSuchKey");
}

#[tokio::test]
async fn listings_come_in_order_and_in_pages() {
    let world = world().await;
    for key in ["a/2", "a/1", "b/1", "a/10", "c"] {
        world.put(key, key.as_bytes()).await;
    }
    let mut keys = Vec::new();
    let mut pages = world.client.list_objects_v2().bucket(BUCKET).prefix("a/");
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
    let top = world.client.list_objects_v2().bucket(BUCKET).delimiter("/");
    let top = top.send().await.unwrap();
    let prefixes: Vec<_> = top
        .common_prefixes()
        .iter()
        .filter_map(|one| one.prefix())
        .collect();
    assert_eq!(prefixes, ["a/", "b/"]);
    assert_eq!(top.contents().len(), 1);
    assert!(top.contents()[0].e_tag().is_some());

    // A page that ends with a folder is followed by what is behind it.
    let mut names = Vec::new();
    let one = world.client.list_objects_v2().bucket(BUCKET).max_keys(1);
    let mut pages = one.delimiter("/").into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        let folders = page.common_prefixes().iter().map(|one| one.prefix());
        let objects = page.contents().iter().map(|one| one.key());
        names.extend(folders.chain(objects).flatten().map(str::to_owned));
    }
    assert_eq!(names, ["a/", "b/", "c"]);
    let after = world.client.list_objects_v2().bucket(BUCKET);
    let after = after.prefix("a/").start_after("a/1").send().await.unwrap();
    let after: Vec<_> = after
        .contents()
        .iter()
        .filter_map(|one| one.key())
        .collect();
    assert_eq!(after, ["a/10", "a/2"]);

    // What is deleted is listed no more, and neither is the folder that it was alone in.
    let delete = world.client.delete_object().bucket(BUCKET).key("b/1");
    delete.send().await.unwrap();
    let top = world.client.list_objects_v2().bucket(BUCKET).delimiter("/");
    assert_eq!(top.send().await.unwrap().common_prefixes().len(), 1);
    // Who serves the directory next finds the same.
    let next = S3::new(world.root.path()).unwrap();
    assert_eq!(next.keys(BUCKET, "").unwrap(), ["a/1", "a/10", "a/2", "c"]);
}

#[tokio::test]
async fn denials_and_faults_happen_where_they_are_asked_for() {
    let world = world().await;
    world.put("a/1", b"1").await;
    let get = || world.client.get_object().bucket(BUCKET).key("a/1");
    world.s3.deny("GetObject", BUCKET, "a/");
    assert_eq!(code(&get().send().await.unwrap_err()), "AccessDenied");
    world.s3.deny("ListObjectsV2", BUCKET, "manifests/");
    let list = world
        .client
        .list_objects_v2()
        .bucket(BUCKET)
        .prefix("manifests/x");
    assert_eq!(code(&list.send().await.unwrap_err()), "AccessDenied");
    world.s3.allow_all();
    get().send().await.unwrap();

    let fault = |fault: S3Fault| {
        world.s3.on_request(move |call| {
            let writes = ["PutObject", "CompleteMultipartUpload"];
            writes
                .contains(&call.operation.as_str())
                .then(|| fault.clone())
        });
    };
    let put = |key: &str| {
        let put = world.client.put_object().bucket(BUCKET).key(key);
        put.body(ByteStream::from_static(b"x"))
    };
    fault(S3Fault::Error(
        StatusCode::SERVICE_UNAVAILABLE,
        "SlowDown".to_owned(),
    ));
    assert_eq!(code(&put("b").send().await.unwrap_err()), "SlowDown");
    fault(S3Fault::Reset);
    assert!(put("b").send().await.is_err());
    assert!(world.s3.path(BUCKET, "b").is_err());
    fault(S3Fault::LoseReply);
    assert!(put("b").send().await.is_err());
    assert_eq!(world.s3.read(BUCKET, "b").unwrap(), b"x");
    fault(S3Fault::Stall(Duration::from_millis(200)));
    let before = std::time::Instant::now();
    put("c").send().await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(200));

    let upload = world.start("d").await;
    let part = world.part("d", &upload, 1, b"bytes").await;
    fault(S3Fault::OkWithError("InternalError".to_owned()));
    let crc64 = digests(b"bytes").crc64;
    let complete = world.complete("d", &upload, vec![part], crc64.as_str());
    assert_eq!(code(&complete.send().await.unwrap_err()), "InternalError");
    world.s3.clear_hook();
    assert_eq!(world.s3.counts()["GetObject"], 2);
}

#[tokio::test]
async fn requests_must_be_signed_with_the_secret() {
    let world = world().await;
    let stranger = Client::from_conf(settings(&world.endpoint, "another").build());
    let refused = stranger.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(code(&refused.unwrap_err()), "SignatureDoesNotMatch");
}
