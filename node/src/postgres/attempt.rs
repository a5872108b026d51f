//! Tries statements that the server may refuse, and reads why it refused them.
//!
//! The session goes on after a refusal, also within a transaction: a function of the session runs each statement in a
//! subtransaction, and returns the error. psql's messages would not show which statement an error belongs to.

use serde::Deserialize;
use shared::exit_code::ExitCode;
use shared::report::exceptions::Exception;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::without_secrets;
use crate::postgres::Postgres;
use crate::postgres::quote::literal;

/// Defines the function of the session. It prints nothing. `plpgsql` can be missing: every superuser may drop it.
const BEGIN: &str = "
CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE FUNCTION pg_temp.rekindle_try(statement text) RETURNS json LANGUAGE plpgsql AS $try$
DECLARE state text; message text; detail text; hint text;
BEGIN
  EXECUTE statement;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
    detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN json_build_object('state', state, 'message', message, 'detail', detail, 'hint', hint);
END $try$;
";

/// Switches off the event triggers that fire in spite of the session's options, and remembers them. They would record or
/// refuse what is tried.
const WITHOUT_EVENT_TRIGGERS: &str = "
SELECT coalesce(string_agg(oid::text, ',') FILTER (WHERE evtenabled = 'A'), '0') AS rekindle_always,
  coalesce(string_agg(oid::text, ',') FILTER (WHERE evtenabled = 'R'), '0') AS rekindle_replica
FROM pg_catalog.pg_event_trigger \\gset
UPDATE pg_catalog.pg_event_trigger SET evtenabled = 'D' WHERE evtenabled IN ('A', 'R');
";
/// Switches these event triggers on again.
const WITH_EVENT_TRIGGERS: &str = "
UPDATE pg_catalog.pg_event_trigger SET evtenabled = 'A' WHERE oid IN (:rekindle_always);
UPDATE pg_catalog.pg_event_trigger SET evtenabled = 'R' WHERE oid IN (:rekindle_replica);
";

/// The settings that `pg_restore` makes in its session, as far as the agent's options do not contain them.
const LIKE_PG_RESTORE: &str = "SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
";

/// The beginnings of the SQLSTATEs of which the server or its node is the cause, and not the statement: conflicts with
/// other sessions, missing memory or disk, a busy lock, an operator, and errors of the operating system. A missing file
/// (58P01) is not among them: a node that lacks a library lacks it later, too.
const OF_THE_NODE: [&str; 8] = [
    "40", "53", "55P03", "57", "58000", "58030", "XX001", "XX002",
];
/// The beginnings of messages with other SQLSTATEs of which the node is the cause.
const MESSAGES_OF_THE_NODE: [&str; 4] = [
    "could not extend file",
    "could not write",
    "could not read",
    "could not fsync",
];
/// The SQLSTATEs of objects that exist already.
const DUPLICATES: [&str; 6] = ["42701", "42710", "42712", "42723", "42P06", "42P07"];

/// An error with which the server refused a statement.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Refusal {
    state: String,
    message: String,
    detail: String,
    hint: String,
}

impl Refusal {
    /// Returns whether the server or its node is the cause, so that the same statement may succeed later.
    fn is_of_the_node(&self) -> bool {
        let mut classes = OF_THE_NODE.iter();
        let mut messages = MESSAGES_OF_THE_NODE.iter();
        classes.any(|class| self.state.starts_with(class))
            || messages.any(|text| self.message.starts_with(text))
    }

    /// Returns the exception, or fails if the server or its node is the cause.
    pub(crate) fn exception(&self, exception: Exception) -> Result<Exception> {
        if self.is_of_the_node() {
            let message = format!(
                "the server could not run a statement: {}; check the server, its disk and its memory",
                exception.text()
            );
            return Err(Failure::new(ExitCode::Restore, message));
        }
        Ok(exception)
    }

    /// Returns whether the object exists already.
    pub(crate) fn is_duplicate(&self) -> bool {
        DUPLICATES.contains(&self.state.as_str())
    }

