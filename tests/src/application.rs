//! A small application for simulated nodes, as user data would install it: a Postgres cluster that is not
//! started yet, three commands, and the agent's settings.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::node::{Node, write_program};
use crate::postgres::Cluster;

/// The configuration directory that the settings name.
pub const CONFIGURATION: &str = "/etc/registry";

/// Prepares a fresh node: what user data does before the agent is asked for anything.
pub async fn prepare(node: &Arc<Node>, stack: &str, bucket: &str) -> Result<()> {
    let root = node.root();
    let cluster = Cluster::create(&root.join("var/lib/postgresql")).await?;
    let programs = root.join("usr/local/bin");
    let flag = "\"$REKINDLE_ROOT/run/registry\"";
    let ready = format!(
        "pg_isready --quiet --host {} --port {}",
        cluster.socket_directory().display(),
        cluster.port()
    );
    for (name, text) in [
        (
            "registry-start",
            format!("#!/bin/sh -eu\n{ready}\n: > {flag}\n"),
        ),
        ("registry-stop", format!("#!/bin/sh -eu\nrm -f {flag}\n")),
        (
            "registry-health",
            format!("#!/bin/sh -eu\n[ -e {flag} ]\n{ready}\n"),
        ),
    ] {
        write_program(&programs.join(name), &text)?;
    }
    let settings = format!(
        r#"stack = "{stack}"
bucket = "{bucket}"

[configuration]
paths = ["{CONFIGURATION}"]

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
        host = cluster.socket_directory().display(),
        port = cluster.port(),
        start = cluster.start_script().display(),
        programs = programs.display(),
    );
    let path = root.join("etc/rekindle/node.toml");
    tokio::fs::write(&path, settings)
        .await
        .with_context(|| format!("write {}", path.display()))?;
    node.attach(cluster);
    Ok(())
}
