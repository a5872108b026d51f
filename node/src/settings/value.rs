//! Reads single values of the settings: each function adds what is wrong to the problems, and goes on.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use shared::manifest::MOST_IMAGES;
use toml::Spanned;
use toml::de::DeValue;

use super::problems::Problems;
use crate::agent::state;

pub(super) type Value<'v> = Spanned<DeValue<'v>>;

pub(super) fn wrong_type(value: &Value<'_>, key: &str, wanted: &str, problems: &mut Problems<'_>) {
    let found = value.get_ref().type_str();
    problems.add(
        value.span(),
        format!("{key}: {wanted} is needed, not {found}"),
    );
}

pub(super) fn string(value: &Value<'_>, key: &str, problems: &mut Problems<'_>) -> Option<String> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        wrong_type(value, key, "a text in quotes", problems);
    }
    text.map(str::to_owned)
}

/// A text that can be handed to a program: neither empty nor with a zero byte.
pub(super) fn name(value: &Value<'_>, key: &str, problems: &mut Problems<'_>) -> Option<String> {
    let text = string(value, key, problems)?;
    if text.is_empty() || text.contains('\0') {
        problems.add(
            value.span(),
            format!("{key}: an empty text, or one with a zero byte, names nothing"),
        );
        return None;
    }
    Some(text)
}

pub(super) fn container_name(
    value: &Value<'_>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<String> {
    let text = string(value, key, problems)?;
    let valid = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'_' | b'.' | b'-') || byte.is_ascii_alphanumeric());
    if valid {
        return Some(text);
    }
    problems.add(
        value.span(),
        format!(
            "{key}: {text:?} is not a container's name: letters, digits, and after the first _ . -"
        ),
    );
    None
}

/// A list of containers, each named once; an empty one is fine.
pub(super) fn container_names(
    value: &Value<'_>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<Vec<String>> {
    let Some(items) = value.get_ref().as_array() else {
        wrong_type(value, key, "a list of texts", problems);
        return None;
    };
    let mut all = Vec::new();
    for item in items {
        let Some(name) = container_name(item, key, problems) else {
            continue;
        };
        if all.contains(&name) {
            problems.add(
                item.span(),
                format!("{key}: {name:?} is there twice: keep one"),
            );
        }
        all.push(name);
    }
    if all.len() > MOST_IMAGES {
        problems.add(
            value.span(),
            format!("{key}: at most {MOST_IMAGES} containers can be named"),
        );
    }
    Some(all)
}

pub(super) fn names(
    value: &Value<'_>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<Vec<String>> {
    let Some(items) = value.get_ref().as_array() else {
        wrong_type(value, key, "a list of texts", problems);
        return None;
    };
    if items.iter().next().is_none() {
        problems.add(
            value.span(),
            format!("{key}: an empty list would save nothing: leave {key} out to save all"),
        );
    }
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for item in items {
        let Some(text) = name(item, key, problems) else {
            continue;
        };
        if !seen.insert(text.clone()) {
            problems.add(
                item.span(),
                format!("{key}: {text:?} is there twice: keep one"),
            );
        } else if text.len() > 63 {
            problems.add(
                item.span(),
                format!("{key}: {text:?} is longer than the 63 bytes of a Postgres name"),
            );
        } else if text == "template0" || text.starts_with("rekindle__") {
            problems.add(
                item.span(),
                format!("{key}: {text:?} cannot be backed up: take it off the list"),
            );
        }
        all.push(text);
    }
    Some(all)
}

pub(super) fn argv(
    value: &Value<'_>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<Vec<String>> {
    let Some(items) = value.get_ref().as_array() else {
        wrong_type(
            value,
            key,
            "a list of a program and its arguments",
            problems,
        );
        return None;
    };
    let mut all = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let text = string(item, key, problems)?;
        if text.contains('\0') || (index == 0 && text.is_empty()) {
            problems.add(
                item.span(),
                format!("{key}: {text:?} cannot be a program or an argument"),
            );
        }
        all.push(text);
    }
    if all.is_empty() {
        problems.add(
            value.span(),
            format!("{key}: an empty list runs nothing: name a program, or leave {key} out"),
        );
    }
    Some(all)
}

pub(super) fn integer(
    value: &Value<'_>,
    range: RangeInclusive<u32>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<u32> {
    let Some(integer) = value.get_ref().as_integer() else {
        wrong_type(value, key, "a whole number", problems);
        return None;
    };
    let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
    let valid = number.filter(|number| range.contains(number));
    if valid.is_none() {
        problems.add(
            value.span(),
            format!(
                "{key}: {} is not between {} and {}",
                integer.as_str(),
                range.start(),
                range.end()
            ),
        );
    }
    valid
}

pub(super) fn one_of<T: Copy>(
    value: &Value<'_>,
    key: &str,
    words: &[(&str, T)],
    problems: &mut Problems<'_>,
) -> Option<T> {
    let text = string(value, key, problems)?;
    let found = words.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        problems.add(
            value.span(),
            format!("{key}: {text:?} is neither of {}", known.join(" and ")),
        );
    }
    found.map(|(_, meaning)| *meaning)
}

pub(super) fn configuration_path(text: &str, before: &[PathBuf]) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err("is not an absolute path: begin it with /".to_owned());
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("has .. in it: write the path without".to_owned());
    }
    // Components drop doubled and trailing slashes, and single dots.
    let path: PathBuf = path.components().collect();
    if path == Path::new("/") {
        return Err("is the whole system: name the application's own directories".to_owned());
    }
    let own = Path::new("/").join(state::DIRECTORY);
    if path.starts_with(&own) || own.starts_with(&path) {
        return Err(format!(
            "holds or is part of {}, which is the agent's own: take it off the list",
            own.display()
        ));
    }
    if let Some(other) = before
        .iter()
        .find(|other| path.starts_with(other) || other.starts_with(&path))
    {
        return Err(format!(
            "overlaps with {:?}: keep the outer one",
            other.display()
        ));
    }
    Ok(path)
}

pub(super) fn is_bucket(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text.bytes().all(|byte| {
            matches!(byte, b'.' | b'-') || byte.is_ascii_lowercase() || byte.is_ascii_digit()
        })
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

pub(super) fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
