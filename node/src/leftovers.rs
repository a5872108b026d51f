//! Ends and removes what a killed agent left on the node.

use crate::agent::failure::Result;
use crate::context::Context;
use crate::files::{on_node, staging};
use crate::postgres::orphans::end_tools_and_sessions;
use crate::postgres::own_databases::{OLD_PREFIX, RESTORE_PREFIX, drop_with_prefixes};

/// Ends the tools and sessions of an earlier agent, and then removes the databases and staging directories of an
/// earlier restore. The node also works if these stay, so a failure to remove them is only logged.
pub(crate) async fn remove(context: &Context) -> Result<()> {
    end_tools_and_sessions(&context.postgres).await?;
    let databases = drop_with_prefixes(&context.postgres, &[RESTORE_PREFIX, OLD_PREFIX]).await;
    let paths = context.settings.configuration_paths.iter();
    let paths = paths.map(|path| on_node(&context.root, path));
    for removed in [databases, staging::remove_leftovers(paths)] {
        if let Err(failure) = removed {
            tracing::warn!(
                reason = failure.chain(),
                "cannot remove what an earlier restore left; the next backup or restore tries again"
            );
        }
    }
    Ok(())
}
