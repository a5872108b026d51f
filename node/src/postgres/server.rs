//! Which cluster this is, and how new.

use serde::Deserialize;
use shared::report::ExitCode;

use crate::agent::failure::{OrFail as _, Result};
use crate::postgres::{ADMIN_DATABASE, Postgres};

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
        let said: Said = postgres.query(ADMIN_DATABASE, IDENTITY, code).await?;
        let version = said
            .version
            .parse()
            .or_fail(code, || "read the server's version")?;
        let identifier = u64::from_str_radix(&said.identifier, 16)
            .or_fail(code, || "read the server's system identifier")?;
        Ok(Self {
            version,
            // The control file has the number in the byte order of every platform that Postgres runs on in EC2.
            system_identifier: identifier.swap_bytes().to_string(),
        })
    }
}

#[derive(Deserialize)]
struct Said {
    version: String,
    identifier: String,
}

/// The identifier is the first eight bytes of the control file, whatever the version; `pg_control_system()` is there only
/// from 9.6 on.
const IDENTITY: &str = "SELECT json_build_object('version', current_setting('server_version_num'),
  'identifier', encode(pg_read_binary_file('global/pg_control', 0, 8), 'hex'))";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test]
    async fn the_control_file_says_what_the_function_says() {
        let cluster = Cluster::start();
        let server = Server::ask(&cluster.postgres()).await.unwrap();
        assert!(server.version >= 100_000, "{server:?}");
        let function = "SELECT system_identifier FROM pg_control_system()";
        assert_eq!(
            cluster.sql("template1", function).await,
            server.system_identifier
        );
    }
}
