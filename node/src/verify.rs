//! Compares a restored database with what its backup recorded, before anything live is touched.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;
use shared::report::ExitCode;

use crate::contents::DatabaseContents;
use crate::failure::{Failure, Result};
use crate::postgres::{Postgres, identifier};

/// How many differences a message names.
const NAMED: usize = 3;

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Present {
    schema: String,
    name: String,
    kind: char,
}

const PRESENT: &str = "
SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname, 'kind', c.relkind)), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')";

/// Checks that every recorded relation is there and every counted table has exactly its recorded rows; returns
/// the rows of all of them.
pub(crate) async fn verify(
    postgres: &Postgres,
    database: &str,
    recorded: &DatabaseContents,
) -> Result<u64> {
    present(postgres, database, recorded).await?;
    count(postgres, database, recorded).await
}

/// Gathers the planner's statistics, which no dump of a server before version 18 has.
pub(crate) async fn analyze(postgres: &Postgres, database: &str) -> Result<()> {
    let script = "SET statement_timeout = 0; SET maintenance_work_mem = '256MB'; ANALYZE;";
    postgres.script(database, script, ExitCode::Restore).await?;
    Ok(())
}

async fn present(postgres: &Postgres, database: &str, recorded: &DatabaseContents) -> Result<()> {
    let found: BTreeSet<Present> = postgres.query(database, PRESENT, ExitCode::Restore).await?;
    let is_there = |schema: &str, name: &str, kinds: &[char]| {
        kinds.iter().any(|&kind| {
            found.contains(&Present {
                schema: schema.to_owned(),
                name: name.to_owned(),
                kind,
            })
        })
    };
    let tables = recorded
        .tables
        .iter()
        .filter(|table| !is_there(&table.schema, &table.name, &['r', 'p']))
        .map(|table| format!("table {}.{}", table.schema, table.name));
    let relations = recorded
        .relations
        .iter()
        .filter(|one| !is_there(&one.schema, &one.name, one.kind.relkinds()))
        .map(|one| format!("{:?} {}.{}", one.kind, one.schema, one.name));
    refuse(recorded, tables.chain(relations).collect(), "lacks")
}

async fn count(postgres: &Postgres, database: &str, recorded: &DatabaseContents) -> Result<u64> {
    let mut script = String::from(
        "SET statement_timeout = 0;\nSET row_security = off;\nSET search_path = pg_catalog;\n",
    );
    // Row security came with 9.5; a server before it knows no such setting.
    let version = postgres
        .script(database, "SHOW server_version_num", ExitCode::Restore)
        .await?;
    if version
        .trim()
        .parse()
        .is_ok_and(|version: u32| version < 90_500)
    {
        script = script.replace("SET row_security = off;\n", "");
    }
    for table in &recorded.tables {
        let (schema, name) = (identifier(&table.schema), identifier(&table.name));
        writeln!(script, "SELECT count(*) FROM ONLY {schema}.{name};").ok();
    }
    let output = postgres
        .script(database, &script, ExitCode::Restore)
        .await?;
    let counts: Vec<u64> = output
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    if counts.len() != recorded.tables.len() {
        let message = format!(
            "counting {} tables of {:?} gave {} answers",
            recorded.tables.len(),
            recorded.properties.name,
            counts.len()
        );
        return Err(Failure::new(ExitCode::Restore, message));
    }
    let different = recorded
        .tables
        .iter()
        .zip(&counts)
        .filter(|(table, count)| table.rows != **count)
        .map(|(table, count)| {
            let (schema, name, rows) = (&table.schema, &table.name, table.rows);
            format!("{schema}.{name}: {rows} rows expected, {count} found")
        });
    refuse(recorded, different.collect(), "differs from its backup:")?;
    Ok(counts.into_iter().fold(0, u64::saturating_add))
}

fn refuse(recorded: &DatabaseContents, problems: Vec<String>, verb: &str) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let named = problems[..problems.len().min(NAMED)].join("; ");
    let more = match problems.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let name = &recorded.properties.name;
    let message = format!("the restored database {name:?} {verb} {named}{more}");
    Err(Failure::new(ExitCode::Verification, message))
}
