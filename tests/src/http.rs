//! Serving HTTP as AWS does: an answer is sent at once, however short it is.

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// Serves routes until the task ends. `what` says in the log whose listener failed.
///
/// Without `TCP_NODELAY`, the body of a short answer waits for the head's acknowledgement, which a client's kernel holds
/// back for 40 ms.
pub async fn serve(what: &str, listener: TcpListener, routes: Router) {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            // Gone already, which is for the client to notice.
            tracing::debug!(%error, "a connection has no TCP_NODELAY");
        }
    });
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "{what} ended");
    }
}
