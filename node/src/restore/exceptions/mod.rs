//! The policy for statements that the server refuses while a database is restored.
//!
//! 1. The rows of every table, large objects and the values of sequences must all be there. If the server refuses rows,
//!    the database is loaded once more without the checks of these tables (`restore::database`). If rows are still
//!    missing, the backup is not restored.
//! 2. Everything else is restored as `pg_restore` does without `--exit-on-error`. A refused statement is tried again when
//!    everything else is there, then in the mildest way that keeps the object. If the server still refuses a part of it,
//!    that part is an exception. The node that was backed up served in that state, so the replacement may, too.
//! 3. If the server or its node is the cause, such as a full disk or a restarted server, nothing is an exception: the
//!    restore fails and is tried again.
//!
//! An older backup is never restored because of a refused statement: it would lose rows, and probably be refused as well.

mod record;
mod repairs;

use shared::exit_code::ExitCode;
use shared::report::exceptions::Exception;

use self::repairs::{Milder, Repair};
use crate::agent::failure::{Failure, Result};
use crate::context::Context;
use crate::postgres::attempt::{self, Refusal};
use crate::postgres::session::restore_options;
use crate::restore::load::{self, RefusedEntries};
use crate::settings::Tablespaces;

pub(super) use self::record::{store, stored};

/// The kinds of entries with large objects. Their number is not verified, so none may be refused.
const LARGE_OBJECTS: [&str; 4] = ["BLOB", "BLOBS", "BLOB METADATA", "LARGE OBJECT"];

/// A database that is being restored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Database<'a> {
    /// Its name until the swap.
    pub(super) temporary: &'a str,
    /// Its own name.
    pub(super) own: &'a str,
    pub(super) server_version: u32,
}

/// Tries again what the server refused. Returns an exception for everything that the database lacks afterwards, except
/// for rows, which the caller verifies.
///
/// # Errors
///
/// [`ExitCode::Restore`] if the server refuses data, or if the server or its node is the cause of a refusal.
pub(super) async fn repair(
    context: &Context,
    database: Database<'_>,
    refused: &RefusedEntries,
) -> Result<Vec<Exception>> {
    let is_large_object = |kind: &str| LARGE_OBJECTS.contains(&kind);
    if refused
        .entries
        .iter()
        .any(|entry| is_large_object(&entry.kind))
    {
        let message = format!(
            "cannot restore the large objects of the database {:?}: {}; repair them in the source, or free what the \
             server lacks",
            database.own,
            refused.failure.chain()
        );
        return Err(Failure::new(ExitCode::Restore, message));
    }
    let keeps_tablespaces = context.settings.postgres.tablespaces == Tablespaces::Fail;
    let entries = refused.entries.iter();
    let repairs: Vec<Repair> = entries
        .flat_map(|entry| Repair::all_of(entry, keeps_tablespaces))
        .collect();
    let statements = repairs.iter().map(|repair| repair.statements.as_str());
    let refusals = try_again(context, database, statements).await?;

    let mut exceptions = Vec::new();
    let mut milder: Vec<(&Repair, Refusal, &Milder)> = Vec::new();
    for (repair, refusal) in repairs.iter().zip(refusals) {
        let Some(refusal) = refusal else { continue };
        let exception = exception(database, repair, &refusal, &repair.remedy)?;
        let exists = refusal.is_duplicate() && (repair.has_owner || repair.is_data);
        if exists {
            continue;
        }
        if repair.is_data {
            let message = format!(
                "the server refuses data of the backup: {}; repair the source, or free what the server lacks",
                exception.text()
            );
            return Err(Failure::new(ExitCode::Restore, message));
        }
        if repair.milder.is_empty() || refusal.is_duplicate() {
            exceptions.push(exception);
        } else {
            let ways = repair.milder.iter();
            milder.extend(ways.map(|way| (repair, refusal.clone(), way)));
        }
    }

    let statements = milder.iter().map(|(_, _, way)| way.statements.as_str());
    let refusals = try_again(context, database, statements).await?;
    for ((repair, first, way), second) in milder.into_iter().zip(refusals) {
        let each_alone = repair.milder.len() > 1;
        let exception = match (second, &way.remedy) {
            (None, None) => continue,
            (None, Some(remedy)) => exception(database, repair, &first, remedy)?,
            (Some(second), _) => {
                let refused = exception(database, repair, &second, &way.remedy_if_refused)?;
                if each_alone {
                    refused
                } else {
                    exception(database, repair, &first, &way.remedy_if_refused)?
                }
            }
        };
        exceptions.push(exception);
    }
    Ok(exceptions)
}

/// Tries the statements in one session with the options of a restore. Returns a refusal, or `None`, for each of them.
async fn try_again(
    context: &Context,
    database: Database<'_>,
    statements: impl Iterator<Item = &str>,
) -> Result<Vec<Option<Refusal>>> {
    let options = restore_options(database.server_version, load::sessions());
    let statements = statements.map(str::to_owned).collect();
    let (postgres, name) = (&context.postgres, database.temporary);
    attempt::try_each(postgres, name, Some(&options), statements).await
}

fn exception(
    database: Database<'_>,
    repair: &Repair,
    refusal: &Refusal,
    remedy: &str,
) -> Result<Exception> {
    refusal.exception(Exception {
        database: Some(database.own.to_owned()),
        kind: repair.kind.clone(),
        object: repair.object.clone(),
        error: refusal.text(),
        remedy: remedy.to_owned(),
    })
}
