//! Multipart uploads: the checks of S3 before an object exists.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use aws_sdk_s3::types::ChecksumType;
use aws_sdk_s3::types::CompletedPart;
use shared::checksum::digests;

use super::setup::{bytes, code, start};
use super::{BUCKET, MIB};

#[tokio::test]
async fn a_multipart_object_reports_the_checksum_of_all_its_bytes() {
    let setup = start().await;
    let body = bytes(11 * MIB + 17);
    let upload = setup.start_upload("a/dump").await;
    // Parts may be uploaded in any order.
    let second = setup.part("a/dump", &upload, 2, &body[6 * MIB..]).await;
    let first = setup.part("a/dump", &upload, 1, &body[..6 * MIB]).await;
    let crc64 = digests(&body).crc64;
    let complete = setup.complete("a/dump", &upload, vec![first, second], crc64.as_str());
    let size = i64::try_from(body.len()).unwrap();
    let done = complete.mpu_object_size(size).send().await.unwrap();
    assert_eq!(done.checksum_crc64_nvme(), Some(crc64.as_str()));
    assert!(done.e_tag().unwrap().ends_with("-2\""));

    let head = setup.client.head_object().bucket(BUCKET).key("a/dump");
    let head = head
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some(crc64.as_str()));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
    assert_eq!(head.content_length(), Some(size));
    assert_eq!(head.version_id(), done.version_id());

    let get = setup.client.get_object().bucket(BUCKET).key("a/dump");
    let get = get
        .version_id(done.version_id().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(get.body.collect().await.unwrap().to_vec(), body);

    let range = setup
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
    let setup = start().await;
    let body = bytes(MIB);
    let upload = setup.start_upload("dump").await;
    let part = setup.part("dump", &upload, 1, &body).await;
    let wrong = digests(b"something else").crc64;
    let refused = setup.complete("dump", &upload, vec![part.clone()], wrong.as_str());
    assert_eq!(code(&refused.send().await.unwrap_err()), "BadDigest");
    let crc64 = digests(&body).crc64;
    let short = setup.complete("dump", &upload, vec![part.clone()], crc64.as_str());
    let short = short.mpu_object_size(17).send().await.unwrap_err();
    assert_eq!(code(&short), "InvalidRequest");
    assert_eq!(setup.s3.keys(BUCKET, "").unwrap(), Vec::<String>::new());

    // The upload is still open and can be completed once.
    let right = setup.complete("dump", &upload, vec![part.clone()], crc64.as_str());
    right.send().await.unwrap();
    let again = setup.complete("dump", &upload, vec![part], crc64.as_str());
    assert_eq!(code(&again.send().await.unwrap_err()), "NoSuchUpload");
}

#[tokio::test]
async fn a_part_is_refused_when_its_bytes_do_not_match() {
    let setup = start().await;
    let upload = setup.start_upload("dump").await;
    let part = setup.client.upload_part().bucket(BUCKET).key("dump");
    let part = part.upload_id(&upload).part_number(1);
    let wrong = digests(b"something else").crc64;
    let part = part.checksum_crc64_nvme(wrong.as_str());
    let refused = part.body(ByteStream::from_static(b"bytes")).send().await;
    assert_eq!(code(&refused.unwrap_err()), "BadDigest");

    let good = setup.part("dump", &upload, 1, b"bytes").await;
    let crc64 = digests(b"bytes").crc64;
    let forged = CompletedPart::builder()
        .part_number(1)
        .e_tag("\"00\"")
        .build();
    let forged = setup.complete("dump", &upload, vec![forged], crc64.as_str());
    assert_eq!(code(&forged.send().await.unwrap_err()), "InvalidPart");
    let missing = CompletedPart::builder()
        .part_number(2)
        .e_tag(good.e_tag().unwrap())
        .build();
    let missing = setup.complete("dump", &upload, vec![good, missing], crc64.as_str());
    assert_eq!(code(&missing.send().await.unwrap_err()), "InvalidPart");
}

#[tokio::test]
async fn only_the_last_part_may_be_small() {
    let setup = start().await;
    let upload = setup.start_upload("dump").await;
    let first = setup.part("dump", &upload, 1, b"small").await;
    let second = setup.part("dump", &upload, 2, b"last").await;
    let crc64 = digests(b"smalllast").crc64;
    let parts = vec![first.clone(), second.clone()];
    let complete = setup.complete("dump", &upload, parts, crc64.as_str());
    assert_eq!(code(&complete.send().await.unwrap_err()), "EntityTooSmall");
    let complete = setup.complete("dump", &upload, vec![second, first], crc64.as_str());
    assert_eq!(
        code(&complete.send().await.unwrap_err()),
        "InvalidPartOrder"
    );
}

#[tokio::test]
async fn open_uploads_are_listed_until_they_are_aborted() {
    let setup = start().await;
    let upload = setup.start_upload("a/dump").await;
    setup.part("a/dump", &upload, 10, b"ten").await;
    setup.part("a/dump", &upload, 9, b"nine").await;
    let uploads = setup
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
        setup
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

    let abort = setup
        .client
        .abort_multipart_upload()
        .bucket(BUCKET)
        .key("a/dump");
    abort.upload_id(&upload).send().await.unwrap();
    assert_eq!(code(&list().send().await.unwrap_err()), "NoSuchUpload");
    let part = setup.client.upload_part().bucket(BUCKET).key("a/dump");
    let part = part
        .upload_id(&upload)
        .part_number(1)
        .body(ByteStream::from_static(b"x"));
    assert_eq!(code(&part.send().await.unwrap_err()), "NoSuchUpload");
}
