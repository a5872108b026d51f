//! Serves HTTP and sends every answer at once, as AWS does.

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// Serves routes until the task ends. `what` names the listener in the log.
///
/// It sets `TCP_NODELAY`. Without it, the body of a short answer waits for the acknowledgement of the head, which a
/// client's kernel delays by 40 ms.
pub async fn serve(what: &str, listener: TcpListener, routes: Router) {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            // The connection is closed already, and the client will notice.
            tracing::debug!(%error, "a connection has no TCP_NODELAY");
        }
    });
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "{what} ended");
    }
}
