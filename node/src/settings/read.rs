//! Reads the settings' text: every problem at once, each with its line and what to do about it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use shared::budget;
use shared::id::StackName;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{BootstrapRolePassword, Commands, PostgresSettings, Server, Settings, Tablespaces};
use crate::state;

/// Reads the text; fails with one line per problem, in the order of the text.
pub(super) fn read(text: &str) -> Result<Settings, Vec<String>> {
    let mut problems = Problems {
        text,
        found: Vec::new(),
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.add(
            error.span().unwrap_or(0..0),
            format!("not TOML: {}", error.message()),
        );
    }
    // What the parser made of a broken text would be blamed for gaps that are not there.
    if !errors.is_empty() {
        return Err(problems.lines());
    }
    let settings = Section::of(&document, "").settings(&mut problems);
    settings
        .filter(|_| problems.found.is_empty())
        .ok_or_else(|| problems.lines())
}

/// The problems found so far, each with its place in the text.
struct Problems<'t> {
    text: &'t str,
    found: Vec<(usize, String)>,
}

impl Problems<'_> {
    fn add(&mut self, span: Range<usize>, problem: impl Into<String>) {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        self.found.push((line, problem.into()));
    }

    fn lines(mut self) -> Vec<String> {
        self.found.sort_by_key(|(line, _)| *line);
        let lines = self.found.into_iter();
        lines
            .map(|(line, problem)| format!("line {line}: {problem}"))
            .collect()
    }
}

/// One table of the text, with its name for messages.
struct Section<'t, 'd> {
    table: &'t DeTable<'d>,
    name: &'static str,
    span: Range<usize>,
}

impl<'t, 'd> Section<'t, 'd> {
    fn of(document: &'t Spanned<DeTable<'d>>, name: &'static str) -> Self {
        // A missing key of the document is told at the first line.
        Self {
            table: document.get_ref(),
            name,
            span: 0..0,
        }
    }

    fn settings(&self, problems: &mut Problems<'_>) -> Option<Settings> {
        self.only(
            &[
                "stack",
                "bucket",
                "region",
                "stall_limit_seconds",
                "configuration",
                "postgres",
                "commands",
            ],
            problems,
        );
        let stack = self.needed("stack", problems).and_then(|value| {
            let text = string(value, "stack", problems)?;
            let stack = text.parse::<StackName>();
            stack
                .map_err(|error| problems.add(value.span(), format!("stack: {error}")))
                .ok()
        });
        let bucket = self.needed("bucket", problems).and_then(|value| {
            let text = string(value, "bucket", problems)?;
            if is_bucket(&text) {
                return Some(text);
            }
            problems.add(value.span(), format!(
                "bucket: {text:?} is not a bucket's name: 3 to 63 lower-case letters, digits, dots and hyphens"
            ));
            None
        });
        let region = self.optional("region", problems, string);
        if let (Some(region), Some(value)) = (&region, self.table.get("region"))
            && !is_region(region)
        {
            problems.add(
                value.span(),
                format!("region: {region:?} is not a region such as eu-west-1"),
            );
        }
        let stall_limit_seconds = self.seconds("stall_limit_seconds", budget::STALL, problems);
        let configuration_paths = self
            .section("configuration", true, problems)
            .map(|section| {
                section.only(&["paths"], problems);
                section.paths(problems)
            });
        let postgres = self
            .section("postgres", true, problems)
            .and_then(|section| section.postgres(problems));
        let commands = match self.section("commands", false, problems) {
            Some(section) => section.commands(problems),
            None => Commands::default(),
        };
        Some(Settings {
            stack: stack?,
            bucket: bucket?,
            region,
            stall_limit_seconds,
            configuration_paths: configuration_paths?,
            postgres: postgres?,
            commands,
        })
    }

    fn postgres(&self, problems: &mut Problems<'_>) -> Option<PostgresSettings> {
        self.only(
            &[
                "container",
                "host",
                "port",
                "user",
                "databases",
                "bootstrap_role_password",
                "tablespaces",
                "ready_timeout_seconds",
            ],
            problems,
        );
        let server = self.server(problems);
        let user = self
            .optional("user", problems, name)
            .unwrap_or_else(|| "postgres".to_owned());
        let databases = self.optional("databases", problems, names);
        let bootstrap_role_password = self
            .optional(
                "bootstrap_role_password",
                problems,
                |value, key, problems| {
                    let words = [
                        ("restore", BootstrapRolePassword::Restore),
                        ("keep", BootstrapRolePassword::Keep),
                    ];
                    one_of(value, key, &words, problems)
                },
            )
            .unwrap_or(BootstrapRolePassword::Restore);
        let tablespaces = self
            .optional("tablespaces", problems, |value, key, problems| {
                let words = [
                    ("fail", Tablespaces::Fail),
                    ("default", Tablespaces::Default),
                ];
                one_of(value, key, &words, problems)
            })
            .unwrap_or(Tablespaces::Fail);
        Some(PostgresSettings {
            server: server?,
            user,
            databases,
            bootstrap_role_password,
            tablespaces,
            ready_timeout_seconds: self.seconds("ready_timeout_seconds", DEFAULT_TIMEOUT, problems),
        })
    }

