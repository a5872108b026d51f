//! The promises, held against the independent record.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;

use super::decode;
use super::lane::Lane;
use super::record::{Arrival, Committed, Snapshot};
use crate::nodes::machine::Node;

/// A promise of the README, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// 1: nothing that is not restored comes into service.
    Restored,
    /// 2: what restores may choose is complete.
    Complete,
    /// 3: only a restored node is backed up as the truth.
    Truth,
    /// 4: committed backups stay as they are.
    Unchanged,
    /// 5: the same outcome or a loud failure, and never two truths.
    SameOrLoud,
    /// 6: a damaged backup costs one interval.
    OneInterval,
    /// 7: no relaunching for ever.
    Bounded,
    /// 8: nothing but the region's own services.
    OwnServices,
}

impl Promise {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Restored,
        Self::Complete,
        Self::Truth,
        Self::Unchanged,
        Self::SameOrLoud,
        Self::OneInterval,
        Self::Bounded,
        Self::OwnServices,
    ];

    /// Returns what is promised.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restored => "1  nothing enters InService that is not restored",
            Self::Complete => "2  what restores see is complete",
            Self::Truth => "3  no node is backed up that was never restored",
            Self::Unchanged => "4  committed backups stay as they are",
            Self::SameOrLoud => "5  the same outcome or a loud failure, and one truth",
            Self::OneInterval => "6  the newest good backup is restored",
            Self::Bounded => "7  what fails again is not relaunched for ever",
            Self::OwnServices => "8  nothing but the region's own services is asked",
        }
    }
}

/// A promise that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which one.
    pub promise: Promise,
    /// How it shows.
    pub how: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise {}: {}", self.promise.name(), self.how)
    }
}

/// How many launches in a row may fail before they stop.
const MOST_FAILED_LAUNCHES: usize = 3;

impl Lane {
    pub(super) fn broke(&mut self, promise: Promise, how: impl Into<String>) {
        let how = how.into();
        self.broken.push(Broken { promise, how });
    }

    /// Looks at a node that has come into service just now, before anybody writes to it.
    pub async fn look_at_arrival(&mut self, node: &Node) -> Result<u64> {
        let held = match Snapshot::of(node).await {
            Ok(held) => held,
            Err(problem) => {
                let how = format!("{} serves nothing: {problem:#}", node.id());
                self.broke(Promise::Restored, how);
                return Ok(0);
            }
        };
        let (instance, epoch) = (node.id().to_owned(), held.epoch);
        let never_backed_up = self.record.committed.is_empty();
        let written = self.record.written.get(&epoch);
        let problem = match written {
            None if never_backed_up && epoch == 0 && held.tables.is_empty() => None,
            None => Some(format!(
                "{instance} serves epoch {epoch}, which was never written"
            )),
            Some(written) => match written.differences(&held).as_slice() {
                [] => None,
                found => Some(format!(
                    "{instance} serves epoch {epoch} and differs: {}",
                    found.join("; ")
                )),
            },
        };
        if let Some(problem) = problem {
            self.broke(Promise::Restored, problem);
        }
        if let Some(newest) = self.record.newest_good()
            && epoch < newest
        {
            let how = format!("{instance} serves epoch {epoch}; a good backup has {newest}");
            self.broke(Promise::OneInterval, how);
        }
        self.record.arrivals.push(Arrival { instance, epoch });
        Ok(epoch)
    }

    /// Looks at everything else that can be seen from outside while nothing is going on.
    pub async fn survey(&mut self) -> Result<()> {
        self.survey_backups().await?;
        self.survey_truth();
        self.survey_arrivals();
        for asked in self.tap.strangers() {
            self.broke(Promise::OwnServices, format!("{asked} was called"));
        }
        Ok(())
    }

