//! S3: bounded reads, checks of objects, writes that never overwrite, and deletions. `catalog` has the listings.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, ByteStreamError};
use aws_sdk_s3::types::{ChecksumMode, ChecksumType, Delete, ObjectIdentifier};

use super::failed;
use crate::checksum::digests;
use crate::error::{Error, Result};
use crate::id::Crc64;

/// The most tries to read an object if its bytes arrive incomplete, or if the response is not from S3.
const READ_TRIES: u32 = 3;
const GET_OBJECT: &str = "s3:GetObject";
const HEAD_OBJECT: &str = "s3:HeadObject";
const PUT_OBJECT: &str = "s3:PutObject";
/// The error code for a response that did not come from S3.
const NOT_OF_S3: &str = "NotOfS3";
/// The most tries of a write while another write to the same key is under way.
const CONFLICT_TRIES: u32 = 5;
/// The pause after the first conflict; each further pause is longer by this time.
const CONFLICT_PAUSE: Duration = Duration::from_millis(200);

/// Returns the bytes of an object, in the given version or in the newest one.
///
/// # Errors
/// [`Error::Contract`] if the object has more than `limit` bytes or its checksum does not match, [`Error::Aws`] if S3
/// fails; [`is_missing`] recognises an object that does not exist.
pub async fn read(
    client: &Client,
    bucket: &str,
    key: &str,
    version: Option<&str>,
    limit: u64,
) -> Result<Vec<u8>> {
    let mut tries = 1;
    loop {
        match read_once(client, bucket, key, version, limit).await {
            Ok(Ok(bytes)) => return Ok(bytes),
            // The connection broke or the checksum differs; the next read may succeed. The SDK retries requests, but
            // not the reading of bodies.
            Ok(Err(_)) if tries < READ_TRIES => tries += 1,
            Err(error) if is_not_of_s3(&error) && tries < READ_TRIES => tries += 1,
            Ok(Err(error)) => return Err(unreadable(key, error)),
            Err(error) => return Err(error),
        }
    }
}

/// Checks that a response came from S3. `field` is a field that every response of S3 has: the `ETag` of an object, or
/// the name of a listed bucket. A response without it came from a proxy, or is an error with the status 200.
///
/// # Errors
/// A retryable [`Error::Aws`] if the field is missing or empty.
pub fn of_s3(operation: &'static str, field: Option<&str>) -> Result<()> {
    if field.is_some_and(|field| !field.is_empty()) {
        return Ok(());
    }
    Err(Error::Aws {
        operation,
        code: NOT_OF_S3.to_owned(),
        retryable: true,
        source: "the response lacks a field that every response of S3 has".into(),
    })
}

fn is_not_of_s3(error: &Error) -> bool {
    error.aws_code() == Some(NOT_OF_S3)
}

/// Returns the error of a failed read of an object's bytes.
fn unreadable(key: &str, error: ByteStreamError) -> Error {
    match mismatch(&error) {
        Some(mismatch) => Error::contract(
            key,
            format!(
                "its bytes differ from the uploaded ones: {mismatch}; restore an older version of the object"
            ),
        ),
        None => Error::Aws {
            operation: GET_OBJECT,
            code: "BodyInterrupted".to_owned(),
            retryable: true,
            source: Box::new(error),
        },
    }
}

/// Returns the SDK's error of a checksum that does not match, or `None` if the error is another one.
fn mismatch(error: &ByteStreamError) -> Option<&(dyn StdError + 'static)> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<aws_smithy_checksums::body::validate::Error>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// Reads an object once. The inner error is one of reading its body.
async fn read_once(
    client: &Client,
    bucket: &str,
    key: &str,
    version: Option<&str>,
    limit: u64,
) -> Result<std::result::Result<Vec<u8>, ByteStreamError>> {
    let too_large = || {
        Error::contract(
            key,
            format!(
                "it has more than the {limit} bytes that are read; check which program wrote it"
            ),
        )
    };
    let answer = client
        .get_object()
        .bucket(bucket)
        .key(key)
        .set_version_id(version.map(str::to_owned))
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .map_err(failed(GET_OBJECT))
        .map_err(advise(bucket))?;
    of_s3(GET_OBJECT, answer.e_tag())?;
    if answer
        .content_length()
        .is_some_and(|length| u64::try_from(length).is_ok_and(|length| length > limit))
    {
        return Err(too_large());
    }
    let mut body = answer.body;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return Ok(Err(error)),
        }
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
    }
    Ok(Ok(bytes))
}

/// Returns whether an object could not be read because it does not exist.
pub fn is_missing(error: &Error) -> bool {
    matches!(
        error.aws_code(),
        Some("NoSuchKey" | "NotFound" | "NoSuchVersion")
    )
}

/// The metadata of an object in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The size in bytes.
    pub size: u64,
    /// The CRC-64/NVME that S3 verified at upload, if the object has one.
    pub crc64: Option<Crc64>,
    /// Whether the checksum is of the whole object, and not of its parts' checksums.
    pub full_object: bool,
    /// The version, if the bucket keeps versions.
    pub version_id: Option<String>,
}

