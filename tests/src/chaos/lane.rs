//! One application under faults: the story goes on from run to run, and the record with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use shared::id::BackupId;
use shared::layout::backup_of_manifest;

use super::arm::{self, Armed};
use super::catalogue::{Deed, Fault, Story};
use super::dice::Dice;
use super::disks::Disks;
use super::gates::Gates;
use super::promises::{Broken, Promise};
use super::record::{self, Record};
use super::tap::Tap;
use crate::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT, fill};
use crate::nodes::machine::Node;
use crate::standin::autoscaling::Lifecycle;

/// The name of every application; each has a stand-in of its own.
pub const APPLICATION: &str = "chaos";

/// How long the agent puts up with standing still, in seconds: longer than any pause of a busy machine.
pub const STALL_LIMIT: u64 = 15;

/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(1);

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(60);

/// How long a launch may take to come into service, or its group to give up, under a fault.
const VERDICT: Duration = Duration::from_secs(150);

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The story went on by itself.
    Recovered,
    /// It stopped, and an ERROR line and a metric said so; without the fault it went on.
    Loud,
}

/// What a run saw of one fault.
#[derive(Debug, Clone, Copy)]
pub struct Met {
    /// How often it struck.
    pub hits: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// A protected application, its present node, and everything known of it from outside.
pub struct Lane {
    /// The stand-in.
    pub protected: Arc<ProtectedGroups>,
    /// The ear on its wire.
    pub tap: Tap,
    /// The gates on its nodes.
    pub gates: Gates,
    /// The application.
    pub application: String,
    /// The node that is in service.
    pub node: Arc<Node>,
    /// The independent record.
    pub record: Record,
    /// The promises that did not hold.
    pub broken: Vec<Broken>,
    /// Its nodes' small disks.
    pub disks: Arc<Disks>,
    /// Whether its dump is uploaded in parts.
    pub large: bool,
    /// Whether it cannot be used for another run.
    pub spent: bool,
}

/// How a launch ended.
enum Verdict {
    InService(Arc<Node>),
    Suspended,
    Neither,
}

impl Lane {
    /// Starts an application, sees its first node into service, fills it, and takes a first backup.
    pub async fn open(large: bool) -> Result<Self> {
        let protected = Arc::new(ProtectedGroups::start().await?);
        let tap = Tap::on(&protected);
        let gates = Gates::new(&protected.standin.directory().join("gates"))?;
        let disks = Arc::new(Disks::default());
        arm::create_group(&protected, &gates, &disks)?;
        let node = protected.wait_until_in_service(APPLICATION, None).await?;
        let mut lane = Self {
            protected,
            tap,
            gates,
            application: APPLICATION.to_owned(),
            node: Arc::clone(&node),
            record: Record::default(),
            broken: Vec::new(),
            disks,
            large,
            spent: false,
        };
        lane.look_at_arrival(&node).await?;
        fill(&node).await?;
        if large {
            record::fill_large(&node).await?;
        }
        lane.write().await?;
        if let Err(problem) = lane.protected.back_up(APPLICATION).await {
            return Err(problem.context(format!("{:#?}", lane.protected.log_lines(0))));
        }
        lane.protected.wait_until_idle().await?;
        lane.survey().await?;
        Ok(lane)
    }

    /// Writes into the node once more, and records what it holds then.
    pub async fn write(&mut self) -> Result<()> {
        let epoch = self.record.newest_written() + 1;
        let written = record::write(&self.node, epoch).await?;
        self.record.written.insert(epoch, written);
        Ok(())
    }

    /// Lets the story go on, through this fault; none where this machine cannot have it.
    pub async fn meet(&mut self, fault: &Fault, dice: &mut Dice) -> Result<Option<Met>> {
        match fault.story {
            Story::Backup => self.back_up(Some(fault), dice).await,
            Story::Loss | Story::Planned => self.replace(fault.story, Some(fault), dice).await,
        }
    }

