//! Compares a restored database with what its backup recorded, before anything live is touched.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use futures_util::future::join_all;
use serde::Deserialize;
use shared::report::ExitCode;
use tokio::join;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::backup::contents::{DatabaseContents, TableRows};
use crate::postgres::{ADMIN_DATABASE, Postgres, identifier};

/// How many differences a message names.
const NAMED: usize = 3;
/// How many tables are counted by one session.
const TABLES_OF_A_SESSION: usize = 1_000;
/// How many rows of a table `ANALYZE` looks at, at the default statistics target: what it takes grows no further.
const SAMPLE: u64 = 30_000;
/// What a table's `ANALYZE` takes besides its rows, in rows.
const WORK_OF_ANY: u64 = 100;
/// What a catalog's rows are taken for.
const ROWS_OF_A_CATALOG: u64 = 1_000;

#[derive(Debug, Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Present {
    schema: String,
    name: String,
    kind: char,
    /// Whether it is a partition, which there is from version 10 on.
    part: bool,
}

const PRESENT: &str = "
SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
  'part', coalesce((row_to_json(c)->>'relispartition')::boolean, false))), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')";

/// Checks that every recorded relation is there and every counted table has exactly its recorded rows, and gathers the
/// planner's statistics meanwhile, by so many sessions; returns the rows of all tables.
pub(crate) async fn verify(
    postgres: &Postgres,
    database: &str,
    recorded: &DatabaseContents,
    server_version: u32,
    sessions: usize,
) -> Result<u64> {
    let found = present(postgres, database, recorded).await?;
    let scripts = analyses(&found, &recorded.tables, server_version, sessions);
    let (rows, analyzed, written) = join!(
        count(postgres, database, recorded),
        analyze(postgres, database, &scripts),
        write(postgres)
    );
    let rows = rows?;
    analyzed?;
    written?;
    Ok(rows)
}

/// Gathers the planner's statistics, which no dump of a server before version 18 has.
async fn analyze(postgres: &Postgres, database: &str, scripts: &[String]) -> Result<()> {
    let scripts = scripts
        .iter()
        .map(|script| postgres.script(database, script, ExitCode::Restore));
    for analyzed in join_all(scripts).await {
        analyzed?;
    }
    Ok(())
}

/// Deals out what an `ANALYZE` of the whole database would look at, one relation after the other in a single session.
///
/// By its name, a partitioned table is looked at together with all its parts, unless `ONLY` says otherwise, which it
/// cannot before version 18.
fn analyses(
    found: &BTreeSet<Present>,
    recorded: &[TableRows],
    server_version: u32,
    sessions: usize,
) -> Vec<String> {
    let rows: HashMap<(&str, &str), u64> = recorded
        .iter()
        .map(|table| ((table.schema.as_str(), table.name.as_str()), table.rows))
        .collect();
    let rows_looked_at = |one: &Present| {
        let rows = rows.get(&(one.schema.as_str(), one.name.as_str()));
        match rows {
            Some(rows) => (*rows).min(SAMPLE),
            None if one.schema == "pg_catalog" => ROWS_OF_A_CATALOG,
            None => SAMPLE,
        }
    };
    let alone = server_version >= 180_000;
    let only = if alone { "ONLY " } else { "" };
    let parts = found.iter().filter(|one| one.part);
    let rows_of_parts: u64 = parts.map(rows_looked_at).sum();
    let mut works: Vec<(u64, &Present)> = found
        .iter()
        .filter(|one| ['r', 'p', 'm'].contains(&one.kind) && (alone || !one.part))
        .map(|one| match one.kind {
            'p' if !alone => (SAMPLE + rows_of_parts, one),
            _ => (rows_looked_at(one), one),
        })
        .collect();
    works.sort_by_key(|(rows, _)| Reverse(*rows));
    let mut scripts = vec![(0, String::new()); sessions.max(1)];
    for (rows, Present { schema, name, .. }) in works {
        if let Some((work, script)) = scripts.iter_mut().min_by_key(|(work, _)| *work) {
            let (schema, name) = (identifier(schema), identifier(name));
            writeln!(script, "ANALYZE {only}{schema}.{name};").ok();
            *work += rows + WORK_OF_ANY;
        }
    }
    scripts.into_iter().map(|(_, script)| script).collect()
}

/// Has the server write everything to its disk. It would do so as well when the replaced database is dropped, with everybody
/// waiting; here it has the disk to itself, and a disk that cannot take the data is found before they are live.
async fn write(postgres: &Postgres) -> Result<()> {
    let script = "CHECKPOINT;\n";
    postgres
        .script(ADMIN_DATABASE, script, ExitCode::Restore)
        .await?;
    Ok(())
}

