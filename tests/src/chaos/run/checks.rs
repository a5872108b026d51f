//! The checks of the promises: each compares the product's results with the independent record.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::chaos::application::Application;
use crate::chaos::application::promise::Promise;
use crate::chaos::record::decode;
use crate::chaos::record::history::{Arrival, Committed};
use crate::chaos::record::snapshot::Snapshot;
use crate::nodes::machine::Node;

/// How many launches in a row may fail.
const MAX_FAILED_LAUNCHES: usize = 3;

impl Application {
    /// Compares a node that has just entered service with the record, and returns the epoch of its data. Nothing may have
    /// been written to it since.
    pub async fn check_new_node(&mut self, node: &Node) -> Result<u64> {
        let held = match Snapshot::of(node).await {
            Ok(held) => held,
            Err(problem) => {
                let how = format!("{} cannot be read: {problem:#}", node.id());
                self.violate(Promise::Restored, how);
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
            self.violate(Promise::Restored, problem);
        }
        if let Some(newest) = self.record.newest_good()
            && epoch < newest
        {
            let how = format!("{instance} serves epoch {epoch}; a good backup has {newest}");
            self.violate(Promise::OneInterval, how);
        }
        self.record.arrivals.push(Arrival { instance, epoch });
        Ok(epoch)
    }

    /// Checks everything that can be checked from outside while no function and no command is running.
    pub async fn check_all(&mut self) -> Result<()> {
        self.check_backups().await?;
        self.check_lineage();
        self.check_arrivals();
        for service in self.interceptor.unexpected_services() {
            self.violate(Promise::OwnServices, format!("{service} was called"));
        }
        Ok(())
    }

    pub(super) async fn check_backups(&mut self) -> Result<()> {
        let protected = std::sync::Arc::clone(&self.protected);
        let prefix = format!("manifests/{}/", self.name);
        let standin = &protected.standin;
        let mut present = BTreeSet::new();
        for key in standin.s3().keys(standin.bucket(), &prefix)? {
            let name = key.rsplit('/').next().unwrap_or_default();
            let id = name.trim_end_matches(".json").to_owned();
            if self.record.expendable.contains(&id) {
                continue;
            }
            present.insert(id.clone());
            if let Some(known) = self.record.committed.get(&id) {
                for (key, before) in known.objects.clone() {
                    match decode::hash(&protected, &key) {
                        Ok(now) if now == before => {}
                        Ok(_) => self.violate(Promise::Unchanged, format!("{key} was changed")),
                        Err(_) => self.violate(Promise::Unchanged, format!("{key} is gone")),
                    }
                }
                continue;
            }
            match decode::backup(&protected, &key).await {
                Ok(decoded) => self.record_backup(id, decoded),
                Err(problem) => self.violate(
                    Promise::Complete,
                    format!("{id} is committed and cannot be read: {problem:#}"),
                ),
            }
        }
        let known: Vec<String> = self.record.committed.keys().cloned().collect();
        for id in known {
            if !present.contains(&id) {
                self.violate(Promise::Unchanged, format!("the manifest of {id} is gone"));
            }
        }
        Ok(())
    }

    /// Compares a new backup with the written content, and adds it to the record.
    fn record_backup(&mut self, id: String, decoded: decode::Decoded) {
        let (instance, epoch) = (decoded.instance.clone(), decoded.epoch);
        let differences = match self.record.written.get(&epoch) {
            Some(written) => decoded.differences(written),
            None => vec![format!("epoch {epoch} was never written")],
        };
        if !differences.is_empty() {
            let how = format!("{id} is committed and differs: {}", differences.join("; "));
            self.violate(Promise::Complete, how);
        }
        let arrival = self
            .record
            .arrivals
            .iter()
            .rev()
            .find(|one| one.instance == instance);
        match arrival.map(|arrival| arrival.epoch) {
            // A node that arrived just now is checked next. A node that was restored, and abandoned before it entered
            // service, has the newest backup's data.
            None if Some(epoch) >= self.record.newest_good() => {}
            None => self.violate(
                Promise::OnlyRestoredBackedUp,
                format!("{id} has epoch {epoch}, less than a good backup; {instance} was never in service"),
            ),
            Some(held) if epoch < held => self.violate(
                Promise::OnlyRestoredBackedUp,
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

    /// Checks that no predecessor's backup was committed after its successor's.
    fn check_lineage(&mut self) {
        let mut superseded: BTreeSet<String> = BTreeSet::new();
        let mut current: Option<String> = None;
        let mut problems = Vec::new();
        for (id, backup) in &self.record.committed {
            if current.as_ref() == Some(&backup.instance) {
                continue;
            }
            if superseded.contains(&backup.instance) {
                problems.push(format!(
                    "{id} is a backup of {}, which had a successor",
                    backup.instance
                ));
            }
            superseded.extend(current.replace(backup.instance.clone()));
        }
        for problem in problems {
            self.violate(Promise::SameOrReported, problem);
        }
    }

    /// Checks that every instance of a launch event was checked when it entered service.
    fn check_arrivals(&mut self) {
        let records = self.protected.standin.bus().records();
        let successful = records.iter().filter(|record| {
            record.event["detail-type"] == "EC2 Instance Launch Successful"
                && record.event["detail"]["AutoScalingGroupName"] == self.name.as_str()
        });
        let instances: Vec<String> = successful
            .filter_map(|record| record.event["detail"]["EC2InstanceId"].as_str())
            .map(str::to_owned)
            .collect();
        for instance in instances {
            let arrivals = &self.record.arrivals;
            if !arrivals.iter().any(|arrival| arrival.instance == instance) {
                self.violate(
                    Promise::Restored,
                    format!("{instance} entered service without a check"),
                );
            }
        }
    }

    /// Checks how many launches failed in a row after the first `before` launches.
    pub async fn check_launches(&mut self, before: usize) -> Result<()> {
        let launches = self.protected.launches(&self.name).await?;
        let since = launches.iter().skip(before);
        let failed = since.take_while(|status| *status != "Successful");
        let failed = failed.filter(|status| *status == "Cancelled").count();
        if failed > MAX_FAILED_LAUNCHES {
            let how = format!("{failed} launches failed in a row (limit {MAX_FAILED_LAUNCHES})");
            self.violate(Promise::Bounded, how);
        }
        Ok(())
    }
}
