//! What was tried, how often, what became of it, and which promises did not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::catalogue::Fault;
use super::cuts::Cuts;
use super::lane::{Met, Outcome};
use super::points;
use super::promises::{Broken, Promise};
use super::tap::Seen;

/// One row.
#[derive(Debug, Clone, Default)]
struct Row {
    section: &'static str,
    tried: u64,
    hits: u64,
    recovered: u64,
    loud: u64,
    skipped: u64,
    broken: u64,
}

/// The table of a run of runs.
#[derive(Debug, Default)]
pub struct Table {
    runs: usize,
    order: Vec<String>,
    rows: BTreeMap<String, Row>,
    broken: Vec<(String, Broken)>,
    failed: Vec<(String, String)>,
    requests: BTreeSet<Seen>,
    cuts: Vec<Cuts>,
}

impl Table {
    /// Begins a table with a row for each fault.
    pub fn new(faults: &[Fault], runs: usize) -> Self {
        let row = |fault: &Fault| Row {
            section: fault.section,
            ..Row::default()
        };
        Self {
            runs,
            order: faults.iter().map(|fault| fault.name.clone()).collect(),
            rows: faults
                .iter()
                .map(|fault| (fault.name.clone(), row(fault)))
                .collect(),
            ..Self::default()
        }
    }

    pub(super) fn met(
        &mut self,
        name: &str,
        met: anyhow::Result<Option<Met>>,
        broken: Vec<Broken>,
    ) {
        let row = self.rows.entry(name.to_owned()).or_default();
        row.broken += broken.len() as u64;
        match met {
            Ok(Some(met)) => {
                row.tried += 1;
                row.hits += met.hits;
                match met.outcome {
                    Outcome::Recovered => row.recovered += 1,
                    Outcome::Loud => row.loud += 1,
                }
            }
            Ok(None) => row.skipped += 1,
            Err(problem) => {
                row.tried += 1;
                self.failed(name, &format!("{problem:#}"));
            }
        }
        self.broken
            .extend(broken.into_iter().map(|broken| (name.to_owned(), broken)));
    }

    pub(super) fn afterwards(
        &mut self,
        name: &str,
        ended: anyhow::Result<Option<Met>>,
        broken: Vec<Broken>,
    ) {
        if let Err(problem) = ended {
            self.failed(name, &format!("afterwards: {problem:#}"));
        }
        let row = self.rows.entry(name.to_owned()).or_default();
        row.broken += broken.len() as u64;
        self.broken
            .extend(broken.into_iter().map(|broken| (name.to_owned(), broken)));
    }

    pub(super) fn failed(&mut self, name: &str, problem: &str) {
        self.failed.push((name.to_owned(), problem.to_owned()));
    }

    pub(super) fn requests(&mut self, seen: &BTreeSet<Seen>) {
        self.requests.extend(seen.iter().cloned());
    }

    /// Adds what was cut and turned.
    pub fn add_cuts(&mut self, cuts: Vec<Cuts>) {
        self.cuts.extend(cuts);
    }

    /// Returns every promise that did not hold, with the fault.
    pub fn broken(&self) -> &[(String, Broken)] {
        &self.broken
    }

    /// Tells whether every fault was tried and did strike, but for those that this machine cannot bring about.
    fn all_struck(&self) -> bool {
        let mut rows = self.rows.values();
        rows.all(|row| row.hits > 0 || row.skipped > 0)
    }

    /// Returns the requests that were made and that no fault of the list is for.
    fn unlisted(&self) -> Vec<&Seen> {
        let requests = self.requests.iter();
        requests.filter(|seen| !points::has(seen)).collect()
    }

    /// Tells whether everything held: nothing broken, nothing failed, and every fault was tried and did strike.
    pub fn held(&self) -> bool {
        self.broken.is_empty()
            && self.failed.is_empty()
            && self.unlisted().is_empty()
            && self.cuts.iter().all(|cuts| cuts.problems.is_empty())
            && self.all_struck()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for name in &self.order {
            let row = &self.rows[name];
            if row.section != section {
                section = row.section;
                writeln!(
                    f,
                    "\n{section:<78}{:>6}{:>6}{:>10}{:>6}",
                    "tried", "hits", "recovered", "loud"
                )?;
            }
            let mark = match row {
                Row { skipped: 1.., .. } => "  SKIPPED: not on this machine",
                Row { broken: 1.., .. } => "  BROKEN",
                Row { hits: 0, .. } => "  NO HIT",
                _ => "",
            };
            writeln!(
                f,
                "  {name:<76}{:>6}{:>6}{:>10}{:>6}{mark}",
                row.tried, row.hits, row.recovered, row.loud
            )?;
        }
        let sum = |value: fn(&Row) -> u64| self.rows.values().map(value).sum::<u64>();
        writeln!(
            f,
            "\n{:<78}{:>6}{:>6}{:>10}{:>6}",
            format!("{} faults in {} runs", self.order.len(), self.runs),
            sum(|row| row.tried),
            sum(|row| row.hits),
            sum(|row| row.recovered),
            sum(|row| row.loud)
        )?;
        if !self.cuts.is_empty() {
            let heading = "the shipped agent alone, by hand";
            writeln!(f, "\n{heading:<78}{:>6}{:>16}", "tried", "refused")?;
        }
        for cuts in &self.cuts {
            let Cuts {
                what,
                tried,
                refused,
                problems,
            } = cuts;
            writeln!(f, "  {what:<76}{tried:>6}{refused:>16}")?;
            for problem in problems {
                writeln!(f, "    NOT REFUSED  {problem}")?;
            }
        }
        for seen in self.unlisted() {
            let Seen {
                caller,
                operation,
                object,
                ..
            } = seen;
            writeln!(f, "  NOT IN THE LIST  {caller} {operation} {object}")?;
        }
        for (name, problem) in &self.failed {
            writeln!(f, "  FAILED  {name}: {problem}")?;
        }
        writeln!(f, "\npromises")?;
        for promise in Promise::ALL {
            let breaks: Vec<_> = self
                .broken
                .iter()
                .filter(|(_, broken)| broken.promise == promise)
                .collect();
            let word = if breaks.is_empty() { "held" } else { "BROKEN" };
            writeln!(f, "  {word:<8}{}", promise.name())?;
            for (name, broken) in breaks {
                writeln!(f, "            {name}: {}", broken.how)?;
            }
        }
        writeln!(f, "promises broken: {}", self.broken.len())
    }
}
