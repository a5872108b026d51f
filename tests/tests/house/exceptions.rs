//! The exceptions of the house rules.

/// A house rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    File,
    Function,
    Folder,
    Decision,
    Circle,
}

/// Exceptions that stay, as the rule, the name and the reason: mainly tables, in which nearly each line is one arm. A
/// function is named `path:function`.
pub(crate) const EXCEPTIONS: &[(Rule, &str, &str)] = &[];

/// Violations that existed when the rules were written. Remove each one when it is fixed; the list must become empty.
pub(crate) const TO_BE_FIXED: &[(Rule, &str)] = &[];
