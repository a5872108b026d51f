//! Starts a stand-in from its description.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::deploy::{Binaries, function, hooks, publish_layer, restrict_functions};
use super::{StandIn, StandInBuilder, State, machines};
use crate::http;
use crate::nodes::machine::MachineSettings;
use crate::nodes::open_to_all;
use crate::standin::autoscaling;
use crate::standin::autoscaling::AutoScaling;
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

impl StandInBuilder {
    /// Starts the stand-in.
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
        let clock = Clock::scaled(self.time_scale);
        let machine_settings =
            self.machine_settings(directory.path(), format!("http://{address}"), clock)?;

        let s3 = self.s3(directory.path())?;
        let parameters = self.template_parameters();
        let template = Template::load(&self.template, &parameters)?;
        restrict_functions(&s3, &template)?;
        let bus = Arc::new(Bus::new(&template, &self.region)?);
        let ssm = self.ssm(&template, clock, &bus)?;
        let functions = if self.with_functions {
            let layer = directory.path().join("layer");
            self.functions(&template, &layer, &machine_settings.endpoint)?
        } else {
            Vec::new()
        };
        let environments = functions.iter();
        let environments = environments.map(|one| (one.name.clone(), one.environment.clone()));
        let environments = environments.collect();
        let lambda = Lambda::start(self.lambda_settings(), functions).await?;
        bus.connect(lambda.clone());

        let aws = machine_settings.aws();
        let state = Arc::new(State {
            auto_scaling: Arc::new(AutoScaling::new(self.auto_scaling_pace(clock))),
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

    /// Returns the settings of machines without an application, and creates the directory of all machines.
    fn machine_settings(
        &self,
        directory: &Path,
        endpoint: String,
        clock: Clock,
    ) -> Result<MachineSettings> {
        let nodes = directory.join("nodes");
        std::fs::create_dir_all(&nodes).context("create the nodes' directory")?;
        open_to_all(&nodes)?;
        Ok(MachineSettings {
            directory: nodes,
            endpoint,
            region: self.region.clone(),
            reboot: clock.wait(30.0),
            credentials: (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned()),
        })
    }

    /// Starts S3 with the backup bucket.
    fn s3(&self, directory: &Path) -> Result<S3> {
        let s3 = S3::new(&directory.join("s3"))?;
        s3.create_bucket(&self.bucket)?;
        s3.deny_overwrite(&self.bucket);
        Ok(s3)
    }

    /// Starts SSM with the template's documents and the additional ones.
    fn ssm(&self, template: &Template, clock: Clock, bus: &Arc<Bus>) -> Result<Ssm> {
        let documents = template.documents.iter();
        let documents = documents.map(|one| (&one.name, &one.content));
        let more = self.documents.iter().map(|(name, content)| (name, content));
        let documents = documents
            .chain(more)
            .map(|(name, content)| Document::parse(name, content));
        let mut pace = ssm::Pace::new(&self.region, clock);
        pace.stale = self.stale;
        pace.execution = Clock::scaled(self.execution_scale);
        Ok(Ssm::new(
            pace,
            documents.collect::<Result<_>>()?,
            Arc::clone(bus),
        ))
    }

    fn auto_scaling_pace(&self, clock: Clock) -> autoscaling::Pace {
        let mut pace = autoscaling::Pace::new(&self.region, clock);
        pace.drain = self.drain;
        pace
    }

    fn lambda_settings(&self) -> lambda::Settings {
        lambda::Settings {
            region: self.region.clone(),
            time_scale: self.time_scale,
            echo: self.echo.clone(),
            log_level: self.log_level.clone(),
        }
    }

    /// Returns the template's functions as Lambda runs them.
    fn functions(
        &self,
        template: &Template,
        layer: &Path,
        endpoint: &str,
    ) -> Result<Vec<Function>> {
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

    /// Returns the template's parameters, with the bucket's name and the region.
    fn template_parameters(&self) -> BTreeMap<String, String> {
        let parameters = [
            ("BackupBucketName", &self.bucket),
            ("AWS::Region", &self.region),
        ];
        parameters
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .into()
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
