//! A Docker Engine of a node's own: it comes up without images, containers and volumes, and dies with its node.
//!
//! It is a second `dockerd`, with directories, a socket and a control group of its own, and without a bridge: containers
//! use the machine's network, since the stand-in, like everything here, listens on 127.0.0.1 alone.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::{Child, Command};

/// How long an engine may take to answer: two of them may be loading images beside it.
const START_LIMIT: Duration = Duration::from_mins(2);

/// An engine. Killed when it is dropped; what it ran is the node's to kill.
#[derive(Debug)]
pub struct Engine {
    directory: PathBuf,
    _daemon: Child,
}

impl Engine {
    /// Starts an engine that keeps everything in `directory`. Its processes are known by `root` and `id`, as the node's.
    pub async fn start(directory: &Path, root: &Path, id: &str) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        // The machine's own configuration is not this engine's.
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
        // Not by `wait_for`, whose future cannot be sent to another thread, as user data is.
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

    /// Prepares a command of the Docker client for this engine. Credentials are kept beside it.
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

    /// Runs a command of the Docker client, and returns what it printed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        output(self.docker(arguments)).await
    }

    /// Runs a program in a container that runs.
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<String> {
        self.run(&[&["exec", container], command].concat()).await
    }

    /// Copies an image of this machine's engine, as a machine image would have brought it.
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

    /// Returns the ids of the images that it has.
    pub async fn images(&self) -> Result<Vec<String>> {
        let listed = self.run(&["image", "ls", "--quiet", "--no-trunc"]).await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.join(" | ")
    }
}

/// Returns the control group of everything that the engine of this node runs.
pub fn control_group(id: &str) -> String {
    format!("/rekindle-{id}")
}

/// Lets go of what a dead engine has mounted below a directory, and of its control groups.
pub fn clean_up(directory: &Path, id: &str) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("list the mounts")?;
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let below: Vec<&str> = mounts
        .filter(|path| Path::new(path).starts_with(directory))
        .collect();
    // What was mounted last lies on top.
    for path in below.iter().rev() {
        // One whose server is dead may have gone by itself meanwhile.
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
        // One that has a process yet goes with the machine.
        std::fs::remove_dir(&group).ok();
    }
    Ok(())
}

/// Says why containers cannot be run here, if they cannot. In CI that is a failure.
pub async fn missing() -> Result<Option<String>> {
    let why = why_missing().await;
    let ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    match why {
        Some(why) if ci => bail!("CI has to run the container tests: {why}"),
        why => Ok(why),
    }
}

async fn why_missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can start a Docker Engine for each node".to_owned());
    }
    let mut asked = Command::new("docker");
    asked.arg("version").stdin(Stdio::null());
    if let Err(error) = output(asked).await {
        return Some(format!("no Docker Engine answers: {error:#}"));
    }
    let mut daemon = Command::new("dockerd");
    daemon.arg("--version").stdin(Stdio::null());
    match output(daemon).await {
        Ok(_) => None,
        Err(error) => Some(format!("dockerd cannot be started: {error:#}")),
    }
}

/// Returns the name of the image of Postgres and the registry on this machine's engine; it is made where there is none.
pub async fn image() -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/build.sh");
    let mut command = Command::new(script);
    command.stdin(Stdio::null());
    let printed = output(command).await.context("make the test image")?;
    Ok(printed.trim().to_owned())
}

/// What works for this machine's engine works for the nodes'.
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
