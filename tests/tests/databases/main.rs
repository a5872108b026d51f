//! Databases with every kind of object, with thousands of tables and with very large rows are restored unchanged, with
//! Postgres as a process and in a container.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failure of the setup is a failure of the test, and a skipped test prints the reason"
)]

mod dump;
mod exceptions;
mod generated;
mod rights;
mod secrets;
mod surroundings;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rekindle_tests::fixtures::containers::Application;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, change_settings};
use rekindle_tests::fixtures::registry;
use rekindle_tests::nodes::engine;
use rekindle_tests::nodes::machine::Node;
use shared::manifest::Manifest;

use dump::{assert_same, client, dump, dump_of};

/// The name of every group and its application.
const APPLICATION: &str = "unusual";

/// A protected group with one node.
struct Scenario {
    protected: ProtectedGroups,
    node: Arc<Node>,
}

impl Scenario {
    /// Starts a group; `prepare` changes every node and its settings before the agent starts.
    async fn start(prepare: fn(&Node)) -> Self {
        let protected = ProtectedGroups::start().await.unwrap();
        let prepare = move |node: &Node| {
            prepare(node);
            Ok(())
        };
        protected.create_changed(APPLICATION, prepare).unwrap();
        Self {
            node: protected
                .wait_until_in_service(APPLICATION, None)
                .await
                .unwrap(),
            protected,
        }
    }

    /// Starts a group with Postgres in a container, where each role must be the operating system's user of the same name.
    /// Returns `None` if there is no Docker Engine.
    async fn in_container() -> Option<Self> {
        if let Some(reason) = engine::missing().await.unwrap() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let image = engine::image().await.unwrap();
        let protected = ProtectedGroups::start().await.unwrap();
        let mut application = Application::new(&protected.standin, APPLICATION, &image).unwrap();
        "--user postgres --env AUTH_LOCAL=peer".clone_into(&mut application.postgres_options);
        application.with_image = true;
        let group = application.group(protected.standin.bucket());
        protected.standin.create_group(group).unwrap();
        Some(Self {
            node: protected
                .wait_until_in_service(APPLICATION, None)
                .await
                .unwrap(),
            protected,
        })
    }

    /// Runs a psql script as the superuser, starting in the database `postgres`.
    async fn run(&self, script: &str) {
        let mut command = client(&self.node, "psql");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
        command.env("PGCLIENTENCODING", "UTF8");
        let path = self.protected.standin.directory().join("script.sql");
        std::fs::write(&path, script).unwrap();
        command.stdin(std::fs::File::open(path).unwrap());
        let output = command.output().await.unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{problem}");
    }

    async fn back_up(&self) -> Manifest {
        self.protected.back_up(APPLICATION).await.unwrap()
    }

    /// Kills the node and waits until its replacement is in service.
    async fn replace_node(&mut self) {
        self.node = self.protected.replace_lost(&self.node).await.unwrap();
    }
}

