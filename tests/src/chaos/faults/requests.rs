//! Faults that are injected at a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::http::StatusCode;

use super::damage::{self, Undo};
use super::fault::{Action, Fault, S3Answer, Scenario, Termination};
use super::points::Point;
use super::target::Target;
use crate::chaos::application::choices::Choices;
use crate::chaos::application::interceptor::{self, Caller, Injection, Request};
use crate::chaos::application::{Application, POLL, STALL_LIMIT, disks};
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::standin::bus;
use crate::standin::fault;
use crate::standin::s3;
use crate::standin::ssm::reports_success;

/// The call that keeps an instance in its hook.
const HEARTBEAT: &str = "RecordLifecycleActionHeartbeat";

/// A stall of S3 that the client must tolerate.
const SHORT_STALL: Duration = Duration::from_secs(1);

/// Counts how often a fault has taken effect.
pub type Hits = Arc<AtomicU64>;

impl Point {
    fn matches(&self, request: &Request) -> bool {
        self.caller == request.caller
            && self.operation == request.operation
            && self.object == request.object
    }
}

/// Injects a fault that takes effect at a request.
pub(super) async fn inject(
    app: &Application,
    fault: &Fault,
    hits: Hits,
    choices: &mut Choices,
) -> Result<Vec<Undo>> {
    let target = Target::of(app, fault.scenario);
    let mut undo = Vec::new();
    if let Action::Answer(point, _) | Action::Throttle(point) | Action::Terminate(point, _) =
        fault.action
    {
        undo.extend(provoke(app, &target, &point).await?);
    }
    match fault.action {
        Action::Answer(point, answer) => {
            let last = faulty_answers(point, answer, fault.scenario, choices);
            answer_wrongly(app, point, answer, hits, last);
        }
        Action::Throttle(point) => {
            let last = choices.pick(&[1, 5]);
            watch(app, point, Arc::clone(&hits), move |request| {
                let due = point.matches(request) && hits.load(Ordering::SeqCst) < last;
                due.then(|| {
                    hits.fetch_add(1, Ordering::SeqCst);
                    Injection::Api(fault::ApiError::throttled(service(&request.operation)))
                })
            });
        }
        Action::Terminate(point, end) => {
            let served = choices.below(2) == 0;
            inject_once(app, point, hits, move |request| {
                let ended = target.end(request.caller, end);
                ended.then(|| (!served).then(|| unanswered(request)))
            });
        }
        Action::Server(point) => inject_once(app, point, hits, move |_| {
            let node = target.working()?;
            node.cluster().ok()?.kill_now().ok()?;
            Some(None)
        }),
        Action::Power(point) => inject_once(app, point, hits, move |request| {
            target.cut_power()?;
            Some(Some(unanswered(request)))
        }),
        Action::HookExpired(point) => inject_once(app, point, hits, move |_| {
            let protected = target.protected.upgrade()?;
            protected.standin.expire_hooks(target.working()?.id());
            Some(None)
        }),
        Action::TruncateBeforeCommit(object) => {
            let percent = choices.below(100) as u64;
            let point = Point {
                caller: Caller::Backup,
                operation: "GetObject",
                object: "index",
            };
            inject_once(app, point, hits, move |_| {
                let protected = target.protected.upgrade()?;
                truncate_newest(&protected, &target.application, object, percent).ok()?;
                Some(None)
            });
        }
        _ => {}
    }
    Ok(undo)
}

/// Lets S3 answer the first `last` requests of a kind wrongly.
fn answer_wrongly(app: &Application, point: Point, answer: S3Answer, hits: Hits, last: u64) {
    let stall = stall(point, last);
    watch(app, point, Arc::clone(&hits), move |request| {
        let aborts = point.operation == "AbortMultipartUpload";
        if aborts && request.operation == "CompleteMultipartUpload" {
            // Only a failed upload is aborted.
            let refused = s3::S3Fault::Error(StatusCode::BAD_REQUEST, "InvalidPart".to_owned());
            return Some(Injection::S3(refused));
        }
        let due = point.matches(request) && hits.load(Ordering::SeqCst) < last;
        due.then(|| {
            hits.fetch_add(1, Ordering::SeqCst);
            Injection::S3(storage(answer, stall))
        })
    });
}

/// Fills the disk at a path of the node when a request is made.
pub(super) fn fill(app: &Application, point: Point, part: &'static str, hits: Hits) {
    let target = Target::of(app, Scenario::Loss);
    inject_once(app, point, hits, move |_| {
        let node = target.working()?;
        disks::fill(&node.root().join(part)).ok()?;
        Some(None)
    });
}

/// Injects a fault at the first request of this kind at which `effect` succeeds.
fn inject_once(
    app: &Application,
    point: Point,
    hits: Hits,
    mut effect: impl FnMut(&Request) -> Option<Option<Injection>> + Send + 'static,
) {
    watch(app, point, Arc::clone(&hits), move |request| {
        if hits.load(Ordering::SeqCst) > 0 || !point.matches(request) {
            return None;
        }
        let injection = effect(request)?;
        hits.fetch_add(1, Ordering::SeqCst);
        injection
    });
}

/// Applies a rule to each request, and makes the product send the request that the rule waits for.
fn watch(
    app: &Application,
    point: Point,
    hits: Hits,
    mut rule: impl FnMut(&Request) -> Option<Injection> + Send + 'static,
) {
    app.interceptor.rule(move |request| {
        let injected = hits.load(Ordering::SeqCst) > 0;
        slow(&point, request)
            .or_else(|| missing(&point, request).filter(|_| !injected))
            .or_else(|| rule(request))
    });
}

