//! The checks before a restore changes any database: the server's version, its extensions and its free disk space.

use std::collections::BTreeSet;

use serde::Deserialize;
use shared::exit_code::ExitCode;
use shared::manifest::Index;

use crate::agent::failure::{Failure, Result};
use crate::objects::contents::Contents;
use crate::postgres::server::Server;
use crate::postgres::{ADMIN_DATABASE, Postgres};

/// Bytes that a restore needs in addition to the databases and the write-ahead log.
const DISK_MARGIN: u64 = 256 * 1024 * 1024;

/// Reads [`Capabilities`] in one session. The unit of `max_wal_size` is MB or segments of 16 MB; version 9.4 does not
/// have the setting.
const CAPABILITIES: &str = "SELECT json_build_object(
  'extensions', (SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions),
  'directory', current_setting('data_directory'),
  'wal_bytes', (SELECT coalesce(max(setting::bigint * CASE unit WHEN '16MB' THEN 16777216 ELSE 1048576 END), 1073741824)
    FROM pg_settings WHERE name = 'max_wal_size'))";

/// The server's properties that limit what can be restored.
#[derive(Debug, Deserialize)]
pub(crate) struct Capabilities {
    /// The extensions with installed files.
    extensions: BTreeSet<String>,
    /// The data directory, as a path of the server.
    directory: String,
    /// The maximum size of the write-ahead log, in bytes.
    wal_bytes: u64,
}

impl Capabilities {
    /// Reads the properties from the server.
    pub(crate) async fn read(postgres: &Postgres) -> Result<Self> {
        let code = ExitCode::PostgresUnreachable;
        postgres.query(ADMIN_DATABASE, CAPABILITIES, code).await
    }

    /// Checks that the backup can be restored on this server.
    pub(crate) async fn check(
        &self,
        postgres: &Postgres,
        server: &Server,
        index: &Index,
        contents: &Contents,
    ) -> Result<()> {
        let (server_major, backup_major) = (major(server.version), major(index.versions.server));
        if server_major < backup_major {
            let message = format!(
                "cannot restore the backup of PostgreSQL {} on a server of version {}; start the same or a newer major version",
                version_name(backup_major),
                version_name(server_major)
            );
            return Err(Failure::new(ExitCode::ServerTooOld, message));
        }
        check_extensions(self, contents)?;
        let bytes = index
            .databases
            .iter()
            .map(|database| database.database_bytes);
        check_space(postgres, self, bytes.fold(0, u64::saturating_add)).await
    }
}

async fn check_space(
    postgres: &Postgres,
    capabilities: &Capabilities,
    database_bytes: u64,
) -> Result<()> {
    let directory = &capabilities.directory;
    let needed = database_bytes
        .saturating_add(database_bytes / 10)
        .saturating_add(capabilities.wal_bytes)
        .saturating_add(DISK_MARGIN);
    let df = postgres.tool("df").args(["-Pk", directory]);
    let output = df.output(ExitCode::Internal).await?;
    let text = String::from_utf8_lossy(&output);
    let free = free_bytes(&text).ok_or_else(|| {
        let message = format!("cannot parse the output of df -Pk {directory}: {text:?}");
        Failure::new(ExitCode::Internal, message)
    })?;
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "the restore needs {} MiB, but {directory} has only {} MiB free; give the node a larger volume",
        needed.div_ceil(1024 * 1024),
        free / (1024 * 1024)
    );
    Err(Failure::new(ExitCode::DiskTooSmall, message))
}

fn check_extensions(capabilities: &Capabilities, contents: &Contents) -> Result<()> {
    let missing: BTreeSet<String> = contents
        .databases
        .iter()
        .flat_map(|database| &database.properties.extensions)
        .filter(|extension| !capabilities.extensions.contains(&extension.name))
        .map(|extension| format!("{} {}", extension.name, extension.version))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.into_iter().collect();
    let message = format!(
        "the server does not have the extensions {}; install their files on the new node",
        names.join(", ")
    );
    Err(Failure::new(ExitCode::ExtensionMissing, message))
}

/// Returns the number in the fourth column of the last line, in bytes. With `-P`, a long device name does not break the
/// line.
fn free_bytes(df: &str) -> Option<u64> {
    let kibibytes: u64 = df.lines().last()?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// Returns the version without its minor part; the result is ordered like the version. Up to 9.6, the second number is
/// part of the major version.
fn major(version: u32) -> u32 {
    let minor = if version >= 100_000 { 10_000 } else { 100 };
    version - version % minor
}

fn version_name(major: u32) -> String {
    if major >= 100_000 {
        (major / 10_000).to_string()
    } else {
        format!("{}.{}", major / 10_000, major / 100 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn major_versions_are_ordered_and_have_their_usual_names() {
        assert!(major(90_426) < major(90_500) && major(90_624) < major(100_000));
        assert_eq!(major(150_018), major(150_001));
        assert_eq!(version_name(major(90_426)), "9.4");
        assert_eq!(version_name(major(150_018)), "15");
    }

    #[test]
    fn free_space_is_in_the_fourth_column() {
        let output = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
            /dev/vda1 100 60 40 60% /\n";
        assert_eq!(free_bytes(output), Some(40 * 1024));
        assert_eq!(free_bytes("df: no such file\n"), None);
    }

    #[tokio::test]
    async fn a_disk_that_is_too_small_is_detected_before_the_restore() {
        let cluster = Cluster::start();
        let postgres = cluster.postgres();
        let capabilities = Capabilities::read(&postgres).await.unwrap();
        check_space(&postgres, &capabilities, 1).await.unwrap();
        let failure = check_space(&postgres, &capabilities, 1 << 60)
            .await
            .unwrap_err();
        assert_eq!(failure.code, ExitCode::DiskTooSmall);
        assert!(
            failure.chain().starts_with("the restore needs 12094"),
            "{failure}"
        );
    }
}
