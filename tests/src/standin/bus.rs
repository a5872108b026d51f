//! Delivers events by the template's rules, as EventBridge does: at least once, best effort. Schedules fire when a test
//! fires them.
//!
//! A test can inject faults with [`Bus::inject`] and [`Bus::inject_where`]: lost, duplicate, late and reordered events.
//! See [`DeliveryFault`].

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::lock::lock;
use crate::standin::autoscaling::envelope;
use crate::standin::clock;
use crate::standin::lambda::Lambda;
use crate::standin::pattern::Pattern;
use crate::standin::template::{Rule, Template};

/// A fault of event delivery. It replaces the normal delivery of an event.
///
/// ```no_run
/// # use rekindle_tests::standin::{StandIn, bus::DeliveryFault};
/// # fn inject(standin: &StandIn) {
/// standin.bus().inject("EC2 Instance-launch Lifecycle Action", DeliveryFault::Drop, 1);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryFault {
    /// The event is lost.
    Drop,
    /// The event is delivered twice.
    Duplicate,
    /// The event is delivered after this time, in real time.
    Delay(Duration),
    /// The event is held until [`Bus::release`], which delivers the held events in reverse order.
    Hold,
}

/// An event that was sent, with its fault and its functions.
#[derive(Debug, Clone)]
pub struct Record {
    /// The time when it was sent.
    pub at: OffsetDateTime,
    /// The event.
    pub event: Value,
    /// The injected fault, if there was one.
    pub fault: Option<DeliveryFault>,
    /// The functions whose rules match the event.
    pub functions: Vec<String>,
}

type Condition = Box<dyn Fn(&Value) -> bool + Send + Sync>;

/// A fault that a test has injected and that has not happened yet.
struct Planned {
    applies: Condition,
    fault: DeliveryFault,
    times: usize,
}

/// The event bus.
pub struct Bus {
    rules: Vec<(String, Pattern)>,
    schedules: Vec<(String, Duration, Option<Value>)>,
    region: String,
    lambda: Mutex<Option<Lambda>>,
    planned: Mutex<Vec<Planned>>,
    held: Mutex<Vec<Value>>,
    records: Mutex<Vec<Record>>,
    ticked: Mutex<Option<OffsetDateTime>>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.rules.len();
        f.debug_struct("Bus")
            .field("rules", &rules)
            .finish_non_exhaustive()
    }
}

impl Bus {
    /// Creates a bus with the rules and schedules of the template's functions. It delivers nothing before [`Bus::connect`].
    pub fn new(template: &Template, region: &str) -> anyhow::Result<Self> {
        let mut rules = Vec::new();
        let mut schedules = Vec::new();
        for function in &template.functions {
            for rule in &function.rules {
                match rule {
                    Rule::Pattern(pattern) => {
                        rules.push((function.name.clone(), Pattern::new(pattern)?));
                    }
                    Rule::Schedule { every, input } => {
                        schedules.push((function.name.clone(), *every, input.clone()));
                    }
                }
            }
        }
        Ok(Self {
            rules,
            schedules,
            region: region.to_owned(),
            lambda: Mutex::default(),
            planned: Mutex::default(),
            held: Mutex::default(),
            records: Mutex::default(),
            ticked: Mutex::default(),
        })
    }

    /// Sets the functions that events are delivered to.
    pub fn connect(&self, lambda: Lambda) {
        *lock(&self.lambda) = Some(lambda);
    }

    /// Injects a fault into the next `times` events of this detail type.
    pub fn inject(&self, detail_type: &str, fault: DeliveryFault, times: usize) {
        let detail_type = detail_type.to_owned();
        self.inject_where(
            move |event| event["detail-type"].as_str() == Some(&detail_type),
            fault,
            times,
        );
    }

    /// Injects a fault into the next `times` events that `applies` selects.
    pub fn inject_where(
        &self,
        applies: impl Fn(&Value) -> bool + Send + Sync + 'static,
        fault: DeliveryFault,
        times: usize,
    ) {
        lock(&self.planned).push(Planned {
            applies: Box::new(applies),
            fault,
            times,
        });
    }

    /// Removes all injected faults that have not happened yet. Held events stay held.
    pub fn clear_faults(&self) {
        lock(&self.planned).clear();
    }

