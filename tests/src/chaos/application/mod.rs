//! One protected application on a stand-in of its own, with everything that faults are injected through.

pub mod choices;
pub mod disks;
pub mod gates;
pub mod interceptor;
pub mod promise;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::FutureExt as _;

use self::disks::Disks;
use self::gates::Gates;
use self::interceptor::Interceptor;
use self::promise::{Promise, Violation};
use crate::chaos::record::history::Record;
use crate::chaos::record::snapshot;
use crate::fixtures::protected_groups::{ProtectedGroups, change_settings};
use crate::nodes::machine::Node;
use crate::standin::{ProtectedGroup, UserData};

/// The name of every application; each has a stand-in of its own.
pub const APPLICATION: &str = "chaos";

/// The agent's stall limit, in seconds: longer than any pause of a busy machine.
pub const STALL_LIMIT: u64 = 15;

/// The interval between two polls.
pub const POLL: Duration = Duration::from_millis(60);

/// A protected application, its current node, and the record of it.
pub struct Application {
    /// The stand-in.
    pub protected: Arc<ProtectedGroups>,
    /// The interceptor of its requests.
    pub interceptor: Interceptor,
    /// The gates on its nodes.
    pub gates: Gates,
    /// The application's name.
    pub name: String,
    /// The node in service.
    pub node: Arc<Node>,
    /// The independent record.
    pub record: Record,
    /// The violations of promises that were found.
    pub violations: Vec<Violation>,
    /// Its nodes' small disks.
    pub disks: Arc<Disks>,
    /// Whether its dump is uploaded in parts.
    pub large: bool,
    /// Whether it cannot be used for another run.
    pub spent: bool,
}

impl Application {
    /// Starts a stand-in, and returns the application with its first node in service.
    pub async fn start(large: bool) -> Result<Self> {
        let protected = Arc::new(ProtectedGroups::start().await?);
        let interceptor = Interceptor::on(&protected);
        let gates = Gates::new(&protected.standin.directory().join("gates"))?;
        let disks = Arc::new(Disks::default());
        create_group(&protected, &gates, &disks)?;
        let node = protected.wait_until_in_service(APPLICATION, None).await?;
        Ok(Self {
            protected,
            interceptor,
            gates,
            name: APPLICATION.to_owned(),
            node,
            record: Record::default(),
            violations: Vec::new(),
            disks,
            large,
            spent: false,
        })
    }

    /// Writes into the node, and records its content.
    pub async fn write(&mut self) -> Result<()> {
        let epoch = self.record.newest_written() + 1;
        let written = snapshot::write(&self.node, epoch).await?;
        self.record.written.insert(epoch, written);
        Ok(())
    }

    /// Adds a violation.
    pub fn violate(&mut self, promise: Promise, how: impl Into<String>) {
        let how = how.into();
        self.violations.push(Violation { promise, how });
    }
}

/// Creates the group. Its nodes have gates, and a short stall limit.
fn create_group(protected: &ProtectedGroups, gates: &Gates, disks: &Arc<Disks>) -> Result<()> {
    let group = protected.describe(APPLICATION)?;
    let (inner, gates, disks) = (group.user_data, gates.clone(), Arc::clone(disks));
    let user_data: UserData = Arc::new(move |node| {
        let (inner, gates, disks) = (Arc::clone(&inner), gates.clone(), Arc::clone(&disks));
        async move {
            disks.boot(&node)?;
            gates.install_mover(&node)?;
            inner(Arc::clone(&node)).await?;
            change_settings(
                &node,
                "\n[configuration]",
                &format!("stall_limit_seconds = {STALL_LIMIT}\n\n[configuration]"),
            )?;
            gates.install(&node)
        }
        .boxed()
    });
    protected
        .standin
        .create_group(ProtectedGroup { user_data, ..group })
}
