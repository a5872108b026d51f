//! Compares a restored database with the recorded contents of its backup before the swap.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use futures_util::future::join_all;
use serde::Deserialize;
use shared::exit_code::ExitCode;
use tokio::join;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::objects::contents::DatabaseContents;
use crate::postgres::archive::Entry;
use crate::postgres::quote::identifier;
use crate::postgres::relation::{Relation, TableRows};
use crate::postgres::{ADMIN_DATABASE, Postgres};

/// The number of differences in a message.
const LISTED: usize = 3;
/// The number of tables that one session counts.
const TABLES_PER_SESSION: usize = 1_000;
/// The number of rows that `ANALYZE` reads of a table at the default statistics target. A larger table takes no longer.
const SAMPLE: u64 = 30_000;
/// The fixed cost of `ANALYZE` for a table, in rows.
const FIXED_COST: u64 = 100;
/// The assumed rows of a catalog.
const CATALOG_ROWS: u64 = 1_000;

/// A relation in the restored database.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    schema: String,
    name: String,
    kind: char,
    /// Whether a foreign table is below it, as a partition or a child.
    foreign_below: bool,
    /// Whether `ANALYZE` of a partitioned table above it includes it and does not read a foreign table.
    analyzed_above: bool,
}

const FOUND: &str = "
WITH RECURSIVE above AS (
  SELECT inhrelid AS relation, inhparent AS ancestor FROM pg_inherits
  UNION SELECT above.relation, i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.ancestor),
foreign_below AS (
  SELECT DISTINCT ancestor FROM above JOIN pg_class f ON f.oid = above.relation WHERE f.relkind = 'f'),
analyzed_above AS (
  SELECT DISTINCT relation FROM above JOIN pg_class p ON p.oid = above.ancestor
  WHERE p.relkind = 'p' AND p.oid NOT IN (SELECT ancestor FROM foreign_below))
SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
  'foreign_below', c.oid IN (SELECT ancestor FROM foreign_below),
  'analyzed_above', c.oid IN (SELECT relation FROM analyzed_above))), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')";

/// Checks that every recorded relation exists and every recorded table has exactly its recorded rows. Views and foreign
/// tables that the server refused may be missing. Returns the rows of all tables. Meanwhile runs `ANALYZE` in this number of
/// sessions.
pub(crate) async fn verify(
    postgres: &Postgres,
    database: &str,
    recorded: &DatabaseContents,
    refused: &[Entry],
    server_version: u32,
    sessions: usize,
) -> Result<u64> {
    let found = check_relations(postgres, database, recorded, refused).await?;
    let scripts = analyze_scripts(&found, &recorded.tables, server_version, sessions);
    let (rows, analyzed, checkpointed) = join!(
        check_rows(postgres, database, recorded),
        analyze(postgres, database, &scripts),
        checkpoint(postgres)
    );
    let rows = rows?;
    analyzed?;
    checkpointed?;
    Ok(rows)
}

/// Updates the planner's statistics. Dumps contain them only from version 18 on.
///
/// Statistics are no data: if the server cannot update those of a relation, the relation keeps none, as after
/// `pg_restore`. For example, the expression of an index or of extended statistics can fail.
async fn analyze(postgres: &Postgres, database: &str, scripts: &[String]) -> Result<()> {
    let scripts = scripts
        .iter()
        .map(|script| postgres.try_each(database, script, ExitCode::Restore));
    for analyzed in join_all(scripts).await {
        analyzed?;
    }
    Ok(())
}

/// Returns one script for each session. Together they analyze the same relations as one `ANALYZE` of the whole
/// database, which would take one after the other in a single session.
///
/// `ANALYZE` of a table includes all tables below it, except with `ONLY`, which exists from version 18 on. Before, a table
/// with a foreign table below it is left to autovacuum: its server can be away, or take for ever to respond.
fn analyze_scripts(
    found: &BTreeSet<Found>,
    recorded: &[TableRows],
    server_version: u32,
    sessions: usize,
) -> Vec<String> {
    let rows: HashMap<(&str, &str), u64> = recorded
        .iter()
        .map(|table| ((table.schema.as_str(), table.name.as_str()), table.rows))
        .collect();
    let rows_read = |one: &Found| {
        let rows = rows.get(&(one.schema.as_str(), one.name.as_str()));
        match rows {
            Some(rows) => (*rows).min(SAMPLE),
            None if one.schema == "pg_catalog" => CATALOG_ROWS,
            None => SAMPLE,
        }
    };
    let has_only = server_version >= 180_000;
    let only = if has_only { "ONLY " } else { "" };
    let partitions = found.iter().filter(|one| one.analyzed_above);
    let rows_of_partitions: u64 = partitions.map(rows_read).sum();
    let mut relations: Vec<(u64, &Found)> = found
        .iter()
        .filter(|one| ['r', 'p', 'm'].contains(&one.kind))
        .filter(|one| has_only || !(one.foreign_below || one.analyzed_above))
        .map(|one| match one.kind {
            'p' if !has_only => (SAMPLE + rows_of_partitions, one),
            _ => (rows_read(one), one),
        })
        .collect();
    relations.sort_by_key(|(rows, _)| Reverse(*rows));
    let mut scripts = vec![(0, String::new()); sessions.max(1)];
    for (rows, Found { schema, name, .. }) in relations {
        if let Some((cost, script)) = scripts.iter_mut().min_by_key(|(cost, _)| *cost) {
            let (schema, name) = (identifier(schema), identifier(name));
            writeln!(script, "ANALYZE {only}{schema}.{name};").ok();
            *cost += rows + FIXED_COST;
        }
    }
    scripts.into_iter().map(|(_, script)| script).collect()
}

