//! The calls that reconciling a command costs, and the commands that need no further one.

use shared::aws::autoscaling::{LifecycleState, Member};
use shared::layout;
use time::macros::datetime;

use super::*;
use crate::testing::{Bucket, context, invocations, keys, put};

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);
const BACKUP: &str = "20261123T021500.000Z";
const INSTANCE: &str = "i-04d1c8f7a2b3e6905";

/// Reconciles one scheduled backup's command. Returns the number of calls to SSM, and whether the command is handled.
async fn calls(bucket: &Bucket, status: &'static str) -> (usize, bool) {
    let invocations = invocations(INSTANCE, status);
    let context = context(bucket, &[&invocations]);
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
    let mut failures = Failures::new(&context);
    let mut markers = CommitMarkers::unlisted(NOW);
    let since = NOW - seconds(budget::SCHEDULE);
    let sent = SentCommands {
        groups: &[group],
        records: std::slice::from_ref(&record),
        since,
    };
    let results = reconcile(&context, sent, &mut markers, &mut failures).await;
    assert_eq!((results.len(), failures.finish().unwrap()), (0, 0));
    let key = (record.command_id, instance);
    let handled = context.handled_commands.contains(&key);
    (invocations.num_calls(), handled)
}

fn marker() -> String {
    layout::commit(&"dtr".parse().unwrap(), &BACKUP.parse().unwrap())
}

#[tokio::test]
async fn a_backup_with_a_marker_costs_one_listing() {
    let bucket = Bucket::default();
    put(&bucket, &marker(), b"");
    assert_eq!(calls(&bucket, "Success").await, (0, true));
}

#[tokio::test]
async fn a_missing_marker_is_written_for_a_committed_backup_only() {
    let states = [
        (BackupState::Committed, vec![marker()]),
        (BackupState::Quarantined, Vec::new()),
    ];
    for (state, expected) in states {
        let bucket = Bucket::default();
        let key = state.manifest(&"dtr".parse().unwrap(), &BACKUP.parse().unwrap());
        put(&bucket, &key, b"{}");
        assert_eq!(calls(&bucket, "Success").await, (1, true));
        assert_eq!(keys(&bucket, layout::COMMITS), expected);
    }
}

#[tokio::test]
async fn a_running_command_is_checked_again_and_a_failed_one_is_not() {
    for (status, handled) in [("InProgress", false), ("Failed", true)] {
        assert_eq!(calls(&Bucket::default(), status).await, (1, handled));
    }
}
