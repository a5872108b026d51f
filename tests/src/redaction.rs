//! Texts without the values that change with every run, so that a snapshot can contain the whole text.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// The JSON numbers that change with every run or with the machine, by their key.
const NUMBERS: [&str; 16] = [
    "BackupAge",
    "BackupBytes",
    "BackupSeconds",
    "RestoreSeconds",
    "RestoredAge",
    "Timestamp",
    "age_seconds",
    "bytes",
    "database_bytes",
    "dump_bytes",
    "index_size",
    "peak_memory_kib",
    "seconds",
    "server",
    "size",
    "swap_seconds",
];

/// The JSON texts that change with every run or with the machine, by their key.
const TEXTS: [&str; 5] = [
    "agent",
    "pg_dump",
    "run_id",
    "system_identifier",
    "version_id",
];

/// The parts of a text that change with every run: a name and a pattern for each.
static PATTERNS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let patterns = [
        ("sha256", r"\b[0-9a-f]{64}\b"),
        ("hex", r"\b[0-9a-f]{32}\b"),
        ("crc64", r"\b[A-Za-z0-9+/]{11}=|\B[+/][A-Za-z0-9+/]{10}="),
        (
            "command",
            r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        ),
        ("backup", r"\b\d{8}T\d{6}\.\d{3}Z\b"),
        ("time", r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
        ("day", r"\b\d{4}[-/]\d\d[-/]\d\d\b"),
        ("instance", r"\bi-[0-9a-f]{17}\b"),
        ("run", r"\b[0-9a-f]{8}\b"),
        ("bytes", r"\b\d+ bytes\b"),
    ];
    let compiled = patterns.map(|(name, pattern)| Regex::new(pattern).map(|regex| (name, regex)));
    // The patterns are constants; a test compiles all of them.
    compiled.into_iter().flatten().collect()
});

/// Replaces ids, times, hashes and checksums in a text by their names in brackets.
pub fn redacted(text: &str) -> String {
    PATTERNS
        .iter()
        .fold(text.to_owned(), |text, (name, regex)| {
            let named = |_: &Captures<'_>| format!("[{name}]");
            regex.replace_all(&text, named).into_owned()
        })
}

/// The longest JSON that [`redacted_json`] writes into one line, in bytes.
const ONE_LINE: usize = 160;

/// Returns JSON with sorted keys, with [`redacted`] texts and without numbers that change. Short arrays and objects are on one line.
pub fn redacted_json(value: &Value) -> String {
    let mut value = sorted(value);
    redact(&mut value);
    lines(&value, "")
}

/// Returns the same JSON with sorted keys. Whether `serde_json` sorts them depends on a feature that other crates enable.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = fields.into_iter();
            Value::Object(
                fields
                    .map(|(key, value)| (key.clone(), sorted(value)))
                    .collect(),
            )
        }
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Returns the value on one line if it is short, else with one line for each element.
fn lines(value: &Value, indent: &str) -> String {
    let line = value.to_string();
    let inner = format!("{indent}  ");
    let (open, elements, close) = match value {
        Value::Array(values) if line.len() > ONE_LINE => {
            let elements = values.iter().map(|value| lines(value, &inner)).collect();
            ("[", elements, "]")
        }
        Value::Object(fields) if line.len() > ONE_LINE => {
            let field =
                |(key, value): (&String, &Value)| format!("{key:?}: {}", lines(value, &inner));
            let elements: Vec<String> = fields.iter().map(field).collect();
            ("{", elements, "}")
        }
        _ => return line,
    };
    let separator = format!(",\n{inner}");
    format!(
        "{open}\n{inner}{}\n{indent}{close}",
        elements.join(&separator)
    )
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = redacted(text),
        Value::Array(values) => values.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (key, field) in fields {
                let is_number = field.is_number() && NUMBERS.contains(&key.as_str());
                let is_text = !field.is_null() && TEXTS.contains(&key.as_str());
                if is_number || is_text {
                    *field = Value::String(format!("[{key}]"));
                } else {
                    redact(field);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_times_and_hashes_are_replaced_by_their_names() {
        assert_eq!(PATTERNS.len(), 10);
        let text = "backups/registry/2026-11-30/20261130T021500.000Z/0a1b2c3d/index.json of i-0123456789abcdef0";
        let expected = "backups/registry/[day]/[backup]/[run]/index.json of [instance]";
        assert_eq!(redacted(text), expected);
        for checksum in ["\"/WRpYbLc/fA=\"", "\"+WRpYbLc/fA=\"", "\"aWRpYbLc+fA=\""] {
            assert_eq!(redacted(checksum), "\"[crc64]\"");
        }
    }

    #[test]
    fn numbers_that_change_are_replaced_in_json() {
        let json = json!({"rows": 300, "seconds": 1.25, "objects": [{"size": 17}]});
        let expected =
            json!({"rows": 300, "seconds": "[seconds]", "objects": [{"size": "[size]"}]});
        assert_eq!(
            serde_json::from_str::<Value>(&redacted_json(&json)).unwrap(),
            expected
        );
    }
}
