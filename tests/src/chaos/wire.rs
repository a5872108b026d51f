//! Faults that strike when a certain request is made.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Result;
use axum::http::StatusCode;
use serde_json::Value;

use super::arm::Hits;
use super::catalogue::{Answer, Deed, End, Fault, INVOCATION_CHANGE, Story};
use super::dice::Dice;
use super::disks;
use super::harm::{self, Undo};
use super::lane::{LOOK, Lane, STALL_LIMIT};
use super::points::Point;
use super::tap::{Act, Caller, Seen};
use crate::fixtures::processes;
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::nodes::machine::Node;
use crate::standin::bus;
use crate::standin::fault;
use crate::standin::s3;

/// What keeps an instance in its hook.
const HEARTBEAT: &str = "RecordLifecycleActionHeartbeat";

/// How long S3 says nothing, where the client is to put up with it.
const SHORT_STALL: Duration = Duration::from_secs(1);

impl Point {
    fn is(&self, seen: &Seen) -> bool {
        self.caller == seen.caller && self.operation == seen.operation && self.object == seen.object
    }
}

/// What rules may reach: they are part of what they reach, so that they must not keep it.
#[derive(Clone)]
struct Reach {
    protected: Weak<ProtectedGroups>,
    application: String,
    lost: String,
    /// Whether the node that leaves is the one that works.
    leaving: bool,
}

impl Reach {
    fn of(lane: &Lane, story: Story) -> Self {
        Self {
            leaving: story == Story::Planned,
            protected: Arc::downgrade(&lane.protected),
            application: lane.application.clone(),
            lost: lane.node.id().to_owned(),
        }
    }

    /// Returns the nodes of the application that have power.
    fn nodes(&self) -> Vec<Arc<Node>> {
        let nodes = self.protected.upgrade().map(|it| it.standin.nodes());
        let nodes = nodes.unwrap_or_default().into_iter();
        nodes
            .filter(|node| node.group() == self.application && node.has_power())
            .collect()
    }

    /// Kills the processes of the nodes with this word in their command line.
    fn kill(&self, word: &str) -> bool {
        let mut killed = false;
        for node in self.nodes() {
            let found = processes::find(&node, &[word]).unwrap_or_default();
            killed |= !found.is_empty() && processes::kill(&found).is_ok();
        }
        killed
    }

    /// Ends whoever calls.
    fn end(&self, caller: Caller, end: End) -> bool {
        let word = match caller {
            Caller::Agent => return self.kill("rekindle-node"),
            Caller::Backup => "backup",
            Caller::Restore => "restore",
        };
        let Some(protected) = self.protected.upgrade() else {
            return false;
        };
        let Ok(function) = protected.function(word) else {
            return false;
        };
        let lambda = protected.standin.lambda();
        if end == End::TimedOut {
            lambda.time_out(&function);
            return true;
        }
        let processes = lambda.processes(&function).into_iter();
        let processes: Vec<i32> = processes.filter_map(|id| i32::try_from(id).ok()).collect();
        processes::kill(&processes).is_ok()
    }

    /// Returns the node on which the agent is at work: in a planned replacement the one that leaves.
    fn working(&self) -> Option<Arc<Node>> {
        let mut nodes = self.nodes();
        if nodes.len() > 1 {
            nodes.retain(|node| (node.id() == self.lost) == self.leaving);
        }
        nodes.pop()
    }
}

