//! Reads which entries of an archive `pg_restore` could not restore, if it ran without `--exit-on-error`.
//!
//! Several sessions print at the same time, and print texts of statements. So the beginning of a message can be anywhere
//! in a line, and a statement can quote one. Such a wrong entry is tried again, and at worst reported as an exception that
//! exists already.

use std::collections::BTreeSet;

/// Precedes the number of an entry in a message about it.
const ENTRY: &str = "from TOC entry ";
/// Precedes the number of all errors in the last message.
const IGNORED: &str = "errors ignored on restore: ";

/// The entries that `pg_restore` could not restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RefusedEntries {
    /// The numbers of the entries.
    pub(super) entries: BTreeSet<i64>,
    /// Whether `pg_restore` went on to the end of the archive.
    pub(super) complete: bool,
    /// Whether the server ended a session. It may have lost what was committed shortly before.
    pub(super) lost_session: bool,
}

/// Parts of the messages about a session that the server ended.
const LOST_SESSION: [&str; 5] = [
    "server closed the connection",
    "no connection to the server",
    "connection to server was lost",
    "could not receive data from server",
    "terminating connection",
];
/// How many bytes of a part of a line are read again with the next part: more than the longest text that is searched.
pub(super) const OVERLAP: usize = 64;

impl RefusedEntries {
    /// Reads one line.
    pub(super) fn read(&mut self, line: &str) {
        for (at, _) in line.match_indices(ENTRY) {
            let rest = &line[at + ENTRY.len()..];
            let number = rest.split_once(';').map(|(number, _)| number.parse());
            if let Some(Ok(number)) = number {
                self.entries.insert(number);
            }
        }
        let is_message = ["pg_restore: ", "WARNING: ", "FATAL: ", "PANIC: "]
            .iter()
            .any(|begin| line.starts_with(begin));
        self.lost_session |= is_message && LOST_SESSION.iter().any(|text| line.contains(text));
        // Before version 12, the message has no name of a program.
        let message = line.rsplit("pg_restore: ").next().unwrap_or(line);
        let message = message.to_ascii_lowercase();
        if let Some(number) = message
            .strip_prefix("warning: ")
            .and_then(|message| message.strip_prefix(IGNORED))
        {
            self.complete |= number.trim().parse::<u64>().is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_from_the_messages_of_every_version() {
        let mut refused = RefusedEntries::default();
        for line in [
            "pg_restore: from TOC entry 3401; 1259 16390 INDEX product_slug postgres",
            "pg_restore: [archiver (db)] Error from TOC entry 12; 2606 16 FK CONSTRAINT a b",
            "pg_restore: pg_restore: from TOC entry 7; 0 0 ACL x yfrom TOC entry 8; 0 0 ACL x y",
            "pg_restore: from TOC entry none; 1 2",
        ] {
            refused.read(line);
        }
        assert_eq!(refused.entries, BTreeSet::from([7, 8, 12, 3401]));
        assert!(!refused.complete);
    }

    #[test]
    fn a_session_that_the_server_ended_is_found_and_a_statement_about_one_is_not() {
        for (line, lost) in [
            (
                "pg_restore: error: could not execute query: server closed the connection unexpectedly",
                true,
            ),
            (
                "WARNING:  terminating connection because of crash of another server process",
                true,
            ),
            ("  RAISE 'no connection to the server';", false),
        ] {
            let mut refused = RefusedEntries::default();
            refused.read(line);
            assert_eq!(refused.lost_session, lost, "{line}");
        }
    }

    #[test]
    fn the_number_of_all_errors_marks_the_end() {
        for (line, complete) in [
            ("pg_restore: warning: errors ignored on restore: 2", true),
            ("WARNING: errors ignored on restore: 1", true),
            ("pg_restore: error: could not write to the file", false),
            ("CREATE TABLE errors ignored on restore: 1", false),
        ] {
            let mut refused = RefusedEntries::default();
            refused.read(line);
            assert_eq!(refused.complete, complete, "{line}");
        }
    }
}
