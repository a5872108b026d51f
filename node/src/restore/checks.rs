//! The checks of tables and domains that refuse rows of the backup. They are dropped before the rows are loaded, and
//! added again when all rows are there.
//!
//! A check can call a function that reads another table, or that depends on a setting. The rows satisfied it when they
//! were written. During a restore, the other table is still empty.

use serde::Deserialize;
use shared::exit_code::ExitCode;
use shared::report::exceptions::Exception;

use crate::agent::failure::Result;
use crate::postgres::Postgres;
use crate::postgres::attempt::{self, Refusal};
use crate::postgres::quote::literal;

/// Schema and name of a table.
pub(super) type TableName = (String, String);

/// A check, with the statements about it.
#[derive(Debug, Deserialize)]
struct Check {
    object: String,
    drop: String,
    add: String,
    validate: String,
    comment: String,
}

/// Checks that were dropped.
#[derive(Debug)]
pub(super) struct DroppedChecks(Vec<Check>);

/// The checks that apply to rows of these tables: their own, those of their parents, and those of the domains of their
/// columns. Domains within arrays and composite types are not among them. A child's inherited check is dropped and added
/// with the parent's.
const CHECKS: &str = "
WITH RECURSIVE tables AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE (n.nspname, c.relname) IN (VALUES {tables})
  UNION SELECT i.inhparent FROM tables JOIN pg_inherits i ON i.inhrelid = tables.oid),
domains AS (
  SELECT atttypid AS oid FROM pg_attribute
  WHERE attrelid IN (SELECT oid FROM tables) AND attnum > 0 AND NOT attisdropped
  UNION SELECT t.typbasetype FROM domains JOIN pg_type t ON t.oid = domains.oid WHERE t.typtype = 'd'),
checks AS (
  SELECT oid, conname, 'TABLE ' || conrelid::regclass AS owner, conrelid::regclass::text AS place
  FROM pg_constraint WHERE contype = 'c' AND coninhcount = 0 AND conrelid IN (SELECT oid FROM tables)
  UNION ALL
  SELECT oid, conname, 'DOMAIN ' || contypid::regtype, 'DOMAIN ' || contypid::regtype
  FROM pg_constraint WHERE contype = 'c' AND contypid IN (SELECT oid FROM domains))
SELECT coalesce(json_agg(json_build_object(
  'object', format('%s %s', owner, conname),
  'drop', format('ALTER %s DROP CONSTRAINT %I;', owner, conname),
  'add', format('ALTER %s ADD CONSTRAINT %I %s', owner, conname, pg_get_constraintdef(oid)),
  'validate', format('ALTER %s VALIDATE CONSTRAINT %I;', owner, conname),
  'comment', format('COMMENT ON CONSTRAINT %I ON %s IS %L;', conname, place, obj_description(oid, 'pg_constraint')))
  ORDER BY oid), '[]') FROM checks";

impl DroppedChecks {
    /// Drops the checks that apply to rows of these tables.
    pub(super) async fn drop(
        postgres: &Postgres,
        database: &str,
        tables: &[TableName],
    ) -> Result<Self> {
        let names = tables
            .iter()
            .map(|(schema, name)| format!("({}::name, {}::name)", literal(schema), literal(name)));
        let query = CHECKS.replace("{tables}", &names.collect::<Vec<_>>().join(", "));
        let code = ExitCode::Restore;
        let mut dropped = Vec::new();
        loop {
            let checks: Vec<Check> = postgres.query(database, &query, code).await?;
            if checks.is_empty() {
                return Ok(Self(dropped));
            }
            let statements: Vec<&str> = checks.iter().map(|check| check.drop.as_str()).collect();
            let script = statements.join("\n");
            postgres.script(database, &script, code).await?;
            // A child can have its parent's check as its own, too. It is added first, and the parent's finds it.
            dropped.splice(0..0, checks);
        }
    }

    /// Adds the checks again, with `NOT VALID` if the rows still violate them. `options` are those of the sessions of a
    /// restore, and `own_name` is the database's name after the swap. Returns the exceptions.
    pub(super) async fn add_again(
        self,
        postgres: &Postgres,
        database: &str,
        options: &str,
        own_name: &str,
    ) -> Result<Vec<Exception>> {
        let checks = self.0.iter();
        let statements = checks.map(|check| format!("{};\n{}", check.add, check.comment));
        let refusals =
            attempt::try_each(postgres, database, Some(options), statements.collect()).await?;
        let refused = self.0.into_iter().zip(refusals);
        let refused: Vec<(Check, Refusal)> = refused
            .filter_map(|(check, refusal)| Some((check, refusal?)))
            .collect();
        let milder = refused
            .iter()
            .map(|(check, _)| format!("{} NOT VALID;\n{}", check.add, check.comment));
        let milder = attempt::try_each(postgres, database, Some(options), milder.collect()).await?;
        let exceptions = refused
            .into_iter()
            .zip(milder)
            .map(|((check, first), second)| {
                let refusal = second.as_ref().unwrap_or(&first);
                refusal.exception(Exception {
                    database: Some(own_name.to_owned()),
                    kind: "CHECK CONSTRAINT".to_owned(),
                    object: check.object,
                    error: first.text(),
                    details: first.details(),
                    remedy: match second {
                        None => check.validate,
                        Some(_) => format!("{};", check.add),
                    },
                })
            });
        exceptions.collect()
    }
}
