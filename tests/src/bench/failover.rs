//! The time that orchestration adds to a failover: from the moment at which the new node accepts commands until it is in
//! service, without the node's own work. It is compared with a poller that is written like AWS's samples.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_ssm::types::CommandInvocation;
use shared::manifest::Manifest;
use shared::report::Report;
use time::OffsetDateTime;

use super::functions::printed;
use super::plan::{Plan, REKINDLE};
use super::process::{Program, python_script, run};
use super::sample::{Row, Sample, time};
use super::site::Programs;
use crate::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use crate::lock::lock;
use crate::nodes::machine::Node;
use crate::standin::autoscaling::Lifecycle;
use crate::standin::bus::DeliveryFault;
use crate::standin::clock;
use crate::wait::wait_for;

const APPLICATION: &str = "failover";
const POLLER: &str = "a boto3 poller";
const NAPS: &str = "  of it waiting between two polls";
/// The part of Rekindle's time that is not in its row: the function polls an unready node once a second.
const WAIT: &str = "  before it, until the function's next poll";
const LAUNCH: &str = "EC2 Instance-launch Lifecycle Action";
const HOOK: &str = "rekindle-launch";
const DOCUMENT: &str = "bench-restore";
const NAP: Duration = Duration::from_secs(5);

/// Measures failovers by the shipped functions, and by the poller.
pub(super) async fn rows(programs: &Programs, plan: &Plan) -> Result<Vec<Row>> {
    let mut row = Row::new("orchestration of a failover");
    if !plan.wants(&row.name) {
        return Ok(Vec::new());
    }
    let protected = start(programs).await?;
    let calls = CallLog::on(&protected);
    let mut node = protected.create_filled(APPLICATION).await?;
    let manifest = protected.back_up(APPLICATION).await?;
    let mut slowest = 0.0;
    for run in 1..=plan.runs {
        plan.log_run(&row.name, run);
        protected.standin.kill_instance(node.id()).await?;
        node = protected
            .standin
            .wait_until_in_service(APPLICATION, Some(node.id()), WAIT_LIMIT)
            .await?;
        let in_service = clock::now();
        let report = protected.restore_report(&node).await?;
        let ready = ready_at(&protected, &node).await?;
        let wait = calls.late(ready).as_seconds_f64();
        let seconds = (in_service - ready).as_seconds_f64() - report.seconds - wait;
        row.add(REKINDLE, lasting(seconds));
        row.add(WAIT, lasting(wait));
        if seconds > slowest {
            slowest = seconds;
            row.profile = calls.timeline(ready + time::Duration::seconds_f64(wait), in_service);
            row.profile.push(format!(
                "the node's own work took {:.0} ms of it",
                report.seconds * 1_000.0
            ));
        }

        protected
            .standin
            .bus()
            .inject(LAUNCH, DeliveryFault::Drop, 1);
        protected.standin.kill_instance(node.id()).await?;
        node = protected
            .standin
            .wait_until(
                APPLICATION,
                Lifecycle::PendingWait,
                Some(node.id()),
                WAIT_LIMIT,
            )
            .await?;
        let naps = poll(&protected, programs, &node, &manifest).await?;
        protected
            .standin
            .wait_until_in_service(APPLICATION, None, WAIT_LIMIT)
            .await?;
        let in_service = clock::now();
        let worked = worked(&protected, &node).await?;
        let ready = ready_at(&protected, &node).await?;
        row.add(
            POLLER,
            lasting((in_service - ready).as_seconds_f64() - worked),
        );
        row.add(NAPS, lasting(naps.as_secs_f64()));
    }
    row.at_most("seconds", 0.5, time);
    Ok(vec![row])
}

/// Starts a stand-in that also has the poller's document.
async fn start(programs: &Programs) -> Result<ProtectedGroups> {
    let document = serde_json::json!({
        "schemaVersion": "2.2",
        "description": "Runs the agent for the poller.",
        "parameters": {"line": {"type": "String"}},
        "mainSteps": [{
            "action": "aws:runShellScript", "name": "runAgent",
            "inputs": {"timeoutSeconds": "3600", "runCommand": ["{{ line }}"]},
        }],
    });
    let builder = ProtectedGroups::builder()
        .binaries(programs.binaries())
        .document(DOCUMENT, document);
    ProtectedGroups::with(builder).await
}

