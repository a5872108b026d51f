//! The rules for single values of the settings. Each function returns the value, or the end of the message about it:
//! `"EU"` and "is not a region" become `"EU" is not a region`.

use std::path::{Component, Path, PathBuf};

use crate::agent::state;

/// The longest name in Postgres, in bytes.
const LONGEST_POSTGRES_NAME: usize = 63;

pub(super) fn bucket(text: &str) -> Result<String, String> {
    let valid = (3..=63).contains(&text.len())
        && text.bytes().all(|byte| {
            matches!(byte, b'.' | b'-') || byte.is_ascii_lowercase() || byte.is_ascii_digit()
        })
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric());
    accept(
        text,
        valid,
        "is not a bucket name: use 3 to 63 lower-case letters, digits, dots and hyphens",
    )
}

pub(super) fn region(text: &str) -> Result<String, String> {
    let valid = (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_lowercase() || byte.is_ascii_digit());
    accept(text, valid, "is not a region such as eu-west-1")
}

/// A name that can be an argument of a program.
pub(super) fn name(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && !text.contains('\0');
    accept(text, valid, "is not a name: it is empty or has a zero byte")
}

pub(super) fn container(text: &str) -> Result<String, String> {
    let valid = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'_' | b'.' | b'-') || byte.is_ascii_alphanumeric());
    accept(
        text,
        valid,
        "is not a container name: use letters, digits, and after the first also _ . -",
    )
}

/// The name of a container that is not among the `others`.
pub(super) fn another_container(text: &str, others: &[String]) -> Result<String, String> {
    not_listed_twice(container(text)?, others)
}

/// The name of a database that is not among the `others`.
pub(super) fn another_database(text: &str, others: &[String]) -> Result<String, String> {
    let name = not_listed_twice(name(text)?, others)?;
    if name.len() > LONGEST_POSTGRES_NAME {
        return Err(format!(
            "is longer than a Postgres name, which has at most {LONGEST_POSTGRES_NAME} bytes"
        ));
    }
    if name == "template0" || name.starts_with("rekindle__") {
        return Err("cannot be backed up: remove it from the list".to_owned());
    }
    Ok(name)
}

/// The program of a command if there is nothing `before` it, otherwise an argument.
pub(super) fn argument(text: &str, before: &[String]) -> Result<String, String> {
    if before.is_empty() && text.is_empty() {
        return Err("is not a program: name one".to_owned());
    }
    accept(text, !text.contains('\0'), "has a zero byte: remove it")
}

/// An absolute path that neither contains one of the `others` nor lies in one.
pub(super) fn another_path(text: &str, others: &[PathBuf]) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err("is not an absolute path: begin it with /".to_owned());
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("contains ..: write the path without it".to_owned());
    }
    // Components leave out repeated slashes, slashes at the end, and single dots.
    let path: PathBuf = path.components().collect();
    if path == Path::new("/") {
        return Err("is the root directory: list the application's own directories".to_owned());
    }
    let overlaps = |other: &Path| path.starts_with(other) || other.starts_with(&path);
    let own = Path::new("/").join(state::DIRECTORY);
    if overlaps(&own) {
        return Err(format!(
            "contains or is part of {}, the agent's own directory: remove it from the list",
            own.display()
        ));
    }
    if let Some(other) = others.iter().find(|other| overlaps(other)) {
        return Err(format!(
            "overlaps with {:?}: keep the outer one",
            other.display()
        ));
    }
    Ok(path)
}

fn accept(text: &str, valid: bool, problem: &str) -> Result<String, String> {
    if valid {
        Ok(text.to_owned())
    } else {
        Err(problem.to_owned())
    }
}

fn not_listed_twice(name: String, others: &[String]) -> Result<String, String> {
    if others.contains(&name) {
        return Err("is listed twice: remove one".to_owned());
    }
    Ok(name)
}
