//! Dumps of a node's databases with Postgres' own tools, and their comparison.

use std::collections::BTreeMap;
use std::process::Stdio;

use rekindle_tests::fixtures::containers::POSTGRES;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::nodes::postgres;

/// Returns a command that runs a client program of the same version as the node's Postgres. An older client may dump
/// new catalog entries of the server as objects of the user.
pub(crate) fn client(node: &Node, program: &str) -> tokio::process::Command {
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

/// Returns the lines of a dump of the whole cluster: globals, then each database that allows connections. Each database is
/// dumped in its own encoding, so that bytes are compared. `pg_dumpall` cannot be used for that, and refuses the database
/// whose name contains a line break; that one is dumped without `--create` for the same reason.
pub(crate) async fn dump(node: &Node) -> Vec<String> {
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
        // Postgres hashes an enum by the oid of its value, which a dump does not keep: these rows may change partitions.
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

/// Returns the lines of a dump without the random key of `\restrict`. Bytes that are not UTF-8 are escaped.
fn normalised(dump: &[u8]) -> impl Iterator<Item = String> {
    dump.split(|byte| *byte == b'\n')
        .map(|line| match std::str::from_utf8(line) {
            Ok(line) => line.to_owned(),
            Err(_) => line.escape_ascii().to_string(),
        })
        .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "))
}

/// Returns the lines that only one of two dumps has, in alphabetical order: `-1` before a line that is missing, `+1`
/// before one that is new.
pub(crate) fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for line in before {
        *counts.entry(line).or_default() -= 1;
    }
    for line in after {
        *counts.entry(line).or_default() += 1;
    }
    let different = counts.iter().filter(|(_, count)| **count != 0);
    different
        .map(|(line, count)| format!("{count:+} {}", line.chars().take(300).collect::<String>()))
        .collect()
}

/// Checks that two dumps are equal; the error shows the lines that only one of them has.
pub(crate) fn assert_same(before: &[String], after: &[String]) {
    if before == after {
        return;
    }
    let mut named = differences(before, after);
    named.truncate(60);
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

/// Returns the lines of a dump of one database.
pub(crate) async fn dump_of(node: &Node, database: &str) -> Vec<String> {
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
