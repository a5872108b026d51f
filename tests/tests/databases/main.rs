//! Databases with one of everything, and with more of it than is usual, come back as they were: from a server that the
//! node runs, and from one in a container.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what a test sets up may fail as loudly as what it asserts, and one that is skipped says so"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use rekindle_tests::fixtures::containers::{Application, POSTGRES};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::registry;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::nodes::{engine, postgres};
use shared::manifest::Manifest;

/// The name of every group and its application.
const APPLICATION: &str = "awkward";

/// A protected group with one node.
struct Scene {
    protected: ProtectedGroups,
    node: Arc<Node>,
}

impl Scene {
    /// Starts a group; `prepare` changes every machine, and what its settings say, before the agent starts.
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

    /// Starts a group whose server is in a container, where sessions are those of the operating system's user of the same
    /// name; none where there is no Docker Engine.
    async fn in_container() -> Option<Self> {
        if let Some(why) = engine::missing().await.unwrap() {
            eprintln!("skipped: {why}");
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

    /// Runs a script of psql as the superuser, from the database postgres on.
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

    /// Takes the node's power, and waits for the replacement.
    async fn lose(&mut self) {
        self.node = self.protected.replace_lost(&self.node).await.unwrap();
    }
}

/// Prepares a client program of the node's server: of its own version, since a server of a newer minor version may keep
/// in its catalogs what an older client takes for the user's.
fn client(node: &Node, program: &str) -> tokio::process::Command {
    if let Ok(engine) = node.engine() {
        let exec = [
            "exec",
            "-i",
            "--env",
            "PGUSER=postgres",
            "--env",
            "PGCLIENTENCODING=UTF8",
            POSTGRES,
        ];
        let mut command = engine.docker(&exec);
        command.arg(program);
        return command;
    }
    let port = node.cluster().unwrap().port();
    let mut command =
        tokio::process::Command::new(postgres::bin_directory().unwrap().join(program));
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", "postgres")
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::null());
    command
}

/// Dumps the whole cluster as `pg_dumpall` does: globals, then each database that allows connections, with its
/// properties. Each is dumped in its own encoding, so that bytes are compared; and one database's name has a line
/// break, which `pg_dumpall` refuses, and so do the statements that would create that database.
async fn dump(node: &Node) -> Vec<String> {
    let template = node.cluster().unwrap().connect("template1").await.unwrap();
    let query = "SELECT datname, pg_encoding_to_char(encoding) FROM pg_database WHERE datallowconn ORDER BY 1";
    let databases = template.query(query, &[]).await.unwrap();
    let mut globals = client(node, "pg_dumpall");
    globals.arg("--globals-only");
    let mut commands = vec![globals];
    for database in databases {
        let (name, encoding): (String, String) = (database.get(0), database.get(1));
        let name = name.replace('\\', "\\\\").replace('\'', "\\'");
        let mut command = client(node, "pg_dump");
        // An enum's hash is that of its value's oid, which no dump keeps: these rows may change partitions.
        command.arg("--exclude-table-data=app.by_enum_*");
        command.args(["--encoding", &encoding, "-d"]);
        command.arg(format!("dbname='{name}'"));
        if !name.contains('\n') {
            command.arg("--create");
        }
        commands.push(command);
    }
    let mut lines = Vec::new();
    for mut command in commands {
        let output = command.output().await.unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{problem}");
        lines.extend(normalised(&output.stdout));
    }
    lines
}

/// Leaves out what changes with every dump: the random key of `\restrict`. Bytes that are not UTF-8 are escaped.
fn normalised(dump: &[u8]) -> impl Iterator<Item = String> {
    dump.split(|byte| *byte == b'\n')
        .map(|line| match std::str::from_utf8(line) {
            Ok(line) => line.to_owned(),
            Err(_) => line.escape_ascii().to_string(),
        })
        .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "))
}

/// Names the first lines that only one of them has.
fn assert_same(before: &[String], after: &[String]) {
    if before == after {
        return;
    }
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for line in before {
        *counts.entry(line).or_default() -= 1;
    }
    for line in after {
        *counts.entry(line).or_default() += 1;
    }
    let different = counts.iter().filter(|(_, count)| **count != 0);
    let named: Vec<String> = different
        .map(|(line, count)| format!("{count:+} {}", line.chars().take(300).collect::<String>()))
        .take(60)
        .collect();
    let at = before
        .iter()
        .zip(after)
        .position(|(one, other)| one != other);
    let at = at.unwrap_or(before.len().min(after.len()));
    let around = |lines: &[String]| lines[at.saturating_sub(8)..lines.len().min(at + 8)].join("\n");
    panic!(
        "the dumps differ:\n{}\nfirst at line {at}, before:\n{}\nafter:\n{}",
        named.join("\n"),
        around(before),
        around(after)
    );
}

/// Makes the directory of the tablespace afresh, as a new machine has it.
fn with_tablespace(node: &Node) {
    let (directory, postgres) = (tablespace(node), node.cluster().unwrap().socket_directory());
    if directory.exists() {
        std::fs::remove_dir_all(&directory).unwrap();
    }
    std::fs::create_dir(&directory).unwrap();
    let owner = postgres.metadata().unwrap();
    std::os::unix::fs::chown(&directory, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// Makes the first machine's tablespace, and no other; the settings do without it.
fn with_tablespace_once(node: &Node) {
    let settings = node.root().join("etc/rekindle/node.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    let text = text.replace("[postgres]", "[postgres]\ntablespaces = \"default\"");
    std::fs::write(&settings, text).unwrap();
    if tablespace(node).exists() {
        std::fs::remove_dir_all(tablespace(node)).unwrap();
        std::fs::write(tablespace(node), "no directory").unwrap();
    } else {
        with_tablespace(node);
    }
}

/// Returns the tablespace's directory: the same for all machines of a group.
fn tablespace(node: &Node) -> PathBuf {
    let root = node.root();
    let machines = root.ancestors().nth(2).unwrap();
    machines.join("tablespace")
}

/// Creates a tablespace, and a database with a table in it and another one whose default it is.
async fn fill_tablespace(scene: &Scene, directory: &str) {
    let script = format!(
        "CREATE ROLE keeper; CREATE TABLESPACE \"fast; one\" OWNER keeper LOCATION '{directory}' WITH (random_page_cost = 1.5);
        COMMENT ON TABLESPACE \"fast; one\" IS 'of; its own'; GRANT CREATE ON TABLESPACE \"fast; one\" TO PUBLIC;
        CREATE TABLE slow (n int); CREATE TABLE quick (n int PRIMARY KEY USING INDEX TABLESPACE \"fast; one\")
        TABLESPACE \"fast; one\"; INSERT INTO quick SELECT generate_series(1, 300); INSERT INTO slow TABLE quick;
        CREATE DATABASE elsewhere TABLESPACE \"fast; one\";"
    );
    scene.run(&script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_everything_comes_back_as_it_was() {
    let scene = Scene::start(with_tablespace).await;
    let tablespace = tablespace(&scene.node).display().to_string();
    one_of_everything(scene, &tablespace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_everything_comes_back_in_a_container_as_it_was() {
    if let Some(scene) = Scene::in_container().await {
        one_of_everything(scene, "/var/lib/postgresql/tablespace").await;
    }
}

async fn one_of_everything(mut scene: Scene, tablespace: &str) {
    scene.run(include_str!("cluster.sql")).await;
    scene.run(include_str!("latin.sql")).await;
    scene.run(include_str!("objects.sql")).await;
    let broken = scene.node.cluster().unwrap().connect("line\nbreak").await;
    let script = "CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 5)";
    broken.unwrap().batch_execute(script).await.unwrap();
    fill_tablespace(&scene, tablespace).await;
    let before = dump(&scene.node).await;

    // A session with tables of its own, which nobody else may see.
    let session = scene.node.cluster().unwrap().connect("icu").await.unwrap();
    let temporary =
        "CREATE TEMP TABLE passing (n int); INSERT INTO passing VALUES (1); BEGIN; SELECT 1";
    session.batch_execute(temporary).await.unwrap();
    let manifest = scene.back_up().await;
    let names = manifest.index.databases.iter().map(|one| one.name.as_str());
    let names: Vec<&str> = names.collect();
    assert!(!names.contains(&"closed"), "{names:?}");
    assert!(
        names.contains(&"template1") && names.contains(&"no_more_sessions"),
        "{names:?}"
    );

    scene.lose().await;
    drop(session);
    assert_same(&before, &dump(&scene.node).await);
    let name = "Größe \"1\" $x 'y' % \\ z";
    let client = scene.node.cluster().unwrap().connect(name).await.unwrap();
    let query = "SELECT string_agg(c::text || n, ',' ORDER BY c, n) FROM app.by_enum";
    let by_enum: String = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(
        by_enum,
        "red1,red2,red3,red4,orange1,orange2,orange3,orange4,\
         it's \"green\"1,it's \"green\"2,it's \"green\"3,it's \"green\"4,größer1,größer2,größer3,größer4"
    );
    // What was restored can be backed up again.
    scene.back_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_that_the_new_node_lacks_can_be_done_without() {
    let mut scene = Scene::start(with_tablespace_once).await;
    let directory = tablespace(&scene.node).display().to_string();
    fill_tablespace(&scene, &directory).await;
    let rows = async |node: &Node| {
        let client = node.cluster().unwrap().connect("postgres").await.unwrap();
        registry::rows(&client).await.unwrap()
    };
    let before = rows(&scene.node).await;
    scene.back_up().await;
    scene.lose().await;
    assert_eq!(rows(&scene.node).await, before);
    let client = scene
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

/// Fills a database with 5,000 tables, and another with two rows of 100 MB. No transaction takes more locks than a
/// server's defaults have room for.
const MUCH: &str = r#"
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

/// What must be the same of such databases; their rows, as text, would be hundreds of megabytes in one line.
const MUCH_AS_TEXT: &str =
    "SELECT md5(string_agg(md5(words), '')) || md5(string_agg(md5(bytes), ''))
    || ' ' || min(octet_length(words)) || ' ' || min(octet_length(bytes)) FROM wide";

async fn much(mut scene: Scene) {
    scene.run(MUCH).await;
    let wide = async |scene: &Scene| -> String {
        let client = scene.node.cluster().unwrap().connect("wide").await.unwrap();
        client.query_one(MUCH_AS_TEXT, &[]).await.unwrap().get(0)
    };
    let wide_before = wide(&scene).await;
    assert!(
        wide_before.ends_with(" 115000000 100000000"),
        "{wide_before}"
    );
    let before = dump_of(&scene.node, "catalogue").await;
    let manifest = scene.back_up().await;
    assert_eq!(
        (manifest.index.tables(), manifest.index.rows()),
        (5_001, 10_002)
    );
    scene.lose().await;
    assert_eq!(wide(&scene).await, wide_before);
    assert_same(&before, &dump_of(&scene.node, "catalogue").await);
}

async fn dump_of(node: &Node, database: &str) -> Vec<String> {
    let mut command = client(node, "pg_dump");
    let output = command
        .arg("--create")
        .arg(database)
        .output()
        .await
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    normalised(&output.stdout).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_tables_and_rows_of_100_megabytes_come_back() {
    much(Scene::start(|_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_tables_and_rows_of_100_megabytes_come_back_in_a_container() {
    if let Some(scene) = Scene::in_container().await {
        much(scene).await;
    }
}
