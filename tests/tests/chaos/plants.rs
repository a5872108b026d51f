//! Each check finds what it is there for: breaches that are planted by hand, behind the product's back.

use anyhow::{Context as _, Result};
use rekindle_tests::chaos::lane::{APPLICATION, Lane};
use rekindle_tests::chaos::promises::Promise;
use rekindle_tests::fixtures::protected_groups::WAIT_LIMIT;
use rekindle_tests::fixtures::standalone::StandaloneNode;
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

/// Looks at everything, and expects this promise to be broken, whatever else is.
async fn found(lane: &mut Lane, promise: Promise) -> Result<()> {
    lane.survey().await?;
    expect(lane, promise);
    Ok(())
}

fn expect(lane: &mut Lane, promise: Promise) {
    let broken = std::mem::take(&mut lane.broken);
    assert!(
        broken.iter().any(|one| one.promise == promise),
        "{promise:?} was broken, and found was {broken:?}"
    );
}

fn held(lane: &Lane) {
    assert!(lane.broken.is_empty(), "{:?}", lane.broken);
}

fn storage(lane: &Lane) -> (&S3, &str) {
    (lane.protected.standin.s3(), lane.protected.standin.bucket())
}

fn newest(lane: &Lane) -> Result<Manifest> {
    let backups = lane.protected.backups(APPLICATION)?;
    lane.protected
        .manifest(APPLICATION, backups.last().context("no backup")?)
}

/// Puts a manifest under the id of a backup that is so much newer.
fn put_by_hand(lane: &Lane, manifest: &Manifest, seconds: i64) -> Result<String> {
    let id = BackupId::at(OffsetDateTime::now_utc() + Duration::seconds(seconds));
    let mut manifest = manifest.clone();
    manifest.index.backup_id = id.clone();
    let key = layout::manifest(&APPLICATION.parse()?, &id);
    let (s3, bucket) = storage(lane);
    s3.replace(bucket, &key, &serde_json::to_vec(&manifest)?)?;
    Ok(key)
}

