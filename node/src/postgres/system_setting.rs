//! The settings by `ALTER SYSTEM`, which the server keeps in `postgresql.auto.conf`. No tool of Postgres backs them up.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use shared::exit_code::ExitCode;
use shared::report::exceptions::Exception;

use crate::agent::failure::Result;
use crate::postgres::client::{ADMIN_DATABASE, Postgres};
use crate::postgres::quote::literal;
use crate::postgres::setting::Setting;

/// A setting by `ALTER SYSTEM`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SystemSetting {
    /// The setting as in the file.
    pub(crate) setting: Setting,
    /// The value in force, in the server's own unit. `None` if the server does not know the setting.
    pub(crate) in_force: Option<String>,
}

/// The first version with the view `pg_file_settings`.
const LISTED_SINCE: u32 = 90_500;

/// The last line of the file about a setting counts.
const LIST: &str = "
SELECT coalesce(json_agg(json_build_object('setting', json_build_object('role', NULL, 'assignment', name || '=' || value),
  'in_force', in_force) ORDER BY name), '[]')
FROM (SELECT DISTINCT ON (f.name) f.name, coalesce(f.setting, '') AS value, s.setting AS in_force
  FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name)
  WHERE f.name IS NOT NULL AND f.sourcefile ~ '[/\\\\]postgresql[.]auto[.]conf$' ORDER BY f.name, f.seqno DESC) settings";

/// Settings that belong to the node: its paths, addresses, libraries, commands and its place in a replication. A restore leaves
/// them as they are.
const OF_THE_NODE: [&str; 21] = [
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "config_file",
    "data_directory",
    "dynamic_library_path",
    "extension_control_path",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "local_preload_libraries",
    "log_directory",
    "oauth_validator_libraries",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "restore_command",
    "session_preload_libraries",
    "stats_temp_directory",
    "synchronous_standby_names",
];
/// The beginnings of the names of further ones.
const GROUPS_OF_THE_NODE: [&str; 4] = ["krb_", "recovery_", "ssl", "unix_socket_"];

/// A part of the message of a server that refuses a setting. Any other message is about the server or its node.
const ABOUT_PARAMETER: &str = "parameter \"";

/// What the new server knows about a setting.
#[derive(Debug, Deserialize)]
struct Known {
    /// `postmaster` if the setting needs a restart.
    context: String,
    in_force: Option<String>,
}

/// Returns the settings by `ALTER SYSTEM`.
pub(crate) async fn list(postgres: &Postgres, server_version: u32) -> Result<Vec<SystemSetting>> {
    if server_version < LISTED_SINCE {
        return Ok(Vec::new());
    }
    postgres.query(ADMIN_DATABASE, LIST, ExitCode::Dump).await
}

