use std::io;
use std::sync::{Arc, Mutex};

use shared::exit_code::ExitCode;
use tracing::level_filters::LevelFilter;

use super::super::Program;
use super::super::kept_lines::KeptLines;
use super::*;
use crate::agent::failure::Failure;
use crate::testing::Cluster;

/// A part of every password and of every statement's text in these tests.
const MARKER: &str = "hunter2";

/// Returns the lines that are shown of an output, and the text that a failure quotes.
fn read(output: &str) -> (Vec<String>, String) {
    let (mut reader, kept) = (Reader::default(), KeptLines::default());
    let lines = output.lines().filter_map(|line| reader.read(line));
    let lines: Vec<String> = lines
        .inspect(|line| kept.add(line.clone()))
        .map(|line| line.text)
        .collect();
    let text = kept.text();
    assert!(!text.contains(MARKER), "{text}");
    assert!(!lines.concat().contains(MARKER), "{lines:?}");
    (lines, text)
}

#[test]
fn the_error_and_its_object_and_details_precede_everything_else() {
    let output = "NOTICE:  first\n\
        pg_restore: creating FUNCTION \"public.close_month(integer)\"\n\
        pg_restore: while PROCESSING TOC:\n\
        pg_restore: from TOC entry 215; 1255 16385 FUNCTION close_month(integer) postgres\n\
        pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter \"x\"\n\
        LINE 1: …hunter2\n             ^\n\
        DETAIL:  one\nHINT:  two\n\
        Command was: CREATE FUNCTION hunter2\npg_restore: error: hunter2\nERROR:  hunter2\n";
    let (_, text) = read(output);
    let expected = "pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter \"x\" \
        | pg_restore: from TOC entry 215; 1255 16385 FUNCTION close_month(integer) postgres | DETAIL:  one | HINT:  two \
        | NOTICE:  first";
    assert_eq!(text, expected);
}

#[test]
fn the_error_is_found_in_the_output_of_every_version() {
    for (output, expected) in [
        (
            "pg_restore: [archiver (db)] Error while PROCESSING TOC:\n\
             pg_restore: [archiver (db)] Error from TOC entry 3; 1 2 INDEX i postgres\n\
             pg_restore: [archiver (db)] could not execute query: ERROR:  no such thing\n    Command was: hunter2",
            "pg_restore: [archiver (db)] could not execute query: ERROR:  no such thing | \
             pg_restore: [archiver (db)] Error from TOC entry 3; 1 2 INDEX i postgres",
        ),
        (
            "pg_dump: Dumping the contents of table \"t\" failed: PQgetResult() failed.\n\
             pg_dump: Error message from server: ERROR:  invalid page\npg_dump: The command was: COPY hunter2",
            "pg_dump: Error message from server: ERROR:  invalid page",
        ),
        (
            "pg_dump: error: Dumping the contents of table \"t\" failed: PQgetResult() failed.\n\
             pg_dump: detail: Error message from server: ERROR:  invalid page\n\
             pg_dump: detail: Command was: COPY hunter2",
            "pg_dump: detail: Error message from server: ERROR:  invalid page | \
             pg_dump: error: Dumping the contents of table \"t\" failed: PQgetResult() failed.",
        ),
        (
            "pg_dump: error: query failed: ERROR:  canceling statement due to lock timeout\n\
             pg_dump: detail: Query was: LOCK TABLE public.t, public.u IN ACCESS SHARE MODE",
            "pg_dump: error: query failed: ERROR:  canceling statement due to lock timeout | \
             pg_dump: detail: Query was: LOCK TABLE public.t, public.u IN ACCESS SHARE MODE",
        ),
        (
            "psql: error: connection to server at \"localhost\" (::1), port 1 failed: Connection refused\n\
             \tIs the server running on that host and accepting TCP/IP connections?\n\
             connection to server at \"localhost\" (127.0.0.1), port 1 failed: FATAL:  no",
            "connection to server at \"localhost\" (127.0.0.1), port 1 failed: FATAL:  no | \
             psql: error: connection to server at \"localhost\" (::1), port 1 failed: Connection refused | \
             Is the server running on that host and accepting TCP/IP connections?",
        ),
        (
            "NOTICE:  a text\nhunter2\npsql:<stdin>:3: ERROR:  at last",
            "psql:<stdin>:3: ERROR:  at last | NOTICE:  a text",
        ),
        (
            "pg_restore: error: could not execute query: Command was: CREATE hunter2",
            "pg_restore: error: could not execute query:",
        ),
        (
            "mktemp: cannot create '/tmp/x': Read-only file system",
            "mktemp: cannot create '/tmp/x': Read-only file system",
        ),
    ] {
        assert_eq!(read(output).1, expected);
    }
}

