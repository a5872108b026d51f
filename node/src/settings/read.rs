//! Reads the text of the settings, and collects every problem with its line.
//!
//! serde would stop at the first problem, and could not give the line of a value that it has already converted.

use std::path::PathBuf;

use shared::budget;
use shared::id::ApplicationName;
use shared::manifest::MOST_IMAGES;
use toml::de::DeTable;

use super::problems::Problems;
use super::value::{Section, Value};
use super::{
    BootstrapRolePassword, Commands, DEFAULT_TIMEOUT, Exceptions, PostgresSettings, Server,
    Settings, Tablespaces, rules,
};

/// The port of Postgres unless it is set.
const DEFAULT_PORT: u16 = 5432;
/// The type of a list, for messages.
const STRINGS: &str = "a list of strings";

/// Reads the settings. Fails with one line per problem, in the order of the text.
pub(super) fn read(text: &str) -> Result<Settings, Vec<String>> {
    let problems = Problems::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        problems.add(&span, format_args!("not TOML: {}", error.message()));
    }
    // If the text is not TOML, the parser may lose keys, and they would be reported as missing.
    if errors.is_empty() {
        let settings = settings(&Section::top(document.get_ref(), &problems));
        if let Some(settings) = settings.filter(|_| problems.is_empty()) {
            return Ok(settings);
        }
    }
    Err(problems.into_lines())
}

fn settings(top: &Section<'_, '_>) -> Option<Settings> {
    let application = top.required("application").and_then(application);
    let bucket = top.required("bucket");
    let bucket = bucket.and_then(|value| value.checked(rules::bucket));
    let region = top.optional("region");
    let region = region.and_then(|value| value.checked(rules::region));
    let stall_limit_seconds = top.seconds("stall_limit_seconds", budget::STALL);
    let configuration_paths = top.required_section("configuration", paths);
    let postgres = top.required_section("postgres", postgres);
    let image_containers = top.optional_section("images", containers);
    let commands = top.optional_section("commands", commands);
    top.refuse_other_keys();
    Some(Settings {
        application: application?,
        bucket: bucket?,
        region,
        stall_limit_seconds,
        configuration_paths: configuration_paths?,
        postgres: postgres?,
        image_containers: image_containers.flatten().unwrap_or_default(),
        commands: commands.unwrap_or_default(),
    })
}

fn application(value: Value<'_, '_>) -> Option<ApplicationName> {
    let parsed = value.string()?.parse::<ApplicationName>();
    parsed.map_err(|error| value.refuse(error)).ok()
}

fn paths(section: &Section<'_, '_>) -> Option<Vec<PathBuf>> {
    let paths = section.required("paths")?;
    paths.list(STRINGS, rules::another_path)
}

fn containers(section: &Section<'_, '_>) -> Option<Vec<String>> {
    let value = section.required("containers")?;
    let containers = value.list(STRINGS, rules::another_container)?;
    if containers.len() > MOST_IMAGES {
        value.refuse(format_args!(
            "has more than {MOST_IMAGES} containers: remove some"
        ));
    }
    Some(containers)
}

fn postgres(section: &Section<'_, '_>) -> Option<PostgresSettings> {
    let server = server(section);
    let user = section.optional("user");
    let user = user.and_then(|value| value.checked(rules::name));
    let databases = section.optional("databases").and_then(|value| {
        let remedy = "name a database, or remove databases to save all of them";
        value.filled_list(STRINGS, remedy, rules::another_database)
    });
    let password = section
        .optional("bootstrap_role_password")
        .and_then(|value| {
            value.one_of(&[
                ("restore", BootstrapRolePassword::Restore),
                ("keep", BootstrapRolePassword::Keep),
            ])
        });
    let tablespaces = section.optional("tablespaces").and_then(|value| {
        value.one_of(&[
            ("fail", Tablespaces::Fail),
            ("default", Tablespaces::Default),
        ])
    });
    let exceptions = section.optional("exceptions").and_then(|value| {
        value.one_of(&[("admit", Exceptions::Admit), ("refuse", Exceptions::Refuse)])
    });
    let ready_timeout_seconds = section.seconds("ready_timeout_seconds", DEFAULT_TIMEOUT);
    Some(PostgresSettings {
        server: server?,
        user: user.unwrap_or_else(|| "postgres".to_owned()),
        databases,
        bootstrap_role_password: password.unwrap_or(BootstrapRolePassword::Restore),
        tablespaces: tablespaces.unwrap_or(Tablespaces::Fail),
        exceptions: exceptions.unwrap_or(Exceptions::Admit),
        ready_timeout_seconds,
    })
}

fn server(section: &Section<'_, '_>) -> Option<Server> {
    let container = section.optional("container");
    let (host, port) = (section.optional("host"), section.optional("port"));
    let container_name = container.and_then(|value| value.checked(rules::container));
    let host_name = host.and_then(|value| value.checked(rules::name));
    let port_number = port.and_then(|value| {
        let number = value.integer(&(1..=u32::from(u16::MAX)))?;
        u16::try_from(number).ok()
    });
    match (container, host.or(port), host) {
        (Some(_), Some(other), _) => {
            other.refuse(
                "[postgres] has a container, too: keep the container for a server in Docker, or host and port for any other",
            );
            None
        }
        (Some(_), None, _) => container_name.map(Server::Container),
        (None, _, Some(_)) => Some(Server::Direct {
            host: host_name?,
            port: port_number.unwrap_or(DEFAULT_PORT),
        }),
        (None, _, None) => {
            section.refuse(
                "[postgres] has neither container nor host: name the server's container, or its host (a name, or the \
                 directory of its socket)",
            );
            None
        }
    }
}

fn commands(section: &Section<'_, '_>) -> Commands {
    let command = |key| {
        let remedy = format!("name a program, or remove {key}");
        let expected = "a list of a program and its arguments";
        section
            .optional(key)?
            .filled_list(expected, &remedy, rules::argument)
    };
    Commands {
        start_postgres: command("start_postgres"),
        start: command("start"),
        stop: command("stop"),
        health: command("health"),
        health_timeout_seconds: section.seconds("health_timeout_seconds", DEFAULT_TIMEOUT),
    }
}