/// Returns the metadata of an object in the given version or in the newest one, or `None` if it does not exist.
///
/// # Errors
/// [`Error::Aws`] if S3 fails.
pub async fn head(
    client: &Client,
    bucket: &str,
    key: &str,
    version: Option<&str>,
) -> Result<Option<Head>> {
    let mut tries = 1;
    let answer = loop {
        let sent = client
            .head_object()
            .bucket(bucket)
            .key(key)
            .set_version_id(version.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .map_err(failed(HEAD_OBJECT));
        match sent {
            Ok(answer) => match of_s3(HEAD_OBJECT, answer.e_tag()) {
                Ok(()) => break answer,
                Err(_) if tries < READ_TRIES => tries += 1,
                Err(error) => return Err(error),
            },
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(advise(bucket)(error)),
        }
    };
    Ok(Some(Head {
        size: answer
            .content_length()
            .and_then(|length| u64::try_from(length).ok())
            .unwrap_or(0),
        crc64: answer
            .checksum_crc64_nvme()
            .and_then(|text| text.parse().ok()),
        full_object: answer.checksum_type() == Some(&ChecksumType::FullObject),
        version_id: answer.version_id().map(str::to_owned),
    }))
}

/// The result of a write that never overwrites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The object was written.
    Now {
        /// Its version, if the bucket keeps versions.
        version_id: Option<String>,
    },
    /// An object with this key exists already, and is unchanged.
    AlreadyThere,
}

/// Writes an object unless its key exists. S3 verifies its CRC-64/NVME.
///
/// # Errors
/// [`Error::Aws`] if S3 fails.
pub async fn create(
    client: &Client,
    bucket: &str,
    key: &str,
    bytes: Vec<u8>,
    content_type: &str,
) -> Result<Created> {
    let crc64 = digests(&bytes).crc64;
    let mut tries = 1;
    loop {
        let sent = client
            .put_object()
            .bucket(bucket)
            .key(key)
            .if_none_match("*")
            .checksum_crc64_nvme(crc64.as_str())
            .content_type(content_type)
            .body(ByteStream::from(bytes.clone()))
            .send()
            .await;
        match sent {
            Ok(answer) => {
                of_s3(PUT_OBJECT, answer.e_tag())?;
                let version_id = answer.version_id().map(str::to_owned);
                return Ok(Created::Now { version_id });
            }
            Err(error) if has_code(&error, "PreconditionFailed") => {
                return Ok(Created::AlreadyThere);
            }
            Err(error)
                if has_code(&error, "ConditionalRequestConflict") && tries < CONFLICT_TRIES =>
            {
                tokio::time::sleep(CONFLICT_PAUSE * tries).await;
                tries += 1;
            }
            Err(error) => return Err(advise(bucket)(failed(PUT_OBJECT)(error))),
        }
    }
}

/// The most objects that one call deletes.
const DELETED_AT_ONCE: usize = 1_000;

/// Deletes objects. If the bucket keeps versions, deleted objects can be restored for as long as it keeps them. Keys
/// without an object are ignored.
///
/// # Errors
/// [`Error::Aws`] with the first object that S3 did not delete, or if S3 fails.
pub async fn delete(client: &Client, bucket: &str, keys: &[String]) -> Result<()> {
    for keys in keys.chunks(DELETED_AT_ONCE) {
        let mut delete = Delete::builder().quiet(true);
        for key in keys {
            delete = delete.objects(identifier(key)?);
        }
        let delete = delete.build().map_err(|error| incomplete(&error))?;
        let answer = client
            .delete_objects()
            .bucket(bucket)
            .delete(delete)
            .send()
            .await
            .map_err(failed("s3:DeleteObjects"))
            .map_err(advise(bucket))?;
        if let Some(error) = answer.errors().first() {
            let text = |text: Option<&str>| text.unwrap_or("unknown").to_owned();
            let (code, key) = (text(error.code()), text(error.key()));
            let message = format!("{key}: {}", text(error.message()));
            return Err(advise(bucket)(Error::Aws {
                operation: "s3:DeleteObjects",
                retryable: matches!(code.as_str(), "InternalError" | "SlowDown"),
                code,
                source: message.into(),
            }));
        }
    }
    Ok(())
}

fn identifier(key: &str) -> Result<ObjectIdentifier> {
    let built = ObjectIdentifier::builder().key(key).build();
    built.map_err(|error| incomplete(&error))
}

fn incomplete(error: &dyn StdError) -> Error {
    Error::contract("s3:DeleteObjects", error.to_string())
}

fn has_code<E: ProvideErrorMetadata>(error: &SdkError<E>, code: &str) -> bool {
    error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        == Some(code)
}

/// Returns a function that adds the action of an operator to the causes of an error, if the cause is a setting.
pub(super) fn advise(bucket: &str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Aws {
            operation,
            code,
            retryable,
            source,
        } => {
            let advice = match code.as_str() {
                "NoSuchBucket" => format!("there is no bucket {bucket:?}; correct REKINDLE_BUCKET"),
                "AccessDenied" | "AllAccessDisabled" => format!(
                    "access to the bucket {bucket:?} is denied; check REKINDLE_BUCKET, the bucket's policy and \
                     the function's role"
                ),
                "PermanentRedirect" | "AuthorizationHeaderMalformed" => {
                    format!("the bucket {bucket:?} is in another region; correct REKINDLE_BUCKET")
                }
                _ => {
                    return Error::Aws {
                        operation,
                        code,
                        retryable,
                        source,
                    };
                }
            };
            let source = Box::new(Advised { advice, source });
            Error::Aws {
                operation,
                code,
                retryable,
                source,
            }
        }
        other => other,
    }
}

/// An error of the SDK with the action of an operator.
#[derive(Debug)]
struct Advised {
    advice: String,
    source: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.advice)
    }
}

impl StdError for Advised {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}

#[cfg(test)]
mod tests;
