//! The application that faults act on.

use std::sync::{Arc, Weak};

use super::fault::{Scenario, Termination};
use crate::chaos::application::Application;
use crate::chaos::application::interceptor::Caller;
use crate::fixtures::processes;
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::nodes::machine::Node;

/// The application that a rule acts on. The application owns its rules, so that a rule must hold a weak reference.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) protected: Weak<ProtectedGroups>,
    pub(super) application: String,
    pub(super) lost: String,
    /// Whether the terminating node is the one whose agent is working.
    terminating: bool,
}

impl Target {
    pub(super) fn of(app: &Application, scenario: Scenario) -> Self {
        Self {
            terminating: scenario == Scenario::Planned,
            protected: Arc::downgrade(&app.protected),
            application: app.name.clone(),
            lost: app.node.id().to_owned(),
        }
    }

    /// Returns the nodes of the application that have power.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let nodes = self.protected.upgrade().map(|it| it.standin.nodes());
        let nodes = nodes.unwrap_or_default().into_iter();
        nodes
            .filter(|node| node.group() == self.application && node.has_power())
            .collect()
    }

    /// Kills the nodes' processes with this word in their command line. Returns whether there was one.
    pub(super) fn kill(&self, word: &str) -> bool {
        let mut killed = false;
        for node in self.nodes() {
            let found = processes::find(&node, &[word]).unwrap_or_default();
            killed |= !found.is_empty() && processes::kill(&found).is_ok();
        }
        killed
    }

    /// Ends the caller. Returns whether it was running.
    pub(super) fn end(&self, caller: Caller, end: Termination) -> bool {
        let word = match caller {
            Caller::Agent => return self.kill("rekindle-node"),
            Caller::Backup => "backup",
            Caller::Restore => "restore",
        };
        let Some(protected) = self.protected.upgrade() else {
            return false;
        };
        let Ok(function) = protected.standin.function(word) else {
            return false;
        };
        let lambda = protected.standin.lambda();
        if end == Termination::TimedOut {
            lambda.time_out(&function);
            return true;
        }
        let processes = lambda.processes(&function).into_iter();
        let processes: Vec<i32> = processes.filter_map(|id| i32::try_from(id).ok()).collect();
        processes::kill(&processes).is_ok()
    }

    /// Cuts the power of the node whose agent is working, without waiting for it.
    pub(super) fn cut_power(&self) -> Option<()> {
        let protected = self.protected.upgrade()?;
        let node = self.working()?;
        tokio::spawn(async move {
            let standin = &protected.standin;
            if let Err(problem) = standin.kill_instance(node.id()).await {
                tracing::warn!("cannot cut the power: {problem:#}");
            }
            // While an instance waits in its hook, Auto Scaling notices its death only when the hook expires.
            standin.expire_hooks(node.id());
        });
        Some(())
    }

    /// Returns the node whose agent is working: in a planned replacement the terminating one.
    pub(super) fn working(&self) -> Option<Arc<Node>> {
        let mut nodes = self.nodes();
        if nodes.len() > 1 {
            nodes.retain(|node| (node.id() == self.lost) == self.terminating);
        }
        nodes.pop()
    }
}