#[test]
fn no_line_of_a_statement_is_shown_whatever_it_looks_like() {
    for output in [
        "ERROR:  x\nQUERY:  SELECT\nERROR:  hunter2\nDETAIL:  hunter2\npg_restore: hunter2\nhunter2",
        "ERROR:  x\nCONTEXT:  SQL statement \"CREATE\nHINT:  hunter2\npsql: hunter2\"\nPL/pgSQL function f() line 3 at 'hunter2'",
        "ERROR:  refused: CREATE ROLE etl\nPASSWORD 'hunter2'\nDETAIL:  hunter2\nHINT:  hunter2",
        "ERROR:  x\nSTATEMENT:  hunter2\nERROR:  hunter2",
        "pg_restore: error: could not execute query: ERROR:  x\nCommand was: COMMENT 'hunter2\n\
         pg_restore: from TOC entry 1; 2 3 hunter2\npg_restore: error: could not execute query: ERROR:  hunter2",
        "pg_dump: error: query failed: ERROR:  x\npg_dump: error: query was: hunter2\nLOCK TABLE hunter2",
        "ERROR:  x\nCONTEXT:  COPY t, line 2, column a: \"hunter2\"",
        "ERROR:  x\nCONTEXT:  COPY t, line 2: \"1\thunter2\"\nhunter2",
        "ERROR:  x\nCONTEXT:  remote SQL command: hunter2",
        "NOTICE:  x\nhunter2\nLINE 1: hunter2\nERROR:  y",
    ] {
        let (lines, _) = read(output);
        assert!(!lines.is_empty(), "{output}");
    }
}

#[test]
fn a_context_names_the_function_or_the_line_of_the_data() {
    let output = "ERROR:  x\nLINE 1: hunter2\n   ^\nQUERY:  SELECT hunter2\n\
        CONTEXT:  PL/pgSQL function public.f_slug(text) line 1 at RETURN\nSQL statement \"hunter2\"\n\
        SQL function \"g\" statement 1\nCommand was: hunter2\nPL/pgSQL function hunter2() line 1 at RETURN";
    let expected = "ERROR:  x | PL/pgSQL function public.f_slug(text) line 1 at RETURN | SQL function \"g\" statement 1";
    assert_eq!(read(output).1, expected);
    let output = "ERROR:  x\nCONTEXT:  COPY t, line 2, column a: \"hunter2\"";
    assert_eq!(read(output).1, "ERROR:  x | COPY t, line 2, column a");
}

#[tokio::test]
async fn the_rest_of_a_long_line_is_not_read_as_another_line() {
    let script = "{ printf 'ERROR:  '; head -c 1992 /dev/zero | tr '\\0' x; printf 'HINT:  hunter2\\n'; } >&2; exit 1";
    let program = Program::new("sh").args(["-c", script]).of_postgres();
    let failure = program.run(ExitCode::Restore).await.unwrap_err();
    assert!(!failure.chain().contains(MARKER));
    assert!(failure.chain().contains("ERROR:  xxx"));
}

