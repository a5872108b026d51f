//! The properties of a database. Neither `pg_dumpall --globals-only` nor a restore into a database of another name
//! brings them back, so a backup reads them from the catalogs and a restore applies them.

use serde::{Deserialize, Serialize};

use crate::postgres::setting::Setting;

/// A database's properties, without its relations and rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseProperties {
    /// The database's name.
    pub(crate) name: String,
    /// The oid on the server that was backed up.
    pub(crate) oid: u32,
    /// The encoding's name.
    pub(crate) encoding: String,
    /// `LC_COLLATE`.
    pub(crate) collate: String,
    /// `LC_CTYPE`.
    pub(crate) ctype: String,
    /// The locale provider.
    pub(crate) provider: LocaleProvider,
    /// The ICU or builtin locale, from version 15 on.
    pub(crate) locale: Option<String>,
    /// Additional ICU collation rules, from version 16 on.
    pub(crate) icu_rules: Option<String>,
    /// The owner's role.
    pub(crate) owner: String,
    /// The default tablespace.
    pub(crate) tablespace: String,
    /// The maximum of concurrent connections; -1 is no limit.
    pub(crate) connection_limit: i32,
    /// Whether every role with `CREATEDB` may copy it.
    pub(crate) is_template: bool,
    /// Whether clients can connect to it.
    pub(crate) allow_connections: bool,
    /// The privileges. `None` means the server's defaults; an empty list means no privileges.
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
    /// The tablespaces that the database or any of its relations uses.
    pub(crate) tablespaces: Vec<String>,
}

/// The library that compares and classifies characters.
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
    /// The role that has it; `None` is PUBLIC.
    pub(crate) grantee: Option<String>,
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub(crate) privilege: String,
    /// `WITH GRANT OPTION`.
    pub(crate) grantable: bool,
}

/// A label of a security provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecurityLabel {
    /// The provider's name.
    pub(crate) provider: String,
    /// The label.
    pub(crate) label: String,
}

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extension {
    /// The extension's name.
    pub(crate) name: String,
    /// The installed version.
    pub(crate) version: String,
}
