//! Lists the databases to back up, with their properties from the catalogs.
//!
//! Some columns of `pg_database` exist only in some versions. The query reads them through `row_to_json`, so that it
//! works on every server from 9.4 on.

use serde::Deserialize;
use shared::exit_code::ExitCode;
use shared::manifest::SkippedDatabase;

use crate::agent::failure::{Failure, Result};
use crate::postgres::client::{ADMIN_DATABASE, Postgres};
use crate::postgres::database::properties::{
    DatabaseProperties, Extension, Grant, LocaleProvider, SecurityLabel,
};
use crate::postgres::own_databases::{OLD_PREFIX, RESTORE_PREFIX};
use crate::postgres::quote::literal;
use crate::postgres::setting::Setting;
use crate::settings::PostgresSettings;

/// One database in the result of [`LIST`].
#[derive(Deserialize)]
struct Listed {
    oid: u32,
    catalog: CatalogRow,
    encoding: String,
    owner: String,
    tablespace: String,
    acl: Option<Vec<Grant>>,
    settings: Vec<Setting>,
    comment: Option<String>,
    security_labels: Vec<SecurityLabel>,
    size: u64,
}

/// The columns of `pg_database` that are used. Older servers do not have the optional ones.
#[derive(Deserialize)]
struct CatalogRow {
    datname: String,
    datcollate: String,
    datctype: String,
    datlocprovider: Option<String>,
    datlocale: Option<String>,
    daticulocale: Option<String>,
    daticurules: Option<String>,
    datconnlimit: i32,
    datistemplate: bool,
    datallowconn: bool,
}

/// The properties that only a session in the database itself can read: the result of [`INSIDE`].
#[derive(Deserialize)]
struct Inside {
    extensions: Vec<Extension>,
    tablespaces: Vec<String>,
    own_objects: bool,
}

const LIST: &str = "
SELECT coalesce(json_agg(row_to_json(listed)), '[]') FROM (
  SELECT d.oid::text::bigint AS oid, row_to_json(d) AS catalog, pg_encoding_to_char(d.encoding) AS encoding,
    pg_get_userbyid(d.datdba) AS owner, t.spcname AS tablespace,
    CASE WHEN d.datacl IS NOT NULL THEN (
      SELECT coalesce(json_agg(json_build_object('grantor', pg_get_userbyid(a.grantor),
        'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
        'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
      FROM aclexplode(d.datacl) a) END AS acl,
    (SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'assignment', assignment)
        ORDER BY r.rolname NULLS FIRST, position), '[]')
      FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole,
        unnest(s.setconfig) WITH ORDINALITY AS c(assignment, position)
      WHERE s.setdatabase = d.oid) AS settings,
    shobj_description(d.oid, 'pg_database') AS comment,
    (SELECT coalesce(json_agg(json_build_object('provider', l.provider, 'label', l.label)
        ORDER BY l.provider), '[]')
      FROM pg_shseclabel l WHERE l.classoid = 'pg_database'::regclass AND l.objoid = d.oid) AS security_labels,
    CASE WHEN d.datallowconn THEN pg_database_size(d.oid) ELSE 0 END AS size
  FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
  WHERE d.datconnlimit <> -2
  ORDER BY d.datname
) listed";

/// The template that nobody can connect to, and that nobody changes.
const EMPTY_TEMPLATE: &str = "template0";
/// The comment that `initdb` gives `template1`.
const COMMENT_OF_TEMPLATE1: &str = "default template for new databases";
/// The number of grants that `initdb` gives a template: CONNECT to PUBLIC; CREATE, TEMPORARY and CONNECT to its owner.
const USUAL_GRANTS_OF_A_TEMPLATE: usize = 4;
/// The reason why a database is left out that existed when the backup began.
pub(crate) const DROPPED: &str = "it was dropped during the backup";