    /// Sends an event to every function whose rules match it.
    pub fn put(self: &Arc<Self>, event: Value) {
        let functions = self.functions_for(&event);
        let fault = self.next_fault(&event);
        lock(&self.records).push(Record {
            at: clock::now(),
            event: event.clone(),
            fault,
            functions: functions.clone(),
        });
        match fault {
            None => self.deliver(&functions, &event),
            Some(DeliveryFault::Drop) => {}
            Some(DeliveryFault::Duplicate) => {
                self.deliver(&functions, &event);
                self.deliver(&functions, &event);
            }
            Some(DeliveryFault::Delay(wait)) => {
                let bus = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    bus.deliver(&functions, &event);
                });
            }
            Some(DeliveryFault::Hold) => lock(&self.held).push(event),
        }
    }

    /// Delivers the held events, newest first.
    pub fn release(&self) {
        let held = std::mem::take(&mut *lock(&self.held));
        for event in held.iter().rev() {
            self.deliver(&self.functions_for(event), event);
        }
    }

    /// Fires the backup tick as of `time`: every schedule without an input.
    pub fn tick(&self, time: OffsetDateTime) {
        let mut event = envelope(
            "aws.events",
            "Scheduled Event",
            &self.region,
            &[format!(
                "arn:aws:events:{}:{}:rule/schedule",
                self.region,
                crate::standin::autoscaling::ACCOUNT
            )],
            &json!({}),
        );
        event["time"] = json!(clock::whole_seconds(time));
        for (function, _, input) in &self.schedules {
            if input.is_none() {
                self.deliver(std::slice::from_ref(function), &event);
            }
        }
    }

    /// Fires the backup tick as of now, but at least one second after the previous tick: two ticks in the same second mean
    /// the same backup.
    pub fn tick_now(&self) {
        let mut ticked = lock(&self.ticked);
        let next = ticked.map(|last| last + time::Duration::SECOND);
        let now = next.map_or_else(clock::now, |next| next.max(clock::now()));
        *ticked = Some(now);
        self.tick(now);
    }

    /// Fires the sweep: every schedule with an input.
    pub fn sweep(&self) {
        for (function, _, input) in &self.schedules {
            if let Some(input) = input {
                self.deliver(std::slice::from_ref(function), input);
            }
        }
    }

    /// Returns the template's intervals of the tick and of the sweep. `None` for a schedule that it does not have.
    pub fn intervals(&self) -> (Option<Duration>, Option<Duration>) {
        let shortest = |with_input: bool| {
            let schedules = self.schedules.iter();
            let matching = schedules.filter(|(_, _, input)| input.is_some() == with_input);
            matching.map(|(_, every, _)| *every).min()
        };
        (shortest(false), shortest(true))
    }

    /// Returns all events that were sent, oldest first.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.records).clone()
    }

    fn functions_for(&self, event: &Value) -> Vec<String> {
        let mut functions: Vec<String> = Vec::new();
        for (function, pattern) in &self.rules {
            if pattern.matches(event) && !functions.contains(function) {
                functions.push(function.clone());
            }
        }
        functions
    }

    fn next_fault(&self, event: &Value) -> Option<DeliveryFault> {
        let mut planned = lock(&self.planned);
        let next = planned
            .iter_mut()
            .find(|planned| planned.times > 0 && (planned.applies)(event))?;
        next.times -= 1;
        Some(next.fault)
    }

    fn deliver(&self, functions: &[String], event: &Value) {
        let lambda = lock(&self.lambda).clone();
        if let Some(lambda) = lambda {
            for function in functions {
                lambda.invoke_async(function, event.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const TEMPLATE: &str = r#"
Resources:
  Watcher:
    Type: AWS::Serverless::Function
    Metadata: {BuildMethod: rust-cargolambda, BuildProperties: {Binary: watcher}}
    Properties:
      Events:
        Often: {Type: Schedule, Properties: {Schedule: rate(15 minutes)}}
        Sweep: {Type: Schedule, Properties: {Schedule: rate(1 minute), Input: '{"rekindle":"sweep"}'}}
        Ended:
          Type: EventBridgeRule
          Properties: {Pattern: {source: [aws.ssm], detail: {status: [Success]}}}
"#;

    fn bus() -> Arc<Bus> {
        let template = Template::parse(TEMPLATE, &BTreeMap::new()).unwrap();
        Arc::new(Bus::new(&template, "eu-central-1").unwrap())
    }

    fn ended(status: &str) -> Value {
        json!({"source": "aws.ssm", "detail-type": "Ended", "detail": {"status": status}})
    }

    #[test]
    fn an_event_is_delivered_to_functions_whose_rules_match() {
        let bus = bus();
        bus.put(ended("Success"));
        bus.put(ended("InProgress"));
        let records = bus.records();
        assert_eq!(records[0].functions, ["Watcher"]);
        assert!(records[1].functions.is_empty());
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        assert_eq!(bus.intervals(), (minutes(15), minutes(1)));
    }

    #[test]
    fn a_fault_happens_as_often_as_injected_to_the_selected_events() {
        let bus = bus();
        bus.inject("Ended", DeliveryFault::Drop, 1);
        bus.inject_where(
            |event| event["detail"]["status"] == "Failed",
            DeliveryFault::Hold,
            1,
        );
        for status in ["Success", "Success", "Failed"] {
            bus.put(ended(status));
        }
        let faults: Vec<_> = bus.records().iter().map(|record| record.fault).collect();
        assert_eq!(
            faults,
            [Some(DeliveryFault::Drop), None, Some(DeliveryFault::Hold)]
        );
        assert_eq!(lock(&bus.held).len(), 1);
        bus.release();
        assert!(lock(&bus.held).is_empty());
    }
}
