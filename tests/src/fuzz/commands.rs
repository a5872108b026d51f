//! The parameters of the SSM documents: what the functions and the agent read, and what SSM lets through.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use shared::command::{BackupCommand, InPlace, Mode, Purpose, RestoreCommand};
use shared::id::{BackupId, OperationId, Sha256};

use super::BACKUP;
use crate::standin::template::Template;

/// The `allowedPattern`s of both documents, by the parameter; several where they differ.
static PATTERNS: LazyLock<BTreeMap<String, Vec<Regex>>> = LazyLock::new(patterns);

fn patterns() -> BTreeMap<String, Vec<Regex>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
    let given = BTreeMap::from([("BackupBucketName".to_owned(), "backups".to_owned())]);
    let template = Template::load(&path, &given);
    let template = template.unwrap_or_else(|error| unreachable!("{error:#}"));
    let mut patterns: BTreeMap<String, Vec<Regex>> = BTreeMap::new();
    for document in &template.documents {
        let declared = document.content["parameters"].as_object();
        for (name, parameter) in declared.into_iter().flatten() {
            let pattern = parameter["allowedPattern"].as_str().unwrap_or_default();
            let pattern = Regex::new(pattern).unwrap_or_else(|error| unreachable!("{error}"));
            patterns.entry(name.clone()).or_default().push(pattern);
        }
    }
    assert!(patterns.len() >= 8, "the documents have lost {patterns:?}");
    patterns
}

/// Tells whether SSM takes a text as the value of a parameter, in every document that has it.
pub(super) fn accepts(parameter: &str, text: &str) -> bool {
    let patterns = PATTERNS.get(parameter);
    let patterns = patterns.unwrap_or_else(|| unreachable!("no document has {parameter}"));
    patterns.iter().all(|pattern| pattern.is_match(text))
}

/// What code accepts as a value, the document accepts; what the document accepts, code accepts, unless it is a day that
/// no calendar has; and a shell reads nothing of it as more than a word.
pub(super) fn parameter(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let read: [(&str, bool); 6] = [
        ("OperationId", text.parse::<OperationId>().is_ok()),
        ("BackupId", text.parse::<BackupId>().is_ok()),
        ("Purpose", text.parse::<Purpose>().is_ok()),
        ("Mode", text.parse::<Mode>().is_ok()),
        ("AgentSha256", text.parse::<Sha256>().is_ok()),
        ("Candidates", RestoreCommand::parse_candidates(text).is_ok()),
    ];
    for (parameter, read) in read {
        let accepted = accepts(parameter, text);
        assert!(accepted || !read, "only code takes {text:?} as {parameter}");
        assert!(
            read || !accepted || !has_only_real_days(text),
            "only the document takes {text:?} as {parameter}"
        );
    }
    for parameter in PATTERNS.keys() {
        if accepts(parameter, text) {
            let word = |c: char| c.is_ascii_alphanumeric() || "./-_,".contains(c);
            assert!(text.chars().all(word) && !text.is_empty(), "{text:?}");
        }
    }
    if let Ok(candidates) = RestoreCommand::parse_candidates(text) {
        let written: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        assert_eq!(written.join(","), text.strip_prefix("none").unwrap_or(text));
    }
    if let Ok(operation) = text.parse::<OperationId>() {
        if let Some(asked) = InPlace::after_backup(&operation) {
            assert_eq!(asked.backup().ok().as_ref(), Some(&operation));
        }
        if let Some(asked) = InPlace::of_restore(&operation) {
            assert_eq!(asked.restore().ok(), Some(operation));
        }
    }
    recorded(text);
}

/// Tells whether every backup id in a text that looks like one is one.
fn has_only_real_days(text: &str) -> bool {
    static ID: LazyLock<Regex> = LazyLock::new(|| {
        let shape = Regex::new("[0-9]{8}T[0-9]{6}[.][0-9]{3}Z");
        shape.unwrap_or_else(|error| unreachable!("{error}"))
    });
    ID.find_iter(text)
        .all(|found| found.as_str().parse::<BackupId>().is_ok())
}

/// What SSM recorded of a command is read back as the same command, or not at all.
fn recorded(text: &str) {
    let mut lines = text.lines();
    let mut parameters = HashMap::new();
    for (parameter, good) in [
        ("OperationId", BACKUP),
        ("BackupId", BACKUP),
        ("Purpose", "scheduled"),
    ] {
        let value = lines.next().filter(|line| !line.is_empty());
        parameters.insert(parameter.to_owned(), vec![value.unwrap_or(good).to_owned()]);
    }
    if let Ok(command) = BackupCommand::from_parameters(&parameters) {
        let sha256 = Sha256::of(&[0; 32]);
        let written = command.parameters(&sha256, 60);
        assert_eq!(BackupCommand::from_parameters(&written).ok(), Some(command));
        for (parameter, values) in &written {
            assert_eq!(values.len(), 1);
            assert!(accepts(parameter, &values[0]), "{parameter}: {values:?}");
        }
    }
}
