//! The log of both functions, in the format and with the level that Lambda's settings ask for.

use std::io;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Writes events to standard output from now on: JSON lines if the function's log format is JSON, and nothing below
/// its log level. Lambda adds the time.
///
/// The runtime's own subscriber has a filter language, which brings regular expressions into the package.
#[expect(
    clippy::disallowed_methods,
    reason = "Lambda's settings of the log, before there is a configuration"
)]
pub(crate) fn init() {
    let setting = |name| std::env::var(name).unwrap_or_default();
    let level = setting("AWS_LAMBDA_LOG_LEVEL").parse();
    let log = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_writer(WithoutRepetitions);
    if setting("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") {
        log.json().init();
    } else {
        log.init();
    }
}

/// Standard output without the Lambda runtime's line for a returned error: the error has its ERROR line already, with
/// more fields. The runtime's line for a panic, which has a field `error`, stays.
struct WithoutRepetitions;

impl<'a> MakeWriter<'a> for WithoutRepetitions {
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
