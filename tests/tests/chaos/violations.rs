//! Each check finds its violation: tests cause each violation by hand, without the product.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rekindle_tests::chaos::application::promise::Promise;
use rekindle_tests::chaos::application::{APPLICATION, Application};
use rekindle_tests::fixtures::protected_groups::WAIT_LIMIT;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::StandaloneNode;
use rekindle_tests::fixtures::tampering;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::standin::s3::S3;
use rekindle_tests::wait::wait_for;
use serde_json::Value;
use shared::id::BackupId;
use shared::layout;
use shared::manifest::Manifest;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Runs every check, and expects a violation of this promise, with or without others.
async fn expect_after_checks(app: &mut Application, promise: Promise) -> Result<()> {
    app.check_all().await?;
    expect(app, promise);
    Ok(())
}

fn expect(app: &mut Application, promise: Promise) {
    let violations = std::mem::take(&mut app.violations);
    assert!(
        violations.iter().any(|one| one.promise == promise),
        "no violation of {promise:?} was found, but {violations:?}"
    );
}

async fn expect_none(app: &mut Application) -> Result<()> {
    app.check_all().await?;
    assert!(app.violations.is_empty(), "{:?}", app.violations);
    Ok(())
}

fn storage(app: &Application) -> (&S3, &str) {
    (app.protected.standin.s3(), app.protected.standin.bucket())
}

fn newest(app: &Application) -> Result<Manifest> {
    let backups = app.protected.backups(APPLICATION)?;
    app.protected
        .manifest(APPLICATION, backups.last().context("no backup")?)
}

/// Stores a manifest under a backup id that is this number of seconds in the future, and returns its key.
fn store_manifest(app: &Application, manifest: &Manifest, seconds: i64) -> Result<String> {
    let id = BackupId::at(OffsetDateTime::now_utc() + Duration::seconds(seconds));
    let mut manifest = manifest.clone();
    manifest.index.backup_id = id.clone();
    let key = layout::manifest(&APPLICATION.parse()?, &id);
    let (s3, bucket) = storage(app);
    s3.replace(bucket, &key, &serde_json::to_vec(&manifest)?)?;
    Ok(key)
}

