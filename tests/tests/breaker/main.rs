//! A failure that repeats does not relaunch for ever: launches stop, are tried again after a while, and go on when the
//! operator says so. Nobody else's suspension is touched.
//!
//! The functions read the wall clock, and their waits are minutes. So no test waits for one: it ages the record by
//! which the functions know when they suspended something.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_sdk_ssm::types::ParameterType;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::standin::fault::ApiError;
use rekindle_tests::wait::wait_for;
use serde_json::{Value, json};
use shared::aws::breaker::{Breaker, Breakers};
use shared::layout;
use shared::manifest::Manifest;

const DAY: f64 = 86_400.0;

/// A group of one application with one backup, and what the backup holds.
struct Scene {
    protected: ProtectedGroups,
    application: &'static str,
    node: Arc<Node>,
    manifest: Manifest,
    holding: DataSnapshot,
}

impl Scene {
    async fn set(application: &'static str) -> Result<Self> {
        let (protected, node) = ProtectedGroups::with_filled_group(application).await?;
        let manifest = protected.back_up(application).await?;
        let holding = standalone::snapshot(&node).await?;
        Ok(Self {
            protected,
            application,
            node,
            manifest,
            holding,
        })
    }

    /// Makes the only manifest unreadable, so that every launch must fail; returns what it was.
    fn spoil(&self) -> Result<Vec<u8>> {
        let manifest = self.read_manifest()?;
        self.put_manifest(b"<html>not a manifest</html>")?;
        Ok(manifest)
    }

    fn read_manifest(&self) -> Result<Vec<u8>> {
        let standin = &self.protected.standin;
        standin.s3().read(standin.bucket(), &self.manifest_key())
    }

    fn put_manifest(&self, bytes: &[u8]) -> Result<()> {
        let standin = &self.protected.standin;
        let bucket = standin.bucket();
        standin.s3().replace(bucket, &self.manifest_key(), bytes)
    }

    fn manifest_key(&self) -> String {
        let index = &self.manifest.index;
        layout::manifest(&index.application, &index.backup_id)
    }

    async fn lose_node(&self) -> Result<()> {
        self.protected.standin.kill_instance(self.node.id()).await
    }

    fn auto_scaling(&self) -> aws_sdk_autoscaling::Client {
        aws_sdk_autoscaling::Client::new(self.protected.standin.aws())
    }

    /// Tells whether the group's launches are suspended, and checks that nothing else is.
    async fn is_suspended(&self) -> Result<bool> {
        let names = self.protected.suspended_processes(self.application).await?;
        assert!(names.iter().all(|it| it == "Launch"), "{names:?}");
        Ok(!names.is_empty())
    }

    /// Counts what the group ever launched, as Auto Scaling tells it.
    async fn launches(&self) -> Result<usize> {
        let client = self.auto_scaling();
        let described = client
            .describe_scaling_activities()
            .auto_scaling_group_name(self.application);
        let described = described.send().await?;
        let words = described.activities().iter().map(|it| it.description());
        let launching = |it: &&str| it.starts_with("Launching");
        Ok(words.flatten().filter(launching).count())
    }

    async fn breakers(&self) -> Result<Option<Breakers>> {
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
        Ok(Some(serde_json::from_str(value.context("no value")?)?))
    }

    async fn breaker(&self) -> Result<Option<Breaker>> {
        let breakers = self.breakers().await?;
        Ok(breakers.and_then(|mut it| it.groups.remove(self.application)))
    }

    /// Returns how often in a row the breaker tripped, where it is open.
    async fn trips(&self) -> Result<Option<u32>> {
        Ok(match self.breaker().await? {
            Some(Breaker::Open { trips, .. }) => Some(trips),
            _ => None,
        })
    }

