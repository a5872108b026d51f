//! Compares the table of `mod.rs` with the model and with the product.

use std::collections::BTreeSet;

use crate::repository::{project, rust_files};

/// The modules that follow the product's code.
const FOLLOWING: [&str; 6] = [
    "agent",
    "functions::backup",
    "functions::breaker",
    "functions::commit",
    "functions::restore",
    "functions::retention",
];

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
        let files = rust_files(&project().join(&package).join("src")).unwrap();
        let texts = files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap());
        let source: String = texts.collect();
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
