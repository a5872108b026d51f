//! Reads what a program of Postgres prints on standard error, and leaves the texts of statements out: they contain
//! passwords.
//!
//! A statement's text is printed without a mark at its end, and each of its lines can look like a message. With several
//! sessions, messages of one session are printed in the middle of a statement of another one. So nothing that follows a
//! statement's text is shown.

use super::secrets::{hide, hide_in_message};

/// What a line is, in the order of its use in a failure's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An error that the server reported, or the end of the session by it.
    ServerError,
    /// An error that the program itself reported.
    ToolError,
    /// The object that was being restored.
    Object,
    /// More about the error before it.
    Detail,
    /// Everything else: notices, warnings, and the output of a shell or a container engine.
    Other,
    /// Progress.
    Progress,
}

/// A line to show, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// Reads a stream line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Before the first message of Postgres: the shell or the container engine prints.
    #[default]
    Outside,
    /// After a message. Its further lines have a label, or are known.
    Message,
    /// After an error of the server: a text without a label is a part of a statement.
    Error,
    /// Within the text of a statement that a function ran. The context of the error may follow.
    InnerStatement,
    /// Within the text of a statement.
    Statement,
}

/// The programs of Postgres that put their name in front of a message.
const PROGRAMS: [&str; 4] = ["pg_restore:", "pg_dump:", "pg_dumpall:", "psql:"];
/// The severities of an error of the server.
const ERRORS: [&str; 3] = ["ERROR:", "FATAL:", "PANIC:"];
/// The severities of other messages of the server.
const NOTICES: [&str; 5] = ["WARNING:", "NOTICE:", "INFO:", "LOG:", "DEBUG:"];
/// What precedes the text of a statement. Versions differ in the first letter.
const STATEMENTS: [&str; 5] = [
    "Command was: ",
    "command was: ",
    "Query was: ",
    "query was: ",
    "STATEMENT:",
];
/// Further lines of libpq's and psql's messages.
const KNOWN: [&str; 8] = [
    "connection to server ",
    "could not connect to server",
    "could not translate host name",
    "server closed the connection",
    "This probably means the server terminated",
    "before or while processing the request",
    "Is the server running",
    "invalid command \\",
];
/// The beginnings of a context that names functions, and quotes no statement.
const FUNCTIONS: [&str; 5] = [
    "PL/pgSQL function ",
    "SQL function ",
    "PL/Python function ",
    "PL/Perl function ",
    "PL/Tcl function ",
];

impl Reader {
    /// Returns what to show of the next line, or `None` if it is a part of a statement.
    pub(super) fn read(&mut self, line: &str) -> Option<Line> {
        match self.state {
            State::Statement => None,
            State::InnerStatement if begins_statement(line).is_some() => {
                self.state = State::Statement;
                None
            }
            State::InnerStatement => context(line),
            _ => match begins_statement(line) {
                Some(at) => {
                    let before = self.message(line[..at].trim_end());
                    self.state = State::Statement;
                    locked_tables(line).or(before.filter(|before| !is_label(&before.text)))
                }
                None => self.message(line),
            },
        }
    }

    /// Skips the rest of a line that is too long.
    pub(super) fn skip(&mut self) {
        if self.state == State::Error {
            self.state = State::InnerStatement;
        }
    }

    /// Reads a line outside of statements.
    fn message(&mut self, line: &str) -> Option<Line> {
        let begins = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
        let trimmed = line.trim();
        if let Some(message) = program_message(line) {
            let kind = kind(message);
            self.state = match kind {
                Kind::ServerError => State::Error,
                _ => State::Message,
            };
            return shown(kind, line);
        }
        if begins(&ERRORS) {
            self.state = State::Error;
            return shown(Kind::ServerError, line);
        }
        if begins(&NOTICES) {
            self.state = State::Message;
            return shown(Kind::Other, line);
        }
        if self.state == State::Outside {
            let (kind, text) = (Kind::Other, hide(line.trim_end()));
            return Some(Line { kind, text });
        }
        if begins(&["DETAIL:", "HINT:"]) {
            return shown(Kind::Detail, line);
        }
        if begins(&["CONTEXT:", "QUERY:"]) {
            self.state = State::InnerStatement;
            return context(line);
        }
        if KNOWN.iter().any(|known| trimmed.starts_with(known)) {
            let is_error = ERRORS.iter().any(|error| line.contains(error));
            let kind = if is_error {
                Kind::ServerError
            } else {
                Kind::Detail
            };
            return shown(kind, line);
        }
        // The server quotes the line of the statement, and points at a part of it with a caret.
        let is_echo = begins(&["LINE "]) || trimmed == "^" || trimmed.is_empty();
        if self.state == State::Error && !is_echo {
            self.state = State::InnerStatement;
        }
        None
    }
}

