//! Backups that are damaged behind everybody's back, and nodes that lack what a backup needs.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aws_sdk_ssm::operation::delete_parameter::DeleteParameterError;
use serde_json::Value;
use shared::id::BackupId;
use shared::layout;
use time::OffsetDateTime;

use super::catalogue::Deed;
use super::dice::Dice;
use super::lane::Lane;
use super::tap::object;
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::fixtures::registry::MAIN_DATABASE;
use crate::fixtures::tampering;

/// How a fault is taken back.
pub enum Undo {
    /// Files of the bucket become what they were.
    PutBack(Vec<(PathBuf, Vec<u8>)>),
    /// The directory of the tablespace is there, and empty; its owner is the one of this id, in this group.
    GiveTablespace(PathBuf, u32, u32),
}

impl Undo {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::PutBack(files) => {
                for (path, bytes) in files {
                    std::fs::write(&path, bytes)
                        .with_context(|| format!("write {}", path.display()))?;
                }
                Ok(())
            }
            Self::GiveTablespace(path, owner, group) => {
                std::fs::remove_file(&path).ok();
                give(&path, owner, group)
            }
        }
    }
}

/// Makes an empty directory that belongs to this user and group.
fn give(path: &std::path::Path, owner: u32, group: u32) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    std::os::unix::fs::chown(path, Some(owner), Some(group))
        .context("give the tablespace to Postgres")
}

/// Returns the user and the group that every node's server runs as.
fn owner_of_cluster(lane: &Lane) -> Result<(u32, u32)> {
    let socket = lane.node.cluster()?.socket_directory();
    let owner = socket.metadata().context("whose is the cluster")?;
    Ok((owner.uid(), owner.gid()))
}

/// Returns the key of an object of a backup.
fn key_of(lane: &Lane, id: &str, kind: &str) -> Result<String> {
    let committed = lane.record.committed.get(id);
    let objects = &committed.context("no such backup")?.objects;
    let found = objects.keys().find(|key| object(key) == kind);
    Ok(found
        .with_context(|| format!("{id} has no {kind}"))?
        .clone())
}

