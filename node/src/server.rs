//! Which cluster this is, and how new.

use serde::Deserialize;
use shared::report::ExitCode;

use crate::failure::{OrFail as _, Result};
use crate::postgres::{ADMIN_DATABASE, Postgres};

/// The first version with `pg_control_system()`.
const WITH_CONTROL_FUNCTIONS: u32 = 90_600;

/// A cluster's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// `server_version_num`, such as 150018.
    pub(crate) version: u32,
    /// What tells this cluster from every other one, made by `initdb`.
    pub(crate) system_identifier: String,
}

impl Server {
    /// Asks the server.
    pub(crate) async fn ask(postgres: &Postgres) -> Result<Self> {
        let code = ExitCode::PostgresUnreachable;
        let version: Text = postgres.query(ADMIN_DATABASE, VERSION, code).await?;
        let version = version
            .0
            .parse()
            .or_fail(code, || "read the server's version")?;
        let query = if version >= WITH_CONTROL_FUNCTIONS {
            IDENTIFIER
        } else {
            CONTROL_FILE
        };
        let Text(identifier) = postgres.query(ADMIN_DATABASE, query, code).await?;
        let system_identifier = if version >= WITH_CONTROL_FUNCTIONS {
            identifier
        } else {
            let swapped = u64::from_str_radix(&identifier, 16);
            let swapped = swapped.or_fail(code, || "read the server's system identifier")?;
            // The control file has the number in the byte order of every platform that Postgres 9.4 met on EC2.
            swapped.swap_bytes().to_string()
        };
        Ok(Self {
            version,
            system_identifier,
        })
    }
}

#[derive(Deserialize)]
struct Text(String);

const VERSION: &str = "SELECT to_json(current_setting('server_version_num'))";
const IDENTIFIER: &str = "SELECT to_json(system_identifier::text) FROM pg_control_system()";
/// The identifier is the first eight bytes of the control file, whatever the version.
const CONTROL_FILE: &str =
    "SELECT to_json(encode(pg_read_binary_file('global/pg_control', 0, 8), 'hex'))";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test]
    async fn the_control_file_says_what_the_function_says() {
        let cluster = Cluster::start();
        let server = Server::ask(&cluster.postgres()).await.unwrap();
        assert!(server.version >= 100_000, "{server:?}");
        let Text(hex) = cluster
            .postgres()
            .query("postgres", CONTROL_FILE, ExitCode::Internal)
            .await
            .unwrap();
        let swapped = u64::from_str_radix(&hex, 16).unwrap();
        assert_eq!(swapped.swap_bytes().to_string(), server.system_identifier);
    }
}
