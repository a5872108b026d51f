//! The lifecycle, with a time that only the test advances.

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::query::Query;
use super::*;
use crate::standin::clock::Clock;

/// A group, its time, the events that it has sent, and the instances that it has discarded.
struct Scenario {
    auto_scaling: AutoScaling,
    now: OffsetDateTime,
    events: Vec<Value>,
    discarded: Vec<String>,
}

impl Scenario {
    /// Creates a group of one instance with both hooks, of ten minutes each. An unanswered terminate hook continues.
    fn new(retain_on_abandon: bool) -> Self {
        let hook = |name: &str, transition, default_result| Hook {
            name: name.to_owned(),
            transition,
            heartbeat_timeout: 600,
            default_result,
            metadata: None,
        };
        let auto_scaling = AutoScaling::new(Pace::new("eu-central-1", Clock::scaled(1.0)));
        auto_scaling
            .create(GroupSpec {
                name: "demo".to_owned(),
                min: 1,
                max: 1,
                desired: 1,
                tags: Vec::new(),
                hooks: vec![
                    hook("launch", Transition::Launching, HookResult::Abandon),
                    hook("end", Transition::Terminating, HookResult::Continue),
                ],
                retain_on_abandon,
            })
            .unwrap();
        Self {
            auto_scaling,
            now: clock::now(),
            events: Vec::new(),
            discarded: Vec::new(),
        }
    }

    /// Advances the time second by second.
    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += Duration::SECOND;
            for effect in self.auto_scaling.advance(self.now) {
                match effect {
                    Effect::Emit(event) => self.events.push(event),
                    Effect::Discard { instance } => self.discarded.push(instance),
                    Effect::Boot { .. } => {}
                }
            }
        }
    }

    /// Returns the states, oldest instance first.
    fn states(&self) -> Vec<String> {
        let instances = self.auto_scaling.instances("demo").into_iter();
        instances.map(|one| one.state.to_string()).collect()
    }

    fn instance(&self, number: usize) -> String {
        self.auto_scaling.instances("demo")[number].id.clone()
    }

    fn call(&self, action: &str, parameters: &str) -> ApiResult<String> {
        let body = format!("Action={action}&{parameters}");
        let planned = crate::standin::fault::PlannedFaults::default();
        answer(&self.auto_scaling, &planned, body.as_bytes())
    }

    fn complete(&self, hook: &str, instance: &str, result: &str) -> ApiResult<String> {
        let parameters = format!(
            "AutoScalingGroupName=demo&LifecycleHookName={hook}&InstanceId={instance}&LifecycleActionResult={result}"
        );
        self.call("CompleteLifecycleAction", &parameters)
    }

    /// Returns a group whose instance is in service, and the instance.
    fn serving() -> (Self, String) {
        let mut scenario = Self::new(false);
        scenario.pass(30);
        let id = scenario.instance(0);
        scenario.complete("launch", &id, "CONTINUE").unwrap();
        scenario.pass(10);
        assert_eq!(scenario.states(), ["InService"]);
        (scenario, id)
    }

    fn terminate(&self, instance: &str) {
        let parameters = format!("InstanceId={instance}&ShouldDecrementDesiredCapacity=false");
        self.call("TerminateInstanceInAutoScalingGroup", &parameters)
            .unwrap();
    }

    fn activities(&self) -> Vec<(&'static str, String)> {
        let groups = lock(&self.auto_scaling.groups);
        let activities = groups["demo"].activities.iter();
        activities
            .map(|one| (one.status, one.description.clone()))
            .collect()
    }
}