/// Sets a fault to work that strikes at a request.
pub(super) async fn arm(
    lane: &Lane,
    fault: &Fault,
    hits: Hits,
    dice: &mut Dice,
) -> Result<Vec<Undo>> {
    let reach = Reach::of(lane, fault.story);
    let mut undo = Vec::new();
    if let Deed::Answer(point, _) | Deed::Throttle(point) | Deed::End(point, _) = fault.deed {
        undo.extend(occasion(lane, &reach, &point).await?);
    }
    match fault.deed {
        Deed::Answer(point, answer) => {
            let last = last_strike(point, answer, fault.story, dice);
            let stall = stall(point, last);
            watch(lane, point, Arc::clone(&hits), move |seen| {
                let aborts = point.operation == "AbortMultipartUpload";
                if aborts && seen.operation == "CompleteMultipartUpload" {
                    // Only an upload that fails is aborted.
                    let refused =
                        s3::S3Fault::Error(StatusCode::BAD_REQUEST, "InvalidPart".to_owned());
                    return Some(Act::Storage(refused));
                }
                let due = point.is(seen) && hits.load(Ordering::SeqCst) < last;
                due.then(|| {
                    hits.fetch_add(1, Ordering::SeqCst);
                    Act::Storage(storage(answer, stall))
                })
            });
        }
        Deed::Throttle(point) => {
            let last = dice.pick(&[1, 5]);
            watch(lane, point, Arc::clone(&hits), move |seen| {
                let due = point.is(seen) && hits.load(Ordering::SeqCst) < last;
                due.then(|| {
                    hits.fetch_add(1, Ordering::SeqCst);
                    Act::Refusal(fault::ApiError::throttled(service(&seen.operation)))
                })
            });
        }
        Deed::End(point, end) => {
            let served = dice.below(2) == 0;
            strike_once(lane, point, hits, move |seen| {
                let ended = reach.end(seen.caller, end);
                ended.then(|| (!served).then(|| unanswered(seen)))
            });
        }
        Deed::Server(point) => strike_once(lane, point, hits, move |_| {
            let node = reach.working()?;
            node.cluster().ok()?.kill_now().ok()?;
            Some(None)
        }),
        Deed::Power(point) => strike_once(lane, point, hits, move |seen| {
            let protected = reach.protected.upgrade()?;
            let node = reach.working()?;
            tokio::spawn(async move {
                let standin = &protected.standin;
                if let Err(problem) = standin.kill_instance(node.id()).await {
                    tracing::warn!("take the power: {problem:#}");
                }
                // Of an instance that waits in its hook, Auto Scaling learns nothing until the hook expires.
                standin.expire_hooks(node.id());
            });
            Some(Some(unanswered(seen)))
        }),
        Deed::HookExpired(point) => strike_once(lane, point, hits, move |_| {
            let protected = reach.protected.upgrade()?;
            protected.standin.expire_hooks(reach.working()?.id());
            Some(None)
        }),
        Deed::CutBeforeCommit(object) => {
            let percent = dice.below(100) as u64;
            let point = Point {
                caller: Caller::Backup,
                operation: "GetObject",
                object: "index",
            };
            strike_once(lane, point, hits, move |_| {
                let protected = reach.protected.upgrade()?;
                cut_newest(&protected, &reach.application, object, percent).ok()?;
                Some(None)
            });
        }
        _ => {}
    }
    Ok(undo)
}

/// Fills the disk of a part of the node when a request is made.
pub(super) fn fill(lane: &Lane, point: Point, part: &'static str, hits: Hits) {
    let reach = Reach::of(lane, Story::Loss);
    strike_once(lane, point, hits, move |_| {
        let node = reach.working()?;
        disks::fill(&node.root().join(part)).ok()?;
        Some(None)
    });
}

/// Strikes at the first request of this kind at which `strike` does what it is to do.
fn strike_once(
    lane: &Lane,
    point: Point,
    hits: Hits,
    mut strike: impl FnMut(&Seen) -> Option<Option<Act>> + Send + 'static,
) {
    watch(lane, point, Arc::clone(&hits), move |seen| {
        if hits.load(Ordering::SeqCst) > 0 || !point.is(seen) {
            return None;
        }
        let struck = strike(seen)?;
        hits.fetch_add(1, Ordering::SeqCst);
        struck
    });
}

/// Asks a rule at each request, and sees to it that the one at which it is to strike is made.
fn watch(
    lane: &Lane,
    point: Point,
    hits: Hits,
    mut rule: impl FnMut(&Seen) -> Option<Act> + Send + 'static,
) {
    lane.tap.rule(move |seen| {
        let struck = hits.load(Ordering::SeqCst) > 0;
        slow(&point, seen)
            .or_else(|| missing(&point, seen).filter(|_| !struck))
            .or_else(|| rule(seen))
    });
}

/// A heartbeat is due only while a restore takes its time.
fn slow(point: &Point, seen: &Seen) -> Option<Act> {
    let restores = seen.operation == "GetObject" && seen.object == "dump 1";
    let slow = point.operation == HEARTBEAT && restores;
    slow.then(|| Act::Storage(s3::S3Fault::Stall(4 * SHORT_STALL)))
}

/// The agent is put only by a function that finds it missing, and the other one may have put it just before.
fn missing(point: &Point, seen: &Seen) -> Option<Act> {
    let puts = (point.operation, point.object) == ("PutObject", "agent");
    let looks = seen.caller == point.caller && seen.operation == "HeadObject";
    let missing = puts && looks && seen.object == point.object;
    let answer = || s3::S3Fault::Error(StatusCode::NOT_FOUND, "NotFound".to_owned());
    missing.then(|| Act::Storage(answer()))
}

