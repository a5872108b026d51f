//! Publishes the agent: uploads the binary of this function's layer to the bucket, where nodes fetch it.
//!
//! Therefore the versions of functions and agent always match, and a deployment needs no second step.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::env::{AGENT, Config};
use crate::aws::{Aws, s3};
use crate::checksum::digests;
use crate::error::{Error, Result};
use crate::id::Sha256;
use crate::layout;

/// The SHA-256 of the agent, once this process has found it in the bucket or uploaded it.
static PUBLISHED: OnceLock<Sha256> = OnceLock::new();

/// Uploads the agent if the bucket does not have it, and returns its SHA-256, by which commands name it. Calls S3 once
/// per process.
///
/// # Errors
/// [`Error::Config`] if the layer's files cannot be read, [`Error::Contract`] if they do not match, [`Error::Aws`] if
/// S3 fails.
pub async fn publish(aws: &Aws, config: &Config) -> Result<Sha256> {
    if let Some(sha256) = PUBLISHED.get() {
        return Ok(sha256.clone());
    }
    let sha256 = publish_to(&aws.s3, &config.bucket, &config.agent).await?;
    Ok(PUBLISHED.get_or_init(|| sha256).clone())
}

async fn publish_to(client: &aws_sdk_s3::Client, bucket: &str, binary: &Path) -> Result<Sha256> {
    let read = || fs::read(binary).map_err(|error| unreadable(binary, &error));
    let sha256 = match recorded_sha256(binary)? {
        Some(recorded) => recorded,
        None => digests(&read()?).sha256,
    };
    let key = layout::agent(&sha256);
    if s3::head(client, bucket, &key, None).await?.is_some() {
        return Ok(sha256);
    }
    let bytes = read()?;
    let found = digests(&bytes).sha256;
    if found != sha256 {
        let problem = format!(
            "its SHA-256 is {found}, but the file beside it has {sha256}; build the layer again"
        );
        return Err(Error::contract(binary.display().to_string(), problem));
    }
    // If another process was faster, it wrote the same bytes: the key is their hash.
    s3::create(client, bucket, &key, bytes, "application/octet-stream").await?;
    Ok(sha256)
}

/// Returns the hash that the build wrote beside the binary, or `None` if there is no such file. Without it, the binary
/// is hashed at every cold start.
fn recorded_sha256(binary: &Path) -> Result<Option<Sha256>> {
    let mut path = binary.as_os_str().to_owned();
    path.push(".sha256");
    let path = PathBuf::from(path);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    // `sha256sum` writes the file's name after the hash.
    let word = text.split_whitespace().next().unwrap_or_default();
    let sha256 = word
        .parse()
        .map_err(|error| Error::contract(path.display().to_string(), format!("{error}")))?;
    Ok(Some(sha256))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Config(format!(
        "cannot read the agent {} ({error}); attach its layer, or correct {AGENT}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::Client;
    use aws_sdk_s3::operation::head_object::HeadObjectOutput;
    use aws_sdk_s3::operation::put_object::PutObjectOutput;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    const AGENT_SHA256: &str = "d4f0bc5a29de06b510f9aa428f1eedba926012b591fef7a518e776a7c9bd1824";

    fn layer(recorded: Option<&str>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("rekindle-node");
        fs::write(&binary, "agent").unwrap();
        if let Some(recorded) = recorded {
            fs::write(directory.path().join("rekindle-node.sha256"), recorded).unwrap();
        }
        (directory, binary)
    }

    #[tokio::test]
    async fn a_published_agent_is_not_uploaded_again() {
        let present = mock!(Client::head_object)
            .match_requests(|request| {
                request.key() == Some(&format!("agent/{AGENT_SHA256}/rekindle-node"))
            })
            .then_output(|| {
                HeadObjectOutput::builder()
                    .e_tag("\"1\"")
                    .content_length(5)
                    .build()
            });
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&present]);
        let (_directory, binary) = layer(Some(&format!("{AGENT_SHA256}  rekindle-node\n")));
        let sha256 = publish_to(&client, "bucket", &binary).await.unwrap();
        assert_eq!(sha256.as_str(), AGENT_SHA256);
        assert_eq!(present.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_missing_agent_is_uploaded_under_its_hash() {
        let missing = mock!(Client::head_object)
            .sequence()
            .http_status(404, None)
            .repeatedly()
            .build();
        let put = mock!(Client::put_object)
            .match_requests(|request| {
                request.key() == Some(&format!("agent/{AGENT_SHA256}/rekindle-node"))
                    && request.if_none_match() == Some("*")
            })
            .then_output(|| PutObjectOutput::builder().e_tag("\"1\"").build());
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&missing, &put]);
        let (_directory, binary) = layer(Some(AGENT_SHA256));
        publish_to(&client, "bucket", &binary).await.unwrap();
        let (_directory, binary) = layer(None);
        publish_to(&client, "bucket", &binary).await.unwrap();
        assert_eq!(put.num_calls(), 2);
    }

    #[tokio::test]
    async fn an_agent_that_differs_from_the_recorded_hash_is_not_uploaded() {
        let missing = mock!(Client::head_object)
            .sequence()
            .http_status(404, None)
            .repeatedly()
            .build();
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&missing]);
        let (_directory, binary) = layer(Some(&"0".repeat(64)));
        let error = publish_to(&client, "bucket", &binary).await.unwrap_err();
        assert!(error.chain().contains("build the layer again"), "{error:?}");
    }

    #[tokio::test]
    async fn the_error_of_a_missing_layer_names_its_path_and_its_variable() {
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, []);
        let error = publish_to(&client, "bucket", Path::new("/nowhere/agent"))
            .await
            .unwrap_err();
        assert!(
            error.chain().contains("/nowhere/agent") && error.chain().contains(AGENT),
            "{error:?}"
        );
    }
}
