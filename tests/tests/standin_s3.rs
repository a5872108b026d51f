//! The S3 stand-in, asked by the real SDK over the wire.

#![expect(
    clippy::unwrap_used,
    reason = "what a test sets up may fail as loudly as what it asserts"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId as _;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use rekindle_tests::s3::{ACCESS_KEY, Fault, S3, SECRET_KEY};
use shared::checksum::digests;

const BUCKET: &str = "backups";
const MIB: usize = 1 << 20;

struct World {
    s3: S3,
    client: Client,
    endpoint: String,
    _root: tempfile::TempDir,
}

async fn world() -> World {
    let root = tempfile::tempdir().unwrap();
    let s3 = S3::new(root.path()).unwrap();
    s3.create_bucket(BUCKET).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let routes = axum::Router::new()
        .fallback(async |State(s3): State<S3>, request: Request| s3.handle(request).await)
        .with_state(s3.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let client = Client::from_conf(settings(&endpoint, SECRET_KEY).build());
    World {
        s3,
        client,
        endpoint,
        _root: root,
    }
}

fn settings(endpoint: &str, secret: &str) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, secret, None, None, "test"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
}

/// Bytes that no compression or alignment makes trivial.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(next).collect()
}

fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> &str {
    error.code().unwrap_or("no code")
}

impl World {
    async fn put(&self, key: &str, body: &[u8]) {
        let put = self.client.put_object().bucket(BUCKET).key(key);
        let put = put.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
        let put = put.body(ByteStream::from(body.to_vec()));
        put.send().await.unwrap();
    }

    async fn start(&self, key: &str) -> String {
        let create = self
            .client
            .create_multipart_upload()
            .bucket(BUCKET)
            .key(key);
        let create = create
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject);
        create.send().await.unwrap().upload_id.unwrap()
    }

    async fn part(&self, key: &str, upload: &str, number: i32, body: &[u8]) -> CompletedPart {
        let part = self.client.upload_part().bucket(BUCKET).key(key);
        let part = part
            .upload_id(upload)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
        let part = part
            .body(ByteStream::from(body.to_vec()))
            .send()
            .await
            .unwrap();
        let expected = digests(body).crc64;
        assert_eq!(part.checksum_crc64_nvme(), Some(expected.as_str()));
        CompletedPart::builder()
            .part_number(number)
            .e_tag(part.e_tag.unwrap())
            .build()
    }

    /// Completes as the agent does, with the checksum of the whole object.
    fn complete(
        &self,
        key: &str,
        upload: &str,
        parts: Vec<CompletedPart>,
        crc64: &str,
    ) -> aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder
    {
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        self.client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key(key)
            .upload_id(upload)
            .if_none_match("*")
            .checksum_type(ChecksumType::FullObject)
            .checksum_crc64_nvme(crc64)
            .multipart_upload(parts)
    }
}

#[tokio::test]
async fn a_multipart_object_reports_the_checksum_of_all_its_bytes() {
    let world = world().await;
    let body = bytes(11 * MIB + 17);
    let upload = world.start("a/dump").await;
    // Parts may come in any order.
    let second = world.part("a/dump", &upload, 2, &body[6 * MIB..]).await;
    let first = world.part("a/dump", &upload, 1, &body[..6 * MIB]).await;
    let crc64 = digests(&body).crc64;
    let complete = world.complete("a/dump", &upload, vec![first, second], crc64.as_str());
    let size = i64::try_from(body.len()).unwrap();
    let done = complete.mpu_object_size(size).send().await.unwrap();
    assert_eq!(done.checksum_crc64_nvme(), Some(crc64.as_str()));
    assert!(done.e_tag().unwrap().ends_with("-2\""));

    let head = world.client.head_object().bucket(BUCKET).key("a/dump");
    let head = head
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some(crc64.as_str()));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
    assert_eq!(head.content_length(), Some(size));
    assert_eq!(head.version_id(), done.version_id());

    let get = world.client.get_object().bucket(BUCKET).key("a/dump");
    let get = get
        .version_id(done.version_id().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(get.body.collect().await.unwrap().to_vec(), body);

    let range = world
        .client
        .get_object()
        .bucket(BUCKET)
        .key("a/dump")
        .range("bytes=5-9");
    let range = range.send().await.unwrap();
    assert_eq!(range.checksum_crc64_nvme(), None);
    assert_eq!(range.body.collect().await.unwrap().to_vec(), &body[5..10]);
}

#[tokio::test]
async fn a_wrong_checksum_at_completion_creates_nothing() {
    let world = world().await;
    let body = bytes(MIB);
    let upload = world.start("dump").await;
    let part = world.part("dump", &upload, 1, &body).await;
    let wrong = digests(b"something else").crc64;
    let refused = world.complete("dump", &upload, vec![part.clone()], wrong.as_str());
    assert_eq!(code(&refused.send().await.unwrap_err()), "BadDigest");
    let crc64 = digests(&body).crc64;
    let short = world.complete("dump", &upload, vec![part.clone()], crc64.as_str());
    let short = short.mpu_object_size(17).send().await.unwrap_err();
    assert_eq!(code(&short), "InvalidRequest");
    assert_eq!(world.s3.keys(BUCKET, "").unwrap(), Vec::<String>::new());

    // The upload is still open, and may yet be completed rightly, once.
    let right = world.complete("dump", &upload, vec![part.clone()], crc64.as_str());
    right.send().await.unwrap();
    let again = world.complete("dump", &upload, vec![part], crc64.as_str());
    assert_eq!(code(&again.send().await.unwrap_err()), "NoSuchUpload");
}

