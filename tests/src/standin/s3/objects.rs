//! `PutObject`, `CopyObject`, `GetObject` and `HeadObject` on the store.

use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, ETag, GetObjectInput,
    GetObjectOutput, HeadObjectInput, HeadObjectOutput, PutObjectInput, PutObjectOutput, Range,
    StreamingBlob, Timestamp,
};
use s3s::{S3Request, S3Result, s3_error};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::checksums::{ALGORITHMS, Checksums, checksums_of, hasher};
use super::store::{Attributes, Conditions, NewObject, Record, Staged, Store, hex, internal};

/// The checksum algorithm that S3 uses if the client names none.
pub(super) const DEFAULT_ALGORITHM: &str = "CRC64NVME";
/// The checksum type of a checksum over all bytes of an object.
pub(super) const FULL_OBJECT: &str = "FULL_OBJECT";

/// Fills the fields that the answers of GET and HEAD have in common. Their types have no common trait.
macro_rules! described {
    ($output:ident, $record:ident, $checksums:ident) => {
        $output {
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(Timestamp::from($record.created)),
            e_tag: Some(ETag::Strong($record.e_tag)),
            version_id: Some($record.version_id),
            content_type: $record.attributes.content_type,
            content_encoding: $record.attributes.content_encoding,
            metadata: $record
                .attributes
                .metadata
                .map(|all| all.into_iter().collect()),
            checksum_type: ($checksums != Checksums::default())
                .then(|| $record.checksum_type.into()),
            checksum_crc32: $checksums.crc32,
            checksum_crc32c: $checksums.crc32c,
            checksum_crc64nvme: $checksums.crc64nvme,
            checksum_sha1: $checksums.sha1,
            checksum_sha256: $checksums.sha256,
            ..Default::default()
        }
    };
}

impl Store {
    /// Receives a body and verifies the checksums in the headers and in the trailer.
    pub(super) async fn receive<T>(
        &self,
        request: &S3Request<T>,
        body: Option<StreamingBlob>,
        mut sent: Checksums,
        content_md5: Option<&str>,
    ) -> S3Result<(Staged, Checksums)> {
        let body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
        let mut algorithms = sent.algorithms();
        algorithms.extend(announced(request));
        if algorithms.is_empty() {
            algorithms.push(DEFAULT_ALGORITHM);
        }
        let staged = self.stage(body, hasher(&algorithms)).await?;
        let computed = Checksums::computed(&staged.checksum);
        let verified = match sent.add_trailers(request.trailing_headers.as_ref()) {
            Ok(()) => sent.verify(&computed),
            Err(error) => Err(error),
        };
        let verified = verified.and_then(|()| verify_md5(&staged, content_md5));
        if let Err(error) = verified {
            tokio::fs::remove_file(&staged.path)
                .await
                .map_err(internal)?;
            return Err(error);
        }
        Ok((staged, computed))
    }

