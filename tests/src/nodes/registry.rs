//! A registry-like application's data: what the demonstration and the end-to-end tests back up and restore.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::{FutureExt as _, TryStreamExt as _};
use tokio_postgres::Client;

use crate::nodes::machine::{Node, write_program};
use crate::nodes::postgres::Cluster;
use crate::standin::world::ProtectedGroup;

/// The database of users, teams and repositories; as in the first application, it is `postgres` itself.
pub const MAIN_DATABASE: &str = "postgres";
/// A second database, owned by a role of its own.
pub const NOTARY_DATABASE: &str = "notary";
/// The configured paths, below the node's root.
pub const CONFIGURATION: [&str; 2] = ["var/local/dtr", "usr/local/etc/dtr"];

/// How much to make, and from which seed.
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    /// Rows in all tables together, at least.
    pub rows: u64,
    /// Two runs with the same seed hold the same data.
    pub seed: u64,
}

/// What drives the application of a node from outside it, and outlives the node.
#[derive(Debug, Clone)]
pub struct Load {
    /// The application pushes events only while this file exists.
    pub switch: PathBuf,
    /// The ids of acknowledged events, one a line.
    pub acknowledged: PathBuf,
}

impl Load {
    /// Keeps its files in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            switch: directory.join("load"),
            acknowledged: directory.join("acknowledged"),
        }
    }

    /// Lets the application push events.
    pub fn begin(&self) -> Result<()> {
        std::fs::write(&self.switch, "").with_context(|| format!("write {}", self.switch.display()))
    }

    /// Lets it be idle.
    pub fn end(&self) -> Result<()> {
        std::fs::remove_file(&self.switch)
            .with_context(|| format!("remove {}", self.switch.display()))
    }

    /// Returns the ids of the events that were acknowledged so far.
    pub fn acknowledged(&self) -> Result<Vec<i64>> {
        let text = match std::fs::read_to_string(&self.acknowledged) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("read the acknowledged events"),
        };
        // The application may be in the middle of its last line.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .map(|line| line.parse().with_context(|| format!("read {line:?}")))
            .collect()
    }
}

/// Describes a protected group whose nodes run this application.
pub fn protected_group(application: &str, bucket: &str, load: &Load) -> ProtectedGroup {
    let (name, bucket, load) = (application.to_owned(), bucket.to_owned(), load.clone());
    ProtectedGroup {
        name: application.to_owned(),
        application: application.to_owned(),
        user_data: Arc::new(move |node| {
            let (name, bucket, load) = (name.clone(), bucket.clone(), load.clone());
            async move { prepare(&node, &name, &bucket, &load).await }.boxed()
        }),
        retain_on_abandon: false,
        tagged: true,
    }
}

