//! A group with one backup whose launches can be made to fail, and its breaker as AWS and Rekindle show it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_sdk_ssm::types::ParameterType;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::lambda::LogLine;
use rekindle_tests::wait::wait_for;
use serde_json::{Value, json};
use shared::aws::breaker::{Breaker, Breakers};
use shared::layout;
use shared::manifest::Manifest;

/// A group with one backup, and the data of its node at that time.
pub(crate) struct Scenario {
    pub(crate) protected: ProtectedGroups,
    pub(crate) application: &'static str,
    pub(crate) node: Arc<Node>,
    manifest: Manifest,
    pub(crate) data: DataSnapshot,
}

impl Scenario {
    pub(crate) async fn start(application: &'static str) -> Result<Self> {
        let (protected, node) = ProtectedGroups::with_filled_group(application).await?;
        let manifest = protected.back_up(application).await?;
        let data = standalone::snapshot(&node).await?;
        Ok(Self {
            protected,
            application,
            node,
            manifest,
            data,
        })
    }

    /// Makes the only manifest unreadable, so that every launch must fail; returns the original bytes.
    pub(crate) fn make_manifest_unreadable(&self) -> Result<Vec<u8>> {
        let manifest = self.read_manifest()?;
        self.put_manifest(b"<html>not a manifest</html>")?;
        Ok(manifest)
    }

    fn read_manifest(&self) -> Result<Vec<u8>> {
        let standin = &self.protected.standin;
        standin.s3().read(standin.bucket(), &self.manifest_key())
    }

    /// Replaces the only manifest.
    pub(crate) fn put_manifest(&self, bytes: &[u8]) -> Result<()> {
        let standin = &self.protected.standin;
        let bucket = standin.bucket();
        standin.s3().replace(bucket, &self.manifest_key(), bytes)
    }

    fn manifest_key(&self) -> String {
        let index = &self.manifest.index;
        layout::manifest(&index.application, &index.backup_id)
    }

    pub(crate) async fn kill_node(&self) -> Result<()> {
        self.protected.standin.kill_instance(self.node.id()).await
    }

    fn auto_scaling(&self) -> aws_sdk_autoscaling::Client {
        aws_sdk_autoscaling::Client::new(self.protected.standin.aws())
    }

    /// Suspends the group's launches, as an operator would.
    pub(crate) async fn suspend_launches(&self) -> Result<()> {
        self.auto_scaling()
            .suspend_processes()
            .auto_scaling_group_name(self.application)
            .scaling_processes("Launch")
            .send()
            .await?;
        Ok(())
    }

    /// Resumes the group's launches, as an operator would.
    pub(crate) async fn resume_launches(&self) -> Result<()> {
        self.auto_scaling()
            .resume_processes()
            .auto_scaling_group_name(self.application)
            .scaling_processes("Launch")
            .send()
            .await?;
        Ok(())
    }

    /// Waits until the group has no instance.
    pub(crate) async fn wait_until_empty(&self) -> Result<()> {
        let empty = wait_for("the node to be gone", WAIT_LIMIT, async || {
            let group = self.protected.standin.group(self.application);
            if group.is_empty() {
                Ok(Some(()))
            } else {
                Err(format!("{group:?}"))
            }
        });
        self.protected.with_sweeps(empty).await
    }

    /// Returns whether the group's launches are suspended; checks that no other process is.
    pub(crate) async fn is_suspended(&self) -> Result<bool> {
        let names = self.protected.suspended_processes(self.application).await?;
        assert!(names.iter().all(|it| it == "Launch"), "{names:?}");
        Ok(!names.is_empty())
    }

    /// Returns how many instances the group has ever launched, according to Auto Scaling.
    pub(crate) async fn launches(&self) -> Result<usize> {
        Ok(self.protected.launches(self.application).await?.len())
    }

