//! Makes the server's globals (`pg_dumpall --globals-only`) such that they can be run on a server that has some of
//! them already.

use std::collections::BTreeSet;

use serde::Deserialize;
use shared::report::ExitCode;

use crate::agent::failure::{Failure, Result};
use crate::postgres::statement::{Statement, statements};
use crate::postgres::{ADMIN_DATABASE, Postgres, identifier, literal};
use crate::settings::{BootstrapRolePassword, PostgresSettings, Tablespaces};

/// What the server has already.
#[derive(Debug, Deserialize)]
pub(crate) struct Existing {
    roles: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
    bootstrap_role: String,
    memberships: Vec<Membership>,
}

/// A role that is a member of another one.
#[derive(Debug, Deserialize)]
struct Membership {
    role: String,
    member: String,
    /// Who granted it, where the server tells grants of several apart.
    granted_by: Option<String>,
}

/// The two scripts that globals come to. Roles are one transaction; a tablespace cannot be created in one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scripts {
    roles: String,
    tablespaces: String,
}

const EXISTING: &str = "SELECT json_build_object(
  'roles', (SELECT json_agg(rolname) FROM pg_roles),
  'tablespaces', (SELECT json_agg(spcname) FROM pg_tablespace),
  'bootstrap_role', (SELECT rolname FROM pg_roles WHERE oid = 10),
  'memberships', (SELECT coalesce(json_agg(json_build_object(
      'role', pg_get_userbyid(roleid), 'member', pg_get_userbyid(member), 'granted_by',
      CASE WHEN current_setting('server_version_num')::int >= 160000 THEN pg_get_userbyid(grantor) END)), '[]')
    FROM pg_auth_members))";

impl Existing {
    /// Asks the server.
    pub(crate) async fn ask(postgres: &Postgres) -> Result<Self> {
        let code = ExitCode::Restore;
        postgres.query(ADMIN_DATABASE, EXISTING, code).await
    }
}

/// Restores the globals: creates what is missing, and gives every role the attributes, password, settings and
/// memberships of the backup.
pub(crate) async fn restore(
    postgres: &Postgres,
    settings: &PostgresSettings,
    existing: &Existing,
    globals: &str,
) -> Result<()> {
    let code = ExitCode::Restore;
    let scripts = scripts(globals, settings, existing)?;
    postgres
        .script(ADMIN_DATABASE, &scripts.roles, code)
        .await?;
    if !scripts.tablespaces.is_empty() {
        // What can go wrong is mostly that a tablespace has no directory that the server may use.
        let code = ExitCode::TablespaceMissing;
        postgres
            .script(ADMIN_DATABASE, &scripts.tablespaces, code)
            .await?;
    }
    Ok(())
}

/// Chooses the statements to run.
pub(crate) fn scripts(
    globals: &str,
    settings: &PostgresSettings,
    existing: &Existing,
) -> Result<Scripts> {
    let statements = statements(globals).map_err(|problem| {
        Failure::new(
            ExitCode::Verification,
            format!("the globals of the backup cannot be read: {problem}"),
        )
    })?;
    let mut roles = String::from("BEGIN;\nSET LOCAL standard_conforming_strings = on;\n");
    let mut tablespaces = String::new();
    for statement in &statements {
        let about_tablespace = tablespace_of(statement);
        let skipped = match about_tablespace {
            Some(name) => tablespace_is_skipped(statement, name, settings, existing),
            None => role_is_skipped(statement, settings, existing),
        };
        if skipped {
            if statement.begins_with(&["CREATE", "ROLE"])
                && let Some(role) = statement.words.get(2)
            {
                roles.push_str(&reset(&role.text, settings, existing));
            }
            continue;
        }
        let script = if about_tablespace.is_some() {
            &mut tablespaces
        } else {
            &mut roles
        };
        script.push_str(statement.text);
        script.push_str(";\n");
    }
    roles.push_str("COMMIT;\n");
    Ok(Scripts { roles, tablespaces })
}