/// What a program prints into the log.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a program that fails. Returns its failure, after checking that neither the report nor the most detailed log
/// contains [`MARKER`], and that the report contains the whole error.
async fn failed<T: std::fmt::Debug>(running: impl Future<Output = Result<T, Failure>>) -> Failure {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let failure = running.await.unwrap_err();
    let operation = "launch-i-0123abcd".parse().unwrap();
    let report = crate::agent::run_once::failed(&operation, &failure).to_line();
    drop(guard);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("ERROR:"), "{log}");
    assert!(!log.contains(MARKER), "{log}");
    let chain = failure.chain();
    assert!(
        !chain.contains(MARKER) && !report.contains(MARKER),
        "{chain}"
    );
    let cause = chain.split(" | ").next().unwrap().replace('"', "\\\"");
    assert!(report.contains(&cause), "{report}");
    failure
}

/// Creates a database with this script, and restores its dump with the arguments of a restore. Returns the failure.
async fn failed_restore(cluster: &Cluster, script: &str) -> String {
    let postgres = cluster.postgres();
    cluster
        .sql(
            "postgres",
            "DROP DATABASE IF EXISTS source; DROP DATABASE IF EXISTS target",
        )
        .await;
    for database in ["source", "target"] {
        let script = format!("CREATE DATABASE {database} TEMPLATE template0");
        cluster.sql("postgres", &script).await;
    }
    cluster.sql("source", script).await;
    let dump = postgres
        .tool("pg_dump")
        .args(["-Fc", "-Z0", "-d", "source"]);
    let dump = dump.output(ExitCode::Dump).await.unwrap();
    let pg_restore = postgres
        .tool("pg_restore")
        .args([
            "--format=custom",
            "--exit-on-error",
            "--verbose",
            "-d",
            "target",
        ])
        .input(dump);
    let failure = failed(pg_restore.run(ExitCode::Restore)).await;
    assert_eq!(failure.code, ExitCode::Restore);
    failure.chain()
}