    /// Writes, and takes a backup.
    pub async fn back_up(&mut self, fault: Option<&Fault>, dice: &mut Dice) -> Result<Option<Met>> {
        self.write().await?;
        let known = self.newest()?;
        let mark = self.protected.log_length();
        if let Some(fault) = fault {
            Box::pin(arm::prepare(self, fault, dice)).await?;
        }
        let Some(armed) = arm::arm(self, fault, dice).await? else {
            return Ok(None);
        };
        self.protected.standin.tick();
        let committed = self.backup_settles(known.as_ref()).await?;
        let hits = armed.disarm(self).await?.hits.load(Ordering::SeqCst);
        let outcome = self.outcome(committed, mark, "a backup");
        if !committed {
            self.protected.standin.tick();
            let settled = self.backup_settles(known.as_ref()).await?;
            if !settled && !self.accept_quarantined(mark).await? {
                let problems = self.protected.error_lines(&self.application);
                let how = format!("without the fault, no backup either: {problems:?}");
                self.broke(Promise::SameOrLoud, how);
            }
        }
        self.protected.wait_until_idle().await?;
        self.idle(&self.node).await?;
        self.survey().await?;
        Ok(Some(Met { hits, outcome }))
    }

    /// Accepts, as an operator does whom the alarm has called, the newest backup that is kept aside; returns whether
    /// there was one.
    async fn accept_quarantined(&mut self, mark: usize) -> Result<bool> {
        let standin = &self.protected.standin;
        let prefix = format!("quarantine/{}/", self.application);
        let aside = standin.s3().keys(standin.bucket(), &prefix)?;
        let Some(newest) = aside.last().and_then(|key| backup_of_manifest(key)) else {
            return Ok(false);
        };
        let request = serde_json::json!({
            "rekindle": "accept-quarantined", "application": self.application, "backup_id": newest,
        });
        let function = self.protected.function("backup")?;
        let answer = standin.invoke(&function, request).await;
        answer.map_err(|error| anyhow::anyhow!("accept {newest}: {error}"))?;
        self.expect_loudness(mark, &format!("{newest} was kept aside"));
        Ok(true)
    }

    fn newest(&self) -> Result<Option<BackupId>> {
        Ok(self.protected.backups(&self.application)?.pop())
    }

