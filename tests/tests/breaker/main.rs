//! The circuit breaker, end to end: when restores keep failing, launches are suspended, tried again after a wait, and
//! resumed when an operator sends `resume`. Rekindle does not touch a suspension of somebody else.
//!
//! The functions read the wall clock, and their waits are minutes long. Instead of waiting, a test backdates the record
//! of the suspension.

mod scenario;

use anyhow::{Context as _, Result};
use insta::assert_snapshot;
use rekindle_tests::fixtures::protected_groups::WAIT_LIMIT;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::redaction::redacted_json;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::standin::fault::ApiError;
use rekindle_tests::standin::lambda::MetricLine;
use serde_json::json;

use scenario::Scenario;

const DAY: f64 = 86_400.0;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_permanent_failure_launches_stay_suspended_until_the_operator_resumes_them()
-> Result<()> {
    let scenario = Scenario::start("hopeless").await?;
    let (protected, standin) = (&scenario.protected, &scenario.protected.standin);
    let manifest = scenario.make_manifest_unreadable()?;
    scenario.kill_node().await?;
    scenario.wait_until_suspended(1).await?;
    protected
        .wait_for_failure("hopeless", "NoReadableManifest")
        .await?;
    assert_eq!(
        scenario.decisions("trip-breaker")[0].number("failures"),
        Some(1.0)
    );
    let has_metric = |line: &MetricLine| {
        line.value("LaunchesSuspended") == Some(1.0) && line.is_about("hopeless")
    };
    let metric = protected.metrics(0).into_iter().find(has_metric);
    let metric = metric.context("the alarm's metric was not written")?;
    assert_snapshot!(redacted_json(&metric.raw), @r#"
    {
      "Application": "hopeless",
      "LaunchesSuspended": 1.0,
      "_aws": {
        "CloudWatchMetrics": [{"Dimensions":[["Application"]],"Metrics":[{"Name":"LaunchesSuspended","Unit":"Count"}],"Namespace":"Rekindle"}],
        "Timestamp": "[Timestamp]"
      }
    }
    "#);
    let record = serde_json::to_value(scenario.breakers().await?)?;
    assert_snapshot!(redacted_json(&record), @r#"
    {"groups":{"hopeless":{"instance_id":"[instance]","state":"open","tripped_at":"[time]","trips":1}},"schema_version":1}
    "#);

    // Neither time, nor sweeps, nor events that are repeated in another order launch an instance.
    let before = scenario.breaker().await?;
    for record in standin.bus().records().iter().rev() {
        standin.bus().put(record.event.clone());
        standin.bus().put(record.event.clone());
    }
    protected.wait_until_idle().await?;
    for days in [1.0, 7.0, 40.0] {
        standin.advance_by(days * DAY);
        assert_eq!(scenario.sweep().await?["handled"], json!([]));
    }
    assert_eq!(scenario.launches().await?, 2);
    assert!(scenario.is_suspended().await?);
    assert_eq!(scenario.breaker().await?, before);

    // If the cause is not fixed, `resume` leads to one more launch, and the breaker trips with the shortest wait.
    let answer = protected.resume("hopeless").await?;
    assert_eq!(answer["groups"][0]["launches"], "resumed");
    scenario.wait_until_suspended(1).await?;
    assert_eq!(scenario.launches().await?, 3);

    scenario.put_manifest(&manifest)?;
    let answer = protected.resume("hopeless").await?;
    assert_eq!(answer["groups"][0]["launches"], "resumed");
    let again = protected.resume("hopeless").await?;
    assert_eq!(again["groups"][0]["launches"], "were-not-suspended");
    scenario.assert_restored().await?;
    assert_eq!(scenario.launches().await?, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_three_transient_failures_launches_are_suspended_until_a_trial_succeeds() -> Result<()>
{
    let scenario = Scenario::start("unlucky").await?;
    let standin = &scenario.protected.standin;
    standin.s3().deny("GetObject", standin.bucket(), "backups/");
    scenario.kill_node().await?;
    scenario.wait_until_suspended(1).await?;
    scenario
        .protected
        .wait_for_failure("unlucky", "Download")
        .await?;
    assert_eq!(scenario.launches().await?, 4);
    let relaunched = scenario.decisions("relaunch");
    assert!(
        relaunched
            .iter()
            .any(|line| line.number("failures") == Some(2.0)),
        "{relaunched:?}"
    );
    let tripped = scenario.decisions("trip-breaker");
    assert_eq!(
        (
            tripped[0].number("failures"),
            tripped[0].number("wait_seconds")
        ),
        (Some(3.0), Some(900.0))
    );

    // The first trial starts after 15 minutes. Its failure alone doubles the wait.
    scenario.backdate(14).await?;
    scenario.sweep().await?;
    assert_eq!(scenario.trips().await?, Some(1));
    scenario.backdate(1).await?;
    scenario.sweep().await?;
    scenario.wait_until_suspended(2).await?;
    assert_eq!(scenario.launches().await?, 5);
    scenario.backdate(29).await?;
    scenario.sweep().await?;
    assert_eq!(scenario.trips().await?, Some(2));

    // The cause disappears without an operator, and every event is lost.
    standin.s3().allow_all();
    standin
        .bus()
        .inject_where(|_| true, DeliveryFault::Drop, usize::MAX);
    scenario.backdate(1).await?;
    scenario.sweep().await?;
    scenario.assert_restored().await?;
    assert_eq!(scenario.launches().await?, 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn launches_that_somebody_else_suspended_stay_suspended() -> Result<()> {
    let scenario = Scenario::start("maintained").await?;
    let protected = &scenario.protected;
    scenario.suspend_launches().await?;
    scenario.kill_node().await?;
    scenario.wait_until_empty().await?;
    protected.standin.advance_by(DAY);
    scenario.sweep().await?;
    let answer = protected.resume("maintained").await?;
    assert_eq!(
        answer["groups"][0]["launches"],
        "suspended-by-somebody-else"
    );
    assert!(scenario.is_suspended().await?);
    assert_eq!(scenario.breaker().await?, None);
    assert_eq!(scenario.launches().await?, 1);

    // An instance waits in its hook when launches are suspended, and its restore fails permanently. Rekindle does not take
    // the suspension over as its own.
    let manifest = scenario.make_manifest_unreadable()?;
    protected
        .standin
        .bus()
        .inject_where(|_| true, DeliveryFault::Hold, usize::MAX);
    scenario.resume_launches().await?;
    let standin = &protected.standin;
    standin
        .wait_until("maintained", Lifecycle::PendingWait, None, WAIT_LIMIT)
        .await?;
    scenario.suspend_launches().await?;
    standin.bus().clear_faults();
    protected
        .with_sweeps(protected.wait_for_failure("maintained", "NoReadableManifest"))
        .await?;
    assert_eq!(scenario.breaker().await?, None);
    scenario.put_manifest(&manifest)?;

    scenario.resume_launches().await?;
    let node = protected
        .wait_until_in_service("maintained", Some(&*scenario.node))
        .await?;
    assert!(standalone::snapshot(&node).await?.databases == scenario.data.databases);

    let unknown = protected.resume("unknown").await?;
    assert_eq!(unknown["kind"], "Refused");
    let message = unknown["reason"].as_str().unwrap_or_default();
    assert!(
        message.contains("rekindle:application=unknown"),
        "{message}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_aws_refuses_is_reported_and_retried_before_the_hook_expires()
-> Result<()> {
    let scenario = Scenario::start("refused").await?;
    let protected = &scenario.protected;
    let faults = protected.standin.faults();
    scenario.make_manifest_unreadable()?;
    // While the call is throttled, the instance waits in its hook and nothing is launched. Up to three passes run at the
    // same time, and each makes up to four calls: with ten throttled calls, at least one pass uses up its four and fails.
    faults.plan("SuspendProcesses", ApiError::throttled("autoscaling"), 10);
    scenario.kill_node().await?;
    scenario.wait_until_suspended(1).await?;
    assert_eq!(scenario.launches().await?, 2);
    let throttled = |line: &MetricLine| line.counts_failure("AwsUnavailable");
    assert!(
        protected.metrics(0).iter().any(throttled),
        "no throttled call was reported"
    );

    // If the call is denied, waiting does not help: the instance is abandoned with an alarm, and the next failure tries to
    // suspend launches again.
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
    scenario.wait_until_suspended(2).await?;
    assert_eq!(scenario.launches().await?, 4);
    Ok(())
}
