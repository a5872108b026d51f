//! SSM: Run Command on simulated nodes, the inventory of agents, and the Parameter Store.
//!
//! [`send`] takes commands, [`execute`] runs them on nodes, [`list`] answers how they are.

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
pub use command::{Parameters, Status};
pub use document::Document;

use crate::lock::lock;
use crate::nodes::machine::Node;
use crate::standin::autoscaling::{ACCOUNT, Tag, envelope};
use crate::standin::bus::Bus;
use crate::standin::clock;
use crate::standin::clock::Clock;
use command::Command;
use parameters::ParameterStore;

/// SSM of one region.
#[derive(Debug)]
pub struct Ssm {
    pace: Pace,
    documents: BTreeMap<String, Arc<Document>>,
    bus: Arc<Bus>,
    state: Mutex<State>,
}

/// How fast SSM is, in AWS's seconds.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How long a new command stays unknown to `GetCommandInvocation` and the listings.
    pub hidden: f64,
    /// After how long without a ping an agent counts as `ConnectionLost`.
    pub stale: f64,
    /// By how much the agent's own `timeoutSeconds` is shortened: what a node does takes real time.
    pub execution: Clock,
    /// Where all this happens.
    pub region: String,
    /// How fast time runs.
    pub clock: Clock,
}

impl Pace {
    /// Returns AWS's usual pace.
    pub fn new(region: &str, clock: Clock) -> Self {
        Self {
            hidden: 2.0,
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
    /// Starts with these documents, no agents, no commands and no parameters.
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

    /// Registers a node's agent: from now on commands can be sent to it.
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

    /// Forgets a terminated instance's agent.
    pub fn deregister(&self, instance: &str) {
        lock(&self.state).agents.remove(instance);
    }

    /// Notes pings and gives up on commands whose time is over.
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

    /// Tells whether a command is to be delivered to an instance or executes there, listed already or not.
    pub fn is_busy(&self, instance: &str) -> bool {
        let state = lock(&self.state);
        let mut invocations = state.commands.values().flat_map(|one| &one.invocations);
        invocations.any(|one| one.instance == instance && !one.status.is_final())
    }

    /// Tells whether an instance's agent has registered.
    pub fn knows(&self, instance: &str) -> bool {
        lock(&self.state).agents.contains_key(instance)
    }

    /// Tells how many commands were sent so far, by document: what a test counts.
    pub fn sent(&self) -> BTreeMap<String, usize> {
        let mut sent = BTreeMap::new();
        for command in lock(&self.state).commands.values() {
            *sent.entry(command.document.name.clone()).or_default() += 1;
        }
        sent
    }

    /// Sets an invocation's status and sends both events that follow from it.
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
            "EC2 Command Invocation Status-change Notification",
            &command.invocation_event(instance, status),
        );
        if command.status() != before {
            emit("EC2 Command Status-change Notification", &command.event());
        }
    }
}

fn command_id() -> String {
    Uuid::new_v4().to_string()
}
