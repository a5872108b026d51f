//! The parameters of the SSM documents: the functions' and the agent's parsers, and SSM's patterns.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use regex::Regex;
use shared::command::{BackupCommand, Mode, Purpose, RestoreCommand};
use shared::id::{BackupId, Sha256};
use shared::operation::Operation;

use super::names::BACKUP;
use crate::repository::project;
use crate::standin::template::Template;

/// The `allowedPattern`s of both documents, by parameter.
static PATTERNS: LazyLock<BTreeMap<String, Vec<Regex>>> = LazyLock::new(patterns);

fn patterns() -> BTreeMap<String, Vec<Regex>> {
    let path = project().join("template.yaml");
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
    assert!(
        patterns.len() >= 8,
        "the documents have too few parameters: {patterns:?}"
    );
    patterns
}

/// Returns whether SSM accepts a text as the value of a parameter, in every document with that parameter.
pub(super) fn accepts(parameter: &str, text: &str) -> bool {
    let patterns = PATTERNS.get(parameter);
    let patterns =
        patterns.unwrap_or_else(|| unreachable!("no document has the parameter {parameter}"));
    patterns.iter().all(|pattern| pattern.is_match(text))
}

/// The code and the documents accept the same values, except for days that no calendar has. No accepted value has a
/// character that a shell interprets.
pub(super) fn parameter(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let read: [(&str, bool); 6] = [
        ("OperationId", text.parse::<Operation>().is_ok()),
        ("BackupId", text.parse::<BackupId>().is_ok()),
        ("Purpose", text.parse::<Purpose>().is_ok()),
        ("Mode", text.parse::<Mode>().is_ok()),
        ("AgentSha256", text.parse::<Sha256>().is_ok()),
        ("Candidates", RestoreCommand::parse_candidates(text).is_ok()),
    ];
    for (parameter, read) in read {
        let accepted = accepts(parameter, text);
        assert!(
            accepted || !read,
            "only the code accepts {text:?} as {parameter}"
        );
        assert!(
            read || !accepted || !has_only_real_days(text),
            "only the document accepts {text:?} as {parameter}"
        );
    }
    for parameter in PATTERNS.keys() {
        if accepts(parameter, text) {
            let harmless = |c: char| c.is_ascii_alphanumeric() || "./-_,".contains(c);
            assert!(text.chars().all(harmless) && !text.is_empty(), "{text:?}");
        }
    }
    if let Ok(candidates) = RestoreCommand::parse_candidates(text) {
        let written: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        assert_eq!(written.join(","), text.strip_prefix("none").unwrap_or(text));
    }
    if let Ok(operation) = text.parse::<Operation>() {
        assert_eq!(operation.to_string(), text);
    }
    recorded(text);
}

/// Returns whether everything in a text that looks like a backup id is one.
fn has_only_real_days(text: &str) -> bool {
    static ID: LazyLock<Regex> = LazyLock::new(|| {
        let shape = Regex::new("[0-9]{8}T[0-9]{6}[.][0-9]{3}Z");
        shape.unwrap_or_else(|error| unreachable!("{error}"))
    });
    ID.find_iter(text)
        .all(|found| found.as_str().parse::<BackupId>().is_ok())
}

/// A command's parameters as SSM recorded them are read as the same command, or refused.
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