async fn take_back(lane: &mut Lane, key: &str) -> Result<()> {
    let (s3, bucket) = storage(lane);
    s3.remove(bucket, key).await?;
    let id = key.rsplit('/').next().unwrap_or_default();
    lane.record.committed.remove(id.trim_end_matches(".json"));
    lane.survey().await?;
    held(lane);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_backups_is_found() -> Result<()> {
    let mut lane = Lane::open(false).await?;
    held(&lane);
    let genuine = newest(&lane)?;

    // An object is changed behind the back, and a manifest taken away.
    let dump = &genuine.index.databases[1].key;
    let manifest = layout::manifest(&APPLICATION.parse()?, &genuine.index.backup_id);
    for key in [dump, &manifest] {
        let (s3, bucket) = storage(&lane);
        let saved = s3.save(bucket, key)?;
        s3.replace(bucket, key, b"something else")?;
        found(&mut lane, Promise::Unchanged).await?;
        storage(&lane).0.remove(storage(&lane).1, key).await?;
        found(&mut lane, Promise::Unchanged).await?;
        for (path, bytes) in saved {
            std::fs::write(path, bytes)?;
        }
    }
    lane.survey().await?;
    held(&lane);

    // A manifest is put for a backup whose dump is not whole.
    let torn =
        rekindle_tests::fixtures::tampering::forge(&lane.protected, &genuine, |_, parts| {
            let dump = parts.get_mut("postgres/1.dump.zst").context("no dump")?;
            dump.truncate(dump.len() / 2);
            Ok(())
        })?;
    let key = put_by_hand(&lane, &torn, 1)?;
    found(&mut lane, Promise::Complete).await?;
    take_back(&mut lane, &key).await?;

    // An empty node's marker is forged, it is backed up by hand, and a manifest is put for that.
    let standalone = StandaloneNode::boot(&lane.protected, APPLICATION).await?;
    standalone.node.cluster()?.start().await?;
    let genuine_marker = lane.node.root().join("var/lib/rekindle/restored.json");
    let mut marker: Value = serde_json::from_slice(&std::fs::read(genuine_marker)?)?;
    let client = standalone.node.cluster()?.connect("postgres").await?;
    let query = "SELECT system_identifier::text FROM pg_control_system()";
    let identifier: String = client.query_one(query, &[]).await?.get(0);
    marker["instance_id"] = standalone.node.id().into();
    marker["system_identifier"] = identifier.into();
    std::fs::create_dir_all(standalone.marker().parent().context("a path")?)?;
    std::fs::write(standalone.marker(), marker.to_string())?;
    let id = BackupId::at(OffsetDateTime::now_utc());
    let arguments = [
        "backup",
        "--operation-id",
        id.as_str(),
        "--backup-id",
        id.as_str(),
    ];
    let agent = standalone.start(&[&arguments[..], &["--purpose", "scheduled"]].concat())?;
    let answer = rekindle_tests::fixtures::standalone::wait_for_exit(agent).await?;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let (s3, bucket) = storage(&lane);
    let indices = s3.keys(bucket, &format!("backups/{APPLICATION}/{}/{id}/", id.day()))?;
    let index = indices.iter().find(|key| key.ends_with(layout::INDEX));
    let mut empty = genuine.clone();
    empty
        .index_object
        .key
        .clone_from(index.context("no index")?);
    empty.index = serde_json::from_slice(&s3.read(bucket, &empty.index_object.key)?)?;
    let key = put_by_hand(&lane, &empty, 2)?;
    found(&mut lane, Promise::Truth).await?;
    take_back(&mut lane, &key).await?;

    // Somebody asks a service that recovery may not need.
    let address = lane.protected.standin.endpoint().replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(&address).await?;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\nauthorization: \
         AWS4-HMAC-SHA256 Credential=NODE-{APPLICATION}/20261128/eu-central-1/sts/aws4_request, Signature=0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    found(&mut lane, Promise::OwnServices).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_launches_is_found() -> Result<()> {
    let mut lane = Lane::open(false).await?;
    let first = newest(&lane)?;
    lane.write().await?;
    let second = lane.protected.back_up(APPLICATION).await?;
    lane.survey().await?;
    held(&lane);
    let protected = std::sync::Arc::clone(&lane.protected);
    let standin = &protected.standin;
    let (s3, bucket) = (standin.s3(), standin.bucket());

    // An object of the newest backup is changed behind the back, so that an older one is restored.
    let changed = &second.index.databases[1].key;
    let saved = s3.save(bucket, changed)?;
    s3.flip(bucket, changed, saved[0].1.len() as u64 / 2)?;
    let node = protected.replace_lost(&lane.node).await?;
    lane.look_at_arrival(&node).await?;
    expect(&mut lane, Promise::OneInterval);
    for (path, bytes) in saved {
        std::fs::write(path, bytes)?;
    }
    lane.survey().await?;
    held(&lane);

    // A backup of the successor is committed, and then one of its predecessor.
    lane.node = node;
    lane.write().await?;
    protected.back_up(APPLICATION).await?;
    lane.survey().await?;
    held(&lane);
    let key = put_by_hand(&lane, &first, 5)?;
    found(&mut lane, Promise::SameOrLoud).await?;
    s3.remove(bucket, &key).await?;
    let id = key
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".json");
    lane.record.committed.remove(id);

    // A failure about which nobody says a word.
    lane.expect_loudness(protected.log_length(), "something was missing");
    expect(&mut lane, Promise::SameOrLoud);

    // Nobody hears of the next launches, and each is abandoned by hand.
    standin
        .bus()
        .inject_where(|_| true, DeliveryFault::Drop, usize::MAX);
    let before = protected.launches(APPLICATION).await?.len();
    let lost = std::sync::Arc::clone(&lane.node);
    standin.kill_instance(lost.id()).await?;
    standin.bus().clear_faults();
    standin
        .bus()
        .inject_where(|_| true, DeliveryFault::Drop, usize::MAX);
    let client = aws_sdk_autoscaling::Client::new(standin.aws());
    let mut not = lost.id().to_owned();
    for launch in 0..5 {
        let hook = if launch == 0 {
            "rekindle-terminate"
        } else {
            "rekindle-launch"
        };
        let state = match launch {
            0 => Lifecycle::TerminatingWait,
            _ => Lifecycle::PendingWait,
        };
        let instance = wait_for("an instance in its hook", WAIT_LIMIT, async || {
            let group = standin.group(APPLICATION);
            let waiting = group
                .iter()
                .find(|one| one.state == state && (launch < 2 || one.id != not));
            match waiting {
                Some(one) if standin.node(&one.id).is_ok() => Ok(Some(one.id.clone())),
                _ => Err(format!("{group:?}")),
            }
        })
        .await?;
        let result = if launch == 0 { "CONTINUE" } else { "ABANDON" };
        answer(&client, &instance, hook, result).await?;
        if launch > 0 {
            let gone = wait_for("it to leave", WAIT_LIMIT, async || {
                let group = standin.group(APPLICATION);
                if let Some(one) = group.iter().find(|one| one.id == instance) {
                    if one.state == Lifecycle::TerminatingWait {
                        answer(&client, &instance, "rekindle-terminate", "CONTINUE")
                            .await
                            .map_err(|error| format!("{error:#}"))?;
                    }
                    return Err(format!("{group:?}"));
                }
                Ok(Some(()))
            });
            gone.await?;
        }
        not = instance;
    }
    lane.look_at_launches(before).await?;
    expect(&mut lane, Promise::Bounded);

    // And one is let into service as it is.
    let waiting = standin
        .wait_until(APPLICATION, Lifecycle::PendingWait, Some(&not), WAIT_LIMIT)
        .await?;
    answer(&client, waiting.id(), "rekindle-launch", "CONTINUE").await?;
    let node = standin
        .wait_until_in_service(APPLICATION, Some(lost.id()), WAIT_LIMIT)
        .await?;
    lane.look_at_arrival(&node).await?;
    expect(&mut lane, Promise::Restored);
    Ok(())
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
