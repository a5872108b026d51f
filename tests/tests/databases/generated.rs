//! Random databases, each with some of the things that break a restore, are restored as the server's own tools restore
//! them, or better. Whatever differs from the source is among the exceptions.
//!
//! `DATABASES_SEED` selects other databases, and `DATABASES` their number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Stdio;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rekindle_tests::nodes::postgres::{self, Cluster};
use tokio::process::Command;

use super::Scenario;

/// The number of databases unless `DATABASES` is set.
const DATABASES: usize = 16;

/// Roles of all databases. `former` is a superuser until all databases are filled.
const ROLES: &str =
    "CREATE ROLE owner1; CREATE ROLE reader; CREATE ROLE former SUPERUSER; CREATE ROLE clerk LOGIN;
    GRANT reader TO clerk WITH ADMIN OPTION; ALTER ROLE clerk SET work_mem = '5MB';
    ALTER ROLE ALL SET lc_monetary = 'C'; ALTER ROLE ALL SET intervalstyle = 'iso_8601';";

/// Parts of a database. They are independent of each other, and can be in any order.
const PARTS: [&str; 30] = [
    // A foreign key that a row violates, and one in order.
    "CREATE TABLE o_users (id int PRIMARY KEY); CREATE TABLE o_notes (id int REFERENCES o_users ON DELETE CASCADE);
     INSERT INTO o_users SELECT generate_series(1, 9); INSERT INTO o_notes SELECT generate_series(1, 9);
     SET session_replication_role = replica; DELETE FROM o_users WHERE id = 7; RESET session_replication_role;",
    "CREATE TABLE k_users (id int PRIMARY KEY); CREATE TABLE k_notes (id int CONSTRAINT k REFERENCES k_users DEFERRABLE INITIALLY DEFERRED);
     INSERT INTO k_users SELECT generate_series(1, 9); INSERT INTO k_notes TABLE k_users; COMMENT ON CONSTRAINT k ON k_notes IS 'kept';",
    // Functions that name others without their schema.
    "CREATE EXTENSION IF NOT EXISTS unaccent; CREATE FUNCTION i_slug(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
     'BEGIN RETURN lower(unaccent(t)); END'; CREATE TABLE i_words (t text); INSERT INTO i_words VALUES ('Ä'), ('é');
     CREATE INDEX i_slugs ON i_words (i_slug(t)); CREATE INDEX i_plain ON i_words (t);",
    "CREATE EXTENSION IF NOT EXISTS unaccent; CREATE FUNCTION g_slug(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
     'BEGIN RETURN lower(unaccent(t)); END'; CREATE TABLE g_words (t text, s text GENERATED ALWAYS AS (g_slug(t)) STORED);
     INSERT INTO g_words VALUES ('Ä'), ('é');",
    "CREATE TABLE m_rows (n int); INSERT INTO m_rows SELECT generate_series(1, 9); CREATE FUNCTION m_count() RETURNS bigint
     LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM m_rows); END'; CREATE MATERIALIZED VIEW m_view AS SELECT m_count() AS n;
     CREATE MATERIALIZED VIEW m_above AS SELECT n + 1 AS n FROM m_view; CREATE UNIQUE INDEX ON m_above (n);",
    // Checks that read another table: one holds, one does not.
    "CREATE TABLE zc_known (id int); INSERT INTO zc_known VALUES (1), (2);
     CREATE FUNCTION c_known(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM zc_known WHERE id = $1)';
     CREATE TABLE c_rows (id int CHECK (c_known(id))); INSERT INTO c_rows VALUES (1), (2);
     CREATE TABLE c_gone (id int CONSTRAINT gone CHECK (c_known(id))); INSERT INTO c_gone VALUES (2); DELETE FROM zc_known WHERE id = 2;
     DELETE FROM c_rows WHERE id = 2;",
    "CREATE FUNCTION d_even(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN $1 % 2 = 0; END'; CREATE DOMAIN d_even_int AS int CHECK (d_even(VALUE));
     CREATE TABLE d_rows (n d_even_int); INSERT INTO d_rows VALUES (2), (4);",
    // Rows that a unique index would refuse.
    "CREATE TABLE u_rows (n int); INSERT INTO u_rows VALUES (1), (2); CREATE UNIQUE INDEX u_once ON u_rows (n);
     UPDATE pg_index SET indisunique = false, indisready = false WHERE indexrelid = 'u_once'::regclass; INSERT INTO u_rows VALUES (2);
     UPDATE pg_index SET indisunique = true, indisready = true WHERE indexrelid = 'u_once'::regclass;",
    // Triggers and event triggers.
    "CREATE TABLE e_log (tag text); CREATE FUNCTION e_write() RETURNS event_trigger LANGUAGE plpgsql AS
     $$ BEGIN INSERT INTO public.e_log VALUES (tg_tag); END $$; CREATE EVENT TRIGGER e_all ON ddl_command_end EXECUTE FUNCTION e_write();",
    "CREATE TABLE b_log (tag text); CREATE FUNCTION b_write() RETURNS event_trigger LANGUAGE plpgsql AS
     $$ BEGIN INSERT INTO b_log VALUES (tg_tag); END $$; CREATE EVENT TRIGGER b_all ON ddl_command_start EXECUTE FUNCTION b_write();",
    "CREATE FUNCTION n_tell() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END'; SET ROLE former;
     CREATE EVENT TRIGGER n_all ON sql_drop EXECUTE FUNCTION n_tell(); ALTER EVENT TRIGGER n_all DISABLE; RESET ROLE;",
    "CREATE TABLE t_rows (n int); CREATE FUNCTION t_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
     INSERT INTO t_rows VALUES (1); CREATE TRIGGER t_no BEFORE INSERT ON t_rows FOR EACH ROW EXECUTE FUNCTION t_refuse();
     CREATE TABLE t_off (n int); CREATE TRIGGER t_off BEFORE INSERT ON t_off FOR EACH ROW EXECUTE FUNCTION t_refuse(); ALTER TABLE t_off DISABLE TRIGGER t_off;",
    // Owners, rights and labels.
    "CREATE SCHEMA s AUTHORIZATION owner1; CREATE TABLE s.t (n int); ALTER TABLE s.t OWNER TO owner1; GRANT SELECT ON s.t TO reader WITH GRANT OPTION;
     GRANT USAGE ON SCHEMA s TO reader; CREATE VIEW s.v AS SELECT n FROM s.t; ALTER VIEW s.v OWNER TO clerk; COMMENT ON VIEW s.v IS 'it''s';",
    "CREATE TABLE p_rows (n int, who name); ALTER TABLE p_rows ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
     INSERT INTO p_rows VALUES (1, 'clerk'); CREATE POLICY p_own ON p_rows TO clerk USING (who = current_user);",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader; CREATE TABLE a_read (n int);",
    "CREATE PUBLICATION pub_all FOR ALL TABLES; ALTER PUBLICATION pub_all OWNER TO former; CREATE PUBLICATION pub_none WITH (publish = 'insert');",
    // Foreign tables over a server that is away.
    "CREATE EXTENSION IF NOT EXISTS postgres_fdw; CREATE SERVER f_away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '9');
     CREATE USER MAPPING FOR PUBLIC SERVER f_away OPTIONS (user 'x', password 'marker'); CREATE FOREIGN TABLE f_rows (n int) SERVER f_away;
     CREATE MATERIALIZED VIEW f_view AS SELECT n FROM f_rows WITH NO DATA; UPDATE pg_class SET relispopulated = true WHERE relname = 'f_view';",
    "CREATE EXTENSION IF NOT EXISTS postgres_fdw; CREATE SERVER h_away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '9');
     CREATE USER MAPPING FOR PUBLIC SERVER h_away; CREATE TABLE h_all (n int) PARTITION BY RANGE (n);
     CREATE TABLE h_near PARTITION OF h_all FOR VALUES FROM (0) TO (10); INSERT INTO h_all VALUES (5);
     CREATE FOREIGN TABLE h_far PARTITION OF h_all FOR VALUES FROM (10) TO (20) SERVER h_away;",
    // Settings of the database, and data that depend on them.
    "ALTER DATABASE current SET timezone = 'Pacific/Auckland'; CREATE TABLE w_visits (at timestamptz, day date, CHECK (at::date = day));
     SET timezone = 'Pacific/Auckland'; INSERT INTO w_visits VALUES ('2026-05-01 01:00+12', '2026-05-01');
     CREATE MATERIALIZED VIEW w_days AS SELECT at::text FROM w_visits; RESET timezone;",
    "ALTER DATABASE current SET search_path = app, public; CREATE SCHEMA app; CREATE TABLE app.y (n int); INSERT INTO app.y VALUES (3);",
    "ALTER ROLE clerk IN DATABASE current SET statement_timeout = '7s'; ALTER DATABASE current SET statement_timeout = '1s';",
    "ALTER DATABASE current SET default_transaction_read_only = on;",
    "ALTER DATABASE current SET default_transaction_isolation = serializable; ALTER DATABASE current SET row_security = off;",
    // Other objects.
    "CREATE TYPE x_colour AS ENUM ('red', 'blue'); CREATE TABLE x_rows (c x_colour, r int4range, j jsonb); INSERT INTO x_rows VALUES ('red', '[1,3)', '{\"a\": 1}');
     CREATE INDEX ON x_rows USING gin (j); CREATE INDEX ON x_rows USING gist (r); CREATE STATISTICS x_stats ON c, r FROM x_rows;",
    "CREATE SEQUENCE q_alone START 7; SELECT nextval('q_alone'); CREATE TABLE q_rows (id int GENERATED ALWAYS AS IDENTITY, s serial); INSERT INTO q_rows DEFAULT VALUES;",
    "SELECT lo_from_bytea(0, 'large'::bytea); CREATE TABLE l_rows (o oid); INSERT INTO l_rows SELECT oid FROM pg_largeobject_metadata;",
    "CREATE TABLE r_rows (n int); CREATE VIEW r_view AS SELECT n FROM r_rows; CREATE RULE r_insert AS ON INSERT TO r_view DO INSTEAD INSERT INTO r_rows VALUES (NEW.n);
     INSERT INTO r_view VALUES (4);",
    "CREATE TABLE v_parent (n int CHECK (n > 0)); CREATE TABLE v_child (m int) INHERITS (v_parent); INSERT INTO v_child VALUES (1, 2); INSERT INTO v_parent VALUES (9);",
    "CREATE FUNCTION st_bare(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN st_inner(t); END'; CREATE FUNCTION st_inner(t text) RETURNS text
     LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; CREATE TABLE st_rows (t text); INSERT INTO st_rows VALUES ('A'); CREATE STATISTICS st_all ON (st_bare(t)) FROM st_rows;",
    "CREATE AGGREGATE z_sum(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0'); ALTER AGGREGATE z_sum(int) OWNER TO owner1; CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
     CREATE COLLATION z_c (LOCALE = 'C'); CREATE TEXT SEARCH CONFIGURATION z_config (COPY = simple);",
];

