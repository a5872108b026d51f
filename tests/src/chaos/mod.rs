//! Fault injection, end to end: seeded runs of the shipped binaries on real Postgres, in which everything of a list
//! goes wrong, one thing at a time; after each the promises are held against a record of what was written that S3 and
//! the product have no part in.

pub mod arm;
pub mod catalogue;
pub mod cuts;
pub mod decode;
pub mod dice;
pub mod disks;
pub mod gates;
pub mod harm;
pub mod lane;
pub mod points;
pub mod promises;
pub mod record;
pub mod table;
pub mod tap;
pub mod wire;

use std::collections::VecDeque;
use std::sync::Mutex;

use anyhow::Result;

use crate::lock::lock;
use catalogue::{Fault, Story};
use dice::Dice;
use lane::Lane;
use table::Table;

/// After how many runs an application is given up for a new one.
const RUNS_OF_A_APPLICATION: usize = 8;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides about order and parameters.
    pub seed: u64,
    /// How many runs.
    pub runs: usize,
    /// Only the faults whose name contains one of these; all where there is none.
    pub only: Vec<String>,
    /// How many applications there are at a time.
    pub lanes: usize,
}

/// One run: its share of the list, in the order of the story.
#[derive(Debug, Clone)]
struct Run {
    number: usize,
    large: bool,
    faults: Vec<(Fault, usize)>,
}

/// Runs, and returns what was seen. `say` is told of each run that has ended.
pub async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Table> {
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
    let table = Mutex::new(Table::new(&faults, runs.len()));
    let queue = Mutex::new(VecDeque::from(runs));
    let work = (0..options.lanes.max(1)).map(|lane| work(lane, &queue, &table, options, say));
    futures_util::future::join_all(work).await;
    Ok(table
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Gives each run its share: some of what strikes a backup, and some of what strikes a replacement.
fn plan(faults: &[Fault], options: &Options) -> Vec<Run> {
    let mut dice = Dice::new(options.seed, "plan");
    let of = |keep: &dyn Fn(&&Fault) -> bool| faults.iter().filter(keep).cloned().collect();
    let mut large: Vec<Fault> = of(&|fault| fault.large);
    let mut backups: Vec<Fault> = of(&|fault| !fault.large && fault.story == Story::Backup);
    let mut others: Vec<Fault> = of(&|fault| !fault.large && fault.story != Story::Backup);
    for list in [&mut large, &mut backups, &mut others] {
        dice.shuffle(list);
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

/// Returns the part of a list that falls to one of so many; where there are more than the list is long, it is repeated.
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

/// Takes runs off the queue until there is none.
async fn work(
    number: usize,
    queue: &Mutex<VecDeque<Run>>,
    table: &Mutex<Table>,
    options: &Options,
    say: &(dyn Fn(&str) + Sync),
) {
    let mut lane: Option<(Lane, usize)> = None;
    // Not in the loop's head, which would hold the lock for as long as the run takes. One lane of all prefers the runs
    // that move much, and the others leave them to it.
    let next = || {
        let mut queue = lock(queue);
        let own = |run: &Run| run.large == (number == 0);
        match queue.iter().position(own) {
            Some(at) => queue.remove(at),
            None => queue.pop_front(),
        }
    };
    while let Some(run) = next() {
        let usable = lane.take().filter(|(lane, runs)| {
            lane.large == run.large && !lane.spent && *runs < RUNS_OF_A_APPLICATION
        });
        let opened = match usable {
            Some(usable) => Ok(usable),
            None => Lane::open(run.large).await.map(|lane| (lane, 0)),
        };
        let (mut open, runs) = match opened {
            Ok(open) => open,
            Err(problem) => {
                lock(table).failed(&run.faults[0].0.name, &format!("{problem:#}"));
                continue;
            }
        };
        let intact = one_run(&mut open, &run, table, options, say).await;
        if intact {
            lane = Some((open, runs + 1));
        }
    }
}

/// How often a fault is tried that does not strike: what it is to strike may have been over before.
const TRIES: u64 = 3;

/// Plays one run; tells whether its application can be used for another.
async fn one_run(
    lane: &mut Lane,
    run: &Run,
    table: &Mutex<Table>,
    options: &Options,
    say: &(dyn Fn(&str) + Sync),
) -> bool {
    for (fault, repetition) in &run.faults {
        for retry in 0..TRIES {
            if lane.spent {
                match Lane::open(run.large).await {
                    Ok(fresh) => *lane = fresh,
                    Err(problem) => {
                        lock(table).failed(&fault.name, &format!("{problem:#}"));
                        return false;
                    }
                }
            }
            let seed = options.seed + *repetition as u64 + retry;
            if one_fault(lane, run.number, fault, seed, table, say).await {
                break;
            }
        }
    }
    // The story goes on to a restore in every run, so that what was backed up under a fault is also restored.
    let backups_alone = |(fault, _): &(Fault, usize)| fault.story == Story::Backup;
    if !lane.spent && run.faults.iter().all(backups_alone) {
        let mut dice = Dice::new(options.seed, "end");
        let ended = lane.replace(Story::Loss, None, &mut dice).await;
        let broken = std::mem::take(&mut lane.broken);
        let name = &run.faults[0].0.name;
        for broken in &broken {
            say(&format!(
                "run {:>3}  after {name}: BROKEN {broken}",
                run.number + 1
            ));
        }
        lane.spent |= ended.is_err() || !broken.is_empty();
        lock(table).afterwards(name, ended, broken);
    }
    lock(table).requests(&lane.tap.seen());
    !lane.spent
}

/// Lets a fault strike once; tells whether it need not be tried again.
async fn one_fault(
    lane: &mut Lane,
    run: usize,
    fault: &Fault,
    seed: u64,
    table: &Mutex<Table>,
    say: &(dyn Fn(&str) + Sync),
) -> bool {
    let began = std::time::Instant::now();
    let met = lane.meet(fault, &mut Dice::new(seed, &fault.name)).await;
    let broken = std::mem::take(&mut lane.broken);
    let word = match &met {
        Ok(Some(met)) => format!("{:?}, {} hits", met.outcome, met.hits),
        Ok(None) => "skipped: this machine cannot have it".to_owned(),
        Err(problem) => format!("FAILED: {problem:#}"),
    };
    say(&format!(
        "run {:>3}  {:>5.1} s  {}: {word}",
        run + 1,
        began.elapsed().as_secs_f64(),
        fault.name
    ));
    for broken in &broken {
        say(&format!("         BROKEN {broken}"));
    }
    let missed = matches!(&met, Ok(Some(met)) if met.hits == 0);
    let failed = met.is_err() || !broken.is_empty();
    if failed || missed {
        for line in lane
            .protected
            .error_lines(lane::APPLICATION)
            .iter()
            .rev()
            .take(3)
        {
            say(&format!("         it said: {}", line["fields"]));
        }
    }
    if failed {
        lane.spent = true;
        say(&format!(
            "         repeat it: make chaos ARGS=\"--seed {seed} --only '{}'\"",
            fault.name
        ));
    }
    lock(table).met(&fault.name, met, broken);
    failed || !missed
}
