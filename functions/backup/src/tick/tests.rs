//! What a tick reads out of AWS' answers about one group.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::ErrorMetadata;
use aws_sdk_ssm::operation::get_parameter::GetParameterError;
use aws_sdk_ssm::operation::put_parameter::PutParameterOutput;
use aws_smithy_mocks::mock;
use shared::aws::autoscaling::Member;
use shared::aws::ssm::InvocationStatus;
use shared::layout;
use time::macros::datetime;

use super::*;
use crate::testing::{Bucket, function, put};

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

fn facts(groups: Vec<Group>) -> Facts {
    let command = command(BACKUP.parse().unwrap(), Purpose::Scheduled).unwrap();
    let record = CommandRecord {
        command_id: "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap(),
        requested_at: datetime!(2026-11-23 02:15:01 UTC),
        parameters: command.parameters(&"0".repeat(64).parse().unwrap(), 60),
        instance_ids: vec![instance(1)],
        status: InvocationStatus::Success,
    };
    Facts {
        groups,
        backups: vec![record],
        executing: HashMap::new(),
        pings: HashMap::new(),
    }
}

#[test]
fn two_groups_with_one_application_are_rivals_and_a_malformed_tag_blocks_no_other() {
    let serving = |number| [(number, LifecycleState::InService)];
    let facts = facts(vec![
        group("a", "dtr", &serving(1)),
        group("b", "dtr", &serving(2)),
        group("c", "gitea", &serving(3)),
        group("d", "Not A Application", &serving(4)),
    ]);
    let read = |at: usize| facts.of_group(&facts.groups[at], None);
    assert_eq!(read(0).rivals, ["a", "b"]);
    assert_eq!(read(1).rivals, ["a", "b"]);
    assert!(read(2).rivals.is_empty() && read(2).application.is_ok());
    let problem = read(3).application.unwrap_err();
    assert!(
        problem.contains(r#""d""#) && problem.contains("Not A Application"),
        "{problem}"
    );
    assert_eq!(facts.applications().len(), 2);
}

#[test]
fn a_second_delivery_of_a_tick_finds_the_first_ones_command() {
    let facts = facts(vec![
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
        facts
            .of_group(&facts.groups[0], Some(&backup))
            .requested
            .is_some()
    );
    assert_eq!(
        facts.of_group(&facts.groups[0], Some(&other)).requested,
        None
    );
    assert_eq!(
        facts.of_group(&facts.groups[1], Some(&backup)).requested,
        None
    );
    assert_eq!(
        facts.of_group(&facts.groups[0], None).in_service,
        [instance(1)]
    );
}

#[tokio::test]
async fn a_application_is_looked_after_whether_its_backups_are_said_or_only_there() {
    const NOW: OffsetDateTime = datetime!(2026-11-23 02:30:01 UTC);
    let bucket = Bucket::default();
    let names =
        ["said", "unsaid", "long-ago", "none"].map(|name| name.parse::<ApplicationName>().unwrap());
    let [said, unsaid, long_ago, none] = &names;
    let backup: BackupId = BACKUP.parse().unwrap();
    put(&bucket, &layout::commit(said, &backup), b"");
    put(&bucket, &layout::manifest(unsaid, &backup), b"{}");
    let old = BackupId::at(NOW - time::Duration::days(40));
    put(&bucket, &layout::manifest(long_ago, &old), b"{}");
    let unknown = mock!(Client::get_parameter).then_error(|| {
        let code = ErrorMetadata::builder().code("ParameterNotFound").build();
        GetParameterError::generic(code)
    });
    let written =
        mock!(Client::put_parameter).then_output(|| PutParameterOutput::builder().build());
    let function = function(&bucket, &[&unknown, &written]);
    let (mut failures, mut commits) = (Failures::new(&function.config), Commits::unlisted(NOW));
    let applications: HashSet<ApplicationName> = names.clone().into();
    look_after_all(&function, &applications, &mut commits, NOW, &mut failures).await;
    assert_eq!(failures.finish().unwrap(), 0);
    assert_eq!(commits.newest(said), Some(&backup));
    // The state is written of whoever has a backup.
    for application in [said, unsaid, long_ago] {
        assert!(function.has_state(application), "{application}");
    }
    assert!(!function.has_state(none));
    assert_eq!(written.num_calls(), 3);
}