    /// Waits until a newer backup is committed, or until sweeps find nothing to do any more.
    async fn backup_settles(&self, known: Option<&BackupId>) -> Result<bool> {
        let (standin, end) = (&self.protected.standin, Instant::now() + WAIT_LIMIT);
        let mut sweeps = 0;
        loop {
            if standin.is_at_rest(&[self.node.id()]) {
                // Also what comes after a commit has happened by now.
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
                    self.protected.error_lines(&self.application)
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes what no scheduled backup has, and replaces the node: by its loss, or as planned.
    pub async fn replace(
        &mut self,
        story: Story,
        fault: Option<&Fault>,
        dice: &mut Dice,
    ) -> Result<Option<Met>> {
        if let Some(fault) = fault {
            arm::prepare(self, fault, dice).await?;
        }
        self.write().await?;
        let mark = self.protected.log_length();
        let launches = self.protected.launches(&self.application).await?.len();
        let Some(armed) = arm::arm(self, fault, dice).await? else {
            return Ok(None);
        };
        let lost = Arc::clone(&self.node);
        match story {
            Story::Planned => self.protected.standin.terminate(lost.id()).await?,
            _ => self.protected.standin.kill_instance(lost.id()).await?,
        }
        let verdict = self.launch_settles(&lost, &armed).await?;
        let over = armed.disarm(self).await?;
        self.look_at_launches(launches).await?;
        let by_itself = matches!(verdict, Verdict::InService(_));
        let mut outcome = self.outcome(by_itself, mark, "a node in service");
        let node = match verdict {
            Verdict::InService(node) => node,
            Verdict::Suspended | Verdict::Neither => self.without_the_fault(&lost).await?,
        };
        self.tap.clear();
        self.node = Arc::clone(&node);
        // What a final backup has is in the record before the node that was restored from it.
        self.protected.wait_until_idle().await?;
        self.idle(&self.node).await?;
        self.survey_backups().await?;
        let epoch = self.look_at_arrival(&node).await?;
        if story == Story::Planned && epoch < self.record.newest_written() {
            // Not everything came along, so somebody has to have said so; of a node without power, SSM says that its
            // command has ended only when its time is over.
            self.idle(&lost).await?;
            outcome = self.outcome(false, mark, "what was written last");
        }
        if !over.spoilt.is_empty() || fault.is_some_and(|fault| fault.deed == Deed::Role) {
            self.expect_loudness(mark, "an older backup was restored");
        }
        self.survey().await?;
        for id in &over.spoilt {
            self.record.spoilt.remove(id);
        }
        Ok(Some(Met {
            hits: over.hits.load(Ordering::SeqCst),
            outcome,
        }))
    }

    /// Waits until another node is in service, launches are suspended, or it has taken too long.
    async fn launch_settles(&self, lost: &Node, armed: &Armed) -> Result<Verdict> {
        let (standin, end) = (&self.protected.standin, Instant::now() + VERDICT);
        let mut swept = Instant::now();
        loop {
            let group = standin.group(&self.application);
            let arrived = group
                .iter()
                .find(|one| one.state == Lifecycle::InService && one.id != lost.id());
            if let Some(arrived) = arrived {
                return Ok(Verdict::InService(standin.node(&arrived.id)?));
            }
            if group.is_empty()
                && !self
                    .protected
                    .suspended_processes(&self.application)
                    .await?
                    .is_empty()
            {
                return Ok(Verdict::Suspended);
            }
            if Instant::now() > end {
                return Ok(Verdict::Neither);
            }
            if swept.elapsed() > SWEEP {
                armed.nudge(self, lost);
                standin.sweep();
                swept = Instant::now();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Goes on as an operator who has read the log and remedied the cause.
    async fn without_the_fault(&mut self, lost: &Node) -> Result<Arc<Node>> {
        let launches = self.protected.launches(&self.application).await?.len();
        let end = Instant::now() + WAIT_LIMIT;
        // Asked again where it comes to nothing: that is what its answer says to do.
        while let Err(problem) = self.protected.resume(&self.application).await {
            if Instant::now() > end {
                return Err(problem);
            }
        }
        let arrived = self
            .protected
            .wait_until_in_service(&self.application, Some(lost))
            .await;
        let node = arrived.context("without the fault, no node came into service either")?;
        self.look_at_launches(launches).await?;
        Ok(node)
    }

    /// Waits until SSM knows of no command at work on a node, and what follows from that has happened.
    async fn idle(&self, node: &Node) -> Result<()> {
        let end = Instant::now() + WAIT_LIMIT;
        while self.protected.standin.ssm().is_busy(node.id()) {
            if Instant::now() > end {
                bail!("a command does not end on {}", node.id());
            }
            tokio::time::sleep(LOOK).await;
        }
        self.protected.wait_until_idle().await
    }

    fn outcome(&mut self, recovered: bool, mark: usize, what: &str) -> Outcome {
        if recovered {
            return Outcome::Recovered;
        }
        self.expect_loudness(mark, &format!("{what} was missing"));
        Outcome::Loud
    }

    /// Looks whether a failure has left an ERROR line and a metric since `mark`.
    pub fn expect_loudness(&mut self, mark: usize, what: &str) {
        let lines = self.protected.log_lines(mark);
        let said = lines.iter().any(|line| line["level"] == "ERROR");
        let counted = lines.iter().any(|line: &Value| line["Failures"] == 1);
        if !said || !counted {
            let how = format!("{what}, and nobody said so (ERROR: {said}, metric: {counted})");
            self.broke(Promise::SameOrLoud, how);
        }
    }
}
