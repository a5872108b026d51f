//! A backup is committed if all of its objects are in S3 as reported, and in no other case.

use aws_sdk_s3::types::ChecksumType;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::operation::put_parameter::PutParameterOutput;
use aws_smithy_mocks::{Rule, mock};
use serde_json::{Value, json};
use shared::aws::autoscaling::Group;
use shared::checksum::digests;
use shared::command::{BackupCommand, Purpose};
use shared::id::{CommandId, InstanceId};
use shared::layout;
use shared::manifest::MOST_INDEX_BYTES;
use shared::report::BackupReport;
use time::macros::datetime;

use super::*;
use crate::groups::Node;
use crate::testing::{Bucket, backup_report, context, keys, no_parameters, put};

const NOW: OffsetDateTime = datetime!(2026-11-23 02:16:00 UTC);
const BACKUP: &str = "20261123T021500.000Z";
const MANIFEST: &str = "manifests/dtr/2026-11-23/20261123T021500.000Z.json";
const MARKER: &str = "commits/20261123T021500.000Z/dtr";

/// A complete backup in S3, with its command and its report.
struct Scene {
    bucket: Bucket,
    application: ApplicationName,
    instance: InstanceId,
    command_id: CommandId,
    command: BackupCommand,
    report: BackupReport,
    index: Value,
}

impl Scene {
    fn new(run: &str) -> Self {
        Self::with_bucket(run, Bucket::default())
    }

    fn with_bucket(run: &str, bucket: Bucket) -> Self {
        let prefix = format!("backups/dtr/2026-11-23/{BACKUP}/{run}/");
        let names = [
            layout::GLOBALS,
            layout::CONTENTS,
            layout::CONFIGURATION,
            "postgres/0.dump.zst",
        ];
        let objects: Vec<Value> = names
            .into_iter()
            .map(|name| {
                let (key, bytes) = (format!("{prefix}{name}"), format!("{run} {name}"));
                put(&bucket, &key, bytes.as_bytes());
                let digests = digests(bytes.as_bytes());
                json!({"key": key, "size": digests.size, "sha256": digests.sha256, "crc64": digests.crc64})
            })
            .collect();
        let index = json!({
            "schema_version": 1, "application": "dtr", "backup_id": BACKUP, "run_id": run, "operation_id": BACKUP,
            "purpose": "scheduled",
            "node": {"instance_id": "i-04d1c8f7a2b3e6905", "system_identifier": "7", "lineage": {"kind": "first-boot"}},
            "versions": {"server": 150_018, "pg_dump": "pg_dump 15", "agent": "0.1.0"},
            "started_at": "2026-11-23T02:15:03Z", "finished_at": "2026-11-23T02:15:09Z",
            "databases": [{"name": "dtr", "key": format!("{prefix}postgres/0.dump.zst"), "tables": 2, "rows": 12,
                "dump_bytes": 100, "database_bytes": 1000}],
            "configuration_paths": ["/usr/local/etc/dtr"], "objects": objects, "timings": [],
        });
        let mut scene = Self {
            bucket,
            application: "dtr".parse().unwrap(),
            instance: "i-04d1c8f7a2b3e6905".parse().unwrap(),
            command_id: "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap(),
            command: BackupCommand {
                operation_id: BACKUP.parse().unwrap(),
                backup_id: BACKUP.parse().unwrap(),
                purpose: Purpose::Scheduled,
            },
            report: BackupReport {
                run_id: run.parse().unwrap(),
                ..backup_report(BACKUP, BACKUP)
            },
            index,
        };
        scene.write_index();
        scene
    }

    /// Stores the index, and corrects its checksum and size in the report.
    fn write_index(&mut self) {
        let bytes = serde_json::to_vec(&self.index).unwrap();
        let digests = digests(&bytes);
        (self.report.index_sha256, self.report.index_size) = (digests.sha256, digests.size);
        put(&self.bucket, &self.key(layout::INDEX), &bytes);
    }

    fn key(&self, name: &str) -> String {
        layout::object(
            &self.application,
            &self.report.backup_id,
            &self.report.run_id,
            name,
        )
    }

    async fn commit(&self) -> (Result<Commit>, usize) {
        let parameter = state_parameter();
        let unknown = no_parameters();
        let context = context(&self.bucket, &[&parameter, &unknown]);
        let group = Group {
            name: "dtr-group".to_owned(),
            application_tag: Some("dtr".to_owned()),
            members: vec![],
            retains_on_abandon: false,
            launches_suspended: false,
        };
        let node = Node {
            group: &group,
            application: &self.application,
            instance: &self.instance,
        };
        let backup = CompleteBackup {
            node,
            command_id: &self.command_id,
            command: &self.command,
            report: &self.report,
        };
        (commit(&context, &backup, NOW).await, parameter.num_calls())
    }
}

fn state_parameter() -> Rule {
    mock!(Client::put_parameter)
        .match_requests(|request| {
            request.name() == Some("/rekindle/dtr") && request.overwrite() == Some(false)
        })
        .then_output(|| PutParameterOutput::builder().build())
}

