//! Roles and rights that hardening and monitoring leave behind are restored unchanged.

use super::Scenario;
use super::dump::{assert_same, dump};
use super::surroundings::is_restored_unchanged;

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_is_restored_after_its_grantor_was_dropped() {
    let script = "CREATE ROLE readers; CREATE ROLE ben LOGIN; CREATE ROLE chief CREATEROLE;
        GRANT readers TO chief WITH ADMIN OPTION; SET ROLE chief; GRANT readers TO ben; RESET ROLE; DROP ROLE chief;
        ALTER ROLE ben SET role = 'readers'; CREATE TABLE kept AS SELECT 1 AS n;";
    let mut scenario = Scenario::start(|_| {}).await;
    scenario.run(script).await;
    let before = dump(&scenario.node).await;
    scenario.back_up().await;
    scenario.replace_node().await;
    // The server records a new grantor, as after a restore with the tools of Postgres.
    let after = dump(&scenario.node).await.into_iter();
    let after: Vec<String> = after
        .map(|line| line.replace("TO ben GRANTED BY postgres;", "TO ben;"))
        .collect();
    assert_same(&before, &after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_public_stays_without_it() {
    let script = r"
CREATE DATABASE vault;
\connect vault
DROP SCHEMA public; CREATE SCHEMA app; CREATE TABLE app.t AS SELECT 1 AS n;
";
    is_restored_unchanged(script, "vault").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_a_monitoring_role_on_system_objects_are_restored() {
    let script = r#"
CREATE ROLE watcher LOGIN PASSWORD 'w' CONNECTION LIMIT 2; GRANT pg_monitor TO watcher;
CREATE DATABASE monitored; REVOKE TEMPORARY ON DATABASE monitored FROM PUBLIC;
\connect monitored
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) TO watcher;
REVOKE EXECUTE ON FUNCTION pg_catalog.lo_export(oid, text) FROM PUBLIC;
GRANT SELECT (rolname, rolcanlogin) ON pg_catalog.pg_authid TO watcher;
REVOKE SELECT ON pg_catalog.pg_stats FROM PUBLIC;
CREATE VIEW activity AS SELECT pid, usename FROM pg_stat_activity; GRANT SELECT ON activity TO watcher;
DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' ||
  (SELECT string_agg('c' || i || ' smallint DEFAULT ' || i, ',') FROM generate_series(1, 1500) i) || ')'; END $$;
INSERT INTO wide DEFAULT VALUES; ALTER TABLE wide DROP COLUMN c700;
ALTER TABLE wide ADD COLUMN late jsonb DEFAULT '{"a": "\\.\\N"}';
CREATE TABLE "Copy" ("\." text, "\N" text);
INSERT INTO "Copy" VALUES (E'\\.', E'\\N'), (E'a\r\nb', E'\\.\n\\.'), ('', NULL), (E'\u0001\u007f\ufeff', E'\t\\t');
"#;
    is_restored_unchanged(script, "monitored").await;
}
