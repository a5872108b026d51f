//! The steps that both demonstrations share: take a backup, and read a node's reports.

use std::time::Duration;

use anyhow::{Context as _, Result};
use shared::manifest::Manifest;
use shared::report::{Report, RestoreOutcome, RestoreReport};
use time::OffsetDateTime;

use super::restore::Restore;
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::fixtures::registry::Load;
use crate::nodes::machine::Node;
use crate::standin::StandInBuilder;

/// The name of the group and of its application.
pub(super) const APPLICATION: &str = "registry";

/// The longest that any step may take: with millions of rows, a restore takes minutes.
pub(super) const WAIT_LIMIT: Duration = Duration::from_mins(20);

/// A running demonstration.
pub(super) struct Scenario<'a> {
    pub(super) protected: ProtectedGroups,
    pub(super) load: Load,
    /// Receives one line for each step.
    pub(super) print: &'a dyn Fn(&str),
    pub(super) peak_memory_kib: u64,
}

impl<'a> Scenario<'a> {
    /// Starts a demonstration in a stand-in without groups.
    pub(super) async fn start(builder: StandInBuilder, print: &'a dyn Fn(&str)) -> Result<Self> {
        let mut protected = ProtectedGroups::with(builder).await?;
        protected.wait_limit = WAIT_LIMIT;
        Ok(Self {
            load: protected.load(APPLICATION)?,
            protected,
            print,
            peak_memory_kib: 0,
        })
    }

    /// Fires the schedule and waits until the backup is committed; returns its manifest.
    pub(super) async fn backup(&mut self) -> Result<Manifest> {
        let standin = &self.protected.standin;
        let members = standin.group(APPLICATION);
        let members: Vec<&str> = members.iter().map(|one| one.id.as_str()).collect();
        standin.wait_until_at_rest(&members, WAIT_LIMIT).await?;
        let manifest = self.protected.back_up(APPLICATION).await?;
        (self.print)(&format!(
            "  committed {}: {} rows in {} databases, {} bytes in S3",
            manifest.index.backup_id,
            manifest.index.rows(),
            manifest.index.databases.len(),
            manifest.index.bytes()
        ));
        Ok(manifest)
    }

    /// Returns all reports of a node with the times of their commands, as SSM shows them to an operator.
    pub(super) async fn reports_of(
        &mut self,
        node: &Node,
    ) -> Result<Vec<(Report, OffsetDateTime)>> {
        let mut reports = Vec::new();
        for operation in ["backup", "restore"] {
            for command in self.protected.invocations(node, operation).await? {
                let Ok(report) = Report::from_output(&command.output) else {
                    continue;
                };
                let peak = match &report {
                    Report::Backup(backup) => backup.peak_memory_kib,
                    Report::Restore(restore) => restore.peak_memory_kib,
                    Report::Failure(_) => 0,
                };
                self.peak_memory_kib = self.peak_memory_kib.max(peak);
                reports.push((report, command.requested_at));
            }
        }
        Ok(reports)
    }

    /// Returns the node's restore, or an error if it has not reported one yet.
    pub(super) async fn restore_of(&mut self, node: &Node) -> Result<Restore> {
        let reports = self.reports_of(node).await?;
        // A launch event and a sweep may both send the command. The node answers the second with the first report.
        let found = reports.into_iter().find_map(|(report, at)| match report {
            Report::Restore(report) => Some((report, at)),
            _ => None,
        });
        let (report, requested_at) =
            found.with_context(|| format!("{} has reported no restore", node.id()))?;
        Ok(Restore {
            report,
            registered_at: self.protected.registered_at(node).await?,
            requested_at,
        })
    }

    /// Returns the start of the restored backup: the node has everything that was written before it.
    pub(super) fn restored_state(&self, report: &RestoreReport) -> Result<OffsetDateTime> {
        let RestoreOutcome::Restored { backup_id, .. } = &report.outcome else {
            anyhow::bail!("the node restored no backup: {:?}", report.outcome);
        };
        let manifest = self.protected.manifest(APPLICATION, backup_id)?;
        Ok(manifest.index.started_at)
    }
}
