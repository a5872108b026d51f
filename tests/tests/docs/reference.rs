//! The tables of the documents match the programs: exit codes, kinds of failures and settings; the shipped settings and
//! events are accepted.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result};
use insta::assert_snapshot;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::standin::Binaries;
use serde_json::Value;
use shared::exit_code::ExitCode;
use shared::kind::Kind;

use super::{project, quoted, read};

/// Runs `rekindle-node check` with this settings file; returns the exit status and the output.
fn check(settings: &str) -> Result<(Option<i32>, String)> {
    let root = tempfile::tempdir()?;
    let directory = root.path().join("etc/rekindle");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("node.toml"), settings)?;
    let output = Command::new(Binaries::find()?.agent)
        .arg("check")
        .env_clear()
        .env("REKINDLE_ROOT", root.path())
        .output()
        .context("run rekindle-node check")?;
    let text = String::from_utf8(output.stdout).context("the agent's output")?;
    let text = text.replace(&root.path().display().to_string(), "");
    Ok((output.status.code(), text))
}

/// Returns the cells of the first Markdown table after `marker`, row by row, without its head.
fn table(text: &str, marker: &str) -> Result<Vec<Vec<String>>> {
    let (_, rest) = text
        .split_once(marker)
        .with_context(|| format!("the page has no {marker}"))?;
    let lines = rest
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let rows = lines.skip(2).map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    });
    Ok(rows.collect())
}

#[test]
fn errors_md_lists_every_exit_code_with_its_remedy() -> Result<()> {
    let listed = table(&read("docs/errors.md")?, "<!-- EXIT CODES -->")?;
    let expected: Vec<Vec<String>> = ExitCode::ALL
        .iter()
        .map(|code| {
            let permanent = if code.permanent() { "yes" } else { "no" };
            vec![
                code.code().to_string(),
                format!("`{}`", code.word()),
                permanent.to_owned(),
                code.remedy().to_owned(),
            ]
        })
        .collect();
    assert_eq!(listed, expected);
    Ok(())
}

#[test]
fn errors_md_lists_every_kind_of_failure_with_its_remedy() -> Result<()> {
    let rows = table(&read("docs/errors.md")?, "<!-- ERROR TYPES -->")?;
    let listed: Vec<(String, String)> = rows
        .iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[2].clone()))
        .collect();
    let expected: Vec<(String, String)> = Kind::OWN
        .iter()
        .map(|kind| (kind.as_str().to_owned(), kind.remedy().to_owned()))
        .collect();
    assert_eq!(listed, expected);
    Ok(())
}

/// For an unknown key, the agent prints the keys that it accepts.
#[test]
fn settings_md_lists_exactly_the_settings_that_the_agent_accepts() -> Result<()> {
    let unknown = "nonsense = 1\n[configuration]\nnonsense = 1\n[postgres]\nnonsense = 1\n[images]\nnonsense = 1\n[commands]\nnonsense = 1\n";
    let (code, output) = check(unknown)?;
    assert_eq!(code, Some(ExitCode::Settings.code().into()));
    let mut accepted = BTreeSet::new();
    for line in output.lines() {
        let Some((place, keys)) = line.split_once(": the known keys are ") else {
            continue;
        };
        let section = place.rsplit_once(" in ").map(|(_, section)| section);
        for key in keys.trim_end_matches('.').split(", ") {
            match section {
                Some(section) => accepted.insert(format!("{section} {key}")),
                None if ["configuration", "postgres", "images", "commands"].contains(&key) => {
                    continue;
                }
                None => accepted.insert(key.to_owned()),
            };
        }
    }
    assert!(accepted.len() > 15, "{output}");
    let rows = table(&read("docs/settings.md")?, "<!-- SETTINGS -->")?;
    let mut listed = BTreeSet::new();
    for row in &rows {
        let mut section = String::new();
        for word in quoted(&row[0]) {
            // `[postgres] host`, `port`: the section applies to the rest of the cell.
            let key = match word.split_once("] ") {
                Some((table, key)) => {
                    section = format!("{table}] ");
                    key
                }
                None => &word,
            };
            listed.insert(format!("{section}{key}"));
        }
    }
    assert_eq!(listed, accepted);
    Ok(())
}

#[test]
fn the_shipped_settings_are_valid() -> Result<()> {
    let mut seen = 0;
    for entry in std::fs::read_dir(project().join("settings"))? {
        let path = entry?.path();
        let (code, output) = check(&std::fs::read_to_string(&path)?)?;
        assert_eq!(code, Some(0), "{}: {output}", path.display());
        assert!(output.contains("application: "), "{output}");
        seen += 1;
    }
    assert!(seen >= 2, "only {seen} settings files were checked");
    Ok(())
}

