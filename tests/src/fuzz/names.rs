//! The names that targets share.

use std::str::FromStr;

/// The names that every target parses with: accepted data must belong to them.
pub(super) const APPLICATION: &str = "dtr";
pub(super) const BACKUP: &str = "20261123T021500.000Z";
pub(super) const RUN: &str = "0a1b2c3d";
pub(super) const INSTANCE: &str = "i-04d1c8f7a2b3e6905";

/// Parses a constant of this module.
pub(super) fn name<T: FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| unreachable!("{text} is a valid name"))
}

/// Checks that a name is harmless in a key, a path, a command line and a log line.
pub(super) fn assert_harmless(name: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    assert!(
        !name.is_empty() && name.chars().all(plain) && !name.starts_with(['.', '-']),
        "the harmful name {name:?} was accepted"
    );
}
