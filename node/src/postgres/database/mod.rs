//! Database-level properties. Neither `pg_dumpall --globals-only` nor a restore into a database of another name
//! has them, so they are read from the catalogs and applied again here.
//!
//! Columns of `pg_database` that only some versions have are read through `row_to_json`, so that one query serves
//! every server from 9.4 on.

use serde::{Deserialize, Serialize};
use shared::report::ExitCode;

use crate::agent::failure::{Failure, Result};
use crate::postgres::setting::{Setting, assignment};
use crate::postgres::{ADMIN_DATABASE, Postgres, identifier, literal};
use crate::settings::{PostgresSettings, Tablespaces};

/// How the names of databases that a restore makes begin. Those are never backed up.
pub(crate) const RESTORE_PREFIX: &str = "rekindle__restore_";
/// How the names of databases that a restore replaced begin.
pub(crate) const OLD_PREFIX: &str = "rekindle__old_";

/// A database, apart from what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseProperties {
    /// Its name.
    pub(crate) name: String,
    /// Its oid on the server that was backed up.
    pub(crate) oid: u32,
    /// The encoding's name.
    pub(crate) encoding: String,
    /// `LC_COLLATE`.
    pub(crate) collate: String,
    /// `LC_CTYPE`.
    pub(crate) ctype: String,
    /// What compares texts.
    pub(crate) provider: LocaleProvider,
    /// The ICU or builtin locale, from version 15 on.
    pub(crate) locale: Option<String>,
    /// Additional ICU collation rules, from version 16 on.
    pub(crate) icu_rules: Option<String>,
    /// The owner's role.
    pub(crate) owner: String,
    /// The default tablespace.
    pub(crate) tablespace: String,
    /// The most concurrent connections; -1 is no limit.
    pub(crate) connection_limit: i32,
    /// Whether everybody may copy it.
    pub(crate) is_template: bool,
    /// Whether it can be connected to.
    pub(crate) allow_connections: bool,
    /// Who may do what; none means the server's defaults, which an empty list does not.
    pub(crate) acl: Option<Vec<Grant>>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub(crate) settings: Vec<Setting>,
    /// `COMMENT ON DATABASE`.
    pub(crate) comment: Option<String>,
    /// `SECURITY LABEL … ON DATABASE`.
    pub(crate) security_labels: Vec<SecurityLabel>,
    /// `pg_database_size`, in bytes.
    pub(crate) size: u64,
    /// The extensions that are installed in it.
    pub(crate) extensions: Vec<Extension>,
    /// The tablespaces that it or anything in it uses.
    pub(crate) tablespaces: Vec<String>,
}

/// Who compares and classifies characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LocaleProvider {
    /// The C library; the only one before version 15.
    Libc,
    /// ICU.
    Icu,
    /// Postgres itself, from version 17 on.
    Builtin,
}

/// One privilege on a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// The role that granted it.
    pub(crate) grantor: String,
    /// The role that has it; none is PUBLIC.
    pub(crate) grantee: Option<String>,
    /// `CONNECT`, `CREATE`, `TEMPORARY`.
    pub(crate) privilege: String,
    /// `WITH GRANT OPTION`.
    pub(crate) grantable: bool,
}

/// A label of a security provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecurityLabel {
    /// The provider.
    pub(crate) provider: String,
    /// Its label.
    pub(crate) label: String,
}

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extension {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
}

/// What the query of the cluster says of one database.
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

/// The columns of `pg_database`, as far as they are used; those that came with a later version may be absent.
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

/// What only a session in the database itself can see.
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

/// Every initial object has an oid below 16384.
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

/// Lists the databases to back up: the configured ones, or every one that allows connections, in which case a
/// template counts only if it has objects of its own. What a restore has made or replaced never counts.
pub(crate) async fn list(
    postgres: &Postgres,
    settings: &PostgresSettings,
) -> Result<Vec<DatabaseProperties>> {
    let code = ExitCode::Dump;
    let listed: Vec<Listed> = postgres.query(ADMIN_DATABASE, LIST, code).await?;
    if let Some(configured) = &settings.databases {
        let usable = |name: &String| {
            let found = listed.iter().find(|one| one.catalog.datname == *name);
            found.is_some_and(|one| one.catalog.datallowconn)
        };
        let missing: Vec<&str> = configured
            .iter()
            .filter(|name| !usable(name))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            let message = format!(
                "[postgres] databases names {missing:?}, which the server does not have or which refuses \
                 connections: create it, or correct the settings"
            );
            return Err(Failure::new(ExitCode::Settings, message));
        }
    }
    let mut databases = Vec::new();
    for one in listed {
        let name = &one.catalog.datname;
        let ours = name.starts_with(RESTORE_PREFIX) || name.starts_with(OLD_PREFIX);
        let configured = settings.databases.as_ref().map(|all| all.contains(name));
        let wanted = configured.unwrap_or(one.catalog.datallowconn && !ours);
        if !wanted {
            continue;
        }
        let inside: Inside = postgres.query(name, INSIDE, code).await?;
        if configured.is_some() || !one.catalog.datistemplate || inside.own_objects {
            databases.push(one.with(inside));
        }
    }
    Ok(databases)
}

