//! The swap: renames all restored databases into place in one transaction.
//!
//! The transaction first locks a live database, so that no new session can start in it. Meanwhile a second session ends
//! the existing ones. Clients that reconnect at once, and background workers, only wait. The second session selects by
//! the database's oid, so that it does not end sessions of the restored database after the renaming.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use shared::exit_code::ExitCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::agent::failure::{Failure, Result};
use crate::agent::watchdog::Progress;
use crate::postgres::client::session_start;
use crate::postgres::own_databases::drop_databases;
use crate::postgres::quote::{connection_string, identifier, literal};
use crate::postgres::{ADMIN_DATABASE, Postgres};

/// Attempts at a swap. In each, the server itself waits five seconds for a database's sessions to end.
const ATTEMPTS: u32 = 3;
/// The pause between two rounds of ending sessions.
const PAUSE: Duration = Duration::from_millis(20);

/// A live database and its replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The name that the application uses.
    pub(crate) live: String,
    /// The restored database's name until the swap.
    pub(crate) new: String,
    /// The replaced database's name after the swap.
    pub(crate) old: String,
}

/// A finished swap, and how to undo it.
#[derive(Debug)]
pub(crate) struct Swapped {
    pairs: Vec<Pair>,
    /// The live names that existed before.
    replaced: Vec<String>,
    server_version: u32,
    /// How long clients could not reach the databases.
    pub(crate) took: Duration,
}

/// Swaps all pairs or none.
pub(crate) async fn swap(
    postgres: &Postgres,
    pairs: &[Pair],
    server_version: u32,
) -> Result<Swapped> {
    let live: Vec<&str> = pairs.iter().map(|pair| pair.live.as_str()).collect();
    let existing = databases(postgres, &live).await?;
    let replaced: Vec<String> = existing.iter().map(|one| one.name.clone()).collect();
    let mut renaming = String::new();
    for pair in pairs {
        if replaced.contains(&pair.live) {
            renaming += &rename(&pair.live, &pair.old);
        }
        renaming += &rename(&pair.new, &pair.live);
        if replaced.contains(&pair.live) {
            renaming += &allow_connections(&pair.old, false, server_version);
        }
    }
    let took = rename_all(postgres, pairs, &existing, &renaming).await?;
    tracing::info!(databases = ?live, ?replaced, seconds = took.as_secs_f64(), "swapped");
    Ok(Swapped {
        pairs: pairs.to_vec(),
        replaced,
        server_version,
        took,
    })
}

impl Swapped {
    /// Drops the databases that were replaced.
    pub(crate) async fn drop_replaced(&self, postgres: &Postgres) -> Result<()> {
        let replaced = self
            .pairs
            .iter()
            .filter(|pair| self.replaced.contains(&pair.live));
        let old: Vec<String> = replaced.map(|pair| pair.old.clone()).collect();
        drop_databases(postgres, &old).await
    }

    /// Renames the old databases back into place; the restored ones get their former names again.
    pub(crate) async fn undo(&self, postgres: &Postgres) -> Result<()> {
        let mut renaming = String::new();
        for pair in &self.pairs {
            renaming += &rename(&pair.live, &pair.new);
            if self.replaced.contains(&pair.live) {
                renaming += &rename(&pair.old, &pair.live);
                renaming += &allow_connections(&pair.live, true, self.server_version);
            }
        }
        let live: Vec<&str> = self.pairs.iter().map(|pair| pair.live.as_str()).collect();
        let occupied = databases(postgres, &live).await?;
        rename_all(postgres, &self.pairs, &occupied, &renaming).await?;
        tracing::warn!(databases = ?live, "swapped back");
        Ok(())
    }
}

fn rename(from: &str, to: &str) -> String {
    format!(
        "ALTER DATABASE {} RENAME TO {};\n",
        identifier(from),
        identifier(to)
    )
}

fn allow_connections(name: &str, allowed: bool, server_version: u32) -> String {
    if server_version >= 90_500 {
        return format!(
            "ALTER DATABASE {} ALLOW_CONNECTIONS {allowed};\n",
            identifier(name)
        );
    }
    let name = literal(name);
    format!("UPDATE pg_catalog.pg_database SET datallowconn = {allowed} WHERE datname = {name};\n")
}

