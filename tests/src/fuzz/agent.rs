//! What the agent reads: its settings, and the parts of a backup.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use rekindle_node::objects::contents::Contents;
use rekindle_node::postgres::archive;
use rekindle_node::postgres::statement::statements;
use rekindle_node::settings::{Server, Settings};

use super::assert_harmless;

/// The folder that no configured path may hold, or lie in.
const OWN: &str = "/var/lib/rekindle";

/// Every problem of the settings is told with a line of the text; accepted ones name plain, absolute paths, none inside
/// another and none the agent's own, and nothing that cannot be an argument of a program.
pub(super) fn settings(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let settings = match Settings::parse(text) {
        Ok(settings) => settings,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            for problem in problems {
                let line = problem.strip_prefix("line ");
                let line = line.and_then(|rest| rest.split_once(": ")?.0.parse::<usize>().ok());
                let last = 1 + text.matches('\n').count();
                assert!(
                    line.is_some_and(|line| (1..=last).contains(&line)),
                    "{problem}"
                );
            }
            return;
        }
    };
    assert_harmless(settings.application.as_str());
    assert_harmless(&settings.bucket);
    settings.region.as_deref().into_iter().for_each(|region| {
        assert_harmless(region.trim_start_matches('-'));
    });
    let paths = &settings.configuration_paths;
    for (number, path) in paths.iter().enumerate() {
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        assert!(
            path.is_absolute() && path.components().all(plain),
            "{}",
            path.display()
        );
        assert!(path.components().count() > 1, "{}", path.display());
        assert!(
            !path.starts_with(OWN) && !Path::new(OWN).starts_with(path),
            "{}",
            path.display()
        );
        let others = paths
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number);
        for (_, other) in others {
            assert!(
                !path.starts_with(other),
                "{} lies in {}",
                path.display(),
                other.display()
            );
        }
    }
    let (postgres, commands) = (&settings.postgres, &settings.commands);
    match &postgres.server {
        Server::Container(name) => assert_harmless(name),
        Server::Direct { host, port } => assert!(!host.is_empty() && *port > 0),
    }
    for name in postgres.databases.iter().flatten() {
        assert!(
            (1..=63).contains(&name.len()) && !name.starts_with("rekindle__"),
            "{name:?}"
        );
    }
    let given = [
        &commands.start_postgres,
        &commands.start,
        &commands.stop,
        &commands.health,
    ];
    for command in given.into_iter().flatten() {
        assert!(
            command.first().is_some_and(|program| !program.is_empty()),
            "{command:?}"
        );
        assert!(
            command.iter().all(|argument| !argument.contains('\0')),
            "{command:?}"
        );
    }
    let told = settings.to_string();
    assert!(told.contains(settings.application.as_str()));
}

/// Contents are written and read back as they are.
pub(super) fn contents(input: &[u8]) {
    let Ok(compressed) = zstd::encode_all(input, 1) else {
        return;
    };
    // What is no zstd at all is refused, too.
    let raw = Contents::from_bytes(input);
    assert!(raw.is_err() || input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    if let Ok(contents) = Contents::from_bytes(&compressed) {
        let written = contents.to_bytes().ok();
        let again = written.and_then(|written| Contents::from_bytes(&written).ok());
        assert_eq!(again, Some(contents));
    }
}

/// The statements of accepted globals stand in the script in their order, and each is, alone, the same statement.
pub(super) fn globals(input: &[u8]) {
    let script = &*String::from_utf8_lossy(input);
    let Ok(found) = statements(script) else {
        return;
    };
    let mut rest = script;
    for statement in &found {
        let after = rest.split_once(statement.text).map(|(_, after)| after);
        assert!(
            after.is_some(),
            "{statement:?} is not there, or not in order"
        );
        rest = after.unwrap_or_default();
        let alone = format!("{};\n", statement.text);
        assert_eq!(
            statements(&alone).ok().as_deref(),
            Some(std::slice::from_ref(statement))
        );
    }
}

/// A dump that is accepted is accepted as a whole alone: whatever is missing at its end is missed.
pub(super) fn dump(input: &[u8]) {
    if archive::read(&mut &*input).is_err() {
        return;
    }
    let lengths = [
        1,
        input.len() / 3,
        input.len() / 2,
        input.len().saturating_sub(1),
    ];
    for length in BTreeSet::from(lengths) {
        let part = archive::read(&mut &input[..length]);
        assert!(
            part.is_err(),
            "{length} of {} bytes are taken as a whole",
            input.len()
        );
    }
}
