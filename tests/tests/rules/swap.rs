//! During a restore, a client sees the old database or the restored one, never a state in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::registry::MAIN_DATABASE;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::StandaloneNode;
use rekindle_tests::nodes::machine::Node;
use shared::report::Report;
use tokio::task::JoinHandle;

/// Creates a table that can be dumped but not restored: the function of its generated column refuses all rows by now.
/// `pg_restore` loads it last, when everything else is restored.
const UNRESTORABLE: &str = "CREATE SCHEMA zz;
    CREATE FUNCTION zz.twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 2 * n; END';
    CREATE TABLE zz.doubled (n int, m int GENERATED ALWAYS AS (zz.twice(n)) STORED); INSERT INTO zz.doubled VALUES (1);
    CREATE OR REPLACE FUNCTION zz.twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''ceiling''; END'";

/// Clients that connect to a node's main database again and again, without a pause.
struct Clients {
    done: Arc<AtomicBool>,
    running: Vec<JoinHandle<(usize, usize)>>,
}

impl Clients {
    fn of(node: &Arc<Node>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let clients = (0..4).map(|_| connect_repeatedly(Arc::clone(node), Arc::clone(&done)));
        Self {
            running: clients.map(tokio::spawn).collect(),
            done,
        }
    }

    /// Stops each client after three more queries; returns how often they saw the old database and the new one.
    async fn stop(self) -> Result<(usize, usize)> {
        self.done.store(true, Ordering::SeqCst);
        let (mut old, mut new) = (0, 0);
        for client in self.running {
            let seen = client.await?;
            (old, new) = (old + seen.0, new + seen.1);
        }
        Ok((old, new))
    }
}

/// Queries the main database until `done` is set, and three times more; returns how often it saw the old database and the
/// new one.
async fn connect_repeatedly(node: Arc<Node>, done: Arc<AtomicBool>) -> (usize, usize) {
    let (mut old, mut new) = (0, 0);
    let mut queries_after = 0;
    while queries_after < 3 {
        let is_done = done.load(Ordering::SeqCst);
        let Ok(cluster) = node.cluster() else {
            continue;
        };
        // During the swap, Postgres accepts no connection.
        let Ok(client) = cluster.connect(MAIN_DATABASE).await else {
            continue;
        };
        let query = "SELECT to_regclass('public.precious') IS NOT NULL,
            to_regclass('registry.pushes') IS NOT NULL, to_regnamespace('registry') IS NOT NULL";
        if let Ok(row) = client.query_one(query, &[]).await {
            let (precious, registry, begun): (bool, bool, bool) =
                (row.get(0), row.get(1), row.get(2));
            assert_ne!(
                precious, registry,
                "neither the old database nor the new one"
            );
            assert_eq!(begun, registry, "a part of the new database");
            old += usize::from(precious);
            new += usize::from(registry);
            queries_after += usize::from(is_done);
        }
    }
    (old, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_restored_database_is_never_live() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("half").await?;
    protected.back_up("half").await?;
    let main = node.cluster()?.connect(MAIN_DATABASE).await?;
    main.batch_execute(UNRESTORABLE).await?;
    drop(main);
    let bad = protected.back_up("half").await?;

    // As the only candidate, it fails while its rows are loaded, and the clients see only the old database.
    let standalone = StandaloneNode::with_data(&protected, "half").await?;
    let before = standalone.snapshot().await?;
    let clients = Clients::of(&standalone.node);
    let answer = standalone
        .restore("launch-i-0000000a", &[bad.candidate()])
        .await?;
    let (old, new) = clients.stop().await?;
    let Report::Failure(failure) = answer.report()? else {
        anyhow::bail!("{answer:?}");
    };
    assert!(failure.message.contains("ceiling"), "{failure:?}");
    assert!(
        old > 0 && new == 0,
        "the old database was seen {old} times, the new one {new} times"
    );
    assert_eq!(standalone.snapshot().await?, before);

    // An older backup would lose rows, so no instance is admitted.
    protected.standin.kill_instance(node.id()).await?;
    let line = protected.wait_for_failure("half", "Restore").await?;
    assert!(line.contains("ceiling"), "{line}");
    assert_eq!(
        line.message,
        "abandoned the launch; the group launches another instance"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_reconnect_during_a_restore_see_the_old_or_the_new_database() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("busy").await?;
    let manifest = protected.back_up("busy").await?;
    let data = standalone::snapshot(&node).await?;
    let standalone = StandaloneNode::with_data(&protected, "busy").await?;
    let clients = Clients::of(&standalone.node);
    let answer = standalone
        .restore("launch-i-0000000b", &[manifest.candidate()])
        .await?;
    let (old, new) = clients.stop().await?;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(
        old > 0 && new > 0,
        "the old database was seen {old} times, the new one {new} times"
    );
    let after = standalone.snapshot().await?;
    for (name, rows) in &data.databases {
        assert!(after.databases.get(name) == Some(rows), "{name} differs");
    }
    Ok(())
}
