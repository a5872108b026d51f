//! An S3 stand-in on its own port, and an SDK client for it.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::BehaviorVersion;
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_sdk_s3::types::ChecksumType;
use aws_sdk_s3::types::CompletedMultipartUpload;
use aws_sdk_s3::types::CompletedPart;
use axum::extract::Request;
use axum::extract::State;
use rekindle_tests::http;
use rekindle_tests::standin::s3::ACCESS_KEY;
use rekindle_tests::standin::s3::S3;
use rekindle_tests::standin::s3::SECRET_KEY;
use shared::checksum::digests;

use super::BUCKET;

/// An S3 stand-in with one bucket, and a client.
pub(crate) struct S3Setup {
    pub(crate) s3: S3,
    pub(crate) client: Client,
    pub(crate) endpoint: String,
    pub(crate) root: tempfile::TempDir,
}

/// Starts a stand-in with one bucket.
pub(crate) async fn start() -> S3Setup {
    let root = tempfile::tempdir().unwrap();
    let s3 = S3::new(root.path()).unwrap();
    s3.create_bucket(BUCKET).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let routes = axum::Router::new()
        .fallback(async |State(s3): State<S3>, request: Request| s3.handle(request).await)
        .with_state(s3.clone());
    tokio::spawn(http::serve("the stand-in's S3", listener, routes));
    let client = Client::from_conf(settings(&endpoint, SECRET_KEY).build());
    S3Setup {
        s3,
        client,
        endpoint,
        root,
    }
}

/// Returns the client configuration for an endpoint and a secret key.
pub(crate) fn settings(endpoint: &str, secret: &str) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(shared::aws::http_client())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, secret, None, None, "test"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
}

/// Returns pseudo-random bytes.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(next).collect()
}

/// Returns the error code of S3.
pub(crate) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> &str {
    error.code().unwrap_or("no code")
}

impl S3Setup {
    /// Puts an object with a checksum.
    pub(crate) async fn put(&self, key: &str, body: &[u8]) {
        let put = self.client.put_object().bucket(BUCKET).key(key);
        let put = put.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
        let put = put.body(ByteStream::from(body.to_vec()));
        put.send().await.unwrap();
    }

    /// Starts a multipart upload; returns its id.
    pub(crate) async fn start_upload(&self, key: &str) -> String {
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

    /// Uploads one part, and checks the checksum that S3 returns.
    pub(crate) async fn part(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        body: &[u8],
    ) -> CompletedPart {
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

    /// Returns the request that completes an upload as the agent does, with the checksum of the whole object.
    pub(crate) fn complete(
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
