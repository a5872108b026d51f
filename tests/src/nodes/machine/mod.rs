//! A simulated instance: a root directory, its processes, its metadata service, and an SSM agent that runs scripts on
//! it. A loss of power kills every process of the node. A termination also erases its disk.

mod processes;
mod script;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::nodes::engine;
use crate::nodes::engine::Engine;
use crate::nodes::imds::{Imds, TargetState};
use crate::nodes::open_to_all;
use crate::nodes::postgres;
use crate::nodes::postgres::Cluster;
pub use crate::nodes::write_program;
pub use script::{Script, ScriptEnd};

/// How many commands an SSM agent runs at a time.
const WORKERS: usize = 5;

/// The settings that the machines of an application share.
#[derive(Debug, Clone)]
pub struct MachineSettings {
    /// The directory that contains the machines' directories.
    pub directory: PathBuf,
    /// The stand-in's `http://127.0.0.1:<port>`.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// How long a reboot takes.
    pub reboot: Duration,
    /// The access key and the secret key of the node's instance role.
    pub credentials: (String, String),
}

impl MachineSettings {
    /// Returns an SDK configuration for the stand-in with the credentials of the node's role.
    pub fn aws(&self) -> SdkConfig {
        let (access_key, secret_key) = &self.credentials;
        let credentials = Credentials::new(access_key, secret_key, None, None, "stand-in");
        SdkConfig::builder()
            .http_client(shared::aws::http_client())
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(&self.endpoint)
            .region(Region::new(self.region.clone()))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }
}

