//! Builds a stand-in from the template and the shipped binaries.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use axum::Router;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::deploy::{Binaries, function, hooks, publish_layer, restrict_functions};
use super::{StandIn, State, machines};
use crate::http;
use crate::nodes::machine::MachineSettings;
use crate::standin::autoscaling;
use crate::standin::autoscaling::{AutoScaling, Ends};
use crate::standin::bus::Bus;
use crate::standin::clock::Clock;
use crate::standin::endpoint;
use crate::standin::endpoint::Services;
use crate::standin::lambda;
use crate::standin::lambda::{Function, Lambda};
use crate::standin::s3::{ACCESS_KEY, S3, SECRET_KEY};
use crate::standin::ssm;
use crate::standin::ssm::{Document, Ssm};
use crate::standin::template::Template;

/// A description of a stand-in.
#[derive(Debug, Clone)]
pub struct StandInBuilder {
    template: PathBuf,
    bucket: String,
    parameters: BTreeMap<String, String>,
    binaries: Option<Binaries>,
    functions: bool,
    documents: Vec<(String, Value)>,
    region: String,
    time_scale: f64,
    execution_scale: f64,
    registration_delay: f64,
    hidden: f64,
    stale: f64,
    drain: f64,
    ends: Ends,
    port: u16,
    echo: Option<PathBuf>,
    log_level: String,
    overwrites: bool,
    parent: PathBuf,
}

impl Default for StandInBuilder {
    fn default() -> Self {
        Self {
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml"),
            bucket: "rekindle-backups".to_owned(),
            parameters: BTreeMap::new(),
            binaries: None,
            functions: true,
            documents: Vec::new(),
            region: "eu-central-1".to_owned(),
            time_scale: 60.0,
            execution_scale: 1.0,
            registration_delay: 20.0,
            hidden: 2.0,
            stale: 300.0,
            drain: f64::from(shared::budget::DEREGISTRATION_DELAY),
            ends: Ends::Named,
            port: 0,
            echo: None,
            log_level: "info".to_owned(),
            overwrites: false,
            parent: std::env::temp_dir(),
        }
    }
}

impl StandInBuilder {
    /// Takes another template than the project's.
    #[must_use]
    pub fn template(mut self, path: impl Into<PathBuf>) -> Self {
        self.template = path.into();
        self
    }

    /// Gives a parameter of the template a value.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Names the bucket of backups.
    #[must_use]
    pub fn bucket(mut self, bucket: &str) -> Self {
        bucket.clone_into(&mut self.bucket);
        self
    }

    /// Returns the name of the bucket of backups.
    pub fn bucket_name(&self) -> &str {
        &self.bucket
    }

    /// Runs other programs than this build's, such as release packages.
    #[must_use]
    pub fn binaries(mut self, binaries: Binaries) -> Self {
        self.binaries = Some(binaries);
        self
    }

    /// Runs no functions: hooks wait for whoever answers them.
    #[must_use]
    pub fn without_functions(mut self) -> Self {
        self.functions = false;
        self
    }

    /// Knows one more SSM document than the template has.
    #[must_use]
    pub fn document(mut self, name: &str, content: Value) -> Self {
        self.documents.push((name.to_owned(), content));
        self
    }

    /// Shortens AWS's own waits by this factor; 60 by default.
    #[must_use]
    pub fn time_scale(mut self, scale: f64) -> Self {
        self.time_scale = scale;
        self
    }

    /// Shortens the agent's `timeoutSeconds` by this factor; 1 by default, since nodes do real work.
    #[must_use]
    pub fn execution_scale(mut self, scale: f64) -> Self {
        self.execution_scale = scale;
        self
    }

    /// Sets AWS's seconds from an instance's launch until its agent has registered.
    #[must_use]
    pub fn registration_delay(mut self, seconds: f64) -> Self {
        self.registration_delay = seconds;
        self
    }

    /// Sets AWS's seconds for which a new command is not to be seen.
    #[must_use]
    pub fn hidden(mut self, seconds: f64) -> Self {
        self.hidden = seconds;
        self
    }

    /// Sets AWS's seconds after which a silent agent counts as `ConnectionLost`.
    #[must_use]
    pub fn stale(mut self, seconds: f64) -> Self {
        self.stale = seconds;
        self
    }

    /// Sets the deregistration delay, in AWS's seconds.
    #[must_use]
    pub fn drain(mut self, seconds: f64) -> Self {
        self.drain = seconds;
        self
    }

    /// Chooses the shape of lifecycle events.
    #[must_use]
    pub fn ends(mut self, ends: Ends) -> Self {
        self.ends = ends;
        self
    }

    /// Listens on this port of 127.0.0.1; on any free one by default.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Appends the functions' logs to a file too.
    #[must_use]
    pub fn echo(mut self, file: impl Into<PathBuf>) -> Self {
        self.echo = Some(file.into());
        self
    }

    /// Sets the functions' log level.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Lets objects be overwritten, which the template's bucket policy denies.
    #[must_use]
    pub fn overwrites(mut self) -> Self {
        self.overwrites = true;
        self
    }

