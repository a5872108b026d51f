//! A context with clients that answer by rules, and the bucket in memory that the rules of S3 read and write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
use aws_sdk_autoscaling::types::{AutoScalingGroup, Instance, TagDescription};
use aws_sdk_s3::error::ErrorMetadata;
use aws_sdk_s3::operation::delete_objects::DeleteObjectsOutput;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::operation::head_object::{HeadObjectError, HeadObjectOutput};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumType, CommonPrefix, Object};
use aws_sdk_ssm::operation::get_parameter::GetParameterError;
use aws_sdk_ssm::operation::list_command_invocations::ListCommandInvocationsOutput;
use aws_sdk_ssm::types::CommandInvocation;
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use proptest::prelude::*;
use shared::aws::ssm::InvocationStatus;
use shared::aws::{Aws, lazy};
use shared::checksum::digests;
use shared::function::context::Context;
use shared::function::env::{Config, Retention};
use shared::report::BackupReport;

/// An object in the bucket, with the type of the checksum that S3 reports of it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) checksum_type: ChecksumType,
}

/// Returns a rule by which SSM reports this status on this instance for every command.
pub(crate) fn invocations(instance: &'static str, status: &'static str) -> Rule {
    mock!(aws_sdk_ssm::Client::list_command_invocations).then_output(move || {
        let invocation = CommandInvocation::builder()
            .instance_id(instance)
            .status(status.into())
            .build();
        ListCommandInvocationsOutput::builder()
            .command_invocations(invocation)
            .build()
    })
}

/// Returns a rule by which SSM has no parameter.
pub(crate) fn no_parameters() -> Rule {
    mock!(aws_sdk_ssm::Client::get_parameter).then_error(|| {
        let code = ErrorMetadata::builder().code("ParameterNotFound").build();
        GetParameterError::generic(code)
    })
}

/// Returns a rule by which Auto Scaling lists one group, `dtr` with the application `dtr`, with this member in this
/// state.
pub(crate) fn group(member: Option<(&'static str, &'static str)>) -> Rule {
    mock!(aws_sdk_autoscaling::Client::describe_auto_scaling_groups).then_output(move || {
        let tag = TagDescription::builder()
            .key("rekindle:application")
            .value("dtr");
        let member = member.map(|(instance, state)| {
            Instance::builder()
                .instance_id(instance)
                .lifecycle_state(state.into())
                .build()
        });
        let group = AutoScalingGroup::builder()
            .auto_scaling_group_name("dtr")
            .tags(tag.build())
            .set_instances(Some(member.into_iter().collect()));
        DescribeAutoScalingGroupsOutput::builder()
            .auto_scaling_groups(group.build())
            .build()
    })
}

/// Returns the report of a small complete backup.
pub(crate) fn backup_report(operation_id: &str, backup_id: &str) -> BackupReport {
    BackupReport {
        operation_id: operation_id.parse().unwrap(),
        backup_id: backup_id.parse().unwrap(),
        run_id: "0a1b2c3d".parse().unwrap(),
        index_sha256: "ab".repeat(32).parse().unwrap(),
        index_size: 1,
        databases: 1,
        tables: 1,
        rows: 1,
        bytes: 1,
        seconds: 1.0,
        peak_memory_kib: 1,
    }
}

/// Returns any status of a command.
pub(crate) fn any_status() -> impl Strategy<Value = InvocationStatus> {
    let words = [
        "Pending",
        "InProgress",
        "Success",
        "Failed",
        "TimedOut",
        "Cancelled",
        "Undeliverable",
        "Delivery Timed Out",
    ];
    prop::sample::select(words.to_vec()).prop_map(InvocationStatus::from)
}

/// The objects of a bucket, by key.
pub(crate) type Objects = BTreeMap<String, Stored>;
pub(crate) type Bucket = Arc<Mutex<Objects>>;

pub(crate) fn put(bucket: &Bucket, key: &str, bytes: &[u8]) {
    let stored = Stored {
        bytes: bytes.to_vec(),
        checksum_type: ChecksumType::FullObject,
    };
    bucket.lock().unwrap().insert(key.to_owned(), stored);
}

pub(crate) fn keys(bucket: &Bucket, prefix: &str) -> Vec<String> {
    bucket
        .lock()
        .unwrap()
        .keys()
        .filter(|key| key.starts_with(prefix))
        .cloned()
        .collect()
}

/// Returns a context with this bucket. SSM answers by these rules only, Auto Scaling by none.
pub(crate) fn context(bucket: &Bucket, ssm: &[&Rule]) -> Context {
    context_with_groups(bucket, ssm, &[])
}

/// Returns a context with this bucket. SSM and Auto Scaling answer by these rules only.
pub(crate) fn context_with_groups(bucket: &Bucket, ssm: &[&Rule], groups: &[&Rule]) -> Context {
    context_with_deletions(bucket, ssm, groups, |_, _| {})
}