/// A part of a dump with its comment: type, schema and name of an object.
type Object = (String, String, String);

/// Returns the objects of a dump, each with its statements.
fn objects(dump: &str) -> BTreeMap<Object, BTreeSet<String>> {
    let mut objects: BTreeMap<Object, BTreeSet<String>> = BTreeMap::new();
    for block in dump.split("\n--\n-- ").skip(1) {
        let Some((comment, statements)) = block.split_once("\n--\n") else {
            continue;
        };
        let comment = comment.trim_start_matches("Data for ");
        let Some((name, rest)) = comment
            .strip_prefix("Name: ")
            .and_then(|comment| comment.rsplit_once("; Type: "))
        else {
            continue;
        };
        let (kind, rest) = rest.split_once("; Schema: ").unwrap();
        let (schema, owner) = rest.split_once("; Owner: ").unwrap();
        let object = (kind.to_owned(), schema.to_owned(), name.to_owned());
        let text = objects.entry(object).or_default();
        text.insert(format!("owner {owner}"));
        // The settings of the session before the next object are not part of this one.
        let lines = statements
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("SET default_"));
        text.insert(lines.collect::<Vec<_>>().join("\n"));
    }
    objects
}

fn client(port: u16, program: &str) -> Command {
    let mut command = Command::new(postgres::bin_directory().unwrap().join(program));
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", "postgres")
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::null());
    command
}

