//! Puts restored databases in the place of the live ones: all of them in one transaction, by renaming.
//!
//! Lock first: the transaction takes the lock of a live database, so that no new session gets in, while a second
//! session ends those that are in already. Clients that reconnect at once, and background workers, only wait.
//! Sessions are ended by their database's oid: once the names have changed hands, none of the new ones is hit.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use shared::report::ExitCode;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::postgres::{ADMIN_DATABASE, Postgres, connection_string, identifier, literal};

/// Tries; the server itself waits five seconds for a database's sessions to end.
const ATTEMPTS: u32 = 3;
/// The pause between two rounds of ending sessions.
const ROUND: Duration = Duration::from_millis(20);

/// A database and its replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The name that the application knows.
    pub(crate) live: String,
    /// The restored database's name until the swap.
    pub(crate) new: String,
    /// The replaced database's name after the swap.
    pub(crate) old: String,
}

/// A swap that was done, and what it takes to undo it.
#[derive(Debug)]
pub(crate) struct Swapped {
    pairs: Vec<Pair>,
    /// The live names that had been there before.
    replaced: Vec<String>,
    /// How long no session could reach the databases.
    pub(crate) took: Duration,
}

/// Swaps all pairs, or none.
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
    let took = exchange(postgres, pairs, &existing, &renaming).await?;
    tracing::info!(databases = ?live, ?replaced, seconds = took.as_secs_f64(), "swapped");
    Ok(Swapped {
        pairs: pairs.to_vec(),
        replaced,
        took,
    })
}

impl Swapped {
    /// Drops the databases that were replaced.
    pub(crate) async fn forget(&self, postgres: &Postgres) -> Result<()> {
        let replaced = self
            .pairs
            .iter()
            .filter(|pair| self.replaced.contains(&pair.live));
        let old: Vec<String> = replaced.map(|pair| pair.old.clone()).collect();
        drop_databases(postgres, &old).await
    }

    /// Puts the old databases back; the restored ones get their former names again.
    pub(crate) async fn undo(&self, postgres: &Postgres, server_version: u32) -> Result<()> {
        let mut renaming = String::new();
        for pair in &self.pairs {
            renaming += &rename(&pair.live, &pair.new);
            if self.replaced.contains(&pair.live) {
                renaming += &rename(&pair.old, &pair.live);
                renaming += &allow_connections(&pair.live, true, server_version);
            }
        }
        let live: Vec<&str> = self.pairs.iter().map(|pair| pair.live.as_str()).collect();
        let occupied = databases(postgres, &live).await?;
        exchange(postgres, &self.pairs, &occupied, &renaming).await?;
        tracing::warn!(databases = ?live, "swapped back");
        Ok(())
    }
}

/// Drops databases of Rekindle's own making whose names begin with one of these prefixes, with their sessions.
pub(crate) async fn drop_all(postgres: &Postgres, prefixes: &[&str]) -> Result<()> {
    let patterns: Vec<String> = prefixes
        .iter()
        .map(|prefix| format!("starts.datname LIKE {}", literal(&like(prefix))))
        .collect();
    let query = format!(
        "SELECT coalesce(json_agg(datname), '[]') FROM pg_database starts WHERE {}",
        patterns.join(" OR ")
    );
    let code = ExitCode::Restore;
    let names: Vec<String> = postgres.query(ADMIN_DATABASE, &query, code).await?;
    drop_databases(postgres, &names).await
}

async fn drop_databases(postgres: &Postgres, names: &[String]) -> Result<()> {
    for name in names {
        let (database, text) = (identifier(name), literal(name));
        // Refusing connections first keeps a client from coming back; a template cannot be dropped.
        let script = format!(
            "UPDATE pg_catalog.pg_database SET datallowconn = false, datistemplate = false WHERE datname = {text};\n\
             {}SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = {text};\n\
             DROP DATABASE {database};\n",
            forget_subscriptions(&text)
        );
        postgres
            .script(ADMIN_DATABASE, &script, ExitCode::Restore)
            .await?;
        tracing::info!(database = name, "dropped");
    }
    Ok(())
}

/// A database with a subscription cannot be dropped, and to drop the subscription takes a session in it. What it
/// subscribed to belongs to the live database of that name: the publisher is not told. Servers before version 10
/// have no such catalog, and never come to the statements that name it.
fn forget_subscriptions(database: &str) -> String {
    format!(
        "DO $rekindle$ BEGIN IF current_setting('server_version_num')::int >= 100000 THEN\n\
         DELETE FROM pg_catalog.pg_shdepend d USING pg_catalog.pg_subscription s, pg_catalog.pg_database b\n\
         WHERE d.classid = 'pg_catalog.pg_subscription'::regclass AND d.objid = s.oid AND s.subdbid = b.oid\n\
         AND b.datname = {database};\n\
         DELETE FROM pg_catalog.pg_subscription s USING pg_catalog.pg_database b\n\
         WHERE s.subdbid = b.oid AND b.datname = {database};\nEND IF; END $rekindle$;\n"
    )
}

