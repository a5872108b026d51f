//! The whole story with the shipped binaries: back up, lose the node, restore before InService; then a planned
//! replacement under load. The demonstration prints it, and a test plays it.

pub mod containers;
mod restore;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shared::id::ApplicationName;
use shared::layout::{self, Shelf};
use shared::manifest::Manifest;
use shared::report::{Report, RestoreOutcome, RestoreReport};
use time::OffsetDateTime;

use self::restore::{Restore, between};
use self::state::{State, gone_rows, lost_events};
use crate::fixtures::registry;
use crate::fixtures::registry::{Load, MAIN_DATABASE, NOTARY_DATABASE, Seed};
use crate::nodes::machine::Node;
use crate::standin::StandIn;
use crate::wait::wait_for;

/// The name of the group and of its application.
pub const APPLICATION: &str = "registry";

/// How long any step may take; a story of millions of rows takes its time.
const PATIENCE: Duration = Duration::from_mins(20);

/// How many events the application must have pushed before its node is replaced on purpose.
const EVENTS_UNDER_LOAD: usize = 200;

/// How one replacement went.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// Rows that were compared.
    pub rows: usize,
    /// How many rows differ, by table; empty where all are equal.
    pub different_rows: BTreeMap<String, usize>,
    /// Files that were compared.
    pub files: usize,
    /// The files that differ.
    pub different_files: Vec<String>,
    /// How old the restored state was when the node was lost: the measured RPO.
    pub data_loss: Duration,
    /// From the loss, or the request, to InService: the measured RTO.
    pub outage: Duration,
    /// What happened when, counted from the loss or the request.
    pub timeline: Vec<(String, Duration)>,
    /// How long the agent on the new node worked.
    pub node_work: Duration,
    /// From the moment at which the restore could begin (the agent was registered, and the predecessor's final
    /// backup was committed) to InService, the node's work not counted.
    pub orchestration: Duration,
}

impl Replacement {
    /// Tells whether nothing differs.
    pub fn is_faithful(&self) -> bool {
        self.different_rows.is_empty() && self.different_files.is_empty()
    }
}

/// How the story went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The node died without warning; compared with the last backup.
    pub unplanned: Replacement,
    /// The node was replaced on purpose; compared with the moment of its termination.
    pub planned: Replacement,
    /// Events that the server had acknowledged to the application before the planned replacement was over.
    pub acknowledged: usize,
    /// Those of them that the new node does not have.
    pub lost: usize,
    /// The agent's highest peak memory, in KiB.
    pub peak_memory_kib: u64,
    /// Bytes of the last backup in S3.
    pub backup_bytes: u64,
    /// Seconds that the node took for it.
    pub backup_seconds: f64,
}

impl Outcome {
    /// Tells whether both replacements lost nothing that they had to keep.
    pub fn is_faithful(&self) -> bool {
        self.unplanned.is_faithful() && self.planned.is_faithful() && self.lost == 0
    }
}

/// Plays the story; `say` gets a line for each step.
pub async fn play(seed: Seed, say: &dyn Fn(&str)) -> Result<Outcome> {
    let mut standin = StandIn::builder().start().await?;
    standin.run_schedules(Some(PATIENCE), None);
    let load = Load::in_directory(&standin.directory());
    let mut story = Story {
        standin,
        load,
        say,
        peak_memory_kib: 0,
    };

    say("an empty group launches its first instance");
    let first = story.first_node().await?;
    say("it started empty and is in service; the application gets its data");
    story.fill(&first, seed).await?;
    say("the schedule fires: the first backup");
    story.backup().await?;
    story.write_more(&first).await?;
    say("more was written; the schedule fires again: the second backup");
    let manifest = story.backup().await?;
    story.reports_of(&first).await?;
    let before = State::read(&first).await?;
    story.write_more(&first).await?;

    say("more was written, and the node loses power without a warning");
    let (second, unplanned) = story.lose(&first, &before).await?;
    drop(first);
    say(
        "its replacement is in service; the application runs under load and is replaced on purpose",
    );
    let (planned, acknowledged, lost) = story.replace(&second).await?;
    say("its replacement is in service");
    Ok(Outcome {
        unplanned,
        planned,
        acknowledged,
        lost,
        peak_memory_kib: story.peak_memory_kib,
        backup_bytes: manifest.index.bytes(),
        backup_seconds: (manifest.index.finished_at - manifest.index.started_at).as_seconds_f64(),
    })
}

