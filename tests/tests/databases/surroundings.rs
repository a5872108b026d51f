//! Databases are restored in the surroundings that they had: their settings are in force, and no setting, trigger or
//! foreign server disturbs the backup or the restore.

use std::fmt::Write as _;

use super::dump::{assert_same, client, dump};
use super::{APPLICATION, Scenario};

/// Returns a dump of the cluster, the rows of the materialized views of a database, and all settings of roles.
async fn everything(scenario: &Scenario, database: &str) -> Vec<String> {
    let mut lines = dump(&scenario.node).await;
    let cluster = scenario.node.cluster().unwrap();
    let client = cluster.connect(database).await.unwrap();
    let views = "SELECT quote_ident(schemaname) || '.' || quote_ident(matviewname) FROM pg_matviews ORDER BY 1";
    for view in client.query(views, &[]).await.unwrap() {
        let view: String = view.get(0);
        let rows = format!("SELECT row::text FROM {view} row ORDER BY 1");
        for row in client.query(&rows, &[]).await.unwrap() {
            lines.push(format!("{view}: {}", row.get::<_, String>(0)));
        }
    }
    let settings = "SELECT datname || ' ' || coalesce(rolname, 'ALL') || ' ' || setconfig::text
        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole
        UNION SELECT 'every database ' || coalesce(rolname, 'ALL') || ' ' || setconfig::text
        FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = setrole WHERE setdatabase = 0 ORDER BY 1";
    for setting in client.query(settings, &[]).await.unwrap() {
        lines.push(setting.get(0));
    }
    lines
}