#[tokio::test]
async fn a_complete_backup_is_committed_once_and_again_without_harm() {
    let scene = Scene::new("0a1b2c3d");
    let (commit, states) = scene.commit().await;
    assert_eq!((commit.unwrap(), states), (Commit::New, 1));
    let bytes = scene.bucket.lock().unwrap()[MANIFEST].bytes.clone();
    let manifest = Manifest::parse(&bytes, &scene.application, &BACKUP.parse().unwrap()).unwrap();
    assert_eq!(manifest.committed_at, NOW);
    assert_eq!(manifest.index_object.sha256, scene.report.index_sha256);
    assert_eq!(
        manifest.candidate().to_string(),
        format!("{BACKUP}/0a1b2c3d/{}/-", scene.report.index_sha256)
    );

    // If the process of the first commit ends before it writes the marker, the second one writes it.
    let marker = scene.bucket.lock().unwrap().remove(MARKER);
    assert!(marker.is_some());
    let (commit, states) = scene.commit().await;
    assert_eq!((commit.unwrap(), states), (Commit::Repeated, 1));
    assert_eq!(keys(&scene.bucket, "commits/"), [MARKER]);
    assert_eq!(
        scene.bucket.lock().unwrap()[MANIFEST].bytes,
        bytes,
        "the first manifest stays"
    );
}

#[tokio::test]
async fn a_second_run_does_not_replace_the_committed_one() {
    let first = Scene::new("0a1b2c3d");
    first.commit().await.0.unwrap();
    let second = Scene::with_bucket("99999999", first.bucket.clone());
    let error = second.commit().await.0.unwrap_err();
    assert!(
        error
            .chain()
            .contains("already committed from the run 0a1b2c3d"),
        "{error:?}"
    );
    assert!(!error.retryable());
}

/// Commits a scene with a defect: the error must name it, and no manifest or marker may be written.
async fn refused(scene: Scene, defect: &str) {
    let (commit, states) = scene.commit().await;
    let error = commit.unwrap_err();
    assert!(error.chain().contains(defect), "{defect}: {error:?}");
    assert!(!error.retryable(), "{error:?}");
    assert_eq!(states, 0, "{defect}");
    for prefix in ["manifests/", "commits/"] {
        let written = keys(&scene.bucket, prefix);
        assert_eq!(written, Vec::<String>::new(), "{defect}");
    }
}

#[tokio::test]
async fn a_truncated_missing_or_swapped_object_is_never_committed() {
    let dump = |scene: &Scene| scene.key("postgres/0.dump.zst");

    let scene = Scene::new("0a1b2c3d");
    put(&scene.bucket, &dump(&scene), b"0a1b2c3d postgres");
    refused(scene, "bytes, the index records").await;

    let scene = Scene::new("0a1b2c3d");
    put(
        &scene.bucket,
        &dump(&scene),
        b"0a1b2c3d postgres/1.dump.zst",
    );
    refused(scene, "S3's CRC-64 of it is not").await;

    let scene = Scene::new("0a1b2c3d");
    scene.bucket.lock().unwrap().remove(&dump(&scene));
    refused(scene, "it is not in the bucket").await;

    let scene = Scene::new("0a1b2c3d");
    scene
        .bucket
        .lock()
        .unwrap()
        .get_mut(&dump(&scene))
        .unwrap()
        .checksum_type = ChecksumType::Composite;
    refused(scene, "does not cover the whole object").await;

    let mut scene = Scene::new("0a1b2c3d");
    scene.index["objects"][3]["version_id"] = json!("v1");
    scene.write_index();
    refused(scene, "another version").await;
}

#[tokio::test]
async fn an_index_that_is_not_the_reported_one_is_never_committed() {
    let scene = Scene::new("0a1b2c3d");
    scene
        .bucket
        .lock()
        .unwrap()
        .remove(&scene.key(layout::INDEX));
    refused(scene, "check `bucket` and `application`").await;

    let mut scene = Scene::new("0a1b2c3d");
    scene.report.index_sha256 = "1".repeat(64).parse().unwrap();
    refused(scene, "not the index that the node reported").await;

    let mut scene = Scene::new("0a1b2c3d");
    scene.report.index_size -= 1;
    refused(scene, "more than the").await;

    let mut scene = Scene::new("0a1b2c3d");
    scene.report.index_size = MOST_INDEX_BYTES + 1;
    refused(scene, "are read").await;
}

