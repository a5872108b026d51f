//! The stand-in as a whole: it creates the services from the template, boots machines for Auto Scaling, and gives tests
//! the means to act, observe and wait.

mod builder;
mod deploy;
mod machines;
mod start;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::lock::lock;
use crate::nodes::machine::{MachineSettings, Node};
use crate::standin::autoscaling::{AutoScaling, GroupSpec, InstanceView, Lifecycle, Tag};
use crate::standin::bus::Bus;
use crate::standin::clock;
use crate::standin::clock::Clock;
use crate::standin::fault::PlannedFaults;
use crate::standin::lambda::{FunctionError, Lambda, OutputLine};
use crate::standin::s3::S3;
use crate::standin::ssm::Ssm;
use crate::standin::template::Template;
use crate::wait::wait_for;
pub use builder::StandInBuilder;
pub use deploy::Binaries;

/// The user data of a launch template: what runs on a new machine, at the same time as the start of its SSM agent.
pub type UserData = Arc<dyn Fn(Arc<Node>) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// The description of a protected group of one instance.
#[derive(Clone)]
pub struct ProtectedGroup {
    /// The group's name.
    pub name: String,
    /// The application in its tag.
    pub application: String,
    /// The user data that prepares its machines.
    pub user_data: UserData,
    /// Whether an instance is kept if its terminate hook is abandoned.
    pub retain_on_abandon: bool,
    /// Whether the group has the tag that Rekindle looks for.
    pub tagged: bool,
}

/// The tag of the groups that Rekindle protects.
pub const APPLICATION_TAG: &str = "rekindle:application";

/// A running stand-in. When it is dropped, its processes end and its directories are removed.
pub struct StandIn {
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
    /// The environment variables of the functions, by function.
    environments: BTreeMap<String, BTreeMap<String, String>>,
    bucket: String,
    aws: SdkConfig,
    directory: TempDir,
}

/// The state that the background tasks share.
struct State {
    auto_scaling: Arc<AutoScaling>,
    ssm: Arc<Ssm>,
    bus: Arc<Bus>,
    s3: S3,
    lambda: Lambda,
    planned: Arc<PlannedFaults>,
    nodes: Mutex<BTreeMap<String, Arc<Node>>>,
    launches: Mutex<BTreeMap<String, Launch>>,
    template: PathBuf,
    parameters: BTreeMap<String, String>,
    hooks: Vec<crate::standin::autoscaling::Hook>,
    machine_settings: MachineSettings,
    registration: Duration,
    agents_held: watch::Sender<bool>,
    clock: Clock,
}

/// The user data and the settings of a group's machines.
#[derive(Clone)]
struct Launch {
    user_data: UserData,
    machine_settings: MachineSettings,
}

impl StandIn {
    /// Returns a description of a stand-in with the usual settings.
    pub fn builder() -> StandInBuilder {
        StandInBuilder::default()
    }