/// A simulated instance.
pub struct Node {
    id: String,
    group: String,
    settings: MachineSettings,
    s3: aws_sdk_s3::Client,
    directory: PathBuf,
    imds: Imds,
    workers: Arc<Semaphore>,
    cluster: OnceLock<Cluster>,
    engine: OnceLock<Engine>,
    agent: AtomicBool,
    power: AtomicBool,
    discarded: AtomicBool,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Creates the directory of a new instance of `group` and starts its metadata service. Its SSM agent does not run yet.
    pub async fn boot(
        id: &str,
        group: &str,
        settings: &MachineSettings,
        target_state: TargetState,
    ) -> Result<Arc<Self>> {
        let directory = settings.directory.join(id);
        let node = Self {
            imds: Imds::start(id, &settings.region, target_state).await?,
            id: id.to_owned(),
            group: group.to_owned(),
            settings: settings.clone(),
            s3: aws_sdk_s3::Client::new(&settings.aws()),
            directory,
            workers: Arc::new(Semaphore::new(WORKERS)),
            cluster: OnceLock::new(),
            engine: OnceLock::new(),
            agent: AtomicBool::new(false),
            power: AtomicBool::new(true),
            discarded: AtomicBool::new(false),
        };
        for part in ["etc/rekindle", "var/lib", "run", "usr/local/bin"] {
            let path = node.root().join(part);
            std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        // Postgres runs as a user of its own and needs access to its directory.
        for path in [&node.directory, &node.root()] {
            open_to_all(path)?;
        }
        node.install_cloud_init()?;
        Ok(Arc::new(node))
    }

    /// Returns the instance id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the name of the Auto Scaling group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Returns the directory that the node's programs use as `/`.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Returns the path of the `restored` marker.
    pub fn marker(&self) -> PathBuf {
        self.root().join("var/lib/rekindle/restored.json")
    }

    /// Sets the node's Postgres. Only the first call has an effect.
    pub(crate) fn attach(&self, cluster: Cluster) {
        self.cluster.get_or_init(|| cluster);
    }

    /// Returns the node's Postgres, or an error before user data has created it.
    pub fn cluster(&self) -> Result<&Cluster> {
        let cluster = self.cluster.get();
        cluster.with_context(|| format!("{} has no Postgres yet", self.id))
    }

    /// Starts a Docker Engine for the node, without images.
    pub async fn start_engine(&self) -> Result<&Engine> {
        let engine = Engine::start(&self.directory.join("engine"), &self.root(), &self.id).await?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Returns the node's Docker Engine, or an error if it has no engine.
    pub fn engine(&self) -> Result<&Engine> {
        let engine = self.engine.get();
        engine.with_context(|| format!("{} has no Docker Engine", self.id))
    }

    /// Returns whether the SSM agent runs: only then it accepts commands and reports results.
    pub fn agent_runs(&self) -> bool {
        self.agent.load(Ordering::SeqCst) && self.has_power()
    }

    /// Starts the SSM agent.
    pub fn start_agent(&self) {
        self.agent.store(true, Ordering::SeqCst);
    }

    /// Stops the SSM agent. Everything else keeps running, its scripts included.
    pub fn stop_agent(&self) {
        self.agent.store(false, Ordering::SeqCst);
    }

    /// Returns whether the machine has power.
    pub fn has_power(&self) -> bool {
        self.power.load(Ordering::SeqCst)
    }

    /// Returns whether the instance was terminated.
    pub fn is_discarded(&self) -> bool {
        self.discarded.load(Ordering::SeqCst)
    }

    /// Cuts the power: every process of the node is killed, and the disk stays.
    pub async fn kill(&self) -> Result<()> {
        self.power.store(false, Ordering::SeqCst);
        processes::kill_all(&self.root()).await
    }

    /// Terminates the instance: cuts the power and erases the disk.
    pub async fn discard(&self) -> Result<()> {
        self.discarded.store(true, Ordering::SeqCst);
        self.kill().await?;
        self.erase()
    }

    /// Cuts the power where nothing can be awaited.
    pub(crate) fn kill_now(&self) {
        self.power.store(false, Ordering::SeqCst);
        self.discarded.store(true, Ordering::SeqCst);
        let cleaned = processes::kill_all_blocking(&self.root()).and_then(|()| self.clean_up());
        if let Err(error) = cleaned {
            tracing::warn!(instance = self.id, "clean up: {error:#}");
        }
    }

    /// Frees the resources that outlive the processes: the server's shared memory, and the engine's mounts.
    fn clean_up(&self) -> Result<()> {
        if let Some(cluster) = self.cluster.get() {
            cluster.free_shared_memory();
        }
        match self.engine.get() {
            Some(_) => engine::clean_up(&self.directory, &self.id),
            None => Ok(()),
        }
    }

    fn erase(&self) -> Result<()> {
        self.clean_up()?;
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("erase {}", self.directory.display()))
            }
            _ => Ok(()),
        }
    }

    /// Kills every process, and starts the SSM agent again after the time of a reboot.
    pub(crate) async fn reboot(&self) {
        self.stop_agent();
        if let Err(error) = processes::kill_all(&self.root()).await {
            tracing::error!(instance = self.id, "reboot: {error:#}");
        }
        tokio::time::sleep(self.settings.reboot).await;
        self.start_agent();
    }

    /// Takes one of the SSM agent's workers, or returns `None` if none is free.
    pub(crate) fn worker(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.workers).try_acquire_owned().ok()
    }

    /// Downloads an object to an absolute path of the node. A path that ends with `/` is a directory.
    pub(crate) async fn download(&self, bucket: &str, key: &str, destination: &str) -> Result<()> {
        let mut path = self.root().join(destination.trim_start_matches('/'));
        if destination.ends_with('/') {
            path = path.join(key.rsplit('/').next().unwrap_or(key));
        }
        let object = self.s3.get_object().bucket(bucket).key(key).send().await;
        let object = object.with_context(|| format!("get s3://{bucket}/{key}"))?;
        let bytes = object
            .body
            .collect()
            .await
            .with_context(|| format!("read s3://{bucket}/{key}"))?;
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent)
                .await
                .with_context(|| format!("create {}", parent.display()))?;
        }
        // A program that is running cannot be written to, but it can be replaced.
        let partial = path.with_extension("partial");
        tokio::fs::write(&partial, bytes.into_bytes())
            .await
            .with_context(|| format!("write {}", partial.display()))?;
        tokio::fs::rename(&partial, &path)
            .await
            .with_context(|| format!("replace {}", path.display()))
    }

    /// Returns an SDK configuration with the credentials of the node's role.
    pub fn aws(&self) -> SdkConfig {
        self.settings.aws()
    }

    /// Returns the whole environment of the node's processes.
    pub fn environment(&self) -> Result<BTreeMap<String, String>> {
        let tools = postgres::bin_directory()?;
        let own = self.root().join("usr/local/bin");
        let path = format!(
            "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            own.display(),
            tools.display()
        );
        let (access_key, secret_key) = self.settings.credentials.clone();
        let variables = [
            ("PATH", path),
            ("HOME", "/root".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("REKINDLE_ROOT", self.root().display().to_string()),
            ("AWS_ENDPOINT_URL", self.settings.endpoint.clone()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.imds.endpoint()),
            ("AWS_REGION", self.settings.region.clone()),
            ("AWS_ACCESS_KEY_ID", access_key),
            ("AWS_SECRET_ACCESS_KEY", secret_key),
            ("AWS_SSM_INSTANCE_ID", self.id.clone()),
            ("AWS_SSM_REGION_NAME", self.settings.region.clone()),
        ];
        let engine = self.engine.get();
        let variables = variables
            .into_iter()
            .chain(engine.map(|engine| ("DOCKER_HOST", engine.host())));
        Ok(variables
            .map(|(name, value)| (name.to_owned(), value))
            .collect())
    }

    /// Runs a script as the SSM agent does and waits for its end.
    pub async fn run(&self, script: &Script) -> Result<ScriptEnd> {
        ensure!(self.has_power(), "{} has no power", self.id);
        let mut environment = self.environment()?;
        environment.insert("SSM_COMMAND_ID".to_owned(), script.command.clone());
        let directory = self
            .directory
            .join("orchestration")
            .join(&script.command)
            .join(&script.step);
        script::run(script, &directory, &self.root(), environment).await
    }

    /// Writes the node's `cloud-init`, whose `status --wait` returns when the user data is done.
    fn install_cloud_init(&self) -> Result<()> {
        let program = "#!/bin/sh\n\
            # The node's cloud-init: `cloud-init status --wait` returns once the user data is done.\n\
            until [ -e \"$REKINDLE_ROOT/var/lib/cloud/instance/boot-finished\" ]; do sleep 0.05; done\n\
            echo 'status: done'\n";
        write_program(&self.root().join("usr/local/bin/cloud-init"), program)?;
        // The folder exists from the beginning, so that an early caller can see that there is something to wait for.
        let cloud = self.root().join("var/lib/cloud");
        let own = Path::new("instances").join(&self.id);
        std::fs::create_dir_all(cloud.join(&own))
            .and_then(|()| std::os::unix::fs::symlink(&own, cloud.join("instance")))
            .with_context(|| format!("prepare {}", cloud.display()))
    }

    /// Records that the user data is done.
    pub fn finish_boot(&self) -> Result<()> {
        let path = self.root().join("var/lib/cloud/instance/boot-finished");
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("create {}", parent.display()))?;
        }
        std::fs::write(&path, "").with_context(|| format!("write {}", path.display()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_now();
        if let Err(error) = self.erase() {
            tracing::warn!(instance = self.id, "clean up: {error:#}");
        }
    }
}

/// Kills all processes of this root and waits for their end: otherwise they could write into a directory that is being
/// erased.
pub(crate) fn kill_processes(root: &Path) -> Result<()> {
    processes::kill_all_blocking(root)
}

#[cfg(test)]
mod tests;
