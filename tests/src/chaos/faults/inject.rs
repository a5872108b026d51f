//! Injects a fault, and removes it.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;

use super::damage::{self, Undo};
use super::fault::{Action, EventFault, Fault, Scenario};
use super::points::Point;
use super::requests::{self, Hits};
use crate::chaos::application::Application;
use crate::chaos::application::choices::Choices;
use crate::chaos::application::disks::Disks;
use crate::chaos::application::gates::Gates;
use crate::fixtures::registry::{MAIN_DATABASE, block_dumps};
use crate::lock::lock;
use crate::nodes::machine::Node;
use crate::standin::autoscaling::Lifecycle;
use crate::standin::bus;

/// The delay of a late event.
const DELAY: Duration = Duration::from_secs(2);

/// How long a lock is held that is released in time.
const SHORT_LOCK: Duration = Duration::from_secs(2);

/// The number of steps after which a late agent registers.
const LATE_AFTER: u64 = 3;

/// The agent's directory on a node.
const AGENT_DISK: &str = "var/lib/rekindle";

/// The directory of Postgres on a node.
const POSTGRES_DISK: &str = "var/lib/postgresql";

/// An injected fault.
#[derive(Default)]
pub struct ActiveFault {
    /// How often it has taken effect.
    pub hits: Hits,
    steps: AtomicU64,
    /// The instances whose launch time was moved into the past.
    aged: Mutex<BTreeSet<String>>,
    tasks: Vec<JoinHandle<()>>,
    undo: Vec<Undo>,
    /// The backups that cannot be restored until the fault is removed.
    unrestorable: Vec<String>,
    action: Option<Action>,
    /// Resources that are released by dropping them.
    held: Vec<Box<dyn Any + Send>>,
    /// How many events had been lost, doubled or delayed before, if that is the fault.
    event_faults: Option<usize>,
}

/// A removed fault.
pub struct RemovedFault {
    /// How often it has taken effect.
    pub hits: Hits,
    /// The backups that could not be restored before.
    pub unrestorable: Vec<String>,
}

