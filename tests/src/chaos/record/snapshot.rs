//! The content of a node, read from the node itself, without the product.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use shared::checksum::digests;
use tokio_postgres::Client;

use crate::fixtures::registry;
use crate::fixtures::registry::{CONFIGURATION, MAIN_DATABASE};
use crate::nodes::machine::Node;

/// The contents of tables, by `<database>: <table>`: the number of rows, and a hash of all rows in any order.
pub type Tables = BTreeMap<String, String>;

/// Everything that a restore of a backup has to bring back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The number of writes before; 0 if there was none.
    pub epoch: u64,
    /// The rows.
    pub tables: Tables,
    /// The configuration, as [`registry::files`] describes it.
    pub files: registry::Files,
}

impl Snapshot {
    /// Reads the content of a node whose Postgres is running.
    pub async fn of(node: &Node) -> Result<Self> {
        let cluster = node.cluster()?;
        let mut tables = Tables::new();
        let template = cluster.connect("template1").await?;
        let names = "SELECT datname::text FROM pg_database WHERE NOT datistemplate ORDER BY 1";
        let names = template.query(names, &[]).await.context("list databases")?;
        drop(template);
        for name in names {
            let database: String = name.get(0);
            let client = cluster.connect(&database).await?;
            for (table, rows) in tables_of(&client).await? {
                tables.insert(format!("{database}: {table}"), rows);
            }
        }
        Ok(Self {
            epoch: epoch(&cluster.connect(MAIN_DATABASE).await?).await?,
            tables,
            files: registry::files(&node.root())?,
        })
    }

    /// Returns the differences from another snapshot; empty if there is none.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = differences(&self.tables, &other.tables);
        found.extend(registry::different_files(&self.files, &other.files));
        found
    }

    /// Returns the hash of each file, or the target of each symbolic link.
    pub fn contents(&self) -> BTreeMap<String, String> {
        let contents = self.files.iter().map(|(path, line)| {
            let content = line.splitn(5, ' ').nth(4).unwrap_or_default();
            (path.clone(), content.to_owned())
        });
        contents
            .filter(|(_, content)| !content.is_empty())
            .collect()
    }
}

async fn tables_of(client: &Client) -> Result<Tables> {
    let query = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    let mut tables = Tables::new();
    for table in client.query(query, &[]).await.context("list the tables")? {
        let table: String = table.get(0);
        let copy = client.copy_out(&format!("COPY {table} TO STDOUT")).await;
        let copy = copy.with_context(|| format!("read {table}"))?;
        let pieces: Vec<_> = Box::pin(copy).try_collect().await?;
        let text = pieces.concat();
        let rows = text.split_inclusive(|byte| *byte == b'\n').collect();
        tables.insert(table, digest(rows));
    }
    Ok(tables)
}

async fn epoch(client: &Client) -> Result<u64> {
    let query = "SELECT to_regclass('public.epoch') IS NOT NULL";
    if !client.query_one(query, &[]).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    let query = "SELECT coalesce(max(n), 0) FROM public.epoch";
    let epoch: i64 = client.query_one(query, &[]).await?.get(0);
    Ok(epoch.try_into()?)
}

/// Returns the number of rows, and a hash of them in any order.
pub fn digest(mut rows: Vec<&[u8]>) -> String {
    rows.sort_unstable();
    let hash = digests(&rows.concat()).sha256;
    format!("{} rows, {}", rows.len(), &hash.as_str()[..16])
}

/// Returns the differences between two maps.
pub fn differences(one: &Tables, other: &Tables) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let names = names.into_iter();
    let differing = names.filter(|name| one.get(*name) != other.get(*name));
    let found = differing.map(|name| format!("{name}: {:?}, {:?}", one.get(name), other.get(name)));
    found.collect()
}

/// Writes into databases and files of a node, and returns the node's content after it.
pub async fn write(node: &Node, epoch: u64) -> Result<Snapshot> {
    let cluster = node.cluster()?;
    let main = cluster.connect(MAIN_DATABASE).await?;
    let memory = 8 + epoch % 8;
    let script = format!(
        "SET search_path = registry;
        CREATE TABLE IF NOT EXISTS public.epoch (n bigint);
        INSERT INTO public.epoch VALUES ({epoch});
        ALTER ROLE registry SET work_mem = '{memory}MB';
        UPDATE tag SET name = 'epoch {epoch} ' || id WHERE id % 7 = {epoch} % 7;
        INSERT INTO push_event (actor, target) SELECT 'epoch {epoch}', 'event ' || i FROM generate_series(1, 20) i"
    );
    main.batch_execute(&script)
        .await
        .with_context(|| format!("write epoch {epoch}"))?;
    let folder = node.root().join(CONFIGURATION[0]);
    std::fs::write(folder.join("epoch.yml"), format!("epoch: {epoch}\n"))?;
    std::fs::write(
        folder.join(format!("part {} ü.yml", epoch % 40)),
        format!("changed: {epoch}\n").repeat(30),
    )?;
    Snapshot::of(node).await
}

/// Fills a node's main database with enough data for a multipart upload of its dump.
pub async fn fill_large(node: &Node) -> Result<()> {
    let main = node.cluster()?.connect(MAIN_DATABASE).await?;
    let script = "CREATE TABLE public.large AS SELECT i,
        (SELECT string_agg(sha256((i * 1000 + j)::text::bytea), ''::bytea) FROM generate_series(1, 512) j) AS bytes
        FROM generate_series(1, 620) i";
    main.batch_execute(script)
        .await
        .context("fill a large table")
}
