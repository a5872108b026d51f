//! SSM: Run Command on simulated nodes, the inventory of agents, and the Parameter Store.
//!
//! [`send`] accepts commands, [`execute`] runs them on nodes, and [`list`] returns their status.
//!
//! A test can make an operation fail with [`PlannedFaults`](super::fault::PlannedFaults), and let agents
//! count as lost sooner with [`Pace::stale`].

mod api;
mod command;
mod document;
mod execute;
mod inventory;
mod list;
mod parameters;
mod request;
mod send;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use time::OffsetDateTime;
use uuid::Uuid;

pub use api::{answer, error_response};
pub use command::Status;
pub use document::Document;
pub use document::Parameters;

use crate::lock::lock;
use crate::nodes::machine::Node;
use crate::standin::autoscaling::{ACCOUNT, Tag, envelope};
use crate::standin::bus::Bus;
use crate::standin::clock;
use crate::standin::clock::Clock;
use command::Command;
use parameters::ParameterStore;

/// The detail type of the events about a command on one instance.
pub const INVOCATION_CHANGE: &str = "EC2 Command Invocation Status-change Notification";

/// SSM in one region.
#[derive(Debug)]
pub struct Ssm {
    pace: Pace,
    documents: BTreeMap<String, Arc<Document>>,
    bus: Arc<Bus>,
    state: Mutex<State>,
}

/// The times of SSM's own steps, in seconds of AWS's time.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How long after its last ping an agent counts as `ConnectionLost`.
    pub stale: f64,
    /// The factor by which the documents' `timeoutSeconds` is shortened. It is a clock of its own, because the work of a
    /// node takes real time.
    pub execution: Clock,
    /// The region.
    pub region: String,
    /// The speed of time.
    pub clock: Clock,
}

impl Pace {
    /// Returns the times of AWS.
    pub fn new(region: &str, clock: Clock) -> Self {
        Self {
            stale: 300.0,
            execution: Clock::scaled(1.0),
            region: region.to_owned(),
            clock,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    agents: BTreeMap<String, Agent>,
    commands: BTreeMap<String, Command>,
    parameters: ParameterStore,
}

/// An SSM agent that has registered.
#[derive(Debug)]
struct Agent {
    node: Arc<Node>,
    registered: OffsetDateTime,
    last_ping: OffsetDateTime,
    tags: Vec<Tag>,
}

impl Ssm {
    /// Creates SSM with these documents and without agents, commands and parameters.
    pub fn new(pace: Pace, documents: Vec<Document>, bus: Arc<Bus>) -> Self {
        let documents = documents.into_iter();
        Self {
            pace,
            documents: documents
                .map(|document| (document.name.clone(), Arc::new(document)))
                .collect(),
            bus,
            state: Mutex::default(),
        }
    }

    /// Registers a node's agent, so that commands can be sent to it.
    pub fn register(&self, node: Arc<Node>, tags: Vec<Tag>) {
        let now = clock::now();
        let agent = Agent {
            registered: now,
            last_ping: now,
            tags,
            node,
        };
        let id = agent.node.id().to_owned();
        lock(&self.state).agents.insert(id, agent);
    }

    /// Removes the agent of a terminated instance.
    pub fn deregister(&self, instance: &str) {
        lock(&self.state).agents.remove(instance);
    }

    /// Records pings, and times out commands that were not delivered or whose agent is silent.
    pub fn advance(&self, now: OffsetDateTime) {
        let mut state = lock(&self.state);
        let State {
            agents, commands, ..
        } = &mut *state;
        for agent in agents.values_mut() {
            if agent.node.agent_runs() {
                agent.last_ping = now;
            }
        }
        for command in commands.values_mut() {
            let lost: Vec<String> = command
                .invocations
                .iter()
                .filter(|invocation| {
                    let agent = agents.get(&invocation.instance);
                    let alive = agent.is_some_and(|agent| agent.node.agent_runs());
                    match invocation.status {
                        Status::Pending => invocation.deliver_by <= now,
                        Status::InProgress | Status::Cancelling => {
                            invocation.end_by <= now && !alive
                        }
                        _ => false,
                    }
                })
                .map(|invocation| invocation.instance.clone())
                .collect();
            for instance in lost {
                self.set_status(command, &instance, Status::DeliveryTimedOut);
            }
        }
    }

    /// Returns whether an instance has a command that has not ended, even if SSM does not list it yet.
    pub fn is_busy(&self, instance: &str) -> bool {
        let state = lock(&self.state);
        let mut invocations = state.commands.values().flat_map(|one| &one.invocations);
        invocations.any(|one| one.instance == instance && !one.status.is_final())
    }

    /// Returns whether an instance's agent has registered.
    pub fn has_agent(&self, instance: &str) -> bool {
        lock(&self.state).agents.contains_key(instance)
    }

    /// Returns the number of commands that were sent so far, by document.
    pub fn sent(&self) -> BTreeMap<String, usize> {
        let mut sent = BTreeMap::new();
        for command in lock(&self.state).commands.values() {
            *sent.entry(command.document.name.clone()).or_default() += 1;
        }
        sent
    }

    /// Sets an invocation's status and sends the events for the invocation and, if its status changes, for the command.
    fn set_status(&self, command: &mut Command, instance: &str, status: Status) {
        let before = command.status();
        let Some(invocation) = command.invocation(instance) else {
            return;
        };
        if invocation.status.is_final() || invocation.status == status {
            return;
        }
        invocation.status = status;
        let region = &self.pace.region;
        let emit = |detail_type: &str, detail: &serde_json::Value| {
            let arn = format!("arn:aws:ec2:{region}:{ACCOUNT}:instance/{instance}");
            let event = envelope("aws.ssm", detail_type, region, &[arn], detail);
            self.bus.put(event);
        };
        emit(
            INVOCATION_CHANGE,
            &command.invocation_event(instance, status),
        );
        if command.status() != before {
            emit("EC2 Command Status-change Notification", &command.event());
        }
    }
}

/// Returns whether an event reports that a command succeeded on an instance.
pub fn reports_success(event: &serde_json::Value) -> bool {
    event["detail-type"] == INVOCATION_CHANGE && event["detail"]["status"] == "Success"
}

fn command_id() -> String {
    Uuid::new_v4().to_string()
}