#[tokio::test]
async fn a_failed_restore_begins_with_the_error_and_names_the_object() {
    let cluster = Cluster::start();
    let body = "  total := total + 1; -- hunter2\nERROR:  hunter2\npg_restore: error: hunter2\n"
        .repeat(20);
    let function = format!(
        "CREATE FUNCTION close_month(m int) RETURNS int LANGUAGE plpgsql SET work_mem = '5MB' AS $$\n/*{body}*/ BEGIN RETURN 1; END $$;
         UPDATE pg_proc SET proconfig = '{{operator_precedence_warning=off}}' WHERE proname = 'close_month'"
    );
    let chain = failed_restore(&cluster, &function).await;
    let begin = "pg_restore failed (exit status: 1): pg_restore: error: could not execute query: ERROR:  \
        unrecognized configuration parameter \"operator_precedence_warning\" | pg_restore: from TOC entry ";
    assert!(chain.starts_with(begin), "{chain}");
    assert!(
        chain.ends_with(" FUNCTION close_month(integer) postgres"),
        "{chain}"
    );

    let index = "CREATE FUNCTION inner_text(value text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT value';
        CREATE FUNCTION f_slug(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN trim('hunter2' FROM inner_text(value)); END $$;
        CREATE TABLE product (name text); INSERT INTO product VALUES ('a');
        CREATE INDEX product_slug ON product (f_slug(name));";
    let chain = failed_restore(&cluster, index).await;
    assert!(
        chain.contains("ERROR:  function inner_text(text) does not exist | "),
        "{chain}"
    );
    assert!(
        chain.contains(" INDEX product_slug postgres | HINT:  No function"),
        "{chain}"
    );
    assert!(
        chain.contains(" | PL/pgSQL function public.f_slug(text) line 1 at RETURN"),
        "{chain}"
    );
}

#[tokio::test]
async fn a_failed_restore_shows_no_password() {
    let cluster = Cluster::start();
    let wrapper = "CREATE EXTENSION postgres_fdw;
        CREATE SERVER dwh FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'hunter2.invalid');";
    let mapping = format!(
        "{wrapper} CREATE USER MAPPING FOR postgres SERVER dwh OPTIONS (user 'etl', password 'hunter2');
         UPDATE pg_user_mapping SET umoptions = umoptions || '{{legacy_option=1}}'"
    );
    let chain = failed_restore(&cluster, &mapping).await;
    assert!(
        chain.contains(r#"ERROR:  invalid option "legacy_option" | "#),
        "{chain}"
    );
    assert!(
        chain.contains("USER MAPPING postgres SERVER dwh"),
        "{chain}"
    );
    let server = format!(
        "{wrapper} UPDATE pg_foreign_server SET srvoptions = srvoptions || '{{legacy_option=1}}'"
    );
    failed_restore(&cluster, &server).await;
    let raising = "CREATE FUNCTION connected(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN RETURN value; END $$;
        CREATE TABLE t (name text); INSERT INTO t VALUES ('a'); CREATE INDEX ON t (connected(name));
        CREATE OR REPLACE FUNCTION connected(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN RAISE EXCEPTION E'no session with % or %\\nhunter2', 'host=dwh password=hunter2',
            'postgres://etl:hunter2@dwh/db' USING DETAIL = current_query(), HINT = 'secret: hunter2'; END $$;";
    let chain = failed_restore(&cluster, raising).await;
    assert!(
        chain.contains("ERROR:  no session with host=dwh password=[hidden]"),
        "{chain}"
    );
    for connection in [
        "host=dwh password=a hunter2",
        "postgres://u:hunter2%zz@dwh",
        "postgres://u:hunter2@[dwh",
    ] {
        let subscription = format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p WITH (connect = false, slot_name = NONE);
             UPDATE pg_subscription SET subconninfo = '{connection}'"
        );
        let chain = failed_restore(&cluster, &subscription).await;
        assert!(chain.contains("SUBSCRIPTION s postgres"), "{chain}");
        let delete = "DELETE FROM pg_subscription";
        cluster.sql("source", delete).await;
    }
}

#[tokio::test]
async fn a_failed_script_and_a_failed_backup_show_no_password() {
    let cluster = Cluster::start();
    let postgres = cluster.postgres();
    for script in [
        "CREATE ROLE etl PASSWORD 'hunter2' no_option",
        "ALTER ROLE nobody_here PASSWORD 'hunter2'",
        "SELECT no_function('hunter2')",
        "CREATE USER MAPPING FOR postgres SERVER none OPTIONS (password 'hunter2')",
        "DO $$ BEGIN EXECUTE E'CREATE ROLE etl\nPASSWORD ''hunter2'' no_option'; END $$",
        "SELECT dblink('host=x password=hunter2', 'SELECT 1')",
        "CREATE TABLE t (a int CHECK (a > 1), password text); INSERT INTO t VALUES (1, 'hunter2')",
        "CREATE SUBSCRIPTION s CONNECTION 'host=x passwrd hunter2' PUBLICATION p WITH (connect = false)",
    ] {
        failed(postgres.script("postgres", script, ExitCode::Restore)).await;
    }
    cluster
        .sql("postgres", "CREATE TABLE public.locked AS SELECT 'hunter2'")
        .await;
    let lock = "BEGIN; LOCK public.locked; SELECT pg_sleep(60);";
    let mut session = postgres
        .tool("psql")
        .args(["-X", "-c", lock, "-d", "postgres"]);
    session = session.label("the session that locks the table");
    let locking = session.output(ExitCode::Internal);
    let dump = async {
        let locked = "SELECT to_json(count(*)) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'public.locked'::regclass";
        while postgres
            .query::<u64>("postgres", locked, ExitCode::Internal)
            .await
            .unwrap()
            == 0
        {}
        let pg_dump = postgres
            .tool("pg_dump")
            .args(["--lock-wait-timeout=1", "-d", "postgres"]);
        failed(pg_dump.output(ExitCode::Dump)).await.chain()
    };
    let chain = tokio::select! {
        chain = dump => chain,
        ended = locking => panic!("the table is not locked: {ended:?}"),
    };
    assert!(
        chain.contains(": ERROR:  canceling statement due to"),
        "{chain}"
    );
    assert!(
        chain.contains("LOCK TABLE public.locked IN ACCESS SHARE MODE"),
        "{chain}"
    );
}
