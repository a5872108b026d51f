//! Restores one database under a temporary name, and compares it with its recorded contents.

use shared::layout;
use shared::manifest::Index;
use shared::report::exceptions::Exception;

use crate::agent::failure::Result;
use crate::context::Context;
use crate::objects::contents::DatabaseContents;
use crate::postgres::own_databases::drop_databases;
use crate::restore::load::{self, RefusedEntries, Source};
use crate::restore::{exceptions, fetch, verify};

/// The restore of one database.
pub(super) struct Restore<'a> {
    pub(super) context: &'a Context,
    pub(super) index: &'a Index,
    /// The database's number in the index.
    pub(super) number: usize,
    /// Its name until the swap.
    pub(super) temporary: &'a str,
    pub(super) recorded: &'a DatabaseContents,
    pub(super) server_version: u32,
}

impl Restore<'_> {
    /// Restores the database. Returns its number of rows, and its exceptions.
    pub(super) async fn run(&self) -> Result<(u64, Vec<Exception>)> {
        let (postgres, properties) = (&self.context.postgres, &self.recorded.properties);
        let mut exceptions = self.create().await?;
        let (refused, more) = self.load().await?;
        exceptions.extend(more);
        if let Some(refused) = &refused {
            let database = exceptions::Database {
                temporary: self.temporary,
                own: &properties.name,
                server_version: self.server_version,
            };
            exceptions.extend(exceptions::repair(self.context, database, refused).await?);
        }
        let entries = refused.as_ref().map(|refused| refused.entries.as_slice());
        let verified = verify::verify(
            postgres,
            self.temporary,
            self.recorded,
            entries.unwrap_or_default(),
            self.server_version,
            load::sessions(),
        );
        let rows = match (verified.await, refused) {
            (Ok(rows), _) => rows,
            // The refused statements are the cause of the missing rows.
            (Err(failure), Some(refused)) => {
                return Err(refused.failure.context(failure.chain()));
            }
            (Err(failure), None) => return Err(failure),
        };
        exceptions.extend(properties.apply(postgres, self.temporary).await?);
        tracing::info!(database = properties.name, rows, "restored and verified");
        Ok((rows, exceptions))
    }

    async fn create(&self) -> Result<Vec<Exception>> {
        let tablespaces = self.context.settings.postgres.tablespaces;
        let (postgres, version) = (&self.context.postgres, self.server_version);
        let properties = &self.recorded.properties;
        properties
            .create(postgres, self.temporary, version, tablespaces)
            .await
    }

    /// Loads the dump. If the server refuses rows, loads it again into a new database, with the checks of these tables
    /// added when all rows are there.
    async fn load(&self) -> Result<(Option<RefusedEntries>, Vec<Exception>)> {
        let plain_bytes = self.index.databases.get(self.number);
        let source = Source {
            context: self.context,
            record: fetch::record(self.index, &layout::dump(self.number))?,
            plain_bytes: plain_bytes.map_or(0, |database| database.dump_bytes),
            database: self.temporary,
            server_version: self.server_version,
        };
        let refused = load::dump(source).await?;
        let tables = refused.as_ref().map(RefusedEntries::tables);
        let tables = tables.unwrap_or_default();
        if tables.is_empty() {
            return Ok((refused, Vec::new()));
        }
        let own_name = &self.recorded.properties.name;
        tracing::warn!(
            database = own_name,
            ?tables,
            "the server refuses rows of the backup; restoring the database again, and adding the checks of these tables \
             when all rows are there"
        );
        drop_databases(&self.context.postgres, &[self.temporary.to_owned()]).await?;
        self.create().await?;
        load::without_checks(source, &tables, own_name).await
    }
}