/// Prepares a fresh node, as user data would: a Postgres cluster that is not started yet, the application's
/// commands, and the agent's settings.
pub async fn prepare(node: &Arc<Node>, application: &str, bucket: &str, load: &Load) -> Result<()> {
    let root = node.root();
    let cluster = Cluster::create(&root.join("var/lib/postgresql")).await?;
    let programs = root.join("usr/local/bin");
    let this_program = std::env::current_exe().context("find this program")?;
    let program = this_program
        .ancestors()
        .map(|directory| directory.join("application"))
        .find(|path| path.is_file())
        .context("the program `application` is not built: run `cargo build --workspace` first")?;
    let (host, port) = (
        cluster.socket_directory().display().to_string(),
        cluster.port(),
    );
    let ready = format!("pg_isready --quiet --host {host} --port {port}");
    let start = format!(
        r#"#!/bin/sh -eu
pid_file="$REKINDLE_ROOT/run/registry.pid"
{ready}
[ ! -s "$pid_file" ] || ! kill -0 "$(cat "$pid_file")" 2>/dev/null || exit 0
: > "$pid_file"
setsid '{program}' --database 'host={host} port={port} user=postgres dbname={MAIN_DATABASE}' \
    --acknowledged '{acknowledged}' --load '{switch}' --pid-file "$pid_file" </dev/null >/dev/null 2>&1 &
echo $! > "$pid_file"
"#,
        program = program.display(),
        acknowledged = load.acknowledged.display(),
        switch = load.switch.display(),
    );
    let stop = r#"#!/bin/sh -eu
pid_file="$REKINDLE_ROOT/run/registry.pid"
[ -s "$pid_file" ] || exit 0
pid=$(cat "$pid_file")
kill "$pid" 2>/dev/null || true
while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
rm -f "$pid_file"
"#;
    let health =
        format!("#!/bin/sh -eu\nkill -0 \"$(cat \"$REKINDLE_ROOT/run/registry.pid\")\"\n{ready}\n");
    for (name, text) in [
        ("registry-start", start.as_str()),
        ("registry-stop", stop),
        ("registry-health", &health),
    ] {
        write_program(&programs.join(name), text)?;
    }
    for path in CONFIGURATION {
        let path = root.join(path);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let paths = CONFIGURATION.map(|path| format!("\"/{path}\"")).join(", ");
    let settings = format!(
        r#"application = "{application}"
bucket = "{bucket}"

[configuration]
paths = [{paths}]

[postgres]
host = "{host}"
port = {port}

[commands]
start_postgres = ["{start}"]
start = ["{programs}/registry-start"]
stop = ["{programs}/registry-stop"]
health = ["{programs}/registry-health"]
health_timeout_seconds = 60
"#,
        start = cluster.start_script().display(),
        programs = programs.display(),
    );
    let path = root.join("etc/rekindle/node.toml");
    std::fs::write(&path, settings).with_context(|| format!("write {}", path.display()))?;
    node.attach(cluster);
    Ok(())
}

/// Creates roles and schema, and fills them. `main` is connected to [`MAIN_DATABASE`].
pub async fn create(main: &Client, seed: Seed) -> Result<()> {
    let Seed { rows, seed } = seed;
    let (repositories, manifests, tags, blobs) = (
        rows / 100 + 1,
        rows * 25 / 100 + 1,
        rows * 35 / 100 + 1,
        rows * 25 / 100 + 1,
    );
    let events = rows * 16 / 100 + 1;
    let script = format!(
        r#"
CREATE ROLE registry LOGIN PASSWORD 'a password that must survive';
CREATE ROLE auditors NOLOGIN;
GRANT auditors TO registry;
ALTER ROLE registry SET work_mem = '8MB';
CREATE SCHEMA registry AUTHORIZATION registry;
SET ROLE registry;
SET search_path = registry;
CREATE TYPE visibility AS ENUM ('private', 'public');
CREATE TABLE organisation (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, created timestamptz NOT NULL);
CREATE TABLE account (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, password_hash text NOT NULL,
    organisation int NOT NULL REFERENCES organisation);
CREATE TABLE repository (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, organisation int NOT NULL REFERENCES organisation,
    name text NOT NULL, visibility visibility NOT NULL, UNIQUE (organisation, name));
CREATE TABLE blob (digest text PRIMARY KEY, size bigint NOT NULL, media_type text NOT NULL);
CREATE TABLE manifest (
    digest text PRIMARY KEY, repository int NOT NULL REFERENCES repository, pushed timestamptz NOT NULL,
    body jsonb NOT NULL);
CREATE TABLE tag (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, repository int NOT NULL REFERENCES repository,
    name text NOT NULL, manifest text NOT NULL, moved timestamptz NOT NULL);
CREATE TABLE push_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), actor text NOT NULL,
    target text NOT NULL);
CREATE VIEW public_repository AS SELECT * FROM repository WHERE visibility = 'public';
INSERT INTO organisation (name, created)
    SELECT 'organisation-' || i, timestamptz '2026-01-01' + i * interval '1 hour' FROM generate_series(1, 50) i;
INSERT INTO account (name, password_hash, organisation)
    SELECT 'account "' || i || '" ü', md5('{seed}/' || i), 1 + i % 50 FROM generate_series(1, 1000) i;
INSERT INTO repository (organisation, name, visibility)
    SELECT 1 + i % 50, 'repository/' || i, (ARRAY['private', 'public'])[1 + i % 2]::visibility
    FROM generate_series(1, {repositories}) i;
INSERT INTO blob SELECT 'sha256:' || encode(sha256(('b{seed}/' || i)::bytea), 'hex'), 1000 + (i::bigint * 7919) % 90000000,
    'application/vnd.oci.image.layer.v1.tar+gzip' FROM generate_series(1, {blobs}) i;
INSERT INTO manifest SELECT 'sha256:' || encode(sha256(('m{seed}/' || i)::bytea), 'hex'), 1 + i % {repositories},
    timestamptz '2026-01-01' + i * interval '1 second',
    jsonb_build_object('schemaVersion', 2, 'config', md5('c{seed}/' || i), 'layers', 1 + i % 12)
    FROM generate_series(1, {manifests}) i;
INSERT INTO tag (repository, name, manifest, moved)
    SELECT 1 + i % {repositories}, 'v' || i % 40 || '.' || i, 'sha256:' || md5('t{seed}/' || i),
    timestamptz '2026-02-01' + i * interval '1 second' FROM generate_series(1, {tags}) i;
CREATE INDEX ON tag (repository, name);
INSERT INTO push_event (actor, target)
    SELECT 'account ' || i % 1000, E'line one\nline two\t\\.' || md5('e{seed}/' || i) FROM generate_series(1, {events}) i;
CREATE MATERIALIZED VIEW pushes AS SELECT actor, count(*) AS pushes FROM push_event GROUP BY actor;
RESET ROLE;
ALTER DATABASE postgres SET search_path = registry, public;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO registry;
COMMENT ON DATABASE postgres IS 'the registry''s metadata';
"#
    );
    main.batch_execute(&script)
        .await
        .context("create the registry's schema and rows")?;
    main.batch_execute("CREATE ROLE notary LOGIN")
        .await
        .context("create the notary's role")?;
    main.batch_execute(
        "CREATE DATABASE notary OWNER notary TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    .await
    .context("create the notary's database")
}