/// Sees to it that a request is made which is not made every time.
async fn occasion(lane: &Lane, reach: &Reach, point: &Point) -> Result<Vec<Undo>> {
    let standin = &lane.protected.standin;
    match (point.caller, point.operation, point.object) {
        // A function asks for the agent only once, and puts it only where it is not.
        (Caller::Backup | Caller::Restore, operation, "agent") => {
            reach.end(point.caller, End::Killed);
            if operation == "PutObject" {
                for key in standin.s3().keys(standin.bucket(), "agent/")? {
                    standin.s3().remove(standin.bucket(), &key).await?;
                }
            }
        }
        // The application's state is written where it is missing.
        (Caller::Backup, "PutParameter", _) => {
            let name = shared::layout::state_parameter(&lane.application.parse()?);
            let ssm = aws_sdk_ssm::Client::new(standin.aws());
            ssm.delete_parameter().name(name).send().await?;
        }
        // A function asks who launched an instance only where it has left its group: a sweep settles the final backup,
        // and the event of its command comes later than that.
        (Caller::Backup, "DescribeScalingActivities", _) => {
            let ended = |event: &Value| {
                event["detail-type"] == INVOCATION_CHANGE && event["detail"]["status"] == "Success"
            };
            standin
                .bus()
                .inject_where(ended, bus::DeliveryFault::Hold, 1);
            release_once_gone(reach.clone());
        }
        // The breaker trips at the first failure that can only repeat.
        (Caller::Restore, "SuspendProcesses" | "PutParameter" | "ResumeProcesses", _) => {
            return Ok(vec![harm::need_extension(lane)?]);
        }
        _ => {}
    }
    Ok(Vec::new())
}

/// Delivers what the bus holds as soon as the lost instance is in its group no more.
fn release_once_gone(reach: Reach) {
    tokio::spawn(async move {
        while let Some(protected) = reach.protected.upgrade() {
            let standin = &protected.standin;
            let mut members = standin.group(&reach.application).into_iter();
            if !members.any(|one| one.id == reach.lost) {
                standin.bus().release();
                return;
            }
            drop(protected);
            tokio::time::sleep(LOOK).await;
        }
    });
}

/// After how many answers S3 is as it should be.
fn last_strike(point: Point, answer: Answer, story: Story, dice: &mut Dice) -> u64 {
    match (answer, point.caller, story) {
        (Answer::WrongETag, ..) => u64::MAX,
        (Answer::Stall, Caller::Agent, _) => dice.pick(&[1, 2]),
        (Answer::Stall, ..) => 1,
        (_, Caller::Agent, Story::Backup) => dice.pick(&[1, 1, 3, u64::MAX]),
        // More than one call's attempts: a launch or an invocation fails, and the next one does not.
        _ => dice.pick(&[1, 3, 6]),
    }
}

/// One stall of two is longer than the agent puts up with.
fn stall(point: Point, last: u64) -> Duration {
    if point.caller == Caller::Agent && last > 1 {
        Duration::from_secs(STALL_LIMIT + 3)
    } else {
        SHORT_STALL
    }
}

fn storage(answer: Answer, stall: Duration) -> s3::S3Fault {
    let error = |status, code: &str| s3::S3Fault::Error(status, code.to_owned());
    match answer {
        Answer::Internal => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Answer::SlowDown => error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        Answer::OkWithError => s3::S3Fault::OkWithError("InternalError".to_owned()),
        Answer::Stall => s3::S3Fault::Stall(stall),
        Answer::Reset => s3::S3Fault::Reset,
        Answer::WrongETag => s3::S3Fault::WrongETag,
    }
}

/// What happens to the request of somebody who is gone, where nothing is to be done about it.
fn unanswered(seen: &Seen) -> Act {
    if seen.storage {
        Act::Storage(s3::S3Fault::Reset)
    } else {
        let nobody = fault::ApiError::with_status(500, "InternalFailure", "nobody hears this");
        Act::Refusal(nobody)
    }
}

fn service(operation: &str) -> &'static str {
    let scaling = ["AutoScaling", "Scaling", "Lifecycle", "Processes"];
    if scaling.iter().any(|word| operation.contains(word)) {
        "autoscaling"
    } else {
        "ssm"
    }
}

/// Puts what is left of an object of the newest attempt in its place.
fn cut_newest(
    protected: &ProtectedGroups,
    application: &str,
    object: &str,
    percent: u64,
) -> Result<()> {
    let standin = &protected.standin;
    let (s3, bucket) = (standin.s3(), standin.bucket());
    let keys = s3.keys(bucket, &format!("backups/{application}/"))?;
    let newest = keys
        .iter()
        .rev()
        .find(|key| super::tap::object(key) == object);
    let Some(newest) = newest else {
        anyhow::bail!("there is no {object}");
    };
    let mut bytes = s3.read(bucket, newest)?;
    let left = bytes.len() as u64 * percent / 100;
    bytes.truncate(usize::try_from(left)?);
    s3.replace(bucket, newest, &bytes)
}
