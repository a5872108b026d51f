//! Compares the table of `mod.rs` with the model and with the product.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The modules that follow the product's code.
const FOLLOWING: [&str; 6] = [
    "agent",
    "functions::backup",
    "functions::breaker",
    "functions::commit",
    "functions::restore",
    "functions::retention",
];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the source of every file below a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &std::fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// Returns the rows of the table: the model's function, the package, and the product's functions.
fn rows() -> Vec<(String, String, Vec<String>)> {
    let names = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let table = include_str!("mod.rs").lines();
    let cells = table.filter_map(|line| {
        let row = line.strip_prefix("//! | `")?;
        let cells: Vec<&str> = row.split(" | ").collect();
        let [model, package, product] = cells[..] else {
            panic!("a row of the table has three cells: {line}");
        };
        let model = model.trim_end_matches('`').to_owned();
        Some((model, names(package).remove(0), names(product)))
    });
    cells.collect()
}

#[test]
fn every_function_that_follows_the_product_is_in_the_table() {
    let mut found = BTreeSet::new();
    for module in FOLLOWING {
        let file = format!("tests/src/model/{}.rs", module.replace("::", "/"));
        let source = std::fs::read_to_string(project().join(file)).unwrap();
        for line in source.lines() {
            if let Some(rest) = line.strip_prefix("pub(in crate::model) fn ") {
                let name = rest.split(['(', '<']).next().unwrap();
                found.insert(format!("{module}::{name}"));
            }
        }
    }
    let listed: BTreeSet<String> = rows().into_iter().map(|(model, ..)| model).collect();
    assert_eq!(listed, found);
}

#[test]
fn the_product_has_every_function_in_the_table() {
    for (model, package, product) in rows() {
        let source = sources(&project().join(&package).join("src"));
        assert!(!product.is_empty(), "{model} follows nothing");
        for name in product {
            let defined = ["(", "<"]
                .iter()
                .any(|end| source.contains(&format!("fn {name}{end}")));
            assert!(
                defined,
                "{model} follows {package}'s {name}, which is gone: update the table in tests/src/model/mod.rs"
            );
        }
    }
}