async fn output(mut command: Command) -> Vec<u8> {
    let output = command.output().await.unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    output.stdout
}

/// Returns the objects of a database, and the rows of its materialized views, which no dump contains.
async fn dumped(cluster: &Cluster, database: &str) -> BTreeMap<Object, BTreeSet<String>> {
    let mut pg_dump = client(cluster.port(), "pg_dump");
    pg_dump.args(["-d", database]);
    let mut objects = objects(&String::from_utf8(output(pg_dump).await).unwrap());
    let session = cluster.connect(database).await.unwrap();
    let views = "SELECT relname::text, oid::regclass::text FROM pg_class WHERE relkind = 'm' AND relispopulated";
    for view in session.query(views, &[]).await.unwrap() {
        let (name, view): (String, String) = (view.get(0), view.get(1));
        let rows =
            format!("SELECT coalesce(string_agg(v::text, ' ' ORDER BY v::text), '') FROM {view} v");
        let rows: String = session.query_one(&rows, &[]).await.unwrap().get(0);
        let object = (
            "MATERIALIZED VIEW DATA".to_owned(),
            "public".to_owned(),
            name,
        );
        objects
            .entry(object)
            .or_default()
            .insert(format!("rows {rows}"));
    }
    objects
}

/// Restores the databases of a server with `pg_dumpall`, `pg_dump -Fc` and `pg_restore -C` into a new cluster. Errors are
/// ignored.
async fn restored_by_stock(source: u16, databases: &[String], scenario: &Scenario) -> Cluster {
    let directory = scenario.protected.standin.directory().join("stock");
    let stock = Cluster::create(&directory).await.unwrap();
    stock.start().await.unwrap();
    let file = directory.join("dump");
    let mut pg_dumpall = client(source, "pg_dumpall");
    pg_dumpall.arg("--globals-only");
    std::fs::write(&file, output(pg_dumpall).await).unwrap();
    let mut psql = client(stock.port(), "psql");
    psql.args(["-X", "-q", "-d", "postgres"]);
    psql.stdin(std::fs::File::open(&file).unwrap());
    psql.output().await.unwrap();
    for database in databases {
        let mut pg_dump = client(source, "pg_dump");
        pg_dump.args(["-Fc", "-d", database]);
        std::fs::write(&file, output(pg_dump).await).unwrap();
        let mut pg_restore = client(stock.port(), "pg_restore");
        pg_restore.args(["-C", "-d", "postgres"]).arg(&file);
        pg_restore.output().await.unwrap();
    }
    stock
}

