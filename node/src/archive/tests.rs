use std::process::Stdio;

use super::*;
use crate::testing::Cluster;

/// A database with one of everything that the table of contents tells apart.
const SCHEMA: &str = r#"
CREATE TABLE plain (id int, note text);
INSERT INTO plain SELECT i, E'line\nbreak \\. \\N' || i FROM generate_series(1, 1234) i;
CREATE TABLE empty (id int);
CREATE TABLE "Odd "" name" (x text);
INSERT INTO "Odd "" name" VALUES (NULL), (''), (E'\\.');
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 7);
CREATE SCHEMA other;
CREATE TABLE other.plain (id int);
INSERT INTO other.plain VALUES (1), (2);
CREATE TABLE parent (day int) PARTITION BY RANGE (day);
CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (100);
INSERT INTO parent SELECT generate_series(0, 41);
CREATE VIEW a_view AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM plain;
CREATE SEQUENCE a_sequence;
CREATE TABLE wide (bytes text);
INSERT INTO wide SELECT repeat('x', 300000) FROM generate_series(1, 5);
SELECT lo_from_bytea(0, repeat('y', 100000)::bytea), lo_from_bytea(0, ''::bytea);
"#;

async fn dump(cluster: &Cluster, arguments: &[&str]) -> Vec<u8> {
    let mut command = cluster.postgres().tool("pg_dump");
    command.args(arguments).args(["-d", "postgres"]);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[tokio::test]
async fn an_archive_is_counted_as_the_server_counts_and_every_cut_is_found() {
    let cluster = Cluster::start();
    cluster.sql("postgres", SCHEMA).await;
    let bytes = dump(&cluster, &["-Fc", "-Z0"]).await;
    let archive = read(&mut &bytes[..]).unwrap();

    let mut expected = Vec::new();
    for (schema, name) in [
        ("other", "plain"),
        ("public", "Odd \" name"),
        ("public", "child"),
        ("public", "empty"),
        ("public", "no_columns"),
        ("public", "plain"),
        ("public", "wide"),
    ] {
        let quoted = crate::postgres::identifier(name);
        let count = format!("SELECT count(*) FROM ONLY {schema}.{quoted}");
        let rows = cluster.sql("postgres", &count).await.parse().unwrap();
        expected.push((schema.to_owned(), name.to_owned(), rows));
    }
    let mut found: Vec<_> = archive
        .tables
        .into_iter()
        .map(|table| (table.schema, table.name, table.rows))
        .collect();
    found.sort();
    assert_eq!(found, expected);

    let mut relations: Vec<_> = archive
        .relations
        .into_iter()
        .map(|relation| (relation.name, relation.kind))
        .collect();
    relations.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        relations,
        [
            ("a_matview".to_owned(), RelationKind::MaterializedView),
            ("a_sequence".to_owned(), RelationKind::Sequence),
            ("a_view".to_owned(), RelationKind::View),
            ("parent".to_owned(), RelationKind::Table),
        ]
    );

    // Every cut near the beginning and the end, and one in each thousandth between.
    let step = bytes.len() / 1000;
    let cuts = (0..300)
        .chain((0..bytes.len()).step_by(step))
        .chain(bytes.len() - 300..bytes.len());
    for cut in cuts {
        let read = read(&mut &bytes[..cut]);
        assert!(
            matches!(read, Err(ArchiveError::Malformed(_))),
            "cut at {cut}: {read:?}"
        );
    }
    let longer = [&bytes[..], b"\x01"].concat();
    assert!(read(&mut &longer[..]).is_err());

    let compressed = dump(&cluster, &["-Fc", "-Z1"]).await;
    let error = read(&mut &compressed[..]).unwrap_err().to_string();
    assert!(error.contains("compressed data"), "{error}");
    let plain = dump(&cluster, &["-Fp"]).await;
    let error = read(&mut &plain[..]).unwrap_err().to_string();
    assert_eq!(error, "the dump has, at byte 5, no beginning of an archive");
}

#[test]
fn an_unknown_version_is_refused_with_the_remedy() {
    let error = read(&mut &b"PGDMP\x01\x11\x00\x04\x08\x01"[..]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the dump has, at byte 8, format version 1.17, which this agent does not know: deploy a newer Rekindle"
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let with_header = [b"PGDMP\x01\x0e\x00\x04\x08\x01", &bytes[..]].concat();
        proptest::prop_assert!(read(&mut &bytes[..]).is_err());
        // With a header the rest may happen to be an archive without entries; it must only not panic.
        proptest::prop_assert!(read(&mut &with_header[..]).is_err() || bytes.len() > 40);
    }
}