/// Takes from a role that is there already whatever the globals say nothing of where it is not set: a password, an
/// expiry, a limit, settings, a comment, and its memberships. It would otherwise have more than in the backup.
fn reset(role: &str, settings: &PostgresSettings, existing: &Existing) -> String {
    let (name, text) = (identifier(role), literal(role));
    let keep = settings.bootstrap_role_password == BootstrapRolePassword::Keep
        && role == existing.bootstrap_role;
    let password = if keep { "" } else { ", rolpassword = NULL" };
    // No statement sets an expiry back to none.
    let mut script = format!(
        "ALTER ROLE {name} RESET ALL;\nCOMMENT ON ROLE {name} IS NULL;\n\
         UPDATE pg_catalog.pg_authid SET rolconnlimit = -1, rolvaliduntil = NULL{password} WHERE rolname = {text};\n"
    );
    for membership in existing.memberships.iter().filter(|one| one.member == role) {
        let (granted, by) = (identifier(&membership.role), &membership.granted_by);
        let by = by
            .as_deref()
            .map(|by| format!(" GRANTED BY {}", identifier(by)));
        let by = by.unwrap_or_default();
        script += "REVOKE ";
        script += &granted;
        script += " FROM ";
        script += &name;
        script += &by;
        script += " CASCADE;\n";
    }
    script
}

/// Returns the tablespace that a statement concerns: `CREATE` or `ALTER TABLESPACE …`, or `… ON TABLESPACE …`. A role
/// may be called `tablespace` itself.
fn tablespace_of<'a>(statement: &'a Statement<'_>) -> Option<&'a str> {
    let words = &statement.words;
    let is = |at: usize, key_word: &str| words.get(at).is_some_and(|word| word.is(key_word));
    let before = |at: usize| is(at, "ON") || (at == 0 && (is(at, "CREATE") || is(at, "ALTER")));
    let key_word = (1..words.len().min(8)).find(|&at| is(at, "TABLESPACE") && before(at - 1))?;
    words.get(key_word + 1).map(|word| word.text.as_str())
}

fn tablespace_is_skipped(
    statement: &Statement<'_>,
    name: &str,
    settings: &PostgresSettings,
    existing: &Existing,
) -> bool {
    let exists = existing.tablespaces.contains(name);
    let creates = statement.begins_with(&["CREATE", "TABLESPACE"]);
    match settings.tablespaces {
        Tablespaces::Fail => creates && exists,
        // What is not there, and is not created, cannot be granted or commented on either.
        Tablespaces::Default => creates || !exists,
    }
}

