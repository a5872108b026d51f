//! Runs: each takes an application through its scenario with a part of the list of faults.

pub mod checks;
pub mod damaged_objects;
pub mod report;
pub mod scenario;

use std::collections::VecDeque;
use std::sync::Mutex;

use anyhow::Result;

use self::report::Report;
use super::application::choices::Choices;
use super::application::{APPLICATION, Application};
use super::faults::catalogue;
use super::faults::fault::{Fault, Scenario};
use crate::lock::lock;

/// How many runs share an application before a new one is started.
const RUNS_PER_APPLICATION: usize = 8;

/// The options of a full run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed of the faults' order and parameters.
    pub seed: u64,
    /// The number of runs.
    pub runs: usize,
    /// Only the faults whose name contains one of these; every fault if this is empty.
    pub only: Vec<String>,
    /// The number of applications at the same time.
    pub applications: usize,
}

/// One run: its part of the list, in the order of the scenario.
#[derive(Debug, Clone)]
struct Run {
    number: usize,
    large: bool,
    faults: Vec<(Fault, usize)>,
}

/// Runs every fault, and returns the report. `log` gets a line for each fault.
pub async fn run(options: &Options, log: &(dyn Fn(&str) + Sync)) -> Result<Report> {
    let faults: Vec<Fault> = catalogue::all()
        .into_iter()
        .filter(|fault| {
            let named = |part: &String| fault.name.contains(part);
            options.only.is_empty() || options.only.iter().any(named)
        })
        .collect();
    anyhow::ensure!(
        !faults.is_empty(),
        "no fault's name contains {:?}",
        options.only
    );
    let runs = plan(&faults, options);
    let report = Mutex::new(Report::new(&faults, runs.len()));
    let queue = Mutex::new(VecDeque::from(runs));
    let work =
        (0..options.applications.max(1)).map(|number| work(number, &queue, &report, options, log));
    futures_util::future::join_all(work).await;
    Ok(report
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Returns the runs: each gets faults of a backup and faults of a replacement.
fn plan(faults: &[Fault], options: &Options) -> Vec<Run> {
    let mut choices = Choices::new(options.seed, "plan");
    let of = |keep: &dyn Fn(&&Fault) -> bool| faults.iter().filter(keep).cloned().collect();
    let mut large: Vec<Fault> = of(&|fault| fault.large);
    let mut backups: Vec<Fault> = of(&|fault| !fault.large && fault.scenario == Scenario::Backup);
    let mut others: Vec<Fault> = of(&|fault| !fault.large && fault.scenario != Scenario::Backup);
    for list in [&mut large, &mut backups, &mut others] {
        choices.shuffle(list);
    }
    // Two faults of a large application fit into one run.
    let for_large = large.len().div_ceil(2).min(options.runs.div_ceil(4));
    let for_small = options.runs - for_large;
    let mut runs = Vec::new();
    for number in 0..for_large {
        let faults = share(&large, number, for_large);
        runs.push(Run {
            number,
            large: true,
            faults,
        });
    }
    for number in 0..for_small {
        let mut faults = share(&backups, number, for_small);
        faults.extend(share(&others, number, for_small));
        let number = for_large + number;
        if !faults.is_empty() {
            runs.push(Run {
                number,
                large: false,
                faults,
            });
        }
    }
    runs
}

/// Returns the part of a list for one of `of` runs. If there are more runs than faults, faults are repeated.
fn share(list: &[Fault], number: usize, of: usize) -> Vec<(Fault, usize)> {
    if list.is_empty() {
        return Vec::new();
    }
    let all = of.div_ceil(list.len()).max(1) * list.len();
    let (from, to) = (number * all / of, (number + 1) * all / of);
    (from..to)
        .map(|at| (list[at % list.len()].clone(), at / list.len()))
        .collect()
}

/// Executes runs from the queue until it is empty.
async fn work(
    number: usize,
    queue: &Mutex<VecDeque<Run>>,
    report: &Mutex<Report>,
    options: &Options,
    log: &(dyn Fn(&str) + Sync),
) {
    let mut app: Option<(Application, usize)> = None;
    // A closure, because a lock in the loop's head would be held during the run. The first worker prefers the runs of
    // the large application, and the other workers prefer the small ones.
    let next = || {
        let mut queue = lock(queue);
        let own = |run: &Run| run.large == (number == 0);
        match queue.iter().position(own) {
            Some(at) => queue.remove(at),
            None => queue.pop_front(),
        }
    };
    while let Some(run) = next() {
        let usable = app.take().filter(|(app, runs)| {
            app.large == run.large && !app.spent && *runs < RUNS_PER_APPLICATION
        });
        let opened = match usable {
            Some(usable) => Ok(usable),
            None => Application::open(run.large).await.map(|app| (app, 0)),
        };
        let (mut open, runs) = match opened {
            Ok(open) => open,
            Err(problem) => {
                lock(report).failed(&run.faults[0].0.name, &format!("{problem:#}"));
                continue;
            }
        };
        let intact = one_run(&mut open, &run, report, options, log).await;
        if intact {
            app = Some((open, runs + 1));
        }
    }
}

/// How often a fault without effect is tried: the moment for it may have passed before.
const TRIES: u64 = 3;

/// Executes one run. Returns whether its application can be used for another.
async fn one_run(
    app: &mut Application,
    run: &Run,
    report: &Mutex<Report>,
    options: &Options,
    log: &(dyn Fn(&str) + Sync),
) -> bool {
    for (fault, repetition) in &run.faults {
        for retry in 0..TRIES {
            if app.spent {
                match Application::open(run.large).await {
                    Ok(fresh) => *app = fresh,
                    Err(problem) => {
                        lock(report).failed(&fault.name, &format!("{problem:#}"));
                        return false;
                    }
                }
            }
            let seed = options.seed + *repetition as u64 + retry;
            if one_fault(app, run.number, fault, seed, report, log).await {
                break;
            }
        }
    }
    // Every run ends with a restore, so that each backup taken under a fault is also restored.
    let backups_alone = |(fault, _): &(Fault, usize)| fault.scenario == Scenario::Backup;
    if !app.spent && run.faults.iter().all(backups_alone) {
        let mut choices = Choices::new(options.seed, "end");
        let ended = app.replace(Scenario::Loss, None, &mut choices).await;
        let violations = std::mem::take(&mut app.violations);
        let name = &run.faults[0].0.name;
        for violation in &violations {
            log(&format!(
                "run {:>3}  after {name}: VIOLATED {violation}",
                run.number + 1
            ));
        }
        app.spent |= ended.is_err() || !violations.is_empty();
        lock(report).afterwards(name, ended, violations);
    }
    lock(report).requests(&app.interceptor.requests());
    !app.spent
}

/// Tries a fault once. Returns whether it need not be tried again.
async fn one_fault(
    app: &mut Application,
    run: usize,
    fault: &Fault,
    seed: u64,
    report: &Mutex<Report>,
    log: &(dyn Fn(&str) + Sync),
) -> bool {
    let began = std::time::Instant::now();
    let result = app
        .run_fault(fault, &mut Choices::new(seed, &fault.name))
        .await;
    let violations = std::mem::take(&mut app.violations);
    let summary = match &result {
        Ok(Some(result)) => format!("{:?}, {} hits", result.outcome, result.hits),
        Ok(None) => "skipped: not possible on this machine".to_owned(),
        Err(problem) => format!("FAILED: {problem:#}"),
    };
    log(&format!(
        "run {:>3}  {:>5.1} s  {}: {summary}",
        run + 1,
        began.elapsed().as_secs_f64(),
        fault.name
    ));
    for violation in &violations {
        log(&format!("         VIOLATED {violation}"));
    }
    let missed = matches!(&result, Ok(Some(result)) if result.hits == 0);
    let failed = result.is_err() || !violations.is_empty();
    if failed || missed {
        for line in app.protected.errors(APPLICATION).iter().rev().take(3) {
            log(&format!("         logged: {}", line.raw["fields"]));
        }
    }
    if failed {
        app.spent = true;
        log(&format!(
            "         repeat with: make chaos ARGS=\"--seed {seed} --only '{}'\"",
            fault.name
        ));
    }
    lock(report).add(&fault.name, result, violations);
    failed || !missed
}
