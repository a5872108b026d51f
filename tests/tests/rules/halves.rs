//! Whoever connects meets a database as it was or as it was backed up, and nothing between.

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

/// A table that is dumped and cannot be restored, since its check finds another one by `search_path` only. It comes
/// last, when everything else is there.
const UNRESTORABLE: &str = "SET search_path = public;
    CREATE TABLE ceiling (n int); INSERT INTO ceiling VALUES (10);
    CREATE FUNCTION fits(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 <= (SELECT max(n) FROM ceiling)';
    CREATE SCHEMA zz; CREATE TABLE zz.checked (n int CHECK (public.fits(n))); INSERT INTO zz.checked VALUES (1)";

/// Clients of a machine's main database that connect again and again, without a pause.
struct Clients {
    done: Arc<AtomicBool>,
    running: Vec<JoinHandle<(usize, usize)>>,
}

impl Clients {
    fn of(node: &Arc<Node>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let looks = (0..4).map(|_| look(Arc::clone(node), Arc::clone(&done)));
        Self {
            running: looks.map(tokio::spawn).collect(),
            done,
        }
    }

    /// Lets each look a few times more; returns how often they saw the old database, and the new one.
    async fn end(self) -> Result<(usize, usize)> {
        self.done.store(true, Ordering::SeqCst);
        let (mut old, mut new) = (0, 0);
        for client in self.running {
            let seen = client.await?;
            (old, new) = (old + seen.0, new + seen.1);
        }
        Ok((old, new))
    }
}

async fn look(node: Arc<Node>, done: Arc<AtomicBool>) -> (usize, usize) {
    let (mut old, mut new) = (0, 0);
    let mut looks_after = 0;
    while looks_after < 3 {
        let is_done = done.load(Ordering::SeqCst);
        let Ok(cluster) = node.cluster() else {
            continue;
        };
        // While the databases change places, nobody gets in.
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
            assert_eq!(begun, registry, "a part of the new one");
            old += usize::from(precious);
            new += usize::from(registry);
            looks_after += usize::from(is_done);
        }
    }
    (old, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_restored_database_is_never_live() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("half").await?;
    protected.back_up("half").await?;
    let good = standalone::snapshot(&node).await?;
    let main = node.cluster()?.connect(MAIN_DATABASE).await?;
    main.batch_execute(UNRESTORABLE).await?;
    drop(main);
    let bad = protected.back_up("half").await?;

    // Alone, it fails in the middle of its rows, and what was there before is all that is ever seen.
    let standalone = StandaloneNode::with_data(&protected, "half").await?;
    let before = standalone.snapshot().await?;
    let clients = Clients::of(&standalone.node);
    let answer = standalone
        .restore("launch-half", &[bad.candidate()])
        .await?;
    let (old, new) = clients.end().await?;
    let Report::Failure(failure) = answer.report()? else {
        anyhow::bail!("{answer:?}");
    };
    assert!(failure.message.contains("ceiling"), "{failure:?}");
    assert!(
        old > 0 && new == 0,
        "{old} looks at the old one, {new} at the new one"
    );
    assert_eq!(standalone.snapshot().await?, before);

    // With a good one behind it, that one is whole, and nothing else is there.
    let next = protected.replace_lost(&node).await?;
    assert!(standalone::snapshot(&next).await?.databases == good.databases);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_reconnect_without_a_pause_see_the_old_or_the_new_and_nothing_between()
-> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("busy").await?;
    let manifest = protected.back_up("busy").await?;
    let holding = standalone::snapshot(&node).await?;
    let standalone = StandaloneNode::with_data(&protected, "busy").await?;
    let clients = Clients::of(&standalone.node);
    let answer = standalone
        .restore("launch-busy", &[manifest.candidate()])
        .await?;
    let (old, new) = clients.end().await?;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(
        old > 0 && new > 0,
        "{old} looks at the old one, {new} at the new one"
    );
    let after = standalone.snapshot().await?;
    for (name, rows) in &holding.databases {
        assert!(after.databases.get(name) == Some(rows), "{name} differs");
    }
    Ok(())
}