/// Damages one object of the newest backup that is good; returns whose object is not what it was, and the way back.
pub(super) fn damage(lane: &Lane, deed: Deed, dice: &mut Dice) -> Result<(Vec<String>, Undo)> {
    let standin = &lane.protected.standin;
    let (s3, bucket) = (standin.s3(), standin.bucket());
    let good = lane.record.committed.keys().rev();
    let mut good = good.filter(|id| !lane.record.spoilt.contains(*id));
    let newest = good.next().context("there is no backup")?.clone();
    let (mut saved, mut spoilt) = (Vec::new(), Vec::new());
    let mut save = |key: &str| -> Result<u64> {
        let path = s3.path(bucket, key)?;
        let bytes = std::fs::read(&path)?;
        let length = bytes.len() as u64;
        saved.push((path, bytes));
        Ok(length)
    };
    match deed {
        Deed::Truncate(kind) => {
            let key = key_of(lane, &newest, kind)?;
            let length = save(&key)?;
            s3.truncate(bucket, &key, length * dice.below(100) as u64 / 100)?;
        }
        Deed::Flip(kind) => {
            let key = key_of(lane, &newest, kind)?;
            save(&key)?;
            let (path, mut bytes) = saved[0].clone();
            let bit = dice.below(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(path, bytes)?;
        }
        Deed::Swap(kind) => {
            let older = good.next().context("there is one backup only")?.clone();
            let (one, other) = (key_of(lane, &newest, kind)?, key_of(lane, &older, kind)?);
            save(&one)?;
            save(&other)?;
            s3.swap(bucket, &one, &other)?;
            spoilt.push(older);
        }
        _ => {}
    }
    spoilt.push(newest);
    Ok((spoilt, Undo::PutBack(saved)))
}

/// Takes a backup whose globals do not know a role any more that its dumps do.
pub(super) async fn back_up_without_a_role(lane: &mut Lane, dice: &mut Dice) -> Result<()> {
    let rename = "psql -X -q -d template1 -c 'ALTER ROLE notary RENAME TO somebody'";
    lane.gates.before("pg_dumpall", rename)?;
    Box::pin(lane.back_up(None, dice)).await?;
    lane.gates.open()?;
    let client = lane.node.cluster()?.connect(MAIN_DATABASE).await?;
    client
        .batch_execute("ALTER ROLE somebody RENAME TO notary")
        .await
        .context("was the role renamed")?;
    // Whatever comes later, this one cannot be restored.
    let newest = lane.record.committed.keys().next_back();
    lane.record.spoilt.extend(newest.cloned());
    Ok(())
}

/// Puts copies of the newest backup, as if they had been taken long ago, more than are kept whatever their age.
pub(super) fn put_old_backups(lane: &mut Lane) -> Result<()> {
    let protected = std::sync::Arc::clone(&lane.protected);
    let newest = protected.backups(&lane.application)?;
    let genuine = protected.manifest(&lane.application, newest.last().context("no backup")?)?;
    for days in 100..112 {
        let id = BackupId::at(OffsetDateTime::now_utc() - time::Duration::days(days));
        tampering::copy_as(&protected, &genuine, &id)?;
        lane.record.expendable.insert(id.to_string());
    }
    Ok(())
}

fn tablespace(lane: &Lane) -> PathBuf {
    lane.protected.standin.directory().join("tablespace")
}

/// Puts a table into a tablespace, and takes a backup.
pub(super) async fn create_tablespace(lane: &mut Lane, dice: &mut Dice) -> Result<()> {
    let path = tablespace(lane);
    let (owner, group) = owner_of_cluster(lane)?;
    give(&path, owner, group)?;
    let client = lane.node.cluster()?.connect(MAIN_DATABASE).await?;
    let create = format!("CREATE TABLESPACE fast LOCATION '{}'", path.display());
    client
        .batch_execute(&create)
        .await
        .context("create a tablespace")?;
    let table =
        "CREATE TABLE public.quick TABLESPACE fast AS SELECT i FROM generate_series(1, 100) i";
    client.batch_execute(table).await.context("fill it")?;
    drop(client);
    Box::pin(lane.back_up(None, dice)).await?;
    // The directory cannot be two nodes' one after the other without being emptied in between.
    lane.spent = true;
    Ok(())
}

/// Lets the next node that starts its Postgres have no directory for the tablespace.
pub(super) fn take_tablespace(lane: &Lane) -> Result<Undo> {
    let path = tablespace(lane);
    let take = format!("rm -rf '{0}'; : > '{0}'", path.display());
    lane.gates.before("start-postgres", &take)?;
    // By the time that it is taken back, this node is gone.
    let (owner, group) = owner_of_cluster(lane)?;
    Ok(Undo::GiveTablespace(path, owner, group))
}

/// Lets nothing be remembered of the breaker, which an earlier fault may have closed: what fails from now on is made to
/// have happened earlier than it did, and what failed before the breaker was closed does not count.
pub(super) async fn forget_breaker(lane: &Lane) -> Result<()> {
    let name = layout::breaker_parameter(&lane.application.parse()?);
    let ssm = aws_sdk_ssm::Client::new(lane.protected.standin.aws());
    match ssm.delete_parameter().name(name).send().await {
        Err(error)
            if !error
                .as_service_error()
                .is_some_and(DeleteParameterError::is_parameter_not_found) =>
        {
            Err(error).context("forget the breaker")
        }
        _ => Ok(()),
    }
}

/// Lets the newest backup need an extension that no node has: its description says so, and every hash fits.
pub(super) fn need_extension(lane: &Lane) -> Result<Undo> {
    let protected: &ProtectedGroups = &lane.protected;
    let newest = protected.backups(&lane.application)?;
    let newest = newest.last().context("there is no backup")?;
    let genuine = protected.manifest(&lane.application, newest)?;
    let key = layout::manifest(&lane.application.parse()?, newest);
    let saved = protected
        .standin
        .s3()
        .save(protected.standin.bucket(), &key)?;
    let forged = tampering::forge(protected, &genuine, |_, parts| {
        let part = parts.get_mut(layout::CONTENTS).context("no contents")?;
        tampering::edit_contents(part, |contents: &mut Value| {
            let extension = serde_json::json!([{"name": "no_such_extension", "version": "1.0", "schema": "public"}]);
            contents["databases"][0]["properties"]["extensions"] = extension;
        })
    })?;
    tampering::commit(protected, &forged)?;
    Ok(Undo::PutBack(saved))
}
