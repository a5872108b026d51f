//! The scenario of backups and restores that an application goes through, run after run, each time with a fault.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use shared::id::BackupId;
use shared::layout::backup_of_manifest;

use crate::chaos::application::choices::Choices;
use crate::chaos::application::promise::Promise;
use crate::chaos::application::{APPLICATION, Application, POLL};
use crate::chaos::faults::fault::{Action, Fault, Scenario};
use crate::chaos::faults::inject::{self, ActiveFault};
use crate::chaos::record::snapshot;
use crate::fixtures::protected_groups::{WAIT_LIMIT, fill};
use crate::nodes::machine::Node;
use crate::standin::autoscaling::Lifecycle;
use crate::standin::lambda::LogLine;

/// The interval between two sweeps.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a launch under a fault may take until it is in service or its group's launches are suspended.
const LAUNCH_LIMIT: Duration = Duration::from_secs(150);

/// The outcome of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOutcome {
    /// The scenario continued without help.
    Recovered,
    /// It stopped, with an ERROR line and a metric; without the fault it continued.
    Reported,
}

/// The result of one fault.
#[derive(Debug, Clone, Copy)]
pub struct FaultResult {
    /// How often the fault took effect.
    pub hits: u64,
    /// Its outcome.
    pub outcome: FaultOutcome,
}

/// How a launch ended.
enum LaunchEnd {
    InService(Arc<Node>),
    Suspended,
    Neither,
}

impl Application {
    /// Starts an application with a filled node and a first backup.
    pub async fn open(large: bool) -> Result<Self> {
        let mut app = Self::start(large).await?;
        let node = Arc::clone(&app.node);
        app.check_new_node(&node).await?;
        fill(&node).await?;
        if large {
            snapshot::fill_large(&node).await?;
        }
        app.write().await?;
        if let Err(problem) = app.protected.back_up(APPLICATION).await {
            return Err(problem.context(format!("{:#?}", app.protected.log(0))));
        }
        app.protected.wait_until_idle().await?;
        app.check_all().await?;
        Ok(app)
    }

    /// Continues the scenario with this fault. Returns `None` if this machine cannot have the fault.
    pub async fn run_fault(
        &mut self,
        fault: &Fault,
        choices: &mut Choices,
    ) -> Result<Option<FaultResult>> {
        match fault.scenario {
            Scenario::Backup => self.back_up(Some(fault), choices).await,
            Scenario::Loss | Scenario::Planned => {
                self.replace(fault.scenario, Some(fault), choices).await
            }
        }
    }

    /// Writes, and takes a backup.
    pub async fn back_up(
        &mut self,
        fault: Option<&Fault>,
        choices: &mut Choices,
    ) -> Result<Option<FaultResult>> {
        self.write().await?;
        let known = self.newest()?;
        let mark = self.protected.log_length();
        if let Some(fault) = fault {
            Box::pin(inject::prepare(self, fault, choices)).await?;
        }
        let Some(active) = inject::inject(self, fault, choices).await? else {
            return Ok(None);
        };
        self.protected.standin.tick();
        let committed = self.wait_for_backup(known.as_ref()).await?;
        let hits = active.remove(self).await?.hits.load(Ordering::SeqCst);
        let outcome = self.outcome(committed, mark, "a backup");
        if !committed {
            self.protected.standin.tick();
            let committed = self.wait_for_backup(known.as_ref()).await?;
            if !committed && !self.accept_quarantined(mark).await? {
                let problems = self.protected.errors(&self.name);
                let how = format!("no backup even without the fault: {problems:?}");
                self.violate(Promise::SameOrReported, how);
            }
        }
        self.idle(&self.node).await?;
        self.check_all().await?;
        Ok(Some(FaultResult { hits, outcome }))
    }

    /// Accepts the newest quarantined backup, as an operator does after the alarm. Returns whether there was one.
    async fn accept_quarantined(&mut self, mark: usize) -> Result<bool> {
        let standin = &self.protected.standin;
        let prefix = format!("quarantine/{}/", self.name);
        let quarantined = standin.s3().keys(standin.bucket(), &prefix)?;
        let Some(newest) = quarantined.last().and_then(|key| backup_of_manifest(key)) else {
            return Ok(false);
        };
        let accepted = self
            .protected
            .request("accept-quarantined", &self.name, &newest);
        let accepted = accepted.await;
        accepted.with_context(|| format!("accept {newest}"))?;
        self.expect_report(mark, &format!("{newest} was quarantined"));
        Ok(true)
    }

    fn newest(&self) -> Result<Option<BackupId>> {
        Ok(self.protected.backups(&self.name)?.pop())
    }

