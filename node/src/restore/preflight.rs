//! The checks before a restore changes any database: the server's version, its extensions, its locales and its free disk
//! space.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use shared::exit_code::ExitCode;
use shared::manifest::Index;

use crate::agent::failure::{Failure, Result};
use crate::objects::contents::Contents;
use crate::postgres::attempt;
use crate::postgres::database::properties::{Extension, LocaleProvider};
use crate::postgres::quote::literal;
use crate::postgres::server::Server;
use crate::postgres::{ADMIN_DATABASE, Postgres};

/// Bytes that a restore needs in addition to the databases and the write-ahead log.
const DISK_MARGIN: u64 = 256 * 1024 * 1024;

/// Reads [`Capabilities`] in one session. The unit of `max_wal_size` is MB or segments of 16 MB; version 9.4 does not
/// have the setting.
const CAPABILITIES: &str = "SELECT json_build_object(
  'extensions', (SELECT coalesce(json_object_agg(name, default_version), '{}') FROM pg_available_extensions),
  'locales', (SELECT json_agg(datcollate) FROM (
    SELECT datcollate FROM pg_database UNION SELECT datctype FROM pg_database) l),
  'has_icu', EXISTS (SELECT FROM pg_collation c WHERE row_to_json(c)->>'collprovider' = 'i'),
  'directory', current_setting('data_directory'),
  'wal_bytes', (SELECT coalesce(max(setting::bigint * CASE unit WHEN '16MB' THEN 16777216 ELSE 1048576 END), 1073741824)
    FROM pg_settings WHERE name = 'max_wal_size'))";

/// The server's properties that limit what can be restored.
#[derive(Debug, Deserialize)]
pub(crate) struct Capabilities {
    /// The extensions with installed files, each with the version that `CREATE EXTENSION` creates.
    extensions: BTreeMap<String, Option<String>>,
    /// Locales of the C library that databases use already.
    locales: BTreeSet<String>,
    /// Whether the server was built with ICU.
    has_icu: bool,
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
        check_locales(postgres, self, contents).await?;
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

/// Checks that the server has every extension of the backup, in the same version or a newer one: a dump creates the
/// version that the new server prefers.
fn check_extensions(capabilities: &Capabilities, contents: &Contents) -> Result<()> {
    let mut unusable = BTreeSet::new();
    for database in &contents.databases {
        for Extension { name, version } in &database.properties.extensions {
            let Some(available) = capabilities.extensions.get(name) else {
                unusable.insert(format!("{name} {version} is missing"));
                continue;
            };
            let available = available.as_deref().unwrap_or(version);
            match compare_versions(available, version) {
                Some(Ordering::Equal) => {}
                Some(Ordering::Less) => {
                    unusable.insert(format!("{name} {version} has only version {available}"));
                }
                Some(Ordering::Greater) | None => tracing::warn!(
                    extension = name,
                    backup = version,
                    server = available,
                    "the server has another version of an extension; the restore creates that one"
                ),
            }
        }
    }
    if unusable.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = unusable.into_iter().collect();
    let message = format!(
        "the server does not have the extensions of the backup: {}; install their files on the new node, in the container's \
         image if Postgres runs in one",
        names.join(", ")
    );
    Err(Failure::new(ExitCode::ExtensionMissing, message))
}

/// Compares two versions number by number. Returns `None` if they differ in anything but numbers.
fn compare_versions(one: &str, other: &str) -> Option<Ordering> {
    if one == other {
        return Some(Ordering::Equal);
    }
    let numbers = |version: &str| {
        let parts = version.split('.').map(str::parse::<u64>);
        parts.collect::<std::result::Result<Vec<_>, _>>().ok()
    };
    Some(numbers(one)?.cmp(&numbers(other)?))
}

/// Checks that the server knows every locale of the backup's databases. The server itself checks a locale only when it
/// creates the database.
async fn check_locales(
    postgres: &Postgres,
    capabilities: &Capabilities,
    contents: &Contents,
) -> Result<()> {
    let mut unknown: BTreeMap<&str, &str> = BTreeMap::new();
    let mut missing = BTreeSet::new();
    for properties in contents.databases.iter().map(|one| &one.properties) {
        for locale in [&properties.collate, &properties.ctype] {
            if !capabilities.locales.contains(locale) {
                unknown.insert(locale, &properties.name);
            }
        }
        if properties.provider == LocaleProvider::Icu && !capabilities.has_icu {
            let name = &properties.name;
            missing.insert(format!("every locale of ICU (database {name:?})"));
        }
    }
    // Every category of an installed locale exists, so one that can be set shows whether the locale is installed.
    let settings = unknown
        .keys()
        .map(|locale| format!("SET LOCAL lc_monetary = {}", literal(locale)));
    let refusals = attempt::try_each(postgres, ADMIN_DATABASE, None, settings.collect()).await?;
    for ((locale, database), refusal) in unknown.into_iter().zip(refusals) {
        if refusal.is_some() {
            missing.insert(format!("{locale:?} (database {database:?})"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.into_iter().collect();
    let message = format!(
        "the server does not have these locales of the backup: {}; install them on the new node, in the container's image \
         if Postgres runs in one, and restart Postgres",
        names.join(", ")
    );
    Err(Failure::new(ExitCode::LocaleMissing, message))
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
    use crate::objects::contents::DatabaseContents;
    use crate::postgres::database::list::list;
    use crate::postgres::database::properties::DatabaseProperties;
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

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(compare_versions("1.10", "1.9"), Some(Ordering::Greater));
        assert_eq!(compare_versions("3.1.4", "3.3"), Some(Ordering::Less));
        assert_eq!(
            compare_versions("1.1-dev", "1.1-dev"),
            Some(Ordering::Equal)
        );
        assert_eq!(compare_versions("unpackaged", "1.0"), None);
    }

    #[tokio::test]
    async fn locales_and_versions_that_the_server_lacks_are_named() {
        let cluster = Cluster::start();
        let postgres = cluster.postgres();
        let capabilities = Capabilities::read(&postgres).await.unwrap();
        let mut databases = list(&postgres, &cluster.settings).await.unwrap().wanted;
        let mut contents = |change: &dyn Fn(&mut DatabaseProperties)| {
            change(&mut databases[0]);
            let database = DatabaseContents {
                properties: databases[0].clone(),
                tables: Vec::new(),
                relations: Vec::new(),
            };
            Contents::new(Vec::new(), Vec::new(), vec![database])
        };
        let known = contents(&|database| "C.UTF-8".clone_into(&mut database.ctype));
        check_locales(&postgres, &capabilities, &known)
            .await
            .unwrap();
        let unknown = contents(&|database| "xx_YY.utf8".clone_into(&mut database.collate));
        let failure = check_locales(&postgres, &capabilities, &unknown)
            .await
            .unwrap_err();
        assert_eq!(failure.code, ExitCode::LocaleMissing);
        let chain = failure.chain();
        assert!(
            chain.contains(r#""xx_YY.utf8" (database "postgres")"#),
            "{chain}"
        );
        assert!(!chain.contains("C.UTF-8"), "{chain}");

        check_extensions(&capabilities, &known).unwrap();
        let newer = contents(&|database| "99.0".clone_into(&mut database.extensions[0].version));
        let failure = check_extensions(&capabilities, &newer).unwrap_err();
        assert_eq!(failure.code, ExitCode::ExtensionMissing);
        let chain = failure.chain();
        assert!(
            chain.contains("plpgsql 99.0 has only version 1.0"),
            "{chain}"
        );
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
