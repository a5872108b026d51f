//! The log of both functions, as Lambda's settings want it.

use tracing_subscriber::filter::LevelFilter;

/// Writes events to standard output from now on: JSON lines where the function's log format is JSON, and nothing below
/// its log level. Lambda adds the time.
///
/// The runtime's own subscriber does the same with a filter language, which brings regular expressions into the package.
#[expect(
    clippy::disallowed_methods,
    reason = "what Lambda says of the log, before there is a configuration"
)]
pub(crate) fn init() {
    let setting = |name| std::env::var(name).unwrap_or_default();
    let level = setting("AWS_LAMBDA_LOG_LEVEL").parse();
    let log = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_target(false)
        .without_time()
        .with_ansi(false);
    if setting("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") {
        log.json().init();
    } else {
        log.init();
    }
}