/// Objects that `initdb` creates have an oid below 16384.
const INSIDE: &str = "
SELECT json_build_object(
  'extensions', (SELECT coalesce(json_agg(json_build_object('name', extname, 'version', extversion)
      ORDER BY extname), '[]') FROM pg_extension),
  'tablespaces', (SELECT coalesce(json_agg(spcname ORDER BY spcname), '[]') FROM pg_tablespace
    WHERE oid IN (SELECT reltablespace FROM pg_class UNION SELECT dattablespace FROM pg_database
      WHERE datname = current_database()) AND spcname <> 'pg_global'),
  'own_objects', EXISTS (SELECT 1 FROM (
      SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_proc UNION ALL SELECT oid FROM pg_type
      UNION ALL SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
      UNION ALL SELECT oid FROM pg_extension UNION ALL SELECT oid FROM pg_default_acl
      UNION ALL SELECT oid FROM pg_operator UNION ALL SELECT oid FROM pg_cast
      UNION ALL SELECT oid FROM pg_language UNION ALL SELECT oid FROM pg_collation
      UNION ALL SELECT oid FROM pg_largeobject_metadata) o WHERE oid >= 16384))";

/// The databases of a server.
#[derive(Debug, Default)]
pub(crate) struct Databases {
    /// The databases to back up.
    pub(crate) wanted: Vec<DatabaseProperties>,
    /// The databases that cannot be backed up, although no setting leaves them out.
    pub(crate) skipped: Vec<SkippedDatabase>,
}

/// Returns the databases to back up: the configured ones, or else every database that allows connections. In the second
/// case a template counts only if it has objects or properties of its own, and the databases of a restore never count.
pub(crate) async fn list(postgres: &Postgres, settings: &PostgresSettings) -> Result<Databases> {
    let code = ExitCode::Dump;
    let listed: Vec<Listed> = postgres.query(ADMIN_DATABASE, LIST, code).await?;
    if let Some(configured) = &settings.databases {
        check_configured(configured, &listed)?;
    }
    let mut databases = Databases::default();
    for one in listed {
        let name = &one.catalog.datname;
        let ours = name.starts_with(RESTORE_PREFIX) || name.starts_with(OLD_PREFIX);
        let configured = settings.databases.as_ref().map(|all| all.contains(name));
        if !configured.unwrap_or(!ours && name != EMPTY_TEMPLATE) {
            continue;
        }
        if !one.catalog.datallowconn {
            databases.skip(name, "it allows no connections");
            continue;
        }
        let inside = postgres.query::<Inside>(name, INSIDE, code).await;
        let inside = match inside {
            Err(_) if configured.is_none() && is_gone(postgres, name).await => {
                databases.skip(name, DROPPED);
                continue;
            }
            inside => inside?,
        };
        let has_own = inside.own_objects || one.has_own_properties();
        if configured.is_some() || !one.catalog.datistemplate || has_own {
            databases.wanted.push(one.into_properties(inside));
        }
    }
    Ok(databases)
}

/// Returns whether no database has this name any more, and `false` if the query fails.
pub(crate) async fn is_gone(postgres: &Postgres, name: &str) -> bool {
    let name = literal(name);
    let query =
        format!("SELECT to_json(NOT EXISTS (SELECT FROM pg_database WHERE datname = {name}))");
    let gone = postgres.query(ADMIN_DATABASE, &query, ExitCode::Dump);
    gone.await.unwrap_or(false)
}