#[test]
fn a_launch_waits_in_its_hook_until_it_is_answered() {
    let mut scenario = Scenario::new(false);
    scenario.pass(1);
    assert_eq!(scenario.states(), ["Pending"]);
    scenario.pass(29);
    assert_eq!(scenario.states(), ["Pending:Wait"]);
    let id = scenario.instance(0);
    let event = &scenario.events[0];
    assert_eq!(event["detail-type"], "EC2 Instance-launch Lifecycle Action");
    assert_eq!(event["detail"]["EC2InstanceId"], id.as_str());
    assert_eq!(
        event["detail"]["LifecycleActionToken"]
            .as_str()
            .unwrap()
            .len(),
        36
    );
    assert_eq!(event["detail"]["Origin"], "EC2");
    assert_eq!(scenario.activities()[0].0, "MidLifecycleAction");
    scenario.complete("launch", &id, "CONTINUE").unwrap();
    scenario.pass(1);
    assert_eq!(scenario.states(), ["Pending:Proceed"]);
    scenario.pass(5);
    assert_eq!(scenario.states(), ["InService"]);
    assert_eq!(scenario.activities()[0].0, "Successful");
}

#[test]
fn a_second_answer_to_a_hook_is_refused() {
    let (scenario, id) = Scenario::serving();
    let error = scenario.complete("launch", &id, "CONTINUE").unwrap_err();
    assert_eq!(
        (error.status, error.code.as_str()),
        (400, "ValidationError")
    );
    assert_eq!(
        error.message,
        format!("No active Lifecycle Action found with instance ID {id}")
    );
}

#[test]
fn an_abandoned_launch_is_replaced_after_a_back_off() {
    let mut scenario = Scenario::new(false);
    scenario.pass(30);
    let first = scenario.instance(0);
    scenario.complete("launch", &first, "ABANDON").unwrap();
    scenario.pass(1);
    assert_eq!(scenario.states(), ["Terminating"]);
    scenario.pass(20);
    assert_eq!(scenario.states(), ["Terminating:Wait", "Pending"]);
    let (status, description) = &scenario.activities()[0];
    assert_eq!(*status, "Cancelled");
    assert!(description.contains("ABANDON Result"), "{description}");
    scenario.complete("end", &first, "CONTINUE").unwrap();
    scenario.pass(10);
    assert_eq!(scenario.discarded, [first]);
    assert_eq!(scenario.states().len(), 1);
}

#[test]
fn an_unanswered_launch_is_abandoned_and_a_heartbeat_delays_that() {
    let mut scenario = Scenario::new(false);
    scenario.pass(30);
    let id = scenario.instance(0);
    scenario.pass(500);
    let parameters = format!("AutoScalingGroupName=demo&LifecycleHookName=launch&InstanceId={id}");
    scenario
        .call("RecordLifecycleActionHeartbeat", &parameters)
        .unwrap();
    scenario.pass(590);
    assert_eq!(scenario.states(), ["Pending:Wait"]);
    scenario.pass(20);
    assert!(!scenario.states().contains(&"Pending:Wait".to_owned()));
    let (status, description) = &scenario.activities()[0];
    assert_eq!(*status, "Cancelled");
    assert!(description.contains("Heartbeat Timeout"), "{description}");
}

#[test]
fn a_termination_drains_then_waits_while_its_replacement_launches() {
    let (mut scenario, first) = Scenario::serving();
    scenario.terminate(&first);
    scenario.pass(2);
    assert_eq!(scenario.states(), ["Terminating", "Pending"]);
    scenario.pass(30);
    assert_eq!(scenario.states(), ["Terminating:Wait", "Pending:Wait"]);
    let last = scenario.events.iter().rev();
    let mut ends =
        last.filter(|event| event["detail-type"] == "EC2 Instance-terminate Lifecycle Action");
    assert_eq!(
        ends.next().unwrap()["detail"]["EC2InstanceId"],
        first.as_str()
    );
    scenario.pass(610);
    assert_eq!(scenario.discarded, [first]);
}

#[test]
fn an_instance_without_power_is_detected_and_replaced() {
    let (mut scenario, first) = Scenario::serving();
    scenario.auto_scaling.lost_power(&first);
    scenario.pass(16);
    assert_eq!(scenario.states(), ["Terminating", "Pending"]);
}

