//! Which applications a tick measures, and for which it writes a missing state.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::operation::put_parameter::PutParameterOutput;
use aws_smithy_mocks::mock;
use shared::layout;
use time::macros::datetime;

use super::*;
use crate::testing::{Bucket, context, no_parameters, put};

const BACKUP: &str = "20261123T021500.000Z";

#[tokio::test]
async fn every_application_with_a_backup_is_measured_and_has_its_state() {
    const NOW: OffsetDateTime = datetime!(2026-11-23 02:30:01 UTC);
    let bucket = Bucket::default();
    let names = ["marked", "unmarked", "long-ago", "none"]
        .map(|name| name.parse::<ApplicationName>().unwrap());
    let [marked, unmarked, long_ago, none] = &names;
    let backup: BackupId = BACKUP.parse().unwrap();
    put(&bucket, &layout::commit(marked, &backup), b"");
    put(&bucket, &layout::manifest(unmarked, &backup), b"{}");
    let old = BackupId::at(NOW - time::Duration::days(40));
    put(&bucket, &layout::manifest(long_ago, &old), b"{}");
    let unknown = no_parameters();
    let written =
        mock!(Client::put_parameter).then_output(|| PutParameterOutput::builder().build());
    let context = context(&bucket, &[&unknown, &written]);
    let (mut failures, mut markers) = (Failures::new(&context), CommitMarkers::unlisted(NOW));
    let applications: HashSet<ApplicationName> = names.clone().into();
    measure_all(&context, &applications, &mut markers, NOW, &mut failures).await;
    assert_eq!(failures.finish().unwrap(), 0);
    assert_eq!(markers.newest(marked), Some(&backup));
    // The state is written for every application with a backup.
    for application in [marked, unmarked, long_ago] {
        assert!(
            context.applications_with_state.contains(application),
            "{application}"
        );
    }
    assert!(!context.applications_with_state.contains(none));
    assert_eq!(written.num_calls(), 3);
}
