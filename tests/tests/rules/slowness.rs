//! Rekindle waits for a slow start of Postgres and for a slow restore.

use std::time::Instant;

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::{
    ProtectedGroups, WAIT_LIMIT, change_settings, fill,
};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::nodes::machine::write_program;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::wait::wait_for;
use shared::budget::LAUNCH_HEARTBEAT;
use tokio::net::UnixListener;

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_waits_for_postgres() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let standin = &protected.standin;
    // Once this file exists, the start command returns without starting Postgres.
    let late = standin.directory().join("late");
    let is_late = late.display().to_string();
    protected.create_changed("late", move |node| {
        let start = node.cluster()?.start_script().display().to_string();
        let program = node.root().join("usr/local/bin/start-postgres");
        write_program(
            &program,
            &format!("#!/bin/sh\n[ -e {is_late} ] || exec {start}\n"),
        )?;
        change_settings(node, &start, &program.display().to_string())
    })?;
    let lost = protected.wait_until_in_service("late", None).await?;
    fill(&lost).await?;
    protected.back_up("late").await?;
    let data = standalone::snapshot(&lost).await?;
    std::fs::write(&late, "")?;
    standin.kill_instance(lost.id()).await?;
    let node = standin
        .wait_until("late", Lifecycle::PendingWait, Some(lost.id()), WAIT_LIMIT)
        .await?;
    let cluster = wait_for("the node to have a cluster", WAIT_LIMIT, async || {
        node.cluster()
            .map(Some)
            .map_err(|error| format!("{error:#}"))
    });
    let cluster = cluster.await?;

    // Instead of Postgres, this listener accepts each connection and closes it.
    let socket = cluster.socket_directory();
    let socket = socket.join(format!(".s.PGSQL.{}", cluster.port()));
    let listener = UnixListener::bind(&socket).context("listen on Postgres' socket")?;
    let connections = async {
        for _ in 0..4 {
            listener.accept().await?;
        }
        anyhow::Ok(())
    };
    protected.with_sweeps(connections).await?;
    let restores = protected.invocations(&node, "restore").await?;
    assert!(
        restores.iter().any(|one| one.status == "InProgress"),
        "{restores:?}"
    );
    let states = standin.group("late").into_iter();
    let states: Vec<_> = states.filter(|one| one.id == node.id()).collect();
    assert_eq!(states[0].state, Lifecycle::PendingWait, "{states:?}");

    drop(listener);
    std::fs::remove_file(&socket)?;
    cluster.start().await?;
    let ready = protected.wait_until_in_service("late", Some(&lost)).await?;
    assert_eq!(ready.id(), node.id());
    assert!(standalone::snapshot(&node).await?.databases == data.databases);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_restore_is_not_relaunched() -> Result<()> {
    // The launch hook's heartbeat timeout of half an hour lasts 18 seconds here.
    let protected = ProtectedGroups::with(ProtectedGroups::builder().time_scale(100.0)).await?;
    let standin = &protected.standin;
    let hook = standin.clock().wait(f64::from(LAUNCH_HEARTBEAT));
    let gate = standin.directory().join("gate");
    std::fs::write(&gate, "")?;
    let may_start = gate.display().to_string();
    protected.create_changed("slow", move |node| {
        let programs = node.root().join("usr/local/bin");
        let start = programs.join("registry-start").display().to_string();
        let program = programs.join("slow-start");
        let script =
            format!("#!/bin/sh\nuntil [ -e {may_start} ]; do sleep 0.05; done\nexec {start}\n");
        write_program(&program, &script)?;
        change_settings(node, &start, &program.display().to_string())
    })?;
    let lost = protected.wait_until_in_service("slow", None).await?;
    fill(&lost).await?;
    protected.back_up("slow").await?;
    let data = standalone::snapshot(&lost).await?;

    std::fs::remove_file(&gate)?;
    standin.kill_instance(lost.id()).await?;
    let slow = standin
        .wait_until("slow", Lifecycle::PendingWait, Some(lost.id()), WAIT_LIMIT)
        .await?;
    let since = Instant::now();
    let waiting = wait_for("the heartbeat timeout to pass", WAIT_LIMIT, async || {
        let group = standin.group("slow").into_iter();
        let group: Vec<_> = group.filter(|one| one.id != lost.id()).collect();
        assert_eq!(group.len(), 1, "{group:?}");
        // An instance that is not in service gets no health checks of a load balancer.
        assert_eq!(group[0].state, Lifecycle::PendingWait, "{group:?}");
        assert_eq!(group[0].id, slow.id());
        Ok::<_, String>((since.elapsed() > hook.mul_f64(1.5)).then_some(()))
    });
    protected.with_sweeps(waiting).await?;

    std::fs::write(&gate, "")?;
    let restored = protected.wait_until_in_service("slow", Some(&lost)).await?;
    assert_eq!(restored.id(), slow.id());
    assert_eq!(
        protected.launches("slow").await?,
        ["Successful", "Successful"]
    );
    assert!(standalone::snapshot(&slow).await?.databases == data.databases);
    Ok(())
}