    /// Lets the breaker have tripped so many minutes earlier, and with it everything before.
    async fn age(&self, minutes: u32) -> Result<()> {
        self.protected
            .standin
            .backdate(self.application, minutes.into());
        let mut breakers = self.breakers().await?.context("no record")?;
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

    /// Sweeps once, and waits until that is done.
    async fn sweep(&self) -> Result<Value> {
        let function = self.protected.function("restore")?;
        let sweep = json!({"rekindle": "sweep"});
        let answer = self.protected.standin.invoke(&function, sweep).await;
        answer.map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Waits until the breaker has tripped so often, and the instance that tripped it is gone.
    async fn stopped(&self, trips: u32) -> Result<()> {
        let what = format!("the breaker to have tripped {trips} times");
        let stopped = wait_for(&what, WAIT_LIMIT, async || {
            let found = async {
                let group = self.protected.standin.group(self.application);
                let tripped = self.trips().await? == Some(trips) && self.is_suspended().await?;
                anyhow::Ok((tripped && group.is_empty(), group))
            };
            match found.await {
                Ok((true, _)) => Ok(Some(())),
                Ok((false, group)) => Err(format!(
                    "{group:?} {:#?}",
                    self.protected.error_lines(self.application)
                )),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        self.protected.with_sweeps(stopped).await?;
        self.protected.wait_until_idle().await
    }

    /// Waits for a node in service that has what the backup holds, and checks that this closed the breaker.
    async fn restored(&self) -> Result<()> {
        let lost = Some(&*self.node);
        let node = self
            .protected
            .wait_until_in_service(self.application, lost)
            .await?;
        let found = standalone::snapshot(&node).await?;
        assert!(
            found.databases == self.holding.databases,
            "the databases differ"
        );
        assert_eq!(found.files, self.holding.files);
        let breaker = self.breaker().await?;
        assert!(
            matches!(breaker, Some(Breaker::Closed { .. })),
            "{breaker:?}"
        );
        assert!(!self.is_suspended().await?);
        Ok(())
    }

    /// Returns the lines of a decision about this application, in order.
    fn decided(&self, decision: &str) -> Vec<Value> {
        let lines = self
            .protected
            .log_lines(0)
            .into_iter()
            .map(|line| line["fields"].clone());
        lines
            .filter(|it| it["decision"] == decision && it["application"] == self.application)
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_only_fail_again_is_launched_once_and_then_when_the_operator_says_so() -> Result<()>
{
    let scene = Scene::set("hopeless").await?;
    let (protected, standin) = (&scene.protected, &scene.protected.standin);
    let manifest = scene.spoil()?;
    scene.lose_node().await?;
    scene.stopped(1).await?;
    protected
        .wait_for_failure("hopeless", "NoReadableManifest")
        .await?;
    assert_eq!(scene.decided("trip-breaker")[0]["failures"], 1);
    let measured =
        |line: &Value| line["LaunchesSuspended"] == 1.0 && line["Application"] == "hopeless";
    assert!(
        protected.log_lines(0).iter().any(measured),
        "the alarm's metric"
    );

    // Neither time, nor sweeps, nor events that come once more, in another order, launch anything.
    let before = scene.breaker().await?;
    for record in standin.bus().records().iter().rev() {
        standin.bus().put(record.event.clone());
        standin.bus().put(record.event.clone());
    }
    protected.wait_until_idle().await?;
    for days in [1.0, 7.0, 40.0] {
        standin.advance_by(days * DAY);
        assert_eq!(scene.sweep().await?, json!([]));
    }
    assert_eq!(scene.launches().await?, 2);
    assert!(scene.is_suspended().await?);
    assert_eq!(scene.breaker().await?, before);

    // Resuming before the cause is remedied comes to one launch more, and to the shortest wait.
    let answer = protected.resume("hopeless").await?;
    assert_eq!(answer["groups"][0]["launches"], "resumed");
    scene.stopped(1).await?;
    assert_eq!(scene.launches().await?, 3);

    scene.put_manifest(&manifest)?;
    let answer = protected.resume("hopeless").await?;
    assert_eq!(answer["groups"][0]["launches"], "resumed");
    let again = protected.resume("hopeless").await?;
    assert_eq!(again["groups"][0]["launches"], "were-not-suspended");
    scene.restored().await?;
    assert_eq!(scene.launches().await?, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_luck_stops_launches_at_the_third_time_and_a_trial_after_the_wait_ends_it() -> Result<()>
{
    let scene = Scene::set("unlucky").await?;
    let standin = &scene.protected.standin;
    standin.s3().deny("GetObject", standin.bucket(), "backups/");
    scene.lose_node().await?;
    scene.stopped(1).await?;
    scene
        .protected
        .wait_for_failure("unlucky", "Download")
        .await?;
    assert_eq!(scene.launches().await?, 4);
    let relaunched = scene.decided("relaunch");
    assert!(
        relaunched.iter().any(|it| it["failures"] == 2),
        "{relaunched:?}"
    );
    let tripped = scene.decided("trip-breaker");
    assert_eq!(
        (&tripped[0]["failures"], &tripped[0]["wait_seconds"]),
        (&json!(3), &json!(900))
    );

    // The first trial comes after 15 minutes, and its failure alone doubles the wait.
    scene.age(14).await?;
    scene.sweep().await?;
    assert_eq!(scene.trips().await?, Some(1));
    scene.age(1).await?;
    scene.sweep().await?;
    scene.stopped(2).await?;
    assert_eq!(scene.launches().await?, 5);
    scene.age(29).await?;
    scene.sweep().await?;
    assert_eq!(scene.trips().await?, Some(2));

    // The cause goes away by itself. Events are lost, too.
    standin.s3().allow_all();
    standin
        .bus()
        .inject_where(|_| true, DeliveryFault::Drop, usize::MAX);
    scene.age(1).await?;
    scene.sweep().await?;
    scene.restored().await?;
    assert_eq!(scene.launches().await?, 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_suspended_stays_suspended() -> Result<()> {
    let scene = Scene::set("maintained").await?;
    let protected = &scene.protected;
    let client = scene.auto_scaling();
    let suspend = client
        .suspend_processes()
        .auto_scaling_group_name("maintained")
        .scaling_processes("Launch");
    suspend.send().await?;
    scene.lose_node().await?;
    let gone = wait_for("the node to be gone", WAIT_LIMIT, async || {
        let group = protected.standin.group("maintained");
        if group.is_empty() {
            Ok(Some(()))
        } else {
            Err(format!("{group:?}"))
        }
    });
    protected.with_sweeps(gone).await?;
    protected.standin.advance_by(DAY);
    scene.sweep().await?;
    let answer = protected.resume("maintained").await?;
    assert_eq!(
        answer["groups"][0]["launches"],
        "suspended-by-somebody-else"
    );
    assert!(scene.is_suspended().await?);
    assert_eq!(scene.breaker().await?, None);
    assert_eq!(scene.launches().await?, 1);

    // The instance that waits when launches are suspended fails for good: that is no suspension of Rekindle's either.
    let manifest = scene.spoil()?;
    protected
        .standin
        .bus()
        .inject_where(|_| true, DeliveryFault::Hold, usize::MAX);
    let resume = client
        .resume_processes()
        .auto_scaling_group_name("maintained")
        .scaling_processes("Launch");
    resume.send().await?;
    let waiting = rekindle_tests::standin::autoscaling::Lifecycle::PendingWait;
    let standin = &protected.standin;
    standin
        .wait_until("maintained", waiting, None, WAIT_LIMIT)
        .await?;
    let suspend = client
        .suspend_processes()
        .auto_scaling_group_name("maintained")
        .scaling_processes("Launch");
    suspend.send().await?;
    standin.bus().clear_faults();
    protected
        .with_sweeps(protected.wait_for_failure("maintained", "NoReadableManifest"))
        .await?;
    assert_eq!(scene.breaker().await?, None);
    scene.put_manifest(&manifest)?;

    let resume = client
        .resume_processes()
        .auto_scaling_group_name("maintained")
        .scaling_processes("Launch");
    resume.send().await?;
    let node = protected
        .wait_until_in_service("maintained", Some(&*scene.node))
        .await?;
    assert!(standalone::snapshot(&node).await?.databases == scene.holding.databases);

    let nobody = protected.resume("nobody").await?;
    assert_eq!(nobody["kind"], "Refused");
    let message = nobody["message"].as_str().unwrap_or_default();
    assert!(message.contains("rekindle:application=nobody"), "{message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_aws_refuses_is_told_and_tried_again_and_leaves_no_hook_to_expire()
-> Result<()> {
    let scene = Scene::set("refused").await?;
    let protected = &scene.protected;
    let faults = protected.standin.faults();
    scene.spoil()?;
    // While it is throttled, nothing is launched: the instance waits. Of passes of four calls, up to three of them at
    // once, one is told at least.
    faults.plan("SuspendProcesses", ApiError::throttled("autoscaling"), 10);
    scene.lose_node().await?;
    scene.stopped(1).await?;
    assert_eq!(scene.launches().await?, 2);
    let throttled = |line: &Value| line["Failures"] == 1 && line["Kind"] == "AwsUnavailable";
    assert!(
        protected.log_lines(0).iter().any(throttled),
        "nobody was told"
    );

    // Where it is denied, waiting changes nothing: the instance is abandoned, loudly, and the next failure tries again.
    let denied = ApiError::with_status(
        403,
        "AccessDenied",
        "User is not authorized to perform this",
    );
    faults.plan("SuspendProcesses", denied, 1);
    protected.resume("refused").await?;
    protected
        .wait_for_failure("refused", "BreakerFailed")
        .await?;
    scene.stopped(2).await?;
    assert_eq!(scene.launches().await?, 4);
    Ok(())
}
