//! The documents as pages: links, names and lengths.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::{project, quoted, read, sources};

/// SECURITY.md names statements, parameters, files and functions as the reason for a "cannot". All of them exist.
#[test]
fn the_security_review_names_only_things_that_exist() -> Result<()> {
    let mut files = vec![project().join("template.yaml")];
    for folder in ["shared", "functions", "node", "tests/src", "tests/tests"] {
        files.extend(sources(&project().join(folder))?);
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
        let exists = if matches!(extension, Some("rs" | "py")) {
            files.iter().any(|file| file.ends_with(&word))
        } else if name.is_match(&word) {
            let own = word.rsplit("::").next().unwrap_or(&word);
            texts.contains(own)
        } else {
            continue;
        };
        assert!(exists, "SECURITY.md names {word}, which does not exist");
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

/// ARCHITECTURE.md writes the steps of a path through the code as `path/of/file.rs:function`.
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

#[test]
fn every_link_between_documents_has_a_target() -> Result<()> {
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
                let found = text
                    .lines()
                    .any(|line| anchor(line) == Some(heading.into()));
                ensure!(found, "{}: no heading for {target}", page.display());
            }
            seen += 1;
        }
    }
    ensure!(seen > 50, "only {seen} links were followed");
    Ok(())
}

/// Returns the anchor that GitHub gives a heading, or `None` if the line is not a heading.
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
        "docs/overview.svg is out of date; run `python3 docs/draw.py`"
    );
    Ok(())
}
