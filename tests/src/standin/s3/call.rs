//! One request as policies, counters and faults see it, and the faults that can replace its answer.

use std::time::Duration;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

/// The largest answer that is read in order to change it, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The largest difference between a request's time and S3's.
const MAX_CLOCK_SKEW: time::Duration = time::Duration::minutes(15);

const SIGNED_AT: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// One request: an operation of S3's API on an object.
#[derive(Debug, Clone)]
pub struct Call {
    /// The operation's name in S3's API, such as `PutObject`, or the HTTP method for operations that the stand-in lacks.
    pub operation: String,
    /// The bucket; empty for `ListBuckets`.
    pub bucket: String,
    /// The key, or the prefix for operations that list objects.
    pub key: String,
    /// The query, still encoded.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The access key that signed the request, or `None` if it is not signed.
    pub access_key: Option<String>,
}

/// A fault of S3. It replaces the normal answer to a request.
///
/// A test injects faults with [`S3::on_request`](super::S3::on_request), which sees each [`Call`] and returns the fault
/// for it, if any. To damage an object at rest instead, see the functions of [`S3`](super::S3) such as
/// [`truncate`](super::S3::truncate), [`flip`](super::S3::flip) and [`swap`](super::S3::swap).
///
/// ```no_run
/// # use rekindle_tests::standin::{StandIn, s3::S3Fault};
/// # fn inject(standin: &StandIn) {
/// standin.s3().on_request(|call| (call.operation == "UploadPart").then_some(S3Fault::Reset));
/// # }
/// ```
#[derive(Debug, Clone)]
pub enum S3Fault {
    /// S3 answers with this status and error code, such as 503 and `SlowDown`, and does nothing.
    Error(StatusCode, String),
    /// S3 answers with status 200 and an error with this code in the body, and does nothing.
    OkWithError(String),
    /// S3 handles the request after this time.
    Stall(Duration),
    /// The connection breaks within the answer, and S3 does nothing.
    Reset,
    /// S3 handles the request, but the connection breaks within the answer.
    LoseReply,
    /// S3 handles the request, but the answer contains a wrong `ETag`, if it contains one.
    WrongETag,
}

