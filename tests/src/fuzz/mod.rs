//! Everything that is parsed from outside, given whatever bytes: for each reader a target, which is an ordinary
//! function with the promises that must hold of what the reader accepts. A broken promise is a panic.
//!
//! `make test` replays `tests/corpus/<target>/` and a bounded number of seeded mutations of it; `make fuzz` searches for
//! longer, guided by coverage, with the same functions.

mod agent;
mod answers;
mod backups;
mod commands;
mod configuration;
mod events;
mod images;
pub mod mutation;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};

/// One reader of what comes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus' folder.
    pub name: &'static str,
    /// Gives it these bytes; panics where a promise is broken.
    pub check: fn(&[u8]),
    /// How many mutations `make test` tries: so many as take two or three seconds.
    pub runs: u32,
    /// Another folder of the project with good inputs.
    pub examples: Option<&'static str>,
}

/// Every reader.
pub const TARGETS: [Target; 13] = [
    // The payloads of both functions.
    target("event", events::event, 30_000).like("events"),
    // A node's standard output, and what the functions make of it.
    target("report", answers::report, 10_000),
    // `index.json`, which the node puts and both sides read.
    target("index", backups::index, 6_000),
    // A manifest, which only the backup function puts.
    target("manifest", backups::manifest, 6_000),
    // A key of the bucket, as it is listed.
    target("key", backups::key, 20_000),
    // The SSM parameter of an application.
    target("state", backups::state, 30_000),
    // A value of the documents' parameters.
    target("parameter", commands::parameter, 10_000),
    // `node.toml`.
    target("settings", agent::settings, 10_000).like("settings"),
    // The tar of the configuration.
    target("configuration", configuration::configuration, 600),
    // What `docker save` wrote of an image.
    target("image", images::image, 2_000),
    // `contents.json.zst`, before its compression.
    target("contents", agent::contents, 4_000),
    // `globals.sql.zst`, before its compression.
    target("globals", agent::globals, 20_000),
    // A dump in `pg_dump`'s custom format.
    target("dump", agent::dump, 10_000),
];

const fn target(name: &'static str, check: fn(&[u8]), runs: u32) -> Target {
    Target {
        name,
        check,
        runs,
        examples: None,
    }
}

impl Target {
    const fn like(mut self, examples: &'static str) -> Self {
        self.examples = Some(examples);
        self
    }

    /// Finds a target by its name.
    pub fn named(name: &str) -> Result<&'static Self> {
        let found = TARGETS.iter().find(|target| target.name == name);
        found.with_context(|| format!("there is no target {name:?}"))
    }

    /// Returns the folders with its inputs, the corpus first.
    pub fn folders(&self) -> Vec<PathBuf> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let corpus = project.join("tests/corpus").join(self.name);
        let examples = self.examples.map(|folder| project.join(folder));
        std::iter::once(corpus).chain(examples).collect()
    }

    /// Reads its inputs, each with its file, in the order of their names.
    pub fn inputs(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut inputs = Vec::new();
        for folder in self.folders() {
            let listing =
                std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
            for entry in listing {
                let path = entry?.path();
                let bytes =
                    std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                inputs.push((path, bytes));
            }
        }
        inputs.sort();
        Ok(inputs)
    }
}

/// What a function is asked about in every target: whatever is parsed must stay within it.
const APPLICATION: &str = "dtr";
const BACKUP: &str = "20261123T021500.000Z";
const RUN: &str = "0a1b2c3d";
const INSTANCE: &str = "i-04d1c8f7a2b3e6905";

/// Makes a name of a constant of this module.
fn name<T: FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| unreachable!("{text} is a good name"))
}

/// Checks that a name can be put into a key, a path, a command line and a log line without a second thought.
fn assert_harmless(name: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    assert!(
        !name.is_empty() && name.chars().all(plain) && !name.starts_with(['.', '-']),
        "the name {name:?} was taken"
    );
}