    /// Answers `PutObject`.
    pub(super) async fn put(
        &self,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<PutObjectOutput> {
        let body = request.input.body.take();
        let input = &request.input;
        self.check_bucket(&input.bucket)?;
        self.object_path(&input.bucket, &input.key)?;
        let conditions = Conditions {
            if_none_match: input.if_none_match.as_ref(),
            if_match: input.if_match.as_ref(),
        };
        let sent = checksums_of!(input);
        let md5 = input.content_md5.as_deref();
        let (staged, checksums) = self.receive(&request, body, sent, md5).await?;
        let object = NewObject {
            bucket: &input.bucket,
            key: &input.key,
            e_tag: hex(&staged.md5),
            checksums,
            checksum_type: FULL_OBJECT,
            attributes: Attributes {
                content_type: input.content_type.clone(),
                content_encoding: input.content_encoding.clone(),
                metadata: input.metadata.clone().map(|all| all.into_iter().collect()),
            },
        };
        let record = self.create(&staged.path, object, conditions).await?;
        Ok(PutObjectOutput {
            e_tag: Some(ETag::Strong(record.e_tag)),
            version_id: Some(record.version_id),
            checksum_crc32: record.checksums.crc32,
            checksum_crc32c: record.checksums.crc32c,
            checksum_crc64nvme: record.checksums.crc64nvme,
            checksum_sha1: record.checksums.sha1,
            checksum_sha256: record.checksums.sha256,
            checksum_type: Some(record.checksum_type.into()),
            ..Default::default()
        })
    }

    /// Answers `CopyObject`.
    pub(super) async fn copy(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<CopyObjectOutput> {
        let input = request.input;
        let CopySource::Bucket {
            bucket,
            key,
            version_id,
        } = &input.copy_source
        else {
            return Err(s3_error!(
                NotImplemented,
                "the stand-in has no access points"
            ));
        };
        let source = self.existing(bucket, key, version_id.as_deref())?;
        let staged = self.staging_path();
        let path = self.object_path(bucket, key)?;
        tokio::fs::copy(path, &staged).await.map_err(internal)?;
        let object = NewObject {
            bucket: &input.bucket,
            key: &input.key,
            e_tag: source.e_tag,
            checksums: source.checksums,
            checksum_type: FULL_OBJECT,
            attributes: source.attributes,
        };
        let record = self.create(&staged, object, Conditions::default()).await?;
        Ok(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(ETag::Strong(record.e_tag)),
                last_modified: Some(Timestamp::from(record.created)),
                ..Default::default()
            }),
            version_id: Some(record.version_id),
            ..Default::default()
        })
    }

    /// Answers `GetObject`.
    pub(super) async fn get(&self, input: &GetObjectInput) -> S3Result<GetObjectOutput> {
        let record = self.existing(&input.bucket, &input.key, input.version_id.as_deref())?;
        let path = self.object_path(&input.bucket, &input.key)?;
        let mut file = File::open(path).await.map_err(internal)?;
        let length = file.metadata().await.map_err(internal)?.len();
        let (start, end) = match &input.range {
            None => (0, length),
            Some(range) => checked(range, length)?,
        };
        file.seek(std::io::SeekFrom::Start(start))
            .await
            .map_err(internal)?;
        let body = ReaderStream::with_capacity(file.take(end - start), 1 << 17);
        // S3 returns the checksum only on request, and only with the whole object.
        let whole = input.range.is_none();
        let checksums = shown(&record, input.checksum_mode.is_some() && whole);
        Ok(GetObjectOutput {
            body: Some(StreamingBlob::wrap(body)),
            content_length: Some(signed(end - start)?),
            content_range: (!whole).then(|| format!("bytes {start}-{}/{length}", end - 1)),
            ..described!(GetObjectOutput, record, checksums)
        })
    }

    /// Answers `HeadObject`.
    pub(super) fn head(&self, input: &HeadObjectInput) -> S3Result<HeadObjectOutput> {
        let record = self.existing(&input.bucket, &input.key, input.version_id.as_deref())?;
        let checksums = shown(&record, input.checksum_mode.is_some());
        Ok(HeadObjectOutput {
            content_length: Some(signed(record.size)?),
            ..described!(HeadObjectOutput, record, checksums)
        })
    }
}

/// Returns the algorithms whose checksums follow after the body.
fn announced<T>(request: &S3Request<T>) -> Vec<&'static str> {
    let trailers = request.headers.get("x-amz-trailer");
    let trailers = trailers
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let trailers = trailers.to_ascii_lowercase();
    let names = trailers.split(',').map(str::trim);
    let names: Vec<&str> = names
        .filter_map(|name| name.strip_prefix("x-amz-checksum-"))
        .collect();
    let listed = |algorithm: &&str| {
        names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(algorithm))
    };
    ALGORITHMS.into_iter().filter(listed).collect()
}

fn verify_md5(staged: &Staged, content_md5: Option<&str>) -> S3Result<()> {
    use base64::Engine as _;
    let computed = base64::engine::general_purpose::STANDARD.encode(&staged.md5);
    match content_md5 {
        Some(sent) if sent != computed => Err(s3_error!(
            BadDigest,
            "The Content-MD5 you specified did not match what we received."
        )),
        _ => Ok(()),
    }
}

fn shown(record: &Record, wanted: bool) -> Checksums {
    if wanted {
        record.checksums.clone()
    } else {
        Checksums::default()
    }
}

fn checked(range: &Range, length: u64) -> S3Result<(u64, u64)> {
    let range = range.check(length)?;
    Ok((range.start, range.end))
}

/// Converts a number of bytes to the type of S3's fields.
pub(super) fn signed(bytes: u64) -> S3Result<i64> {
    i64::try_from(bytes).map_err(internal)
}
