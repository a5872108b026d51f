//! The processes that a killed agent leaves in a container are ended by the next command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use rekindle_tests::fixtures::containers::{Application, POSTGRES};
use rekindle_tests::fixtures::processes;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT, fill};
use rekindle_tests::fixtures::registry;
use rekindle_tests::fixtures::registry::MAIN_DATABASE;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::nodes::engine;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::s3::S3Fault;
use rekindle_tests::wait::wait_for;

use super::{skipped, standalone_node};

const APPLICATION: &str = "killed";
/// The superuser's password in the container's environment. It must not appear anywhere outside the container.
const SECRET: &str = "in-the-container-alone";

/// A part of the command line of every `docker exec`.
const CLIENT: &str = "docker\nexec\n";

/// Returns an application whose Postgres requires a password of every local session.
fn application(protected: &ProtectedGroups, image: &str) -> Result<Application> {
    let mut application = Application::new(&protected.standin, APPLICATION, image)?;
    application.postgres_options =
        format!("--env AUTH_LOCAL=scram-sha-256 --env POSTGRES_PASSWORD={SECRET}");
    application.with_image = true;
    Ok(application)
}

/// Returns the processes that an agent has started in the container, as paths in its `/proc`.
async fn tools(node: &Node) -> Result<Vec<String>> {
    let script = "for one in /proc/[0-9]*; do grep -q PGAPPNAME=rekindle $one/environ 2>/dev/null && echo $one; done; :";
    let listed = node.engine()?.exec(POSTGRES, &["sh", "-c", script]).await?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Kills the agent and its `docker exec` clients, as SSM does after a command's timeout.
async fn kill_agent(node: &Node, verb: &str) -> Result<()> {
    processes::kill(&processes::find(node, &["rekindle-node", verb])?)?;
    processes::kill(&processes::find(node, &[CLIENT])?)?;
    wait_for(
        "the agent to end",
        WAIT_LIMIT,
        async || match processes::find(node, &[CLIENT]) {
            Ok(left) if left.is_empty() => Ok(Some(())),
            other => Err(format!("{other:?}")),
        },
    )
    .await
}

/// Checks that no process, session, database, file, lock or upload of an agent is left.
async fn assert_nothing_left(protected: &ProtectedGroups, node: &Node) -> Result<()> {
    ensure!(
        tools(node).await?.is_empty(),
        "processes are left in the container"
    );
    for words in [&[CLIENT][..], &["rekindle-node"]] {
        let left = processes::find(node, words)?;
        ensure!(left.is_empty(), "{words:?}: {left:?}");
    }
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    let query = "SELECT application_name FROM pg_stat_activity WHERE application_name = 'rekindle'
        UNION ALL SELECT datname FROM pg_database WHERE datname LIKE 'rekindle%'
        UNION ALL SELECT gid FROM pg_prepared_xacts";
    let left = client.query(query, &[]).await?;
    ensure!(left.is_empty(), "{left:?}");
    let beside = standalone::snapshot(node).await?.beside;
    let leftover: Vec<_> = beside
        .iter()
        .filter(|path| path.contains("rekindle-"))
        .collect();
    ensure!(
        leftover.iter().all(|path| path.ends_with("/dtr")),
        "files are left: {leftover:?}"
    );
    let lock = std::fs::read_to_string(node.root().join("var/lib/rekindle/lock"))?;
    ensure!(lock.is_empty(), "the lock is held by {lock}");
    ensure!(protected.open_uploads().await? == 0, "uploads are left");
    Ok(())
}

/// Adds an index whose build waits while the file `/tmp/slow` exists, as the build of a large index takes time.
async fn add_slow_index(node: &Node) -> Result<()> {
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    let script =
        "CREATE FUNCTION public.slowly(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
          WHILE (pg_catalog.pg_stat_file('/tmp/slow', true)).size IS NOT NULL LOOP
            PERFORM pg_catalog.pg_sleep(0.05);
          END LOOP;
          RETURN i;
        END $$;
        CREATE TABLE public.indexed (i int);
        INSERT INTO public.indexed VALUES (1);
        CREATE INDEX slow_index ON public.indexed (public.slowly(i));";
    client
        .batch_execute(script)
        .await
        .context("create an index")
}

/// Waits until a session of the agent waits for a lock. Before that, Docker could still end the process together
/// with its client.
async fn wait_until_a_dump_is_blocked(node: &Node) -> Result<()> {
    let client = node.cluster()?.connect("template1").await?;
    let query = "SELECT query FROM pg_stat_activity
        WHERE application_name LIKE 'rekindle%' AND wait_event_type = 'Lock'";
    wait_for("a dump to wait for a lock", WAIT_LIMIT, async || {
        let found = client.query(query, &[]).await;
        let found = found.map_err(|error| error.to_string())?;
        Ok::<_, String>((!found.is_empty()).then_some(()))
    })
    .await
}

/// Waits until none of these processes runs in the container.
async fn wait_until_gone(node: &Node, old: &[String]) -> Result<()> {
    wait_for("the leftover processes to end", WAIT_LIMIT, async || {
        let now = tools(node).await.map_err(|error| format!("{error:#}"))?;
        let left: Vec<_> = now.iter().filter(|one| old.contains(one)).collect();
        if left.is_empty() {
            Ok(Some(()))
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await
}

/// Checks that no process of this machine has the secret in its arguments.
fn assert_no_argument_contains_the_secret() -> Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // The `docker run` that contained it has ended.
        ensure!(!line.contains(SECRET), "{line}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_a_killed_agent_left_in_a_container_are_ended_by_the_next_command()
-> Result<()> {
    if skipped().await? {
        return Ok(());
    }
    let image = engine::image().await?;
    let protected = ProtectedGroups::start().await?;
    let application = application(&protected, &image)?;
    protected
        .standin
        .create_group(application.group(protected.standin.bucket()))?;
    let node = protected.wait_until_in_service(APPLICATION, None).await?;
    fill(&node).await?;
    add_slow_index(&node).await?;

    // A dump that waits for a lock survives its agent.
    let blocker = registry::block_dumps(&node).await?;
    protected.standin.tick();
    wait_until_a_dump_is_blocked(&node).await?;
    assert_no_argument_contains_the_secret()?;
    kill_agent(&node, "backup").await?;
    let old = tools(&node).await?;
    ensure!(
        !old.is_empty(),
        "the dump ended with its agent, so there is nothing to test"
    );
    let (before, backups) = (protected.invocations(&node, "backup").await?.len(), 0);
    protected
        .wait_until_ended(&node, "backup", before - 1)
        .await?;
    protected.standin.tick();
    wait_until_gone(&node, &old).await?;
    drop(blocker);
    let manifest = protected.wait_for_backup(APPLICATION, backups).await?;
    assert_nothing_left(&protected, &node).await?;
    assert_eq!(manifest.index.unsaved_images, Vec::<String>::new());

    kill_a_restore(&protected, &application, &node, &manifest).await?;
    replace_the_container(&protected, &application, &node).await?;

    // Neither the output of the commands nor an object in the bucket contains the secret.
    for word in ["backup", "restore"] {
        for one in protected.invocations(&node, word).await? {
            let printed = [one.output, one.errors].concat();
            ensure!(!printed.contains(SECRET), "{printed}");
        }
    }
    let bucket = protected.standin.bucket();
    for key in protected.standin.s3().keys(bucket, "")? {
        let bytes = protected.standin.s3().read(bucket, &key)?;
        ensure!(
            !String::from_utf8_lossy(&bytes).contains(SECRET),
            "{key} contains the secret"
        );
    }
    Ok(())
}

/// Kills a restore during the build of an index; the same command, sent again, ends its processes and restores.
async fn kill_a_restore(
    protected: &ProtectedGroups,
    application: &Application,
    node: &Node,
    manifest: &shared::manifest::Manifest,
) -> Result<()> {
    let data = standalone::snapshot(node).await?;
    let standalone = standalone_node(protected, application).await?;
    let (node, operation) = (&standalone.node, format!("launch-{}", standalone.node.id()));
    node.cluster()?.start().await?;
    let engine = node.engine()?;
    engine.exec(POSTGRES, &["touch", "/tmp/slow"]).await?;

    let candidates = [manifest.candidate()];
    let agent = standalone.start_restore(&operation, &candidates)?;
    wait_for("the index to be built", WAIT_LIMIT, async || {
        let client = node.cluster().map_err(|error| error.to_string())?;
        let client = client.connect("template1").await;
        let client = client.map_err(|error| format!("{error:#}"))?;
        let query =
            "SELECT query FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX slow_index%'";
        let found = client
            .query(query, &[])
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>((!found.is_empty()).then_some(()))
    })
    .await?;
    kill_agent(node, "restore").await?;
    let killed = standalone::wait_for_exit(agent).await?;
    assert_eq!(killed.code, None, "{killed:?}");
    let old = tools(node).await?;
    ensure!(
        !old.is_empty(),
        "pg_restore ended with its agent, so there is nothing to test"
    );

    let again = standalone.start_restore(&operation, &candidates)?;
    wait_until_gone(node, &old).await?;
    engine.exec(POSTGRES, &["rm", "/tmp/slow"]).await?;
    let again = standalone::wait_for_exit(again).await?;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(
        again
            .log
            .contains("ended what an earlier agent had left running")
    );
    assert!(!again.log.contains(SECRET));
    let restored = standalone::snapshot(node).await?;
    ensure!(restored.databases == data.databases, "the databases differ");
    assert_eq!(restored.files, data.files);
    assert_nothing_left(protected, node).await
}

/// Replaces the container during a backup. The new one has no network, so the agent can only use its name.
async fn replace_the_container(
    protected: &ProtectedGroups,
    application: &Application,
    node: &Node,
) -> Result<()> {
    let engine = node.engine()?;
    let reached = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&reached);
    protected.standin.s3().on_request(move |call| {
        let dump = call.operation.ends_with("PutObject") && call.key.ends_with("0.dump.zst");
        let first = dump && !seen.swap(true, Ordering::SeqCst);
        first.then_some(S3Fault::Stall(std::time::Duration::from_secs(1)))
    });
    let before = protected.invocations(node, "backup").await?.len();
    protected.standin.tick();
    wait_for("a backup to upload its dump", WAIT_LIMIT, async || {
        Ok::<_, String>(reached.load(Ordering::SeqCst).then_some(()))
    })
    .await?;
    engine.run(&["rm", "--force", POSTGRES]).await?;
    let failed = protected.wait_until_ended(node, "backup", before).await?;
    assert_ne!(failed.code, 0, "{failed:?}");
    protected.standin.s3().clear_hook();

    let volume = format!("{POSTGRES}:/var/lib/postgresql/data");
    let password = format!("POSTGRES_PASSWORD={SECRET}");
    let run = [
        "run",
        "--pull",
        "never",
        "--detach",
        "--name",
        POSTGRES,
        "--network",
        "none",
        "--env",
        &password,
        "--volume",
        &volume,
        &application.image,
        "postgres",
    ];
    engine.run(&run).await?;
    wait_for(
        "Postgres to be ready in the new container",
        WAIT_LIMIT,
        async || {
            let engine = node.engine().map_err(|error| error.to_string())?;
            let ready = engine.exec(POSTGRES, &["pg_isready", "--quiet"]).await;
            ready
                .map(|_| Some(()))
                .map_err(|error| format!("{error:#}"))
        },
    )
    .await?;
    protected.back_up(APPLICATION).await.map(|_| ())
}
