use std::path::Path;

use super::*;
use crate::settings::Commands;
use crate::testing::{self, Cluster};

async fn context(health: &[&str], root: &Path) -> Context {
    let mut context = testing::context(root).await;
    context.settings.commands = Commands {
        start_postgres: None,
        start: Some(vec![
            "sh".to_owned(),
            "-c".to_owned(),
            "echo no such service >&2; exit 3".to_owned(),
        ]),
        stop: None,
        health: Some(health.iter().map(|&word| word.to_owned()).collect()),
        health_timeout_seconds: 1,
    };
    context
}

#[tokio::test]
async fn the_failure_of_a_command_quotes_its_output() {
    let context = context(&[], Path::new("")).await;
    let failure = start(&context).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "StartCommand (exit code 38): [commands] start: sh failed (exit status: 3): no such service"
    );
}

#[tokio::test]
async fn the_health_command_is_repeated_until_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let script = "test -e $REKINDLE_ROOT/up || { touch $REKINDLE_ROOT/up; exit 1; }";
    let healthy = context(&["sh", "-c", script], directory.path()).await;
    wait_healthy(&healthy).await.unwrap();

    let unhealthy = context(&["sh", "-c", "echo starting; exit 1"], Path::new("")).await;
    let failure = wait_healthy(&unhealthy).await.unwrap_err();
    assert_eq!(failure.code, ExitCode::HealthCheck);
    assert!(failure.chain().ends_with("(exit status: 1): starting"));
}

#[tokio::test]
async fn the_failure_names_an_unreachable_server_and_the_remedy() {
    let wait = async |server: Server| {
        let mut context = testing::context(Path::new("")).await;
        context.settings.postgres.server = server;
        context.settings.postgres.ready_timeout_seconds = 1;
        context.postgres = Postgres::new(context.settings.postgres.clone());
        wait_for_postgres(&context).await.unwrap_err()
    };
    let failure = wait(Server::Direct {
        host: "/nonexistent".to_owned(),
        port: 5433,
    })
    .await;
    assert_eq!(failure.code, ExitCode::PostgresUnreachable);
    assert!(failure.chain().contains("at /nonexistent, port 5433"));
    assert!(
        failure
            .chain()
            .ends_with("correct [postgres] host and port in the settings")
    );

    let failure = wait(Server::Container("no_such_container".to_owned())).await;
    assert_eq!(failure.code, ExitCode::PostgresUnreachable);
    assert!(failure.chain().contains("\"no_such_container\""));
}

/// Returns the failure of a wait for this cluster's server.
async fn refused(cluster: &Cluster, user: &str) -> Failure {
    let mut settings = cluster.settings.clone();
    settings.user = user.to_owned();
    let server = settings.server.clone();
    let last = check_postgres(&Postgres::new(settings)).await.unwrap_err();
    not_ready(&server, FIRST_START, &last)
}

#[tokio::test]
async fn a_server_that_refuses_the_agent_has_a_remedy_of_its_own() {
    let cluster = Cluster::start();
    let passwords = "CREATE ROLE etl SUPERUSER LOGIN PASSWORD 'x'";
    cluster.sql("postgres", passwords).await;
    let rules =
        "local all unlisted reject\nlocal all etl scram-sha-256\nlocal all postgres trust\n";
    std::fs::write(cluster.directory().join("data/pg_hba.conf"), rules).unwrap();
    cluster.sql("postgres", "SELECT pg_reload_conf()").await;
    for (user, error, remedy) in [
        ("etl", "no password supplied", "PGPASSWORD"),
        ("unlisted", "pg_hba.conf rejects", "in pg_hba.conf"),
        ("other", "no pg_hba.conf entry", "in pg_hba.conf"),
    ] {
        let failure = refused(&cluster, user).await;
        let chain = failure.chain();
        assert_eq!(failure.code, ExitCode::PostgresRefused, "{chain}");
        assert!(chain.contains(error) && chain.contains(remedy), "{chain}");
        assert!(!chain.contains("start the server"), "{chain}");
    }
}

#[tokio::test]
async fn a_missing_role_or_database_has_a_remedy_of_its_own() {
    let cluster = Cluster::start();
    let failure = refused(&cluster, "nobody_here").await;
    assert_eq!(failure.code, ExitCode::PostgresRefused);
    let chain = failure.chain();
    assert!(chain.contains("correct [postgres] user"), "{chain}");
    let rename = "ALTER DATABASE template1 RENAME TO other";
    cluster.sql("postgres", rename).await;
    let failure = refused(&cluster, "postgres").await;
    assert_eq!(failure.code, ExitCode::PostgresRefused);
    let chain = failure.chain();
    assert!(chain.contains("create this database again"), "{chain}");
}

#[tokio::test]
async fn a_role_that_is_no_superuser_has_a_remedy_of_its_own() {
    let mut cluster = Cluster::start();
    cluster.sql("postgres", "CREATE ROLE plain LOGIN").await;
    cluster.settings.user = "plain".to_owned();
    let postgres = cluster.postgres();
    let failure = crate::postgres::server::Server::read(&postgres).await;
    let failure = failure.unwrap_err();
    assert_eq!(failure.code, ExitCode::PostgresRefused);
    let chain = failure.chain();
    assert!(chain.contains("it must be a superuser"), "{chain}");
    cluster.settings.user = "postgres".to_owned();
}

/// Runs [`wait`] with these results of the checks, and the last one for ever. Returns what it returns, the number of
/// checks, and how long it took.
async fn waited(results: &[Option<ExitCode>]) -> (Result<()>, usize, Duration) {
    let began = Instant::now();
    let mut checks = 0;
    let check = || {
        let result = results[checks.min(results.len() - 1)];
        checks += 1;
        async move { result.map_or(Ok(()), |code| Err(Failure::new(code, "no"))) }
    };
    let limit = Duration::from_mins(5);
    let result = wait(limit, ExitCode::PostgresUnreachable, check).await;
    (result, checks, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_early_only_if_the_failure_stays_permanent() {
    let (refused, starting) = (
        Some(ExitCode::PostgresRefused),
        Some(ExitCode::PostgresNotReady),
    );
    // The temporary server of a container's first start refuses, then the real one starts.
    let (result, ..) = waited(&[refused, refused, refused, starting, None]).await;
    result.unwrap();

    let (result, checks, took) = waited(&[starting, refused]).await;
    assert_eq!(result.unwrap_err().code, ExitCode::PostgresRefused);
    assert!(checks > 2 && took < 2 * FIRST_START, "{took:?}");

    let (result, _, took) = waited(&[refused, starting]).await;
    assert_eq!(result.unwrap_err().code, ExitCode::PostgresNotReady);
    assert!(took > Duration::from_secs(290), "{took:?}");
}
