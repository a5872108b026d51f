//! Reads the settings' text: every problem at once, each with its line and what to do about it.

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use shared::budget;
use shared::id::ApplicationName;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problems;
use super::value::{
    argv, configuration_path, container_name, container_names, integer, is_bucket, is_region, name,
    names, one_of, string, wrong_type,
};
use super::{BootstrapRolePassword, Commands, PostgresSettings, Server, Settings, Tablespaces};

/// Reads the text; fails with one line per problem, in the order of the text.
pub(super) fn read(text: &str) -> Result<Settings, Vec<String>> {
    let mut problems = Problems::of(text);
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
        .filter(|_| problems.none())
        .ok_or_else(|| problems.lines())
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
                "application",
                "bucket",
                "region",
                "stall_limit_seconds",
                "configuration",
                "postgres",
                "images",
                "commands",
            ],
            problems,
        );
        let application = self.needed("application", problems).and_then(|value| {
            let text = string(value, "application", problems)?;
            let application = text.parse::<ApplicationName>();
            application
                .map_err(|error| problems.add(value.span(), format!("application: {error}")))
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
        let image_containers = self
            .section("images", false, problems)
            .and_then(|section| {
                section.only(&["containers"], problems);
                let value = section.needed("containers", problems)?;
                container_names(value, "containers", problems)
            })
            .unwrap_or_default();
        let commands = match self.section("commands", false, problems) {
            Some(section) => section.commands(problems),
            None => Commands::default(),
        };
        Some(Settings {
            application: application?,
            bucket: bucket?,
            region,
            stall_limit_seconds,
            configuration_paths: configuration_paths?,
            postgres: postgres?,
            image_containers,
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
        for item in items {
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
        let Some(value) = self.table.get(key) else {
            if needed {
                problems.add(0..0, format!("[{key}] is missing: add it"));
            }
            return None;
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
const SECONDS: RangeInclusive<u32> = 1..=86_400;
