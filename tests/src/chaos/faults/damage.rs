//! Faults that damage stored backups, and nodes that lack something that a backup needs.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aws_sdk_ssm::operation::delete_parameter::DeleteParameterError;
use serde_json::Value;
use shared::id::BackupId;
use shared::layout;
use time::OffsetDateTime;

use super::fault::Action;
use crate::chaos::application::Application;
use crate::chaos::application::choices::Choices;
use crate::chaos::application::interceptor::object;
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::fixtures::registry::MAIN_DATABASE;
use crate::fixtures::tampering;

/// How a fault is undone.
pub enum Undo {
    /// Restore files of the bucket.
    RestoreFiles(Vec<(PathBuf, Vec<u8>)>),
    /// Create the empty directory of the tablespace, with this owner and group.
    CreateTablespaceDirectory(PathBuf, u32, u32),
}

impl Undo {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::RestoreFiles(files) => {
                for (path, bytes) in files {
                    std::fs::write(&path, bytes)
                        .with_context(|| format!("write {}", path.display()))?;
                }
                Ok(())
            }
            Self::CreateTablespaceDirectory(path, owner, group) => {
                std::fs::remove_file(&path).ok();
                create_directory(&path, owner, group)
            }
        }
    }
}

/// Creates a directory with this owner and group.
fn create_directory(path: &std::path::Path, owner: u32, group: u32) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    std::os::unix::fs::chown(path, Some(owner), Some(group))
        .context("change the owner of the tablespace's directory")
}

/// Returns the user id and group id of every node's server.
fn owner_of_cluster(app: &Application) -> Result<(u32, u32)> {
    let socket = app.node.cluster()?.socket_directory();
    let owner = socket.metadata().context("read the owner of the cluster")?;
    Ok((owner.uid(), owner.gid()))
}

/// Returns the key of an object of a backup.
fn key_of(app: &Application, id: &str, kind: &str) -> Result<String> {
    let committed = app.record.committed.get(id);
    let objects = &committed.context("no such backup")?.objects;
    let found = objects.keys().find(|key| object(key) == kind);
    Ok(found
        .with_context(|| format!("{id} has no {kind}"))?
        .clone())
}

/// Damages one object of the newest good backup. Returns the damaged backups, and how to undo the damage.
pub(super) fn damage(
    app: &Application,
    action: Action,
    choices: &mut Choices,
) -> Result<(Vec<String>, Undo)> {
    let standin = &app.protected.standin;
    let (s3, bucket) = (standin.s3(), standin.bucket());
    let good = app.record.committed.keys().rev();
    let mut good = good.filter(|id| !app.record.unrestorable.contains(*id));
    let newest = good.next().context("there is no backup")?.clone();
    let (mut saved, mut unrestorable) = (Vec::new(), Vec::new());
    let mut save = |key: &str| -> Result<u64> {
        let path = s3.path(bucket, key)?;
        let bytes = std::fs::read(&path)?;
        let length = bytes.len() as u64;
        saved.push((path, bytes));
        Ok(length)
    };
    match action {
        Action::Truncate(kind) => {
            let key = key_of(app, &newest, kind)?;
            let length = save(&key)?;
            s3.truncate(bucket, &key, length * choices.below(100) as u64 / 100)?;
        }
        Action::Flip(kind) => {
            let key = key_of(app, &newest, kind)?;
            save(&key)?;
            let (path, mut bytes) = saved[0].clone();
            choices.flip(&mut bytes);
            std::fs::write(path, bytes)?;
        }
        Action::Swap(kind) => {
            let older = good.next().context("there is only one backup")?.clone();
            let (one, other) = (key_of(app, &newest, kind)?, key_of(app, &older, kind)?);
            save(&one)?;
            save(&other)?;
            s3.swap(bucket, &one, &other)?;
            unrestorable.push(older);
        }
        _ => {}
    }
    unrestorable.push(newest);
    Ok((unrestorable, Undo::RestoreFiles(saved)))
}