/// Returns a context with a bucket that somebody else changes: `meanwhile` runs after each deletion, with the deleted
/// key.
pub(crate) fn context_with_deletions(
    bucket: &Bucket,
    ssm: &[&Rule],
    groups: &[&Rule],
    meanwhile: impl Fn(&mut Objects, &str) + Send + Sync + 'static,
) -> Context {
    let (head, get, put) = rules(bucket);
    let (list, delete) = (list(bucket), delete(bucket, meanwhile));
    let s3 = mock_client!(
        aws_sdk_s3,
        RuleMode::MatchAny,
        [&head, &get, &put, &list, &delete]
    );
    let ssm = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, ssm);
    let autoscaling = mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, groups);
    Context::new(
        Aws {
            autoscaling: lazy(|| autoscaling),
            ssm: lazy(|| ssm),
            s3: lazy(|| s3),
        },
        config(),
    )
}

fn config() -> Config {
    // Any file serves as the agent: it is hashed and published, but never run here.
    let agent = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    Config {
        bucket: "bucket".to_owned(),
        backup_document: "rekindle-backup".to_owned(),
        restore_document: "rekindle-restore".to_owned(),
        agent,
        metric_namespace: "Rekindle".to_owned(),
        retention: Retention::default(),
    }
}

fn rules(bucket: &Bucket) -> (Rule, Rule, Rule) {
    use aws_sdk_s3::Client;
    let code = |code: &str| ErrorMetadata::builder().code(code).build();
    let objects = Arc::clone(bucket);
    let head = mock!(Client::head_object).then_compute_response(move |request| {
        match objects.lock().unwrap().get(request.key().unwrap()) {
            None => MockResponse::Error(HeadObjectError::generic(code("NotFound"))),
            Some(stored) => MockResponse::Output(
                HeadObjectOutput::builder()
                    .e_tag("\"1\"")
                    .content_length(i64::try_from(stored.bytes.len()).unwrap())
                    .checksum_crc64_nvme(digests(&stored.bytes).crc64.as_str())
                    .checksum_type(stored.checksum_type.clone())
                    .build(),
            ),
        }
    });
    let objects = Arc::clone(bucket);
    let get = mock!(Client::get_object).then_compute_response(move |request| {
        match objects.lock().unwrap().get(request.key().unwrap()) {
            None => MockResponse::Error(GetObjectError::generic(code("NoSuchKey"))),
            Some(stored) => {
                let body = ByteStream::from(stored.bytes.clone());
                MockResponse::Output(GetObjectOutput::builder().e_tag("\"1\"").body(body).build())
            }
        }
    });
    let objects = Arc::clone(bucket);
    let put = mock!(Client::put_object).then_compute_response(move |request| {
        assert_eq!(request.if_none_match(), Some("*"));
        let key = request.key().unwrap().to_owned();
        let mut objects = objects.lock().unwrap();
        if objects.contains_key(&key) {
            return MockResponse::Error(PutObjectError::generic(code("PreconditionFailed")));
        }
        let bytes = request.body().bytes().unwrap().to_vec();
        objects.insert(
            key,
            Stored {
                bytes,
                checksum_type: ChecksumType::FullObject,
            },
        );
        MockResponse::Output(PutObjectOutput::builder().e_tag("\"1\"").build())
    });
    (head, get, put)
}

/// Returns a rule that lists as S3 does, on one page.
fn list(bucket: &Bucket) -> Rule {
    let objects = Arc::clone(bucket);
    mock!(aws_sdk_s3::Client::list_objects_v2).then_compute_output(move |request| {
        let (prefix, after) = (request.prefix().unwrap(), request.start_after());
        let long_ago = DateTime::from_secs(0);
        let objects = objects.lock().unwrap();
        let found = objects.keys().filter(|key| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        let mut prefixes = BTreeSet::new();
        let mut keys = Vec::new();
        for key in found {
            match request
                .delimiter()
                .and_then(|it| key[prefix.len()..].find(it))
            {
                Some(end) => drop(prefixes.insert(key[..=prefix.len() + end].to_owned())),
                None => keys.push(Object::builder().key(key).last_modified(long_ago).build()),
            }
        }
        let prefixes = prefixes.into_iter();
        let prefixes = prefixes.map(|prefix| CommonPrefix::builder().prefix(prefix).build());
        ListObjectsV2Output::builder()
            .name("bucket")
            .set_common_prefixes(Some(prefixes.collect()))
            .set_contents(Some(keys))
            .build()
    })
}

fn delete(bucket: &Bucket, meanwhile: impl Fn(&mut Objects, &str) + Send + Sync + 'static) -> Rule {
    let objects = Arc::clone(bucket);
    mock!(aws_sdk_s3::Client::delete_objects).then_compute_output(move |request| {
        let mut objects = objects.lock().unwrap();
        for object in request.delete().unwrap().objects() {
            objects.remove(object.key());
            meanwhile(&mut objects, object.key());
        }
        DeleteObjectsOutput::builder().build()
    })
}