    /// Returns the error in one line, without secrets.
    pub(crate) fn text(&self) -> String {
        let text = format!("ERROR: {} (SQLSTATE {})", self.message, self.state);
        without_secrets(&text.replace('\n', " "))
    }

    /// Returns the details of the error and the hint in one line, without secrets. They can contain values of rows.
    pub(crate) fn details(&self) -> String {
        let parts = [("DETAIL", &self.detail), ("HINT", &self.hint)];
        let parts = parts.iter().filter(|(_, text)| !text.is_empty());
        let texts: Vec<String> = parts
            .map(|(label, text)| format!("{label}: {text}"))
            .collect();
        without_secrets(&texts.join(" ").replace('\n', " "))
    }
}

/// Tries the statements in one session of a database, with these options of the session instead of the usual ones. Returns
/// for each statement the refusal, or `None`.
pub(crate) async fn try_each(
    postgres: &Postgres,
    database: &str,
    options: Option<&str>,
    statements: Vec<String>,
) -> Result<Vec<Option<Refusal>>> {
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    let attempts: String = statements
        .iter()
        .map(|statement| attempt(statement))
        .collect();
    let script =
        format!("{WITHOUT_EVENT_TRIGGERS}{BEGIN}{LIKE_PG_RESTORE}{attempts}{WITH_EVENT_TRIGGERS}");
    let code = ExitCode::Restore;
    let output = match options {
        Some(options) => {
            let running = postgres.script_with_options(database, options, &script, code);
            running.await?
        }
        None => postgres.script(database, &script, code).await?,
    };
    refusals(&output, statements.len())
}

/// A statement that restores something other than rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The kind of object, such as `DATABASE SETTING`.
    pub(crate) kind: String,
    /// The object's name.
    pub(crate) object: String,
    /// The statement.
    pub(crate) statement: String,
    /// The statement that an operator runs once the cause of a refusal is removed.
    pub(crate) remedy: String,
}

/// Runs the statements `before`, and then tries the others in the same session. Returns an exception for each one that
/// the server refuses. If `is_atomic`, all are in one transaction.
///
/// # Errors
///
/// One of the statements `before` fails, or the server or its node is the cause of a refusal.
pub(crate) async fn try_all(
    postgres: &Postgres,
    session: &str,
    before: &str,
    attempts: &[Attempt],
    is_atomic: bool,
    exceptions_of: Option<&str>,
) -> Result<Vec<Exception>> {
    let tried: String = attempts.iter().map(|one| attempt(&one.statement)).collect();
    let define = if attempts.is_empty() { "" } else { BEGIN };
    let script = if is_atomic {
        format!("{define}BEGIN;\n{before}{tried}COMMIT;\n")
    } else {
        format!("{before}{define}{tried}")
    };
    let output = postgres.script(session, &script, ExitCode::Restore).await?;
    let mut exceptions = Vec::new();
    for (one, refusal) in attempts.iter().zip(refusals(&output, attempts.len())?) {
        let Some(refusal) = refusal else { continue };
        let exception = Exception {
            database: exceptions_of.map(str::to_owned),
            kind: one.kind.clone(),
            object: one.object.clone(),
            error: refusal.text(),
            details: refusal.details(),
            remedy: one.remedy.clone(),
        };
        exceptions.push(refusal.exception(exception)?);
    }
    Ok(exceptions)
}

/// Returns the statement that tries this one. It prints one line for [`refusals`].
fn attempt(statement: &str) -> String {
    format!("SELECT pg_temp.rekindle_try({});\n", literal(statement))
}

