//! The settings of the agent's own sessions.
//!
//! Operators can set almost every setting for the server, a database, a role, all roles, or a role in one database.
//! Some of these would end the agent's sessions, or change the meaning of its statements or its data. Options of a
//! connection have priority over all of them, so every tool gets these.

/// The options of every session, as name and value. Every server from version 9.4 on has these settings.
const OPTIONS: [(&str, &str); 15] = [
    // Sessions become another role, which may not read or create everything.
    ("role", "none"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("exit_on_error", "off"),
    // Libraries can refuse statements, such as an UPDATE without WHERE, or may be missing on a new node.
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    // Texts and definitions are read as they were written.
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    ("search_path", ""),
    ("default_tablespace", ""),
    // The server's messages are searched for key words.
    ("lc_messages", "C"),
];

/// Further options of the sessions that the agent opens for its own statements. A restored database does not get it:
/// its materialized views are filled with the database's own date style.
const DATE_STYLE: (&str, &str) = ("datestyle", "ISO");

/// The timeouts that end an idle session or a long transaction, with the first version that has them.
const TIMEOUTS: [(&str, u32); 3] = [
    ("idle_in_transaction_session_timeout", 90_600),
    ("idle_session_timeout", 140_000),
    ("transaction_timeout", 170_000),
];

/// The first version with the setting `event_triggers`.
const EVENT_TRIGGERS_SINCE: u32 = 170_000;
/// The first version with the setting `wal_init_zero`.
const WAL_INIT_ZERO_SINCE: u32 = 120_000;
/// The memory in which all sessions of a restore together can sort, in MB.
const SORT_MEMORY: usize = 256;

/// Returns the options of every tool, for libpq.
pub(crate) fn options() -> String {
    joined(OPTIONS.iter().chain([&DATE_STYLE]).copied())
}

/// Returns the statement that switches off, in a session that has begun, the timeouts that the server has. It prints
/// nothing. [`options`] cannot contain them: a server refuses sessions with an option that it does not have.
pub(crate) fn without_timeouts() -> String {
    let names: Vec<String> = TIMEOUTS
        .iter()
        .map(|(name, _)| format!("'{name}'"))
        .collect();
    format!(
        "SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false)) AS rekindle FROM pg_catalog.pg_settings\n  \
         WHERE name IN ({}) \\gset\n",
        names.join(", ")
    )
}

/// Returns the options of a `pg_restore`, for libpq. `sessions` is the number of them that restore one database.
///
/// All other settings of the database and its roles are in force, as they are if `pg_restore --create` restores it:
/// constraints and materialized views can depend on them.
pub fn restore_options(server_version: u32, sessions: usize) -> String {
    selected_restore_options(server_version, sessions, |_| true)
}

/// Returns the options of a `pg_restore` that keeps the database's own search path, for libpq.
pub(crate) fn restore_options_with_search_path(server_version: u32, sessions: usize) -> String {
    selected_restore_options(server_version, sessions, |name| name != "search_path")
}

/// Returns the options of a `pg_restore` with the selected names.
fn selected_restore_options(
    server_version: u32,
    sessions: usize,
    is_selected: impl Fn(&str) -> bool,
) -> String {
    let has = |since: u32| server_version >= since;
    let memory = format!("{}MB", SORT_MEMORY / sessions);
    let timeouts = TIMEOUTS.iter().filter(|(_, since)| has(*since));
    let options = OPTIONS
        .into_iter()
        .chain(timeouts.map(|(name, _)| (*name, "0")))
        // Triggers and event triggers stay quiet: their effects are in the rows already.
        .chain([("session_replication_role", "replica")])
        .chain(has(EVENT_TRIGGERS_SINCE).then_some(("event_triggers", "off")))
        // Until the swap, a crash of the server loses nothing: the database is restored again.
        .chain([
            ("synchronous_commit", "off"),
            ("maintenance_work_mem", &memory),
        ])
        // The server of a new node has no WAL files to reuse, and fills each new one with zeroes before it writes to
        // it. The WAL itself is still flushed.
        .chain(has(WAL_INIT_ZERO_SINCE).then_some(("wal_init_zero", "off")));
    joined(options.filter(|(name, _)| is_selected(name)))
}

/// Joins options for libpq, in which a backslash escapes a space.
fn joined<'a>(options: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let options = options.map(|(name, value)| format!("-c {name}={}", value.replace(' ', "\\ ")));
    options.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_only_options_that_it_has() {
        let names = |version| {
            let options = restore_options(version, 2);
            let names = options
                .split("-c ")
                .filter_map(|option| option.split_once('='));
            names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        let oldest = names(90_426);
        let newest = names(170_000);
        let since =
            |versions: [u32; 5]| versions.map(|version| names(version).len() - oldest.len());
        assert_eq!(
            since([90_600, 120_000, 140_000, 160_000, 170_000]),
            [1, 2, 3, 3, 5]
        );
        assert!(
            newest.iter().any(|name| name == "event_triggers"),
            "{newest:?}"
        );
    }

    #[test]
    fn a_restore_can_keep_the_search_path_and_nothing_else() {
        let all = restore_options(150_000, 2);
        let kept = restore_options_with_search_path(150_000, 2);
        assert_eq!(all.replace("-c search_path= ", ""), kept);
        assert_ne!(all, kept);
    }

    #[test]
    fn a_space_in_a_value_is_escaped() {
        let options = options();
        assert!(
            options.contains(r"-c default_transaction_isolation=read\ committed -c"),
            "{options}"
        );
    }
}
