//! A cluster is killed and started again.

use super::*;

#[tokio::test]
async fn a_cluster_survives_a_kill_and_both_scripts_are_idempotent() {
    let directory = tempfile::tempdir().unwrap();
    crate::nodes::open_to_all(directory.path()).unwrap();
    let cluster = Cluster::create(&directory.path().join("postgres"))
        .await
        .unwrap();
    cluster.start().await.unwrap();
    cluster.start().await.unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    client
        .batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        .await
        .unwrap();
    assert!(
        cluster
            .socket_directory()
            .join(format!(".s.PGSQL.{}", cluster.port()))
            .exists()
    );

    let segment = cluster.shared_memory().unwrap();
    assert!(is_kept(&segment));
    cluster.kill().await.unwrap();
    assert!(cluster.connect("postgres").await.is_err());
    assert!(!is_kept(&segment), "the kernel keeps {segment}");
    cluster.start().await.unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    let kept: i32 = client
        .query_one("SELECT n FROM kept", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(kept, 7);

    cluster.stop().await.unwrap();
    cluster.stop().await.unwrap();
    assert_eq!(cluster.processes().unwrap(), Vec::<i32>::new());
    let path = cluster.directory().to_owned();
    cluster.destroy().await.unwrap();
    assert!(!path.exists());
}

/// Returns whether the kernel still keeps a segment of shared memory.
fn is_kept(segment: &str) -> bool {
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let mut ids = segments
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    ids.any(|id| id == segment)
}