/// Makes the server write all data to its disk. Otherwise it would do so when the replaced database is dropped, while
/// clients wait. Here no client waits, and a disk that cannot store the data is detected before the swap.
async fn checkpoint(postgres: &Postgres) -> Result<()> {
    let script = "CHECKPOINT;\n";
    postgres
        .script(ADMIN_DATABASE, script, ExitCode::Restore)
        .await?;
    Ok(())
}

/// Checks that every recorded relation exists. Returns all relations of the database.
async fn check_relations(
    postgres: &Postgres,
    database: &str,
    recorded: &DatabaseContents,
    refused: &[Entry],
) -> Result<BTreeSet<Found>> {
    let found: BTreeSet<Found> = postgres.query(database, FOUND, ExitCode::Restore).await?;
    let names: BTreeSet<(&str, &str, char)> = found
        .iter()
        .map(|one| (one.schema.as_str(), one.name.as_str(), one.kind))
        .collect();
    let exists = |schema: &str, name: &str, kinds: &[char]| {
        let mut kinds = kinds.iter();
        kinds.any(|&kind| names.contains(&(schema, name, kind)))
    };
    let tables = recorded
        .tables
        .iter()
        .filter(|table| !exists(&table.schema, &table.name, &['r', 'p']))
        .map(|table| format!("table {}.{}", table.schema, table.name));
    let is_refused = |one: &Relation| {
        let schema = Some(&one.schema);
        let mut refused = refused.iter();
        refused.any(|it| {
            it.kind == one.kind.in_dump() && it.schema.as_ref() == schema && it.tag == one.name
        })
    };
    let relations = recorded
        .relations
        .iter()
        .filter(|one| !exists(&one.schema, &one.name, one.kind.relkinds()))
        .filter(|one| one.kind.has_data() || !is_refused(one))
        .map(|one| format!("{:?} {}.{}", one.kind, one.schema, one.name));
    check_none(
        recorded,
        "does not have",
        &tables.chain(relations).collect::<Vec<_>>(),
    )?;
    Ok(found)
}