/// Escapes a text for LIKE.
fn like(prefix: &str) -> String {
    format!(
        "{}%",
        prefix
            .replace('\\', "\\\\")
            .replace('_', "\\_")
            .replace('%', "\\%")
    )
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

/// Renames while the sessions in `occupied` are being ended. Both sessions need a database that is not renamed
/// itself.
async fn exchange(
    postgres: &Postgres,
    pairs: &[Pair],
    occupied: &[Database],
    renaming: &str,
) -> Result<Duration> {
    let takes_admin = pairs.iter().any(|pair| pair.live == ADMIN_DATABASE);
    let stand_in = pairs
        .first()
        .map(|pair| format!("{}_admin", pair.new))
        .filter(|_| takes_admin);
    let code = ExitCode::Restore;
    if let Some(name) = &stand_in {
        let script = format!("CREATE DATABASE {} TEMPLATE template0", identifier(name));
        postgres.script(ADMIN_DATABASE, &script, code).await?;
    }
    let admin = stand_in.as_deref().unwrap_or(ADMIN_DATABASE);
    let oids: Vec<u32> = occupied.iter().map(|database| database.oid).collect();
    let mut outcome = renamed(postgres, admin, &oids, renaming).await;
    for _ in 1..ATTEMPTS {
        match &outcome {
            Err(failure) => {
                tracing::warn!(problem = failure.chain(), "swapping once more");
                outcome = renamed(postgres, admin, &oids, renaming).await;
            }
            Ok(_) => break,
        }
    }
    if let Some(name) = &stand_in {
        let script = format!("DROP DATABASE IF EXISTS {}", identifier(name));
        postgres.script(ADMIN_DATABASE, &script, code).await?;
    }
    outcome
}

async fn renamed(
    postgres: &Postgres,
    admin: &str,
    oids: &[u32],
    renaming: &str,
) -> Result<Duration> {
    // The bounds keep a swap that cannot succeed from shutting clients out.
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
        outcome = swapping => outcome.map(|_| began.elapsed()),
        failure = end_sessions(postgres, admin, oids) => Err(failure),
    }
}

/// Ends the sessions of these databases again and again, until it is dropped. Its own session then ends with its
/// standard input. It returns only if that is not possible.
async fn end_sessions(postgres: &Postgres, admin: &str, oids: &[u32]) -> Failure {
    match ending_sessions(postgres, admin, oids).await {
        Ok(()) => Failure::new(
            ExitCode::Restore,
            "the session that ends the live databases' sessions ended itself",
        ),
        Err(failure) => failure,
    }
}

