//! The lifecycle, driven by a clock that only the test moves.

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::query::Query;
use super::*;
use crate::standin::clock::Clock;

struct Story {
    auto_scaling: AutoScaling,
    now: OffsetDateTime,
    events: Vec<Value>,
    discarded: Vec<String>,
}

impl Story {
    /// A group of one with both hooks, of ten minutes each; a terminate hook that nobody answers continues.
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

    /// Lets so many seconds pass, one by one.
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

    /// The states, the oldest instance first.
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

    fn serving() -> (Self, String) {
        let mut story = Self::new(false);
        story.pass(30);
        let id = story.instance(0);
        story.complete("launch", &id, "CONTINUE").unwrap();
        story.pass(10);
        assert_eq!(story.states(), ["InService"]);
        (story, id)
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
    let mut story = Story::new(false);
    story.pass(1);
    assert_eq!(story.states(), ["Pending"]);
    story.pass(29);
    assert_eq!(story.states(), ["Pending:Wait"]);
    let id = story.instance(0);
    let event = &story.events[0];
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
    assert_eq!(story.activities()[0].0, "MidLifecycleAction");
    story.complete("launch", &id, "CONTINUE").unwrap();
    story.pass(1);
    assert_eq!(story.states(), ["Pending:Proceed"]);
    story.pass(5);
    assert_eq!(story.states(), ["InService"]);
    assert_eq!(story.activities()[0].0, "Successful");
}

#[test]
fn a_second_answer_finds_no_active_action() {
    let (story, id) = Story::serving();
    let fault = story.complete("launch", &id, "CONTINUE").unwrap_err();
    assert_eq!(
        (fault.status, fault.code.as_str()),
        (400, "ValidationError")
    );
    assert_eq!(
        fault.message,
        format!("No active Lifecycle Action found with instance ID {id}")
    );
}

#[test]
fn an_abandoned_launch_is_replaced_after_a_back_off() {
    let mut story = Story::new(false);
    story.pass(30);
    let first = story.instance(0);
    story.complete("launch", &first, "ABANDON").unwrap();
    story.pass(1);
    assert_eq!(story.states(), ["Terminating"]);
    story.pass(20);
    assert_eq!(story.states(), ["Terminating:Wait", "Pending"]);
    let (status, description) = &story.activities()[0];
    assert_eq!(*status, "Cancelled");
    assert!(description.contains("ABANDON Result"), "{description}");
    story.complete("end", &first, "CONTINUE").unwrap();
    story.pass(10);
    assert_eq!(story.discarded, [first]);
    assert_eq!(story.states().len(), 1);
}

#[test]
fn an_unanswered_launch_is_abandoned_and_a_heartbeat_puts_that_off() {
    let mut story = Story::new(false);
    story.pass(30);
    let id = story.instance(0);
    story.pass(500);
    let parameters = format!("AutoScalingGroupName=demo&LifecycleHookName=launch&InstanceId={id}");
    story
        .call("RecordLifecycleActionHeartbeat", &parameters)
        .unwrap();
    story.pass(590);
    assert_eq!(story.states(), ["Pending:Wait"]);
    story.pass(20);
    assert!(!story.states().contains(&"Pending:Wait".to_owned()));
    let (status, description) = &story.activities()[0];
    assert_eq!(*status, "Cancelled");
    assert!(description.contains("Heartbeat Timeout"), "{description}");
}

#[test]
fn a_termination_drains_then_waits_while_its_replacement_launches() {
    let (mut story, first) = Story::serving();
    story.terminate(&first);
    story.pass(2);
    assert_eq!(story.states(), ["Terminating", "Pending"]);
    story.pass(30);
    assert_eq!(story.states(), ["Terminating:Wait", "Pending:Wait"]);
    let last = story.events.iter().rev();
    let mut ends =
        last.filter(|event| event["detail-type"] == "EC2 Instance-terminate Lifecycle Action");
    assert_eq!(
        ends.next().unwrap()["detail"]["EC2InstanceId"],
        first.as_str()
    );
    story.pass(610);
    assert_eq!(story.discarded, [first]);
}

#[test]
fn a_dead_instance_is_found_and_replaced() {
    let (mut story, first) = Story::serving();
    story.auto_scaling.lost_power(&first);
    story.pass(16);
    assert_eq!(story.states(), ["Terminating", "Pending"]);
}

#[test]
fn suspended_processes_hold_the_group_still() {
    let (mut story, first) = Story::serving();
    let launch = "AutoScalingGroupName=demo&ScalingProcesses.member.1=Launch";
    story.call("SuspendProcesses", launch).unwrap();
    story.terminate(&first);
    story.pass(60);
    assert_eq!(story.states(), ["Terminating:Wait"]);
    story.call("ResumeProcesses", launch).unwrap();
    story.pass(1);
    assert_eq!(story.states(), ["Terminating:Wait", "Pending"]);
    let fault = story
        .call(
            "SuspendProcesses",
            "AutoScalingGroupName=demo&ScalingProcesses.member.1=Lunch",
        )
        .unwrap_err();
    assert!(fault.message.contains("Lunch"), "{}", fault.message);
}

#[test]
fn an_abandoned_termination_keeps_the_instance_where_the_group_says_so() {
    let mut story = Story::new(true);
    story.pass(30);
    let first = story.instance(0);
    story.complete("launch", &first, "CONTINUE").unwrap();
    story.pass(10);
    story.terminate(&first);
    story.pass(40);
    story.complete("end", &first, "ABANDON").unwrap();
    story.pass(60);
    assert_eq!(story.states()[0], "Terminating:Retained");
    assert!(story.discarded.is_empty());
    story.terminate(&first);
    story.pass(2);
    assert_eq!(story.discarded, [first]);
}

#[test]
fn repeated_abandons_launch_ever_more_slowly() {
    let mut story = Story::new(false);
    let mut launches = Vec::new();
    for _ in 0..3 {
        story.pass(1);
        while !story.states().contains(&"Pending:Wait".to_owned()) {
            story.pass(1);
        }
        launches.push(story.now);
        let instances = story.auto_scaling.instances("demo");
        let waiting = instances
            .iter()
            .find(|one| one.state == Lifecycle::PendingWait);
        story
            .complete("launch", &waiting.unwrap().id, "ABANDON")
            .unwrap();
    }
    assert!(launches[2] - launches[1] > launches[1] - launches[0]);
}

#[test]
fn groups_are_found_by_tag_and_by_name() {
    let story = Story::new(false);
    let tag = "Tags.member.1.ResourceId=demo&Tags.member.1.Key=rekindle:application&Tags.member.1.Value=a%26b";
    story.call("CreateOrUpdateTags", tag).unwrap();
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
        let answer = story.call("DescribeAutoScalingGroups", filter).unwrap();
        assert_eq!(
            answer.contains("<AutoScalingGroupName>demo<"),
            found,
            "{filter}"
        );
    }
    let answer = story.call("DescribeAutoScalingGroups", "").unwrap();
    assert!(answer.contains("<Value>a&amp;b</Value>"), "{answer}");
}

#[test]
fn an_unknown_action_is_named() {
    let story = Story::new(false);
    let fault = story.call("AttachInstances", "").unwrap_err();
    assert_eq!(fault.code, "InvalidAction");
    assert!(Query::parse(b"Action=").text("Action").is_none());
}