/// Runs a script on a new node, replaces the node, and checks that the cluster is the same.
pub(super) async fn is_restored_unchanged(script: &str, database: &str) -> Scenario {
    let mut scenario = Scenario::start(|_| {}).await;
    scenario.run(script).await;
    let before = everything(&scenario, database).await;
    scenario.back_up().await;
    scenario.replace_node().await;
    assert_same(&before, &everything(&scenario, database).await);
    scenario
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_all_roles_are_restored() {
    let script = "CREATE ROLE clerk LOGIN; CREATE DATABASE office OWNER clerk;
        ALTER ROLE ALL SET statement_timeout = '50s'; ALTER ROLE ALL SET timezone = 'Europe/Vienna';
        ALTER ROLE ALL SET search_path = \"$user\", 'a, \"b', public;
        ALTER ROLE ALL IN DATABASE office SET work_mem = '7MB'; ALTER ROLE clerk SET lock_timeout = '4s';
        ALTER ROLE clerk IN DATABASE office SET jit = off; ALTER DATABASE office SET search_path = clerk, public;";
    let scenario = is_restored_unchanged(script, "office").await;
    // A backup of the restored node contains them again.
    scenario.back_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_constraints_see_the_settings_of_their_database() {
    let script = r"
CREATE DATABASE counter;
ALTER ROLE ALL SET intervalstyle = 'iso_8601';
ALTER DATABASE counter SET timezone = 'Pacific/Auckland';
ALTER ROLE postgres IN DATABASE counter SET default_text_search_config = 'pg_catalog.french';
ALTER DATABASE counter SET datestyle = 'German';
ALTER DATABASE counter SET counter.prefix = 'no. ';
\connect counter
CREATE TABLE visit (starts timestamptz NOT NULL, day date NOT NULL, note text, CONSTRAINT same_day CHECK (starts::date = day));
INSERT INTO visit VALUES ('2026-05-01 13:00:00+12', '2026-05-01', 'les chevaux'), ('2026-05-02 01:00:00+12', '2026-05-02', 'un cheval');
CREATE MATERIALIZED VIEW per_day AS SELECT date_trunc('day', starts)::text AS day, count(*) FROM visit GROUP BY 1;
CREATE MATERIALIZED VIEW words AS SELECT to_tsvector(note) AS words, (starts - '2026-01-01')::text AS age,
  current_setting('counter.prefix') || note AS numbered FROM visit;
";
    is_restored_unchanged(script, "counter").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_does_not_fire_event_triggers() {
    let script = r"
CREATE DATABASE audited;
\connect audited
CREATE TABLE public.ddl_log (id bigserial PRIMARY KEY, tag text);
CREATE FUNCTION public.log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ddl_log (tag) VALUES (tg_tag); END $$;
CREATE FUNCTION bare() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ddl_log (tag) VALUES (tg_tag); END $$;
CREATE TABLE n AS SELECT generate_series(1, 10) n;
CREATE MATERIALIZED VIEW total AS SELECT sum(n) FROM n;
CREATE EVENT TRIGGER qualified ON ddl_command_end EXECUTE FUNCTION public.log_ddl();
CREATE EVENT TRIGGER unqualified ON ddl_command_start EXECUTE FUNCTION bare();
CREATE MATERIALIZED VIEW later AS SELECT max(n) FROM n;
";
    is_restored_unchanged(script, "audited").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_replacement_of_an_audited_database_loses_nothing() {
    let mut scenario = Scenario::start(|_| {}).await;
    let script = r"
CREATE DATABASE audited;
\connect audited
CREATE TABLE public.ddl_log (id bigserial PRIMARY KEY, tag text);
CREATE FUNCTION public.log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ddl_log (tag) VALUES (tg_tag); END $$;
CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION public.log_ddl();
CREATE TABLE n AS SELECT generate_series(1, 10) n;
CREATE MATERIALIZED VIEW total AS SELECT sum(n) FROM n;
";
    scenario.run(script).await;
    let before = everything(&scenario, "audited").await;
    let protected = &scenario.protected;
    protected
        .standin
        .terminate(scenario.node.id())
        .await
        .unwrap();
    let replacement = protected.wait_until_in_service(APPLICATION, Some(&scenario.node));
    scenario.node = replacement.await.unwrap();
    assert_same(&before, &everything(&scenario, "audited").await);
    let errors = scenario.protected.errors(APPLICATION);
    assert!(errors.is_empty(), "{errors:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_needs_no_foreign_server_and_no_statistics() {
    let script = r"
CREATE DATABASE metrics;
\connect metrics
CREATE EXTENSION postgres_fdw; CREATE EXTENSION unaccent;
CREATE SERVER archive FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '9', dbname 'cold');
CREATE USER MAPPING FOR PUBLIC SERVER archive OPTIONS (user 'x', password 'y');
CREATE TABLE sample (at date NOT NULL, v int) PARTITION BY RANGE (at);
CREATE TABLE sample_now PARTITION OF sample FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE FOREIGN TABLE sample_2019 PARTITION OF sample FOR VALUES FROM ('2019-01-01') TO ('2020-01-01') SERVER archive;
INSERT INTO sample SELECT date '2026-01-01' + i % 300, i FROM generate_series(1, 1000) i;
CREATE FUNCTION norm(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN lower(unaccent(t)); END $$;
CREATE TABLE institution AS SELECT i AS id, 'Académie ' || i AS name FROM generate_series(1, 500) i;
CREATE STATISTICS institution_norm ON (norm(name)) FROM institution;
";
    is_restored_unchanged(script, "metrics").await;
}

/// Settings that end or bend sessions. Where they are in force, tools of Postgres fail.
const HOSTILE: [&str; 16] = [
    "role = guest",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "default_transaction_isolation = 'serializable'",
    "statement_timeout = '10ms'",
    "lock_timeout = '1ms'",
    // On a loaded machine, a shorter one would end a session before its first statement.
    "idle_in_transaction_session_timeout = '2s'",
    "idle_session_timeout = '2s'",
    "exit_on_error = on",
    "session_preload_libraries = 'auto_explain'",
    "standard_conforming_strings = off",
    "array_nulls = off",
    "transform_null_equals = on",
    "search_path = own, pg_catalog",
    "client_encoding = 'LATIN1'",
    "session_replication_role = 'replica'",
];

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_end_or_bend_sessions_do_not_disturb_at_any_level() {
    let mut scenario = Scenario::start(|node| {
        let cluster = node.cluster().unwrap();
        // `role` cannot be set for the whole server, and the first node's own tools need the encoding.
        for setting in &HOSTILE[1..14] {
            let (name, value) = setting.split_once(" = ").unwrap();
            cluster.set(name, value.trim_matches('\'')).unwrap();
        }
    })
    .await;
    let mut script = String::from(
        r"SET statement_timeout = 0; SET default_transaction_read_only = off; SET idle_session_timeout = 0;
SET transaction_isolation = 'read committed'; RESET search_path; SET standard_conforming_strings = on; SET array_nulls = on;
CREATE ROLE guest; CREATE DATABASE strict;
\connect strict
SET statement_timeout = 0; SET default_transaction_read_only = off; SET idle_session_timeout = 0; SET array_nulls = on;
SET standard_conforming_strings = on; SET transform_null_equals = off;
CREATE SCHEMA own; CREATE VIEW own.pg_class AS SELECT 1 AS n;
CREATE TABLE public.list (id int PRIMARY KEY, elements text[], text text);
INSERT INTO public.list SELECT i, ARRAY['a\b', NULL, 'NULL'], 'größe \' || i FROM generate_series(1, 100000) i;
CREATE INDEX elements ON public.list USING gin (elements);
CREATE VIEW public.unknown AS SELECT id FROM public.list WHERE text = NULL;
",
    );
    for target in [
        "ROLE ALL",
        "DATABASE template1",
        "DATABASE strict",
        "ROLE postgres IN DATABASE strict",
        "ROLE ALL IN DATABASE strict",
        "ROLE postgres",
    ] {
        for setting in HOSTILE {
            writeln!(script, "ALTER {target} SET {setting};").unwrap();
        }
    }
    scenario.run(&script).await;
    let before = hash_of_list(&scenario).await;
    scenario.back_up().await;
    scenario.replace_node().await;
    assert_eq!(hash_of_list(&scenario).await, before);
    // The restored settings do not disturb the next backup.
    let manifest = scenario.back_up().await;
    let rows = manifest.index.databases.iter().map(|one| one.rows);
    assert_eq!(rows.sum::<u64>(), 100_000);
}

/// Returns a hash of the table's rows, and the definition of the view. The session overrides what would disturb it.
async fn hash_of_list(scenario: &Scenario) -> String {
    let options = "-c role=none -c statement_timeout=0 -c idle_session_timeout=0 -c lock_timeout=0";
    let query = "SELECT md5(string_agg(list::text, '|' ORDER BY id)), pg_get_viewdef('public.unknown'::regclass)
        FROM public.list";
    let mut psql = client(&scenario.node, "psql");
    psql.env("PGOPTIONS", options)
        .args(["-X", "-A", "-t", "-d", "strict", "-c", query]);
    let output = psql.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_are_closed_or_dropped_meanwhile_are_named() {
    let scenario = Scenario::start(|_| {}).await;
    let script =
        "CREATE DATABASE notes; CREATE DATABASE main; ALTER DATABASE notes ALLOW_CONNECTIONS false;
        CREATE TABLE t AS SELECT generate_series(1, 100000) AS n;";
    scenario.run(script).await;
    let client = scenario
        .node
        .cluster()
        .unwrap()
        .connect("postgres")
        .await
        .unwrap();
    // Other sessions create and drop databases and tables all the time.
    let churning = async {
        for number in 1.. {
            let create = format!("CREATE DATABASE passing_{number}");
            let tables = format!(
                "CREATE TABLE one_{number} AS SELECT 1 AS n; DROP TABLE IF EXISTS one_{};",
                number - 1
            );
            client.batch_execute(&create).await.unwrap();
            client.batch_execute(&tables).await.unwrap();
            let drop = format!("DROP DATABASE IF EXISTS passing_{number} WITH (FORCE)");
            client.batch_execute(&drop).await.unwrap();
        }
    };
    let backing_up = async {
        for _ in 0..5 {
            let index = scenario.back_up().await.index;
            let names = index.databases.iter().map(|one| one.name.as_str());
            let kept: Vec<&str> = names.filter(|name| !name.starts_with("passing")).collect();
            assert_eq!(kept, ["main", "postgres"]);
            let skipped = &index.skipped_databases;
            let notes = skipped.iter().find(|one| one.name == "notes").unwrap();
            assert_eq!(notes.reason, "it allows no connections");
            assert!(index.rows() >= 100_000);
        }
    };
    tokio::select! {
        () = backing_up => {}
        () = churning => {}
    }
    let list = serde_json::json!({"rekindle": "list-backups", "application": APPLICATION});
    let answer = scenario.protected.invoke("backup", list).await.unwrap();
    let skipped = &answer["backups"][0]["skipped_databases"];
    assert!(skipped.to_string().contains("notes"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_by_alter_system_are_restored() {
    // Those that need a restart are not in force when they are backed up.
    let script = "ALTER SYSTEM SET max_connections = 60; ALTER SYSTEM SET shared_buffers = '48MB';
        ALTER SYSTEM SET log_min_duration_statement = '250ms'; ALTER SYSTEM SET log_directory = '/elsewhere';
        CREATE TABLE t (n int); INSERT INTO t VALUES (1);";
    let scenario = is_restored_unchanged(script, "postgres").await;
    let cluster = scenario.node.cluster().unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    let query = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_file_settings
        WHERE sourcefile ~ 'auto.conf$'";
    let settings: String = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(settings, "log_min_duration_statement=250ms");
    let query = "SELECT current_setting('log_min_duration_statement')";
    let in_force: String = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(in_force, "250ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_transactions_and_slots_stay_behind_and_publications_do_not() {
    let mut scenario = Scenario::start(|node| {
        let cluster = node.cluster().unwrap();
        cluster.set("max_prepared_transactions", "10").unwrap();
        cluster.set("wal_level", "logical").unwrap();
    })
    .await;
    let script = r"
CREATE DATABASE orders;
\connect orders
CREATE TABLE o (id int PRIMARY KEY, s text); INSERT INTO o VALUES (1, 'paid');
CREATE PUBLICATION changes FOR ALL TABLES;
SELECT pg_create_logical_replication_slot('consumer', 'pgoutput');
BEGIN; INSERT INTO o VALUES (2, 'in doubt'); PREPARE TRANSACTION 'xa-17';
";
    scenario.run(script).await;
    scenario.back_up().await;
    scenario.replace_node().await;
    let cluster = scenario.node.cluster().unwrap();
    let client = cluster.connect("orders").await.unwrap();
    let query =
        "SELECT (SELECT string_agg(s, ' ') FROM o) || ' ' || (SELECT count(*) FROM pg_publication)
        || (SELECT count(*) FROM pg_prepared_xacts) || (SELECT count(*) FROM pg_replication_slots)";
    let found: String = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(found, "paid 100");
}
