//! What becomes of complete backups, end to end: which may become the newest, which are taken away, and what an
//! operator says to both.

mod in_place;
mod quarantine;
mod retention;

use anyhow::{Context as _, Result};
use rekindle_tests::nodes::protected::Protected;
use rekindle_tests::nodes::spare::Holding;
use serde_json::{Value, json};
use shared::id::BackupId;

/// Hands an operator's request about a backup of an application to the backup function, and returns its answer.
async fn request(
    protected: &Protected,
    request: &str,
    application: &str,
    backup: &BackupId,
) -> Result<Value> {
    let event = json!({"rekindle": request, "application": application, "backup_id": backup});
    let function = protected.function("backup")?;
    Ok(protected.world.invoke(&function, event).await?)
}

/// Returns what an operator sees of the application's newest backup.
async fn newest(protected: &Protected, application: &str) -> Result<Value> {
    let event = json!({"rekindle": "list-backups", "application": application, "limit": 1});
    let function = protected.function("backup")?;
    let answer = protected.world.invoke(&function, event).await?;
    let newest = answer["backups"].get(0);
    newest.cloned().with_context(|| format!("{answer}"))
}

/// Tells whether two nodes hold the same rows and files, and nothing more beside them.
fn is_same(a: &Holding, b: &Holding) -> bool {
    (&a.databases, &a.files, a.beside.len()) == (&b.databases, &b.files, b.beside.len())
}
