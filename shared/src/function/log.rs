//! The log of both functions. Lambda's settings choose its format and its level.

use std::io;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;

/// Starts the log: lines on standard output, in JSON if the function's log format is JSON, from its log level on.
/// Lambda adds the time.
///
/// The subscriber of `lambda_runtime` is not used: its filter language adds a regular expression engine to the package.
#[expect(
    clippy::disallowed_methods,
    reason = "Lambda's own settings of the log; they are needed before `Config` is read"
)]
pub(crate) fn init() {
    let setting = |name| std::env::var(name).unwrap_or_default();
    let level = setting("AWS_LAMBDA_LOG_LEVEL").parse();
    let log = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_writer(io::stdout.with_filter(|line| !is_returned_error(line)));
    if setting("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") {
        log.json().init();
    } else {
        log.init();
    }
}

/// Returns whether a line is the Lambda runtime's line for a returned error: the error's own ERROR line has more fields.
/// The runtime's line for a panic, which has a field `error`, is not.
fn is_returned_error(line: &Metadata<'_>) -> bool {
    line.target().starts_with("lambda_runtime::layers::panic")
        && *line.level() == Level::ERROR
        && line.fields().field("error").is_none()
}
