//! Arms a fault, and takes it back.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use super::catalogue::{Deed, Fault, Mishap, Story};
use super::dice::Dice;
use super::disks::Disks;
use super::gates::Gates;
use super::harm::{self, Undo};
use super::lane::{APPLICATION, Lane, STALL_LIMIT};
use super::points::Point;
use super::wire;
use crate::fixtures::protected_groups::{ProtectedGroups, change_settings};
use crate::fixtures::registry::{MAIN_DATABASE, block_dumps};
use crate::lock::lock;
use crate::nodes::machine::Node;
use crate::standin::autoscaling::Lifecycle;
use crate::standin::bus;
use crate::standin::{ProtectedGroup, UserData};

/// How late a late event comes.
const LATE: Duration = Duration::from_secs(2);

/// How long a lock is held that is given back in time.
const SHORT_LOCK: Duration = Duration::from_secs(2);

/// After how many nudges an agent that is late registers.
const NUDGES: u64 = 3;

/// Counts how often a fault has struck.
pub type Hits = Arc<AtomicU64>;

/// A fault that is at work.
#[derive(Default)]
pub struct Armed {
    /// How often it has struck.
    pub hits: Hits,
    nudges: AtomicU64,
    /// The instances whose time was let pass.
    aged: Mutex<BTreeSet<String>>,
    tasks: Vec<JoinHandle<()>>,
    undo: Vec<Undo>,
    /// The backups that cannot be restored for as long.
    spoilt: Vec<String>,
    deed: Option<Deed>,
    /// What is given back by being dropped.
    held: Vec<Box<dyn Any + Send>>,
    /// How many events had met with a mishap before, where that is the fault.
    mishaps: Option<usize>,
}

/// A fault that is over.
pub struct Disarmed {
    /// How often it has struck.
    pub hits: Hits,
    /// The backups that could not be restored meanwhile.
    pub spoilt: Vec<String>,
}

