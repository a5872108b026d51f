//! The facts about one group within a snapshot of all.

use shared::aws::autoscaling::{LifecycleState, Member};
use shared::aws::ssm::InvocationStatus;
use shared::command::Purpose;
use time::macros::datetime;

use super::*;
use crate::start::command;

const BACKUP: &str = "20261123T021500.000Z";

fn instance(number: u32) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

fn group(name: &str, tag: &str, members: &[(u32, LifecycleState)]) -> Group {
    let members = members.iter().map(|(number, state)| Member {
        instance_id: instance(*number),
        state: state.clone(),
        healthy: true,
    });
    Group {
        name: name.to_owned(),
        application_tag: Some(tag.to_owned()),
        members: members.collect(),
        retains_on_abandon: false,
        launches_suspended: false,
    }
}

fn snapshot(groups: Vec<Group>) -> Snapshot {
    let command = command(BACKUP.parse().unwrap(), Purpose::Scheduled);
    let record = CommandRecord {
        command_id: "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap(),
        requested_at: datetime!(2026-11-23 02:15:01 UTC),
        parameters: command.parameters(&"0".repeat(64).parse().unwrap(), 60),
        instance_ids: vec![instance(1)],
        status: InvocationStatus::Success,
    };
    Snapshot {
        groups,
        backups: vec![record],
        executing: HashMap::new(),
        pings: HashMap::new(),
    }
}

#[test]
fn two_groups_with_one_application_are_rivals_and_a_malformed_tag_blocks_no_other() {
    let serving = |number| [(number, LifecycleState::InService)];
    let snapshot = snapshot(vec![
        group("a", "dtr", &serving(1)),
        group("b", "dtr", &serving(2)),
        group("c", "gitea", &serving(3)),
        group("d", "Not An Application", &serving(4)),
    ]);
    let read = |at: usize| snapshot.start_facts(&snapshot.groups[at], None);
    assert_eq!(read(0).rivals, ["a", "b"]);
    assert_eq!(read(1).rivals, ["a", "b"]);
    assert!(read(2).rivals.is_empty() && read(2).application.is_ok());
    let problem = read(3).application.unwrap_err();
    assert!(
        problem.contains(r#""d""#) && problem.contains("Not An Application"),
        "{problem}"
    );
    assert_eq!(snapshot.applications().len(), 2);
}

#[test]
fn a_second_delivery_of_a_tick_finds_the_command_of_the_first() {
    let snapshot = snapshot(vec![
        group(
            "a",
            "dtr",
            &[
                (1, LifecycleState::InService),
                (9, LifecycleState::TerminatingWait),
            ],
        ),
        group("b", "gitea", &[(2, LifecycleState::InService)]),
    ]);
    let backup: BackupId = BACKUP.parse().unwrap();
    let other: BackupId = "20261123T023000.000Z".parse().unwrap();
    assert!(
        snapshot
            .start_facts(&snapshot.groups[0], Some(&backup))
            .requested
            .is_some()
    );
    assert_eq!(
        snapshot
            .start_facts(&snapshot.groups[0], Some(&other))
            .requested,
        None
    );
    assert_eq!(
        snapshot
            .start_facts(&snapshot.groups[1], Some(&backup))
            .requested,
        None
    );
    assert_eq!(
        snapshot.start_facts(&snapshot.groups[0], None).in_service,
        [instance(1)]
    );
}
