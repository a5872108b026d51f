//! S3: the listing of one application's manifests, and the manifests.

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CommonPrefix, Object};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use serde_json::json;
use shared::layout;

use super::{COMMAND, Given, OLD_INSTANCE};

fn manifest_of(backup: &str) -> String {
    let prefix = format!("backups/dtr/2026-11-23/{backup}/0a1b2c3d");
    let object = json!({"key": format!("{prefix}/index.json"), "size": 1, "sha256": "ab".repeat(32),
        "crc64": "AAAAAAAAAAA=", "version_id": "v1"});
    let node = json!({"instance_id": OLD_INSTANCE, "system_identifier": "1", "lineage": {"kind": "first-boot"}});
    let index = json!({"schema_version": 1, "application": "dtr", "backup_id": backup, "run_id": "0a1b2c3d",
        "operation_id": backup, "purpose": "scheduled", "node": node,
        "versions": {"server": 150_018, "pg_dump": "pg_dump", "agent": "0.1.0"},
        "started_at": "2026-11-23T02:15:00Z", "finished_at": "2026-11-23T02:15:09Z", "databases": [],
        "configuration_paths": [], "objects": [], "timings": []});
    json!({"schema_version": 1, "committed_at": "2026-11-23T02:15:10Z", "command_id": COMMAND,
        "index_object": object, "index": index})
    .to_string()
}

/// Returns the client of this S3.
pub(super) fn client(given: &Given) -> Client {
    let backups = given.backups;
    let refusal = match (given.listing_denied, given.listing_slow) {
        (true, _) => Some((403, "AccessDenied")),
        (_, true) => Some((503, "SlowDown")),
        _ => None,
    };
    let list = if let Some((status, code)) = refusal {
        let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        mock!(Client::list_objects_v2)
            .sequence()
            .http_status(status, Some(body))
            .repeatedly()
            .build()
    } else {
        mock!(Client::list_objects_v2).then_compute_output(move |request| {
            let days = CommonPrefix::builder().prefix("manifests/dtr/2026-11-23/");
            let of_days =
                (request.delimiter().is_some() && !backups.is_empty()).then(|| days.build());
            let keys = backups.iter().filter(|_| request.delimiter().is_none());
            let objects = keys.map(|id| {
                let key = format!("manifests/dtr/2026-11-23/{id}.json");
                Object::builder().key(key).build()
            });
            ListObjectsV2Output::builder()
                .name("bucket")
                .set_common_prefixes(of_days.map(|days| vec![days]))
                .set_contents(Some(objects.collect()))
                .build()
        })
    };
    let get = mock!(Client::get_object).then_compute_output(|request| {
        let backup = layout::backup_of_manifest(request.key().unwrap()).unwrap();
        let manifest = ByteStream::from(manifest_of(backup.as_str()).into_bytes());
        GetObjectOutput::builder()
            .e_tag("\"1\"")
            .body(manifest)
            .build()
    });
    let head = mock!(Client::head_object)
        .then_output(|| HeadObjectOutput::builder().e_tag("\"1\"").build());
    let put =
        mock!(Client::put_object).then_output(|| PutObjectOutput::builder().e_tag("\"1\"").build());
    mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&list, &get, &head, &put])
}
