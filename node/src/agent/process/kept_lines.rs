//! The lines of a program's output that a failure quotes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::postgres_output::{Kind, Line};
use super::refused_entries::RefusedEntries;

/// The number of last lines that a failure quotes.
const LAST: usize = 8;
/// The number of errors, with their details, that a failure quotes. The first ones contain the cause.
const FIRST: usize = 16;

/// The lines of one program. Both of its streams add to them.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptLines(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    /// Errors, their details and their objects.
    errors: Vec<Line>,
    /// The last other lines.
    others: VecDeque<Line>,
    /// The entries that `pg_restore` could not restore.
    refused: RefusedEntries,
}

impl KeptLines {
    /// Keeps a line.
    pub(super) fn add(&self, line: Line) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match line.kind {
            Kind::Other | Kind::Progress => {
                if lines.others.len() == LAST {
                    lines.others.pop_front();
                }
                lines.others.push_back(line);
            }
            _ if lines.errors.len() < FIRST => lines.errors.push(line),
            _ => {}
        }
    }

    /// Reads which entries of an archive the server refused. A line that is not shown counts too.
    pub(super) fn read_refused(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.refused.read(line);
    }

    /// Returns the entries that `pg_restore` could not restore.
    pub(super) fn refused(&self) -> RefusedEntries {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.refused.clone()
    }

    /// Returns the lines in one text. If Postgres reported an error, the text begins with it; its object, its details,
    /// other errors and the last other lines follow.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cause) = cause(&lines.errors) else {
            let all = lines.errors.iter().chain(&lines.others);
            return joined(all);
        };
        let (before, from) = lines.errors.split_at(cause);
        let details = from[1..]
            .iter()
            .take_while(|line| line.kind == Kind::Detail);
        let object = before.iter().rev().find(|line| line.kind == Kind::Object);
        let mut ordered: Vec<&Line> = vec![&from[0]];
        ordered.extend(object);
        ordered.extend(details);
        let more = lines.others.iter().filter(|line| line.kind == Kind::Other);
        for line in lines.errors.iter().chain(more) {
            if !ordered.contains(&line) {
                ordered.push(line);
            }
        }
        joined(ordered)
    }

    /// Returns the line of the error that is the cause of a failure, or `None` if Postgres reported none.
    pub(super) fn error(&self) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cause(&lines.errors).map(|at| lines.errors[at].text.clone())
    }
}

/// Returns which line has the cause: the first error of the server, otherwise the first one of the program.
fn cause(errors: &[Line]) -> Option<usize> {
    let first = |kind| errors.iter().position(|line| line.kind == kind);
    first(Kind::ServerError).or_else(|| first(Kind::ToolError))
}

fn joined<'l>(lines: impl IntoIterator<Item = &'l Line>) -> String {
    let texts = lines.into_iter().map(|line| line.text.as_str());
    texts.collect::<Vec<_>>().join(" | ")
}
