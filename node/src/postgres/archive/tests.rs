use shared::exit_code::ExitCode;

use super::*;
use crate::testing::Cluster;

/// A database with one relation of every kind in a table of contents.
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
    let pg_dump = cluster.postgres().tool("pg_dump").args(arguments);
    let output = pg_dump.args(["-d", "postgres"]).output(ExitCode::Internal);
    output.await.unwrap()
}

#[tokio::test]
async fn rows_are_counted_as_by_the_server_and_every_truncation_is_detected() {
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
        let quoted = crate::postgres::quote::identifier(name);
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

    // Cut at every byte near the beginning and the end, and at 1,000 places between.
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
    assert_eq!(
        error,
        "the dump is damaged: it does not begin as an archive of pg_dump at byte 5"
    );
}

#[test]
fn an_unknown_format_version_is_refused_with_the_remedy() {
    let error = read(&mut &b"PGDMP\x01\x11\x00\x04\x08\x01"[..]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the dump: unknown format version 1.17; deploy a newer Rekindle"
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let with_header = [b"PGDMP\x01\x0e\x00\x04\x08\x01", &bytes[..]].concat();
        proptest::prop_assert!(read(&mut &bytes[..]).is_err());
        // With a header, the rest can be an archive without entries. It only must not panic.
        proptest::prop_assert!(read(&mut &with_header[..]).is_err() || bytes.len() > 40);
    }
}

/// Restores the parts of an archive into a new database, and returns the number and a hash of the rows of each table.
async fn restored(cluster: &Cluster, database: &str, archives: &[Vec<u8>]) -> Vec<String> {
    let create = format!("CREATE DATABASE {database} TEMPLATE template0");
    cluster.sql("postgres", &create).await;
    let sections: [(&str, &[Vec<u8>]); 3] = [
        ("--section=pre-data", &archives[..1]),
        ("--section=data", archives),
        ("--section=post-data", &archives[..1]),
    ];
    for (section, archives) in sections {
        for archive in archives {
            let pg_restore = cluster.postgres().tool("pg_restore");
            pg_restore
                .args(["--exit-on-error", section, "-d", database])
                .input(&archive[..])
                .run(ExitCode::Internal)
                .await
                .unwrap();
        }
    }
    let mut found = Vec::new();
    for table in [
        "other.plain",
        "\"Odd \"\" name\"",
        "child",
        "no_columns",
        "plain",
        "wide",
        "a_matview",
    ] {
        let hash = format!(
            "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {table} t"
        );
        found.push(cluster.sql(database, &hash).await);
    }
    let large = "SELECT string_agg(length(lo_get(oid))::text, ' ' ORDER BY oid) FROM pg_largeobject_metadata";
    found.push(cluster.sql(database, large).await);
    found
}

#[tokio::test]
async fn the_parts_of_an_archive_restore_the_same_database() {
    let cluster = Cluster::start();
    cluster.sql("postgres", SCHEMA).await;
    // More rows than are sent to a part at once, and one row that is longer than that.
    let more = "INSERT INTO plain SELECT i, repeat('z', i % 50) FROM generate_series(1, 20000) i;
        INSERT INTO wide VALUES (repeat('w', 3000000)), ('short');
        ALTER TABLE plain ADD COLUMN key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY";
    cluster.sql("postgres", more).await;
    let whole = dump(&cluster, &["-Fc", "-Z0"]).await;

    let (head_sender, head) = tokio::sync::oneshot::channel();
    let (senders, parts): (Vec<_>, Vec<_>) = (0..3).map(|_| tokio::sync::mpsc::channel(4)).unzip();
    let archive = whole.clone();
    let splitting =
        tokio::task::spawn_blocking(move || split(&archive[..], head_sender, senders, false));
    let parts = parts.into_iter().map(|mut part| {
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            while let Some(chunk) = part.recv().await {
                bytes.extend_from_slice(&chunk);
            }
            bytes
        })
    });
    let mut archives = Vec::new();
    for part in parts.collect::<Vec<_>>() {
        archives.push(part.await.unwrap());
    }
    splitting.await.unwrap().unwrap();
    let head = head.await.unwrap();
    assert!(archives.iter().all(|archive| archive.starts_with(&head)));
    assert!(
        archives.iter().all(|archive| archive.len() < whole.len()),
        "a part has all rows"
    );

    let counted = |archive: &[u8]| -> u64 {
        let archive = read(&mut &archive[..]).unwrap();
        archive.tables.iter().map(|table| table.rows).sum()
    };
    let rows: Vec<u64> = archives.iter().map(|archive| counted(archive)).collect();
    assert_eq!(rows.iter().sum::<u64>(), counted(&whole), "{rows:?}");
    let expected = restored(&cluster, "unsplit", &[whole]).await;
    assert_eq!(restored(&cluster, "split", &archives).await, expected);
}

#[tokio::test]
async fn splitting_a_truncated_archive_fails() {
    let cluster = Cluster::start();
    cluster.sql("postgres", SCHEMA).await;
    let whole = dump(&cluster, &["-Fc", "-Z0"]).await;
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 7] {
        let (head_sender, _head) = tokio::sync::oneshot::channel();
        let (sender, mut part) = tokio::sync::mpsc::channel(4);
        let archive = whole[..length].to_vec();
        let splitting = tokio::task::spawn_blocking(move || {
            split(&archive[..], head_sender, vec![sender], false)
        });
        while part.recv().await.is_some() {}
        assert!(splitting.await.unwrap().is_err(), "cut at {length}");
    }
}
