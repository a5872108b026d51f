use proptest::prelude::*;

use super::*;

#[test]
fn a_line_without_a_secret_stays_whole() {
    for line in [
        r#"ERROR:  invalid option "password""#,
        "HINT:  Valid options in this context are: user, password, sslpassword, sslcert",
        r#"FATAL:  password authentication failed for user "etl""#,
        "fe_sendauth: no password supplied",
        r#"ERROR:  column "password" of relation "users" does not exist"#,
        r#"ERROR:  role "secret_reader" does not exist"#,
        r#"ERROR:  unrecognized token "x""#,
        r#"ERROR:  invalid value for parameter "password_encryption": "md4""#,
        "ERROR:  function f(text) does not exist; it's in the backup, and isn't here",
        r#"connection to server at "db" (10.0.0.1), port 5432 failed: Connection refused"#,
        "DETAIL:  Key (parent)=(99) is not present in table \"parent\".",
        "see https://example.com:8443/page",
        "server postgres://[::1]:5432/db and postgres://etl@host/db",
        r#"ERROR:  could not execute "" '' $1 $x"#,
    ] {
        assert_eq!(hide_in_message(line), line);
    }
}

#[test]
fn no_form_of_a_password_is_shown() {
    for line in [
        "postgres://etl:MARKER@dwh/db",
        "postgresql://etl:p@ss/MARKER@dwh:5432/db",
        "uri 'postgres://etl:a MARKER b@dwh/db'",
        "postgres://dwh/db?user=etl&password=MARKER&sslmode=require",
        "host=dwh password=MARKER user=etl",
        "host=dwh password = 'a MARKER' user=etl",
        r"host=dwh password=a\ MARKER user=etl",
        r"host=dwh password='it\'s MARKER'",
        "dblink(''host=dwh password=''''a MARKER'''' user=etl'')",
        "OPTIONS (user 'etl', password 'MARKER')",
        "OPTIONS (user 'etl', password'MARKER')",
        r#"OPTIONS ("user" 'etl', "password" 'MARKER')"#,
        "{user=etl,password=MARKER}",
        r#"{"password": "a \" MARKER", "user": "etl"}"#,
        r#"{\"password\": \"a MARKER\"}"#,
        r#"options: "password" "MARKER""#,
        "ALTER ROLE etl WITH LOGIN PASSWORD 'MARKER';",
        "ALTER ROLE etl PASSWORD E'it''s MARKER'",
        "ALTER ROLE etl ENCRYPTED PASSWORD $x$MARKER$x$",
        "PGPASSWORD=MARKER psql",
        "aws_secret_access_key => 'MARKER'",
        "api_token := MARKER",
        "password: MARKER",
        "password 'MARKER, and no end",
        "db_pass=MARKER",
        "Key (api_token)=(a MARKER) already exists.",
    ] {
        let shown = hide_in_message(line);
        assert!(!shown.contains("MARKER"), "{shown}");
        assert!(shown.contains(HIDDEN), "{shown}");
    }
    let hashes = "SCRAM-SHA-256$4096:c2FsdA==$a:b= md5b3a1c2d3e4f5061728394a5b6c7d8e9f md5sum";
    assert_eq!(hide(hashes), "[hidden] [hidden] md5sum");
}

#[test]
fn a_message_of_postgres_shows_no_literal_of_a_statement() {
    for message in [
        "ERROR:  refused: CREATE SERVER s OPTIONS (dsn 'MARKER')",
        "ERROR:  refused: SELECT dblink_connect(E'MARKER",
        "ERROR:  refused: DO $$ MARKER",
        "ERROR:  refused: CREATE SUBSCRIPTION s CONNECTION 'host=x MARKER' PUBLICATION p",
        r#"ERROR:  syntax error at or near "'MARKER'""#,
        r#"ERROR:  invalid connection string syntax: missing "=" after "MARKER" in connection info string"#,
        r#"ERROR:  invalid connection string syntax: invalid percent-encoded token: "MARKER%zz""#,
        r#"ERROR:  unexpected character "x" in URI: "postgres://u:MARKER"@[h""#,
        r#"ERROR:  invalid integer value "MARKER" for connection option "port""#,
        "DETAIL:  Failing row contains (1, etl, MARKER (x)).",
        "DETAIL:  Key (id, \"user password\")=(1, MARKER) already exists.",
    ] {
        let shown = hide_in_message(message);
        assert!(!shown.contains("MARKER"), "{shown}");
    }
    let message = "ERROR:  refused: CREATE SERVER s OPTIONS (dsn 'x', host '') for \"dba\"";
    let shown = "ERROR:  refused: CREATE SERVER s OPTIONS (dsn '[hidden]', host '') for \"dba\"";
    assert_eq!(hide_in_message(message), shown);
}

proptest! {
    #[test]
    fn every_line_can_be_hidden(line in "(\\PC|['\"$=:@\\\\ ]|password|token|://|Key \\()*") {
        hide_in_message(&line);
    }
}