/// Creates an empty directory for the tablespace, as a new machine has it.
fn with_tablespace(node: &Node) {
    let (directory, postgres) = (tablespace(node), node.cluster().unwrap().socket_directory());
    if directory.exists() {
        std::fs::remove_dir_all(&directory).unwrap();
    }
    std::fs::create_dir(&directory).unwrap();
    let owner = postgres.metadata().unwrap();
    std::os::unix::fs::chown(&directory, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// Creates the directory of the tablespace on the first node only; the settings allow to restore without it.
fn with_tablespace_once(node: &Node) {
    let settings = "[postgres]\ntablespaces = \"default\"";
    change_settings(node, "[postgres]", settings).unwrap();
    if tablespace(node).exists() {
        std::fs::remove_dir_all(tablespace(node)).unwrap();
        std::fs::write(tablespace(node), "not a directory").unwrap();
    } else {
        with_tablespace(node);
    }
}

/// Returns the directory of the tablespace, which is the same for all nodes of a group.
fn tablespace(node: &Node) -> PathBuf {
    let root = node.root();
    let machines = root.ancestors().nth(2).unwrap();
    machines.join("tablespace")
}

/// Creates a tablespace with a table and an index in it, and a database whose default tablespace it is.
async fn fill_tablespace(scenario: &Scenario, directory: &str) {
    let script = format!(
        "CREATE ROLE keeper; CREATE TABLESPACE \"fast; one\" OWNER keeper LOCATION '{directory}' WITH (random_page_cost = 1.5);
        COMMENT ON TABLESPACE \"fast; one\" IS 'of; its own'; GRANT CREATE ON TABLESPACE \"fast; one\" TO PUBLIC;
        CREATE TABLE slow (n int); CREATE TABLE quick (n int PRIMARY KEY USING INDEX TABLESPACE \"fast; one\")
        TABLESPACE \"fast; one\"; INSERT INTO quick SELECT generate_series(1, 300); INSERT INTO slow TABLE quick;
        CREATE DATABASE elsewhere TABLESPACE \"fast; one\";"
    );
    scenario.run(&script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_object_is_restored_unchanged() {
    let scenario = Scenario::start(with_tablespace).await;
    let tablespace = tablespace(&scenario.node).display().to_string();
    restore_every_kind_of_object(scenario, &tablespace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_object_is_restored_unchanged_in_a_container() {
    if let Some(scenario) = Scenario::in_container().await {
        restore_every_kind_of_object(scenario, "/var/lib/postgresql/tablespace").await;
    }
}

/// Fills the databases, replaces the node, and compares the dumps before and after.
async fn restore_every_kind_of_object(mut scenario: Scenario, tablespace: &str) {
    scenario.run(include_str!("cluster.sql")).await;
    scenario.run(include_str!("latin.sql")).await;
    scenario.run(include_str!("objects.sql")).await;
    let broken = scenario
        .node
        .cluster()
        .unwrap()
        .connect("line\nbreak")
        .await;
    let script = "CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 5)";
    broken.unwrap().batch_execute(script).await.unwrap();
    fill_tablespace(&scenario, tablespace).await;
    let before = dump(&scenario.node).await;

    // A temporary table of another session must not be dumped.
    let session = scenario
        .node
        .cluster()
        .unwrap()
        .connect("icu")
        .await
        .unwrap();
    let temporary =
        "CREATE TEMP TABLE passing (n int); INSERT INTO passing VALUES (1); BEGIN; SELECT 1";
    session.batch_execute(temporary).await.unwrap();
    let manifest = scenario.back_up().await;
    let names = manifest.index.databases.iter().map(|one| one.name.as_str());
    let names: Vec<&str> = names.collect();
    assert!(!names.contains(&"closed"), "{names:?}");
    assert!(
        names.contains(&"template1") && names.contains(&"no_more_sessions"),
        "{names:?}"
    );

    scenario.replace_node().await;
    drop(session);
    assert_same(&before, &dump(&scenario.node).await);
    let name = "Größe \"1\" $x 'y' % \\ z";
    let client = scenario
        .node
        .cluster()
        .unwrap()
        .connect(name)
        .await
        .unwrap();
    let query = "SELECT string_agg(c::text || n, ',' ORDER BY c, n) FROM app.by_enum";
    let by_enum: String = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(
        by_enum,
        "red1,red2,red3,red4,orange1,orange2,orange3,orange4,\
         it's \"green\"1,it's \"green\"2,it's \"green\"3,it's \"green\"4,größer1,größer2,größer3,größer4"
    );
    // The restored databases can be backed up again.
    scenario.back_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_without_a_tablespace_that_the_new_node_lacks() {
    let mut scenario = Scenario::start(with_tablespace_once).await;
    let directory = tablespace(&scenario.node).display().to_string();
    fill_tablespace(&scenario, &directory).await;
    let rows = async |node: &Node| {
        let client = node.cluster().unwrap().connect("postgres").await.unwrap();
        registry::rows(&client).await.unwrap()
    };
    let before = rows(&scenario.node).await;
    scenario.back_up().await;
    scenario.replace_node().await;
    assert_eq!(rows(&scenario.node).await, before);
    let client = scenario
        .node
        .cluster()
        .unwrap()
        .connect("elsewhere")
        .await
        .unwrap();
    let query = "SELECT count(*) FROM pg_tablespace WHERE spcname !~ '^pg_'";
    let own: i64 = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(own, 0);
}

/// Creates a database with 5,000 tables, and another with two rows of 100 MB. No transaction takes more locks than
/// Postgres' default settings allow.
const LARGE: &str = r#"
CREATE DATABASE catalogue;
CREATE DATABASE wide;
\connect catalogue
DO $$ BEGIN
  FOR i IN 1..5000 LOOP
    EXECUTE format('CREATE TABLE "table %s" (id int GENERATED ALWAYS AS IDENTITY, word text DEFAULT %L)', i, i);
    EXECUTE format('INSERT INTO "table %s" (word) VALUES (DEFAULT), (%L)', i, 'of ' || i);
    IF i % 200 = 0 THEN COMMIT; END IF;
  END LOOP;
END $$;
\connect wide
CREATE TABLE wide (id int PRIMARY KEY, words text, bytes bytea);
ALTER TABLE wide ALTER words SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL;
INSERT INTO wide VALUES (1, repeat(E'tab\t, line\n, \\ and ü; ', 5000000), NULL);
INSERT INTO wide VALUES (2, NULL, decode(repeat('00ff5c0a09', 20000000), 'hex'));
"#;

/// Returns hashes and lengths of the large rows; a dump of them would have lines of hundreds of megabytes.
const LARGE_ROWS: &str = "SELECT md5(string_agg(md5(words), '')) || md5(string_agg(md5(bytes), ''))
    || ' ' || min(octet_length(words)) || ' ' || min(octet_length(bytes)) FROM wide";

/// Fills the large databases, replaces the node, and compares tables and rows.
async fn restore_large_databases(mut scenario: Scenario) {
    scenario.run(LARGE).await;
    let wide = async |scenario: &Scenario| -> String {
        let client = scenario
            .node
            .cluster()
            .unwrap()
            .connect("wide")
            .await
            .unwrap();
        client.query_one(LARGE_ROWS, &[]).await.unwrap().get(0)
    };
    let wide_before = wide(&scenario).await;
    assert!(
        wide_before.ends_with(" 115000000 100000000"),
        "{wide_before}"
    );
    let before = dump_of(&scenario.node, "catalogue").await;
    let manifest = scenario.back_up().await;
    assert_eq!(
        (manifest.index.tables(), manifest.index.rows()),
        (5_001, 10_002)
    );
    scenario.replace_node().await;
    assert_eq!(wide(&scenario).await, wide_before);
    assert_same(&before, &dump_of(&scenario.node, "catalogue").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_tables_and_rows_of_100_megabytes_are_restored() {
    restore_large_databases(Scenario::start(|_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_tables_and_rows_of_100_megabytes_are_restored_in_a_container() {
    if let Some(scenario) = Scenario::in_container().await {
        restore_large_databases(scenario).await;
    }
}
