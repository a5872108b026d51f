//! Collects everything that is wrong with a text, each problem with its line.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// The problems that were found so far.
pub(super) struct Problems<'t> {
    text: &'t str,
    found: RefCell<Vec<(usize, String)>>,
}

impl<'t> Problems<'t> {
    /// Starts without problems.
    pub(super) fn of(text: &'t str) -> Self {
        Self {
            text,
            found: RefCell::default(),
        }
    }

    /// Returns whether no problem was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Adds a problem at this range of the text, in bytes.
    pub(super) fn add(&self, span: &Range<usize>, problem: impl fmt::Display) {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        self.found.borrow_mut().push((line, problem.to_string()));
    }

    /// Returns the problems in the order of their lines.
    pub(super) fn into_lines(self) -> Vec<String> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(line, _)| *line);
        found
            .into_iter()
            .map(|(line, problem)| format!("line {line}: {problem}"))
            .collect()
    }
}