#[test]
fn a_group_with_suspended_launches_does_not_launch() {
    let (mut scenario, first) = Scenario::serving();
    let launch = "AutoScalingGroupName=demo&ScalingProcesses.member.1=Launch";
    scenario.call("SuspendProcesses", launch).unwrap();
    scenario.terminate(&first);
    scenario.pass(60);
    assert_eq!(scenario.states(), ["Terminating:Wait"]);
    scenario.call("ResumeProcesses", launch).unwrap();
    scenario.pass(1);
    assert_eq!(scenario.states(), ["Terminating:Wait", "Pending"]);
    let error = scenario
        .call(
            "SuspendProcesses",
            "AutoScalingGroupName=demo&ScalingProcesses.member.1=Lunch",
        )
        .unwrap_err();
    assert!(error.message.contains("Lunch"), "{}", error.message);
}

#[test]
fn an_abandoned_termination_keeps_the_instance_if_the_group_retains_it() {
    let mut scenario = Scenario::new(true);
    scenario.pass(30);
    let first = scenario.instance(0);
    scenario.complete("launch", &first, "CONTINUE").unwrap();
    scenario.pass(10);
    scenario.terminate(&first);
    scenario.pass(40);
    scenario.complete("end", &first, "ABANDON").unwrap();
    scenario.pass(60);
    assert_eq!(scenario.states()[0], "Terminating:Retained");
    assert!(scenario.discarded.is_empty());
    scenario.terminate(&first);
    scenario.pass(2);
    assert_eq!(scenario.discarded, [first]);
}

#[test]
fn the_wait_between_launches_grows_with_each_abandoned_one() {
    let mut scenario = Scenario::new(false);
    let mut launches = Vec::new();
    for _ in 0..3 {
        scenario.pass(1);
        while !scenario.states().contains(&"Pending:Wait".to_owned()) {
            scenario.pass(1);
        }
        launches.push(scenario.now);
        let instances = scenario.auto_scaling.instances("demo");
        let waiting = instances
            .iter()
            .find(|one| one.state == Lifecycle::PendingWait);
        scenario
            .complete("launch", &waiting.unwrap().id, "ABANDON")
            .unwrap();
    }
    assert!(launches[2] - launches[1] > launches[1] - launches[0]);
}

#[test]
fn groups_are_found_by_tag_and_by_name() {
    let scenario = Scenario::new(false);
    let tag = "Tags.member.1.ResourceId=demo&Tags.member.1.Key=rekindle:application&Tags.member.1.Value=a%26b";
    scenario.call("CreateOrUpdateTags", tag).unwrap();
    for (filter, found) in [
        (
            "Filters.member.1.Name=tag-key&Filters.member.1.Values.member.1=rekindle:application",
            true,
        ),
        (
            "Filters.member.1.Name=tag:rekindle:application&Filters.member.1.Values.member.1=a%26b",
            true,
        ),
        (
            "Filters.member.1.Name=tag:rekindle:application&Filters.member.1.Values.member.1=b",
            false,
        ),
        ("AutoScalingGroupNames.member.1=other", false),
    ] {
        let answer = scenario.call("DescribeAutoScalingGroups", filter).unwrap();
        assert_eq!(
            answer.contains("<AutoScalingGroupName>demo<"),
            found,
            "{filter}"
        );
    }
    let answer = scenario.call("DescribeAutoScalingGroups", "").unwrap();
    assert!(answer.contains("<Value>a&amp;b</Value>"), "{answer}");
}

#[test]
fn an_unknown_action_is_named() {
    let scenario = Scenario::new(false);
    let error = scenario.call("AttachInstances", "").unwrap_err();
    assert_eq!(error.code, "InvalidAction");
    assert!(Query::parse(b"Action=").text("Action").is_none());
}