    /// Returns the parameter that records the application's breakers, or `None` if it does not exist.
    pub(crate) async fn breakers(&self) -> Result<Option<Breakers>> {
        let ssm = aws_sdk_ssm::Client::new(self.protected.standin.aws());
        let name = layout::breaker_parameter(&self.application.parse()?);
        let answer = match ssm.get_parameter().name(name).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = error.into_service_error();
                anyhow::ensure!(error.is_parameter_not_found(), "{error:?}");
                return Ok(None);
            }
        };
        let value = answer.parameter().and_then(|it| it.value());
        Ok(Some(serde_json::from_str(
            value.context("the parameter has no value")?,
        )?))
    }

    /// Returns the group's breaker, or `None` if there is no record of one.
    pub(crate) async fn breaker(&self) -> Result<Option<Breaker>> {
        let breakers = self.breakers().await?;
        Ok(breakers.and_then(|mut it| it.groups.remove(self.application)))
    }

    /// Returns how many times in a row the breaker has tripped, or `None` if it is not open.
    pub(crate) async fn trips(&self) -> Result<Option<u32>> {
        Ok(match self.breaker().await? {
            Some(Breaker::Open { trips, .. }) => Some(trips),
            _ => None,
        })
    }

    /// Moves the trip of the breaker, and the whole history of the group, into the past by a number of minutes.
    pub(crate) async fn backdate(&self, minutes: u32) -> Result<()> {
        self.protected
            .standin
            .backdate(self.application, minutes.into());
        let mut breakers = self
            .breakers()
            .await?
            .context("there is no record of a breaker")?;
        let breaker = breakers.groups.get_mut(self.application);
        let Some(Breaker::Open { tripped_at, .. }) = breaker else {
            anyhow::bail!("{breaker:?} is not open");
        };
        *tripped_at -= time::Duration::minutes(minutes.into());
        let ssm = aws_sdk_ssm::Client::new(self.protected.standin.aws());
        ssm.put_parameter()
            .name(layout::breaker_parameter(&self.application.parse()?))
            .value(serde_json::to_string(&breakers)?)
            .r#type(ParameterType::String)
            .overwrite(true)
            .send()
            .await?;
        Ok(())
    }

    /// Runs one sweep; returns its answer.
    pub(crate) async fn sweep(&self) -> Result<Value> {
        let sweep = json!({"rekindle": "sweep"});
        self.protected.invoke("restore", sweep).await
    }

    /// Waits until the breaker has tripped `trips` times in a row, and the instance that tripped it is gone.
    pub(crate) async fn wait_until_suspended(&self, trips: u32) -> Result<()> {
        let what = format!("the breaker to have tripped {trips} times");
        let suspended = wait_for(&what, WAIT_LIMIT, async || {
            let found = async {
                let group = self.protected.standin.group(self.application);
                let tripped = self.trips().await? == Some(trips) && self.is_suspended().await?;
                anyhow::Ok((tripped && group.is_empty(), group))
            };
            match found.await {
                Ok((true, _)) => Ok(Some(())),
                Ok((false, group)) => Err(format!(
                    "{group:?} {:#?}",
                    self.protected.errors(self.application)
                )),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        self.protected.with_sweeps(suspended).await?;
        self.protected.wait_until_idle().await
    }

    /// Waits for the next node in service; checks that it has the data of the backup and that the breaker is closed.
    pub(crate) async fn assert_restored(&self) -> Result<()> {
        let lost = Some(&*self.node);
        let node = self
            .protected
            .wait_until_in_service(self.application, lost)
            .await?;
        let found = standalone::snapshot(&node).await?;
        assert!(
            found.databases == self.data.databases,
            "the databases differ"
        );
        assert_eq!(found.files, self.data.files);
        let breaker = self.breaker().await?;
        assert!(
            matches!(breaker, Some(Breaker::Closed { .. })),
            "{breaker:?}"
        );
        assert!(!self.is_suspended().await?);
        Ok(())
    }

    /// Returns the log lines with this decision about this application, oldest first.
    pub(crate) fn decisions(&self, decision: &str) -> Vec<LogLine> {
        let lines = self.protected.log(0).into_iter();
        lines
            .filter(|line| line.has_decision(decision) && line.is_about(self.application))
            .collect()
    }
}
