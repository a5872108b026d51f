//! The life of the processes on a machine.

use std::path::Path;

use rustix::process::Signal;
use tokio::sync::watch;

use super::*;
use crate::wait::wait_for;

async fn node(directory: &Path) -> Arc<Node> {
    let settings = MachineSettings {
        directory: directory.to_owned(),
        endpoint: "http://127.0.0.1:1".to_owned(),
        region: "eu-central-1".to_owned(),
        reboot: Duration::ZERO,
        credentials: ("key".to_owned(), "secret".to_owned()),
    };
    let target: TargetState = Arc::new(|| None);
    Node::boot("i-0123456789abcdef0", "demo", &settings, target)
        .await
        .unwrap()
}

fn script(text: &str, limit: Duration) -> (Script, watch::Sender<bool>) {
    let (sender, cancel) = watch::channel(false);
    let script = Script {
        command: "command".to_owned(),
        step: "step".to_owned(),
        text: text.to_owned(),
        limit,
        cancel,
    };
    (script, sender)
}

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_daemon_outlives_its_script_but_not_a_loss_of_power() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let daemon = "cd /; setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!";
    let (script, _sender) = script(daemon, LONG);
    let end = node.run(&script).await.unwrap();
    let process = Path::new("/proc").join(end.stdout.trim());
    assert!(process.exists(), "{end:?}");
    node.kill().await.unwrap();
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z"), "{stat}");
    assert!(node.root().exists(), "the disk survives a loss of power");
    assert!(
        node.run(&script).await.is_err(),
        "no script runs without power"
    );
    node.discard().await.unwrap();
    assert!(!node.root().exists());
}

#[tokio::test]
async fn a_script_and_its_children_are_killed_after_the_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let text = "#!/bin/bash\nset -o pipefail\necho head\nsleep 300 | cat";
    let (script, _sender) = script(text, Duration::from_millis(500));
    let end = node.run(&script).await.unwrap();
    assert_eq!(
        (end.code, end.timed_out, end.stdout.as_str()),
        (137, true, "head\n")
    );
    wait_for(
        "the end of the children",
        LONG,
        async || match processes::signal_all(&node.root(), Signal::CONT) {
            Ok(0) => Ok(Some(())),
            Ok(count) => Err(format!("{count} left")),
            Err(error) => Err(error.to_string()),
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_cancelled_script_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let (script, sender) = script("sleep 300", LONG);
    sender.send_replace(true);
    let end = node.run(&script).await.unwrap();
    assert_eq!((end.code, end.timed_out), (137, false));
}

#[tokio::test]
async fn cloud_init_waits_for_the_user_data() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let (waiting, _sender) = script("cloud-init status --wait", Duration::from_millis(300));
    assert!(node.run(&waiting).await.unwrap().timed_out);
    node.finish_boot().unwrap();
    let (ready, _sender) = script("cloud-init status --wait", LONG);
    let end = node.run(&ready).await.unwrap();
    assert_eq!((end.code, end.stdout.as_str()), (0, "status: done\n"));
}
