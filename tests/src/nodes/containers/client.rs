//! Somebody's machine with Docker, outside every node: it pushes images to an application's registry, and pulls them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Application;
use crate::nodes::engine::Engine;

/// An image that was pushed to the registry.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Its repository, without the registry.
    pub repository: String,
    /// `sha256:…` of its manifest.
    pub digest: String,
    /// What the client's engine knew it by: the digest of its configuration, and so of its content.
    pub id: String,
}

/// Somebody's machine with Docker, outside every node.
pub struct Client {
    engine: Engine,
    registry: String,
    directory: PathBuf,
}

impl Client {
    /// Starts a client's engine in a directory.
    pub async fn start(directory: &Path, application: &Application) -> Result<Self> {
        let engine = Engine::start(directory, directory, "client").await?;
        Ok(Self {
            engine,
            registry: application.address(),
            directory: directory.to_owned(),
        })
    }

    /// Logs in; whoever was logged in before is not any more.
    pub async fn log_in(&self, user: (&str, &str)) -> Result<()> {
        let (name, password) = user;
        let mut command = self.engine.docker(&[
            "login",
            "--username",
            name,
            "--password-stdin",
            &self.registry,
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(password.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker login as {name}: {errors}");
        Ok(())
    }

    /// Makes an image of `bytes` random bytes, pushes it, and forgets it.
    pub async fn push(&self, repository: &str, bytes: usize) -> Result<Pushed> {
        let name = format!("{}/{repository}:latest", self.registry);
        let script =
            "head -c \"$1\" /dev/urandom > content && tar c content | docker import - \"$2\"";
        let mut command = Command::new("bash");
        command
            .args([
                "-eu",
                "-o",
                "pipefail",
                "-c",
                script,
                "import",
                &bytes.to_string(),
                &name,
            ])
            .env("DOCKER_HOST", self.engine.host())
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        let imported = command.output().await?;
        let errors = String::from_utf8_lossy(&imported.stderr);
        ensure!(imported.status.success(), "docker import: {errors}");
        self.engine.run(&["push", &name]).await?;
        let inspect = [
            "image",
            "inspect",
            "--format",
            "{{.Id}} {{index .RepoDigests 0}}",
            &name,
        ];
        let told = self.engine.run(&inspect).await?;
        let (id, reference) = told.trim().split_once(' ').context("an id and a digest")?;
        let (_, digest) = reference.split_once('@').context("a digest")?;
        let pushed = Pushed {
            repository: repository.to_owned(),
            digest: digest.to_owned(),
            id: id.to_owned(),
        };
        self.forget(&pushed.id).await?;
        Ok(pushed)
    }

    /// Pulls an image by its digest, which must be what was pushed, and forgets it again.
    pub async fn pull(&self, image: &Pushed) -> Result<()> {
        let reference = format!("{}/{}@{}", self.registry, image.repository, image.digest);
        ensure!(
            !self.engine.images().await?.contains(&image.id),
            "{reference} is there before it was pulled"
        );
        self.engine.run(&["pull", "--quiet", &reference]).await?;
        let id = self
            .engine
            .run(&["image", "inspect", "--format", "{{.Id}}", &reference])
            .await?;
        ensure!(
            id.trim() == image.id,
            "{reference} is {id} instead of {}",
            image.id
        );
        self.forget(&image.id).await
    }

    async fn forget(&self, id: &str) -> Result<()> {
        self.engine
            .run(&["image", "rm", "--force", id])
            .await
            .map(|_| ())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Err(error) = crate::nodes::machine::end_processes(&self.directory) {
            tracing::warn!("a client's engine may be left running: {error:#}");
        }
        if let Err(error) = crate::nodes::engine::let_go(&self.directory, "client") {
            tracing::warn!("clean up: {error:#}");
        }
    }
}
