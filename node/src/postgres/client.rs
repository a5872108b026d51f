//! Runs the server's own tools (`psql`, `pg_dump`, `pg_restore`), on the node or inside the application's container.

use std::ffi::OsString;

use serde::de::DeserializeOwned;
use shared::exit_code::ExitCode;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::Program;
use crate::postgres::encoding;
use crate::postgres::quote::{connection_string, connection_string_with_options};
use crate::postgres::session;
use crate::settings::{PostgresSettings, Server};

/// The database for statements that concern the whole cluster. The swap renames databases under other sessions, but
/// never under this one.
pub(crate) const ADMIN_DATABASE: &str = "template1";

/// Marks the agent's own tools: `application_name` on the server, and `PGAPPNAME` of the processes in a container.
pub(crate) const APPLICATION_NAME: &str = "rekindle";

/// Sets the client's encoding to the database's, so that nothing is converted and nothing is lost in a conversion. It
/// prints nothing.
const OWN_ENCODING: &str =
    "SELECT pg_catalog.set_config('client_encoding', pg_catalog.getdatabaseencoding(), false)
  AS rekindle \\gset\n";

/// Runs a tool with the password that the container has for its own server, so that the password never leaves the
/// container. The usual images have it in `POSTGRES_PASSWORD`, or in the file that `POSTGRES_PASSWORD_FILE` names.
const WITH_OWN_PASSWORD: &str = r#"
if [ -z "${PGPASSWORD-}${PGPASSFILE-}" ]; then
  if [ -n "${POSTGRES_PASSWORD-}" ]; then
    PGPASSWORD=$POSTGRES_PASSWORD; export PGPASSWORD
  elif [ -r "${POSTGRES_PASSWORD_FILE-}" ]; then
    PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); export PGPASSWORD
  fi
fi
exec "$0" "$@""#;

/// Returns the statements that begin each psql session. They print nothing.
pub(crate) fn session_start() -> Vec<u8> {
    [OWN_ENCODING, &session::without_timeouts()].concat().into()
}

/// A Postgres server and how to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    settings: PostgresSettings,
}

impl Postgres {
    pub(crate) fn new(settings: PostgresSettings) -> Self {
        Self { settings }
    }

    /// Returns the name of the server's container, or `None` if the server does not run in one.
    pub(crate) fn container(&self) -> Option<&str> {
        match &self.settings.server {
            Server::Container(name) => Some(name),
            Server::Direct { .. } => None,
        }
    }

    /// Returns a tool of the server, such as `pg_dump`. Connection options are in the environment (`PGHOST`, `PGUSER`
    /// …), so that the arguments are the same in a container and outside.
    pub(crate) fn tool(&self, program: &str) -> Program {
        let options = session::options();
        let variables = [
            ("PGUSER", self.settings.user.as_str()),
            ("PGAPPNAME", APPLICATION_NAME),
            ("PGOPTIONS", &options),
            // Messages are for people only; their language must not depend on the container's locale.
            ("LC_MESSAGES", "C"),
        ];
        match &self.settings.server {
            Server::Container(name) => {
                let mut tool = Program::new("docker").of_postgres().args(["exec", "-i"]);
                for (variable, value) in variables {
                    tool = tool.arg("--env").arg(format!("{variable}={value}"));
                }
                tool.arg(name)
                    .args(["sh", "-c", WITH_OWN_PASSWORD, program])
                    .label(program)
            }
            Server::Direct { host, port } => {
                let mut tool = Program::new(program).of_postgres();
                for (variable, value) in variables {
                    tool = tool.env(variable, value);
                }
                tool.env("PGHOST", host).env("PGPORT", port.to_string())
            }
        }
    }

    /// Runs a script in one psql session, which stops at the first error, and returns its output: unaligned tuples
    /// only.
    pub(crate) async fn script(
        &self,
        database: &str,
        script: &str,
        code: ExitCode,
    ) -> Result<String> {
        let psql = self.psql(connection_string(database), database, script)?;
        stopping(psql, code).await
    }

    /// Runs a script like [`Self::script`], in a session with these options instead of the usual ones.
    pub(crate) async fn script_with_options(
        &self,
        database: &str,
        options: &str,
        script: &str,
        code: ExitCode,
    ) -> Result<String> {
        let connection = connection_string_with_options(database, options);
        stopping(self.psql(connection, database, script)?, code).await
    }

    /// Runs every statement of a script in one psql session. If the server refuses one, its error is only logged.
    ///
    /// # Errors
    ///
    /// The session cannot begin, or the server ends it.
    pub(crate) async fn try_each(
        &self,
        database: &str,
        script: &str,
        code: ExitCode,
    ) -> Result<()> {
        let psql = self.psql(connection_string(database), database, script)?;
        psql.run(code).await
    }

    /// Returns psql with a script for its standard input, so that no process list shows the script.
    fn psql(&self, connection: OsString, database: &str, script: &str) -> Result<Program> {
        if script.contains('\0') {
            // psql ends the line there, possibly within quotes, and would run the rest as something else.
            let message = format!(
                "refused to run a script in the database {database:?}: it contains a zero byte, which psql cannot read; \
                 a name or a comment in the backup is damaged"
            );
            return Err(Failure::new(ExitCode::Verification, message));
        }
        let script = [&session_start(), &encoding::encode(script)[..]].concat();
        Ok(self
            .tool("psql")
            .args(["-X", "-q", "-A", "-t", "-w", "-d"])
            .arg(connection)
            .label(format!("psql on database {database:?}"))
            .input(script))
    }

    /// Runs one query that returns one JSON value, and parses the value.
    pub(crate) async fn query<T: DeserializeOwned>(
        &self,
        database: &str,
        query: &str,
        code: ExitCode,
    ) -> Result<T> {
        let output = self.script(database, query, code).await?;
        // Without the query: it is long, and the reason must fit into the report.
        serde_json::from_str(output.trim()).or_fail(code, || {
            format!("cannot parse the result of a query on database {database:?}")
        })
    }
}

/// Runs psql to its end or to the first error, and returns its output.
async fn stopping(psql: Program, code: ExitCode) -> Result<String> {
    let psql = psql.quiet().args(["-v", "ON_ERROR_STOP=1"]);
    Ok(encoding::decode(&psql.output(code).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::quote::{identifier, literal};
    use crate::testing::Cluster;

    #[tokio::test]
    async fn a_script_with_a_zero_byte_is_refused() {
        let cluster = Cluster::start();
        let hostile = "a\0\nb' \\! exit 3 \n";
        let script = format!("SELECT {};\nSELECT {};\n", literal("a\0"), literal(hostile));
        let postgres = cluster.postgres();
        let refused = postgres.script("postgres", &script, ExitCode::Restore);
        let failure = refused.await.unwrap_err();
        assert_eq!(failure.code, ExitCode::Verification);
    }

    #[tokio::test]
    async fn a_long_script_with_a_long_output_does_not_block() {
        let cluster = Cluster::start();
        let word = "x".repeat(100);
        let script = format!("SELECT '{word}';\n").repeat(20_000);
        let output = cluster.sql("postgres", &script).await;
        assert_eq!(output.lines().count(), 20_000);
    }

    #[tokio::test]
    async fn settings_of_roles_and_databases_do_not_affect_scripts() {
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
        let output = postgres.script("template1", script, ExitCode::Internal);
        assert_eq!(output.await.unwrap(), "\npg_proc|a\\ü€\n");
    }

    #[tokio::test]
    async fn names_in_every_encoding_are_unchanged() {
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
