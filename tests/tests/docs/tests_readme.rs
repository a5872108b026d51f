//! tests/README.md, the introduction for a newcomer, matches the tests.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use super::{project, quoted, read, sources};

const PAGE: &str = "tests/README.md";

#[test]
fn the_readme_of_the_tests_shows_the_example_as_it_is() -> Result<()> {
    let page = read(PAGE)?;
    let (_, block) = page
        .split_once("```rust\n")
        .with_context(|| format!("{PAGE} has no Rust code"))?;
    let (block, _) = block
        .split_once("```")
        .context("the Rust code has no end")?;
    assert_eq!(block, read("tests/tests/example.rs")?);
    Ok(())
}

#[test]
fn the_readme_of_the_tests_lists_every_test_binary() -> Result<()> {
    let page = read(PAGE)?;
    for entry in std::fs::read_dir(project().join("tests/tests"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = if entry.path().is_dir() {
            format!("`tests/{name}/`")
        } else {
            format!("`tests/{name}`")
        };
        ensure!(page.contains(&name), "{PAGE} does not list {name}");
    }
    Ok(())
}

/// Returns the source of the library, without its unit tests.
fn library() -> Result<String> {
    let mut code = String::new();
    for file in sources(&project().join("tests/src"))? {
        code += &std::fs::read_to_string(file)?;
    }
    Ok(code)
}

#[test]
fn every_method_of_a_fixture_in_the_readme_of_the_tests_is_public() -> Result<()> {
    let code = library()?;
    let page = read(PAGE)?;
    let public = regex::Regex::new(r"\bpub (?:const )?(?:async )?fn ([a-z_0-9]+)")?;
    let public: BTreeSet<&str> = public
        .captures_iter(&code)
        .filter_map(|found| found.get(1))
        .map(|name| name.as_str())
        .collect();
    let call = regex::Regex::new(r"\b(?:protected|standin)\.([a-z_0-9]+)\(")?;
    let mut seen = 0;
    for found in call.captures_iter(&page) {
        let (call, name) = (&found[0], &found[1]);
        ensure!(public.contains(name), "{call}…): no public function {name}");
        seen += 1;
    }
    ensure!(seen > 15, "only {seen} calls were looked up");
    Ok(())
}

/// The menu of faults names functions by their calls, such as `standin.s3().deny(…)`.
#[test]
fn the_menu_of_faults_names_only_functions_that_exist() -> Result<()> {
    let code = library()?;
    let page = read(PAGE)?;
    let (_, menu) = page
        .split_once("## The menu of faults")
        .context("there is no menu of faults")?;
    let (menu, _) = menu
        .split_once("\n## ")
        .context("the menu of faults has no end")?;
    let call = regex::Regex::new(r"\b([a-z_]+)\(")?;
    let mut seen = 0;
    for example in quoted(menu) {
        for found in call.captures_iter(&example) {
            let function = format!("fn {}", &found[1]);
            ensure!(code.contains(&function), "{example}: no {function}");
            seen += 1;
        }
    }
    ensure!(seen > 25, "only {seen} functions were looked up");
    Ok(())
}

#[test]
fn the_readme_of_the_tests_is_short() -> Result<()> {
    let lines = read(PAGE)?.lines().count();
    assert!(lines <= 150, "{PAGE} has {lines} lines");
    Ok(())
}
