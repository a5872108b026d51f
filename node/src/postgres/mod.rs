//! Runs the server's own tools: on the node, or inside the application's container.

pub mod archive;
pub(crate) mod container;
pub(crate) mod database;
pub(crate) mod encoding;
pub(crate) mod server;
pub(crate) mod setting;
pub mod statement;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;

use serde::de::DeserializeOwned;
use shared::report::ExitCode;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::settings::{PostgresSettings, Server};

/// The database for statements that concern the cluster. Databases are renamed under other sessions, never
/// under this one.
pub(crate) const ADMIN_DATABASE: &str = "template1";

/// By which the server, and in a container every process, tells the agent's own tools from others.
pub(crate) const APPLICATION_NAME: &str = "rekindle";

/// What every session of the tools runs with, whatever the databases and roles are set to: of all sources of a
/// setting, the connection has the last word.
pub(crate) const SESSION: &str = "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 \
    -c search_path= -c standard_conforming_strings=on -c datestyle=ISO";

/// Lets a session speak the database's own encoding, so that nothing is converted, or lost in a conversion. It
/// prints nothing.
const OWN_ENCODING: &str =
    "SELECT pg_catalog.set_config('client_encoding', pg_catalog.getdatabaseencoding(), false)
  AS rekindle \\gset\n";

/// What of the agent's own environment the tools see: how to find and reach things, and no AWS credentials.
const KEPT_VARIABLES: [&str; 12] = [
    "PATH",
    "HOME",
    "TZ",
    "REKINDLE_ROOT",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "PGPASSFILE",
    "PGPASSWORD",
    "PGSSLMODE",
    "PGSSLROOTCERT",
];

/// A Postgres server, reached as the settings say.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    settings: PostgresSettings,
}

impl Postgres {
    pub(crate) fn new(settings: PostgresSettings) -> Self {
        Self { settings }
    }

    /// Returns the server's container, if it has one.
    pub(crate) fn container(&self) -> Option<&str> {
        match &self.settings.server {
            Server::Container(name) => Some(name),
            Server::Direct { .. } => None,
        }
    }

    /// Prepares a tool of the server, such as `pg_dump`. The child is killed when it is dropped; its standard
    /// streams are inherited until the caller says otherwise. Connection options come from the environment
    /// (`PGHOST`, `PGUSER` …), so that the arguments are the same in a container and outside.
    pub(crate) fn tool(&self, program: &str) -> Command {
        let mut variables = vec![("PGUSER", self.settings.user.clone())];
        variables.push(("PGAPPNAME", APPLICATION_NAME.to_owned()));
        variables.push(("PGOPTIONS", SESSION.to_owned()));
        // A message's text is read by people only; its language must not depend on the container's locale.
        variables.push(("LC_MESSAGES", "C".to_owned()));
        let mut command = match &self.settings.server {
            Server::Container(name) => {
                let mut command = container::docker();
                command.args(["exec", "-i"]);
                for (variable, value) in &variables {
                    command.arg("--env").arg(format!("{variable}={value}"));
                }
                command.arg(name);
                command.args(["sh", "-c", container::WITH_OWN_PASSWORD, program]);
                command
            }
            Server::Direct { host, port } => {
                let mut command = Command::new(program);
                command
                    .env_clear()
                    .envs(kept_environment())
                    .envs(variables)
                    .env("PGHOST", host)
                    .env("PGPORT", port.to_string());
                command
            }
        };
        command.kill_on_drop(true);
        command
    }