#[tokio::test]
async fn a_part_is_refused_when_its_bytes_do_not_match() {
    let world = world().await;
    let upload = world.start("dump").await;
    let part = world.client.upload_part().bucket(BUCKET).key("dump");
    let part = part.upload_id(&upload).part_number(1);
    let wrong = digests(b"something else").crc64;
    let part = part.checksum_crc64_nvme(wrong.as_str());
    let refused = part.body(ByteStream::from_static(b"bytes")).send().await;
    assert_eq!(code(&refused.unwrap_err()), "BadDigest");

    let good = world.part("dump", &upload, 1, b"bytes").await;
    let crc64 = digests(b"bytes").crc64;
    let forged = CompletedPart::builder()
        .part_number(1)
        .e_tag("\"00\"")
        .build();
    let forged = world.complete("dump", &upload, vec![forged], crc64.as_str());
    assert_eq!(code(&forged.send().await.unwrap_err()), "InvalidPart");
    let missing = CompletedPart::builder()
        .part_number(2)
        .e_tag(good.e_tag().unwrap())
        .build();
    let missing = world.complete("dump", &upload, vec![good, missing], crc64.as_str());
    assert_eq!(code(&missing.send().await.unwrap_err()), "InvalidPart");
}

#[tokio::test]
async fn only_the_last_part_may_be_small() {
    let world = world().await;
    let upload = world.start("dump").await;
    let first = world.part("dump", &upload, 1, b"small").await;
    let second = world.part("dump", &upload, 2, b"last").await;
    let crc64 = digests(b"smalllast").crc64;
    let parts = vec![first.clone(), second.clone()];
    let complete = world.complete("dump", &upload, parts, crc64.as_str());
    assert_eq!(code(&complete.send().await.unwrap_err()), "EntityTooSmall");
    let complete = world.complete("dump", &upload, vec![second, first], crc64.as_str());
    assert_eq!(
        code(&complete.send().await.unwrap_err()),
        "InvalidPartOrder"
    );
}

#[tokio::test]
async fn open_uploads_are_listed_until_they_are_aborted() {
    let world = world().await;
    let upload = world.start("a/dump").await;
    world.part("a/dump", &upload, 10, b"ten").await;
    world.part("a/dump", &upload, 9, b"nine").await;
    let uploads = world
        .client
        .list_multipart_uploads()
        .bucket(BUCKET)
        .prefix("a/");
    let uploads = uploads.send().await.unwrap();
    let ids: Vec<_> = uploads
        .uploads()
        .iter()
        .filter_map(|one| one.upload_id())
        .collect();
    assert_eq!(ids, [upload.as_str()]);
    let list = || {
        world
            .client
            .list_parts()
            .bucket(BUCKET)
            .key("a/dump")
            .upload_id(&upload)
    };
    let parts = list().send().await.unwrap();
    let numbers: Vec<_> = parts
        .parts()
        .iter()
        .map(|part| (part.part_number(), part.size()))
        .collect();
    assert_eq!(numbers, [(Some(9), Some(4)), (Some(10), Some(3))]);
    assert!(parts.parts().iter().all(|part| part.e_tag().is_some()));

    let abort = world
        .client
        .abort_multipart_upload()
        .bucket(BUCKET)
        .key("a/dump");
    abort.upload_id(&upload).send().await.unwrap();
    assert_eq!(code(&list().send().await.unwrap_err()), "NoSuchUpload");
    let part = world.client.upload_part().bucket(BUCKET).key("a/dump");
    let part = part
        .upload_id(&upload)
        .part_number(1)
        .body(ByteStream::from_static(b"x"));
    assert_eq!(code(&part.send().await.unwrap_err()), "NoSuchUpload");
}

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

    let fault = |fault: Fault| {
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
    fault(Fault::Error(
        StatusCode::SERVICE_UNAVAILABLE,
        "SlowDown".to_owned(),
    ));
    assert_eq!(code(&put("b").send().await.unwrap_err()), "SlowDown");
    fault(Fault::Reset);
    assert!(put("b").send().await.is_err());
    assert!(world.s3.path(BUCKET, "b").is_err());
    fault(Fault::LoseReply);
    assert!(put("b").send().await.is_err());
    assert_eq!(world.s3.read(BUCKET, "b").unwrap(), b"x");
    fault(Fault::Stall(Duration::from_millis(200)));
    let before = std::time::Instant::now();
    put("c").send().await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(200));

    let upload = world.start("d").await;
    let part = world.part("d", &upload, 1, b"bytes").await;
    fault(Fault::OkWithError("InternalError".to_owned()));
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
