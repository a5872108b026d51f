use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::settings::Exceptions;
use crate::testing::Cluster;

/// Scripts that psql runs.
const SCRIPTS: usize = 100;

const NASTY: &str = "
    CREATE ROLE \"o'hara \"\"the; great\"\" -- $1\" LOGIN PASSWORD 'a;b''c\\d';
    CREATE ROLE \"Größe /* x */\" CREATEDB;
    GRANT \"Größe /* x */\" TO \"o'hara \"\"the; great\"\" -- $1\" WITH ADMIN OPTION;
    COMMENT ON ROLE \"Größe /* x */\" IS E'two\\nlines;\\n\\\\restrict not\\n\\'quoted\\'';
    ALTER ROLE \"Größe /* x */\" SET search_path TO 'a;b', \"$user\";
    CREATE DATABASE d;
    ALTER ROLE \"Größe /* x */\" IN DATABASE d SET work_mem TO '1MB';";

async fn dump(cluster: &Cluster) -> String {
    let pg_dumpall = cluster.postgres().tool("pg_dumpall");
    let output = pg_dumpall.arg("--globals-only").output(ExitCode::Internal);
    String::from_utf8(output.await.unwrap()).unwrap()
}

/// Returns the lines without the ones that differ between runs: the key of `\restrict`, and comments.
fn comparable(dump: &str) -> Vec<&str> {
    dump.lines()
        .filter(|line| !line.starts_with("--") && !line.starts_with('\\'))
        .collect()
}

async fn restored_on(target: &Cluster, settings: &PostgresSettings, globals: &str) {
    let postgres = target.postgres();
    let existing = Existing::read(&postgres).await.unwrap();
    restore(&postgres, settings, &existing, globals, &[])
        .await
        .unwrap();
}

#[tokio::test]
async fn globals_are_restored_completely_also_twice() {
    let (source, target) = (Cluster::start(), Cluster::start());
    source.sql("postgres", NASTY).await;
    let globals = dump(&source).await;
    for _ in 0..2 {
        restored_on(&target, &target.settings, &globals).await;
        assert_eq!(comparable(&dump(&target).await), comparable(&globals));
    }
}

#[tokio::test]
async fn globals_that_lock_the_agent_out_have_a_failure_of_their_own() {
    let cluster = Cluster::start();
    let globals = "CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER NOLOGIN;\n";
    let postgres = cluster.postgres();
    let existing = Existing::read(&postgres).await.unwrap();
    let restored = restore(&postgres, &cluster.settings, &existing, globals, &[]);
    let failure = restored.await.unwrap_err();
    assert_eq!(failure.code, ExitCode::PostgresRefused);
    let chain = failure.chain();
    assert!(chain.starts_with("the restore gave the agent's own role"));
    assert!(chain.contains("is not permitted to log in"), "{chain}");
}

#[tokio::test]
async fn an_existing_role_loses_what_the_backup_does_not_have() {
    let (source, target) = (Cluster::start(), Cluster::start());
    let roles = "CREATE ROLE app LOGIN; CREATE ROLE readers; CREATE ROLE admins;";
    source.sql("postgres", roles).await;
    source.sql("postgres", "GRANT readers TO app").await;
    target.sql("postgres", roles).await;
    let more = "ALTER ROLE app SUPERUSER CONNECTION LIMIT 3 PASSWORD 'x' VALID UNTIL '2040-01-01';
        ALTER ROLE app SET work_mem = '1MB'; COMMENT ON ROLE app IS 'another'; GRANT admins TO app WITH ADMIN OPTION;
        GRANT readers TO app WITH ADMIN OPTION; CREATE ROLE image; GRANT readers TO image;";
    target.sql("postgres", more).await;
    let globals = dump(&source).await;
    restored_on(&target, &target.settings, &globals).await;
    // A role that is not in the backup stays.
    target.sql("postgres", "DROP ROLE image").await;
    assert_eq!(comparable(&dump(&target).await), comparable(&globals));
}

#[tokio::test]
async fn the_bootstrap_role_keeps_its_password_if_configured() {
    let (source, target) = (Cluster::start(), Cluster::start());
    source
        .sql("postgres", "ALTER ROLE postgres PASSWORD 'old'")
        .await;
    target
        .sql("postgres", "ALTER ROLE postgres PASSWORD 'new'")
        .await;
    let password = "SELECT rolpassword FROM pg_authid WHERE oid = 10";
    let before = target.sql("postgres", password).await;
    let globals = dump(&source).await;

    let mut settings = target.settings.clone();
    settings.bootstrap_role_password = BootstrapRolePassword::Keep;
    restored_on(&target, &settings, &globals).await;
    assert_eq!(target.sql("postgres", password).await, before);

    restored_on(&target, &target.settings, &globals).await;
    let restored = target.sql("postgres", password).await;
    assert_eq!(restored, source.sql("postgres", password).await);
}

fn existing() -> Existing {
    Existing {
        roles: BTreeSet::from(["postgres".to_owned(), "app".to_owned()]),
        tablespaces: BTreeSet::from(["pg_default".to_owned(), "fast".to_owned()]),
        bootstrap_role: "postgres".to_owned(),
        memberships: Vec::new(),
    }
}

fn settings(tablespaces: Tablespaces) -> PostgresSettings {
    PostgresSettings {
        server: crate::settings::Server::Container("postgres".to_owned()),
        user: "postgres".to_owned(),
        databases: None,
        bootstrap_role_password: BootstrapRolePassword::Restore,
        tablespaces,
        exceptions: Exceptions::Admit,
        ready_timeout_seconds: 1,
    }
}

