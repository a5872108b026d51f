//! Restores the globals (`pg_dumpall --globals-only`): roles, their memberships and tablespaces, and the settings of all
//! roles.
//!
//! The script of `pg_dumpall` fails on a server that already has some of them, so only the necessary statements are
//! run.

use std::collections::BTreeSet;

use serde::Deserialize;
use shared::exit_code::ExitCode;
use shared::report::exceptions::Exception;

use crate::agent::failure::{Failure, Result};
use crate::postgres::attempt::{Attempt, try_all};
use crate::postgres::quote::{identifier, literal};
use crate::postgres::setting::Setting;
use crate::postgres::statement::{Statement, statements};
use crate::postgres::{ADMIN_DATABASE, Postgres};
use crate::settings::{BootstrapRolePassword, PostgresSettings, Tablespaces};

/// The roles and tablespaces that the server already has.
#[derive(Debug, Deserialize)]
pub(crate) struct Existing {
    roles: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
    bootstrap_role: String,
    memberships: Vec<Membership>,
}

/// A membership of one role in another.
#[derive(Debug, Deserialize)]
struct Membership {
    role: String,
    member: String,
    /// The grantor, or `None` before version 16. From version 16 on, each grantor's grant is a separate one.
    granted_by: Option<String>,
}

/// The statements to run. The roles and their properties are one transaction; CREATE TABLESPACE cannot run inside one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scripts {
    /// Creates the roles, with their attributes and passwords.
    roles: String,
    /// The memberships, settings, comments and labels of the roles, without which a backup is restored, too.
    properties: Vec<Attempt>,
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
    /// Reads the roles and tablespaces from the server.
    pub(crate) async fn read(postgres: &Postgres) -> Result<Self> {
        let code = ExitCode::Restore;
        postgres.query(ADMIN_DATABASE, EXISTING, code).await
    }
}

/// Restores the globals: creates missing roles and tablespaces, and gives every role the attributes, password, settings
/// and memberships of the backup. `of_all_roles` are the backup's settings of all roles. Returns an exception for each
/// property of a role that the server refuses.
pub(crate) async fn restore(
    postgres: &Postgres,
    settings: &PostgresSettings,
    existing: &Existing,
    globals: &str,
    of_all_roles: &[Setting],
) -> Result<Vec<Exception>> {
    let scripts = scripts(globals, of_all_roles, settings, existing)?;
    let (roles, properties) = (&scripts.roles, &scripts.properties);
    let exceptions = try_all(postgres, ADMIN_DATABASE, roles, properties, true, None).await?;
    check_access(postgres).await?;
    if !scripts.tablespaces.is_empty() {
        // The usual cause of a failure here is that the tablespace's directory is missing or not writable.
        let code = ExitCode::TablespaceMissing;
        postgres
            .script(ADMIN_DATABASE, &scripts.tablespaces, code)
            .await?;
    }
    Ok(exceptions)
}

/// Checks that the server accepts the agent's sessions with the password and the attributes that its role has now.
async fn check_access(postgres: &Postgres) -> Result<()> {
    let query = "SELECT to_json(true)";
    let answer: Result<bool> = postgres
        .query(ADMIN_DATABASE, query, ExitCode::Restore)
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(failure) if failure.code == ExitCode::PostgresRefused => Err(failure.context(
            "the restore gave the agent's own role the password and the attributes of the backup, and now the server \
             refuses the agent; give the agent that password, or set [postgres] bootstrap_role_password = \"keep\"",
        )),
        Err(failure) => Err(failure),
    }
}

/// Selects the statements to run.
pub(crate) fn scripts(
    globals: &str,
    of_all_roles: &[Setting],
    settings: &PostgresSettings,
    existing: &Existing,
) -> Result<Scripts> {
    let statements = statements(globals).map_err(|problem| {
        Failure::new(
            ExitCode::Verification,
            format!("cannot read the globals of the backup: {problem}; restore another backup"),
        )
    })?;
    let mut roles = String::from("SET LOCAL standard_conforming_strings = on;\n");
    let (mut properties, mut tablespaces) = (Vec::new(), String::new());
    for statement in &statements {
        let tablespace = tablespace_of(statement);
        let skipped = match tablespace {
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
        let text = format!("{};\n", statement.text);
        if tablespace.is_some() {
            tablespaces += &text;
        } else if makes_role(statement) {
            roles += &text;
        } else {
            properties.push(property(statement, text));
        }
    }
    roles.push_str("ALTER ROLE ALL RESET ALL;\n");
    properties.extend(of_all_roles.iter().map(|setting| Attempt {
        kind: "ROLE SETTING".to_owned(),
        object: format!("{} of all roles", setting.name()),
        statement: setting.statement("ROLE ALL"),
        remedy: setting.statement("ROLE ALL"),
    }));
    Ok(Scripts {
        roles,
        properties,
        tablespaces,
    })
}

/// Returns whether a statement creates a role, or sets its attributes and its password. Any other statement is about a
/// property of a role.
fn makes_role(statement: &Statement<'_>) -> bool {
    let sets_attributes = statement.words.get(3).is_some_and(|word| word.is("WITH"));
    statement.begins_with(&["CREATE", "ROLE"])
        || (statement.begins_with(&["ALTER", "ROLE"]) && sets_attributes)
}

/// Returns a statement about a property of a role. The object's name has no literals: a setting can be a secret.
fn property(statement: &Statement<'_>, text: String) -> Attempt {
    let words: Vec<&str> = statement
        .words
        .iter()
        .map(|word| word.text.as_str())
        .collect();
    let (kind, object) = match &words[..] {
        // ALTER ROLE role SET name …
        [_, _, role, _, name, ..] if statement.begins_with(&["ALTER", "ROLE"]) => {
            ("ROLE SETTING".to_owned(), format!("{name} of {role}"))
        }
        // GRANT role TO member …
        ["grant", object @ ..] => ("ROLE MEMBERSHIP".to_owned(), object.join(" ")),
        // Such as COMMENT ON ROLE role IS …
        _ => ("ROLE PROPERTY".to_owned(), words.join(" ")),
    };
    Attempt {
        kind,
        object,
        remedy: text.clone(),
        statement: text,
    }
}

/// Returns statements that reset an existing role: its password, expiry, limit, settings, comment and memberships. The
/// globals contain no statement for an attribute that is not set, so the role would keep its own.
fn reset(role: &str, settings: &PostgresSettings, existing: &Existing) -> String {
    let (name, text) = (identifier(role), literal(role));
    let keep = settings.bootstrap_role_password == BootstrapRolePassword::Keep
        && role == existing.bootstrap_role;
    let password = if keep { "" } else { ", rolpassword = NULL" };
    // No statement removes an expiry.
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

/// Returns the tablespace of a statement such as `CREATE TABLESPACE …` or `… ON TABLESPACE …`, or `None` if it has
/// none. The name of a role can be `tablespace`.
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
        // If a tablespace does not exist and is not created, its privileges and its comment are skipped too.
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
    // Before version 11 the globals also contain settings of roles in a database. The restored database gets them from
    // its properties; at this point the name is the live database's, or does not exist yet.
    let in_database = third.is_some_and(|word| word.is("IN"));
    let attributes = third.is_some_and(|word| word.is("WITH"));
    let kept = settings.bootstrap_role_password == BootstrapRolePassword::Keep
        && *role == existing.bootstrap_role;
    in_database || (attributes && kept)
}

#[cfg(test)]
mod tests;
