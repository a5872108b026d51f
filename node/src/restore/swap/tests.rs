use std::collections::BTreeSet;

use super::*;
use crate::postgres::own_databases::drop_with_prefixes;
use crate::testing::Cluster;

fn pair(live: &str, number: usize) -> Pair {
    Pair {
        live: live.to_owned(),
        new: format!("rekindle__restore_0a1b2c3d_{number}"),
        old: format!("rekindle__old_0a1b2c3d_{number}"),
    }
}

async fn fill(cluster: &Cluster, database: &str, word: &str) {
    let script = format!("CREATE TABLE which AS SELECT '{word}'::text AS word");
    cluster.sql(database, &script).await;
}

/// A client that reconnects as soon as it loses its session, until it is dropped.
async fn reconnecting(postgres: Postgres, database: String) {
    loop {
        let script = "SELECT pg_sleep(60)";
        postgres
            .script(&database, script, ExitCode::Internal)
            .await
            .ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_swapped_under_clients_that_reconnect() {
    let cluster = Cluster::start();
    let postgres = cluster.postgres();
    let awkward = "Größe \"1\" \\ 'x' $1";
    // `postgres`, a database with an awkward name, and one that does not exist yet.
    let pairs = [pair("postgres", 0), pair(awkward, 1), pair("fresh", 2)];
    cluster
        .sql(
            "template1",
            &format!("CREATE DATABASE {}", identifier(awkward)),
        )
        .await;
    fill(&cluster, "postgres", "old").await;
    fill(&cluster, awkward, "old").await;
    for pair in &pairs {
        let script = format!("CREATE DATABASE {}", identifier(&pair.new));
        cluster.sql("template1", &script).await;
        fill(&cluster, &pair.new, "new").await;
    }
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let database = pairs[client % 2].live.clone();
            tokio::spawn(reconnecting(postgres.clone(), database))
        })
        .collect();
    let sessions = "SELECT count(*) >= 6 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'";
    while cluster.sql("template1", sessions).await != "t" {}

    let swapped = swap(&postgres, &pairs, 150_000).await.unwrap();
    for pair in &pairs {
        assert_eq!(
            cluster.sql(&pair.live, "SELECT word FROM which").await,
            "new"
        );
    }
    let refused =
        "SELECT count(*) FROM pg_database WHERE NOT datallowconn AND datname LIKE 'rekindle%'";
    assert_eq!(cluster.sql("template1", refused).await, "2");

    swapped.undo(&postgres).await.unwrap();
    for pair in &pairs[..2] {
        assert_eq!(
            cluster.sql(&pair.live, "SELECT word FROM which").await,
            "old"
        );
    }
    clients.iter().for_each(tokio::task::JoinHandle::abort);

    drop_with_prefixes(&postgres, &["rekindle__restore_", "rekindle__old_"])
        .await
        .unwrap();
    let remaining =
        "SELECT string_agg(datname, '|' ORDER BY datname) FROM pg_database WHERE NOT datistemplate";
    assert_eq!(
        cluster.sql("template1", remaining).await,
        format!("{awkward}|postgres")
    );
}

#[tokio::test]
async fn a_failed_swap_changes_nothing() {
    let cluster = Cluster::start();
    fill(&cluster, "postgres", "old").await;
    cluster
        .sql("template1", "CREATE DATABASE rekindle__restore_0a1b2c3d_0")
        .await;
    let names = "SELECT string_agg(datname || datallowconn, '|' ORDER BY datname) FROM pg_database";
    let before = cluster.sql("template1", names).await;
    // The second replacement does not exist.
    let pairs = [pair("postgres", 0), pair("fresh", 1)];
    let failure = swap(&cluster.postgres(), &pairs, 150_000)
        .await
        .unwrap_err();
    assert_eq!(failure.code, ExitCode::Restore);
    assert!(failure.chain().contains("rekindle__restore_0a1b2c3d_1"));
    assert_eq!(cluster.sql("template1", names).await, before);
    assert_eq!(
        cluster.sql("postgres", "SELECT word FROM which").await,
        "old"
    );
}

#[tokio::test]
async fn the_administrative_database_itself_can_be_swapped() {
    let cluster = Cluster::start();
    let new = pair("template1", 0);
    cluster
        .sql("postgres", &format!("CREATE DATABASE {}", new.new))
        .await;
    fill(&cluster, &new.new, "new").await;
    swap(&cluster.postgres(), &[new], 150_000).await.unwrap();
    assert_eq!(
        cluster.sql("template1", "SELECT word FROM which").await,
        "new"
    );
    drop_with_prefixes(&cluster.postgres(), &["rekindle__old_"])
        .await
        .unwrap();
}

#[tokio::test]
async fn the_failure_to_end_sessions_contains_the_reason_and_no_results() {
    let cluster = Cluster::start();
    let postgres = cluster.postgres();
    let stopping = async {
        let started = "SELECT max(query_start) FROM pg_stat_activity
            WHERE query LIKE 'SELECT count(pg_terminate_backend%'";
        // When the fourth statement has started, the session has returned several results.
        let mut starts = BTreeSet::new();
        while starts.len() < 4 {
            let start = cluster.sql("template1", started).await;
            starts.extend((!start.is_empty()).then_some(start));
        }
        cluster.stop_server();
    };
    let ending = end_sessions(&postgres, "template1", &[0]);
    let mut ending = std::pin::pin!(ending);
    tokio::select! {
        failure = &mut ending => panic!("{}", failure.chain()),
        () = stopping => {}
    }
    let chain = ending.await.chain();
    assert!(chain.contains("server closed the connection"), "{chain}");
    assert!(!chain.contains("0 | 0"), "{chain}");
}