#[tokio::test]
async fn an_index_of_another_backup_or_node_is_never_committed() {
    let mut scene = Scene::new("0a1b2c3d");
    scene.index["objects"][0]["version_id"] = json!("a,b");
    scene.write_index();
    refused(scene, "impossible version").await;

    let table = [
        ("/application", json!("other"), "it describes other/"),
        (
            "/backup_id",
            json!("20261123T020000.000Z"),
            "it describes dtr/20261123T020000.000Z",
        ),
        (
            "/operation_id",
            json!("20261123T020000.000Z"),
            "its operation is",
        ),
        ("/purpose", json!("final"), "its purpose is final"),
        (
            "/node/instance_id",
            json!("i-0b7e4c2a91d3f5068"),
            "its instance is i-0b7e4c2a91d3f5068",
        ),
        ("/schema_version", json!(2), "newer schema version 2"),
        (
            "/objects/0/key",
            json!("backups/other/x"),
            "outside the backup",
        ),
        (
            "/objects/0/key",
            json!(format!("backups/dtr/2026-11-23/{BACKUP}/0a1b2c3d/../x")),
            "outside the backup",
        ),
        (
            "/objects/0/key",
            json!(format!("backups/dtr/2026-11-23/{BACKUP}/0a1b2c3d/more")),
            "0 times instead of once",
        ),
        ("/databases", json!([]), "is no part of a backup"),
        ("/objects/3/size", json!(0), "is empty"),
    ];
    for (field, value, defect) in table {
        let mut scene = Scene::new("0a1b2c3d");
        *scene.index.pointer_mut(field).unwrap() = value;
        scene.write_index();
        refused(scene, defect).await;
    }
}

/// Commits an older backup of another node. The next backup has to continue it.
async fn after_another_node() -> Scene {
    const OLDER: &str = "20261123T020000.000Z";
    let mut older = Scene::new("99999999");
    older.index["node"]["instance_id"] = json!("i-0b7e4c2a91d3f5068");
    let text = older.index.to_string().replace(BACKUP, OLDER);
    older.index = serde_json::from_str(&text).unwrap();
    older.instance = "i-0b7e4c2a91d3f5068".parse().unwrap();
    (older.command.operation_id, older.command.backup_id) =
        (OLDER.parse().unwrap(), OLDER.parse().unwrap());
    (older.report.operation_id, older.report.backup_id) =
        (OLDER.parse().unwrap(), OLDER.parse().unwrap());
    for key in keys(&older.bucket, "backups/") {
        let bytes = older.bucket.lock().unwrap()[&key].bytes.clone();
        put(&older.bucket, &key.replace(BACKUP, OLDER), &bytes);
    }
    older.write_index();
    assert_eq!(older.commit().await.0.unwrap(), Commit::New);
    Scene::with_bucket("0a1b2c3d", older.bucket.clone())
}

#[tokio::test]
async fn a_backup_that_does_not_continue_the_newest_stays_quarantined_until_it_is_accepted() {
    let scene = after_another_node().await;
    let before = keys(&scene.bucket, "manifests/");
    let (commit, states) = scene.commit().await;
    let Commit::Quarantined(reason) = commit.unwrap() else {
        panic!("it was committed");
    };
    assert_eq!((reason.kind(), states), (Kind::QuarantinedLineage, 0));
    assert_eq!(keys(&scene.bucket, "manifests/"), before);
    let quarantined = keys(&scene.bucket, "quarantine/");
    assert_eq!(quarantined, [MANIFEST.replace("manifests", "quarantine")]);
    assert!(!keys(&scene.bucket, "commits/").contains(&MARKER.to_owned()));
    let bytes = scene.bucket.lock().unwrap()[&quarantined[0]].bytes.clone();
    let manifest = Manifest::parse(&bytes, &scene.application, &BACKUP.parse().unwrap()).unwrap();
    assert_eq!(manifest.quarantined_for, Some(reason.to_string()));

    let (commit, _) = scene.commit().await;
    assert_eq!(commit.unwrap(), Commit::AlreadyQuarantined);
    assert_eq!(keys(&scene.bucket, "manifests/"), before);

    let context = context(&scene.bucket, &[]);
    let backup = BACKUP.parse().unwrap();
    crate::requests::quarantine::accept(&context, &scene.application, &backup)
        .await
        .unwrap();
    assert_eq!(keys(&scene.bucket, "quarantine/"), Vec::<String>::new());
    assert!(keys(&scene.bucket, "commits/").contains(&MARKER.to_owned()));
}

#[tokio::test]
async fn a_replacement_that_lost_most_of_its_rows_is_quarantined() {
    let mut scene = after_another_node().await;
    let restored = json!({"kind": "restored", "backup_id": "20261123T020000.000Z"});
    scene.index["node"]["lineage"] = restored;
    scene.index["databases"][0]["rows"] = json!(5);
    scene.write_index();
    let Commit::Quarantined(reason) = scene.commit().await.0.unwrap() else {
        panic!("it was committed");
    };
    let expected = "it has 5 rows, and 20261123T020000.000Z had 12";
    assert_eq!(
        (reason.kind(), &*reason.to_string()),
        (Kind::QuarantinedLoss, expected)
    );

    scene
        .bucket
        .lock()
        .unwrap()
        .retain(|key, _| !key.starts_with("quarantine/"));
    scene.index["databases"][0]["rows"] = json!(6);
    scene.write_index();
    assert_eq!(scene.commit().await.0.unwrap(), Commit::New);
}