impl Databases {
    /// Leaves out a database, with a line in the log.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        tracing::warn!(
            database = name,
            reason,
            "the backup does not contain a database"
        );
        self.skipped.push(SkippedDatabase {
            name: name.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

/// Checks that every configured database exists and allows connections.
fn check_configured(configured: &[String], listed: &[Listed]) -> Result<()> {
    let usable = |name: &String| {
        let found = listed.iter().find(|one| one.catalog.datname == *name);
        found.is_some_and(|one| one.catalog.datallowconn)
    };
    let missing: Vec<&String> = configured.iter().filter(|name| !usable(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "[postgres] databases names {missing:?}, but the server has no such database or it refuses connections; create \
         the database or correct the settings"
    );
    Err(Failure::new(ExitCode::Settings, message))
}

impl Listed {
    /// Returns whether a template has properties that `initdb` did not give it. Without objects of its own, only they make
    /// it worth a backup.
    fn has_own_properties(&self) -> bool {
        let usual = |grant: &Grant| match &grant.grantee {
            None => grant.privilege == "CONNECT",
            Some(grantee) => *grantee == self.owner && !grant.grantable,
        };
        let usual_grants = self
            .acl
            .as_ref()
            .is_some_and(|acl| acl.len() == USUAL_GRANTS_OF_A_TEMPLATE && acl.iter().all(usual));
        let usual_comment = self.comment.as_deref() == Some(COMMENT_OF_TEMPLATE1);
        let has_own_texts = match self.catalog.datname.as_str() {
            ADMIN_DATABASE => !(usual_grants && usual_comment),
            _ => self.acl.is_some() || self.comment.is_some(),
        };
        has_own_texts
            || !self.settings.is_empty()
            || !self.security_labels.is_empty()
            || self.catalog.datconnlimit != -1
    }

    fn into_properties(self, inside: Inside) -> DatabaseProperties {
        let catalog = self.catalog;
        DatabaseProperties {
            name: catalog.datname,
            oid: self.oid,
            encoding: self.encoding,
            collate: catalog.datcollate,
            ctype: catalog.datctype,
            provider: match catalog.datlocprovider.as_deref() {
                Some("i") => LocaleProvider::Icu,
                Some("b") => LocaleProvider::Builtin,
                _ => LocaleProvider::Libc,
            },
            locale: catalog.datlocale.or(catalog.daticulocale),
            icu_rules: catalog.daticurules,
            owner: self.owner,
            tablespace: self.tablespace,
            connection_limit: catalog.datconnlimit,
            is_template: catalog.datistemplate,
            allow_connections: catalog.datallowconn,
            acl: self.acl,
            settings: self.settings,
            comment: self.comment,
            security_labels: self.security_labels,
            size: self.size,
            extensions: inside.extensions,
            tablespaces: inside.tablespaces,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test]
    async fn only_the_applications_databases_are_backed_up() {
        let mut cluster = Cluster::start();
        for name in [
            "app",
            "rekindle__restore_0a1b2c3d_0",
            "rekindle__old_0a1b2c3d_0",
        ] {
            let script = format!("CREATE DATABASE {name}");
            cluster.sql("postgres", &script).await;
        }
        let names = async |cluster: &Cluster| {
            let all = list(&cluster.postgres(), &cluster.settings).await;
            all.map(|all| {
                let names = all.wanted.into_iter().map(|one| one.name);
                names.collect::<Vec<_>>()
            })
        };
        assert_eq!(names(&cluster).await.unwrap(), ["app", "postgres"]);

        for (own, usual) in [
            (
                "ALTER DATABASE template1 SET work_mem = '5MB'",
                "ALTER DATABASE template1 RESET ALL",
            ),
            (
                "COMMENT ON DATABASE template1 IS 'ours'",
                "COMMENT ON DATABASE template1 IS 'default template for new databases'",
            ),
            (
                "REVOKE CONNECT ON DATABASE template1 FROM PUBLIC",
                "GRANT CONNECT ON DATABASE template1 TO PUBLIC",
            ),
        ] {
            cluster.sql("postgres", own).await;
            let found = names(&cluster).await.unwrap();
            assert_eq!(found, ["app", "postgres", "template1"], "{own}");
            cluster.sql("postgres", usual).await;
            assert_eq!(names(&cluster).await.unwrap(), ["app", "postgres"]);
        }

        cluster.sql("template1", "CREATE TABLE own ()").await;
        let with_template = ["app", "postgres", "template1"];
        assert_eq!(names(&cluster).await.unwrap(), with_template);

        assert!(!is_gone(&cluster.postgres(), "app").await);
        assert!(is_gone(&cluster.postgres(), "it's gone").await);

        cluster.settings.databases = Some(vec!["app".to_owned()]);
        assert_eq!(names(&cluster).await.unwrap(), ["app"]);

        cluster.settings.databases = Some(vec!["app".to_owned(), "ap".to_owned()]);
        let failure = names(&cluster).await.unwrap_err();
        assert_eq!(failure.code, ExitCode::Settings);
        assert!(
            failure
                .chain()
                .starts_with("[postgres] databases names [\"ap\"]")
        );
    }
}