    fn server(&self, problems: &mut Problems<'_>) -> Option<Server> {
        let container = self.optional("container", problems, container_name);
        let host = self.optional("host", problems, name);
        let port = self.optional("port", problems, |value, key, problems| {
            let port = integer(value, 1..=u32::from(u16::MAX), key, problems)?;
            u16::try_from(port).ok()
        });
        let table = self.table;
        match (table.get("container"), table.get("host"), table.get("port")) {
            (Some(_), Some(other), _) | (Some(_), None, Some(other)) => {
                problems.add(
                    other.span(),
                    "[postgres] has a container and a host or port: keep the container for a server in Docker, \
                     or host and port for any other",
                );
                None
            }
            (Some(_), None, None) => container.map(Server::Container),
            (None, Some(_), _) => Some(Server::Direct {
                host: host?,
                port: port.unwrap_or(DEFAULT_PORT),
            }),
            (None, None, _) => {
                problems.add(
                    self.span.clone(),
                    "[postgres] has neither container nor host: name the server's container, or its host \
                     (a name, or the directory of its socket)",
                );
                None
            }
        }
    }

    fn commands(&self, problems: &mut Problems<'_>) -> Commands {
        self.only(
            &[
                "start_postgres",
                "start",
                "stop",
                "health",
                "health_timeout_seconds",
            ],
            problems,
        );
        Commands {
            start_postgres: self.optional("start_postgres", problems, argv),
            start: self.optional("start", problems, argv),
            stop: self.optional("stop", problems, argv),
            health: self.optional("health", problems, argv),
            health_timeout_seconds: self.seconds(
                "health_timeout_seconds",
                DEFAULT_TIMEOUT,
                problems,
            ),
        }
    }

    /// Returns the configured paths; each must be absolute, plain, not the agent's own, and in no other.
    fn paths(&self, problems: &mut Problems<'_>) -> Vec<PathBuf> {
        let Some(value) = self.needed("paths", problems) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            wrong_type(value, "paths", "a list of texts", problems);
            return Vec::new();
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        for item in items.iter() {
            let Some(text) = string(item, "paths", problems) else {
                continue;
            };
            match configuration_path(&text, &paths) {
                Ok(path) => paths.push(path),
                Err(problem) => problems.add(item.span(), format!("paths: {text:?} {problem}")),
            }
        }
        paths
    }

    /// Refuses every key that is not one of these.
    fn only(&self, known: &[&str], problems: &mut Problems<'_>) {
        for key in self.table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let place = if self.name.is_empty() {
                    "at the top".to_owned()
                } else {
                    format!("in [{}]", self.name)
                };
                problems.add(
                    key.span(),
                    format!(
                        "unknown key {:?} {place}: the keys there are {}",
                        key.get_ref(),
                        known.join(", ")
                    ),
                );
            }
        }
    }

    fn needed(&self, key: &str, problems: &mut Problems<'_>) -> Option<&'t Spanned<DeValue<'d>>> {
        let value = self.table.get(key);
        if value.is_none() {
            let place = if self.name.is_empty() {
                String::new()
            } else {
                format!(" in [{}]", self.name)
            };
            problems.add(
                self.span.clone(),
                format!("{key} is missing{place}: set it"),
            );
        }
        value
    }

    fn optional<T>(
        &self,
        key: &str,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&Spanned<DeValue<'d>>, &str, &mut Problems<'_>) -> Option<T>,
    ) -> Option<T> {
        self.table
            .get(key)
            .and_then(|value| read(value, key, problems))
    }

    fn seconds(&self, key: &str, default: u32, problems: &mut Problems<'_>) -> u32 {
        self.optional(key, problems, |value, key, problems| {
            integer(value, SECONDS, key, problems)
        })
        .unwrap_or(default)
    }

    fn section(
        &self,
        key: &'static str,
        needed: bool,
        problems: &mut Problems<'_>,
    ) -> Option<Section<'t, 'd>> {
        let value = match self.table.get(key) {
            Some(value) => value,
            None => {
                if needed {
                    problems.add(0..0, format!("[{key}] is missing: add it"));
                }
                return None;
            }
        };
        if let Some(table) = value.get_ref().as_table() {
            return Some(Section {
                table,
                name: key,
                span: value.span(),
            });
        }
        wrong_type(value, key, "a table", problems);
        None
    }
}

const DEFAULT_PORT: u16 = 5432;
/// Seconds, for whatever has no number of its own.
pub(super) const DEFAULT_TIMEOUT: u32 = 300;
/// What a number of seconds may be: a second to a day.
const SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;

type Value<'v> = Spanned<DeValue<'v>>;

fn wrong_type(value: &Value<'_>, key: &str, wanted: &str, problems: &mut Problems<'_>) {
    let found = value.get_ref().type_str();
    problems.add(
        value.span(),
        format!("{key}: {wanted} is needed, not {found}"),
    );
}

fn string(value: &Value<'_>, key: &str, problems: &mut Problems<'_>) -> Option<String> {
    match value.get_ref().as_str() {
        Some(text) => Some(text.to_owned()),
        None => {
            wrong_type(value, key, "a text in quotes", problems);
            None
        }
    }
}

/// A text that can be handed to a program: neither empty nor with a zero byte.
fn name(value: &Value<'_>, key: &str, problems: &mut Problems<'_>) -> Option<String> {
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

fn container_name(value: &Value<'_>, key: &str, problems: &mut Problems<'_>) -> Option<String> {
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

fn names(value: &Value<'_>, key: &str, problems: &mut Problems<'_>) -> Option<Vec<String>> {
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
    for item in items.iter() {
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

fn argv(value: &Value<'_>, key: &str, problems: &mut Problems<'_>) -> Option<Vec<String>> {
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

fn integer(
    value: &Value<'_>,
    range: std::ops::RangeInclusive<u32>,
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

fn one_of<T: Copy>(
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

fn configuration_path(text: &str, before: &[PathBuf]) -> Result<PathBuf, String> {
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

fn is_bucket(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text.bytes().all(|byte| {
            matches!(byte, b'.' | b'-') || byte.is_ascii_lowercase() || byte.is_ascii_digit()
        })
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
