//! The Rust files of the repository, and a simple scanner for them. It relies on rustfmt: a function ends with the first
//! `}` that is indented like its first line.

use anyhow::{Context as _, Result, ensure};
use rekindle_tests::repository::{project, rust_files};

/// One Rust file.
pub(crate) struct File {
    /// The path from the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// One function of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The number of lines from the signature to the closing brace.
    pub(crate) lines: usize,
    /// Whether it has a test attribute.
    pub(crate) is_test: bool,
}

/// Reads all Rust files of the repository, in the order of their paths.
pub(crate) fn files() -> Result<Vec<File>> {
    let root = project();
    let mut paths = Vec::new();
    for folder in ["functions", "node", "shared", "tests"] {
        paths.extend(rust_files(&root.join(folder))?);
    }
    paths.sort();
    ensure!(paths.len() > 100, "only {} files were found", paths.len());
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path);
            let text = text.with_context(|| format!("read {}", path.display()))?;
            let path = path.strip_prefix(&root)?.display().to_string();
            Ok(File { path, text })
        })
        .collect()
}

impl File {
    /// Returns the functions of the file, nested ones included.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut functions = Vec::new();
        let mut is_test = false;
        for (number, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            if trimmed.starts_with("#[") {
                is_test |= trimmed.starts_with("#[test]") || trimmed.starts_with("#[tokio::test");
                continue;
            }
            if let Some(name) = function_name(trimmed) {
                functions.push(Function {
                    name: name.to_owned(),
                    lines: length(&lines[number..]),
                    is_test,
                });
            }
            if !trimmed.starts_with("//") {
                is_test = false;
            }
        }
        functions
    }

    /// Returns the code without comments and without the test module at the end.
    pub(crate) fn shipped_code(&self) -> String {
        let shipped = self.text.split("#[cfg(test)]\nmod tests {").next();
        let lines = shipped.unwrap_or_default().lines();
        let code = lines.filter(|line| !line.trim_start().starts_with("//"));
        code.collect::<Vec<_>>().join("\n")
    }
}

/// Returns the name of the function whose signature starts on this line.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line;
    if let Some(after) = rest.strip_prefix("pub(") {
        rest = after.split_once(") ")?.1;
    }
    for word in ["pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
    Some(&name[..end])
}

/// Returns the number of lines of the function that starts on the first line.
fn length(lines: &[&str]) -> usize {
    let indent = lines[0].len() - lines[0].trim_start().len();
    let closing = format!("{}}}", &lines[0][..indent]);
    for (number, line) in lines.iter().enumerate() {
        let is_one_line = number == 0 && line.ends_with('}');
        let is_declaration = line.ends_with(';') && lines[..number].iter().all(|line| !opens(line));
        if is_one_line || *line == closing || is_declaration {
            return number + 1;
        }
    }
    lines.len()
}

fn opens(line: &str) -> bool {
    line.ends_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_with_their_length_and_their_test_attribute() {
        let file = File {
            path: String::new(),
            text: "\
trait Shape {
    fn area(&self) -> f64;
    fn scaled(
        &self,
    ) -> Self;
}

pub(crate) async fn first(
    a: u8,
) -> u8 {
    if a == 1 {
        return 2;
    }
    a
}

/// A test.
#[tokio::test(flavor = \"multi_thread\")]
// A comment.
async fn second() {
    fn inner() {}
    inner();
}
"
            .to_owned(),
        };
        let function = |name: &str, lines, is_test| Function {
            name: name.to_owned(),
            lines,
            is_test,
        };
        assert_eq!(
            file.functions(),
            [
                function("area", 1, false),
                function("scaled", 3, false),
                function("first", 8, false),
                function("second", 4, true),
                function("inner", 1, false),
            ]
        );
    }
}
