//! The operations of S3's API. s3s reads and writes the wire protocol, s3s-fs manages buckets, and the store does the
//! rest.

use std::sync::{Arc, Mutex};

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateBucketInput,
    CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
    DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error,
    GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput,
    ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput,
    PutObjectInput, PutObjectOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;

use super::permissions::Permissions;
use super::store::Store;
use super::{Control, SECRET_KEY};
use crate::lock::lock;

/// The S3 implementation that s3s serves.
pub(super) struct Service {
    pub(super) store: Arc<Store>,
    pub(super) files: FileSystem,
    pub(super) control: Arc<Mutex<Control>>,
}

/// Accepts every access key with the one secret key.
pub(super) struct OneSecret;

#[async_trait::async_trait]
impl S3Auth for OneSecret {
    async fn get_secret_key(&self, _access_key: &str) -> S3Result<SecretKey> {
        Ok(SECRET_KEY.into())
    }
}

/// Refuses unsigned requests. Permissions are checked before a request gets here, except for the objects in the body of
/// `DeleteObjects`.
pub(super) struct SignedOnly;

#[async_trait::async_trait]
impl S3Access for SignedOnly {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        match context.credentials() {
            Some(_) => Ok(()),
            None => Err(s3s::s3_error!(AccessDenied, "Access Denied")),
        }
    }
}

type ServiceResult<T> = S3Result<S3Response<T>>;

impl Service {
    /// Returns the permissions of an access key, or `None` if it has no restrictions.
    fn permissions_of(&self, access_key: &str) -> Option<Permissions> {
        let control = lock(&self.control);
        control.permissions.get(access_key).cloned()
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> ServiceResult<CreateBucketOutput> {
        self.files.create_bucket(request).await
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> ServiceResult<HeadBucketOutput> {
        self.files.head_bucket(request).await
    }

    async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> ServiceResult<ListBucketsOutput> {
        self.files.list_buckets(request).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> ServiceResult<GetBucketLocationOutput> {
        self.files.get_bucket_location(request).await
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> ServiceResult<ListObjectsOutput> {
        let answer = self.list_objects_v2(request.map_input(Into::into)).await?;
        Ok(answer.map_output(|page| ListObjectsOutput {
            contents: page.contents,
            common_prefixes: page.common_prefixes,
            delimiter: page.delimiter,
            is_truncated: page.is_truncated,
            max_keys: page.max_keys,
            name: page.name,
            next_marker: page.next_continuation_token,
            prefix: page.prefix,
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> ServiceResult<ListObjectsV2Output> {
        let _unchanged = self.store.block_changes().await;
        self.store.list(request.input).map(S3Response::new)
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> ServiceResult<PutObjectOutput> {
        self.store.put(request).await.map(S3Response::new)
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> ServiceResult<CopyObjectOutput> {
        self.store.copy(request).await.map(S3Response::new)
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> ServiceResult<GetObjectOutput> {
        self.store.get(&request.input).await.map(S3Response::new)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> ServiceResult<HeadObjectOutput> {
        self.store.head(&request.input).map(S3Response::new)
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> ServiceResult<DeleteObjectOutput> {
        let input = request.input;
        self.store.remove(&input.bucket, &input.key).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> ServiceResult<DeleteObjectsOutput> {
        let signer = request.credentials.as_ref().map(|one| &*one.access_key);
        let permissions = signer.and_then(|access_key| self.permissions_of(access_key));
        let input = request.input;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in input.delete.objects {
            let versioned = object.version_id.is_some();
            let allowed = permissions.as_ref().is_none_or(|permissions| {
                permissions.allow_deletion(&input.bucket, &object.key, versioned)
            });
            if !allowed {
                errors.push(Error {
                    code: Some("AccessDenied".to_owned()),
                    key: Some(object.key),
                    message: Some("Access Denied".to_owned()),
                    version_id: object.version_id,
                });
                continue;
            }
            self.store.remove(&input.bucket, &object.key).await?;
            deleted.push(DeletedObject {
                key: Some(object.key),
                ..Default::default()
            });
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> ServiceResult<CreateMultipartUploadOutput> {
        let input = request.input;
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let checksum_algorithm = input.checksum_algorithm.clone();
        let checksum_type = input.checksum_type.clone();
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(self.store.create_upload(input)?),
            bucket: Some(bucket),
            key: Some(key),
            checksum_algorithm,
            checksum_type,
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> ServiceResult<UploadPartOutput> {
        self.store.put_part(request).await.map(S3Response::new)
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> ServiceResult<ListPartsOutput> {
        self.store
            .list_upload_parts(request.input)
            .map(S3Response::new)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> ServiceResult<ListMultipartUploadsOutput> {
        let prefix = request.input.prefix.unwrap_or_default();
        let uploads = self.store.list_uploads(&request.input.bucket, &prefix)?;
        Ok(S3Response::new(uploads))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> ServiceResult<CompleteMultipartUploadOutput> {
        self.store
            .complete(request.input)
            .await
            .map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> ServiceResult<AbortMultipartUploadOutput> {
        let input = request.input;
        self.store
            .abort(&input.bucket, &input.key, &input.upload_id)
            .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