async fn ending_sessions(postgres: &Postgres, admin: &str, oids: &[u32]) -> Result<()> {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    let statement = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datid IN ({});\n",
        oids.join(", ")
    );
    let mut child = postgres
        .tool("psql")
        .args(["-X", "-q", "-A", "-t", "-d"])
        .arg(connection_string(admin))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .or_fail(ExitCode::Restore, || "start psql")?;
    let Some(mut stdin) = child.stdin.take() else {
        return Ok(());
    };
    loop {
        // A session that ended early shows as a broken pipe.
        stdin.write_all(statement.as_bytes()).await.or_fail(
            ExitCode::Restore,
            || "end the sessions of the live databases",
        )?;
        sleep(ROUND).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    fn pair(live: &str, number: usize) -> Pair {
        Pair {
            live: live.to_owned(),
            new: format!("rekindle__restore_0a1b2c3d_{number}"),
            old: format!("rekindle__old_0a1b2c3d_{number}"),
        }
    }

    async fn fill(cluster: &Cluster, database: &str, word: &str) {
        let script = format!("CREATE TABLE which AS SELECT '{word}'::text AS word");
        cluster.sql(database, &script).await;
    }

    /// A client that reconnects as soon as it loses its session, until it is dropped.
    async fn reconnecting(postgres: Postgres, database: String) {
        loop {
            let script = "SELECT pg_sleep(60)";
            postgres
                .script(&database, script, ExitCode::Internal)
                .await
                .ok();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn databases_are_swapped_under_clients_that_reconnect() {
        let cluster = Cluster::start();
        let postgres = cluster.postgres();
        let awkward = "Größe \"1\" \\ 'x' $1";
        // Postgres itself, a database with an awkward name, and one that is not there yet.
        let pairs = [pair("postgres", 0), pair(awkward, 1), pair("fresh", 2)];
        cluster
            .sql(
                "template1",
                &format!("CREATE DATABASE {}", identifier(awkward)),
            )
            .await;
        fill(&cluster, "postgres", "old").await;
        fill(&cluster, awkward, "old").await;
        for pair in &pairs {
            let script = format!("CREATE DATABASE {}", identifier(&pair.new));
            cluster.sql("template1", &script).await;
            fill(&cluster, &pair.new, "new").await;
        }
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let database = pairs[client % 2].live.clone();
                tokio::spawn(reconnecting(postgres.clone(), database))
            })
            .collect();
        let sessions =
            "SELECT count(*) >= 6 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'";
        while cluster.sql("template1", sessions).await != "t" {}

        let swapped = swap(&postgres, &pairs, 150_000).await.unwrap();
        for pair in &pairs {
            assert_eq!(
                cluster.sql(&pair.live, "SELECT word FROM which").await,
                "new"
            );
        }
        let refused =
            "SELECT count(*) FROM pg_database WHERE NOT datallowconn AND datname LIKE 'rekindle%'";
        assert_eq!(cluster.sql("template1", refused).await, "2");

        swapped.undo(&postgres, 150_000).await.unwrap();
        for pair in &pairs[..2] {
            assert_eq!(
                cluster.sql(&pair.live, "SELECT word FROM which").await,
                "old"
            );
        }
        clients.iter().for_each(tokio::task::JoinHandle::abort);

        drop_all(&postgres, &["rekindle__restore_", "rekindle__old_"])
            .await
            .unwrap();
        let left = "SELECT string_agg(datname, '|' ORDER BY datname) FROM pg_database WHERE NOT datistemplate";
        assert_eq!(
            cluster.sql("template1", left).await,
            format!("{awkward}|postgres")
        );
    }

    #[tokio::test]
    async fn a_failed_swap_changes_nothing() {
        let cluster = Cluster::start();
        fill(&cluster, "postgres", "old").await;
        cluster
            .sql("template1", "CREATE DATABASE rekindle__restore_0a1b2c3d_0")
            .await;
        let names =
            "SELECT string_agg(datname || datallowconn, '|' ORDER BY datname) FROM pg_database";
        let before = cluster.sql("template1", names).await;
        // The second replacement is not there.
        let pairs = [pair("postgres", 0), pair("fresh", 1)];
        let failure = swap(&cluster.postgres(), &pairs, 150_000)
            .await
            .unwrap_err();
        assert_eq!(failure.code, ExitCode::Restore);
        assert!(failure.chain().contains("rekindle__restore_0a1b2c3d_1"));
        assert_eq!(cluster.sql("template1", names).await, before);
        assert_eq!(
            cluster.sql("postgres", "SELECT word FROM which").await,
            "old"
        );
    }

    #[tokio::test]
    async fn a_database_with_a_subscription_can_be_dropped() {
        let cluster = Cluster::start();
        cluster
            .sql("template1", "CREATE DATABASE rekindle__old_0a1b2c3d_0")
            .await;
        let script = "CREATE ROLE owner SUPERUSER; SET ROLE owner;
            CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p WITH (connect = false, slot_name = NONE)";
        cluster.sql("rekindle__old_0a1b2c3d_0", script).await;
        drop_all(&cluster.postgres(), &["rekindle__old_"])
            .await
            .unwrap();
        let left = "SELECT (SELECT count(*) FROM pg_subscription) + (SELECT count(*) FROM pg_database WHERE oid >= 16384)";
        assert_eq!(cluster.sql("template1", left).await, "0");
        // Nothing of it is left that depends on the role.
        cluster.sql("template1", "DROP ROLE owner").await;
    }

    #[tokio::test]
    async fn the_administrative_database_itself_can_be_swapped() {
        let cluster = Cluster::start();
        let new = pair("template1", 0);
        cluster
            .sql("postgres", &format!("CREATE DATABASE {}", new.new))
            .await;
        fill(&cluster, &new.new, "new").await;
        swap(&cluster.postgres(), &[new], 150_000).await.unwrap();
        assert_eq!(
            cluster.sql("template1", "SELECT word FROM which").await,
            "new"
        );
        drop_all(&cluster.postgres(), &["rekindle__old_"])
            .await
            .unwrap();
    }
}