#[test]
fn an_existing_tablespace_is_not_created_again() {
    let globals = "CREATE TABLESPACE fast OWNER postgres LOCATION '/fast';\n\
        CREATE TABLESPACE \"s;low\" OWNER postgres LOCATION '/slow';\n\
        GRANT ALL ON TABLESPACE \"s;low\" TO app;";
    let scripts_for = |tablespaces| {
        scripts(globals, &[], &settings(tablespaces), &existing())
            .unwrap()
            .tablespaces
    };
    assert_eq!(
        scripts_for(Tablespaces::Fail),
        "CREATE TABLESPACE \"s;low\" OWNER postgres LOCATION '/slow';\n\
         GRANT ALL ON TABLESPACE \"s;low\" TO app;\n"
    );
    assert_eq!(scripts_for(Tablespaces::Default), "");
}

#[test]
fn the_name_of_a_role_can_be_tablespace() {
    let globals = "CREATE ROLE tablespace;\n\
        ALTER ROLE tablespace WITH LOGIN;\n\
        GRANT tablespace TO bob;\n\
        COMMENT ON ROLE tablespace IS 'odd';";
    let scripts = scripts(globals, &[], &settings(Tablespaces::Default), &existing()).unwrap();
    assert_eq!(scripts.tablespaces, "");
    let statements: Vec<&str> = scripts
        .properties
        .iter()
        .map(|property| property.statement.as_str())
        .collect();
    assert_eq!(
        statements,
        [
            "GRANT tablespace TO bob;\n",
            "COMMENT ON ROLE tablespace IS 'odd';\n"
        ]
    );
}

#[test]
fn settings_of_a_role_in_a_database_are_skipped() {
    let globals = "ALTER ROLE app IN DATABASE live SET work_mem TO '1MB';";
    let scripts = scripts(globals, &[], &settings(Tablespaces::Fail), &existing()).unwrap();
    assert!(!scripts.roles.contains("work_mem"));
    assert_eq!(scripts.properties, []);
}

#[tokio::test]
async fn a_refused_property_of_a_role_is_an_exception() {
    let cluster = Cluster::start();
    let globals = "CREATE ROLE legacy;\nALTER ROLE legacy WITH LOGIN;\n\
        ALTER ROLE legacy SET operator_precedence_warning TO 'off';\n\
        ALTER ROLE legacy SET work_mem TO '5MB';\nGRANT gone TO legacy;\n\
        ALTER ROLE legacy SET \"app.jwt\" TO 'marker';\n";
    let postgres = cluster.postgres();
    let existing = Existing::read(&postgres).await.unwrap();
    let of_all_roles = [Setting {
        role: None,
        assignment: "sql_inheritance=on".to_owned(),
    }];
    let restored = restore(
        &postgres,
        &cluster.settings,
        &existing,
        globals,
        &of_all_roles,
    );
    let texts: Vec<String> = restored
        .await
        .unwrap()
        .iter()
        .map(Exception::text)
        .collect();
    assert_eq!(
        texts,
        [
            "ROLE SETTING operator_precedence_warning of legacy: ERROR: unrecognized configuration parameter \
             \"operator_precedence_warning\" (SQLSTATE 42704)",
            "ROLE MEMBERSHIP gone to legacy: ERROR: role \"gone\" does not exist (SQLSTATE 42704)",
            "ROLE SETTING sql_inheritance of all roles: ERROR: unrecognized configuration parameter \
             \"sql_inheritance\" (SQLSTATE 42704)",
        ]
    );
    let settings = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'legacy'::regrole";
    assert_eq!(
        cluster.sql("postgres", settings).await,
        "{work_mem=5MB,app.jwt=marker}"
    );
}

/// Runs accepted scripts in psql itself: it must not find a psql command in any of them.
#[tokio::test]
async fn accepted_globals_contain_no_psql_command() {
    const PIECES: [&str; 28] = [
        "'",
        "''",
        "\"",
        "$$",
        "$a$",
        "$1",
        "$",
        "1",
        "1e",
        "e",
        "E'",
        "U&'",
        "B'",
        "é",
        "a",
        " ",
        "\n",
        "\r",
        "\0",
        "--",
        "/*",
        "*/",
        ";",
        ":",
        "(",
        "\\",
        "\\'",
        "\\restrict x\n",
    ];
    let cluster = Cluster::start();
    let hit = cluster.directory().join("hit");
    // `#` begins a comment of the shell, and the newline ends psql's command.
    let command = format!("\\! touch {} #\n", hit.display());
    let piece = prop_oneof![
        6 => prop::sample::select(&PIECES[..]).prop_map(str::to_owned),
        1 => Just(command.clone()),
    ];
    let scripts = prop::collection::vec(piece, 2..16).prop_map(|pieces| pieces.concat());
    let mut runner = TestRunner::deterministic();
    let mut run = 0;
    while run < SCRIPTS {
        let script = scripts.new_tree(&mut runner).unwrap().current() + "\n;\n";
        if statements(&script).is_err() || !script.contains(&command) {
            continue;
        }
        run += 1;
        let psql = cluster.postgres().tool("psql");
        let psql = psql.args(["-X", "-q", "-d", "postgres"]).input(&*script);
        psql.run(ExitCode::Internal).await.ok();
        assert!(!hit.exists(), "psql found a command in {script:?}");
    }
}

#[test]
fn psql_commands_are_refused() {
    let globals = "CREATE ROLE x;\n\\! rm -rf /\n";
    let failure = scripts(globals, &[], &settings(Tablespaces::Fail), &existing()).unwrap_err();
    assert_eq!(failure.code, ExitCode::Verification);
}
