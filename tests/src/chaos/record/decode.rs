//! Reads a backup from the bucket's directory without the product's code: with `zstd`, the server's own `pg_restore`,
//! and `tar`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared::checksum::digests;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::snapshot::{Snapshot, Tables, differences, digest};
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::fixtures::registry::CONFIGURATION;
use crate::nodes::postgres::bin_directory;

/// The content of a backup.
#[derive(Debug)]
pub struct Decoded {
    /// The node that was backed up.
    pub instance: String,
    /// The epoch of the data: the number of writes before the backup.
    pub epoch: u64,
    /// The rows.
    pub tables: Tables,
    /// The hash of each file, or the target of each symbolic link.
    pub contents: BTreeMap<String, String>,
    /// A hash of each object and of the manifest, by key.
    pub objects: BTreeMap<String, String>,
}

/// Returns the hash of an object's bytes in the bucket's directory.
pub fn hash(protected: &ProtectedGroups, key: &str) -> Result<String> {
    let standin = &protected.standin;
    let bytes = standin.s3().read(standin.bucket(), key)?;
    Ok(digests(&bytes).sha256.as_str().to_owned())
}

/// Reads the backup with this manifest, every object to its end.
pub async fn backup(protected: &ProtectedGroups, manifest: &str) -> Result<Decoded> {
    let standin = &protected.standin;
    let read = |key: &str| standin.s3().read(standin.bucket(), key);
    let value: Value = serde_json::from_slice(&read(manifest)?).context("read the manifest")?;
    let index_key = value["index_object"]["key"].as_str().context("no index")?;
    let index: Value = serde_json::from_slice(&read(index_key)?)?;
    let mut objects = BTreeMap::from([
        (manifest.to_owned(), hash(protected, manifest)?),
        (index_key.to_owned(), hash(protected, index_key)?),
    ]);
    let mut contents = BTreeMap::new();
    for object in index["objects"].as_array().context("no objects")? {
        let key = object["key"].as_str().context("an object has no key")?;
        objects.insert(key.to_owned(), hash(protected, key)?);
        if key.ends_with("/config.tar.zst") {
            contents = files(&zstd::decode_all(&read(key)?[..])?)?;
        }
    }
    let (mut tables, mut epoch) = (Tables::new(), 0);
    for database in index["databases"].as_array().context("no databases")? {
        let name = database["name"]
            .as_str()
            .context("a database has no name")?;
        let key = database["key"].as_str().context("a database has no key")?;
        let script = script(&zstd::decode_all(&read(key)?[..])?).await?;
        for (table, rows) in copied(&script) {
            if table == "public.epoch" {
                let counts = rows
                    .iter()
                    .filter_map(|row| std::str::from_utf8(row).ok()?.trim().parse().ok());
                epoch = counts.max().unwrap_or(0);
            }
            tables.insert(format!("{name}: {table}"), digest(rows));
        }
    }
    let instance = index["node"]["instance_id"].as_str().context("no node")?;
    Ok(Decoded {
        instance: instance.to_owned(),
        epoch,
        tables,
        contents,
        objects,
    })
}

impl Decoded {
    /// Returns the differences from the written content.
    pub fn differences(&self, written: &Snapshot) -> Vec<String> {
        let mut found = differences(&written.tables, &self.tables);
        found.extend(differences(&written.contents(), &self.contents));
        found
    }
}

/// Returns a dump as a script, which `pg_restore` writes.
async fn script(dump: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(bin_directory()?.join("pg_restore"))
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start pg_restore")?;
    let stdin = child.stdin.take();
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // If pg_restore stops reading, its exit status and stderr have the reason.
            stdin.write_all(dump).await.ok();
        }
    };
    let ((), output) = tokio::join!(feeding, child.wait_with_output());
    let output = output.context("run pg_restore")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pg_restore: {errors}");
    Ok(output.stdout)
}

/// Returns the rows of each table in a script.
fn copied(script: &[u8]) -> BTreeMap<String, Vec<&[u8]>> {
    let mut tables: BTreeMap<String, Vec<&[u8]>> = BTreeMap::new();
    let mut table: Option<String> = None;
    for line in script.split_inclusive(|byte| *byte == b'\n') {
        match &table {
            Some(_) if line == b"\\.\n" => table = None,
            Some(name) => tables.entry(name.clone()).or_default().push(line),
            None => {
                let text = String::from_utf8_lossy(line);
                let begun = text
                    .strip_prefix("COPY ")
                    .filter(|_| text.ends_with(" FROM stdin;\n"));
                table = begun.and_then(|rest| Some(rest.split_once(" (")?.0.to_owned()));
                if let Some(name) = &table {
                    tables.entry(name.clone()).or_default();
                }
            }
        }
    }
    tables
}

/// Returns the content of a configuration archive in the form of [`Snapshot::contents`].
fn files(archive: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut links = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = node_path(&entry.path()?.to_string_lossy())?;
        let target = entry
            .link_name()?
            .map(|name| name.to_string_lossy().into_owned());
        let kind = entry.header().entry_type();
        if kind.is_symlink() {
            found.insert(path, format!("-> {}", target.unwrap_or_default()));
        } else if kind.is_hard_link() {
            links.push((path, node_path(&target.unwrap_or_default())?));
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            found.insert(path, digests(&bytes).sha256.as_str().to_owned());
        }
    }
    for (path, target) in links {
        let content = found
            .get(&target)
            .context("the target of a hard link is missing")?;
        found.insert(path, content.clone());
    }
    Ok(found)
}

/// Returns a path on the node for a name in the archive, which contains the configured path's number.
fn node_path(name: &str) -> Result<String> {
    let (number, rest) = name.split_once('/').unwrap_or((name, ""));
    let root = CONFIGURATION.get(number.parse::<usize>()?);
    let root = root.with_context(|| format!("{name} is not below a configured path"))?;
    Ok(format!("{root}/{rest}").trim_end_matches('/').to_owned())
}
