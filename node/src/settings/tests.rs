use super::*;

const COMPLETE: &str = r#"
application = "dtr"
bucket = "backups"
[configuration]
paths = ["/etc/app/", "/srv//app"]
[postgres]
host = "/run/postgresql"
"#;

fn problems(text: &str) -> Vec<String> {
    read::read(text).unwrap_err()
}

#[test]
fn every_key_that_is_not_set_has_its_default() {
    let settings = read::read(COMPLETE).unwrap();
    assert_eq!(
        settings,
        Settings {
            application: "dtr".parse().unwrap(),
            bucket: "backups".to_owned(),
            region: None,
            stall_limit_seconds: 600,
            configuration_paths: vec!["/etc/app".into(), "/srv/app".into()],
            postgres: PostgresSettings {
                server: Server::Direct {
                    host: "/run/postgresql".to_owned(),
                    port: 5432,
                },
                user: "postgres".to_owned(),
                databases: None,
                bootstrap_role_password: BootstrapRolePassword::Restore,
                tablespaces: Tablespaces::Fail,
                exceptions: Exceptions::Admit,
                ready_timeout_seconds: 300,
            },
            image_containers: vec![],
            commands: Commands::default(),
        }
    );
}

#[test]
fn the_shipped_example_is_complete() {
    let settings = read::read(include_str!("../../../settings/dtr-1.4.toml")).unwrap();
    assert_eq!(
        settings.postgres.server,
        Server::Container("docker_trusted_registry_postgres".to_owned())
    );
    let paths = ["/var/local/dtr", "/usr/local/etc/dtr"].map(PathBuf::from);
    assert_eq!(settings.configuration_paths, paths);
    assert!(settings.to_string().contains("application: dtr\n"));
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = r#"application = "DTR"
bucket = 7
colour = "red"
stall_limit_seconds = 0
region = "EU"
[configuration]
paths = ["etc", "/srv/../etc", "/", "/var/lib/rekindle/x", "/var", "/srv", "/srv/app", 3]
[postgres]
container = "a b"
host = "db"
port = 70000
databases = ["a", "a", "template0"]
tablespaces = "maybe"
user = ""
[commands]
start = []
stop = "docker stop x"
"#;
    let expected = [
        r#"line 1: application: ApplicationName "DTR" is not 1 to 63 lower-case letters, digits and inner hyphens"#,
        "line 2: bucket: expected a string in quotes, found integer",
        r#"line 3: unknown key "colour" at the top level: the known keys are application, bucket, region, stall_limit_seconds, configuration, postgres, images, commands"#,
        "line 4: stall_limit_seconds: 0 is not between 1 and 86400",
        r#"line 5: region: "EU" is not a region such as eu-west-1"#,
        r#"line 7: paths: "etc" is not an absolute path: begin it with /"#,
        r#"line 7: paths: "/srv/../etc" contains ..: write the path without it"#,
        r#"line 7: paths: "/" is the root directory: list the application's own directories"#,
        r#"line 7: paths: "/var/lib/rekindle/x" contains or is part of /var/lib/rekindle, the agent's own directory: remove it from the list"#,
        r#"line 7: paths: "/var" contains or is part of /var/lib/rekindle, the agent's own directory: remove it from the list"#,
        r#"line 7: paths: "/srv/app" overlaps with "/srv": keep the outer one"#,
        "line 7: paths: expected a string in quotes, found integer",
        r#"line 9: container: "a b" is not a container name: use letters, digits, and after the first also _ . -"#,
        "line 10: host: [postgres] has a container, too: keep the container for a server in Docker, or host and port for any other",
        "line 11: port: 70000 is not between 1 and 65535",
        r#"line 12: databases: "a" is listed twice: remove one"#,
        r#"line 12: databases: "template0" cannot be backed up: remove it from the list"#,
        r#"line 13: tablespaces: "maybe" is not one of "fail", "default""#,
        r#"line 14: user: "" is not a name: it is empty or has a zero byte"#,
        "line 16: start: the list is empty: name a program, or remove start",
        "line 17: stop: expected a list of a program and its arguments, found string",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn missing_keys_are_named() {
    assert_eq!(
        problems(""),
        [
            "line 1: application is missing: set it",
            "line 1: bucket is missing: set it",
            "line 1: [configuration] is missing: add it",
            "line 1: [postgres] is missing: add it",
        ]
    );
    assert_eq!(
        problems("application = \"a\"\nbucket = \"abc\"\n[configuration]\n[postgres]\nport = 1\n"),
        [
            "line 3: paths is missing in [configuration]: set it",
            "line 4: [postgres] has neither container nor host: name the server's container, or its host (a name, or the directory of its socket)",
        ]
    );
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_lines() {
    let found = problems("application = \"a\"\nbucket = \nregion = ]\n");
    assert!(found[0].starts_with("line 2: not TOML: "), "{found:?}");
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("line 3: not TOML: ")),
        "{found:?}"
    );
}

#[test]
fn a_missing_file_is_reported_with_the_remedy() {
    let root = tempfile::tempdir().unwrap();
    let failure = Settings::load(root.path()).unwrap_err();
    assert_eq!(failure.code, ExitCode::Settings);
    let chain = failure.chain();
    assert!(
        chain.contains("etc/rekindle/node.toml; let the instance's user data write it"),
        "{chain}"
    );
}
