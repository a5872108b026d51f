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

/// The exceptions, each as the rule, the name and the reason. A function is named `path:function`.
pub(crate) const EXCEPTIONS: &[(Rule, &str, &str)] = &[];
