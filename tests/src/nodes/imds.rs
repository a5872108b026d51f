//! The instance metadata service of one node, version 2: it answers no request without a token.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::http;

/// The AWS account of the stand-in.
pub const ACCOUNT: &str = "123456789012";

/// Returns the lifecycle state that Auto Scaling moves an instance to, or `None` if it is in no group.
pub type TargetState = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// A running metadata service. It ends when it is dropped.
#[derive(Debug)]
pub struct Imds {
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Metadata {
    instance: String,
    region: String,
    token: String,
    target_state: TargetState,
}

impl Imds {
    /// Serves the metadata of one instance on a port of its own.
    pub async fn start(instance: &str, region: &str, target_state: TargetState) -> Result<Self> {
        let metadata = Arc::new(Metadata {
            instance: instance.to_owned(),
            region: region.to_owned(),
            token: Uuid::new_v4().to_string(),
            target_state,
        });
        let routes = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/{*path}", get(value))
            .with_state(metadata);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("bind a port for the metadata service")?;
        let address = listener
            .local_addr()
            .context("the metadata service's port")?;
        let task = tokio::spawn(http::serve("the metadata service", listener, routes));
        Ok(Self { address, task })
    }

    /// Returns `http://127.0.0.1:<port>`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn token(
    State(metadata): State<Arc<Metadata>>,
    headers: HeaderMap,
) -> Result<(HeaderMap, String), StatusCode> {
    let lifetime = headers.get("x-aws-ec2-metadata-token-ttl-seconds");
    let lifetime = lifetime.cloned().ok_or(StatusCode::BAD_REQUEST)?;
    let mut answer = HeaderMap::new();
    answer.insert("x-aws-ec2-metadata-token-ttl-seconds", lifetime);
    Ok((answer, metadata.token.clone()))
}

async fn value(
    State(metadata): State<Arc<Metadata>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let token = headers.get("x-aws-ec2-metadata-token");
    if token.is_none_or(|token| token.as_bytes() != metadata.token.as_bytes()) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    match path.as_str() {
        "meta-data/instance-id" => Ok(metadata.instance.clone()),
        "meta-data/placement/region" => Ok(metadata.region.clone()),
        "meta-data/placement/availability-zone" => Ok(format!("{}a", metadata.region)),
        "meta-data/autoscaling/target-lifecycle-state" => (metadata.target_state)()
            .map(str::to_owned)
            .ok_or(StatusCode::NOT_FOUND),
        "dynamic/instance-identity/document" => Ok(serde_json::json!({
            "instanceId": metadata.instance,
            "region": metadata.region,
            "accountId": ACCOUNT,
        })
        .to_string()),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn the_sdk_reads_the_instance_id_and_a_request_without_a_token_is_refused() {
        let imds = Imds::start("i-0123456789abcdef0", "eu-central-1", Arc::new(|| None))
            .await
            .unwrap();
        let configuration = aws_config::provider_config::ProviderConfig::without_region();
        let client = aws_config::imds::Client::builder()
            .configure(&configuration.with_http_client(shared::aws::http_client()))
            .endpoint(imds.endpoint())
            .unwrap()
            .build();
        let id = client.get("/latest/meta-data/instance-id").await.unwrap();
        assert_eq!(id.as_ref(), "i-0123456789abcdef0");
        let absent = "/latest/meta-data/autoscaling/target-lifecycle-state";
        assert!(client.get(absent).await.is_err());

        let mut stream = tokio::net::TcpStream::connect(imds.address).await.unwrap();
        let request =
            "GET /latest/meta-data/instance-id HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}