impl Call {
    /// Reads a path-style request.
    pub(super) fn of(request: &Request<Body>) -> Self {
        let path = request.uri().path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query = request.uri().query().unwrap_or_default();
        let parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let parameter = |name: &str| {
            let found = parameters.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let key = match key {
            "" => parameter("prefix").unwrap_or_default(),
            key => decoded(key),
        };
        let headers = request.headers().clone();
        let has = |name: &str| parameter(name).is_some();
        let on_object = !path.split_once('/').unwrap_or_default().1.is_empty();
        let copies = headers.contains_key("x-amz-copy-source");
        let operation = match (request.method(), on_object) {
            (&Method::GET, _) if bucket.is_empty() => "ListBuckets",
            (&Method::GET, false) if has("uploads") => "ListMultipartUploads",
            (&Method::GET, false) if has("location") => "GetBucketLocation",
            (&Method::GET, false) if has("versions") => "ListObjectVersions",
            (&Method::GET, false) if has("list-type") => "ListObjectsV2",
            (&Method::GET, false) => "ListObjects",
            (&Method::HEAD, false) => "HeadBucket",
            (&Method::PUT, false) => "CreateBucket",
            (&Method::DELETE, false) => "DeleteBucket",
            (&Method::POST, false) if has("delete") => "DeleteObjects",
            (&Method::GET, true) if has("uploadId") => "ListParts",
            (&Method::GET, true) => "GetObject",
            (&Method::HEAD, true) => "HeadObject",
            (&Method::PUT, true) if has("uploadId") && copies => "UploadPartCopy",
            (&Method::PUT, true) if has("uploadId") => "UploadPart",
            (&Method::PUT, true) if copies => "CopyObject",
            (&Method::PUT, true) => "PutObject",
            (&Method::POST, true) if has("uploads") => "CreateMultipartUpload",
            (&Method::POST, true) if has("uploadId") => "CompleteMultipartUpload",
            (&Method::DELETE, true) if has("uploadId") => "AbortMultipartUpload",
            (&Method::DELETE, true) => "DeleteObject",
            (method, _) => method.as_str(),
        };
        Self {
            operation: operation.to_owned(),
            bucket: decoded(bucket),
            key,
            query: query.to_owned(),
            access_key: access_key(&headers),
            headers,
        }
    }

    /// Returns whether the signature's time differs too much from `now`: S3 refuses such a request.
    pub(super) fn is_skewed(&self, now: OffsetDateTime) -> bool {
        let signed_at = self.headers.get("x-amz-date");
        let signed_at = signed_at.and_then(|value| value.to_str().ok());
        signed_at
            .and_then(|text| PrimitiveDateTime::parse(text, SIGNED_AT).ok())
            .is_some_and(|at| (at.assume_utc() - now).abs() > MAX_CLOCK_SKEW)
    }

    /// Returns whether the request could replace an existing object.
    pub(super) fn may_overwrite(&self) -> bool {
        let creates = ["PutObject", "CopyObject", "CompleteMultipartUpload"];
        creates.contains(&self.operation.as_str())
            && self.headers.get("if-none-match") != Some(&HeaderValue::from_static("*"))
    }
}

/// Reads `Credential=<access key>/…` out of a version 4 signature.
fn access_key(headers: &HeaderMap) -> Option<String> {
    let authorization = headers.get("authorization")?.to_str().ok()?;
    let (_, credential) = authorization.split_once("Credential=")?;
    Some(credential.split('/').next()?.to_owned())
}

/// Decodes a percent-encoded path.
fn decoded(text: &str) -> String {
    // In a form a plus sign means a space; in a path it does not.
    let form = format!("k={}", text.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(form.as_bytes()).next();
    decoded
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// Replaces the `ETag` of an answer by a wrong one.
pub(super) async fn with_wrong_etag(response: Response<Body>) -> Response<Body> {
    const WRONG: &str = "\"00000000000000000000000000000000\"";
    let (mut parts, body) = response.into_parts();
    if parts.headers.contains_key(ETAG) {
        parts.headers.insert(ETAG, HeaderValue::from_static(WRONG));
        return Response::from_parts(parts, body);
    }
    // `CompleteMultipartUpload` has it in the body, which is short.
    let Ok(bytes) = axum::body::to_bytes(body, MAX_ANSWER_BYTES).await else {
        return broken_response();
    };
    let text = String::from_utf8_lossy(&bytes);
    let changed = match (text.find("<ETag>"), text.find("</ETag>")) {
        (Some(start), Some(end)) if start < end => {
            let escaped = WRONG.replace('"', "&quot;");
            format!("{}<ETag>{escaped}{}", &text[..start], &text[end..])
        }
        _ => text.into_owned(),
    };
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(changed))
}

/// Returns S3's error answer.
pub(super) fn error_response(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>{}</RequestId></Error>",
        uuid::Uuid::new_v4().simple()
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let xml = HeaderValue::from_static("application/xml");
    response.headers_mut().insert(CONTENT_TYPE, xml);
    response
}

/// Returns an answer whose body breaks off, so that the server closes the connection.
pub(super) fn broken_response() -> Response<Body> {
    let broken = futures_util::stream::once(async {
        Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    let mut response = Response::new(Body::from_stream(broken));
    response
        .headers_mut()
        .insert("content-length", HeaderValue::from_static("64"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(method: &str, uri: &str) -> (String, String, String) {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(Body::empty());
        let call = Call::of(&request.unwrap());
        (call.operation, call.bucket, call.key)
    }

    #[test]
    fn requests_have_the_operation_names_of_the_api() {
        let cases = [
            ("GET", "/", "ListBuckets", "", ""),
            (
                "GET",
                "/b?list-type=2&prefix=a%2Fb",
                "ListObjectsV2",
                "b",
                "a/b",
            ),
            ("GET", "/b/?uploads", "ListMultipartUploads", "b", ""),
            ("PUT", "/b/a%20+b/c", "PutObject", "b", "a +b/c"),
            (
                "PUT",
                "/b/k?partNumber=1&uploadId=u",
                "UploadPart",
                "b",
                "k",
            ),
            ("POST", "/b/k?uploads", "CreateMultipartUpload", "b", "k"),
            (
                "POST",
                "/b/k?uploadId=u",
                "CompleteMultipartUpload",
                "b",
                "k",
            ),
            (
                "DELETE",
                "/b/k?uploadId=u",
                "AbortMultipartUpload",
                "b",
                "k",
            ),
            ("HEAD", "/b/k", "HeadObject", "b", "k"),
        ];
        for (method, uri, name, bucket, key) in cases {
            let expected = (name.to_owned(), bucket.to_owned(), key.to_owned());
            assert_eq!(operation(method, uri), expected, "{method} {uri}");
        }
    }
}
