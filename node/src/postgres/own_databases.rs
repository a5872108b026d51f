//! The databases that a restore creates and leaves behind: their names, and how they are dropped.

use shared::exit_code::ExitCode;

use crate::agent::failure::Result;
use crate::postgres::client::{ADMIN_DATABASE, Postgres};
use crate::postgres::quote::{identifier, literal};

/// The prefix of the databases that a restore fills. They are never backed up.
pub(crate) const RESTORE_PREFIX: &str = "rekindle__restore_";
/// The prefix of the databases that a restore replaced.
pub(crate) const OLD_PREFIX: &str = "rekindle__old_";

/// Ends the sessions of all databases with one of these prefixes in their names, and drops the databases.
pub(crate) async fn drop_with_prefixes(postgres: &Postgres, prefixes: &[&str]) -> Result<()> {
    let patterns: Vec<String> = prefixes
        .iter()
        .map(|prefix| format!("datname LIKE {}", literal(&like_pattern(prefix))))
        .collect();
    let query = format!(
        "SELECT coalesce(json_agg(datname), '[]') FROM pg_database WHERE {}",
        patterns.join(" OR ")
    );
    let code = ExitCode::Restore;
    let names: Vec<String> = postgres.query(ADMIN_DATABASE, &query, code).await?;
    drop_databases(postgres, &names).await
}

/// Ends the sessions of these databases and drops the databases.
pub(crate) async fn drop_databases(postgres: &Postgres, names: &[String]) -> Result<()> {
    for name in names {
        let (database, text) = (identifier(name), literal(name));
        // Refuse connections first, so that no client reconnects. A template cannot be dropped.
        let script = format!(
            "UPDATE pg_catalog.pg_database SET datallowconn = false, datistemplate = false WHERE datname = {text};\n\
             {}SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = {text};\n\
             DROP DATABASE {database};\n",
            delete_subscriptions(&text)
        );
        postgres
            .script(ADMIN_DATABASE, &script, ExitCode::Restore)
            .await?;
        tracing::info!(database = name, "dropped");
    }
    Ok(())
}

/// Returns statements that delete a database's subscriptions from the catalogs. A database with a subscription cannot
/// be dropped, and DROP SUBSCRIPTION needs a session in the database. The publisher's slot belongs to the live database
/// of that name, so it stays. Servers before version 10 have no such catalog and skip the statements.
fn delete_subscriptions(database: &str) -> String {
    format!(
        "DO $rekindle$ BEGIN IF current_setting('server_version_num')::int >= 100000 THEN\n\
         DELETE FROM pg_catalog.pg_shdepend d USING pg_catalog.pg_subscription s, pg_catalog.pg_database b\n\
         WHERE d.classid = 'pg_catalog.pg_subscription'::regclass AND d.objid = s.oid AND s.subdbid = b.oid\n\
         AND b.datname = {database};\n\
         DELETE FROM pg_catalog.pg_subscription s USING pg_catalog.pg_database b\n\
         WHERE s.subdbid = b.oid AND b.datname = {database};\nEND IF; END $rekindle$;\n"
    )
}

/// Returns a LIKE pattern for names that begin with `prefix`.
fn like_pattern(prefix: &str) -> String {
    format!(
        "{}%",
        prefix
            .replace('\\', "\\\\")
            .replace('_', "\\_")
            .replace('%', "\\%")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test]
    async fn a_database_with_a_subscription_can_be_dropped() {
        let cluster = Cluster::start();
        cluster
            .sql("template1", "CREATE DATABASE rekindle__old_0a1b2c3d_0")
            .await;
        let script = "CREATE ROLE owner SUPERUSER; SET ROLE owner;
            CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p WITH (connect = false, slot_name = NONE)";
        cluster.sql("rekindle__old_0a1b2c3d_0", script).await;
        drop_with_prefixes(&cluster.postgres(), &["rekindle__old_"])
            .await
            .unwrap();
        let left = "SELECT (SELECT count(*) FROM pg_subscription) + (SELECT count(*) FROM pg_database WHERE oid >= 16384)";
        assert_eq!(cluster.sql("template1", left).await, "0");
        // No dependency on the role is left.
        cluster.sql("template1", "DROP ROLE owner").await;
    }
}
