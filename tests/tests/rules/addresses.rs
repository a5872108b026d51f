//! A Postgres in a container is looked up by the container's name for every backup and restore.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::{
    ProtectedGroups, WAIT_LIMIT, change_settings, fill,
};
use rekindle_tests::fixtures::registry::MAIN_DATABASE;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::nodes::machine::{Node, write_program};
use rekindle_tests::wait::wait_for;
use serde_json::json;

use super::template;

const CONTAINER: &str = "registry_postgres";

/// A fake `docker` that supports only `exec -i`. For each container name, a file contains the address of its Postgres.
/// "In the container" is on the test machine, where other tests run too: when the agent requests that leftover
/// processes are ended, the fake ends none and reports that none is left.
const DOCKER: &str = r#"#!/bin/sh -eu
printf '%s\n' "$(printf '%s' "$*" | tr '\n' ' ')" >> "$REKINDLE_ROOT/run/docker.log"
[ "$1 $2" = "exec -i" ] || { echo "docker: '$1 $2' is not a docker command" >&2; exit 1; }
shift 2
while [ "$1" = --env ]; do export "$2"; shift 2; done
address="$REKINDLE_ROOT/run/containers/$1"
[ -e "$address" ] || { echo "Error response from daemon: No such container: $1" >&2; exit 1; }
shift
case "$*" in *"these processes do not end"*) echo 0; exit 0 ;; esac
PGHOST=$(cat "$address")
export PGHOST
exec "$@"
"#;

/// Changes a node's settings so that its Postgres runs in a (fake) container.
fn contain(node: &Node) -> Result<()> {
    let cluster = node.cluster()?;
    let (socket, port) = (cluster.socket_directory(), cluster.port());
    let direct = format!("host = \"{}\"\nport = {port}", socket.display());
    change_settings(node, &direct, &format!("container = \"{CONTAINER}\""))?;
    let docker = DOCKER.replace("PGHOST=", &format!("PGPORT={port}\nexport PGPORT\nPGHOST="));
    write_program(&node.root().join("usr/local/bin/docker"), &docker)?;
    std::fs::create_dir_all(node.root().join("run/containers"))?;
    set_address(node, Some(&socket))
}

/// Sets the address of the container's Postgres; `None` removes the container.
fn set_address(node: &Node, address: Option<&Path>) -> Result<()> {
    let path = node.root().join("run/containers").join(CONTAINER);
    match address {
        Some(address) => std::fs::write(&path, address.display().to_string()),
        None => std::fs::remove_file(&path),
    }
    .with_context(|| format!("change {}", path.display()))
}

/// Restarts the container, which gives its Postgres another address.
async fn restart(node: &Node, name: &str) -> Result<()> {
    let cluster = node.cluster()?;
    cluster.stop().await?;
    let address = cluster.directory().join(name);
    std::fs::create_dir(&address)?;
    let owner = cluster.socket_directory().metadata()?;
    std::os::unix::fs::chown(&address, Some(owner.uid()), Some(owner.gid()))?;
    let settings = cluster.directory().join("data/postgresql.conf");
    let text = std::fs::read_to_string(&settings)?;
    let address_line = format!("unix_socket_directories = '{}'\n", address.display());
    std::fs::write(&settings, text + &address_line)?;
    cluster.start().await?;
    set_address(node, Some(&address))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_container_is_still_backed_up_and_a_missing_one_raises_an_alarm() -> Result<()>
{
    let protected = ProtectedGroups::start().await?;
    protected.create_changed("moved", contain)?;
    let node = protected.wait_until_in_service("moved", None).await?;
    fill(&node).await?;
    let first = protected.back_up("moved").await?;
    restart(&node, "elsewhere").await?;
    let main = node.cluster()?.connect(MAIN_DATABASE).await?;
    main.batch_execute("CREATE TABLE public.later AS SELECT generate_series(1, 7)")
        .await?;
    drop(main);
    let second = protected.back_up("moved").await?;
    assert_eq!(second.index.rows(), first.index.rows() + 7);

    // Without the container there is no backup, and the template's metric filter raises the template's alarm.
    set_address(&node, None)?;
    let template = template("moved", protected.standin.bucket())?;
    let filter = &template.resources["BackupFailures"]["Properties"]["MetricTransformations"][0];
    let alarm = &template.resources["BackupFailed"]["Properties"];
    assert_eq!(alarm["Namespace"], filter["MetricNamespace"]);
    assert_eq!(alarm["MetricName"], filter["MetricName"]);
    assert_eq!(
        alarm["Dimensions"],
        json!([{"Name": "Application", "Value": "moved"}])
    );
    assert_eq!(
        filter["Dimensions"],
        json!([{"Key": "Application", "Value": "$.Application"}])
    );
    let field = filter["MetricValue"]
        .as_str()
        .and_then(|path| path.strip_prefix("$."));
    let field = field.context("the filter reads no field")?;
    let raised = || {
        let lines = protected.metrics(0).into_iter();
        let lines = lines.filter(|line| line.is_about("moved"));
        lines.filter_map(|line| line.value(field)).sum::<f64>()
    };
    assert!(raised() < 1.0, "the alarm is raised already");
    protected.standin.tick();
    let ended = protected.wait_until_ended(&node, "backup", 2).await?;
    assert_eq!(ended.status, "Failed", "{ended:?}");
    wait_for("the alarm", WAIT_LIMIT, async || {
        let threshold = alarm["Threshold"].as_f64().ok_or("no threshold")?;
        Ok::<_, &str>((raised() >= threshold).then_some(()))
    })
    .await?;
    assert_eq!(protected.backups("moved")?.len(), 2);
    // If even the failures are no longer logged, the alarm on the backups' age is still raised.
    let age = &template.resources["BackupTooOld"]["Properties"];
    assert_eq!(
        (&age["MetricName"], &age["TreatMissingData"]),
        (&json!("BackupAge"), &json!("breaching"))
    );

    restart(&node, "back").await?;
    protected.back_up("moved").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_reached_by_its_name_and_never_by_an_address() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    protected.create_changed("named", contain)?;
    let node = protected.wait_until_in_service("named", None).await?;
    fill(&node).await?;
    protected.back_up("named").await?;
    let data = standalone::snapshot(&node).await?;
    let next = protected.replace_lost(&node).await?;
    assert!(standalone::snapshot(&next).await?.databases == data.databases);
    protected.back_up("named").await?;

    // The log of the fake docker contains every call that the restore and the backup have made.
    let log = std::fs::read_to_string(next.root().join("run/docker.log"))?;
    let socket = next.cluster()?.socket_directory().display().to_string();
    let port = next.cluster()?.port().to_string();
    for program in ["psql", "pg_dump", "pg_restore"] {
        let (container, called) = (format!(" {CONTAINER} "), format!(" {program} "));
        let mut inside = log.lines().filter_map(|line| line.split_once(&container));
        assert!(
            inside.any(|(_, command)| command.contains(&called)),
            "{program}: {log}"
        );
    }
    for line in log.lines() {
        assert!(line.starts_with("exec -i "), "{line}");
        assert!(line.contains(&format!(" {CONTAINER} ")), "{line}");
        for address in [
            socket.as_str(),
            port.as_str(),
            "127.0.0.1",
            "PGHOST",
            "host=",
        ] {
            assert!(!line.contains(address), "{address}: {line}");
        }
    }
    Ok(())
}
