//! What the documents say is what the programs do: exit codes, error types, settings, events.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rekindle_tests::nodes::protected::Protected;
use rekindle_tests::standin::world::Binaries;
use serde_json::Value;
use shared::report::ExitCode;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(project().join(path)).with_context(|| format!("read {path}"))
}

/// Runs `rekindle-node check` on a machine with this settings file; returns exit status and output.
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
    Ok((output.status.code(), text))
}

/// Returns the rows of the first Markdown table after `marker`, without its head: the cells of each.
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

/// Returns the words in backquotes of a text.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
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

/// The second table has the words of `Error::kind`, of a reason to abandon, and those that a function counts by
/// name; the exit codes' own words stand in the first one.
#[test]
fn errors_md_lists_every_kind_of_failure_of_the_functions() -> Result<()> {
    let listed: BTreeSet<String> = table(&read("docs/errors.md")?, "<!-- ERROR TYPES -->")?
        .iter()
        .flat_map(|row| quoted(&row[0]))
        .collect();
    let mut known = BTreeSet::new();
    let mut collect = |pattern: &str, text: &str| -> Result<()> {
        let words = regex::Regex::new(pattern)?;
        known.extend(words.captures_iter(text).map(|found| found[1].to_owned()));
        Ok(())
    };
    for source in sources(&project().join("functions"))? {
        // Tests in a file of their own are declared anywhere; those in the same file end it.
        let text = std::fs::read_to_string(&source)?.replace("#[cfg(test)]\nmod tests;", "");
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        collect(r#"\bkind = "([A-Z][A-Za-z]+)""#, shipped)?;
        collect(r#"\bconst [A-Z_]+: &str = "([A-Z][A-Za-z]+)";"#, shipped)?;
        collect(r#"\b(?:report|failed)\([^;"]*"([A-Z][A-Za-z]+)""#, shipped)?;
    }
    for path in [
        "shared/src/error.rs",
        "shared/src/aws/status.rs",
        "functions/backup/src/decide/guard.rs",
        "functions/restore/src/reason.rs",
    ] {
        let text = read(path)?;
        let (_, body) = text.split_once("fn kind(").context("kind() is gone")?;
        let (body, _) = body.split_once("\n    }\n").context("kind() has no end")?;
        collect(r#"=> "([A-Z][A-Za-z]+)""#, body)?;
    }
    ensure!(known.len() > 15, "only {known:?} were found in the sources");
    assert_eq!(listed, known);
    Ok(())
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
            && !path.ends_with("testing.rs")
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// The agent names the keys that it knows where it meets one that it does not.
#[test]
fn settings_md_lists_exactly_the_settings_that_the_agent_accepts() -> Result<()> {
    let unknown = "nonsense = 1\n[configuration]\nnonsense = 1\n[postgres]\nnonsense = 1\n[images]\nnonsense = 1\n[commands]\nnonsense = 1\n";
    let (code, output) = check(unknown)?;
    assert_eq!(code, Some(ExitCode::Settings.code().into()));
    let mut accepted = BTreeSet::new();
    for line in output.lines() {
        let Some((place, keys)) = line.split_once(": the keys there are ") else {
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
            // `[postgres] host`, `port`: a table holds until the end of the cell.
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
fn the_shipped_settings_are_good() -> Result<()> {
    let mut seen = 0;
    for entry in std::fs::read_dir(project().join("settings"))? {
        let path = entry?.path();
        let (code, output) = check(&std::fs::read_to_string(&path)?)?;
        assert_eq!(code, Some(0), "{}: {output}", path.display());
        assert!(output.contains("application: "), "{output}");
        seen += 1;
    }
    assert!(seen >= 2, "there are only {seen} settings files");
    Ok(())
}

#[test]
fn all_mistakes_of_a_settings_file_are_told_at_once_with_their_lines() -> Result<()> {
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
    for (line, word) in [
        (1, "application"),
        (2, "bucket"),
        (3, "stall_limit_seconds"),
        (5, "relative"),
        (5, "/etc/app/inside"),
        (8, "container and a host or port"),
        (9, "tablespaces"),
        (11, "start"),
        (12, "colour"),
    ] {
        let line = format!("line {line}: ");
        let told = output.split(&line).skip(1);
        let mut told = told.filter_map(|rest| rest.split("line ").next());
        assert!(
            told.any(|problem| problem.contains(word)),
            "{line}…{word}… is not told: {output}"
        );
    }
    Ok(())
}

/// Each file is one situation; the function that the situation belongs to understands it, whatever it then finds.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_functions_understand_every_event() -> Result<()> {
    let protected = Protected::start().await?;
    let (backup, restore) = (
        protected.function("backup")?,
        protected.function("restore")?,
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
        // The documents' names depend on the deployment.
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
            let answer = protected.world.invoke(function, event.clone()).await;
            if let Err(error) = answer {
                assert_ne!(error.error_type, "Event", "{name}: {error}");
                // No group is there to back up: that is an answer, not a misunderstanding.
                assert_eq!(error.error_type, "Refused", "{name}: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 18, "only {seen} events were tried");

    let nonsense = protected
        .world
        .invoke(&backup, serde_json::json!({"rekindle": "dance"}))
        .await;
    assert_eq!(
        nonsense.map_err(|error| error.error_type),
        Err("Event".to_owned())
    );
    Ok(())
}

/// A statement, a parameter, a file or a name of the code that a "cannot" rests on is there.
#[test]
fn the_security_review_names_only_what_there_is() -> Result<()> {
    let mut files = vec![project().join("template.yaml")];
    for room in ["shared", "functions", "node", "tests/src", "tests/tests"] {
        files.extend(sources(&project().join(room))?);
    }
    files.extend(["tests/template/test_iam.py", "template.yaml"].map(|file| project().join(file)));
    let mut texts = String::new();
    for file in &files {
        texts += &std::fs::read_to_string(file)?;
    }
    let name = regex::Regex::new("^[A-Za-z_]+(::[a-z_]+)?$")?;
    let mut seen = 0;
    for word in quoted(&read("SECURITY.md")?) {
        let extension = Path::new(&word).extension().and_then(|it| it.to_str());
        let there = if matches!(extension, Some("rs" | "py")) {
            files.iter().any(|file| file.ends_with(&word))
        } else if name.is_match(&word) {
            let own = word.rsplit("::").next().unwrap_or(&word);
            texts.contains(own)
        } else {
            continue;
        };
        assert!(there, "SECURITY.md names {word}, which is not there");
        seen += 1;
    }
    assert!(seen > 30, "only {seen} names were looked up");
    Ok(())
}

#[test]
fn readme_and_architecture_are_short() -> Result<()> {
    for page in ["README.md", "ARCHITECTURE.md"] {
        let lines = read(page)?.lines().count();
        assert!(lines <= 150, "{page} has {lines} lines");
    }
    Ok(())
}

/// The lines of a path through the code have the form `path/of/file.rs:function`.
#[test]
fn the_architecture_names_only_functions_that_exist() -> Result<()> {
    let step = regex::Regex::new(r"^(\S+\.rs):([a-z_0-9]+)$")?;
    let mut seen = 0;
    for word in quoted(&read("ARCHITECTURE.md")?) {
        let Some(found) = step.captures(&word) else {
            continue;
        };
        let function = format!("fn {}", &found[2]);
        let mut rest = read(&found[1])?;
        let defined = loop {
            let Some((_, after)) = rest.split_once(&function) else {
                break false;
            };
            if after.starts_with(['(', '<']) {
                break true;
            }
            rest = after.to_owned();
        };
        assert!(
            defined,
            "ARCHITECTURE.md names {word}, which does not exist"
        );
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} functions were looked up");
    Ok(())
}

/// Links between pages, and to a heading of a page.
#[test]
fn every_link_of_the_documents_leads_somewhere() -> Result<()> {
    let link = regex::Regex::new(r"\]\(([^)\s]+)\)")?;
    let mut pages: Vec<PathBuf> = Vec::new();
    for directory in [project(), project().join("docs")] {
        for entry in std::fs::read_dir(directory)? {
            pages.push(entry?.path());
        }
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    let mut seen = 0;
    for page in &pages {
        let text = std::fs::read_to_string(page)?;
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.starts_with("http") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                page.clone()
            } else {
                page.with_file_name("").join(path)
            };
            ensure!(path.exists(), "{}: {target} is missing", page.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&path)?;
                let there = text
                    .lines()
                    .any(|line| anchor(line) == Some(heading.into()));
                ensure!(there, "{}: no heading for {target}", page.display());
            }
            seen += 1;
        }
    }
    ensure!(seen > 50, "only {seen} links were followed");
    Ok(())
}

/// Returns the anchor that GitHub gives a heading, or `None` if the line is no heading.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#');
    let kept = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter
            .is_alphanumeric()
            .then(|| letter.to_ascii_lowercase()),
    });
    Some(kept.collect())
}

#[test]
fn the_overview_is_drawn_from_its_description() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("draw.py");
    std::fs::copy(project().join("docs/draw.py"), &script)?;
    let status = Command::new("python3").arg(&script).status()?;
    ensure!(status.success(), "docs/draw.py failed");
    let drawn = std::fs::read_to_string(directory.path().join("overview.svg"))?;
    assert!(
        drawn == read("docs/overview.svg")?,
        "docs/overview.svg is old; run `python3 docs/draw.py`"
    );
    Ok(())
}