impl Listed {
    fn with(self, inside: Inside) -> DatabaseProperties {
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

impl DatabaseProperties {
    /// Creates an empty database with this one's encoding, locale, owner and tablespace. `server_version` is the
    /// target's `server_version_num`.
    pub(crate) async fn create(
        &self,
        postgres: &Postgres,
        name: &str,
        server_version: u32,
        tablespaces: Tablespaces,
    ) -> Result<()> {
        let script = self.creation(name, server_version, tablespaces);
        postgres
            .script(ADMIN_DATABASE, &script, ExitCode::Restore)
            .await?;
        Ok(())
    }

    fn creation(&self, name: &str, server_version: u32, tablespaces: Tablespaces) -> String {
        let mut script = vec![format!(
            "CREATE DATABASE {} WITH TEMPLATE template0 OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            identifier(name),
            identifier(&self.owner),
            literal(&self.encoding),
            literal(&self.collate),
            literal(&self.ctype),
        )];
        let locale = self.locale.as_deref().unwrap_or_default();
        match self.provider {
            // From 15 on a database takes its provider from template0, which may have another one.
            LocaleProvider::Libc if server_version >= 150_000 => {
                script.push(" LOCALE_PROVIDER libc".to_owned());
            }
            LocaleProvider::Libc => {}
            LocaleProvider::Icu => {
                script.push(format!(
                    " LOCALE_PROVIDER icu ICU_LOCALE {}",
                    literal(locale)
                ));
                if let Some(rules) = &self.icu_rules {
                    script.push(format!(" ICU_RULES {}", literal(rules)));
                }
            }
            LocaleProvider::Builtin => {
                script.push(format!(
                    " LOCALE_PROVIDER builtin BUILTIN_LOCALE {}",
                    literal(locale)
                ));
            }
        }
        if tablespaces == Tablespaces::Fail {
            script.push(format!(" TABLESPACE {}", identifier(&self.tablespace)));
        }
        script.concat() + ";\n"
    }

    /// Gives a restored database everything else that this one had. It comes after the data: a connection limit
    /// or a setting such as `default_transaction_read_only` would otherwise stand in the restore's own way.
    pub(crate) async fn apply(&self, postgres: &Postgres, name: &str) -> Result<()> {
        let script = self.application(name);
        postgres
            .script(ADMIN_DATABASE, &script, ExitCode::Restore)
            .await?;
        Ok(())
    }

    fn application(&self, name: &str) -> String {
        let database = identifier(name);
        let mut script = vec!["BEGIN;\n".to_owned()];
        script.push(format!(
            "ALTER DATABASE {database} CONNECTION LIMIT {};\n",
            self.connection_limit
        ));
        if self.is_template {
            // `IS_TEMPLATE` is an option of ALTER DATABASE from 9.5 on only.
            script.push(format!(
                "UPDATE pg_catalog.pg_database SET datistemplate = true WHERE datname = {};\n",
                literal(name)
            ));
        }
        if let Some(grants) = &self.acl {
            let owner = identifier(&self.owner);
            script.push(format!(
                "REVOKE ALL ON DATABASE {database} FROM PUBLIC;\nREVOKE ALL ON DATABASE {database} FROM {owner};\n"
            ));
            for grant in self.in_order(grants) {
                script.push(self.grant(&database, grant));
            }
        }
        for setting in &self.settings {
            let target = match &setting.role {
                Some(role) => format!("ROLE {} IN DATABASE {database}", identifier(role)),
                None => format!("DATABASE {database}"),
            };
            script.push(format!(
                "ALTER {target} SET {};\n",
                assignment(&setting.assignment)
            ));
        }
        if let Some(comment) = &self.comment {
            script.push(format!(
                "COMMENT ON DATABASE {database} IS {};\n",
                literal(comment)
            ));
        }
        for label in &self.security_labels {
            script.push(format!(
                "SECURITY LABEL FOR {} ON DATABASE {database} IS {};\n",
                identifier(&label.provider),
                literal(&label.label)
            ));
        }
        script.push("COMMIT;\n".to_owned());
        script.concat()
    }

    /// Orders grants so that whoever grants has the grant option by then.
    fn in_order<'a>(&self, grants: &'a [Grant]) -> Vec<&'a Grant> {
        let mut ordered: Vec<&Grant> = Vec::new();
        let mut open: Vec<&Grant> = grants.iter().collect();
        loop {
            let ready = |grant: &&Grant| {
                grant.grantor == self.owner
                    || ordered.iter().any(|earlier| {
                        earlier.grantable
                            && earlier.grantee.as_ref() == Some(&grant.grantor)
                            && earlier.privilege == grant.privilege
                    })
            };
            let (now, later): (Vec<&Grant>, Vec<&Grant>) = open.into_iter().partition(ready);
            ordered.extend(&now);
            if now.is_empty() || later.is_empty() {
                ordered.extend(later);
                return ordered;
            }
            open = later;
        }
    }

    fn grant(&self, database: &str, grant: &Grant) -> String {
        let grantee = grant.grantee.as_deref().map(identifier);
        let statement = format!(
            "GRANT {} ON DATABASE {database} TO {}{};\n",
            grant.privilege,
            grantee.as_deref().unwrap_or("PUBLIC"),
            if grant.grantable {
                " WITH GRANT OPTION"
            } else {
                ""
            },
        );
        if grant.grantor == self.owner {
            return statement;
        }
        // What a superuser grants counts as granted by the owner.
        let grantor = literal(&grant.grantor);
        format!("SET SESSION AUTHORIZATION {grantor};\n{statement}RESET SESSION AUTHORIZATION;\n")
    }
}

#[cfg(test)]
mod tests;