/// Returns a line to show. Only messages of Postgres can contain statements.
fn shown(kind: Kind, line: &str) -> Option<Line> {
    let line = line.trim();
    let text = match kind {
        Kind::Object | Kind::Progress => hide(line),
        _ => hide_in_message(line),
    };
    (!line.is_empty()).then_some(Line { kind, text })
}

/// Returns the message after the name of a program of Postgres, and the position in psql's script.
fn program_message(line: &str) -> Option<&str> {
    let program = PROGRAMS.iter().find(|name| line.starts_with(**name))?;
    let message = &line[program.len()..];
    match message.strip_prefix('<') {
        Some(script) => script.split_once(": ").map(|(_, message)| message),
        None => Some(message.trim_start()),
    }
}

/// Returns the kind of a program's message. Before version 12, programs did not mark an error as one.
fn kind(message: &str) -> Kind {
    let unquoted = message.split('"').next().unwrap_or(message);
    let has = |words: &[&str]| words.iter().any(|word| unquoted.contains(word));
    let begins = |words: &[&str]| words.iter().any(|word| message.starts_with(word));
    let is_error = |error| message.starts_with(error) || message.contains(&format!(": {error}"));
    if begins(&["from TOC entry"]) || has(&["Error from TOC entry"]) {
        Kind::Object
    } else if ERRORS.into_iter().any(is_error) {
        Kind::ServerError
    } else if begins(&["while "]) || has(&["Error while "]) {
        Kind::Progress
    } else if begins(&["detail: ", "hint: "]) {
        Kind::Detail
    } else if begins(&["warning: ", "WARNING: "]) || has(&["] WARNING: "]) {
        Kind::Other
    } else if begins(&["error: ", "fatal: ", "["]) || has(&["could not ", "failed"]) {
        Kind::ToolError
    } else {
        Kind::Progress
    }
}

/// Returns where the text of a statement begins, or `None` if the line has none. An error message can precede it.
fn begins_statement(line: &str) -> Option<usize> {
    let indent = line.len() - line.trim_start().len();
    let earliest = STATEMENTS.iter().filter_map(|mark| line.find(mark)).min()?;
    let is_first = earliest <= indent;
    (is_first || program_message(line).is_some()).then_some(earliest)
}

/// Returns whether a message is only the label of a statement, such as `pg_dump: detail:`.
fn is_label(text: &str) -> bool {
    let message = program_message(text).unwrap_or(text);
    let message = message.trim_end_matches("The").trim();
    message.ends_with(']') || ["", "detail:", "error:"].contains(&message)
}

/// Returns the statement with which `pg_dump` waits for locks: it has only the names of tables.
fn locked_tables(line: &str) -> Option<Line> {
    let (_, statement) = line.split_once("uery was: ")?;
    let names_tables =
        statement.starts_with("LOCK TABLE ") && !statement.contains(['\'', '$', ';']);
    if names_tables && statement.trim_end().ends_with(" MODE") {
        return shown(Kind::Detail, line);
    }
    None
}

/// Returns a context that names a function or a line of a table's data, without the statement and the data.
fn context(line: &str) -> Option<Line> {
    let text = line.strip_prefix("CONTEXT:").unwrap_or(line).trim();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let names_function = FUNCTIONS.iter().any(|begin| text.starts_with(begin))
        && has(&[" line ", " while ", " during ", "\" statement "]);
    if names_function && !text.contains(['\'', '$']) {
        return shown(Kind::Detail, text);
    }
    let (table, place) = text.strip_prefix("COPY ")?.split_once(", line ")?;
    let place = place.split(':').next().unwrap_or_default();
    shown(Kind::Detail, &format!("COPY {table}, line {place}"))
}

#[cfg(test)]
mod tests;
