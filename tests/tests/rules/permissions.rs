//! A compromised node cannot delete or overwrite backups.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, Delete, ExpirationStatus,
    LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, ObjectIdentifier,
    VersioningConfiguration,
};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use serde_json::Value;
use shared::{budget, layout};

use super::template;

/// Checks that S3 refused a request with this error code.
fn assert_refused<T, E: ProvideErrorMetadata>(answer: Result<T, E>, expected: &str, what: &str) {
    let code = answer.err().map(|error| error.code().map(str::to_owned));
    assert_eq!(code, Some(Some(expected.to_owned())), "{what}");
}

/// Tries, as the node, to delete and to overwrite an object; checks that S3 refuses each request.
async fn attack(node: &Client, bucket: &str, key: &str, version: &str) {
    const DENIED: &str = "AccessDenied";
    let delete = node.delete_object().bucket(bucket).key(key);
    assert_refused(delete.clone().send().await, DENIED, key);
    assert_refused(delete.version_id(version).send().await, DENIED, key);
    let put = || {
        let put = node.put_object().bucket(bucket).key(key);
        put.body(ByteStream::from_static(b"nothing"))
    };
    assert_refused(put().send().await, DENIED, key);
    // Below its own prefix, a node may create an object, but only once.
    let expected = if key.starts_with("backups/modest/") {
        "PreconditionFailed"
    } else {
        DENIED
    };
    assert_refused(put().if_none_match("*").send().await, expected, key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_can_delete_nothing_and_overwrite_nothing() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let (standin, bucket) = (&protected.standin, protected.standin.bucket());
    let (node, _neighbour) = tokio::try_join!(
        protected.create_filled("modest"),
        protected.create_empty("neighbour")
    )?;
    standin.tick();
    protected.wait_for_backup("modest", 0).await?;
    protected.wait_for_backup("neighbour", 0).await?;
    // The commit marker is written after the manifest.
    protected.wait_until_idle().await?;
    let objects = || -> Result<BTreeMap<String, Vec<u8>>> {
        let keys = standin.s3().keys(bucket, "")?.into_iter();
        keys.map(|key| Ok((key.clone(), standin.s3().read(bucket, &key)?)))
            .collect()
    };
    let before = objects()?;
    for prefix in [
        "backups/modest/",
        "backups/neighbour/",
        "manifests/",
        "agent/",
    ] {
        assert!(before.keys().any(|key| key.starts_with(prefix)), "{prefix}");
    }

    let (node, owner) = (Client::new(&node.aws()), Client::new(standin.aws()));
    for key in before.keys() {
        let head = owner.head_object().bucket(bucket).key(key).send().await?;
        let version = head.version_id().context("the object has no version")?;
        attack(&node, bucket, key, version).await;
    }
    let everything: Result<Vec<ObjectIdentifier>, _> = before
        .keys()
        .map(|key| ObjectIdentifier::builder().key(key).build())
        .collect();
    let everything = Delete::builder().set_objects(Some(everything?)).build()?;
    let delete = node.delete_objects().bucket(bucket).delete(everything);
    let answer = delete.send().await?;
    assert!(answer.deleted().is_empty(), "{:?}", answer.deleted());
    let refused = answer.errors().iter();
    let refused: Vec<_> = refused.map(|error| (error.key(), error.code())).collect();
    let every_key = before
        .keys()
        .map(|key| (Some(&**key), Some("AccessDenied")));
    assert_eq!(refused, every_key.collect::<Vec<_>>());
    let expire = LifecycleRule::builder()
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .expiration(LifecycleExpiration::builder().days(1).build())
        .build()?;
    let expire = BucketLifecycleConfiguration::builder()
        .rules(expire)
        .build()?;
    let expired = node
        .put_bucket_lifecycle_configuration()
        .bucket(bucket)
        .lifecycle_configuration(expire);
    assert_refused(expired.send().await, "AccessDenied", "a lifecycle");
    let suspend = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Suspended)
        .build();
    let suspended = node
        .put_bucket_versioning()
        .bucket(bucket)
        .versioning_configuration(suspend);
    assert_refused(suspended.send().await, "AccessDenied", "versioning");
    let gone = node.delete_bucket().bucket(bucket).send().await;
    assert_refused(gone, "AccessDenied", "DeleteBucket");
    assert!(objects()? == before, "an object has changed");

    // With the same role, the node is still backed up.
    protected.back_up("modest").await?;
    Ok(())
}

#[test]
fn the_template_allows_a_node_to_delete_nothing_and_nobody_to_delete_a_version() -> Result<()> {
    let template = template("modest", "backups")?;
    let mut seen = 0;
    for (name, resource) in &template.resources {
        let policies = resource["Properties"]["Policies"].as_array();
        for policy in policies.into_iter().flatten() {
            let statements = policy["PolicyDocument"]["Statement"].as_array();
            for statement in statements.context("a policy without statements")? {
                let text = statement.to_string();
                // For retention, the backup function may delete objects; they remain as noncurrent versions.
                let by_function = name == "BackupRole" && statement["Action"] == "s3:DeleteObject";
                let deletes = (text.contains("s3:Delete") && !by_function) || text.contains("s3:*");
                let widens = text.contains("s3:PutBucket") || text.contains("s3:PutLifecycle");
                assert!(!deletes && !widens, "{name}: {text}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} statements were checked");

    let bucket = &template.resources["BackupBucket"];
    assert_eq!(bucket["DeletionPolicy"], "Retain");
    let properties = &bucket["Properties"];
    assert_eq!(properties["VersioningConfiguration"]["Status"], "Enabled");
    let rules = properties["LifecycleConfiguration"]["Rules"].as_array();
    // Commit markers may expire, because no restore needs them, but not before the last tick that reads them.
    let rules = rules.context("the bucket has no lifecycle rules")?;
    let (of_commits, others): (Vec<&Value>, Vec<&Value>) = rules
        .iter()
        .partition(|rule| rule["Prefix"] == layout::COMMITS);
    let days = of_commits.first().map(|rule| &rule["ExpirationInDays"]);
    let days = days
        .and_then(Value::as_u64)
        .context("commit markers do not expire")?;
    assert!(days * 86_400 > u64::from(budget::COMMIT_WINDOW + budget::BACKUP_EVENT_AGE));
    for rule in others {
        for expiry in ["Expiration", "ExpirationInDays", "ExpirationDate"] {
            assert_eq!(rule[expiry], Value::Null, "{rule}");
        }
    }
    Ok(())
}
