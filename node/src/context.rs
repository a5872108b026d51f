//! Everything that a backup or a restore needs.

use std::path::PathBuf;

use shared::id::InstanceId;
use shared::manifest::Lineage;
use shared::operation::Operation;
use time::OffsetDateTime;

use crate::agent::failure::Result;
use crate::agent::marker::Marker;
use crate::agent::state::State;
use crate::agent::watchdog::Progress;
use crate::agent::{cloud_init, instance};
use crate::postgres::Postgres;
use crate::postgres::server::Server;
use crate::s3::Bucket;
use crate::s3::open_uploads::OpenUploads;
use crate::settings::Settings;

/// The node, its settings, and the clients of Postgres and S3.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The prefix of every path; `/` on a real node.
    pub(crate) root: PathBuf,
    /// The application's settings.
    pub(crate) settings: Settings,
    /// The instance that the agent runs on.
    pub(crate) instance_id: InstanceId,
    /// The server, with its tools.
    pub(crate) postgres: Postgres,
    /// The bucket of backups.
    pub(crate) bucket: Bucket,
    /// The counter that the watchdog reads.
    pub(crate) progress: Progress,
}

impl Context {
    /// Gets the instance's id, waits until cloud-init has finished its first boot, and reads the settings.
    pub(crate) async fn gather(
        state: &State,
        progress: &Progress,
        uploads: &OpenUploads,
    ) -> Result<Self> {
        let instance_id = instance::instance_id().await?;
        cloud_init::wait_finished(state.root(), &instance_id).await;
        let settings = Settings::load(state.root())?;
        Ok(Self {
            root: state.root().to_owned(),
            bucket: Bucket::open(&settings, progress, uploads).await,
            instance_id,
            postgres: Postgres::new(settings.postgres.clone()),
            settings,
            progress: progress.clone(),
        })
    }

    /// Returns the `restored` marker that was written on this instance for this application, or `None` if there is
    /// none. It proves nothing before its cluster is compared with the server's ([`Marker::lineage_of`]).
    pub(crate) fn marker(&self) -> Result<Option<Marker>> {
        let marker = Marker::load(&self.root)?;
        Ok(marker.filter(|marker| marker.is_of(&self.settings.application, &self.instance_id)))
    }

    /// Writes the `restored` marker: from now on, this node and this cluster have the application's data.
    pub(crate) fn write_marker(
        &self,
        operation: &Operation,
        server: &Server,
        lineage: Lineage,
    ) -> Result<()> {
        let marker = Marker {
            application: self.settings.application.clone(),
            instance_id: self.instance_id.clone(),
            system_identifier: server.system_identifier.clone(),
            lineage,
            operation_id: operation.clone(),
            time: OffsetDateTime::now_utc(),
        };
        marker.store(&self.root)
    }
}
