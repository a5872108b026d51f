//! The demonstration with Postgres as a process: a node that loses power, then a planned replacement under write load.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use time::OffsetDateTime;

use super::replacement::Replacement;
use super::restore::between;
use super::scenario::{APPLICATION, Scenario, WAIT_LIMIT};
use super::state::{State, gone_rows, lost_events};
use crate::fixtures::registry;
use crate::fixtures::registry::{MAIN_DATABASE, Seed};
use crate::nodes::machine::Node;
use crate::standin::StandIn;
use crate::wait::wait_for;

/// The number of events that the application must have written before its node is replaced on purpose.
const EVENTS_UNDER_LOAD: usize = 200;

/// The result of the demonstration.
#[derive(Debug, Clone)]
pub struct DemoResult {
    /// The node lost power; its replacement is compared with the last backup.
    pub unplanned: Replacement,
    /// The node was terminated on purpose; its replacement is compared with the moment of the termination.
    pub planned: Replacement,
    /// The number of events that Postgres acknowledged to the application until the planned replacement was over.
    pub acknowledged: usize,
    /// The number of acknowledged events that the new node does not have.
    pub lost: usize,
    /// The agent's highest peak memory, in KiB.
    pub peak_memory_kib: u64,
    /// The size of the last backup in S3, in bytes.
    pub backup_bytes: u64,
    /// The time that the node worked on it, in seconds.
    pub backup_seconds: f64,
}

impl DemoResult {
    /// Returns whether both replacements have everything that they must have.
    pub fn is_faithful(&self) -> bool {
        self.unplanned.is_faithful() && self.planned.is_faithful() && self.lost == 0
    }
}

/// Runs the demonstration; `print` receives one line for each step.
pub async fn play(seed: Seed, print: &dyn Fn(&str)) -> Result<DemoResult> {
    let mut scenario = Scenario::start(StandIn::builder(), print).await?;
    let standin = &mut scenario.protected.standin;
    standin.run_schedules(Some(WAIT_LIMIT), None);

    print("An Auto Scaling group without instances launches its first one.");
    let first = scenario.first_node().await?;
    print(&format!(
        "{} is in service with empty databases, because the application has no backup yet. Writing {} rows.",
        first.id(),
        seed.rows
    ));
    registry::fill(&first, seed).await?;
    print("The schedule fires: first backup.");
    scenario.backup().await?;
    scenario.write_more(&first).await?;
    print("1,000 rows and a file were changed. The schedule fires: second backup.");
    let manifest = scenario.backup().await?;
    scenario.reports_of(&first).await?;
    let before = State::read(&first).await?;
    scenario.write_more(&first).await?;

    print(&format!(
        "More was written, which no backup contains. {} loses power.",
        first.id()
    ));
    let (second, unplanned) = scenario.lose(&first, &before).await?;
    drop(first);
    print(&format!(
        "{} was restored from the second backup and is in service. Under write load, it is terminated on purpose.",
        second.id()
    ));
    let (planned, acknowledged, lost) = scenario.replace(&second).await?;
    print("Its replacement was restored from the final backup and is in service.");
    Ok(DemoResult {
        unplanned,
        planned,
        acknowledged,
        lost,
        peak_memory_kib: scenario.peak_memory_kib,
        backup_bytes: manifest.index.bytes(),
        backup_seconds: (manifest.index.finished_at - manifest.index.started_at).as_seconds_f64(),
    })
}