fn lasting(seconds: f64) -> Sample {
    Sample {
        seconds,
        ..Sample::default()
    }
}

/// The calls to AWS, with their times.
#[derive(Clone, Default)]
struct CallLog(Arc<Mutex<Vec<(String, OffsetDateTime)>>>);

impl CallLog {
    fn on(protected: &ProtectedGroups) -> Self {
        let log = Self::default();
        let noted = log.clone();
        protected.standin.faults().on_call(move |call| {
            noted.note(call.operation.clone());
            None
        });
        let noted = log.clone();
        protected.standin.s3().on_request(move |call| {
            noted.note(format!("S3's {}", call.operation));
            None
        });
        log
    }

    fn note(&self, call: String) {
        lock(&self.0).push((call, clock::now()));
    }

    /// Returns the calls between two times, each with its milliseconds after the first.
    fn timeline(&self, from: OffsetDateTime, to: OffsetDateTime) -> Vec<String> {
        let after = |at: OffsetDateTime| (at - from).as_seconds_f64() * 1_000.0;
        let calls = lock(&self.0);
        let between = calls.iter().filter(|(_, at)| (from..=to).contains(at));
        between
            .map(|(call, at)| format!("{:>6.0} ms  {call}", after(*at)))
            .chain([format!("{:>6.0} ms  in service", after(to))])
            .collect()
    }

    /// Returns the time from `ready` until the poll that led to the newest command, or zero if the poll was earlier.
    fn late(&self, ready: OffsetDateTime) -> time::Duration {
        let calls = lock(&self.0);
        let sent = calls.iter().rposition(|(call, _)| call == "SendCommand");
        let before = sent.map_or(&[][..], |sent| &calls[..sent]);
        let mut earlier = before.iter().rev();
        let poll = earlier.find(|(call, _)| call == "DescribeInstanceInformation");
        poll.map_or(time::Duration::ZERO, |(_, at)| *at - ready)
            .max(time::Duration::ZERO)
    }
}

/// Returns the time at which the node's agent had registered and its first boot was over.
async fn ready_at(protected: &ProtectedGroups, node: &Node) -> Result<OffsetDateTime> {
    let registered = protected.registered_at(node).await?;
    let finished = node.root().join("var/lib/cloud/instance/boot-finished");
    let booted: OffsetDateTime = std::fs::metadata(&finished)?.modified()?.into();
    Ok(registered.max(booted))
}

async fn poll(
    protected: &ProtectedGroups,
    programs: &Programs,
    node: &Node,
    manifest: &Manifest,
) -> Result<Duration> {
    let command = format!(
        "{} restore --operation-id launch-{} --candidates {}",
        programs.agent.display(),
        node.id(),
        manifest.candidate(),
    );
    let parameters = serde_json::json!({"line": [command]}).to_string();
    let script = python_script("poller.py");
    let line = vec![
        programs.python.join("bin/python3").display().to_string(),
        script.display().to_string(),
        APPLICATION.to_owned(),
        HOOK.to_owned(),
        node.id().to_owned(),
        DOCUMENT.to_owned(),
        parameters,
    ];
    let mut environment = node.environment()?;
    environment.insert(
        "AWS_DEFAULT_REGION".to_owned(),
        protected.standin.region().to_owned(),
    );
    let polled = run(Program { line, environment }).await?;
    let answer = printed(&polled.output)?;
    ensure!(
        answer["status"] == "Success",
        "the restore failed: {answer}"
    );
    let naps = answer["naps"]
        .as_u64()
        .context("the poller printed no number of naps")?;
    Ok(NAP * u32::try_from(naps)?)
}

/// Returns the duration of the agent's restore for the poller, in seconds.
async fn worked(protected: &ProtectedGroups, node: &Node) -> Result<f64> {
    let ssm = aws_sdk_ssm::Client::new(protected.standin.aws());
    wait_for("the poller's restore", WAIT_LIMIT, async || {
        let listed = ssm
            .list_command_invocations()
            .instance_id(node.id())
            .details(true)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let plugins = listed
            .command_invocations()
            .iter()
            .flat_map(CommandInvocation::command_plugins);
        let mut outputs = plugins.filter_map(|plugin| plugin.output());
        Ok::<_, String>(
            outputs.find_map(|output| match Report::from_output(output) {
                Ok(Report::Restore(report)) => Some(report.seconds),
                _ => None,
            }),
        )
    })
    .await
}
