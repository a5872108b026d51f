//! Every file in `events/` is an event that the functions handle, and every kind of event has a file.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use serde_json::Value;
    use shared::event::{Event, Location, Request};

    fn events() -> BTreeMap<String, Value> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events");
        let files = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                let name = name
                    .strip_suffix(".json")
                    .unwrap_or_else(|| panic!("{name} is not JSON"))
                    .to_owned();
                (
                    name,
                    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(),
                )
            })
            .collect()
    }

    /// Returns the parsed fields of an event as one text.
    fn summary(event: &Event) -> String {
        match event {
            Event::Tick { scheduled } => format!("tick at {scheduled}"),
            Event::Sweep => "sweep".to_owned(),
            Event::CommandFinished(status) => {
                format!(
                    "{} of {} ended {}",
                    status.document_name, status.instance_id, status.status
                )
            }
            Event::InstanceLaunching(action) | Event::InstanceTerminating(action) => {
                let kind = if matches!(event, Event::InstanceLaunching(_)) {
                    "launching"
                } else {
                    "terminating"
                };
                let location = |location: Option<Location>| {
                    location.map_or_else(String::new, |location| format!("{location:?}"))
                };
                format!(
                    "{kind} {} in {} of {}: {} -> {}{}",
                    action.instance_id,
                    action.lifecycle_hook_name,
                    action.auto_scaling_group_name,
                    location(action.origin),
                    location(action.destination),
                    if action.replaces_root_volume() {
                        ", root volume"
                    } else {
                        ""
                    }
                )
            }
            Event::Request(Request::Sweep) => "a sweep that was not recognised".to_owned(),
            Event::Request(request) => format!("{request:?}"),
        }
    }

    /// The name of each file, and the summary of its event.
    const EXPECTED: &[(&str, &str)] = &[
        (
            "accept-quarantined",
            r#"AcceptQuarantined { application: ApplicationName("dtr"), backup_id: BackupId("20261123T021500.000Z") }"#,
        ),
        (
            "adopt",
            r#"Adopt { application: ApplicationName("dtr"), over_existing_backups: false }"#,
        ),
        (
            "backup-failed",
            "rekindle-backup of i-04d1c8f7a2b3e6905 ended Failed",
        ),
        (
            "backup-now",
            r#"BackupNow { application: ApplicationName("dtr") }"#,
        ),
        (
            "backup-succeeded",
            "rekindle-backup of i-04d1c8f7a2b3e6905 ended Success",
        ),
        (
            "backup-timed-out",
            "rekindle-backup of i-04d1c8f7a2b3e6905 ended TimedOut",
        ),
        (
            "launch",
            "launching i-0b7e4c2a91d3f5068 in rekindle-launch of dtr: Ec2 -> AutoScalingGroup",
        ),
        (
            "launch-from-warm-pool",
            "launching i-0b7e4c2a91d3f5068 in rekindle-launch of dtr: WarmPool -> AutoScalingGroup",
        ),
        (
            "launch-into-warm-pool",
            "launching i-0b7e4c2a91d3f5068 in rekindle-launch of dtr: Ec2 -> WarmPool",
        ),
        (
            "launch-root-volume-replacement",
            "launching i-04d1c8f7a2b3e6905 in rekindle-launch of dtr: AutoScalingGroup -> AutoScalingGroup, root volume",
        ),
        (
            "list-backups",
            r#"ListBackups { application: ApplicationName("dtr"), limit: 5 }"#,
        ),
        (
            "pin",
            r#"Pin { application: ApplicationName("dtr"), backup_id: BackupId("20261123T021500.000Z") }"#,
        ),
        (
            "reject-quarantined",
            r#"RejectQuarantined { application: ApplicationName("dtr"), backup_id: BackupId("20261123T021500.000Z") }"#,
        ),
        (
            "restore-backup",
            r#"RestoreBackup { application: ApplicationName("dtr"), backup_id: Some(BackupId("20261123T021500.000Z")), before: None }"#,
        ),
        (
            "restore-backup-before",
            r#"RestoreBackup { application: ApplicationName("dtr"), backup_id: None, before: Some(2026-11-23 2:00:00.0 +00:00:00) }"#,
        ),
        (
            "restore-failed",
            "rekindle-restore of i-0b7e4c2a91d3f5068 ended Failed",
        ),
        (
            "restore-succeeded",
            "rekindle-restore of i-0b7e4c2a91d3f5068 ended Success",
        ),
        (
            "restore-timed-out",
            "rekindle-restore of i-0b7e4c2a91d3f5068 ended TimedOut",
        ),
        (
            "resume",
            r#"Resume { application: ApplicationName("dtr") }"#,
        ),
        ("schedule-rule", "tick at 2026-11-23 2:15:00.0 +00:00:00"),
        (
            "schedule-scheduler",
            "tick at 2026-11-23 2:15:00.0 +00:00:00",
        ),
        ("sweep", "sweep"),
        (
            "terminate",
            "terminating i-04d1c8f7a2b3e6905 in rekindle-terminate of dtr: AutoScalingGroup -> Ec2",
        ),
        (
            "unpin",
            r#"Unpin { application: ApplicationName("dtr"), backup_id: BackupId("20261123T021500.000Z") }"#,
        ),
    ];

    #[test]
    fn every_event_file_is_parsed_as_the_expected_event() {
        let read: BTreeMap<String, String> = events()
            .into_iter()
            .map(|(name, payload)| {
                let event =
                    Event::parse(payload).unwrap_or_else(|error| panic!("{name}: {error:?}"));
                (name, summary(&event))
            })
            .collect();
        let expected = EXPECTED
            .iter()
            .map(|(name, summary)| ((*name).to_owned(), (*summary).to_owned()))
            .collect();
        assert_eq!(
            read, expected,
            "each file in events/ has one line here, and each line a file"
        );
    }

    #[test]
    fn the_detail_of_a_schedulers_event_is_a_string() {
        assert_eq!(events()["schedule-scheduler"]["detail"], "{}");
    }
}
