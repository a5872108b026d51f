//! Everything that is wrong with a text, each with its line.

use std::ops::Range;

/// The problems found so far, each with its place in the text.
pub(super) struct Problems<'t> {
    text: &'t str,
    found: Vec<(usize, String)>,
}

impl<'t> Problems<'t> {
    /// Starts with none.
    pub(super) fn of(text: &'t str) -> Self {
        Self {
            text,
            found: Vec::new(),
        }
    }

    /// Tells whether there are none.
    pub(super) fn none(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds a problem at this place of the text, in bytes.
    pub(super) fn add(&mut self, span: Range<usize>, problem: impl Into<String>) {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        self.found.push((line, problem.into()));
    }

    /// Returns one line per problem, in the order of the text.
    pub(super) fn lines(mut self) -> Vec<String> {
        self.found.sort_by_key(|(line, _)| *line);
        let lines = self.found.into_iter();
        lines
            .map(|(line, problem)| format!("line {line}: {problem}"))
            .collect()
    }
}