/// Deletes a manifest that was stored by hand, from the bucket and from the record.
async fn delete_manifest(app: &mut Application, key: &str) -> Result<()> {
    let (s3, bucket) = storage(app);
    s3.remove(bucket, key).await?;
    let id = key.rsplit('/').next().unwrap_or_default();
    app.record.committed.remove(id.trim_end_matches(".json"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_by_backups_are_found() -> Result<()> {
    let mut app = Application::open(false).await?;
    expect_none(&mut app).await?;
    let genuine = newest(&app)?;

    // An object is replaced, and a manifest is deleted.
    let dump = &genuine.index.databases[1].key;
    let manifest = layout::manifest(&APPLICATION.parse()?, &genuine.index.backup_id);
    for key in [dump, &manifest] {
        let (s3, bucket) = storage(&app);
        let saved = s3.save(bucket, key)?;
        s3.replace(bucket, key, b"something else")?;
        expect_after_checks(&mut app, Promise::Unchanged).await?;
        storage(&app).0.remove(storage(&app).1, key).await?;
        expect_after_checks(&mut app, Promise::Unchanged).await?;
        for (path, bytes) in saved {
            std::fs::write(path, bytes)?;
        }
    }
    expect_none(&mut app).await?;

    // A manifest commits a backup whose dump is truncated.
    let truncated = tampering::forge(&app.protected, &genuine, |_, parts| {
        let dump = parts.get_mut("postgres/1.dump.zst").context("no dump")?;
        dump.truncate(dump.len() / 2);
        Ok(())
    })?;
    let key = store_manifest(&app, &truncated, 1)?;
    expect_after_checks(&mut app, Promise::Complete).await?;
    delete_manifest(&mut app, &key).await?;
    expect_none(&mut app).await?;

    // A manifest commits a backup of an empty node with a forged marker.
    let empty = backup_of_empty_node(&app, &genuine).await?;
    let key = store_manifest(&app, &empty, 2)?;
    expect_after_checks(&mut app, Promise::OnlyRestoredBackedUp).await?;
    delete_manifest(&mut app, &key).await?;
    expect_none(&mut app).await?;

    call_another_service(&app).await?;
    expect_after_checks(&mut app, Promise::OwnServices).await
}

/// Backs up an empty node with a forged marker, and returns a manifest of that backup.
async fn backup_of_empty_node(app: &Application, genuine: &Manifest) -> Result<Manifest> {
    let standalone = StandaloneNode::boot(&app.protected, APPLICATION).await?;
    standalone.node.cluster()?.start().await?;
    let genuine_marker = app.node.marker();
    let mut marker: Value = serde_json::from_slice(&std::fs::read(genuine_marker)?)?;
    let client = standalone.node.cluster()?.connect("postgres").await?;
    let query = "SELECT system_identifier::text FROM pg_control_system()";
    let identifier: String = client.query_one(query, &[]).await?.get(0);
    marker["instance_id"] = standalone.node.id().into();
    marker["system_identifier"] = identifier.into();
    std::fs::create_dir_all(standalone.node.marker().parent().context("no parent")?)?;
    std::fs::write(standalone.node.marker(), marker.to_string())?;
    let id = BackupId::at(OffsetDateTime::now_utc());
    let arguments = [
        "backup",
        "--operation-id",
        id.as_str(),
        "--backup-id",
        id.as_str(),
    ];
    let agent = standalone.start(&[&arguments[..], &["--purpose", "scheduled"]].concat())?;
    let answer = standalone::wait_for_exit(agent).await?;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let (s3, bucket) = storage(app);
    let keys = s3.keys(bucket, &format!("backups/{APPLICATION}/{}/{id}/", id.day()))?;
    let index = keys.iter().find(|key| key.ends_with(layout::INDEX));
    let mut empty = genuine.clone();
    empty
        .index_object
        .key
        .clone_from(index.context("no index")?);
    empty.index = serde_json::from_slice(&s3.read(bucket, &empty.index_object.key)?)?;
    Ok(empty)
}

/// Calls a service that recovery must not need, with a node's credentials.
async fn call_another_service(app: &Application) -> Result<()> {
    let address = app.protected.standin.endpoint().replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(&address).await?;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\nauthorization: \
         AWS4-HMAC-SHA256 Credential=NODE-{APPLICATION}/20261128/eu-central-1/sts/aws4_request, Signature=0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_by_launches_are_found() -> Result<()> {
    let mut app = Application::open(false).await?;
    let first = newest(&app)?;
    app.write().await?;
    let second = app.protected.back_up(APPLICATION).await?;
    expect_none(&mut app).await?;
    let protected = Arc::clone(&app.protected);
    let standin = &protected.standin;
    let (s3, bucket) = (standin.s3(), standin.bucket());

    // An object of the newest backup is damaged, which the record does not contain. An older backup is restored.
    let damaged = &second.index.databases[1].key;
    let saved = s3.save(bucket, damaged)?;
    s3.flip_middle(bucket, damaged)?;
    let node = protected.replace_lost(&app.node).await?;
    app.check_new_node(&node).await?;
    expect(&mut app, Promise::OneInterval);
    for (path, bytes) in saved {
        std::fs::write(path, bytes)?;
    }
    expect_none(&mut app).await?;

    // A predecessor's backup is committed after its successor's.
    app.node = node;
    app.write().await?;
    protected.back_up(APPLICATION).await?;
    expect_none(&mut app).await?;
    let key = store_manifest(&app, &first, 5)?;
    expect_after_checks(&mut app, Promise::SameOrReported).await?;
    delete_manifest(&mut app, &key).await?;

    // A failure is not reported.
    app.expect_report(protected.log_length(), "something was missing");
    expect(&mut app, Promise::SameOrReported);

    // No function gets the events of the next launches, and each launch is abandoned by hand.
    let before = protected.launches(APPLICATION).await?.len();
    let lost = Arc::clone(&app.node);
    let newest = abandon_launches(&app, lost.id()).await?;
    app.check_launches(before).await?;
    expect(&mut app, Promise::Bounded);

    // The next instance is admitted without a restore.
    let waiting = standin
        .wait_until(
            APPLICATION,
            Lifecycle::PendingWait,
            Some(&newest),
            WAIT_LIMIT,
        )
        .await?;
    let client = aws_sdk_autoscaling::Client::new(standin.aws());
    answer(&client, waiting.id(), LAUNCH, "CONTINUE").await?;
    let node = standin
        .wait_until_in_service(APPLICATION, Some(lost.id()), WAIT_LIMIT)
        .await?;
    app.check_new_node(&node).await?;
    expect(&mut app, Promise::Restored);
    Ok(())
}

const LAUNCH: &str = "rekindle-launch";
const TERMINATE: &str = "rekindle-terminate";

/// Drops every event, terminates an instance, and abandons the next four launches. Returns the last instance.
async fn abandon_launches(app: &Application, lost: &str) -> Result<String> {
    let standin = &app.protected.standin;
    standin
        .bus()
        .inject_where(|_| true, DeliveryFault::Drop, usize::MAX);
    standin.kill_instance(lost).await?;
    let client = aws_sdk_autoscaling::Client::new(standin.aws());
    let terminating = waiting_in(app, Lifecycle::TerminatingWait, None).await?;
    answer(&client, &terminating, TERMINATE, "CONTINUE").await?;
    let mut previous = None;
    for _ in 0..4 {
        let instance = waiting_in(app, Lifecycle::PendingWait, previous.as_deref()).await?;
        answer(&client, &instance, LAUNCH, "ABANDON").await?;
        let gone = wait_for("the instance to leave its group", WAIT_LIMIT, async || {
            let group = standin.group(APPLICATION);
            if let Some(one) = group.iter().find(|one| one.id == instance) {
                if one.state == Lifecycle::TerminatingWait {
                    answer(&client, &instance, TERMINATE, "CONTINUE")
                        .await
                        .map_err(|error| format!("{error:#}"))?;
                }
                return Err(format!("{group:?}"));
            }
            Ok(Some(()))
        });
        gone.await?;
        previous = Some(instance);
    }
    previous.context("no launch was abandoned")
}

/// Waits for another instance than `not` in this state, and returns its id.
async fn waiting_in(app: &Application, state: Lifecycle, not: Option<&str>) -> Result<String> {
    let standin = &app.protected.standin;
    wait_for("an instance in its hook", WAIT_LIMIT, async || {
        let group = standin.group(APPLICATION);
        let waiting = group
            .iter()
            .find(|one| one.state == state && not != Some(one.id.as_str()));
        match waiting {
            Some(one) if standin.node(&one.id).is_ok() => Ok(Some(one.id.clone())),
            _ => Err(format!("{group:?}")),
        }
    })
    .await
}

async fn answer(
    client: &aws_sdk_autoscaling::Client,
    instance: &str,
    hook: &str,
    result: &str,
) -> Result<()> {
    client
        .complete_lifecycle_action()
        .auto_scaling_group_name(APPLICATION)
        .lifecycle_hook_name(hook)
        .instance_id(instance)
        .lifecycle_action_result(result)
        .send()
        .await
        .with_context(|| format!("answer {hook} of {instance}"))?;
    Ok(())
}
