//! The costs that grow with the number of nodes and backups, in calls: on AWS, calls cost time, money and quotas.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use shared::aws::catalog;
use shared::id::BackupId;
use shared::layout::{self, BackupState};
use time::OffsetDateTime;
use tokio::task::JoinSet;

use super::plan::{Plan, REKINDLE};
use super::process::{cpu_seconds_of_tree, resident_kib};
use super::sample::{Row, Sample, calls, time};
use super::site::{self, APPLICATION, BUCKET, Programs, Site};
use crate::lock::lock;
use crate::standin::autoscaling::Lifecycle;
use crate::standin::lambda::LogLine;
use crate::standin::{APPLICATION_TAG, StandIn};
use crate::wait::wait_for;

const WAIT_LIMIT: Duration = Duration::from_mins(3);
/// The calls to Auto Scaling and Systems Manager, which throttle. S3 does not throttle at such rates.
const THROTTLED: &str = "  of it to Auto Scaling and Systems Manager";
/// A function's timeout on AWS, in seconds.
const INVOCATION: f64 = 900.0;

/// Measures one tick for several numbers of nodes. Its commands are sent and not executed.
pub(super) async fn ticks(programs: &Programs, plan: &Plan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for nodes in [1_u32, 100, 1_000] {
        let mut row = Row::new(&format!("one tick for {nodes} protected nodes"));
        if !plan.wants(&row.name) {
            continue;
        }
        for run in 1..=plan.runs {
            plan.log_run(&row.name, run);
            let tick = tick(programs, nodes).await?;
            row.add(REKINDLE, tick.all);
            row.add(THROTTLED, tick.throttled);
            row.profile = tick.calls;
        }
        row.set_amount(f64::from(nodes), "protected nodes");
        row.at_most("calls", f64::from(nodes) / 20.0 + 10.0, calls);
        row.at_most("seconds", INVOCATION / 3.0, time);
        rows.push(row);
    }
    Ok(rows)
}

/// The measurement of one tick.
struct Tick {
    all: Sample,
    /// With only the calls to services that throttle.
    throttled: Sample,
    /// The number of calls of each operation.
    calls: Vec<String>,
}

/// Starts a stand-in with this number of protected nodes, whose agents take no commands.
async fn with_nodes(programs: &Programs, nodes: u32) -> Result<StandIn> {
    let standin = StandIn::builder()
        .binaries(programs.binaries())
        // No node writes anything: only S3 needs the faster disk.
        .below(site::store())
        .registration_delay(1.0)
        // Stopped agents stay online for SSM during the whole measurement.
        .stale(1e6)
        .start()
        .await?;
    create_groups(&standin, nodes).await?;
    let ready = |number: u32| {
        let group = standin.group(&format!("group-{number}"));
        let only = group.first();
        only.is_some_and(|one| {
            one.state == Lifecycle::InService && standin.ssm().has_agent(&one.id)
        })
    };
    wait_for("the nodes and their agents", WAIT_LIMIT, async || {
        let missing = (0..nodes).filter(|number| !ready(*number)).count();
        match missing {
            0 => Ok(Some(())),
            missing => Err(format!("{missing} of {nodes} are missing")),
        }
    })
    .await?;
    // From now on no agent takes a command, and SSM still shows the agents as online.
    for node in standin.nodes() {
        node.stop_agent();
    }
    Ok(standin)
}

/// Runs one tick.
async fn tick(programs: &Programs, nodes: u32) -> Result<Tick> {
    let standin = with_nodes(programs, nodes).await?;
    // Every application has backups of the ticks of the last hours.
    let now = OffsetDateTime::now_utc();
    store_backups(&standin, nodes, now).await?;
    // Warms the process up: a tick that is too late starts no backups, and does everything else.
    standin.bus().tick(now - time::Duration::hours(1));
    standin.wait_until_at_rest(&[], WAIT_LIMIT).await?;
    let process = backup_process(&standin)?;
    let counted = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
    let counting = Arc::clone(&counted);
    standin.faults().on_call(move |call| {
        *lock(&counting).entry(call.operation.clone()).or_default() += 1;
        None
    });
    let stored_before = standin.s3().counts();
    let cpu = cpu_seconds_of_tree(process)?;
    let began = Instant::now();
    standin.tick();
    standin.wait_until_at_rest(&[], WAIT_LIMIT).await?;
    let seconds = began.elapsed().as_secs_f64();
    ensure_success(&standin)?;
    let cpu_seconds = cpu_seconds_of_tree(process)? - cpu;
    let mut counts = lock(&counted).clone();
    let throttled: u64 = counts.values().sum();
    for (operation, count) in standin.s3().counts() {
        let before = stored_before.get(&operation).copied().unwrap_or_default();
        counts.insert(format!("S3's {operation}"), count - before);
    }
    let sample = |calls: u64| Sample {
        seconds,
        calls: Some(calls),
        ..Sample::default()
    };
    Ok(Tick {
        all: Sample {
            cpu_seconds: Some(cpu_seconds),
            peak_kib: Some(resident_kib(process)),
            ..sample(counts.values().sum())
        },
        throttled: sample(throttled),
        calls: listed(counts),
    })
}

/// Returns the id of the backup function's process.
fn backup_process(standin: &StandIn) -> Result<u32> {
    let processes = standin.lambda().processes(&standin.function("backup")?);
    let process = processes.first();
    process.copied().context("the function's process has ended")
}

