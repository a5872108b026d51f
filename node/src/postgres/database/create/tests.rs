use super::*;
use crate::postgres::database::list::list;
use crate::testing::Cluster;

const NASTY: &str = "Größe \"db\" 'x' $1 \\ ;--";

const ROLES: &str = "
    CREATE ROLE \"o'w \"\"ner\";
    CREATE ROLE app;
    CREATE ROLE \"Größe $x$\";";

/// Clears the properties that differ between a database and its copy.
fn without_identity(mut properties: DatabaseProperties) -> DatabaseProperties {
    properties.name.clear();
    properties.oid = 0;
    properties.size = 0;
    properties
}

async fn listed(cluster: &Cluster, name: &str) -> DatabaseProperties {
    let all = list(&cluster.postgres(), &cluster.settings)
        .await
        .unwrap()
        .wanted;
    all.into_iter().find(|one| one.name == name).unwrap()
}

async fn copied(
    cluster: &Cluster,
    original: &DatabaseProperties,
    copy: &str,
) -> DatabaseProperties {
    let postgres = cluster.postgres();
    let version = cluster.sql("postgres", "SHOW server_version_num").await;
    let version = version.parse().unwrap();
    original
        .create(&postgres, copy, version, Tablespaces::Fail)
        .await
        .unwrap();
    original.apply(&postgres, copy).await.unwrap();
    listed(cluster, copy).await
}

#[tokio::test]
async fn every_property_of_a_database_is_restored() {
    let cluster = Cluster::start();
    let database = identifier(NASTY);
    cluster.sql("postgres", ROLES).await;
    let script = format!(
        "CREATE DATABASE {database} TEMPLATE template0 OWNER \"o'w \"\"ner\" ENCODING 'UTF8'
           LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8' CONNECTION LIMIT 7;
         UPDATE pg_database SET datistemplate = true WHERE datname = {name};
         COMMENT ON DATABASE {database} IS E'it\\'s;\\n\\\\restrict \"x\"';
         REVOKE ALL ON DATABASE {database} FROM PUBLIC;
         GRANT TEMPORARY ON DATABASE {database} TO PUBLIC;
         GRANT CONNECT ON DATABASE {database} TO app WITH GRANT OPTION;
         SET SESSION AUTHORIZATION app;
         GRANT CONNECT ON DATABASE {database} TO \"Größe $x$\";
         RESET SESSION AUTHORIZATION;
         ALTER DATABASE {database} SET search_path TO \"$user\", 'a\"b, c', public;
         ALTER DATABASE {database} SET default_transaction_read_only TO on;
         ALTER DATABASE {database} SET my.setting TO E'it\\'s a\\\\b, c=d';
         ALTER ROLE app IN DATABASE {database} SET \"TimeZone\" TO 'Europe/Berlin';
         ALTER ROLE app IN DATABASE {database} SET temp_tablespaces TO '';",
        name = literal(NASTY),
    );
    cluster.sql("postgres", &script).await;
    // A template is listed only if it has objects of its own.
    let own = "SET default_transaction_read_only = off; CREATE TABLE own ()";
    cluster.sql(NASTY, own).await;

    let original = listed(&cluster, NASTY).await;
    assert_eq!(original.provider, LocaleProvider::Icu);
    assert_eq!(original.locale.as_deref(), Some("de-u-co-phonebk"));
    assert_eq!(original.connection_limit, 7);
    assert_eq!(original.settings.len(), 5);
    assert_eq!(original.extensions.len(), 1);
    let json = serde_json::to_string(&original).unwrap();
    let original: DatabaseProperties = serde_json::from_str(&json).unwrap();

    let postgres = cluster.postgres();
    let version = cluster.sql("postgres", "SHOW server_version_num").await;
    let version = version.parse().unwrap();
    original
        .create(&postgres, "copy", version, Tablespaces::Fail)
        .await
        .unwrap();
    cluster.sql("copy", "CREATE TABLE own ()").await;
    original.apply(&postgres, "copy").await.unwrap();
    let copy = listed(&cluster, "copy").await;
    assert_eq!(without_identity(copy), without_identity(original));
}

#[tokio::test]
async fn an_empty_list_of_privileges_is_not_restored_as_the_defaults() {
    let cluster = Cluster::start();
    let script = "CREATE DATABASE closed; REVOKE ALL ON DATABASE closed FROM PUBLIC, postgres;
        CREATE DATABASE open;";
    for statement in script.split_inclusive(';') {
        cluster.sql("postgres", statement).await;
    }
    let closed = listed(&cluster, "closed").await;
    assert_eq!(closed.acl, Some(Vec::new()));
    assert_eq!(
        copied(&cluster, &closed, "closed copy").await.acl,
        closed.acl
    );
    let open = listed(&cluster, "open").await;
    assert_eq!(open.acl, None);
    assert_eq!(copied(&cluster, &open, "open copy").await.acl, None);
}
