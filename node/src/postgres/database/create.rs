//! Creates a database with a backup's properties, and applies the properties that must wait until its data are
//! restored.

use shared::report::exceptions::Exception;

use crate::agent::failure::Result;
use crate::postgres::attempt::{Attempt, try_all};
use crate::postgres::client::{ADMIN_DATABASE, Postgres};
use crate::postgres::database::properties::{DatabaseProperties, Grant, LocaleProvider};
use crate::postgres::quote::{identifier, literal};
use crate::postgres::setting::Setting;
use crate::settings::Tablespaces;

impl DatabaseProperties {
    /// Creates an empty database with these properties' encoding, locale, owner, tablespace and settings, including those
    /// of roles in it. `server_version` is the target's `server_version_num`.
    ///
    /// The settings must be in force when constraints are checked and materialized views are filled. Returns an exception
    /// for each setting that the server refuses.
    pub(crate) async fn create(
        &self,
        postgres: &Postgres,
        name: &str,
        server_version: u32,
        tablespaces: Tablespaces,
    ) -> Result<Vec<Exception>> {
        let creation = self.creation_script(name, server_version, tablespaces);
        let settings = self.settings(name);
        let own = Some(self.name.as_str());
        try_all(postgres, ADMIN_DATABASE, &creation, &settings, false, own).await
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

    /// Returns the statements for the settings of the database, and of roles in it.
    fn settings(&self, name: &str) -> Vec<Attempt> {
        let statement = |setting: &Setting, name: &str| {
            let database = identifier(name);
            let target = match &setting.role {
                Some(role) => format!("ROLE {} IN DATABASE {database}", identifier(role)),
                None => format!("DATABASE {database}"),
            };
            setting.statement(&target)
        };
        let attempts = self.settings.iter().map(|setting| Attempt {
            kind: "DATABASE SETTING".to_owned(),
            object: setting.name().to_owned(),
            statement: statement(setting, name),
            remedy: statement(setting, &self.name),
        });
        attempts.collect()
    }

    /// Applies all other properties to a restored database. This comes after its data: a connection limit would prevent
    /// the restore. Returns an exception for each grant, comment or label that the server refuses.
    pub(crate) async fn apply(&self, postgres: &Postgres, name: &str) -> Result<Vec<Exception>> {
        let (script, attempts) = (self.properties_script(name), self.extras(name));
        let own = Some(self.name.as_str());
        try_all(postgres, ADMIN_DATABASE, &script, &attempts, true, own).await
    }

    fn properties_script(&self, name: &str) -> String {
        let (database, owner) = (identifier(name), identifier(&self.owner));
        let mut script = vec![format!(
            "ALTER DATABASE {database} CONNECTION LIMIT {};\n",
            self.connection_limit
        )];
        if self.is_template {
            // ALTER DATABASE has the option IS_TEMPLATE only from version 9.5 on.
            script.push(format!(
                "UPDATE pg_catalog.pg_database SET datistemplate = true WHERE datname = {};\n",
                literal(name)
            ));
        }
        if self.acl.is_some() {
            script.push(format!(
                "REVOKE ALL ON DATABASE {database} FROM PUBLIC;\nREVOKE ALL ON DATABASE {database} FROM {owner};\n"
            ));
        }
        script.concat()
    }

    /// Returns the statements for the database's grants, comment and labels.
    fn extras(&self, name: &str) -> Vec<Attempt> {
        let own = self.extra_statements(&self.name);
        let statements = self.extra_statements(name).into_iter().zip(own);
        let attempts = statements.map(|((kind, statement), (_, remedy))| Attempt {
            kind: kind.to_owned(),
            object: self.name.clone(),
            statement,
            remedy,
        });
        attempts.collect()
    }

    fn extra_statements(&self, name: &str) -> Vec<(&'static str, String)> {
        let database = identifier(name);
        let mut statements = Vec::new();
        for grant in self.in_order(self.acl.as_deref().unwrap_or_default()) {
            statements.push(("DATABASE GRANT", self.grant(&database, grant)));
        }
        if let Some(comment) = &self.comment {
            let statement = format!("COMMENT ON DATABASE {database} IS {};\n", literal(comment));
            statements.push(("DATABASE COMMENT", statement));
        }
        for label in &self.security_labels {
            let (provider, text) = (identifier(&label.provider), literal(&label.label));
            let statement =
                format!("SECURITY LABEL FOR {provider} ON DATABASE {database} IS {text};\n");
            statements.push(("DATABASE SECURITY LABEL", statement));
        }
        statements
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