#[derive(Deserialize)]
struct Database {
    name: String,
    oid: u32,
}

async fn databases(postgres: &Postgres, names: &[&str]) -> Result<Vec<Database>> {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let query = format!(
        "SELECT coalesce(json_agg(json_build_object('name', datname, 'oid', oid::text::bigint)), '[]')
         FROM pg_database WHERE datname IN ({})",
        names.join(", ")
    );
    postgres
        .query(ADMIN_DATABASE, &query, ExitCode::Restore)
        .await
}

/// Runs the renaming and meanwhile ends the sessions in the `occupied` databases. Returns the duration. Both steps need
/// a session in a database that is not renamed itself.
async fn rename_all(
    postgres: &Postgres,
    pairs: &[Pair],
    occupied: &[Database],
    renaming: &str,
) -> Result<Duration> {
    let renames_admin = pairs.iter().any(|pair| pair.live == ADMIN_DATABASE);
    let stand_in = pairs
        .first()
        .map(|pair| format!("{}_admin", pair.new))
        .filter(|_| renames_admin);
    let code = ExitCode::Restore;
    if let Some(name) = &stand_in {
        let script = format!("CREATE DATABASE {} TEMPLATE template0", identifier(name));
        postgres.script(ADMIN_DATABASE, &script, code).await?;
    }
    let admin = stand_in.as_deref().unwrap_or(ADMIN_DATABASE);
    let oids: Vec<u32> = occupied.iter().map(|database| database.oid).collect();
    let mut result = try_renaming(postgres, admin, &oids, renaming).await;
    for _ in 1..ATTEMPTS {
        match &result {
            Err(failure) => {
                tracing::warn!(reason = failure.chain(), "the swap failed; trying again");
                result = try_renaming(postgres, admin, &oids, renaming).await;
            }
            Ok(_) => break,
        }
    }
    if let Some(name) = &stand_in {
        let script = format!("DROP DATABASE IF EXISTS {}", identifier(name));
        postgres.script(ADMIN_DATABASE, &script, code).await?;
    }
    result
}

async fn try_renaming(
    postgres: &Postgres,
    admin: &str,
    oids: &[u32],
    renaming: &str,
) -> Result<Duration> {
    // The timeouts limit the time for which clients cannot connect if the swap cannot succeed.
    let script = format!(
        "SET default_transaction_read_only = off;\nSET lock_timeout = '10s';\nSET statement_timeout = '20s';\n\
         BEGIN;\n{renaming}COMMIT;\n"
    );
    let began = Instant::now();
    let swapping = postgres.script(admin, &script, ExitCode::Restore);
    if oids.is_empty() {
        swapping.await?;
        return Ok(began.elapsed());
    }
    tokio::select! {
        result = swapping => result.map(|_| began.elapsed()),
        failure = end_sessions(postgres, admin, oids) => Err(failure),
    }
}

/// Ends the sessions of these databases repeatedly until it is dropped. Returns only if it fails.
async fn end_sessions(postgres: &Postgres, admin: &str, oids: &[u32]) -> Failure {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    let statement = Bytes::from(format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datid IN ({});\n",
        oids.join(", ")
    ));
    let (sender, statements) = mpsc::channel(1);
    let sending = async {
        sender.send(session_start().into()).await.ok();
        while sender.send(statement.clone()).await.is_ok() {
            sleep(PAUSE).await;
        }
    };
    // The swap has its own timeouts, so it does not count as progress for the watchdog.
    let progress = Progress::default();
    // A failure quotes psql's last lines: without its results, these contain the reason.
    let psql = postgres
        .tool("psql")
        .args(["-X", "-q", "-A", "-t", "-o", "/dev/null", "-d"])
        .arg(connection_string(admin))
        .quiet();
    let running = psql.stdin_from(statements, &progress, ExitCode::Restore);
    let ((), ended) = tokio::join!(sending, running);
    let failure = ended
        .err()
        .unwrap_or_else(|| Failure::new(ExitCode::Restore, "psql exited early"));
    failure.context("cannot end the sessions of the live databases")
}

#[cfg(test)]
mod tests;
