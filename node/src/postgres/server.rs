//! The identity and version of the cluster.

use serde::Deserialize;
use shared::exit_code::ExitCode;

use crate::agent::failure::{OrFail as _, Result};
use crate::postgres::client::{ADMIN_DATABASE, Postgres};

/// A cluster's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// `server_version_num`, such as 150018.
    pub(crate) version: u32,
    /// The system identifier, which `initdb` generates for each cluster.
    pub(crate) system_identifier: String,
}

impl Server {
    /// Reads the identity and version from the server.
    pub(crate) async fn read(postgres: &Postgres) -> Result<Self> {
        let code = ExitCode::PostgresUnreachable;
        let identity: Identity = postgres.query(ADMIN_DATABASE, IDENTITY, code).await?;
        let version = identity
            .version
            .parse()
            .or_fail(ExitCode::Internal, || "cannot parse the server's version")?;
        let identifier = u64::from_str_radix(&identity.identifier, 16).or_fail(
            ExitCode::Internal,
            || "cannot parse the server's system identifier",
        )?;
        Ok(Self {
            version,
            // The control file is little-endian on every architecture of EC2.
            system_identifier: identifier.swap_bytes().to_string(),
        })
    }
}

#[derive(Deserialize)]
struct Identity {
    version: String,
    identifier: String,
}

/// In every version, the identifier is the first eight bytes of the control file. `pg_control_system()` exists only
/// from version 9.6 on.
const IDENTITY: &str = "SELECT json_build_object('version', current_setting('server_version_num'),
  'identifier', encode(pg_read_binary_file('global/pg_control', 0, 8), 'hex'))";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test]
    async fn the_control_file_has_the_identifier_that_the_function_returns() {
        let cluster = Cluster::start();
        let server = Server::read(&cluster.postgres()).await.unwrap();
        assert!(server.version >= 100_000, "{server:?}");
        let function = "SELECT system_identifier FROM pg_control_system()";
        assert_eq!(
            cluster.sql("template1", function).await,
            server.system_identifier
        );
    }
}
