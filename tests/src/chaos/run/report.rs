//! The report: every fault with its outcomes, and every violated promise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::damaged_objects::DamagedObjects;
use super::scenario::{FaultOutcome, FaultResult};
use crate::chaos::application::interceptor::Request;
use crate::chaos::application::promise::{Promise, Violation};
use crate::chaos::faults::fault::Fault;
use crate::chaos::faults::points;

/// The counts of one fault.
#[derive(Debug, Clone, Default)]
struct Row {
    section: &'static str,
    tried: u64,
    hits: u64,
    recovered: u64,
    reported: u64,
    skipped: u64,
    violations: u64,
}

/// The report of a full run.
#[derive(Debug, Default)]
pub struct Report {
    runs: usize,
    order: Vec<String>,
    rows: BTreeMap<String, Row>,
    violations: Vec<(String, Violation)>,
    failed: Vec<(String, String)>,
    requests: BTreeSet<Request>,
    damaged: Vec<DamagedObjects>,
}

impl Report {
    /// Starts a report with a row for each fault.
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

    pub(super) fn add(
        &mut self,
        name: &str,
        result: anyhow::Result<Option<FaultResult>>,
        violations: Vec<Violation>,
    ) {
        self.violated(name, violations);
        let row = self.rows.entry(name.to_owned()).or_default();
        match result {
            Ok(Some(result)) => {
                row.tried += 1;
                row.hits += result.hits;
                match result.outcome {
                    FaultOutcome::Recovered => row.recovered += 1,
                    FaultOutcome::Reported => row.reported += 1,
                }
            }
            Ok(None) => row.skipped += 1,
            Err(problem) => {
                row.tried += 1;
                self.failed(name, &format!("{problem:#}"));
            }
        }
    }

    pub(super) fn afterwards(
        &mut self,
        name: &str,
        ended: anyhow::Result<Option<FaultResult>>,
        violations: Vec<Violation>,
    ) {
        if let Err(problem) = ended {
            self.failed(name, &format!("afterwards: {problem:#}"));
        }
        self.violated(name, violations);
    }

    fn violated(&mut self, name: &str, violations: Vec<Violation>) {
        let row = self.rows.entry(name.to_owned()).or_default();
        row.violations += violations.len() as u64;
        let named = violations.into_iter().map(|one| (name.to_owned(), one));
        self.violations.extend(named);
    }

    pub(super) fn failed(&mut self, name: &str, problem: &str) {
        self.failed.push((name.to_owned(), problem.to_owned()));
    }

    pub(super) fn requests(&mut self, requests: &BTreeSet<Request>) {
        self.requests.extend(requests.iter().cloned());
    }

    /// Adds the results for damaged objects.
    pub fn add_damaged_objects(&mut self, damaged: Vec<DamagedObjects>) {
        self.damaged.extend(damaged);
    }

    /// Returns whether every fault took effect, except those that this machine cannot have.
    fn all_took_effect(&self) -> bool {
        let mut rows = self.rows.values();
        rows.all(|row| row.hits > 0 || row.skipped > 0)
    }

    /// Returns the requests that were made and that no fault of the list covers.
    fn unlisted(&self) -> Vec<&Request> {
        let requests = self.requests.iter();
        requests.filter(|request| !points::has(request)).collect()
    }

    /// Returns whether no promise was violated, nothing failed, and every fault took effect.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
            && self.failed.is_empty()
            && self.unlisted().is_empty()
            && self
                .damaged
                .iter()
                .all(|damaged| damaged.problems.is_empty())
            && self.all_took_effect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_faults(f)?;
        self.write_damaged_objects(f)?;
        for request in self.unlisted() {
            let Request {
                caller,
                operation,
                object,
                ..
            } = request;
            writeln!(f, "  NOT IN THE LIST  {caller} {operation} {object}")?;
        }
        for (name, problem) in &self.failed {
            writeln!(f, "  FAILED  {name}: {problem}")?;
        }
        self.write_promises(f)
    }
}

impl Report {
    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for name in &self.order {
            let row = &self.rows[name];
            if row.section != section {
                section = row.section;
                writeln!(
                    f,
                    "\n{section:<78}{:>6}{:>6}{:>10}{:>10}",
                    "tried", "hits", "recovered", "reported"
                )?;
            }
            let mark = match row {
                Row { skipped: 1.., .. } => "  SKIPPED: not possible on this machine",
                Row {
                    violations: 1.., ..
                } => "  VIOLATED",
                Row { hits: 0, .. } => "  NO HIT",
                _ => "",
            };
            writeln!(
                f,
                "  {name:<76}{:>6}{:>6}{:>10}{:>10}{mark}",
                row.tried, row.hits, row.recovered, row.reported
            )?;
        }
        let sum = |value: fn(&Row) -> u64| self.rows.values().map(value).sum::<u64>();
        writeln!(
            f,
            "\n{:<78}{:>6}{:>6}{:>10}{:>10}",
            format!("{} faults in {} runs", self.order.len(), self.runs),
            sum(|row| row.tried),
            sum(|row| row.hits),
            sum(|row| row.recovered),
            sum(|row| row.reported)
        )
    }

    fn write_damaged_objects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.damaged.is_empty() {
            let heading = "damaged objects, restored by the shipped agent alone";
            writeln!(f, "\n{heading:<78}{:>6}{:>16}", "tried", "refused")?;
        }
        for damaged in &self.damaged {
            let DamagedObjects {
                what,
                tried,
                refused,
                problems,
            } = damaged;
            writeln!(f, "  {what:<76}{tried:>6}{refused:>16}")?;
            for problem in problems {
                writeln!(f, "    NOT REFUSED  {problem}")?;
            }
        }
        Ok(())
    }

    fn write_promises(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\npromises")?;
        for promise in Promise::ALL {
            let of_promise = |(_, violation): &&(String, Violation)| violation.promise == promise;
            let violations: Vec<_> = self.violations.iter().filter(of_promise).collect();
            let verdict = if violations.is_empty() {
                "held"
            } else {
                "VIOLATED"
            };
            writeln!(f, "  {verdict:<10}{}", promise.name())?;
            for (name, violation) in violations {
                writeln!(f, "            {name}: {}", violation.how)?;
            }
        }
        writeln!(f, "violations: {}", self.violations.len())
    }
}
