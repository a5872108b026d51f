//! Whether a backup fits onto the server, asked before anything is restored.

use std::collections::BTreeSet;

use serde::Deserialize;
use shared::manifest::Index;
use shared::report::ExitCode;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::backup::contents::Contents;
use crate::postgres::server::Server;
use crate::postgres::{ADMIN_DATABASE, Postgres};

/// Bytes that a restore needs beyond the databases' own and the write-ahead log.
const DISK_MARGIN: u64 = 256 * 1024 * 1024;

/// What the server has to offer, in one session. How large the write-ahead log may become before a checkpoint makes room
/// is said in MB; 9.4 counts in segments, and has no such setting.
const OFFER: &str = "SELECT json_build_object(
  'extensions', (SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions),
  'directory', current_setting('data_directory'),
  'log', (SELECT coalesce(max(setting::bigint * CASE unit WHEN '16MB' THEN 16777216 ELSE 1048576 END), 1073741824)
    FROM pg_settings WHERE name = 'max_wal_size'))";

/// What the server has to offer.
#[derive(Debug, Deserialize)]
pub(crate) struct Offer {
    /// Extensions whose files are there.
    extensions: BTreeSet<String>,
    /// Where the data are, as the server sees it.
    directory: String,
    /// The most bytes of the write-ahead log.
    log: u64,
}

impl Offer {
    /// Asks the server.
    pub(crate) async fn ask(postgres: &Postgres) -> Result<Self> {
        let code = ExitCode::PostgresUnreachable;
        postgres.query(ADMIN_DATABASE, OFFER, code).await
    }

    /// Checks all that can be known before anything is restored: the server's version, its extensions and its free
    /// space.
    pub(crate) async fn check(
        &self,
        postgres: &Postgres,
        server: &Server,
        index: &Index,
        contents: &Contents,
    ) -> Result<()> {
        let (here, there) = (major(server.version), major(index.versions.server));
        if here < there {
            let message = format!(
                "the server is PostgreSQL {}, the backup is of {}: start the same or a newer major version",
                version_name(here),
                version_name(there)
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

async fn check_space(postgres: &Postgres, offer: &Offer, database_bytes: u64) -> Result<()> {
    let directory = &offer.directory;
    let needed = database_bytes
        .saturating_add(database_bytes / 10)
        .saturating_add(offer.log)
        .saturating_add(DISK_MARGIN);
    let output = postgres
        .tool("df")
        .args(["-Pk", directory])
        .output()
        .await
        .or_fail(ExitCode::Internal, || "run df")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let free = free_bytes(&text).ok_or_else(|| {
        let words = String::from_utf8_lossy(&output.stderr);
        let message = format!(
            "df -Pk {directory} does not say what is free: {}",
            words.trim()
        );
        Failure::new(ExitCode::Internal, message)
    })?;
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "the restore needs {} MiB, but {directory} has {} MiB free: give the node a larger volume",
        needed.div_ceil(1024 * 1024),
        free / (1024 * 1024)
    );
    Err(Failure::new(ExitCode::DiskTooSmall, message))
}

fn check_extensions(offer: &Offer, contents: &Contents) -> Result<()> {
    let missing: BTreeSet<String> = contents
        .databases
        .iter()
        .flat_map(|database| &database.properties.extensions)
        .filter(|extension| !offer.extensions.contains(&extension.name))
        .map(|extension| format!("{} {}", extension.name, extension.version))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.into_iter().collect();
    let message = format!(
        "the server lacks the extensions {}: install their files on the new node",
        names.join(", ")
    );
    Err(Failure::new(ExitCode::ExtensionMissing, message))
}

/// Reads the fourth column of the last line; a device's name cannot break the line with `-P`.
fn free_bytes(df: &str) -> Option<u64> {
    let kibibytes: u64 = df.lines().last()?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// Returns the version without its minor part, still sortable: until 9.6 the second number belonged to the major
/// version.
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
    fn major_versions_are_ordered_and_named_as_people_do() {
        assert!(major(90_426) < major(90_500) && major(90_624) < major(100_000));
        assert_eq!(major(150_018), major(150_001));
        assert_eq!(version_name(major(90_426)), "9.4");
        assert_eq!(version_name(major(150_018)), "15");
    }

    #[test]
    fn free_space_is_the_fourth_column() {
        let output = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
            /dev/vda1 100 60 40 60% /\n";
        assert_eq!(free_bytes(output), Some(40 * 1024));
        assert_eq!(free_bytes("df: no such file\n"), None);
    }

    #[tokio::test]
    async fn a_disk_that_is_too_small_is_found_before_the_restore() {
        let cluster = Cluster::start();
        let postgres = cluster.postgres();
        let offer = Offer::ask(&postgres).await.unwrap();
        check_space(&postgres, &offer, 1).await.unwrap();
        let failure = check_space(&postgres, &offer, 1 << 60).await.unwrap_err();
        assert_eq!(failure.code, ExitCode::DiskTooSmall);
        assert!(
            failure.chain().starts_with("the restore needs 12094"),
            "{failure}"
        );
    }
}
