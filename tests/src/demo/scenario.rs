//! The steps that both demonstrations share: take a backup, and read a node's reports.

use std::time::Duration;

use anyhow::{Context as _, Result};
use shared::id::ApplicationName;
use shared::layout::{self, BackupState};
use shared::manifest::Manifest;
use shared::report::{Report, RestoreOutcome, RestoreReport};
use time::OffsetDateTime;

use super::restore::Restore;
use crate::fixtures::registry;
use crate::fixtures::registry::{Load, MAIN_DATABASE, NOTARY_DATABASE, Seed};
use crate::nodes::machine::Node;
use crate::standin::StandIn;
use crate::wait::wait_for;

/// The name of the group and of its application.
pub(super) const APPLICATION: &str = "registry";

/// The longest that any step may take: with millions of rows, a restore takes minutes.
pub(super) const WAIT_LIMIT: Duration = Duration::from_mins(20);

/// A running demonstration.
pub(super) struct Scenario<'a> {
    pub(super) standin: StandIn,
    pub(super) load: Load,
    /// Receives one line for each step.
    pub(super) print: &'a dyn Fn(&str),
    pub(super) peak_memory_kib: u64,
}

impl<'a> Scenario<'a> {
    /// Starts a demonstration in a stand-in without groups.
    pub(super) fn new(standin: StandIn, print: &'a dyn Fn(&str)) -> Self {
        Self {
            load: Load::in_directory(&standin.directory()),
            standin,
            print,
            peak_memory_kib: 0,
        }
    }

    /// Fills an empty node: both databases and the configuration.
    pub(super) async fn fill(&self, node: &Node, seed: Seed) -> Result<()> {
        let cluster = node.cluster()?;
        registry::create(&cluster.connect(MAIN_DATABASE).await?, seed).await?;
        registry::create_notary(&cluster.connect(NOTARY_DATABASE).await?).await?;
        registry::create_configuration(&node.root(), seed.seed)
    }

    /// Fires the schedule and waits until the backup is committed; returns its manifest.
    pub(super) async fn backup(&mut self) -> Result<Manifest> {
        let members = self.standin.group(APPLICATION);
        let members: Vec<&str> = members.iter().map(|one| one.id.as_str()).collect();
        self.standin
            .wait_until_at_rest(&members, WAIT_LIMIT)
            .await?;
        let before = self.backups()?.len();
        self.standin.tick();
        let key = wait_for("another committed backup", WAIT_LIMIT, async || {
            let backups = self.backups().map_err(|error| format!("{error:#}"))?;
            if backups.len() > before {
                Ok(backups.last().cloned())
            } else {
                Err(format!("{backups:?}"))
            }
        })
        .await?;
        let manifest = self.manifest(&key)?;
        (self.print)(&format!(
            "  committed {}: {} rows in {} databases, {} bytes in S3",
            manifest.index.backup_id,
            manifest.index.rows(),
            manifest.index.databases.len(),
            manifest.index.bytes()
        ));
        Ok(manifest)
    }

    /// Returns the keys of the committed backups, oldest first.
    pub(super) fn backups(&self) -> Result<Vec<String>> {
        let application: ApplicationName = APPLICATION.parse()?;
        self.standin.s3().keys(
            self.standin.bucket(),
            &BackupState::Committed.prefix(&application),
        )
    }

    /// Reads a manifest by its key.
    pub(super) fn manifest(&self, key: &str) -> Result<Manifest> {
        let id = layout::backup_of_manifest(key)
            .with_context(|| format!("{key} is not the key of a manifest"))?;
        let bytes = self.standin.s3().read(self.standin.bucket(), key)?;
        Ok(Manifest::parse(&bytes, &APPLICATION.parse()?, &id)?)
    }

    /// Returns all reports of a node with the times of their commands, as SSM shows them to an operator.
    pub(super) async fn reports_of(
        &mut self,
        node: &Node,
    ) -> Result<Vec<(Report, OffsetDateTime)>> {
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
                .context("SSM shows no request time for the command")?;
            let requested = OffsetDateTime::from_unix_timestamp_nanos(requested.as_nanos())?;
            reports.push((report, requested));
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
        let ssm = aws_sdk_ssm::Client::new(self.standin.aws());
        let agents = ssm.describe_instance_information().send().await?;
        let agent = agents
            .instance_information_list()
            .iter()
            .find(|one| one.instance_id() == Some(node.id()));
        let registered = agent
            .and_then(|one| one.registration_date())
            .context("SSM does not list the node's agent")?;
        Ok(Restore {
            report,
            registered_at: OffsetDateTime::from_unix_timestamp_nanos(registered.as_nanos())?,
            requested_at,
        })
    }

    /// Returns the start of the restored backup: the node has everything that was written before it.
    pub(super) fn restored_state(&self, report: &RestoreReport) -> Result<OffsetDateTime> {
        let RestoreOutcome::Restored { backup_id, .. } = &report.outcome else {
            anyhow::bail!("the node restored no backup: {:?}", report.outcome);
        };
        let manifest = self.manifest(&layout::manifest(&APPLICATION.parse()?, backup_id))?;
        Ok(manifest.index.started_at)
    }
}
