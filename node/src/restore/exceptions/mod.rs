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
    check_large_objects(database, refused)?;
    let keeps_tablespaces = context.settings.postgres.tablespaces == Tablespaces::Fail;
    let entries = refused.entries.iter();
    let repairs: Vec<Repair> = entries
        .flat_map(|entry| Repair::all_of(entry, keeps_tablespaces))
        .collect();
    let statements = repairs.iter().map(|repair| repair.statements.as_str());
    let refusals = try_again(context, database, statements).await?;
    let Sorted {
        mut exceptions,
        again,
        milder,
    } = sorted(database, &repairs, &refusals)?;

    let statements = milder.iter().map(|(.., way)| way.statements.as_str());
    let refusals = try_again(context, database, statements).await?;
    for ((at, repair, first, way), second) in milder.into_iter().zip(refusals) {
        let exception = match (second, &way.remedy) {
            (None, None) => continue,
            (None, Some(remedy)) => exception(database, repair, first, remedy)?,
            (Some(second), _) => {
                let refused = exception(database, repair, &second, &way.remedy_if_refused)?;
                match repair.milder.len() {
                    1 => exception(database, repair, first, &way.remedy_if_refused)?,
                    _ => refused,
                }
            }
        };
        exceptions.push((at, exception));
    }

    // The milder ways may have created what these need, such as the constraint of a comment.
    let statements = again.iter().map(|(_, repair)| repair.statements.as_str());
    let refusals = try_again(context, database, statements).await?;
    for ((at, repair), refusal) in again.into_iter().zip(refusals) {
        if let Some(refusal) = refusal {
            let exception = exception(database, repair, &refusal, &repair.remedy)?;
            exceptions.push((at, exception));
        }
    }
    exceptions.sort_by_key(|(at, _)| *at);
    Ok(exceptions.into_iter().map(|(_, one)| one).collect())
}

/// Repairs that the server refused. Each has the position of its entry, so that an operator can run the remedies in this
/// order.
#[derive(Default)]
struct Sorted<'r> {
    /// Nothing else can be tried.
    exceptions: Vec<(usize, Exception)>,
    /// They are tried once more when everything else was tried.
    again: Vec<(usize, &'r Repair)>,
    /// They have milder ways.
    milder: Vec<(usize, &'r Repair, &'r Refusal, &'r Milder)>,
}

/// Sorts the repairs by what to do about their refusals.
fn sorted<'r>(
    database: Database<'_>,
    repairs: &'r [Repair],
    refusals: &'r [Option<Refusal>],
) -> Result<Sorted<'r>> {
    let mut sorted = Sorted::default();
    for (at, (repair, refusal)) in repairs.iter().zip(refusals).enumerate() {
        let Some(refusal) = refusal else { continue };
        let exception = exception(database, repair, refusal, &repair.remedy)?;
        // The next repair is that of the owner. If it is refused, too, nothing but the owner was refused before.
        let only_owner = repair.has_owner && refusals.get(at + 1).is_some_and(Option::is_some);
        match (refusal.is_duplicate(), repair.is_data) {
            (true, _) if only_owner => {}
            (true, _) => sorted.exceptions.push((at, exception)),
            (false, true) => {
                let message = format!(
                    "the server refuses data of the backup: {}; repair the source, or install what the server lacks",
                    exception.text()
                );
                return Err(Failure::new(ExitCode::Restore, message));
            }
            (false, false) if repair.milder.is_empty() => sorted.again.push((at, repair)),
            (false, false) => {
                let ways = repair.milder.iter();
                sorted
                    .milder
                    .extend(ways.map(|way| (at, repair, refusal, way)));
            }
        }
    }
    Ok(sorted)
}

/// Fails if the server refused large objects.
fn check_large_objects(database: Database<'_>, refused: &RefusedEntries) -> Result<()> {
    let mut kinds = refused.entries.iter().map(|entry| entry.kind.as_str());
    if !kinds.any(|kind| LARGE_OBJECTS.contains(&kind)) {
        return Ok(());
    }
    let message = format!(
        "cannot restore the large objects of the database {:?}: {}; repair the source, or give the server what it lacks",
        database.own,
        refused.failure.chain()
    );
    Err(Failure::new(ExitCode::Restore, message))
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
        details: refusal.details(),
        remedy: remedy.to_owned(),
    })
}