async fn present(
    postgres: &Postgres,
    database: &str,
    recorded: &DatabaseContents,
) -> Result<BTreeSet<Present>> {
    let found: BTreeSet<Present> = postgres.query(database, PRESENT, ExitCode::Restore).await?;
    let there: BTreeSet<(&str, &str, char)> = found
        .iter()
        .map(|one| (one.schema.as_str(), one.name.as_str(), one.kind))
        .collect();
    let is_there = |schema: &str, name: &str, kinds: &[char]| {
        let mut kinds = kinds.iter();
        kinds.any(|&kind| there.contains(&(schema, name, kind)))
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
    refuse(
        recorded,
        &tables.chain(relations).collect::<Vec<_>>(),
        "lacks",
    )?;
    Ok(found)
}

async fn count(postgres: &Postgres, database: &str, recorded: &DatabaseContents) -> Result<u64> {
    let mut counts = Vec::new();
    // The answers to one session's script fit into a pipe, so that psql never waits for its reader.
    for tables in recorded.tables.chunks(TABLES_OF_A_SESSION) {
        let mut script = String::new();
        for table in tables {
            let (schema, name) = (identifier(&table.schema), identifier(&table.name));
            writeln!(script, "SELECT count(*) FROM ONLY {schema}.{name};").ok();
        }
        let code = ExitCode::Restore;
        let output = postgres.script(database, &script, code).await?;
        let answers = output.lines().map(str::parse::<u64>);
        let answers: Vec<u64> = answers
            .collect::<std::result::Result<_, _>>()
            .or_fail(code, || "read the counts of the restored tables")?;
        if answers.len() != tables.len() {
            let message = format!(
                "counting {} tables of {:?} gave {} answers",
                tables.len(),
                recorded.properties.name,
                answers.len()
            );
            return Err(Failure::new(code, message));
        }
        counts.extend(answers);
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
    refuse(
        recorded,
        &different.collect::<Vec<_>>(),
        "differs from its backup:",
    )?;
    Ok(counts.into_iter().fold(0, u64::saturating_add))
}

fn refuse(recorded: &DatabaseContents, problems: &[String], verb: &str) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::contents::{Relation, RelationKind};
    use crate::postgres::database;
    use crate::testing::Cluster;

    #[test]
    fn each_relation_is_analyzed_once_and_the_work_is_shared() {
        let tables = [
            ("large", 'r', false),
            ("medium", 'r', false),
            ("root", 'p', false),
            ("branch", 'p', true),
            ("leaf", 'r', true),
            ("seen", 'v', false),
        ];
        let found = tables.map(|(name, kind, part)| Present {
            schema: "s".to_owned(),
            name: name.to_owned(),
            kind,
            part,
        });
        let rows = [("large", 90_000), ("medium", 20_000), ("leaf", 5)];
        let tables = rows.map(|(name, rows)| TableRows {
            schema: "s".to_owned(),
            name: name.to_owned(),
            rows,
        });
        let scripts = |version, sessions| {
            let scripts = analyses(&BTreeSet::from(found.clone()), &tables, version, sessions);
            scripts
                .iter()
                .map(|script| {
                    let lines = script
                        .lines()
                        .filter_map(|line| line.strip_prefix("ANALYZE "));
                    lines.collect::<Vec<_>>().join(" ")
                })
                .collect::<Vec<_>>()
        };
        // The root brings its branch and its leaf along.
        assert_eq!(
            scripts(150_000, 2),
            [r#""s"."root";"#, r#""s"."large"; "s"."medium";"#]
        );
        assert_eq!(
            scripts(180_000, 1),
            [
                r#"ONLY "s"."branch"; ONLY "s"."large"; ONLY "s"."root"; ONLY "s"."medium"; ONLY "s"."leaf";"#
            ]
        );
    }

    #[tokio::test]
    async fn a_lost_row_or_relation_is_named() {
        let cluster = Cluster::start();
        let postgres = cluster.postgres();
        let script = "CREATE TABLE \"T \"\"x\" AS SELECT generate_series(1, 3); CREATE TABLE child () INHERITS (\"T \"\"x\");
            INSERT INTO child VALUES (4); CREATE VIEW seen AS SELECT 1; CREATE MATERIALIZED VIEW kept AS SELECT 1;
            CREATE TABLE whole (n int) PARTITION BY RANGE (n); CREATE TABLE part PARTITION OF whole DEFAULT;";
        cluster.sql("postgres", script).await;
        let mut listed = database::list(&postgres, &cluster.settings).await.unwrap();
        let rows = |name: &str, rows| TableRows {
            schema: "public".to_owned(),
            name: name.to_owned(),
            rows,
        };
        let mut recorded = DatabaseContents {
            properties: listed.remove(0),
            tables: vec![rows("T \"x", 3), rows("child", 1)],
            relations: vec![Relation {
                schema: "public".to_owned(),
                name: "seen".to_owned(),
                kind: RelationKind::View,
            }],
        };
        let counted = verify(&postgres, "postgres", &recorded, 150_000, 2)
            .await
            .unwrap();
        assert_eq!(counted, 4);
        // A relation that was never looked at has -1.
        let without = "SELECT string_agg(relname, ', ') FROM pg_class
            WHERE relkind IN ('r', 'p', 'm') AND reltuples < 0";
        assert_eq!(cluster.sql("postgres", without).await, "");

        recorded.tables[0].rows = 5;
        let failure = verify(&postgres, "postgres", &recorded, 150_000, 2)
            .await
            .unwrap_err();
        assert_eq!(failure.code, ExitCode::Verification);
        assert_eq!(
            failure.chain(),
            "the restored database \"postgres\" differs from its backup: public.T \"x: 5 rows expected, 3 found"
        );

        recorded.relations[0].name = "unseen".to_owned();
        let failure = verify(&postgres, "postgres", &recorded, 150_000, 2)
            .await
            .unwrap_err();
        assert_eq!(
            failure.chain(),
            "the restored database \"postgres\" lacks View public.unseen"
        );
    }
}
