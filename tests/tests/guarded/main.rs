//! What becomes of complete backups, end to end: which may become the newest, which are taken away, and what an
//! operator says to both.

mod in_place;
mod quarantine;
mod retention;

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use serde_json::{Value, json};
use shared::id::BackupId;

/// Hands an operator's request about a backup of an application to the backup function, and returns its answer.
async fn request(
    protected: &ProtectedGroups,
    request: &str,
    application: &str,
    backup: &BackupId,
) -> Result<Value> {
    let event = json!({"rekindle": request, "application": application, "backup_id": backup});
    let function = protected.function("backup")?;
    Ok(protected.standin.invoke(&function, event).await?)
}

/// Returns what an operator sees of the application's newest backup.
async fn newest(protected: &ProtectedGroups, application: &str) -> Result<Value> {
    let event = json!({"rekindle": "list-backups", "application": application, "limit": 1});
    let function = protected.function("backup")?;
    let answer = protected.standin.invoke(&function, event).await?;
    let newest = answer["backups"].get(0);
    newest.cloned().with_context(|| format!("{answer}"))
}

/// Tells whether two nodes hold the same rows and files, and nothing more beside them.
fn is_same(a: &DataSnapshot, b: &DataSnapshot) -> bool {
    (&a.databases, &a.files, a.beside.len()) == (&b.databases, &b.files, b.beside.len())
}
