//! The agent's parsers: of its settings, and of the parts of a backup.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use rekindle_node::objects::contents::Contents;
use rekindle_node::postgres::archive;
use rekindle_node::postgres::statement::statements;
use rekindle_node::settings::{Server, Settings};

use super::names::assert_harmless;

/// The folder that no configured path may contain or be in.
const OWN: &str = "/var/lib/rekindle";

/// Refused settings name the line of each problem. Accepted settings contain only absolute paths without `..`, none inside
/// another and none in the agent's own folder, and only valid program arguments.
pub(super) fn settings(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let settings = match Settings::parse(text) {
        Ok(settings) => settings,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem");
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
    assert_paths(&settings.configuration_paths);
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
    let printed = settings.to_string();
    assert!(printed.contains(settings.application.as_str()));
}

/// Checks that configured paths are absolute, without `..`, outside the agent's folder, and not inside one another.
fn assert_paths(paths: &[PathBuf]) {
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
                "{} is inside {}",
                path.display(),
                other.display()
            );
        }
    }
}

/// Contents that are written are read back unchanged.
pub(super) fn contents(input: &[u8]) {
    let Ok(compressed) = zstd::encode_all(input, 1) else {
        return;
    };
    // Anything but zstd is refused.
    let raw = Contents::from_bytes(input);
    assert!(raw.is_err() || input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    if let Ok(contents) = Contents::from_bytes(&compressed) {
        let written = contents.to_bytes().ok();
        let again = written.and_then(|written| Contents::from_bytes(&written).ok());
        assert_eq!(again, Some(contents));
    }
}

/// The statements of accepted globals are in the script in their order, and each alone is read as the same statement.
pub(super) fn globals(input: &[u8]) {
    let script = &*String::from_utf8_lossy(input);
    let Ok(found) = statements(script) else {
        return;
    };
    let mut rest = script;
    for statement in &found {
        let after = rest.split_once(statement.text).map(|(_, after)| after);
        assert!(after.is_some(), "{statement:?} is missing or out of order");
        rest = after.unwrap_or_default();
        let alone = format!("{};\n", statement.text);
        assert_eq!(
            statements(&alone).ok().as_deref(),
            Some(std::slice::from_ref(statement))
        );
    }
}

/// An accepted dump is refused as soon as any part of its end is missing.
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
            "{length} of {} bytes are accepted as a whole dump",
            input.len()
        );
    }
}