    /// Returns `http://127.0.0.1:<port>`, the value of `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> &str {
        &self.state.machine_settings.endpoint
    }

    /// Returns the region.
    pub fn region(&self) -> &str {
        &self.state.machine_settings.region
    }

    /// Returns the name of the backup bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Returns an SDK configuration for the stand-in's endpoint.
    pub fn aws(&self) -> &SdkConfig {
        &self.aws
    }

    /// Returns S3.
    pub fn s3(&self) -> &S3 {
        &self.state.s3
    }

    /// Returns Lambda.
    pub fn lambda(&self) -> &Lambda {
        &self.state.lambda
    }

    /// Returns the event bus.
    pub fn bus(&self) -> &Arc<Bus> {
        &self.state.bus
    }

    /// Returns SSM.
    pub fn ssm(&self) -> &Arc<Ssm> {
        &self.state.ssm
    }

    /// Returns the errors that a test plans for Auto Scaling, SSM, STS and the Invoke API.
    pub fn faults(&self) -> &PlannedFaults {
        &self.state.planned
    }

    /// Returns the clock with the time scale.
    pub fn clock(&self) -> Clock {
        self.state.clock
    }

    /// Returns the directory with all files of this stand-in.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Returns the environment variables of a function, or `None` if there is no such function.
    pub fn environment(&self, function: &str) -> Option<&BTreeMap<String, String>> {
        self.environments.get(function)
    }

    /// Returns the name of the function whose name contains `operation`, such as `backup`.
    pub fn function(&self, operation: &str) -> Result<String> {
        let named = |name: &&str| name.to_lowercase().contains(operation);
        let found = self.functions().find(named).map(str::to_owned);
        found.with_context(|| format!("there is no {operation} function"))
    }

    /// Returns the names of the functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.environments.keys().map(String::as_str)
    }

    /// Creates a group with exactly one instance and the template's hooks. The instance launches at once.
    pub fn create_group(&self, group: ProtectedGroup) -> Result<()> {
        let launch = Launch {
            user_data: group.user_data,
            machine_settings: self.machine_settings(&group.application)?,
        };
        lock(&self.state.launches).insert(group.name.clone(), launch);
        let tags = group.tagged.then(|| Tag {
            key: APPLICATION_TAG.to_owned(),
            value: group.application.clone(),
            propagate: true,
        });
        let created = self.state.auto_scaling.create(GroupSpec {
            name: group.name,
            min: 1,
            max: 1,
            desired: 1,
            tags: tags.into_iter().collect(),
            hooks: self.state.hooks.clone(),
            retain_on_abandon: group.retain_on_abandon,
        });
        created.map_err(|fault| anyhow::anyhow!("{}: {}", fault.code, fault.message))
    }

    /// Returns the settings of an application's machines, with the credentials of the node role in the template.
    pub fn machine_settings(&self, application: &str) -> Result<MachineSettings> {
        let mut parameters = self.state.parameters.clone();
        parameters.insert("ApplicationName".to_owned(), application.to_owned());
        let template = Template::load(&self.state.template, &parameters)?;
        let access_key = deploy::restrict_nodes(&self.state.s3, &template, application)?;
        let mut machine_settings = self.state.machine_settings.clone();
        machine_settings.credentials.0 = access_key;
        Ok(machine_settings)
    }

    /// Returns the instances of a group, oldest first.
    pub fn group(&self, group: &str) -> Vec<InstanceView> {
        self.state.auto_scaling.instances(group)
    }

    /// Returns the machine of an instance that has booted and was not terminated. Returns an error for any other instance.
    pub fn node(&self, instance: &str) -> Result<Arc<Node>> {
        let node = lock(&self.state.nodes).get(instance).cloned();
        node.with_context(|| format!("there is no machine for {instance}"))
    }

    /// Returns every machine that has booted and was not terminated.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        lock(&self.state.nodes).values().cloned().collect()
    }

    /// Cuts an instance's power without a warning. The next health check detects it.
    pub async fn kill_instance(&self, instance: &str) -> Result<()> {
        self.node(instance)?.kill().await?;
        self.state.auto_scaling.lost_power(instance);
        Ok(())
    }

    /// Requests that Auto Scaling terminates and replaces an instance.
    pub async fn terminate(&self, instance: &str) -> Result<()> {
        aws_sdk_autoscaling::Client::new(&self.aws)
            .terminate_instance_in_auto_scaling_group()
            .instance_id(instance)
            .should_decrement_desired_capacity(false)
            .send()
            .await
            .with_context(|| format!("terminate {instance}"))?;
        Ok(())
    }

    /// Fires the backup schedule.
    pub fn tick(&self) {
        self.state.bus.tick_now();
    }

    /// Fires the sweep.
    pub fn sweep(&self) {
        self.state.bus.sweep();
    }

    /// Invokes a function and waits for its answer.
    pub async fn invoke(&self, function: &str, payload: Value) -> Result<Value, FunctionError> {
        self.state.lambda.invoke(function, payload).await
    }

    /// Returns the output lines of the functions.
    pub fn logs(&self) -> Vec<OutputLine> {
        self.state.lambda.logs()
    }

    /// Returns whether no function handles an event and none of these instances executes a command.
    pub fn is_at_rest(&self, instances: &[&str]) -> bool {
        // In this order: the end of a command puts its event on the bus before the instance is idle.
        !instances.iter().any(|one| self.ssm().is_busy(one)) && self.lambda().pending() == 0
    }

    /// Waits until no function handles an event and none of these instances executes a command.
    ///
    /// A launch event and a sweep may both send a restore command. Until the second one has ended too, a backup would be
    /// skipped because the node is busy.
    pub async fn wait_until_at_rest(&self, instances: &[&str], deadline: Duration) -> Result<()> {
        wait_for("the events and commands to end", deadline, async || {
            if self.is_at_rest(instances) {
                return Ok(Some(()));
            }
            let pending = self.lambda().pending();
            let busy = instances.iter().filter(|one| self.ssm().is_busy(one));
            let busy: Vec<_> = busy.collect();
            Err(format!("{pending} events are pending, {busy:?} are busy"))
        })
        .await
    }

    /// Waits until an instance of the group other than `not` is in this state. Returns its machine.
    pub async fn wait_until(
        &self,
        group: &str,
        state: Lifecycle,
        not: Option<&str>,
        deadline: Duration,
    ) -> Result<Arc<Node>> {
        let what = format!("another instance of {group} in {state}");
        wait_for(&what, deadline, async || {
            let instances = self.group(group);
            let found = instances
                .iter()
                .find(|one| one.state == state && Some(one.id.as_str()) != not);
            match found.map(|one| self.node(&one.id)) {
                Some(Ok(node)) => Ok(Some(node)),
                _ => Err(format!("{instances:?}")),
            }
        })
        .await
    }

    /// Waits until an instance of the group other than `not` is in service. Returns its machine.
    pub async fn wait_until_in_service(
        &self,
        group: &str,
        not: Option<&str>,
        deadline: Duration,
    ) -> Result<Arc<Node>> {
        self.wait_until(group, Lifecycle::InService, not, deadline)
            .await
    }

    /// Moves all activities of a group this many minutes into the past.
    pub fn backdate(&self, group: &str, minutes: u64) {
        let by = Duration::from_secs(60 * minutes);
        self.state.auto_scaling.backdate(group, by);
    }

    /// Expires every hook that holds this instance.
    pub fn expire_hooks(&self, instance: &str) {
        self.state.auto_scaling.expire_hooks(instance);
    }

    /// Delays the registration of SSM agents: with `true`, agents of new machines do not register until a call with `false`.
    pub fn hold_agents(&self, held: bool) {
        self.state.agents_held.send_replace(held);
    }

    /// Advances Auto Scaling by seconds of AWS's time. Use it only while the groups are at rest: steps that start in that
    /// later time end relative to it.
    pub fn advance_by(&self, seconds: f64) {
        let later = self.state.clock.after(clock::now(), seconds);
        machines::advance_groups(&self.state, later);
    }

    /// Fires the tick and the sweep at intervals of real time, until the stand-in is dropped. The default is the template's
    /// interval, divided by the time scale.
    pub fn run_schedules(&mut self, tick: Option<Duration>, sweep: Option<Duration>) {
        let (every_tick, every_sweep) = self.state.bus.intervals();
        let scaled = |every: Duration| self.state.clock.wait(every.as_secs_f64());
        if let Some(every) = tick.or(every_tick.map(scaled)) {
            let bus = Arc::clone(&self.state.bus);
            self.tasks
                .push(repeat(every, move || bus.tick(clock::now())));
        }
        if let Some(every) = sweep.or(every_sweep.map(scaled)) {
            let bus = Arc::clone(&self.state.bus);
            self.tasks.push(repeat(every, move || bus.sweep()));
        }
    }
}

/// Calls `act` at an interval, in the background.
fn repeat(every: Duration, act: impl Fn() + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            act();
        }
    })
}

impl Drop for StandIn {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for node in lock(&self.state.nodes).values() {
            node.kill_now();
        }
    }
}