/// Returns an error if a function logged one, or if no backup was started.
fn ensure_success(standin: &StandIn) -> Result<()> {
    let problems: Vec<String> = standin
        .logs()
        .into_iter()
        .filter(|line| line.log.as_ref().is_some_and(LogLine::is_error))
        .map(|line| line.line)
        .take(3)
        .collect();
    ensure!(problems.is_empty(), "{problems:#?}");
    let sent: usize = standin.ssm().sent().values().sum();
    ensure!(sent > 0, "the tick started no backup");
    Ok(())
}

/// Stores manifests and commit markers of the ticks before `now`. Each core does a part of the applications.
async fn store_backups(standin: &StandIn, nodes: u32, now: OffsetDateTime) -> Result<()> {
    let cores = u32::try_from(std::thread::available_parallelism()?.get())?;
    let mut storing = JoinSet::new();
    for core in 0..cores {
        let (s3, bucket) = (standin.s3().clone(), standin.bucket().to_owned());
        storing.spawn_blocking(move || {
            for number in (core..nodes).step_by(cores as usize) {
                let application = format!("application-{number}").parse()?;
                for tick in 1..=TICKS_BEFORE {
                    let backup = BackupId::at(now - time::Duration::minutes(tick * INTERVAL));
                    let manifest = layout::manifest(&application, &backup);
                    for key in [manifest, layout::commit(&application, &backup)] {
                        s3.replace(&bucket, &key, b"{}")?;
                    }
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(stored) = storing.join_next().await {
        stored??;
    }
    Ok(())
}

/// Returns the counts as lines, largest first.
fn listed(counts: BTreeMap<String, u64>) -> Vec<String> {
    let mut counts: Vec<(u64, String)> = counts
        .into_iter()
        .filter_map(|(operation, count)| (count > 0).then_some((count, operation)))
        .collect();
    counts.sort_by_key(|(count, _)| Reverse(*count));
    let lines = counts.iter();
    lines
        .map(|(count, operation)| format!("{count:>6}  {operation}"))
        .collect()
}

/// Creates groups without hooks or user data: their instances are in service at once, with only an agent.
async fn create_groups(standin: &StandIn, nodes: u32) -> Result<()> {
    let auto_scaling = aws_sdk_autoscaling::Client::new(standin.aws());
    for number in 0..nodes {
        let name = format!("group-{number}");
        let tag = aws_sdk_autoscaling::types::Tag::builder()
            .key(APPLICATION_TAG)
            .value(format!("application-{number}"))
            .propagate_at_launch(true)
            .build();
        auto_scaling
            .create_auto_scaling_group()
            .auto_scaling_group_name(&name)
            .min_size(1)
            .max_size(1)
            .desired_capacity(1)
            .availability_zones("eu-central-1a")
            .tags(tag)
            .send()
            .await
            .with_context(|| format!("create {name}"))?;
    }
    Ok(())
}

/// The interval between two backups, in minutes.
const INTERVAL: i64 = 15;
/// More ticks than the two hours that a tick looks back.
const TICKS_BEFORE: i64 = 9;
const LISTING: &str = "a plain paginated listing";
/// The limit for the plain listing: the stand-in reads every key for each page.
const MAX_LISTED: usize = 10_000;

/// Measures the search for the newest backup among several numbers of backups.
pub(super) async fn newest(site: &Site, plan: &Plan) -> Result<Vec<Row>> {
    let application = APPLICATION.parse()?;
    let now = OffsetDateTime::now_utc();
    let client = aws_sdk_s3::Client::new(&site.surroundings.aws());
    let (mut rows, mut stored, mut fewest) = (Vec::new(), 0, None);
    for backups in [100_usize, 10_000, 100_000] {
        let mut row = Row::new(&format!("newest among {backups} backups"));
        if !plan.wants(&row.name) {
            continue;
        }
        plan.log(&row.name);
        // Older backups are added, so that the newest stays the same.
        for number in stored..backups {
            let minutes = INTERVAL * i64::try_from(number + 1)?;
            let backup = BackupId::at(now - time::Duration::minutes(minutes));
            let key = layout::manifest(&application, &backup);
            site.s3.replace(BUCKET, &key, b"{}")?;
        }
        stored = backups;
        let expected = BackupId::at(now - time::Duration::minutes(INTERVAL));
        for _ in 0..plan.runs {
            let (before, began) = (listings(site), Instant::now());
            let found = catalog::newest(
                &client,
                BUCKET,
                &application,
                BackupState::Committed,
                1,
                now,
            )
            .await?;
            ensure!(
                found.first() == Some(&expected),
                "the wrong backup was found: {found:?}"
            );
            row.add(REKINDLE, counted(site, before, began));
            if backups <= MAX_LISTED {
                let (before, began) = (listings(site), Instant::now());
                let all =
                    catalog::all(&client, BUCKET, &application, BackupState::Committed).await?;
                ensure!(all.last() == Some(&expected), "the wrong backup was found");
                row.add(LISTING, counted(site, before, began));
            }
        }
        row.set_amount(f64::from(u32::try_from(backups)?), "backups");
        let ours = row.contenders.first().and_then(|ours| ours.median(calls));
        let least = *fewest.get_or_insert(ours.unwrap_or(0.0));
        row.at_most("calls", least, calls);
        rows.push(row);
    }
    site.delete_below(&BackupState::Committed.prefix(&application))
        .await?;
    Ok(rows)
}

fn listings(site: &Site) -> u64 {
    site.s3.counts().values().sum()
}

fn counted(site: &Site, before: u64, began: Instant) -> Sample {
    Sample {
        seconds: began.elapsed().as_secs_f64(),
        calls: Some(listings(site) - before),
        ..Sample::default()
    }
}