/// Slows a restore down, because only a slow restore needs a heartbeat.
fn slow(point: &Point, request: &Request) -> Option<Injection> {
    let restores = request.operation == "GetObject" && request.object == "dump 1";
    let slow = point.operation == HEARTBEAT && restores;
    slow.then(|| Injection::S3(s3::S3Fault::Stall(4 * SHORT_STALL)))
}

/// Reports the agent as missing: a function uploads it only then, and the other function may just have uploaded it.
fn missing(point: &Point, request: &Request) -> Option<Injection> {
    let puts = (point.operation, point.object) == ("PutObject", "agent");
    let looks = request.caller == point.caller && request.operation == "HeadObject";
    let missing = puts && looks && request.object == point.object;
    let answer = || s3::S3Fault::Error(StatusCode::NOT_FOUND, "NotFound".to_owned());
    missing.then(|| Injection::S3(answer()))
}

/// Makes the product send a request that it does not send every time.
async fn provoke(app: &Application, target: &Target, point: &Point) -> Result<Vec<Undo>> {
    let standin = &app.protected.standin;
    match (point.caller, point.operation, point.object) {
        // A process of a function checks the agent only once, and uploads it only if it is missing.
        (Caller::Backup | Caller::Restore, operation, "agent") => {
            target.end(point.caller, Termination::Killed);
            if operation == "PutObject" {
                for key in standin.s3().keys(standin.bucket(), "agent/")? {
                    standin.s3().remove(standin.bucket(), &key).await?;
                }
            }
        }
        // The application's state is written only if it is missing.
        (Caller::Backup, "PutParameter", _) => {
            let name = shared::layout::state_parameter(&app.name.parse()?);
            let ssm = aws_sdk_ssm::Client::new(standin.aws());
            ssm.delete_parameter().name(name).send().await?;
        }
        // The function reads the activities only of an instance that has left its group: a sweep finishes the final
        // backup, and the event of its command is delivered later.
        (Caller::Backup, "DescribeScalingActivities", _) => {
            standin
                .bus()
                .inject_where(reports_success, bus::DeliveryFault::Hold, 1);
            release_once_gone(target.clone());
        }
        // The breaker trips at the first permanent failure.
        (Caller::Restore, "SuspendProcesses" | "PutParameter" | "ResumeProcesses", _) => {
            return Ok(vec![damage::require_extension(app)?]);
        }
        _ => {}
    }
    Ok(Vec::new())
}

/// Delivers the events that the bus holds as soon as the lost instance has left its group.
fn release_once_gone(target: Target) {
    tokio::spawn(async move {
        while let Some(protected) = target.protected.upgrade() {
            let standin = &protected.standin;
            let mut members = standin.group(&target.application).into_iter();
            if !members.any(|one| one.id == target.lost) {
                standin.bus().release();
                return;
            }
            drop(protected);
            tokio::time::sleep(POLL).await;
        }
    });
}

/// Returns the number of faulty answers before S3 recovers.
fn faulty_answers(
    point: Point,
    answer: S3Answer,
    scenario: Scenario,
    choices: &mut Choices,
) -> u64 {
    match (answer, point.caller, scenario) {
        (S3Answer::WrongETag, ..) => u64::MAX,
        (S3Answer::Stall, Caller::Agent, _) => choices.pick(&[1, 2]),
        (S3Answer::Stall, ..) => 1,
        (_, Caller::Agent, Scenario::Backup) => choices.pick(&[1, 1, 3, u64::MAX]),
        // Six are more than the attempts of one call: a launch or an invocation fails, and the next one succeeds.
        _ => choices.pick(&[1, 3, 6]),
    }
}

/// Returns the length of a stall. If there are two, each is longer than the agent's stall limit.
fn stall(point: Point, last: u64) -> Duration {
    if point.caller == Caller::Agent && last > 1 {
        Duration::from_secs(STALL_LIMIT + 3)
    } else {
        SHORT_STALL
    }
}

fn storage(answer: S3Answer, stall: Duration) -> s3::S3Fault {
    let error = |status, code: &str| s3::S3Fault::Error(status, code.to_owned());
    match answer {
        S3Answer::Internal => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        S3Answer::SlowDown => error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        S3Answer::OkWithError => s3::S3Fault::OkWithError("InternalError".to_owned()),
        S3Answer::Stall => s3::S3Fault::Stall(stall),
        S3Answer::Reset => s3::S3Fault::Reset,
        S3Answer::WrongETag => s3::S3Fault::WrongETag,
    }
}

/// Returns the answer to a request whose caller has ended and must not take effect.
fn unanswered(request: &Request) -> Injection {
    if request.storage {
        Injection::S3(s3::S3Fault::Reset)
    } else {
        let unheard = fault::ApiError::with_status(500, "InternalFailure", "the caller has ended");
        Injection::Api(unheard)
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

/// Truncates an object of the newest backup attempt.
fn truncate_newest(
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
        .find(|key| interceptor::object(key) == object);
    let Some(newest) = newest else {
        anyhow::bail!("there is no {object}");
    };
    let mut bytes = s3.read(bucket, newest)?;
    let left = bytes.len() as u64 * percent / 100;
    bytes.truncate(usize::try_from(left)?);
    s3.replace(bucket, newest, &bytes)
}
