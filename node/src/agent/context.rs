//! What every operation works with, put together once.

use std::path::PathBuf;

use shared::id::InstanceId;

use crate::agent::cloud_init as boot;
use crate::agent::failure::Result;
use crate::agent::instance;
use crate::agent::state::State;
use crate::agent::watchdog::Progress;
use crate::postgres::Postgres;
use crate::s3;
use crate::s3::open_uploads::OpenUploads;
use crate::settings::Settings;

/// The node, its settings, and the ways to Postgres and S3.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// What every path is prefixed with; `/` on a real node.
    pub(crate) root: PathBuf,
    /// The application's settings.
    pub(crate) settings: Settings,
    /// This instance.
    pub(crate) instance_id: InstanceId,
    /// The server's tools.
    pub(crate) postgres: Postgres,
    /// The client for the settings' bucket and region.
    pub(crate) s3: aws_sdk_s3::Client,
    /// Touched by everything that moves.
    pub(crate) progress: Progress,
    /// The multipart uploads that must not outlive the agent.
    pub(crate) uploads: OpenUploads,
}

impl Context {
    /// Asks the instance for its id, waits until its first boot is over, and reads the settings.
    pub(crate) async fn gather(
        state: &State,
        progress: &Progress,
        uploads: &OpenUploads,
    ) -> Result<Self> {
        let instance_id = instance::instance_id().await?;
        boot::wait_finished(state.root(), &instance_id).await;
        let settings = Settings::load(state.root())?;
        Ok(Self {
            root: state.root().to_owned(),
            s3: s3::client(&settings).await,
            instance_id,
            postgres: Postgres::new(settings.postgres.clone()),
            settings,
            progress: progress.clone(),
            uploads: uploads.clone(),
        })
    }
}