fn role_is_skipped(
    statement: &Statement<'_>,
    settings: &PostgresSettings,
    existing: &Existing,
) -> bool {
    let Some(role) = statement.words.get(2).map(|word| &word.text) else {
        return false;
    };
    if statement.begins_with(&["CREATE", "ROLE"]) {
        return existing.roles.contains(role);
    }
    if !statement.begins_with(&["ALTER", "ROLE"]) {
        return false;
    }
    let third = statement.words.get(3);
    // Before version 11 the settings of a role in a database are here too. The database is not there yet, or is
    // the live one; its properties have them.
    let in_database = third.is_some_and(|word| word.is("IN"));
    let attributes = third.is_some_and(|word| word.is("WITH"));
    let kept = settings.bootstrap_role_password == BootstrapRolePassword::Keep
        && *role == existing.bootstrap_role;
    in_database || (attributes && kept)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::testing::Cluster;

    /// How many scripts psql judges.
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
        let mut command = cluster.postgres().tool("pg_dumpall");
        let output = command.arg("--globals-only").output().await.unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Leaves out what changes with every run: the key of `\restrict`, and comments.
    fn comparable(dump: &str) -> Vec<&str> {
        dump.lines()
            .filter(|line| !line.starts_with("--") && !line.starts_with('\\'))
            .collect()
    }

    async fn restored_on(target: &Cluster, settings: &PostgresSettings, globals: &str) {
        let postgres = target.postgres();
        let existing = Existing::ask(&postgres).await.unwrap();
        restore(&postgres, settings, &existing, globals)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn globals_come_back_whole_and_can_be_restored_twice() {
        let (source, target) = (Cluster::start(), Cluster::start());
        source.sql("postgres", NASTY).await;
        let globals = dump(&source).await;
        for _ in 0..2 {
            restored_on(&target, &target.settings, &globals).await;
            assert_eq!(comparable(&dump(&target).await), comparable(&globals));
        }
    }

    #[tokio::test]
    async fn a_role_that_is_there_already_keeps_nothing_of_its_own() {
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
        // Roles that the backup does not know are none of its business.
        target.sql("postgres", "DROP ROLE image").await;
        assert_eq!(comparable(&dump(&target).await), comparable(&globals));
    }

    #[tokio::test]
    async fn the_bootstrap_role_keeps_its_password_where_the_settings_say_so() {
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
            ready_timeout_seconds: 1,
        }
    }

    #[test]
    fn a_tablespace_that_is_there_is_not_created_again() {
        let globals = "CREATE TABLESPACE fast OWNER postgres LOCATION '/fast';\n\
            CREATE TABLESPACE \"s;low\" OWNER postgres LOCATION '/slow';\n\
            GRANT ALL ON TABLESPACE \"s;low\" TO app;";
        let scripts_for = |tablespaces| {
            scripts(globals, &settings(tablespaces), &existing())
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
    fn a_role_may_be_called_tablespace() {
        let globals = "CREATE ROLE tablespace;\n\
            ALTER ROLE tablespace WITH LOGIN;\n\
            GRANT tablespace TO bob;\n\
            COMMENT ON ROLE tablespace IS 'odd';";
        let scripts = scripts(globals, &settings(Tablespaces::Default), &existing()).unwrap();
        assert_eq!(scripts.tablespaces, "");
        assert!(scripts.roles.contains("GRANT tablespace TO bob"));
    }

    #[test]
    fn a_setting_of_a_role_in_a_database_is_left_to_the_database() {
        let globals = "ALTER ROLE app IN DATABASE live SET work_mem TO '1MB';";
        let scripts = scripts(globals, &settings(Tablespaces::Fail), &existing()).unwrap();
        assert!(!scripts.roles.contains("work_mem"));
    }

    /// psql itself is the judge: in what is accepted, it finds no command of its own.
    #[tokio::test]
    async fn psql_runs_no_command_of_accepted_globals() {
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
        // Its end is a comment to the shell, and the end of a line to psql.
        let command = format!("\\! touch {} #\n", hit.display());
        let piece = prop_oneof![
            6 => prop::sample::select(&PIECES[..]).prop_map(str::to_owned),
            1 => Just(command.clone()),
        ];
        let scripts = prop::collection::vec(piece, 2..16).prop_map(|pieces| pieces.concat());
        let mut runner = TestRunner::deterministic();
        let mut judged = 0;
        while judged < SCRIPTS {
            let script = scripts.new_tree(&mut runner).unwrap().current() + "\n;\n";
            if statements(&script).is_err() || !script.contains(&command) {
                continue;
            }
            judged += 1;
            let mut psql = cluster.postgres().tool("psql");
            psql.args(["-X", "-q", "-d", "postgres"]);
            let streams = psql.stdin(Stdio::piped()).stdout(Stdio::null());
            let mut psql = streams.stderr(Stdio::null()).spawn().unwrap();
            let mut stdin = psql.stdin.take().unwrap();
            stdin.write_all(script.as_bytes()).await.unwrap();
            drop(stdin);
            psql.wait().await.unwrap();
            assert!(!hit.exists(), "psql found a command in {script:?}");
        }
    }

    #[test]
    fn what_is_no_sql_is_refused() {
        let globals = "CREATE ROLE x;\n\\! rm -rf /\n";
        let failure = scripts(globals, &settings(Tablespaces::Fail), &existing()).unwrap_err();
        assert_eq!(failure.code, ExitCode::Verification);
    }
}