    /// Runs a script in one psql session that stops at the first error, and returns what it printed:
    /// unaligned tuples only. The script goes through standard input, so that nothing of it shows in a
    /// process list.
    pub(crate) async fn script(
        &self,
        database: &str,
        script: &str,
        code: ExitCode,
    ) -> Result<String> {
        if script.contains('\0') {
            // psql ends the line there, which may be within quotes: what follows would not be what was meant.
            let message = format!("a script for database {database:?} has a zero byte");
            return Err(Failure::new(ExitCode::Verification, message));
        }
        let mut command = self.tool("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(connection_string(database));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .or_fail(code, || "start psql")?;
        let stdin = child.stdin.take();
        let writing = async {
            if let Some(mut stdin) = stdin {
                let script = [OWN_ENCODING.as_bytes(), &encoding::encode(script)].concat();
                // A psql that ended early says why on its standard error; the broken pipe adds nothing to that.
                stdin.write_all(&script).await.ok();
            }
        };
        // It answers while it reads: neither may wait for the other to be done.
        let ((), output) = tokio::join!(writing, child.wait_with_output());
        let output = output.or_fail(code, || "wait for psql")?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(
                code,
                format!("psql on database {database:?}: {}", words.trim()),
            ));
        }
        Ok(encoding::decode(&output.stdout))
    }

    /// Runs one query that returns one JSON value, and reads it.
    pub(crate) async fn query<T: DeserializeOwned>(
        &self,
        database: &str,
        query: &str,
        code: ExitCode,
    ) -> Result<T> {
        let output = self.script(database, query, code).await?;
        serde_json::from_str(output.trim())
            .or_fail(code, || format!("read the answer to {query:?}"))
    }
}

pub(crate) fn kept_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| KEPT_VARIABLES.iter().any(|kept| name == kept))
}

/// Names a database to a client as a connection string: a bare name with `=` in it, or one that begins with
/// `postgres://`, would be read as a connection string itself.
pub(crate) fn connection_string(database: &str) -> OsString {
    let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
    OsString::from_vec(encoding::encode(&format!("dbname='{quoted}'")))
}

/// Quotes a name for SQL.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for SQL, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test]
    async fn no_text_brings_psql_to_a_command_of_its_own() {
        let cluster = Cluster::start();
        let hostile = "a\0\nb' \\! exit 3 \n";
        let script = format!("SELECT {};\nSELECT {};\n", literal("a\0"), literal(hostile));
        let postgres = cluster.postgres();
        let refused = postgres.script("postgres", &script, ExitCode::Restore);
        let failure = refused.await.unwrap_err();
        assert_eq!(failure.code, ExitCode::Verification);
    }

    #[tokio::test]
    async fn a_long_script_with_a_long_answer_comes_to_its_end() {
        let cluster = Cluster::start();
        let word = "x".repeat(100);
        let script = format!("SELECT '{word}';\n").repeat(20_000);
        let answer = cluster.sql("postgres", &script).await;
        assert_eq!(answer.lines().count(), 20_000);
    }

    #[tokio::test]
    async fn no_setting_of_a_role_or_database_stands_in_the_way() {
        let cluster = Cluster::start();
        for target in [
            "DATABASE template1",
            "ROLE postgres",
            "ROLE postgres IN DATABASE template1",
        ] {
            for setting in [
                "default_transaction_read_only = on",
                "statement_timeout = 1",
                "standard_conforming_strings = off",
                "client_encoding = 'LATIN1'",
                "search_path = own, pg_catalog",
            ] {
                let script = format!("ALTER {target} SET {setting}");
                cluster.sql("postgres", &script).await;
            }
        }
        let script = "CREATE SCHEMA own; CREATE VIEW own.pg_class AS SELECT 1;";
        cluster.sql("template1", script).await;
        let script = "SELECT pg_sleep(0.01); SELECT relname, 'a\\ü€' FROM pg_class WHERE relname = 'pg_proc'";
        let postgres = cluster.postgres();
        let answer = postgres.script("template1", script, ExitCode::Internal);
        assert_eq!(answer.await.unwrap(), "\npg_proc|a\\ü€\n");
    }

    #[tokio::test]
    async fn names_of_every_encoding_are_passed_on_as_they_are() {
        let cluster = Cluster::start();
        for (encoding, name) in [
            ("LATIN1", &b"gr\xf6\xdfe"[..]),
            ("SQL_ASCII", b"\xff\xc3"),
            ("EUC_JP", b"\xc9\xbd"),
        ] {
            let database = encoding.to_lowercase();
            let script = format!(
                "CREATE DATABASE {database} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
            );
            cluster.sql("postgres", &script).await;
            let name = encoding::decode(name);
            let table = identifier(&name);
            let script = format!(
                "CREATE TABLE {table} (); SELECT relname FROM pg_class WHERE relname = '{name}'"
            );
            assert_eq!(cluster.sql(&database, &script).await, name);
        }
    }
}
