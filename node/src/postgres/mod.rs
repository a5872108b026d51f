//! The Postgres server: its tools, its catalogs, and the format of its dumps.

pub mod archive;
pub(crate) mod attempt;
pub(crate) mod client;
pub(crate) mod database;
pub(crate) mod encoding;
pub(crate) mod orphans;
pub(crate) mod own_databases;
pub(crate) mod quote;
pub(crate) mod relation;
pub(crate) mod server;
pub mod session;
pub(crate) mod setting;
pub mod statement;
pub(crate) mod system_setting;

pub(crate) use self::client::{ADMIN_DATABASE, Postgres};