impl Scenario<'_> {
    /// Creates the group and waits until its first instance is in service.
    async fn first_node(&self) -> Result<Arc<Node>> {
        let standin = &self.protected.standin;
        standin.create_group(self.protected.describe(APPLICATION)?)?;
        self.in_service(None).await
    }

    /// Waits until a node other than `not` is in service.
    async fn in_service(&self, not: Option<&Node>) -> Result<Arc<Node>> {
        let not = not.map(Node::id);
        let standin = &self.protected.standin;
        standin
            .wait_until_in_service(APPLICATION, not, WAIT_LIMIT)
            .await
    }

    /// Adds 1,000 rows and changes a configuration file.
    async fn write_more(&self, node: &Node) -> Result<()> {
        let client = node.cluster()?.connect(MAIN_DATABASE).await?;
        let more = "INSERT INTO registry.push_event (actor, target)
            SELECT 'later', gen_random_uuid()::text FROM generate_series(1, 1000)";
        client
            .batch_execute(more)
            .await
            .context("write more rows")?;
        let path = node.root().join(registry::CONFIGURATION[1]).join("hub.yml");
        let text = std::fs::read_to_string(&path).context("read the configuration")?;
        std::fs::write(&path, text + "more: yes\n").context("change the configuration")
    }

    /// Cuts the node's power. Returns its replacement once it is in service, compared with `before`.
    async fn lose(&mut self, node: &Arc<Node>, before: &State) -> Result<(Arc<Node>, Replacement)> {
        let lost_at = OffsetDateTime::now_utc();
        self.protected.standin.kill_instance(node.id()).await?;
        let next = self.in_service(Some(node)).await?;
        let in_service_at = OffsetDateTime::now_utc();
        let restore = self.restore_of(&next).await?;
        let restored = self.restored_state(&restore.report)?;
        let after = State::read(&next).await?;
        let replacement = Replacement {
            rows: before.rows(),
            different_rows: before.different_rows(&after),
            files: before.files.len(),
            different_files: registry::different_files(&before.files, &after.files),
            data_loss: between(restored, lost_at),
            outage: between(lost_at, in_service_at),
            timeline: restore.timeline(lost_at, "node lost", in_service_at),
            node_work: restore.work(),
            orchestration: between(restore.registered_at, in_service_at)
                .saturating_sub(restore.work()),
        };
        Ok((next, replacement))
    }

    /// Terminates the node under write load. Returns the replacement, the number of acknowledged events, and how many of
    /// them the new node does not have.
    async fn replace(&mut self, node: &Arc<Node>) -> Result<(Replacement, usize, usize)> {
        let before = State::read(node).await?;
        self.write_under_load().await?;
        let backups = self.protected.backups(APPLICATION)?.len();
        let requested_at = OffsetDateTime::now_utc();
        self.protected.standin.terminate(node.id()).await?;
        let next = self.in_service(Some(node)).await?;
        let in_service_at = OffsetDateTime::now_utc();
        let acknowledged = self.load.acknowledged()?;
        self.load.end()?;
        let taken = self.protected.backups(APPLICATION)?;
        ensure!(
            taken.len() > backups,
            "the terminated node took no final backup"
        );
        let newest = &taken[taken.len() - 1];
        let final_backup = self.protected.manifest(APPLICATION, newest)?;
        let restore = self.restore_of(&next).await?;
        let restored = self.restored_state(&restore.report)?;
        let after = State::read(&next).await?;
        let lost = lost_events(&next, &acknowledged).await?;
        self.reports_of(node).await?;
        let mut timeline = restore.timeline(requested_at, "termination requested", in_service_at);
        timeline.extend([
            (
                "final backup started".to_owned(),
                between(requested_at, final_backup.index.started_at),
            ),
            (
                "final backup committed".to_owned(),
                between(requested_at, final_backup.committed_at),
            ),
        ]);
        timeline.sort_by_key(|(_, at)| *at);
        let possible_at = restore.registered_at.max(final_backup.committed_at);
        let replacement = Replacement {
            rows: before.rows() + acknowledged.len(),
            different_rows: gone_rows(&before, &after, lost),
            files: before.files.len(),
            different_files: registry::different_files(&before.files, &after.files),
            data_loss: if lost == 0 {
                Duration::ZERO
            } else {
                between(restored, requested_at)
            },
            outage: between(requested_at, in_service_at),
            timeline,
            node_work: restore.work(),
            orchestration: between(possible_at, in_service_at).saturating_sub(restore.work()),
        };
        Ok((replacement, acknowledged.len(), lost))
    }

    /// Starts the write load and waits until Postgres has acknowledged [`EVENTS_UNDER_LOAD`] events.
    async fn write_under_load(&self) -> Result<()> {
        self.load.begin()?;
        wait_for("events written under load", WAIT_LIMIT, async || {
            let acknowledged = self.load.acknowledged();
            let count = acknowledged.map_err(|error| format!("{error:#}"))?.len();
            if count >= EVENTS_UNDER_LOAD {
                Ok(Some(()))
            } else {
                Err(format!("{count} events"))
            }
        })
        .await
    }
}
