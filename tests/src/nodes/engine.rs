//! The Docker Engine of one node: it starts without images, containers and volumes, and ends with its node.
//!
//! It is a second `dockerd` with directories, a socket and a control group of its own. It has no bridge: containers use
//! the machine's network, because the stand-in listens on 127.0.0.1 only.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::{Child, Command};

use crate::repository::project;

/// How long an engine may take to answer. Two others may load images at the same time.
const START_LIMIT: Duration = Duration::from_mins(2);

/// A Docker Engine. It is killed when it is dropped; its containers are killed by the node.
#[derive(Debug)]
pub struct Engine {
    directory: PathBuf,
    _daemon: Child,
}

impl Engine {
    /// Starts an engine with all its files in `directory`. `root` and `id` mark its processes as the node's.
    pub async fn start(directory: &Path, root: &Path, id: &str) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        // Otherwise dockerd reads the configuration of the machine's own engine.
        let configuration = directory.join("daemon.json");
        std::fs::write(&configuration, "{}")?;
        let log = directory.join("log");
        let log =
            std::fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let daemon = Command::new("dockerd")
            .arg("--config-file")
            .arg(&configuration)
            .arg("--data-root")
            .arg(directory.join("data"))
            .arg("--exec-root")
            .arg(directory.join("exec"))
            .arg("--pidfile")
            .arg(directory.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", directory.join("socket").display()))
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip-forward=false",
                "--ip-masq=false",
            ])
            .arg(format!("--storage-driver={}", storage_driver().await?))
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .arg(format!("--cgroup-parent={}", control_group(id)))
            .env("REKINDLE_ROOT", root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start dockerd")?;
        let engine = Self {
            directory: directory.to_owned(),
            _daemon: daemon,
        };
        // Not with `wait_for`: user data must be `Send`, and the future of `wait_for` is not.
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = engine.answer().await {
            ensure!(
                Instant::now() < deadline,
                "the Docker Engine in {} does not answer: {error:#}; {}",
                directory.display(),
                engine.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(engine)
    }

    async fn answer(&self) -> Result<()> {
        output(self.docker(&["version"])).await.map(|_| ())
    }

    /// Returns `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.join("socket").display())
    }

    /// Prepares a command of the Docker client for this engine. The client's credentials are in the engine's directory.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.directory.join("client"))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command of the Docker client and returns its standard output.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        output(self.docker(arguments)).await
    }

    /// Runs a program in a running container and returns its standard output.
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<String> {
        self.run(&[&["exec", container], command].concat()).await
    }

    /// Copies an image from this machine's engine, as if the node's AMI contained it.
    pub async fn load_image(&self, image: &str) -> Result<()> {
        let socket = self.directory.join("socket");
        let script = "docker save \"$0\" | DOCKER_HOST=\"unix://$1\" docker load --quiet";
        let mut command = Command::new("bash");
        command
            .args(["-o", "pipefail", "-c", script, image])
            .arg(socket)
            .stdin(Stdio::null());
        output(command).await.map(|_| ())
    }

    /// Returns the ids of its images.
    pub async fn images(&self) -> Result<Vec<String>> {
        let listed = self.run(&["image", "ls", "--quiet", "--no-trunc"]).await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Returns the last three lines of the log, the newest first.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.join(" | ")
    }
}

/// Returns the control group of the containers of a node's engine.
pub fn control_group(id: &str) -> String {
    format!("/rekindle-{id}")
}

/// Removes the mounts of a dead engine below a directory, and removes its control groups.
pub fn clean_up(directory: &Path, id: &str) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("list the mounts")?;
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let below: Vec<&str> = mounts
        .filter(|path| Path::new(path).starts_with(directory))
        .collect();
    // The newest mount covers the older ones.
    for path in below.iter().rev() {
        // Fails if the mount is gone already, which is fine.
        let mut command = std::process::Command::new("umount");
        command
            .args(["--lazy", path])
            .stderr(Stdio::null())
            .status()?;
    }
    let name = control_group(id);
    let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
    if let Ok(controllers) = std::fs::read_dir("/sys/fs/cgroup") {
        hierarchies.extend(controllers.flatten().map(|controller| controller.path()));
    }
    for hierarchy in hierarchies {
        let group = hierarchy.join(name.trim_start_matches('/'));
        let containers = std::fs::read_dir(&group).into_iter().flatten().flatten();
        for container in containers.filter(|entry| entry.path().is_dir()) {
            std::fs::remove_dir(container.path()).ok();
        }
        // Fails while a process is left in it; it then stays until this machine reboots.
        std::fs::remove_dir(&group).ok();
    }
    Ok(())
}

/// Returns why containers cannot run on this machine, or `None` if they can. In CI such a reason is an error.
pub async fn missing() -> Result<Option<String>> {
    let why = why_missing().await;
    let ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    match why {
        Some(why) if ci => bail!("CI must run the container tests, but {why}"),
        why => Ok(why),
    }
}

async fn why_missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some(
            "only root can start a Docker Engine for each node; run the tests as root".to_owned(),
        );
    }
    let mut version = Command::new("docker");
    version.arg("version").stdin(Stdio::null());
    if let Err(error) = output(version).await {
        return Some(format!("no Docker Engine answers; start one: {error:#}"));
    }
    let mut daemon = Command::new("dockerd");
    daemon.arg("--version").stdin(Stdio::null());
    match output(daemon).await {
        Ok(_) => None,
        Err(error) => Some(format!("dockerd cannot be started; install it: {error:#}")),
    }
}

/// Returns the name of the test image with Postgres and the registry on this machine's engine. It is built if it is
/// missing.
pub async fn image() -> Result<String> {
    let script = project().join("tests/image/build.sh");
    let mut command = Command::new(script);
    command.stdin(Stdio::null());
    let printed = output(command).await.context("build the test image")?;
    Ok(printed.trim().to_owned())
}

/// Returns the storage driver of this machine's engine: the engines of the nodes can use the same one.
async fn storage_driver() -> Result<String> {
    let mut command = Command::new("docker");
    command
        .args(["info", "--format", "{{.Driver}}"])
        .stdin(Stdio::null());
    let driver = output(command).await?;
    Ok(driver.trim().to_owned())
}

async fn output(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .await
        .with_context(|| format!("run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{:?} ended with {}: {}",
        command.as_std(),
        output.status,
        errors.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
