//! Removes what an agent that was killed during a restore left on the node.

use crate::context::Context;
use crate::files::{on_node, staging};
use crate::postgres::own_databases::{OLD_PREFIX, RESTORE_PREFIX, drop_with_prefixes};

/// Removes the databases and staging directories of an earlier restore. The node also works if they
/// stay, so a failure is only logged.
pub(crate) async fn remove(context: &Context) {
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
}
