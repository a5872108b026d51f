//! Creates a database with a backup's properties, and applies the properties that must wait until its data are
//! restored.

use shared::exit_code::ExitCode;

use crate::agent::failure::Result;
use crate::postgres::client::{ADMIN_DATABASE, Postgres};
use crate::postgres::database::properties::{DatabaseProperties, Grant, LocaleProvider};
use crate::postgres::quote::{identifier, literal};
use crate::settings::Tablespaces;

impl DatabaseProperties {
    /// Creates an empty database with these properties' encoding, locale, owner, tablespace and settings, including those
    /// of roles in it. `server_version` is the target's `server_version_num`.
    ///
    /// The settings must be in force when constraints are checked and materialized views are filled.
    pub(crate) async fn create(
        &self,
        postgres: &Postgres,
        name: &str,
        server_version: u32,
        tablespaces: Tablespaces,
    ) -> Result<()> {
        let creation = self.creation_script(name, server_version, tablespaces);
        let script = creation + &self.settings_script(name);
        postgres
            .script(ADMIN_DATABASE, &script, ExitCode::Restore)
            .await?;
        Ok(())
    }

    fn creation_script(&self, name: &str, server_version: u32, tablespaces: Tablespaces) -> String {
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
            // From version 15 on, the default is the provider of template0, which may be another one.
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

    /// Returns the settings of the database, and of roles in it, as one transaction.
    fn settings_script(&self, name: &str) -> String {
        let database = identifier(name);
        let settings = self.settings.iter().map(|setting| match &setting.role {
            Some(role) => {
                setting.statement(&format!("ROLE {} IN DATABASE {database}", identifier(role)))
            }
            None => setting.statement(&format!("DATABASE {database}")),
        });
        format!("BEGIN;\n{}COMMIT;\n", settings.collect::<String>())
    }

    /// Applies all other properties to a restored database. This comes after its data: a connection limit would prevent
    /// the restore.
    pub(crate) async fn apply(&self, postgres: &Postgres, name: &str) -> Result<()> {
        let script = self.properties_script(name);
        postgres
            .script(ADMIN_DATABASE, &script, ExitCode::Restore)
            .await?;
        Ok(())
    }

    fn properties_script(&self, name: &str) -> String {
        let database = identifier(name);
        let mut script = vec!["BEGIN;\n".to_owned()];
        script.push(format!(
            "ALTER DATABASE {database} CONNECTION LIMIT {};\n",
            self.connection_limit
        ));
        if self.is_template {
            // ALTER DATABASE has the option IS_TEMPLATE only from version 9.5 on.
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

    /// Orders grants so that each grantor has its grant option before it grants.
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
        // The server records a grant by a superuser as one by the owner.
        let grantor = literal(&grant.grantor);
        format!("SET SESSION AUTHORIZATION {grantor};\n{statement}RESET SESSION AUTHORIZATION;\n")
    }
}

#[cfg(test)]
mod tests;