/// Creates the group of a lane. Its nodes have gates, and little patience.
pub fn create_group(protected: &ProtectedGroups, gates: &Gates, disks: &Arc<Disks>) -> Result<()> {
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

/// Brings about what a fault needs to be there before.
pub async fn prepare(lane: &mut Lane, fault: &Fault, dice: &mut Dice) -> Result<()> {
    match fault.deed {
        Deed::Truncate(_) | Deed::Flip(_) | Deed::Swap(_) => {
            // One to fall back to, whichever are damaged.
            let good = |lane: &Lane| {
                let committed = lane.record.committed.keys();
                let good = committed.filter(|id| !lane.record.spoilt.contains(*id));
                good.count()
            };
            while good(lane) < 3 {
                Box::pin(lane.back_up(None, dice)).await?;
            }
        }
        Deed::Role => harm::back_up_without_a_role(lane, dice).await?,
        Deed::Tablespace => harm::create_tablespace(lane, dice).await?,
        Deed::Answer(point, _) | Deed::Throttle(point) | Deed::End(point, _) => {
            // Old backups are taken away only where there are some.
            let retires = ["attempts", ""].contains(&point.object)
                && ["ListObjectsV2", "DeleteObjects"].contains(&point.operation);
            if retires {
                harm::put_old_backups(lane)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Sets a fault to work; none where this machine cannot have it.
pub async fn arm(lane: &mut Lane, fault: Option<&Fault>, dice: &mut Dice) -> Result<Option<Armed>> {
    let Some(fault) = fault else {
        return Ok(Some(Armed::default()));
    };
    let mut armed = Armed {
        deed: Some(fault.deed),
        ..Armed::default()
    };
    let hits = Arc::clone(&armed.hits);
    match fault.deed {
        Deed::Answer(..)
        | Deed::Throttle(_)
        | Deed::End(..)
        | Deed::Server(_)
        | Deed::Power(_)
        | Deed::HookExpired(_)
        | Deed::CutBeforeCommit(_) => armed.undo = wire::arm(lane, fault, hits, dice).await?,
        Deed::Child(program, edge, nth) => lane.gates.at_child(program, edge, nth)?,
        Deed::Program(program) => lane.gates.kill(program)?,
        Deed::Line(words) => lane.gates.at_line(words)?,
        Deed::Truncate(_) | Deed::Flip(_) | Deed::Swap(_) => {
            let (ids, undo) = harm::damage(lane, fault.deed, dice)?;
            armed.undo.push(undo);
            lane.record.spoilt.extend(ids.iter().cloned());
            armed.spoilt = ids;
            hits.store(1, Ordering::SeqCst);
        }
        Deed::Extension => {
            armed.undo.push(harm::need_extension(lane)?);
            hits.store(1, Ordering::SeqCst);
        }
        Deed::Tablespace => armed.undo.push(harm::take_tablespace(lane)?),
        Deed::Role => hits.store(1, Ordering::SeqCst),
        Deed::Event(kind, mishap) => armed.events(lane, kind, mishap),
        Deed::Skew(minutes) => {
            if !Gates::can_skew() {
                return Ok(None);
            }
            lane.gates.skew(minutes)?;
        }
        Deed::DiskOfAgent(point) => {
            if !Disks::possible() {
                return Ok(None);
            }
            if fault.story == Story::Backup {
                lane.disks.cover(&lane.node)?;
            } else {
                lane.disks.plan("var/lib/rekindle");
            }
            wire::fill(lane, point, "var/lib/rekindle", hits);
        }
        Deed::DiskOfPostgres(point) => {
            if !Disks::possible() {
                return Ok(None);
            }
            lane.disks.plan("var/lib/postgresql");
            wire::fill(lane, point, "var/lib/postgresql", hits);
        }
        Deed::Locked => armed.lock(lane, dice.below(2) == 0).await?,
        Deed::Sessions => armed.sessions(lane),
        Deed::AgentLate => lane.protected.standin.hold_agents(true),
        Deed::AgentNever => {
            lane.protected.standin.hold_agents(true);
            harm::forget_breaker(lane).await?;
        }
    }
    Ok(Some(armed))
}

impl Armed {
    /// Does what a fault does as time goes by.
    pub fn nudge(&self, lane: &Lane, lost: &Node) {
        let standin = &lane.protected.standin;
        let waiting = standin.group(&lane.application).into_iter();
        let mut waiting = waiting.filter(|one| one.state == Lifecycle::PendingWait);
        let Some(waiting) = waiting.find(|one| one.id != lost.id()) else {
            return;
        };
        let before = self.nudges.fetch_add(1, Ordering::SeqCst);
        match self.deed {
            Some(Deed::AgentLate) if before == NUDGES => {
                self.hits.fetch_add(1, Ordering::SeqCst);
                standin.hold_agents(false);
            }
            // Once for each: its hook is not to expire before a function has looked at it.
            Some(Deed::AgentNever) if lock(&self.aged).insert(waiting.id) => {
                self.hits.fetch_add(1, Ordering::SeqCst);
                standin.backdate(&lane.application, 11);
            }
            _ => {}
        }
    }

    /// Tells whether it strikes only when an operator goes on.
    pub fn outlasts(&self) -> bool {
        let resumes = |point: Point| point.operation == "ResumeProcesses";
        matches!(self.deed, Some(Deed::Throttle(point) | Deed::End(point, _)) if resumes(point))
    }

    /// Takes the fault back.
    pub async fn disarm(self, lane: &mut Lane) -> Result<Disarmed> {
        if !self.outlasts() {
            lane.tap.clear();
        }
        for task in &self.tasks {
            task.abort();
        }
        let standin = &lane.protected.standin;
        standin.hold_agents(false);
        let mishaps = self.mishaps.map_or(0, |before| mishaps(lane) - before);
        standin.bus().clear_faults();
        standin.bus().release();
        drop(self.held);
        let at_gate = u64::from(lane.gates.open()?);
        for undo in self.undo {
            undo.run()?;
        }
        lane.disks.forget_plan();
        lane.disks.tidy(|instance| standin.node(instance).is_ok())?;
        if matches!(self.deed, Some(Deed::Server(_))) && lane.node.has_power() {
            lane.node.cluster()?.start().await?;
        }
        self.hits
            .fetch_add(at_gate + mishaps as u64, Ordering::SeqCst);
        Ok(Disarmed {
            hits: self.hits,
            spoilt: self.spoilt,
        })
    }

    fn events(&mut self, lane: &Lane, kind: &str, mishap: Mishap) {
        self.mishaps = Some(mishaps(lane));
        let bus = Arc::clone(lane.protected.standin.bus());
        match mishap {
            Mishap::Lost => bus.inject(kind, bus::DeliveryFault::Drop, 1),
            Mishap::Doubled => bus.inject(kind, bus::DeliveryFault::Duplicate, usize::MAX),
            Mishap::Late => bus.inject(kind, bus::DeliveryFault::Delay(LATE), usize::MAX),
            Mishap::Reordered => {
                bus.inject(kind, bus::DeliveryFault::Hold, usize::MAX);
                self.tasks.push(tokio::spawn(async move {
                    tokio::time::sleep(2 * LATE).await;
                    bus.clear_faults();
                    bus.release();
                }));
            }
        }
    }

    async fn lock(&mut self, lane: &Lane, given_back: bool) -> Result<()> {
        let holder = block_dumps(&lane.node).await?;
        let (node, hits) = (Arc::clone(&lane.node), Arc::clone(&self.hits));
        let watching = async move {
            let looker = node.cluster()?.connect("template1").await?;
            let query = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted";
            while !looker.query_one(query, &[]).await?.get::<_, bool>(0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            hits.fetch_add(1, Ordering::SeqCst);
            anyhow::Ok(())
        };
        if given_back {
            self.tasks.push(tokio::spawn(async move {
                if let Err(problem) = watching.await {
                    tracing::warn!("watching the lock: {problem:#}");
                }
                tokio::time::sleep(SHORT_LOCK).await;
                drop(holder);
            }));
        } else {
            self.held.push(Box::new(holder));
            self.tasks.push(tokio::spawn(async move {
                if let Err(problem) = watching.await {
                    tracing::warn!("watching the lock: {problem:#}");
                }
            }));
        }
        Ok(())
    }

    fn sessions(&mut self, lane: &Lane) {
        for _ in 0..3 {
            let (protected, hits) = (Arc::downgrade(&lane.protected), Arc::clone(&self.hits));
            let (application, lost) = (lane.application.clone(), lane.node.id().to_owned());
            self.tasks.push(tokio::spawn(async move {
                while let Some(protected) = protected.upgrade() {
                    let nodes = protected.standin.nodes();
                    drop(protected);
                    for node in nodes {
                        if node.group() == application && node.id() != lost {
                            // A session that cannot begin, or is ended, comes back.
                            session(&node, &hits).await.ok();
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }));
        }
    }
}

/// Stays in a transaction of the main database until somebody ends it.
async fn session(node: &Node, hits: &Hits) -> Result<()> {
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    client.batch_execute("BEGIN; SELECT 1").await?;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Err(ended) = client.batch_execute("SELECT 1").await {
            hits.fetch_add(1, Ordering::SeqCst);
            return Err(ended).context("a session was ended");
        }
    }
    Ok(())
}

fn mishaps(lane: &Lane) -> usize {
    let records = lane.protected.standin.bus().records();
    records.iter().filter(|one| one.fault.is_some()).count()
}