/// Takes a backup whose globals lack a role that its dumps need.
pub(super) async fn back_up_without_a_role(
    app: &mut Application,
    choices: &mut Choices,
) -> Result<()> {
    let rename = "psql -X -q -d template1 -c 'ALTER ROLE notary RENAME TO somebody'";
    app.gates.before("pg_dumpall", rename)?;
    Box::pin(app.back_up(None, choices)).await?;
    app.gates.open()?;
    let client = app.node.cluster()?.connect(MAIN_DATABASE).await?;
    client
        .batch_execute("ALTER ROLE somebody RENAME TO notary")
        .await
        .context("rename the role back")?;
    // This backup can never be restored.
    let newest = app.record.committed.keys().next_back();
    app.record.unrestorable.extend(newest.cloned());
    Ok(())
}

/// Stores copies of the newest backup as old backups: more than retention keeps regardless of age.
pub(super) fn store_old_backups(app: &mut Application) -> Result<()> {
    let protected = std::sync::Arc::clone(&app.protected);
    let newest = protected.backups(&app.name)?;
    let genuine = protected.manifest(&app.name, newest.last().context("no backup")?)?;
    for days in 100..112 {
        let id = BackupId::at(OffsetDateTime::now_utc() - time::Duration::days(days));
        tampering::copy_as(&protected, &genuine, &id)?;
        app.record.expendable.insert(id.to_string());
    }
    Ok(())
}

fn tablespace(app: &Application) -> PathBuf {
    app.protected.standin.directory().join("tablespace")
}

/// Creates a table in a tablespace, and takes a backup.
pub(super) async fn create_tablespace(app: &mut Application, choices: &mut Choices) -> Result<()> {
    let path = tablespace(app);
    let (owner, group) = owner_of_cluster(app)?;
    create_directory(&path, owner, group)?;
    let client = app.node.cluster()?.connect(MAIN_DATABASE).await?;
    let create = format!("CREATE TABLESPACE fast LOCATION '{}'", path.display());
    client
        .batch_execute(&create)
        .await
        .context("create a tablespace")?;
    let table =
        "CREATE TABLE public.quick TABLESPACE fast AS SELECT i FROM generate_series(1, 100) i";
    client.batch_execute(table).await.context("fill it")?;
    drop(client);
    Box::pin(app.back_up(None, choices)).await?;
    // Two nodes cannot use the directory one after the other unless it is emptied in between.
    app.spent = true;
    Ok(())
}

/// Removes the tablespace's directory before the next start of a node's Postgres.
pub(super) fn remove_tablespace(app: &Application) -> Result<Undo> {
    let path = tablespace(app);
    let remove = format!("rm -rf '{0}'; : > '{0}'", path.display());
    app.gates.before("start-postgres", &remove)?;
    // Read now: this node is gone when the fault is undone.
    let (owner, group) = owner_of_cluster(app)?;
    Ok(Undo::CreateTablespaceDirectory(path, owner, group))
}

/// Deletes the breaker's record. An earlier fault may have closed the breaker, and failures before that time do not count:
/// this fault moves the launches' times into the past.
pub(super) async fn delete_breaker_record(app: &Application) -> Result<()> {
    let name = layout::breaker_parameter(&app.name.parse()?);
    let ssm = aws_sdk_ssm::Client::new(app.protected.standin.aws());
    match ssm.delete_parameter().name(name).send().await {
        Err(error)
            if !error
                .as_service_error()
                .is_some_and(DeleteParameterError::is_parameter_not_found) =>
        {
            Err(error).context("delete the breaker's record")
        }
        _ => Ok(()),
    }
}

/// Makes the newest backup need an extension that no node has. Every hash is updated to match.
pub(super) fn require_extension(app: &Application) -> Result<Undo> {
    let protected: &ProtectedGroups = &app.protected;
    let newest = protected.backups(&app.name)?;
    let newest = newest.last().context("there is no backup")?;
    let genuine = protected.manifest(&app.name, newest)?;
    let key = layout::manifest(&app.name.parse()?, newest);
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
    Ok(Undo::RestoreFiles(saved))
}
