//! The graph of modules within each crate, and its circles.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::File;

/// The modules of a crate by their path, such as `restore::swap`; the root is the empty path. The values are the modules
/// that each one imports.
pub(crate) type Modules = BTreeMap<String, BTreeSet<String>>;

/// Returns the modules of every crate by the folder of its root. Test modules and binaries beside a library are left out.
pub(crate) fn crates(files: &[File]) -> BTreeMap<String, Modules> {
    let mut crates: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in files {
        let Some((root, module)) = place(&file.path, files) else {
            continue;
        };
        let modules = crates.entry(root.to_owned()).or_default();
        modules.insert(module, file.shipped_code());
    }
    crates
        .into_iter()
        .map(|(root, code)| {
            let imports = code
                .iter()
                .map(|(module, code_of_module)| {
                    (module.clone(), imports(module, code_of_module, &code))
                })
                .collect();
            (root, imports)
        })
        .collect()
}

/// Returns the folder of the crate's root and the module's path; `None` for tests and for binaries beside a library.
fn place<'a>(path: &'a str, files: &[File]) -> Option<(&'a str, String)> {
    if path.contains("/src/bin/") || path.ends_with("tests.rs") || path.ends_with("testing.rs") {
        return None;
    }
    let (root, rest) = if let Some((package, rest)) = path.split_once("/src/") {
        (&path[..package.len() + "/src".len()], rest)
    } else {
        // An integration test: tests/<name>/main.rs is the root of its crate.
        let (_, test) = path.split_once("/tests/")?;
        let (_, rest) = test.split_once('/')?;
        (&path[..path.len() - rest.len() - 1], rest)
    };
    let has_library = files
        .iter()
        .any(|file| file.path == format!("{root}/lib.rs"));
    let module = match rest {
        "lib.rs" => "",
        "main.rs" if !has_library => "",
        "main.rs" => return None,
        _ => rest.strip_suffix(".rs").unwrap_or(rest),
    };
    let module = module.strip_suffix("/mod").unwrap_or(module);
    let in_tests = module.split('/').any(|part| part == "tests");
    (!in_tests).then(|| (root, module.replace('/', "::")))
}

/// Returns the modules that a module's code names, without itself, its ancestors and its descendants: a parent may use
/// its children, and they may use its items.
fn imports(module: &str, code: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut imported = BTreeSet::new();
    for path in paths(code) {
        let mut target: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
        let mut parts = path.iter().map(String::as_str).peekable();
        match parts.next() {
            Some("crate") => target.clear(),
            Some("super") => {
                target.pop();
                while parts.next_if_eq(&"super").is_some() {
                    target.pop();
                }
            }
            _ => {}
        }
        for part in parts {
            target.push(part);
        }
        while !modules.contains_key(&target.join("::")) && target.pop().is_some() {}
        imported.insert(target.join("::"));
    }
    imported.retain(|other| !is_within(other, module) && !is_within(module, other));
    imported
}

/// Returns whether a module is another one or below it.
fn is_within(module: &str, other: &str) -> bool {
    let below = module.strip_prefix(other);
    other.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns all paths in the code that start with `crate`, `super` or `self`, with the braces of imports expanded.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(start) = next_path(rest) {
        rest = &rest[start..];
        let end = tree_end(rest);
        expand(&rest[..end], &[], &mut found);
        rest = &rest[end.max(1)..];
    }
    found
}

/// Returns where the next `crate::`, `super::` or `self::` starts that is not the continuation of another path.
fn next_path(code: &str) -> Option<usize> {
    let starts = ["crate::", "super::", "self::"].into_iter();
    let starts = starts.flat_map(|word| code.match_indices(word).map(|(start, _)| start));
    let is_start = |start: &usize| {
        let before = code[..*start].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_' && letter != ':')
    };
    starts.filter(is_start).min()
}

/// Returns the length of the path, or of the tree of paths in braces, at the start of the code.
fn tree_end(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, letter) in code.char_indices() {
        let in_path = letter.is_alphanumeric() || letter == '_' || letter == ':';
        let opens = letter == '{' && code[..at].ends_with("::");
        match letter {
            _ if opens || (depth > 0 && letter == '{') => depth += 1,
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ if depth == 0 && !in_path => return at,
            _ => {}
        }
    }
    code.len()
}

/// Adds the paths of a tree such as `crate::a::{b, c::D}`.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (path, group) = tree.split_once('{').map_or((tree, None), |(path, group)| {
        (path, Some(group.strip_suffix('}').unwrap_or(group)))
    });
    let own = path.split("::").map(str::trim);
    let own = own.map(|part| part.split(' ').next().unwrap_or_default());
    let own = own.filter(|part| !part.is_empty() && (*part != "self" || prefix.is_empty()));
    let mut full = prefix.to_vec();
    full.extend(own.map(str::to_owned));
    let Some(group) = group else {
        found.push(full);
        return;
    };
    let (mut depth, mut start) = (0_usize, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                expand(&group[start..at], &full, found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        expand(&group[start..], &full, found);
    }
}

/// Returns the circles of imports: each a sorted list of modules that all import each other, directly or not.
pub(crate) fn circles(modules: &Modules) -> Vec<Vec<&str>> {
    let reachable: BTreeMap<&str, BTreeSet<&str>> = modules
        .keys()
        .map(|module| (module.as_str(), reachable(module, modules)))
        .collect();
    let mut circles = BTreeSet::new();
    for (module, targets) in &reachable {
        if targets.contains(module) {
            let circle = targets
                .iter()
                .filter(|other| reachable[*other].contains(module));
            circles.insert(circle.copied().collect::<Vec<&str>>());
        }
    }
    circles.into_iter().collect()
}

/// Returns all modules that a module imports, directly or through others.
fn reachable<'a>(module: &str, modules: &'a Modules) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = vec![module];
    while let Some(next) = open.pop() {
        for other in modules.get(next).into_iter().flatten() {
            if seen.insert(other.as_str()) {
                open.push(other);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_expanded_and_resolved() {
        let code = "use crate::a::{self, b::{C, D as E}};\nuse super::x;\nlet y = crate::z::f(1);\nuse std::fs;";
        let text: Vec<String> = paths(code).iter().map(|path| path.join("::")).collect();
        assert_eq!(
            text,
            [
                "crate::a",
                "crate::a::b::C",
                "crate::a::b::D",
                "super::x",
                "crate::z::f"
            ]
        );
    }

    #[test]
    fn a_circle_is_found_and_parents_may_use_their_children() {
        let code = [
            ("", "use crate::a::A;"),
            ("a", "use crate::a::inner::B;"),
            ("a::inner", "use super::A; use crate::b::run;"),
            ("b", "use crate::c::run;"),
            ("c", "use crate::a::inner::B;"),
            ("d", "use crate::a::A;"),
        ];
        let code: BTreeMap<String, String> = code
            .map(|(module, code)| (module.to_owned(), code.to_owned()))
            .into();
        let modules: Modules = code
            .iter()
            .map(|(module, text)| (module.clone(), imports(module, text, &code)))
            .collect();
        assert_eq!(circles(&modules), [["a::inner", "b", "c"]]);
    }
}