/// Prepares the conditions of a fault.
pub async fn prepare(app: &mut Application, fault: &Fault, choices: &mut Choices) -> Result<()> {
    match fault.action {
        Action::Truncate(_) | Action::Flip(_) | Action::Swap(_) => {
            // One good backup must remain, whichever are damaged.
            let good = |app: &Application| {
                let committed = app.record.committed.keys();
                let good = committed.filter(|id| !app.record.unrestorable.contains(*id));
                good.count()
            };
            while good(app) < 3 {
                Box::pin(app.back_up(None, choices)).await?;
            }
        }
        Action::Role => damage::back_up_without_a_role(app, choices).await?,
        Action::Tablespace => damage::create_tablespace(app, choices).await?,
        Action::Answer(point, _) | Action::Throttle(point) | Action::Terminate(point, _) => {
            // Retention lists and deletes objects only if there are old backups.
            let of_retention = ["attempts", ""].contains(&point.object)
                && ["ListObjectsV2", "DeleteObjects"].contains(&point.operation);
            if of_retention {
                damage::store_old_backups(app)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Injects a fault. Returns `None` if this machine cannot have it.
pub async fn inject(
    app: &mut Application,
    fault: Option<&Fault>,
    choices: &mut Choices,
) -> Result<Option<ActiveFault>> {
    let Some(fault) = fault else {
        return Ok(Some(ActiveFault::default()));
    };
    let mut active = ActiveFault {
        action: Some(fault.action),
        ..ActiveFault::default()
    };
    let hits = Arc::clone(&active.hits);
    match fault.action {
        Action::Answer(..)
        | Action::Throttle(_)
        | Action::Terminate(..)
        | Action::Server(_)
        | Action::Power(_)
        | Action::HookExpired(_)
        | Action::TruncateBeforeCommit(_) => {
            active.undo = requests::inject(app, fault, hits, choices).await?;
        }
        Action::Child(program, edge, nth) => app.gates.at_child(program, edge, nth)?,
        Action::Program(program) => app.gates.kill(program)?,
        Action::Line(text) => app.gates.at_line(text)?,
        Action::Truncate(_) | Action::Flip(_) | Action::Swap(_) => {
            let (ids, undo) = damage::damage(app, fault.action, choices)?;
            active.undo.push(undo);
            app.record.unrestorable.extend(ids.iter().cloned());
            active.unrestorable = ids;
            hits.store(1, Ordering::SeqCst);
        }
        Action::Extension => {
            active.undo.push(damage::require_extension(app)?);
            hits.store(1, Ordering::SeqCst);
        }
        Action::Tablespace => active.undo.push(damage::remove_tablespace(app)?),
        Action::Role => hits.store(1, Ordering::SeqCst),
        Action::Event(kind, fault) => active.events(app, kind, fault),
        Action::Skew(_) if !Gates::can_skew() => return Ok(None),
        Action::Skew(minutes) => app.gates.skew(minutes)?,
        Action::DiskOfAgent(_) | Action::DiskOfPostgres(_) if !Disks::possible() => {
            return Ok(None);
        }
        Action::DiskOfAgent(point) => {
            if fault.scenario == Scenario::Backup {
                app.disks.cover(&app.node)?;
            } else {
                app.disks.plan(AGENT_DISK);
            }
            requests::fill(app, point, AGENT_DISK, hits);
        }
        Action::DiskOfPostgres(point) => {
            app.disks.plan(POSTGRES_DISK);
            requests::fill(app, point, POSTGRES_DISK, hits);
        }
        Action::Locked => active.lock(app, choices.below(2) == 0).await?,
        Action::Sessions => active.sessions(app),
        Action::AgentLate => app.protected.standin.hold_agents(true),
        Action::AgentNever => {
            app.protected.standin.hold_agents(true);
            damage::delete_breaker_record(app).await?;
        }
    }
    Ok(Some(active))
}

impl ActiveFault {
    /// Advances a fault that needs time. Called while a launch is awaited.
    pub fn advance(&self, app: &Application, lost: &Node) {
        let standin = &app.protected.standin;
        let waiting = standin.group(&app.name).into_iter();
        let mut waiting = waiting.filter(|one| one.state == Lifecycle::PendingWait);
        let Some(waiting) = waiting.find(|one| one.id != lost.id()) else {
            return;
        };
        let before = self.steps.fetch_add(1, Ordering::SeqCst);
        match self.action {
            Some(Action::AgentLate) if before == LATE_AFTER => {
                self.hits.fetch_add(1, Ordering::SeqCst);
                standin.hold_agents(false);
            }
            // Once for each instance: its hook must not expire before a function has handled it.
            Some(Action::AgentNever) if lock(&self.aged).insert(waiting.id) => {
                self.hits.fetch_add(1, Ordering::SeqCst);
                standin.backdate(&app.name, 11);
            }
            _ => {}
        }
    }

    /// Returns whether the fault takes effect only when an operator resumes the launches.
    pub fn waits_for_operator(&self) -> bool {
        let resumes = |point: Point| point.operation == "ResumeProcesses";
        matches!(self.action, Some(Action::Throttle(point) | Action::Terminate(point, _)) if resumes(point))
    }

    /// Removes the fault.
    pub async fn remove(self, app: &mut Application) -> Result<RemovedFault> {
        if !self.waits_for_operator() {
            app.interceptor.clear();
        }
        for task in &self.tasks {
            task.abort();
        }
        let standin = &app.protected.standin;
        standin.hold_agents(false);
        let of_events = self
            .event_faults
            .map_or(0, |before| event_faults(app) - before);
        standin.bus().clear_faults();
        standin.bus().release();
        drop(self.held);
        let at_gate = u64::from(app.gates.open()?);
        for undo in self.undo {
            undo.run()?;
        }
        app.disks.forget_plan();
        app.disks
            .clean_up(|instance| standin.node(instance).is_ok())?;
        if matches!(self.action, Some(Action::Server(_))) && app.node.has_power() {
            app.node.cluster()?.start().await?;
        }
        self.hits
            .fetch_add(at_gate + of_events as u64, Ordering::SeqCst);
        Ok(RemovedFault {
            hits: self.hits,
            unrestorable: self.unrestorable,
        })
    }

    fn events(&mut self, app: &Application, kind: &str, fault: EventFault) {
        self.event_faults = Some(event_faults(app));
        let bus = Arc::clone(app.protected.standin.bus());
        match fault {
            EventFault::Lost => bus.inject(kind, bus::DeliveryFault::Drop, 1),
            EventFault::Doubled => bus.inject(kind, bus::DeliveryFault::Duplicate, usize::MAX),
            EventFault::Late => bus.inject(kind, bus::DeliveryFault::Delay(DELAY), usize::MAX),
            EventFault::Reordered => {
                bus.inject(kind, bus::DeliveryFault::Hold, usize::MAX);
                self.tasks.push(tokio::spawn(async move {
                    tokio::time::sleep(2 * DELAY).await;
                    bus.clear_faults();
                    bus.release();
                }));
            }
        }
    }

    async fn lock(&mut self, app: &Application, released: bool) -> Result<()> {
        let holder = block_dumps(&app.node).await?;
        let (node, hits) = (Arc::clone(&app.node), Arc::clone(&self.hits));
        let watching = async move {
            let client = node.cluster()?.connect("template1").await?;
            let query = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted";
            while !client.query_one(query, &[]).await?.get::<_, bool>(0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            hits.fetch_add(1, Ordering::SeqCst);
            anyhow::Ok(())
        };
        if released {
            self.tasks.push(tokio::spawn(async move {
                if let Err(problem) = watching.await {
                    tracing::warn!("cannot watch the lock: {problem:#}");
                }
                tokio::time::sleep(SHORT_LOCK).await;
                drop(holder);
            }));
        } else {
            self.held.push(Box::new(holder));
            self.tasks.push(tokio::spawn(async move {
                if let Err(problem) = watching.await {
                    tracing::warn!("cannot watch the lock: {problem:#}");
                }
            }));
        }
        Ok(())
    }

    fn sessions(&mut self, app: &Application) {
        for _ in 0..3 {
            let (protected, hits) = (Arc::downgrade(&app.protected), Arc::clone(&self.hits));
            let (application, lost) = (app.name.clone(), app.node.id().to_owned());
            self.tasks.push(tokio::spawn(async move {
                while let Some(protected) = protected.upgrade() {
                    let nodes = protected.standin.nodes();
                    drop(protected);
                    for node in nodes {
                        if node.group() == application && node.id() != lost {
                            // A session that cannot start, or is ended, connects again.
                            session(&node, &hits).await.ok();
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }));
        }
    }
}

/// Stays in a transaction of the main database until the server ends it.
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

fn event_faults(app: &Application) -> usize {
    let records = app.protected.standin.bus().records();
    records.iter().filter(|one| one.fault.is_some()).count()
}
