//! The house rules of the source tree: short files and functions, small folders, decisions without I/O, and no circle of
//! module imports.
//!
//! Each rule has a list of exceptions with reasons. An exception that is not needed any more fails the test, too.

mod exceptions;
mod imports;
mod source;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use exceptions::{EXCEPTIONS, Rule};
use source::{File, Function};

const MOST_LINES_OF_A_FILE: usize = 400;
const MOST_LINES_OF_A_FUNCTION: usize = 70;
const MOST_LINES_OF_A_TEST: usize = 80;
const MOST_FILES_OF_A_FOLDER: usize = 15;

/// Checks that a rule is violated only by its exceptions, and that each exception is needed.
fn assert_only_exceptions(rule: Rule, found: &BTreeMap<String, String>) {
    let exceptions = EXCEPTIONS.iter().filter(|(other, ..)| *other == rule);
    let exceptions: BTreeSet<&str> = exceptions.map(|(_, name, _)| *name).collect();
    let violations: Vec<&String> = found
        .iter()
        .filter(|(name, _)| !exceptions.contains(&***name))
        .map(|(_, violation)| violation)
        .collect();
    assert!(violations.is_empty(), "{rule:?}: {violations:#?}");
    for exception in exceptions {
        assert!(
            found.contains_key(exception),
            "{rule:?}: {exception} does not need its exception any more; remove it from EXCEPTIONS"
        );
    }
}

#[test]
fn no_file_is_longer_than_400_lines() -> Result<()> {
    let mut found = BTreeMap::new();
    for file in source::files()? {
        let lines = file.text.lines().count();
        if lines > MOST_LINES_OF_A_FILE {
            let violation = format!("{} has {lines} lines", file.path);
            found.insert(file.path, violation);
        }
    }
    assert_only_exceptions(Rule::File, &found);
    Ok(())
}

#[test]
fn no_function_is_longer_than_70_lines_and_no_test_longer_than_80() -> Result<()> {
    let mut found = BTreeMap::new();
    let mut seen = 0;
    for file in source::files()? {
        for Function {
            name,
            lines,
            is_test,
        } in file.functions()
        {
            seen += 1;
            let most = if is_test {
                MOST_LINES_OF_A_TEST
            } else {
                MOST_LINES_OF_A_FUNCTION
            };
            if lines > most {
                let name = format!("{}:{name}", file.path);
                let violation = format!("{name} has {lines} lines");
                found.insert(name, violation);
            }
        }
    }
    ensure!(seen > 1_000, "only {seen} functions were found");
    assert_only_exceptions(Rule::Function, &found);
    Ok(())
}

#[test]
fn no_folder_has_more_than_15_files_side_by_side() -> Result<()> {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for file in source::files()? {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        *folders.entry(folder.to_owned()).or_default() += 1;
    }
    let found: BTreeMap<String, String> = folders
        .into_iter()
        .filter(|(_, count)| *count > MOST_FILES_OF_A_FOLDER)
        .map(|(folder, count)| {
            let violation = format!("{folder} has {count} files");
            (folder, violation)
        })
        .collect();
    assert_only_exceptions(Rule::Folder, &found);
    Ok(())
}

/// A decision is a pure function of facts, so that the model can check it in every state.
#[test]
fn decisions_do_no_io() -> Result<()> {
    // The modules that call AWS may be imported for their types, but not for their functions.
    let aws = r"\b(s3|ssm|autoscaling)::(\{[^}]*\b)?[a-z_0-9]+\s*[,(;}]";
    let patterns = [
        r"\btokio\b",
        r"\bstd::(fs|env|net|process)\b",
        r"\btracing\b",
        r"\bnow_utc\b",
        r"\bSystemTime\b",
        r"\basync fn\b",
        aws,
    ];
    let mut found = BTreeMap::new();
    let mut seen = 0;
    for file in source::files()? {
        let is_decision = file.path.ends_with("/decide.rs") || file.path.contains("/decide/");
        // The model only calls the decisions.
        if !is_decision || file.path.starts_with("tests/") {
            continue;
        }
        seen += 1;
        let code = file.shipped_code();
        for pattern in patterns {
            if let Some(text) = regex::Regex::new(pattern)?.find(&code) {
                let violation = format!("{} contains {:?}", file.path, text.as_str());
                found.insert(file.path.clone(), violation);
            }
        }
    }
    ensure!(seen >= 4, "only {seen} files with decisions were found");
    assert_only_exceptions(Rule::Decision, &found);
    Ok(())
}

#[test]
fn no_module_imports_itself_through_others() -> Result<()> {
    let mut found = BTreeMap::new();
    let crates = imports::crates(&source::files()?);
    ensure!(crates.len() > 10, "only {} crates were found", crates.len());
    for (root, modules) in crates {
        for circle in imports::circles(&modules) {
            let name = format!("{root}: {}", circle.join(" "));
            let violation = format!("{root} has a circle of imports: {}", circle.join(" -> "));
            found.insert(name, violation);
        }
    }
    assert_only_exceptions(Rule::Circle, &found);
    Ok(())
}

/// tests/tests/rules/main.rs names the tests of each rule.
#[test]
fn each_rule_of_the_incident_table_is_a_test() -> Result<()> {
    let files = source::files()?;
    let of_rules = |file: &&File| file.path.starts_with("tests/tests/rules/");
    let rules: Vec<&File> = files.iter().filter(of_rules).collect();
    let name = regex::Regex::new("`([a-z_]+)::([a-z_]+)`")?;
    let mut seen = 0;
    for file in &rules {
        for line in file.text.lines().filter(|line| line.starts_with("//! |")) {
            for found in name.captures_iter(line) {
                let path = format!("tests/tests/rules/{}.rs", &found[1]);
                let test = format!("async fn {}(", &found[2]);
                let mut named = rules.iter().filter(|file| file.path == path);
                let exists = named.any(|file| file.text.contains(&test));
                assert!(exists, "{} does not exist", &found[0]);
                seen += 1;
            }
        }
    }
    ensure!(seen > 10, "only {seen} rules were found");
    Ok(())
}