/// Fills the second database. `notary` is connected to [`NOTARY_DATABASE`].
pub async fn create_notary(notary: &Client) -> Result<()> {
    let script = "SET ROLE notary;
        CREATE TABLE signature (id int PRIMARY KEY, target text NOT NULL, key bytea NOT NULL);
        INSERT INTO signature SELECT i, 'target ' || i, sha256(i::text::bytea) FROM generate_series(1, 500) i;
        CREATE SEQUENCE serial START 100; SELECT nextval('serial'), nextval('serial');";
    notary
        .batch_execute(script)
        .await
        .context("create the notary's rows")
}

/// Lets dumps of a node's main database wait until the returned client is dropped.
pub async fn hold_up_dumps(node: &Node) -> Result<Client> {
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    client
        .batch_execute("BEGIN; LOCK TABLE registry.tag IN ACCESS EXCLUSIVE MODE")
        .await
        .context("lock a table of the registry")?;
    Ok(client)
}

/// Writes a configuration tree below `root`: `var/local/dtr` and `usr/local/etc/dtr`.
pub fn create_configuration(root: &Path, seed: u64) -> Result<()> {
    let [data, etc] = CONFIGURATION.map(|path| root.join(path));
    std::fs::create_dir_all(data.join("certificates/private"))?;
    std::fs::create_dir_all(&etc)?;
    for number in 0..40 {
        let mut text = String::new();
        for line in 0..50 {
            writeln!(
                text,
                "setting_{line} = {}",
                seed.wrapping_mul(31) + number * 1000 + line
            )?;
        }
        std::fs::write(data.join(format!("part {number} ü.yml")), text)?;
    }
    let key = data.join("certificates/private/key.pem");
    std::fs::write(&key, format!("-----BEGIN PRIVATE KEY-----\n{seed:064x}\n"))?;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    std::fs::set_permissions(
        data.join("certificates/private"),
        std::fs::Permissions::from_mode(0o700),
    )?;
    std::os::unix::fs::symlink("certificates/private/key.pem", data.join("current-key.pem"))?;
    std::fs::hard_link(&key, data.join("certificates/backup-key.pem"))?;
    std::fs::write(etc.join("hub.yml"), "notifications: on\n")?;
    std::fs::write(etc.join("empty"), "")?;
    Ok(())
}