/// Sets the settings again, and lets the server read them. Returns an exception for each one that the server refuses, and
/// for each one that needs a restart and is not in force: a smaller node may not start with it, so an operator decides.
pub(crate) async fn restore(
    postgres: &Postgres,
    settings: &[SystemSetting],
) -> Result<Vec<Exception>> {
    let (fixed, settings): (Vec<_>, Vec<_>) = settings
        .iter()
        .partition(|one| is_of_the_node(one.setting.name()));
    for one in fixed {
        let setting = one.setting.name();
        tracing::info!(
            setting,
            "a setting by ALTER SYSTEM belongs to the node, so it is not restored"
        );
    }
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    let known = known(postgres, &settings).await?;
    let mut exceptions = Vec::new();
    let mut script = String::new();
    let mut applied = Vec::new();
    for one in settings {
        let statement = one.setting.statement("SYSTEM");
        match known.get(one.setting.name()) {
            Some(known) if known.context != "postmaster" => {
                script += &statement;
                applied.push((one, statement));
            }
            Some(known) if known.in_force == one.in_force => {}
            Some(_) => exceptions.push(exception(
                one,
                "it needs a restart of Postgres, and was not set: a smaller node may not start with it",
                format!("{statement}-- Then restart Postgres."),
            )),
            None => exceptions.push(exception(
                one,
                "this server does not know the setting",
                statement,
            )),
        }
    }
    // ALTER SYSTEM cannot run in a transaction, so one that is refused ends the script.
    if postgres
        .script(ADMIN_DATABASE, &script, ExitCode::Restore)
        .await
        .is_err()
    {
        for (one, statement) in applied {
            let setting = postgres.script(ADMIN_DATABASE, &statement, ExitCode::Restore);
            match setting.await {
                Ok(_) => {}
                Err(failure) if failure.chain().contains(ABOUT_PARAMETER) => {
                    exceptions.push(exception(one, &failure.chain(), statement));
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    let reload = "SELECT pg_reload_conf();\n";
    postgres
        .script(ADMIN_DATABASE, reload, ExitCode::Restore)
        .await?;
    Ok(exceptions)
}

fn is_of_the_node(name: &str) -> bool {
    let mut groups = GROUPS_OF_THE_NODE.iter();
    OF_THE_NODE.contains(&name) || groups.any(|group| name.starts_with(group))
}

async fn known(postgres: &Postgres, settings: &[&SystemSetting]) -> Result<HashMap<String, Known>> {
    let names: Vec<String> = settings
        .iter()
        .map(|one| literal(one.setting.name()))
        .collect();
    // A setting with a prefix can be set even if no library has defined it.
    let query = format!(
        "SELECT coalesce(json_object_agg(n.name, json_build_object('context', coalesce(s.context, 'user'),
           'in_force', s.setting)), '{{}}')
         FROM unnest(ARRAY[{}]) AS n(name) LEFT JOIN pg_settings s ON lower(s.name) = lower(n.name)
         WHERE s.name IS NOT NULL OR n.name LIKE '%.%'",
        names.join(", ")
    );
    postgres
        .query(ADMIN_DATABASE, &query, ExitCode::Restore)
        .await
}

fn exception(setting: &SystemSetting, error: &str, remedy: String) -> Exception {
    Exception {
        database: None,
        kind: "SYSTEM SETTING".to_owned(),
        object: setting.setting.name().to_owned(),
        error: error.to_owned(),
        details: String::new(),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test]
    async fn settings_are_restored_or_reported_with_their_statement() {
        let (source, target) = (Cluster::start(), Cluster::start());
        for setting in [
            "log_min_duration_statement = '250ms'",
            "search_path = 'a b', public",
            "timezone = 'Pacific/Auckland'",
            "session_preload_libraries = 'auto_explain'",
            "max_locks_per_transaction = 96",
            "max_connections = 100",
            "log_directory = '/elsewhere'",
            "log_line_prefix = 'it''s %m '",
        ] {
            let statement = format!("ALTER SYSTEM SET {setting}");
            source.sql("postgres", &statement).await;
        }
        let mut settings = list(&source.postgres(), 150_000).await.unwrap();
        // They need a restart of the source, too.
        for one in &mut settings {
            if one.setting.name() == "max_locks_per_transaction" {
                one.in_force = Some("96".to_owned());
            }
        }
        settings.push(SystemSetting {
            setting: Setting {
                role: None,
                assignment: "operator_precedence_warning=off".to_owned(),
            },
            in_force: Some("off".to_owned()),
        });
        let exceptions = restore(&target.postgres(), &settings).await.unwrap();
        let found: Vec<(&str, &str)> = exceptions
            .iter()
            .map(|one| (one.object.as_str(), one.remedy.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "max_locks_per_transaction",
                    "ALTER SYSTEM SET \"max_locks_per_transaction\" TO '96';\n-- Then restart Postgres."
                ),
                (
                    "operator_precedence_warning",
                    "ALTER SYSTEM SET \"operator_precedence_warning\" TO 'off';\n"
                ),
            ]
        );
        let restored = list(&target.postgres(), 150_000).await.unwrap();
        let restored: Vec<&str> = restored
            .iter()
            .map(|one| one.setting.assignment.as_str())
            .collect();
        assert_eq!(
            restored,
            [
                "log_line_prefix=it's %m ",
                "log_min_duration_statement=250ms",
                "search_path=\"a b\", public",
                "timezone=Pacific/Auckland"
            ]
        );
    }
}
