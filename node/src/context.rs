//! What every operation works with, put together once.

use std::path::PathBuf;

use shared::id::InstanceId;

use crate::failure::Result;
use crate::instance;
use crate::postgres::Postgres;
use crate::s3;
use crate::settings::Settings;
use crate::state::State;
use crate::upload::OpenUploads;
use crate::watch::Progress;

/// The node, its settings, and the ways to Postgres and S3.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// What every path is prefixed with; `/` on a real node.
    pub(crate) root: PathBuf,
    /// The agent's own directory.
    pub(crate) state: State,
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
    /// Reads the settings and asks the instance for its id.
    pub(crate) async fn gather(
        state: State,
        settings: Settings,
        progress: Progress,
        uploads: OpenUploads,
    ) -> Result<Self> {
        let instance_id = instance::instance_id().await?;
        let s3 = s3::client(&settings).await;
        Ok(Self {
            root: state.root().to_owned(),
            postgres: Postgres::new(settings.postgres.clone()),
            state,
            settings,
            instance_id,
            s3,
            progress,
            uploads,
        })
    }
}