    pub(super) async fn survey_backups(&mut self) -> Result<()> {
        let protected = std::sync::Arc::clone(&self.protected);
        let prefix = format!("manifests/{}/", self.application);
        let standin = &protected.standin;
        let mut there = BTreeSet::new();
        for key in standin.s3().keys(standin.bucket(), &prefix)? {
            let name = key.rsplit('/').next().unwrap_or_default();
            let id = name.trim_end_matches(".json").to_owned();
            if self.record.expendable.contains(&id) {
                continue;
            }
            there.insert(id.clone());
            if let Some(known) = self.record.committed.get(&id) {
                for (key, before) in known.objects.clone() {
                    match decode::hash(&protected, &key) {
                        Ok(now) if now == before => {}
                        Ok(_) => self.broke(Promise::Unchanged, format!("{key} was changed")),
                        Err(_) => self.broke(Promise::Unchanged, format!("{key} is gone")),
                    }
                }
                continue;
            }
            match decode::backup(&protected, &key).await {
                Ok(decoded) => self.admit(id, decoded),
                Err(problem) => self.broke(
                    Promise::Complete,
                    format!("{id} is committed and cannot be read: {problem:#}"),
                ),
            }
        }
        let known: Vec<String> = self.record.committed.keys().cloned().collect();
        for id in known {
            if !there.contains(&id) {
                self.broke(Promise::Unchanged, format!("the manifest of {id} is gone"));
            }
        }
        Ok(())
    }

    /// Holds a new backup against what was written, and remembers it.
    fn admit(&mut self, id: String, decoded: decode::Decoded) {
        let (instance, epoch) = (decoded.instance.clone(), decoded.epoch);
        let differences = match self.record.written.get(&epoch) {
            Some(written) => decoded.differences(written),
            None => vec![format!("epoch {epoch} was never written")],
        };
        if !differences.is_empty() {
            let how = format!("{id} is committed and differs: {}", differences.join("; "));
            self.broke(Promise::Complete, how);
        }
        let arrival = self
            .record
            .arrivals
            .iter()
            .rev()
            .find(|one| one.instance == instance);
        match arrival.map(|arrival| arrival.epoch) {
            // A node that arrived a moment ago is looked at next. One that was restored, and given up before it came
            // into service, holds what the newest backup does.
            None if Some(epoch) >= self.record.newest_good() => {}
            None => self.broke(
                Promise::Truth,
                format!("{id} has epoch {epoch}, less than a good backup; {instance} was never in service"),
            ),
            Some(held) if epoch < held => self.broke(
                Promise::Truth,
                format!("{id} has epoch {epoch}; its node was restored with {held}"),
            ),
            Some(_) => {}
        }
        let committed = Committed {
            instance,
            epoch,
            objects: decoded.objects,
        };
        self.record.committed.insert(id, committed);
    }

    /// Once a successor's backup is committed, none of a predecessor is.
    fn survey_truth(&mut self) {
        let mut left: BTreeSet<String> = BTreeSet::new();
        let mut current: Option<String> = None;
        let mut problems = Vec::new();
        for (id, backup) in &self.record.committed {
            if current.as_ref() == Some(&backup.instance) {
                continue;
            }
            if left.contains(&backup.instance) {
                problems.push(format!(
                    "{id} is of {}, which had a successor",
                    backup.instance
                ));
            }
            left.extend(current.replace(backup.instance.clone()));
        }
        for problem in problems {
            self.broke(Promise::SameOrLoud, problem);
        }
    }

    /// Whatever Auto Scaling says came into service was looked at when it did.
    fn survey_arrivals(&mut self) {
        let records = self.protected.standin.bus().records();
        let successful = records.iter().filter(|record| {
            record.event["detail-type"] == "EC2 Instance Launch Successful"
                && record.event["detail"]["AutoScalingGroupName"] == self.application.as_str()
        });
        let instances: Vec<String> = successful
            .filter_map(|record| record.event["detail"]["EC2InstanceId"].as_str())
            .map(str::to_owned)
            .collect();
        for instance in instances {
            let arrivals = &self.record.arrivals;
            if !arrivals.iter().any(|arrival| arrival.instance == instance) {
                self.broke(
                    Promise::Restored,
                    format!("{instance} was in service, unseen"),
                );
            }
        }
    }

    /// Counts the launches that failed since the first `before`, up to the next that succeeds.
    pub async fn look_at_launches(&mut self, before: usize) -> Result<()> {
        let launches = self.protected.launches(&self.application).await?;
        let since = launches.iter().skip(before);
        let failed = since.take_while(|status| *status != "Successful");
        let failed = failed.filter(|status| *status == "Cancelled").count();
        if failed > MOST_FAILED_LAUNCHES {
            let how = format!("{failed} launches in a row failed, and none was the last");
            self.broke(Promise::Bounded, how);
        }
        Ok(())
    }
}
