//! Fuzzing of every parser of data from outside. Each parser has a target: a function that passes any bytes to the parser,
//! and checks promises about the values that the parser accepts. A broken promise is a panic.
//!
//! `make test` runs the inputs in `tests/corpus/<target>/` and a bounded number of seeded mutations of them. `make fuzz`
//! searches longer with the same functions, guided by coverage.

mod agent;
mod answers;
mod backups;
mod commands;
mod configuration;
mod events;
mod images;
pub mod mutation;
mod names;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::repository::project;

/// The target of one parser of data from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is also the name of its corpus' folder.
    pub name: &'static str,
    /// Passes these bytes to the parser. Panics if a promise is broken.
    pub check: fn(&[u8]),
    /// The number of mutations in `make test`: they take two or three seconds.
    pub runs: u32,
    /// Another folder of the project with good inputs.
    pub examples: Option<&'static str>,
}

/// Every target.
pub const TARGETS: [Target; 13] = [
    // The payloads of both functions.
    target("event", events::event, 30_000).like("events"),
    // A node's standard output, and the functions' decisions about it.
    target("report", answers::report, 10_000),
    // `index.json`, which the agent writes and both sides read.
    target("index", backups::index, 6_000),
    // A manifest, which only the backup function writes.
    target("manifest", backups::manifest, 6_000),
    // A key in a listing of the bucket.
    target("key", backups::key, 20_000),
    // The SSM parameter of an application.
    target("state", backups::state, 30_000),
    // A value of the documents' parameters.
    target("parameter", commands::parameter, 10_000),
    // `node.toml`.
    target("settings", agent::settings, 10_000).like("settings"),
    // The tar of the configuration.
    target("configuration", configuration::configuration, 600),
    // An image's archive by `docker save`.
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

    /// Returns the target of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        let found = TARGETS.iter().find(|target| target.name == name);
        found.with_context(|| format!("there is no target {name:?}"))
    }

    /// Returns the folders of its inputs, the corpus first.
    pub fn folders(&self) -> Vec<PathBuf> {
        let project = project();
        let corpus = project.join("tests/corpus").join(self.name);
        let examples = self.examples.map(|folder| project.join(folder));
        std::iter::once(corpus).chain(examples).collect()
    }

    /// Reads its inputs, each with its path, in the order of the paths.
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