/// Reads the output of a script with [`attempt`]s: for each of them the server's refusal, or `None` if it succeeded.
fn refusals(output: &str, attempts: usize) -> Result<Vec<Option<Refusal>>> {
    let read = |line: &str| match line {
        "" => Ok(None),
        line => serde_json::from_str(line).map(Some),
    };
    let refusals: std::result::Result<Vec<_>, _> = output.lines().map(read).collect();
    let refusals = refusals.or_fail(
        ExitCode::Internal,
        || "cannot read the results of tried statements",
    )?;
    if refusals.len() != attempts {
        let message = format!(
            "cannot read the results of {attempts} tried statements: psql returned {}",
            refusals.len()
        );
        return Err(Failure::new(ExitCode::Internal, message));
    }
    Ok(refusals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test]
    async fn each_statement_is_tried_and_its_refusal_is_read() {
        let cluster = Cluster::start();
        cluster.sql("postgres", "DROP EXTENSION plpgsql").await;
        let statements = [
            "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)",
            "CREATE TABLE undone (n int); SELECT 1 / 0",
            "CREATE TABLE kept (n int)",
            "SELECT missing(E'it''s\\n')",
            "SELECT pg_catalog.count(*) FROM kept",
        ];
        let script: String = statements
            .iter()
            .map(|statement| attempt(statement))
            .collect();
        let script = format!("SET search_path = public;\n{BEGIN}BEGIN;\n{script}COMMIT;\n");
        let postgres = cluster.postgres();
        let output = postgres
            .script("postgres", &script, ExitCode::Restore)
            .await;
        let refusals = refusals(&output.unwrap(), statements.len()).unwrap();
        let states: Vec<Option<&str>> = refusals
            .iter()
            .map(|refusal| refusal.as_ref().map(|refusal| refusal.state.as_str()))
            .collect();
        assert_eq!(
            states,
            [None, Some("22012"), Some("42P07"), Some("42883"), None]
        );
        assert!(refusals[2].as_ref().unwrap().is_duplicate());
        let text = refusals[1].as_ref().unwrap().text();
        assert_eq!(text, "ERROR: division by zero (SQLSTATE 22012)");
        let tables =
            "SELECT string_agg(relname, ' ') FROM pg_class WHERE relname IN ('kept', 'undone')";
        assert_eq!(cluster.sql("postgres", tables).await, "kept");
    }

    #[tokio::test]
    async fn no_event_trigger_sees_what_is_tried() {
        let cluster = Cluster::start();
        let script = "CREATE TABLE log (tag text); CREATE FUNCTION write() RETURNS event_trigger LANGUAGE plpgsql
              AS 'BEGIN INSERT INTO public.log VALUES (tg_tag); END';
            CREATE EVENT TRIGGER usual ON ddl_command_end EXECUTE FUNCTION write();
            CREATE EVENT TRIGGER always ON ddl_command_end EXECUTE FUNCTION write();
            CREATE EVENT TRIGGER replica ON ddl_command_end EXECUTE FUNCTION write();
            ALTER EVENT TRIGGER always ENABLE ALWAYS; ALTER EVENT TRIGGER replica ENABLE REPLICA; TRUNCATE log;";
        cluster.sql("postgres", script).await;
        let states = "SELECT string_agg(evtname || evtenabled::text, ' ' ORDER BY evtname) FROM pg_event_trigger";
        let before = cluster.sql("postgres", states).await;
        let postgres = cluster.postgres();
        let options = crate::postgres::session::restore_options(150_000, 1);
        let statements = vec!["CREATE TABLE public.t (n int)".to_owned()];
        let tried = try_each(&postgres, "postgres", Some(&options), statements).await;
        assert_eq!(tried.unwrap(), [None]);
        assert_eq!(
            cluster.sql("postgres", "SELECT count(*) FROM log").await,
            "0"
        );
        assert_eq!(cluster.sql("postgres", states).await, before);
    }

    #[test]
    fn a_lack_of_resources_is_of_the_node() {
        for (state, of_the_node) in [
            ("53100", true),
            ("57P01", true),
            ("55P03", true),
            ("55000", false),
            ("58P01", false),
            ("08001", false),
            ("23503", false),
        ] {
            let refusal = Refusal {
                state: state.to_owned(),
                message: String::new(),
                detail: String::new(),
                hint: String::new(),
            };
            assert_eq!(refusal.is_of_the_node(), of_the_node, "{state}");
        }
    }
}
