//! The origin of the node's data. Every backup checks it: only the application's current data may become a backup.

use shared::command::{BackupCommand, Purpose};
use shared::exit_code::ExitCode;
use shared::manifest::Lineage;

use crate::agent::failure::{Failure, Result};
use crate::agent::marker::Marker;
use crate::context::Context;
use crate::postgres::server::Server;

/// Returns the marker that was written on this instance for this application. If there is none, returns `None` if the
/// backup adopts the node, and fails otherwise.
pub(super) fn marker(context: &Context, purpose: Purpose) -> Result<Option<Marker>> {
    let marker = context.marker()?;
    if marker.is_some() || purpose == Purpose::Adopt {
        return Ok(marker);
    }
    Err(not_restored(context, ""))
}

/// Returns the origin of the node's data. A marker that names another cluster does not count.
pub(super) fn lineage(
    context: &Context,
    purpose: Purpose,
    marker: Option<Marker>,
    server: &Server,
) -> Result<Lineage> {
    let cluster = &server.system_identifier;
    match marker.and_then(|marker| marker.lineage_of(cluster)) {
        Some(lineage) => Ok(lineage),
        None if purpose == Purpose::Adopt => Ok(Lineage::Adopted),
        None => Err(not_restored(
            context,
            &format!(" with the cluster {cluster}"),
        )),
    }
}

fn not_restored(context: &Context, cluster: &str) -> Failure {
    let message = format!(
        "refused to back up {}{cluster}: it has no valid restored marker for the application {}; replace the instance, or \
         send the request adopt if it has the application's current data",
        context.instance_id, context.settings.application
    );
    Failure::new(ExitCode::NotRestored, message)
}

/// Records that the node has the application's data. Before this, all data must be in S3.
pub(super) fn adopt(context: &Context, command: &BackupCommand, server: &Server) -> Result<()> {
    context.write_marker(&command.operation_id, server, Lineage::Adopted)
}