    /// Waits until a newer backup is committed or sweeps find nothing more to do. Returns whether one is committed.
    async fn wait_for_backup(&self, known: Option<&BackupId>) -> Result<bool> {
        let (standin, end) = (&self.protected.standin, Instant::now() + WAIT_LIMIT);
        let mut sweeps = 0;
        loop {
            if standin.is_at_rest(&[self.node.id()]) {
                // Everything that follows a commit has also happened by now.
                if self.newest()?.as_ref() > known {
                    return Ok(true);
                }
                if sweeps == 3 {
                    return Ok(false);
                }
                sweeps += 1;
                standin.sweep();
            }
            if Instant::now() > end {
                bail!(
                    "a backup neither ends nor fails: {:#?}",
                    self.protected.errors(&self.name)
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Writes, takes no backup, and replaces the node: by its loss, or as planned.
    pub async fn replace(
        &mut self,
        scenario: Scenario,
        fault: Option<&Fault>,
        choices: &mut Choices,
    ) -> Result<Option<FaultResult>> {
        if let Some(fault) = fault {
            inject::prepare(self, fault, choices).await?;
        }
        self.write().await?;
        let mark = self.protected.log_length();
        let launches = self.protected.launches(&self.name).await?.len();
        let Some(active) = inject::inject(self, fault, choices).await? else {
            return Ok(None);
        };
        let lost = Arc::clone(&self.node);
        match scenario {
            Scenario::Planned => self.protected.standin.terminate(lost.id()).await?,
            _ => self.protected.standin.kill_instance(lost.id()).await?,
        }
        let end = self.wait_for_launch(&lost, &active).await?;
        let over = active.remove(self).await?;
        self.check_launches(launches).await?;
        let by_itself = matches!(end, LaunchEnd::InService(_));
        let mut outcome = self.outcome(by_itself, mark, "a node in service");
        let node = match end {
            LaunchEnd::InService(node) => node,
            LaunchEnd::Suspended | LaunchEnd::Neither => self.without_the_fault(&lost).await?,
        };
        self.interceptor.clear();
        self.node = Arc::clone(&node);
        // A final backup is added to the record before the node that was restored from it is checked.
        self.idle(&self.node).await?;
        self.check_backups().await?;
        let epoch = self.check_new_node(&node).await?;
        if scenario == Scenario::Planned && epoch < self.record.newest_written() {
            // The newest data is missing, which must be reported. For a node without power, SSM ends the command only
            // after its timeout.
            self.idle(&lost).await?;
            outcome = self.outcome(false, mark, "the newest data");
        }
        if !over.unrestorable.is_empty() || fault.is_some_and(|fault| fault.action == Action::Role)
        {
            self.expect_report(mark, "an older backup was restored");
        }
        self.check_all().await?;
        for id in &over.unrestorable {
            self.record.unrestorable.remove(id);
        }
        Ok(Some(FaultResult {
            hits: over.hits.load(Ordering::SeqCst),
            outcome,
        }))
    }

    /// Waits until another node is in service, launches are suspended, or `LAUNCH_LIMIT` has passed.
    async fn wait_for_launch(&self, lost: &Node, active: &ActiveFault) -> Result<LaunchEnd> {
        let (standin, end) = (&self.protected.standin, Instant::now() + LAUNCH_LIMIT);
        let mut swept = Instant::now();
        loop {
            let group = standin.group(&self.name);
            let arrived = group
                .iter()
                .find(|one| one.state == Lifecycle::InService && one.id != lost.id());
            if let Some(arrived) = arrived {
                return Ok(LaunchEnd::InService(standin.node(&arrived.id)?));
            }
            if group.is_empty()
                && !self
                    .protected
                    .suspended_processes(&self.name)
                    .await?
                    .is_empty()
            {
                return Ok(LaunchEnd::Suspended);
            }
            if Instant::now() > end {
                return Ok(LaunchEnd::Neither);
            }
            if swept.elapsed() > SWEEP {
                active.advance(self, lost);
                standin.sweep();
                swept = Instant::now();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Continues as an operator who has fixed the cause.
    async fn without_the_fault(&mut self, lost: &Node) -> Result<Arc<Node>> {
        let launches = self.protected.launches(&self.name).await?.len();
        let end = Instant::now() + WAIT_LIMIT;
        // The answer to a failed `resume` contains the remedy: repeat it.
        while let Err(problem) = self.protected.resume(&self.name).await {
            if Instant::now() > end {
                return Err(problem);
            }
        }
        let arrived = self
            .protected
            .wait_until_in_service(&self.name, Some(lost))
            .await;
        let node = arrived.context("no node entered service even without the fault")?;
        self.check_launches(launches).await?;
        Ok(node)
    }

    /// Waits until no SSM command is running on a node, and every event that follows was handled.
    async fn idle(&self, node: &Node) -> Result<()> {
        let standin = &self.protected.standin;
        standin.wait_until_at_rest(&[node.id()], WAIT_LIMIT).await
    }

    fn outcome(&mut self, recovered: bool, mark: usize, what: &str) -> FaultOutcome {
        if recovered {
            return FaultOutcome::Recovered;
        }
        self.expect_report(mark, &format!("{what} was missing"));
        FaultOutcome::Reported
    }

    /// Checks that a failure was reported since `mark`: by an ERROR line and by a metric.
    pub fn expect_report(&mut self, mark: usize, what: &str) {
        let logged = self.protected.log(mark).iter().any(LogLine::is_error);
        let metrics = self.protected.metrics(mark);
        let counted = metrics
            .iter()
            .any(|line| line.value("Failures") == Some(1.0));
        if !logged || !counted {
            let how =
                format!("{what}, which was not reported (ERROR line: {logged}, metric: {counted})");
            self.violate(Promise::SameOrReported, how);
        }
    }
}
