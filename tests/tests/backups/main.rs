//! Backups, end to end, with the shipped functions and the shipped agent: when a backup starts, when it is committed or
//! quarantined, and when it is deleted.

mod damage;
mod delivery;
mod disk_use;
mod failures;
mod final_backups;
mod inputs;
mod marker;
mod quarantine;
mod requests;
mod retention;
mod schedule;
mod texts;

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::repository::event;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns the schedule's event with this time.
fn tick(time: OffsetDateTime) -> Result<Value> {
    let mut tick = event("schedule-rule.json")?;
    tick["time"] = time.format(&Rfc3339)?.into();
    Ok(tick)
}

/// Returns the runs of all backups of an application, committed or not, as `<backup id>/<run id>`.
fn runs(
    protected: &ProtectedGroups,
    application: &str,
) -> Result<std::collections::BTreeSet<String>> {
    let standin = &protected.standin;
    let keys = standin
        .s3()
        .keys(standin.bucket(), &format!("backups/{application}/"))?;
    let run = |key: &String| {
        let parts: Vec<&str> = key.split('/').skip(3).take(2).collect();
        parts.join("/")
    };
    Ok(keys.iter().map(run).collect())
}