struct Story<'a> {
    standin: StandIn,
    load: Load,
    say: &'a dyn Fn(&str),
    peak_memory_kib: u64,
}

impl Story<'_> {
    async fn first_node(&self) -> Result<Arc<Node>> {
        self.standin.create_group(registry::protected_group(
            APPLICATION,
            self.standin.bucket(),
            &self.load,
        ))?;
        self.standin
            .wait_until_in_service(APPLICATION, None, PATIENCE)
            .await
    }

    async fn fill(&self, node: &Node, seed: Seed) -> Result<()> {
        let cluster = node.cluster()?;
        registry::create(&cluster.connect(MAIN_DATABASE).await?, seed).await?;
        registry::create_notary(&cluster.connect(NOTARY_DATABASE).await?).await?;
        registry::create_configuration(&node.root(), seed.seed)
    }

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

    /// Fires the schedule and waits for the commit.
    async fn backup(&mut self) -> Result<Manifest> {
        let members = self.standin.group(APPLICATION);
        let members: Vec<&str> = members.iter().map(|one| one.id.as_str()).collect();
        self.standin.wait_until_at_rest(&members, PATIENCE).await?;
        let before = self.backups()?.len();
        self.standin.tick();
        let key = wait_for("another committed backup", PATIENCE, async || {
            let backups = self.backups().map_err(|error| format!("{error:#}"))?;
            if backups.len() > before {
                Ok(backups.last().cloned())
            } else {
                Err(format!("{backups:?}"))
            }
        })
        .await?;
        let manifest = self.manifest(&key)?;
        (self.say)(&format!(
            "  committed {}: {} rows in {} databases, {} bytes in S3",
            manifest.index.backup_id,
            manifest.index.rows(),
            manifest.index.databases.len(),
            manifest.index.bytes()
        ));
        Ok(manifest)
    }

    /// Returns the keys of the committed backups, oldest first.
    fn backups(&self) -> Result<Vec<String>> {
        let application: ApplicationName = APPLICATION.parse()?;
        self.standin.s3().keys(
            self.standin.bucket(),
            &Shelf::Committed.prefix(&application),
        )
    }

    fn manifest(&self, key: &str) -> Result<Manifest> {
        let id =
            layout::backup_of_manifest(key).with_context(|| format!("{key} is no manifest"))?;
        let bytes = self.standin.s3().read(self.standin.bucket(), key)?;
        Ok(Manifest::parse(&bytes, &APPLICATION.parse()?, &id)?)
    }

    async fn lose(&mut self, node: &Arc<Node>, before: &State) -> Result<(Arc<Node>, Replacement)> {
        let lost_at = OffsetDateTime::now_utc();
        self.standin.kill_instance(node.id()).await?;
        let next = self
            .standin
            .wait_until_in_service(APPLICATION, Some(node.id()), PATIENCE)
            .await?;
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

    async fn replace(&mut self, node: &Arc<Node>) -> Result<(Replacement, usize, usize)> {
        let before = State::read(node).await?;
        self.load.begin()?;
        wait_for("events pushed under load", PATIENCE, async || {
            let count = self
                .load
                .acknowledged()
                .map_err(|error| format!("{error:#}"))?
                .len();
            if count >= EVENTS_UNDER_LOAD {
                Ok(Some(()))
            } else {
                Err(format!("{count} events"))
            }
        })
        .await?;
        let backups = self.backups()?.len();
        let requested_at = OffsetDateTime::now_utc();
        self.standin.terminate(node.id()).await?;
        let next = self
            .standin
            .wait_until_in_service(APPLICATION, Some(node.id()), PATIENCE)
            .await?;
        let in_service_at = OffsetDateTime::now_utc();
        let acknowledged = self.load.acknowledged()?;
        self.load.end()?;
        let keys = self.backups()?;
        ensure!(
            keys.len() > backups,
            "the terminated node took no final backup"
        );
        let final_backup = self.manifest(&keys[keys.len() - 1])?;
        let restore = self.restore_of(&next).await?;
        let restored = self.restored_state(&restore.report)?;
        let after = State::read(&next).await?;
        let lost = lost_events(&next, &acknowledged).await?;
        self.reports_of(node).await?;
        let mut timeline = restore.timeline(requested_at, "termination requested", in_service_at);
        timeline.push((
            "final backup begun".to_owned(),
            between(requested_at, final_backup.index.started_at),
        ));
        timeline.push((
            "final backup committed".to_owned(),
            between(requested_at, final_backup.committed_at),
        ));
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

    /// Asks SSM for everything that a node has reported, and when it was asked for it, as an operator would.
    async fn reports_of(&mut self, node: &Node) -> Result<Vec<(Report, OffsetDateTime)>> {
        let ssm = aws_sdk_ssm::Client::new(self.standin.aws());
        let listed = ssm
            .list_command_invocations()
            .instance_id(node.id())
            .send()
            .await?;
        let mut reports = Vec::new();
        for command in listed.command_invocations() {
            let invocation = ssm
                .get_command_invocation()
                .command_id(command.command_id().unwrap_or_default())
                .instance_id(node.id())
                .plugin_name(shared::command::AGENT_STEP)
                .send()
                .await?;
            let output = invocation.standard_output_content().unwrap_or_default();
            let Ok(report) = Report::from_output(output) else {
                continue;
            };
            let peak = match &report {
                Report::Backup(backup) => backup.peak_memory_kib,
                Report::Restore(restore) => restore.peak_memory_kib,
                Report::Failure(_) => 0,
            };
            self.peak_memory_kib = self.peak_memory_kib.max(peak);
            let requested = command
                .requested_date_time()
                .context("when was the command requested?")?;
            let requested = OffsetDateTime::from_unix_timestamp_nanos(requested.as_nanos())?;
            reports.push((report, requested));
        }
        Ok(reports)
    }

    async fn restore_of(&mut self, node: &Node) -> Result<Restore> {
        let reports = self.reports_of(node).await?;
        // A sweep and a launch event may both have asked; the node answers the second like the first.
        let found = reports.into_iter().find_map(|(report, at)| match report {
            Report::Restore(report) => Some((report, at)),
            _ => None,
        });
        let (report, requested_at) =
            found.with_context(|| format!("{} reports no restore", node.id()))?;
        let ssm = aws_sdk_ssm::Client::new(self.standin.aws());
        let agents = ssm.describe_instance_information().send().await?;
        let agent = agents
            .instance_information_list()
            .iter()
            .find(|one| one.instance_id() == Some(node.id()));
        let registered = agent
            .and_then(|one| one.registration_date())
            .context("the node's agent is unknown")?;
        Ok(Restore {
            report,
            registered_at: OffsetDateTime::from_unix_timestamp_nanos(registered.as_nanos())?,
            requested_at,
        })
    }

    /// Returns when the restored backup was begun: whatever was written before that is there.
    fn restored_state(&self, report: &RestoreReport) -> Result<OffsetDateTime> {
        let RestoreOutcome::Restored { backup_id, .. } = &report.outcome else {
            anyhow::bail!("nothing was restored: {:?}", report.outcome);
        };
        let manifest = self.manifest(&layout::manifest(&APPLICATION.parse()?, backup_id))?;
        Ok(manifest.index.started_at)
    }
}
