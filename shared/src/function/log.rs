//! The log of both functions. Lambda's settings choose its format and its level.

use std::io;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

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
        .with_writer(WithoutRuntimeErrors);
    if setting("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") {
        log.json().init();
    } else {
        log.init();
    }
}

/// Standard output without the Lambda runtime's line for a returned error: the error's own ERROR line has more fields.
/// The runtime's line for a panic, which has a field `error`, stays.
struct WithoutRuntimeErrors;

impl<'a> MakeWriter<'a> for WithoutRuntimeErrors {
    type Writer = Box<dyn io::Write>;

    fn make_writer(&'a self) -> Self::Writer {
        Box::new(io::stdout())
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Self::Writer {
        let from_runtime = line.target().starts_with("lambda_runtime::layers::panic");
        if from_runtime && *line.level() == Level::ERROR && line.fields().field("error").is_none() {
            return Box::new(io::sink());
        }
        self.make_writer()
    }
}
