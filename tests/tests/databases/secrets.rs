//! Passwords in statements, and values of rows, stay out of every log, report and answer.

use serde_json::json;

use super::{APPLICATION, Scenario};

#[tokio::test(flavor = "multi_thread")]
async fn no_password_in_a_statement_reaches_a_log_a_report_or_an_answer() {
    const MARKER: &str = "s3cr3t-m4rk3r";
    let mut scenario = Scenario::start(|_| {}).await;
    // Statements with passwords in every place, which the next server refuses.
    let script = format!(
        r"
CREATE ROLE gone; CREATE ROLE clerk LOGIN PASSWORD '{MARKER}'; ALTER ROLE clerk SET app.token = '{MARKER}';
CREATE DATABASE vault;
\connect vault
CREATE EXTENSION postgres_fdw;
CREATE FUNCTION bare(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM '{MARKER}'; RETURN bare_inner(t); END $$;
CREATE FUNCTION bare_inner(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '9');
CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (user 'x', password '{MARKER}');
CREATE FOREIGN TABLE far (n int) SERVER away;
CREATE MATERIALIZED VIEW copied AS SELECT n FROM far WHERE n::text <> '{MARKER}' WITH NO DATA;
UPDATE pg_class SET relispopulated = true WHERE relname = 'copied';
CREATE TABLE t (w text); INSERT INTO t VALUES ('a'); CREATE INDEX by_bare ON t (bare(w || '{MARKER}'));
CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=9 password={MARKER} dbname=x' PUBLICATION p WITH (connect = false);
ALTER SUBSCRIPTION sub SET (slot_name = NONE);
CREATE TABLE keys (k text PRIMARY KEY); CREATE TABLE uses (k text REFERENCES keys);
SET session_replication_role = replica; INSERT INTO uses VALUES ('{MARKER}');
"
    );
    scenario.run(&script).await;
    scenario.back_up().await;
    scenario.replace_node().await;
    let kinds: Vec<String> = scenario
        .exceptions()
        .into_iter()
        .map(|one| one.kind)
        .collect();
    assert_eq!(kinds, ["INDEX", "FK CONSTRAINT", "MATERIALIZED VIEW DATA"]);
    let protected = &scenario.protected;
    let restore = protected
        .wait_until_ended(&scenario.node, "restore", 0)
        .await
        .unwrap();
    let list = json!({"rekindle": "list-backups", "application": APPLICATION});
    let answer = protected.invoke("backup", list).await.unwrap();
    let logs: Vec<String> = protected
        .standin
        .logs()
        .into_iter()
        .map(|line| line.line)
        .collect();
    for (place, text) in [
        ("the restore command", format!("{restore:?}")),
        ("list-backups", answer.to_string()),
        ("the functions' logs", logs.join("\n")),
    ] {
        assert!(!text.contains(MARKER), "{place}: {text}");
    }
    assert!(
        format!("{restore:?}").contains("FK CONSTRAINT"),
        "{restore:?}"
    );
}