/// The rows of every ordinary table of one database: a hash of each row's text, sorted. A restore refreshes
/// materialized views, so theirs are not compared.
pub type Rows = BTreeMap<String, Vec<i64>>;

/// Reads the rows of the connected database.
pub async fn rows(client: &Client) -> Result<Rows> {
    let tables = client
        .query(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
            &[],
        )
        .await
        .context("list the tables")?;
    let mut all = Rows::new();
    for table in tables {
        let name: String = table.get(0);
        let query = format!("SELECT hashtextextended(t::text, 0) FROM ONLY {name} t");
        let stream = client
            .query_raw(&query, std::iter::empty::<&str>())
            .await
            .with_context(|| query.clone())?;
        let mut hashes: Vec<i64> = stream
            .map_ok(|row| row.get::<_, i64>(0))
            .try_collect()
            .await?;
        hashes.sort_unstable();
        all.insert(name, hashes);
    }
    Ok(all)
}

/// Counts the rows that are in one but not in the other, table by table; only tables that differ are named.
pub fn different_rows(before: &Rows, after: &Rows) -> BTreeMap<String, usize> {
    let none = Vec::new();
    let tables: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut different = BTreeMap::new();
    for table in tables {
        let count = different_items(
            before.get(table).unwrap_or(&none),
            after.get(table).unwrap_or(&none),
        );
        // A table that is missing altogether differs even when it is empty.
        let missing = usize::from(before.contains_key(table) != after.contains_key(table));
        if count + missing > 0 {
            different.insert(table.clone(), count + missing);
        }
    }
    different
}

/// Counts the items of two sorted lists that have no equal in the other one.
fn different_items(left: &[i64], right: &[i64]) -> usize {
    let (mut l, mut r, mut different) = (0, 0, 0);
    while l < left.len() && r < right.len() {
        match left[l].cmp(&right[r]) {
            std::cmp::Ordering::Equal => (l, r) = (l + 1, r + 1),
            std::cmp::Ordering::Less => (l, different) = (l + 1, different + 1),
            std::cmp::Ordering::Greater => (r, different) = (r + 1, different + 1),
        }
    }
    different + (left.len() - l) + (right.len() - r)
}

/// What a file is, in one comparable line: kind, mode, owner, links, and content or target.
pub type Files = BTreeMap<String, String>;

/// Reads the configuration below `root`, in the two configured paths.
pub fn files(root: &Path) -> Result<Files> {
    let mut all = Files::new();
    for path in CONFIGURATION {
        describe(root, Path::new(path), &mut all)?;
    }
    Ok(all)
}

fn describe(root: &Path, path: &Path, all: &mut Files) -> Result<()> {
    let full = root.join(path);
    let metadata = full
        .symlink_metadata()
        .with_context(|| format!("read {}", full.display()))?;
    let content = if metadata.is_symlink() {
        format!("-> {}", std::fs::read_link(&full)?.display())
    } else if metadata.is_file() {
        shared::checksum::digests(&std::fs::read(&full)?)
            .sha256
            .to_string()
    } else {
        String::new()
    };
    let links = if metadata.is_file() {
        metadata.nlink()
    } else {
        0
    };
    let modified = if metadata.is_file() {
        metadata.mtime()
    } else {
        0
    };
    let line = format!(
        "{:o} {}:{} {links} {modified} {content}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid()
    );
    all.insert(path.display().to_string(), line);
    if metadata.is_dir() {
        for entry in std::fs::read_dir(&full)? {
            describe(root, &path.join(entry?.file_name()), all)?;
        }
    }
    Ok(())
}

/// Names the files that differ.
pub fn different_files(before: &Files, after: &Files) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_row_counts_on_both_sides() {
        let before = Rows::from([
            ("t".to_owned(), vec![1, 2, 2, 5]),
            ("gone".to_owned(), vec![]),
        ]);
        let after = Rows::from([("t".to_owned(), vec![1, 2, 6])]);
        let expected = BTreeMap::from([("t".to_owned(), 3), ("gone".to_owned(), 1)]);
        assert_eq!(different_rows(&before, &after), expected);
        assert_eq!(different_rows(&before, &before), BTreeMap::new());
    }
}