#[test]
fn the_check_of_valid_settings_shows_what_the_agent_will_do() -> Result<()> {
    let (code, output) = check(&read("settings/dtr-1.4.toml")?)?;
    assert_eq!(code, Some(0), "{output}");
    assert_snapshot!(output, @r#"
    application: dtr
    bucket: example-rekindle-backups (region: the instance's own)
    stall limit: 600 seconds without progress
    configuration: /var/local/dtr
    configuration: /usr/local/etc/dtr
    Postgres: in the container docker_trusted_registry_postgres, as postgres
    databases: all that allow connections
    images: those of the containers docker_trusted_registry_postgres, docker_trusted_registry_log_aggregator, docker_trusted_registry_auth_server, docker_trusted_registry_admin_server, docker_trusted_registry_image_storage_0, docker_trusted_registry_image_storage_1, docker_trusted_registry_load_balancer
    start_postgres: ["docker", "start", "docker_trusted_registry_postgres"]
    start: ["docker", "start", "docker_trusted_registry_log_aggregator", "docker_trusted_registry_auth_server", "docker_trusted_registry_admin_server", "docker_trusted_registry_image_storage_0", "docker_trusted_registry_image_storage_1", "docker_trusted_registry_load_balancer"]
    stop: ["docker", "stop", "docker_trusted_registry_load_balancer", "docker_trusted_registry_image_storage_1", "docker_trusted_registry_image_storage_0", "docker_trusted_registry_admin_server", "docker_trusted_registry_auth_server", "docker_trusted_registry_log_aggregator"]
    health: ["curl", "--fail", "--silent", "--insecure", "--max-time", "5", "https://127.0.0.1/load_balancer_status"]
    the settings are complete
    "#);
    Ok(())
}

#[test]
fn all_problems_of_a_settings_file_are_reported_at_once_with_their_lines() -> Result<()> {
    let text = r#"application = "No Application"
bucket = "B"
stall_limit_seconds = "soon"
[configuration]
paths = ["relative", "/etc/app", "/etc/app/inside"]
[postgres]
container = "db"
port = 5432
tablespaces = "perhaps"
[commands]
start = "docker start db"
colour = "red"
"#;
    let (code, output) = check(text)?;
    assert_eq!(code, Some(ExitCode::Settings.code().into()), "{output}");
    assert_snapshot!(output, @r#"
    /etc/rekindle/node.toml:
    line 1: application: ApplicationName "No Application" is not 1 to 63 lower-case letters, digits and inner hyphens
    line 2: bucket: "B" is not a bucket name: use 3 to 63 lower-case letters, digits, dots and hyphens
    line 3: stall_limit_seconds: expected a whole number, found string
    line 5: paths: "relative" is not an absolute path: begin it with /
    line 5: paths: "/etc/app/inside" overlaps with "/etc/app": keep the outer one
    line 8: port: [postgres] has a container, too: keep the container for a server in Docker, or host and port for any other
    line 9: tablespaces: "perhaps" is not one of "fail", "default"
    line 11: start: expected a list of a program and its arguments, found string
    line 12: unknown key "colour" in [commands]: the known keys are start_postgres, start, stop, health, health_timeout_seconds
    "#);
    Ok(())
}

/// Each file of `events/` is accepted by the function that it belongs to; without groups, the answer may be a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_functions_accept_every_shipped_event() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let (backup, restore) = (
        protected.standin.function("backup")?,
        protected.standin.function("restore")?,
    );
    let mut seen = 0;
    for entry in std::fs::read_dir(project().join("events"))? {
        let path = entry?.path();
        let name = path.display().to_string();
        let mut event: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.with_context(|| name.clone())?;
        let of_command = event.get("detail").is_some();
        let to_restore = stem.starts_with("launch")
            || (stem.starts_with("restore-") && of_command)
            || stem == "resume";
        // The names of the SSM documents depend on the deployment.
        if let Some(document) = event.pointer_mut("/detail/document-name") {
            let word = if to_restore { "restore" } else { "backup" };
            *document = Value::String(protected.document(word)?);
        }
        let functions = match stem {
            "sweep" => vec![&backup, &restore],
            _ if to_restore => vec![&restore],
            _ => vec![&backup],
        };
        for function in functions {
            let answer = protected.standin.invoke(function, event.clone()).await;
            if let Err(error) = answer {
                assert_ne!(error.error_type, "Event", "{name}: {error}");
                // There is no group to back up. The function understands the event and refuses it.
                assert_eq!(error.error_type, "Refused", "{name}: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 18, "only {seen} events were checked");

    let unknown = protected
        .standin
        .invoke(&backup, serde_json::json!({"rekindle": "dance"}))
        .await;
    assert_eq!(
        unknown.map_err(|error| error.error_type),
        Err("Event".to_owned())
    );
    Ok(())
}
