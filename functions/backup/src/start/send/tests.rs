//! An instance that SSM refuses does not keep the command from the others of its batch.

use std::sync::{Arc, Mutex};

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::ErrorMetadata;
use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
use aws_sdk_ssm::operation::send_command::{SendCommandError, SendCommandOutput};
use aws_sdk_ssm::types::{Command, InstanceInformation, PingStatus};
use aws_smithy_mocks::{MockResponse, Rule, mock};

use super::*;
use crate::start;
use crate::testing::{Bucket, context};

fn instance(number: usize) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

fn targets(count: usize) -> Vec<Target> {
    (1..=count)
        .map(|number| Target {
            application: format!("application-{number}").parse().unwrap(),
            instance: instance(number),
        })
        .collect()
}

/// Returns a rule that refuses every call with one of `bad`, and the sizes of the accepted calls.
fn sending(bad: Vec<InstanceId>, code: &'static str) -> (Rule, Arc<Mutex<Vec<usize>>>) {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let rule = mock!(Client::send_command).then_compute_response(move |request| {
        let asked = request.instance_ids();
        assert!(asked.len() <= MOST_INSTANCES);
        if bad
            .iter()
            .any(|bad| asked.iter().any(|id| id == bad.as_str()))
        {
            return MockResponse::Error(SendCommandError::generic(
                ErrorMetadata::builder().code(code).build(),
            ));
        }
        let mut sizes = seen.lock().unwrap();
        sizes.push(asked.len());
        let id = format!("6d2f0f0e-5d0b-4f0a-9b57-{:012x}", sizes.len());
        let command = Command::builder().command_id(id).build();
        MockResponse::Output(SendCommandOutput::builder().command(command).build())
    });
    (rule, sizes)
}

/// Returns a rule by which every agent is online except those of `unregistered`.
fn pings(unregistered: Vec<InstanceId>) -> Rule {
    mock!(Client::describe_instance_information).then_compute_output(move |request| {
        let asked = request.filters()[0].values().iter();
        let known = asked.filter(|id| !unregistered.iter().any(|bad| bad.as_str() == *id));
        let known = known.map(|id| {
            InstanceInformation::builder()
                .instance_id(id)
                .ping_status(PingStatus::Online)
                .build()
        });
        DescribeInstanceInformationOutput::builder()
            .set_instance_information_list(Some(known.collect()))
            .build()
    })
}

/// Requests a backup from all instances. Returns those that received the command, and the number of failures.
async fn started(rules: &[&Rule], count: usize) -> (Vec<InstanceId>, Result<usize>) {
    let context = context(&Bucket::default(), rules);
    let mut failures = Failures::new(&context);
    let backup = "20261123T021500.000Z".parse().unwrap();
    let command = start::command(backup, Purpose::Scheduled);
    let started = to_all(&context, &command, &targets(count), &mut failures).await;
    let mut instances: Vec<InstanceId> = started
        .into_iter()
        .map(|started| started.instance_id)
        .collect();
    instances.sort();
    (instances, failures.finish())
}

fn all_but(count: usize, bad: &[InstanceId]) -> Vec<InstanceId> {
    (1..=count)
        .map(instance)
        .filter(|instance| !bad.contains(instance))
        .collect()
}

#[tokio::test]
async fn instances_are_commanded_in_batches_of_fifty() {
    let (send, sizes) = sending(vec![], "");
    let (instances, failures) = started(&[&send], 120).await;
    assert_eq!((instances, failures.unwrap()), (all_but(120, &[]), 0));
    let mut sizes = sizes.lock().unwrap().clone();
    sizes.sort_unstable();
    assert_eq!(sizes, [20, 50, 50]);
}

#[tokio::test]
async fn an_unregistered_instance_is_found_by_its_ping() {
    let bad = vec![instance(7)];
    let (send, sizes) = sending(bad.clone(), "InvalidInstanceId");
    let (instances, failures) = started(&[&send, &pings(bad.clone())], 50).await;
    assert_eq!((instances, failures.unwrap()), (all_but(50, &bad), 1));
    assert_eq!(*sizes.lock().unwrap(), [49], "one more call was enough");
}

#[tokio::test]
async fn an_instance_that_is_refused_for_another_reason_is_found_by_halving() {
    let bad = vec![instance(7), instance(31)];
    let (send, _) = sending(bad.clone(), "InvalidInstanceId");
    let (instances, failures) = started(&[&send, &pings(vec![])], 50).await;
    assert_eq!((instances, failures.unwrap()), (all_but(50, &bad), 2));
}

#[tokio::test]
async fn an_overload_makes_lambda_retry_and_does_not_affect_other_batches() {
    let bad = vec![instance(60)];
    let (send, _) = sending(bad, "InternalServerError");
    let (instances, failures) = started(&[&send], 100).await;
    assert_eq!(instances, all_but(50, &[]));
    assert!(failures.unwrap_err().retryable());
}