/// Checks that every table has its recorded rows. Returns the rows of all tables.
async fn check_rows(
    postgres: &Postgres,
    database: &str,
    recorded: &DatabaseContents,
) -> Result<u64> {
    let mut counts = Vec::new();
    // The output of one session fits into a pipe, so that psql never waits for its reader.
    for tables in recorded.tables.chunks(TABLES_PER_SESSION) {
        let mut script = String::new();
        for table in tables {
            let (schema, name) = (identifier(&table.schema), identifier(&table.name));
            writeln!(script, "SELECT count(*) FROM ONLY {schema}.{name};").ok();
        }
        let code = ExitCode::Restore;
        let output = postgres.script(database, &script, code).await?;
        let rows = output.lines().map(str::parse::<u64>);
        let rows: Vec<u64> = rows.collect::<std::result::Result<_, _>>().or_fail(
            code,
            || "cannot parse the numbers of rows in the restored tables",
        )?;
        if rows.len() != tables.len() {
            let message = format!(
                "cannot count the rows of {} tables in the restored database {:?}: psql returned {} numbers",
                tables.len(),
                recorded.properties.name,
                rows.len()
            );
            return Err(Failure::new(code, message));
        }
        counts.extend(rows);
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
    check_none(
        recorded,
        "differs from its backup:",
        &different.collect::<Vec<_>>(),
    )?;
    Ok(counts.into_iter().fold(0, u64::saturating_add))
}

/// Fails with a message that lists the first problems, if there are any.
fn check_none(recorded: &DatabaseContents, verb: &str, problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let listed = problems[..problems.len().min(LISTED)].join("; ");
    let more = match problems.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let name = &recorded.properties.name;
    let message = format!("the restored database {name:?} {verb} {listed}{more}");
    Err(Failure::new(ExitCode::Restore, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::database::list::list;
    use crate::postgres::relation::RelationKind;
    use crate::testing::Cluster;

    #[test]
    fn each_relation_is_analyzed_once_and_sessions_share_the_work() {
        let tables = [
            ("large", 'r', false),
            ("medium", 'r', false),
            ("root", 'p', false),
            ("branch", 'p', true),
            ("leaf", 'r', true),
            ("seen", 'v', false),
        ];
        let found = tables.map(|(name, kind, analyzed_above)| Found {
            schema: "s".to_owned(),
            name: name.to_owned(),
            kind,
            foreign_below: false,
            analyzed_above,
        });
        let rows = [("large", 90_000), ("medium", 20_000), ("leaf", 5)];
        let tables = rows.map(|(name, rows)| TableRows {
            schema: "s".to_owned(),
            name: name.to_owned(),
            rows,
        });
        let scripts = |version, sessions| {
            let scripts =
                analyze_scripts(&BTreeSet::from(found.clone()), &tables, version, sessions);
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
        // Analyzing the root includes its branch and its leaf.
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
    async fn statistics_that_the_server_cannot_update_are_left_out() {
        let cluster = Cluster::start();
        let script = "CREATE EXTENSION postgres_fdw;
            CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '9');
            CREATE USER MAPPING FOR PUBLIC SERVER away;
            CREATE TABLE whole (n int) PARTITION BY RANGE (n);
            CREATE TABLE near PARTITION OF whole FOR VALUES FROM (0) TO (10);
            CREATE FOREIGN TABLE far PARTITION OF whole FOR VALUES FROM (10) TO (20) SERVER away;
            CREATE TABLE parent (n int); CREATE FOREIGN TABLE child () INHERITS (parent) SERVER away;
            CREATE FUNCTION bare(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT bare2(t)';
            CREATE FUNCTION bare2(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower(t); END';
            CREATE TABLE words (t text); INSERT INTO words SELECT 'word ' || i FROM generate_series(1, 500) i;
            CREATE STATISTICS of_words ON (bare(t)) FROM words;
            CREATE TABLE zebra AS SELECT 1 AS n;";
        let script = format!("SET check_function_bodies = off; {script}");
        cluster.sql("postgres", &script).await;
        let postgres = cluster.postgres();
        let found: BTreeSet<Found> = postgres
            .query("postgres", FOUND, ExitCode::Restore)
            .await
            .unwrap();
        let scripts = analyze_scripts(&found, &[], 150_000, 1);
        analyze(&postgres, "postgres", &scripts).await.unwrap();
        let analyzed = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND reltuples >= 0";
        // The server away is never asked, and a failure does not end the session.
        assert_eq!(cluster.sql("postgres", analyzed).await, "near zebra");
        assert!(!scripts[0].contains("whole"), "{scripts:?}");
    }

    #[tokio::test]
    async fn the_message_contains_the_lost_row_or_relation() {
        let cluster = Cluster::start();
        let postgres = cluster.postgres();
        let script = "CREATE TABLE \"T \"\"x\" AS SELECT generate_series(1, 3); CREATE TABLE child () INHERITS (\"T \"\"x\");
            INSERT INTO child VALUES (4); CREATE VIEW seen AS SELECT 1; CREATE MATERIALIZED VIEW kept AS SELECT 1;
            CREATE TABLE whole (n int) PARTITION BY RANGE (n); CREATE TABLE part PARTITION OF whole DEFAULT;";
        cluster.sql("postgres", script).await;
        let mut listed = list(&postgres, &cluster.settings).await.unwrap().wanted;
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
        let counted = verify(&postgres, "postgres", &recorded, &[], 150_000, 2)
            .await
            .unwrap();
        assert_eq!(counted, 4);
        // A relation that was never analyzed has -1.
        let not_analyzed = "SELECT string_agg(relname, ', ') FROM pg_class
            WHERE relkind IN ('r', 'p', 'm') AND reltuples < 0";
        assert_eq!(cluster.sql("postgres", not_analyzed).await, "");

        recorded.tables[0].rows = 5;
        let failure = verify(&postgres, "postgres", &recorded, &[], 150_000, 2)
            .await
            .unwrap_err();
        assert_eq!(failure.code, ExitCode::Restore);
        assert_eq!(
            failure.chain(),
            "the restored database \"postgres\" differs from its backup: public.T \"x: 5 rows expected, 3 found"
        );

        recorded.relations[0].name = "unseen".to_owned();
        let failure = verify(&postgres, "postgres", &recorded, &[], 150_000, 2)
            .await
            .unwrap_err();
        assert_eq!(
            failure.chain(),
            "the restored database \"postgres\" does not have View public.unseen"
        );
    }
}
