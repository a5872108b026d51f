//! Records the exceptions of a restore: parts of the backup, other than rows, that the node lacks.

use shared::function::context::Context;
use shared::function::failure;
use shared::id::Subject;
use shared::kind::Kind;
use shared::report::RestoreReport;

/// Writes one ERROR line about all exceptions of a restore, and counts them as one failure. Does nothing if there are
/// none.
pub(crate) fn record(context: &Context, subject: Subject<'_>, report: &RestoreReport) {
    if !report.exceptions.is_empty() {
        let message = "the server refused parts of the backup; all rows are restored";
        let reason = report.exceptions.reason();
        failure::record(context, subject, Kind::RestoreExceptions, message, &reason);
    }
}