    /// Keeps S3's objects and the nodes' disks below this directory; below the one for temporary files by default.
    #[must_use]
    pub fn below(mut self, directory: impl Into<PathBuf>) -> Self {
        self.parent = directory.into();
        self
    }

    /// Starts everything.
    pub async fn start(self) -> Result<StandIn> {
        let directory = tempfile::Builder::new()
            .prefix("rekindle-")
            .tempdir_in(&self.parent)
            .context("create the stand-in's directory")?;
        open_to_all(directory.path())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr().context("the listener's address")?;
        let endpoint = format!("http://{address}");
        let clock = Clock::scaled(self.time_scale);
        let machine_settings = MachineSettings {
            directory: directory.path().join("nodes"),
            endpoint: endpoint.clone(),
            region: self.region.clone(),
            reboot: clock.wait(30.0),
            credentials: (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned()),
        };

        let s3 = S3::new(&directory.path().join("s3"))?;
        s3.create_bucket(&self.bucket)?;
        if !self.overwrites {
            s3.deny_overwrite(&self.bucket);
        }
        let parameters = self.template_parameters();
        let template = Template::load(&self.template, &parameters)?;
        restrict_functions(&s3, &template)?;
        let bus = Arc::new(Bus::new(&template, &self.region)?);
        let documents = template.documents.iter();
        let documents = documents.map(|one| (&one.name, &one.content));
        let more = self.documents.iter().map(|(name, content)| (name, content));
        let documents = documents
            .chain(more)
            .map(|(name, content)| Document::parse(name, content));
        let mut ssm_pace = ssm::Pace::new(&self.region, clock);
        ssm_pace.hidden = self.hidden;
        ssm_pace.stale = self.stale;
        ssm_pace.execution = Clock::scaled(self.execution_scale);
        let ssm = Ssm::new(
            ssm_pace,
            documents.collect::<Result<_>>()?,
            Arc::clone(&bus),
        );
        let mut pace = autoscaling::Pace::new(&self.region, clock);
        pace.drain = self.drain;
        pace.ends = self.ends;

        let functions = if self.functions {
            self.deployed(&template, &directory.path().join("layer"), &endpoint)?
        } else {
            Vec::new()
        };
        let environments = functions.iter();
        let environments = environments.map(|one| (one.name.clone(), one.environment.clone()));
        let environments = environments.collect();
        let settings = lambda::Settings {
            region: self.region.clone(),
            time_scale: self.time_scale,
            echo: self.echo.clone(),
            log_level: self.log_level.clone(),
            port: 0,
        };
        let lambda = Lambda::start(settings, functions).await?;
        bus.connect(lambda.clone());

        let nodes = &machine_settings.directory;
        std::fs::create_dir_all(nodes).context("create the nodes' directory")?;
        open_to_all(nodes)?;
        let aws = machine_settings.aws();
        let state = Arc::new(State {
            auto_scaling: Arc::new(AutoScaling::new(pace)),
            ssm: Arc::new(ssm),
            bus,
            s3,
            lambda,
            planned: Arc::default(),
            nodes: Mutex::default(),
            launches: Mutex::default(),
            template: self.template,
            parameters,
            hooks: hooks(&template.hooks)?,
            machine_settings,
            registration: clock.wait(self.registration_delay),
            agents_held: watch::Sender::new(false),
            clock,
        });
        let tasks = vec![
            tokio::spawn(serve(listener, services(&state))),
            tokio::spawn(machines::run(Arc::clone(&state))),
        ];
        Ok(StandIn {
            state,
            tasks,
            environments,
            bucket: self.bucket,
            aws,
            directory,
        })
    }

    fn deployed(&self, template: &Template, layer: &Path, endpoint: &str) -> Result<Vec<Function>> {
        let binaries = match &self.binaries {
            Some(binaries) => binaries.clone(),
            None => Binaries::find()?,
        };
        let agent = publish_layer(&binaries.agent, layer)?;
        let functions = template.functions.iter();
        functions
            .map(|spec| function(spec, &binaries, &agent, endpoint, &self.region))
            .collect()
    }

    fn template_parameters(&self) -> BTreeMap<String, String> {
        let mut parameters = self.parameters.clone();
        for (name, value) in [
            ("BackupBucketName", &self.bucket),
            ("AWS::Region", &self.region),
        ] {
            parameters.insert(name.to_owned(), value.clone());
        }
        parameters
    }
}

fn services(state: &State) -> Services {
    Services {
        auto_scaling: Arc::clone(&state.auto_scaling),
        ssm: Arc::clone(&state.ssm),
        s3: state.s3.clone(),
        lambda: state.lambda.clone(),
        planned: Arc::clone(&state.planned),
    }
}

async fn serve(listener: TcpListener, services: Services) {
    let routes = Router::new()
        .fallback(endpoint::handle)
        .with_state(services);
    http::serve("the stand-in's listener", listener, routes).await;
}

/// Postgres runs as a user of its own and has to get through.
fn open_to_all(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("open {}", path.display()))
}
