//! Which commands a sweep takes for seen through, and what it asks to find out.

use shared::layout;
use time::macros::datetime;

use super::*;
use crate::testing::{Bucket, function, invocations, keys, put};

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);
const BACKUP: &str = "20261123T021500.000Z";
const INSTANCE: &str = "i-04d1c8f7a2b3e6905";

/// Looks at one scheduled backup's command; tells how often SSM was asked, and whether the command needs another look.
async fn look(bucket: &Bucket, status: &'static str) -> (usize, bool) {
    let invocations = invocations(INSTANCE, status);
    let function = function(bucket, &[&invocations]);
    let instance: InstanceId = INSTANCE.parse().unwrap();
    let member = Member {
        instance_id: instance.clone(),
        state: LifecycleState::InService,
        healthy: true,
    };
    let group = Group {
        name: "dtr-group".to_owned(),
        application_tag: Some("dtr".to_owned()),
        members: vec![member],
        retains_on_abandon: false,
        launches_suspended: false,
    };
    let command = BackupCommand {
        operation_id: BACKUP.parse().unwrap(),
        backup_id: BACKUP.parse().unwrap(),
        purpose: Purpose::Scheduled,
    };
    let record = CommandRecord {
        command_id: "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap(),
        requested_at: datetime!(2026-11-23 02:15:01 UTC),
        parameters: command.parameters(&"0".repeat(64).parse().unwrap(), 60),
        instance_ids: vec![instance.clone()],
        status: InvocationStatus::Success,
    };
    let mut failures = Failures::new(&function.config);
    let mut commits = Commits::unlisted(NOW);
    let since = NOW - seconds(budget::SCHEDULE);
    let caught_up = catch_up(
        &function,
        &[group],
        std::slice::from_ref(&record),
        since,
        &mut commits,
        &mut failures,
    )
    .await;
    assert_eq!((caught_up.len(), failures.finish().unwrap()), (0, 0));
    let settled = function.is_settled(&record.command_id, &instance);
    (invocations.num_calls(), settled)
}

fn said() -> String {
    layout::commit(&"dtr".parse().unwrap(), &BACKUP.parse().unwrap())
}

#[tokio::test]
async fn a_backup_that_is_said_to_be_committed_costs_one_listing() {
    let bucket = Bucket::default();
    put(&bucket, &said(), b"");
    assert_eq!(look(&bucket, "Success").await, (0, true));
}

#[tokio::test]
async fn a_commit_that_was_not_said_is_said_and_one_kept_aside_is_not() {
    let shelves = [
        (BackupState::Committed, vec![said()]),
        (BackupState::Quarantined, Vec::new()),
    ];
    for (state, expected) in shelves {
        let bucket = Bucket::default();
        let key = state.manifest(&"dtr".parse().unwrap(), &BACKUP.parse().unwrap());
        put(&bucket, &key, b"{}");
        assert_eq!(look(&bucket, "Success").await, (1, true));
        assert_eq!(keys(&bucket, layout::COMMITS), expected);
    }
}

#[tokio::test]
async fn a_command_that_runs_is_looked_at_again_and_one_that_failed_is_not() {
    for (status, settled) in [("InProgress", false), ("Failed", true)] {
        assert_eq!(look(&Bucket::default(), status).await, (1, settled));
    }
}