/// Returns a number from the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "a long run of this test selects other databases"
)]
fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Returns the scripts of random databases.
fn scripts() -> Vec<String> {
    let seed = number("DATABASES_SEED", 1).to_le_bytes();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.repeat(4));
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let parts = prop::sample::subsequence(&PARTS[..], 4..9).prop_shuffle();
    let scripts = (0..number("DATABASES", DATABASES))
        .map(|_| parts.new_tree(&mut runner).unwrap().current().join("\n"));
    scripts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn random_databases_are_restored_as_by_the_servers_own_tools_or_better() {
    let mut scenario = Scenario::start(|_| {}).await;
    let scripts = scripts();
    let databases: Vec<String> = (0..scripts.len())
        .map(|number| format!("db{number}"))
        .collect();
    let mut script = ROLES.to_owned();
    for (database, parts) in databases.iter().zip(&scripts) {
        let parts = parts.replace("DATABASE current", &format!("DATABASE {database}"));
        writeln!(
            script,
            "\nCREATE DATABASE {database};\n\\connect {database}\n{parts}"
        )
        .unwrap();
    }
    script += "ALTER ROLE former NOSUPERUSER;";
    scenario.run(&script).await;
    let mut sources = Vec::new();
    let source = scenario.node.cluster().unwrap();
    for database in &databases {
        sources.push(dumped(source, database).await);
    }
    let stock = restored_by_stock(source.port(), &databases, &scenario).await;
    scenario.back_up().await;
    scenario.replace_node().await;

    let cluster = scenario.node.cluster().unwrap();
    let exceptions = scenario.exceptions();
    let mut used = BTreeSet::new();
    for ((database, source), parts) in databases.iter().zip(&sources).zip(&scripts) {
        let restored = dumped(cluster, database).await;
        let by_stock = dumped(&stock, database).await;
        for object in source.keys().chain(restored.keys()) {
            let (before, after) = (source.get(object), restored.get(object));
            if before == after {
                continue;
            }
            let case = format!("{object:?} of {database}:\n{before:?}\n{after:?}\n{parts}");
            assert_ne!(object.0, "TABLE DATA", "lost rows: {case}");
            let name = &object.2;
            let matching = exceptions.iter().position(|one| {
                one.database.as_ref() == Some(database)
                    && (one.object.contains(name.as_str()) || name.contains(&one.object))
            });
            let matching = matching.unwrap_or_else(|| panic!("no exception for {case}"));
            used.insert(matching);
            let better = by_stock.get(object) == before && before.is_some();
            let is_check = exceptions[matching].kind == "CHECK CONSTRAINT";
            assert!(!better || is_check, "stock restores {case}");
        }
    }
    let unused: Vec<String> = exceptions
        .iter()
        .enumerate()
        .filter(|(at, _)| !used.contains(at))
        .map(|(_, one)| one.text())
        .collect();
    assert!(
        unused.is_empty(),
        "exceptions without a difference: {unused:#?}"
    );
    stock.destroy().await.unwrap();
}
