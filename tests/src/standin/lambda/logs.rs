//! The output of the functions: text lines, and the content of the JSON lines among them.
//!
//! A function writes two kinds of JSON lines: log lines, read into [`LogLine`], and metrics in `CloudWatch`'s embedded
//! metric format, read into [`MetricLine`]. Each line is parsed once, when it arrives.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use serde_json::Value;
use shared::exit_code::ExitCode;
use shared::kind::Kind;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use crate::lock::lock;

/// One line of a function's output.
#[derive(Debug, Clone)]
pub struct OutputLine {
    /// The function's name.
    pub function: String,
    /// The line, without its end.
    pub line: String,
    /// The line as JSON, or `None` if it is other text.
    pub json: Option<Value>,
    /// The line as a log line, or `None` if it is not one.
    pub log: Option<LogLine>,
    /// The metrics of the line, or `None` if it has no metrics.
    pub metrics: Option<MetricLine>,
}

/// A line of a function's log. A field that the line does not have is `None`.
///
/// ```
/// # use rekindle_tests::standin::lambda::LogLine;
/// let json = serde_json::json!({"level": "INFO", "fields": {
///     "message": "started a backup", "decision": "start", "application": "registry", "attempt": 2}});
/// let line = LogLine::read(&json).unwrap();
/// assert!(line.is_about("registry") && line.has_decision("start"));
/// assert_eq!(line.number("attempt"), Some(2.0));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LogLine {
    /// The level, such as `INFO` or `ERROR`.
    pub level: String,
    /// The message; empty if there is none.
    pub message: String,
    /// The decision that the function made.
    pub decision: Option<String>,
    /// The application's name.
    pub application: Option<String>,
    /// The Auto Scaling group's name.
    pub group: Option<String>,
    /// The node's instance id.
    pub instance_id: Option<String>,
    /// The id of the SSM command.
    pub command_id: Option<String>,
    /// The backup.
    pub backup_id: Option<String>,
    /// The kind of a failure, as in the metric's dimension `Kind`.
    pub kind: Option<String>,
    /// The cause of a failure.
    pub reason: Option<String>,
    /// The remedy of a failure, for an operator.
    pub remedy: Option<String>,
    /// The whole line.
    pub raw: Value,
}

impl LogLine {
    /// Reads a JSON line. Returns `None` if it has no level or no fields, because it is then not a log line.
    pub fn read(json: &Value) -> Option<Self> {
        let level = json["level"].as_str()?.to_owned();
        let fields = json["fields"].as_object()?;
        let text = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            level,
            message: text("message").unwrap_or_default(),
            decision: text("decision"),
            application: text("application"),
            group: text("group"),
            instance_id: text("instance_id"),
            command_id: text("command_id"),
            backup_id: text("backup_id"),
            kind: text("kind"),
            reason: text("reason"),
            remedy: text("remedy"),
            raw: json.clone(),
        })
    }

    /// Returns whether the line has the level ERROR.
    pub fn is_error(&self) -> bool {
        self.level == "ERROR"
    }

    /// Returns whether the line names this application.
    pub fn is_about(&self, application: &str) -> bool {
        self.application.as_deref() == Some(application)
    }

    /// Returns whether the message or the reason contains a text. The remedy is constant for a kind, so it is left out.
    pub fn contains(&self, text: &str) -> bool {
        let parts = [Some(&self.message), self.reason.as_ref()];
        parts.into_iter().flatten().any(|part| part.contains(text))
    }

    /// Returns how the line violates the log contract of docs/operating.md, or `None` if it does not.
    pub fn violation(&self) -> Option<String> {
        let kebab = |text: &str| {
            let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !text.is_empty() && text.chars().all(valid)
        };
        if let Some(decision) = &self.decision
            && !kebab(decision)
        {
            return Some(format!("the decision {decision:?} is not in kebab-case"));
        }
        // The runtime itself logs a panic; no field can be added to it.
        if !self.is_error() || self.raw["fields"]["error"].is_string() {
            return None;
        }
        let words = Kind::OWN.iter().map(|kind| (kind.as_str(), kind.remedy()));
        let words = words.chain(
            ExitCode::ALL
                .iter()
                .map(|code| (code.word(), code.remedy())),
        );
        let Some(kind) = &self.kind else {
            return Some("an ERROR line has no kind".to_owned());
        };
        let Some((_, remedy)) = words.into_iter().find(|(word, _)| word == kind) else {
            return Some(format!("the kind {kind:?} is unknown"));
        };
        if self.remedy.as_deref() != Some(remedy) {
            return Some(format!("the remedy is not that of {kind}"));
        }
        let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        is_empty(&self.reason).then(|| "an ERROR line has no reason".to_owned())
    }

    /// Returns whether the line names this instance.
    pub fn is_about_instance(&self, instance: &str) -> bool {
        self.instance_id.as_deref() == Some(instance)
    }

    /// Returns whether the line records this decision.
    pub fn has_decision(&self, decision: &str) -> bool {
        self.decision.as_deref() == Some(decision)
    }

    /// Returns whether the line records a failure of this kind.
    pub fn has_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Returns a text field for which this type has no member, or `None` if the line does not have it.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.raw["fields"][field].as_str()
    }

    /// Returns a number field, or `None` if the line does not have it.
    pub fn number(&self, field: &str) -> Option<f64> {
        self.raw["fields"][field].as_f64()
    }
}

/// Metrics that a function writes into its log, in the embedded metric format.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricLine {
    /// The dimension `Application`, or `None` if the metric lacks it.
    pub application: Option<String>,
    /// The dimension `Kind`, or `None` if the metric lacks it.
    pub kind: Option<String>,
    /// The whole line.
    pub raw: Value,
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

impl MetricLine {
    /// Reads a JSON line. Returns `None` if it has no metrics.
    pub fn read(json: &Value) -> Option<Self> {
        json["_aws"].as_object()?;
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        Some(Self {
            application: text("Application"),
            kind: text("Kind"),
            raw: json.clone(),
        })
    }

    /// Returns whether the metric belongs to this application.
    pub fn is_about(&self, application: &str) -> bool {
        self.application.as_deref() == Some(application)
    }

    /// Returns whether the line counts one failure of this kind.
    pub fn counts_failure(&self, kind: &str) -> bool {
        self.value("Failures") == Some(1.0) && self.kind.as_deref() == Some(kind)
    }

    /// Returns the value of a metric, such as `Failures`, or `None` if the line does not have it.
    pub fn value(&self, metric: &str) -> Option<f64> {
        self.raw[metric].as_f64()
    }
}

/// All lines so far. Clones share them.
#[derive(Clone)]
pub(super) struct Logs {
    lines: Arc<Mutex<Vec<OutputLine>>>,
    echo: Option<Arc<File>>,
}

impl Logs {
    pub(super) fn new(echo: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("open {}", path.display()))
        };
        Ok(Self {
            lines: Arc::default(),
            echo: echo.map(open).transpose()?.map(Arc::new),
        })
    }

    pub(super) fn lines(&self) -> Vec<OutputLine> {
        lock(&self.lines).clone()
    }

    /// Collects the output of a process in the background, until it ends.
    pub(super) fn follow(&self, function: &str, output: impl AsyncRead + Send + Unpin + 'static) {
        let logs = self.clone();
        let function = function.to_owned();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                logs.add(&function, &String::from_utf8_lossy(&line));
            }
        });
    }

    fn add(&self, function: &str, line: &str) {
        if let Some(mut echo) = self.echo.as_deref()
            && let Err(error) = writeln!(echo, "{function} {line}")
        {
            tracing::warn!(%error, "a line of {function} is missing in the log file");
        }
        let json: Option<Value> = serde_json::from_str(line).ok();
        lock(&self.lines).push(OutputLine {
            function: function.to_owned(),
            line: line.to_owned(),
            log: json.as_ref().and_then(LogLine::read),
            metrics: json.as_ref().and_then(MetricLine::read),
            json,
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_that_violates_the_log_contract_is_found() {
        let violation = |level: &str, fields: Value| {
            let line = json!({"level": level, "fields": fields});
            LogLine::read(&line).unwrap().violation()
        };
        let (kind, remedy) = (Kind::Refused.as_str(), Kind::Refused.remedy());
        let good = json!({"message": "m", "kind": kind, "reason": "r", "remedy": remedy});
        assert_eq!(violation("ERROR", good.clone()), None);
        assert_eq!(violation("INFO", json!({"decision": "send-restore"})), None);
        assert!(violation("INFO", json!({"decision": "Send"})).is_some());
        for field in ["kind", "reason", "remedy"] {
            let mut bad = good.clone();
            bad[field] = json!("");
            assert!(violation("ERROR", bad).is_some(), "{field}");
        }
    }

    #[test]
    fn a_json_line_is_a_log_line_or_metrics() {
        let log = json!({"level": "ERROR", "fields": {"message": "m", "kind": "Damaged", "application": "a"}});
        let line = LogLine::read(&log).unwrap();
        assert!(line.is_error() && line.is_about("a") && line.has_kind("Damaged"));
        assert_eq!((line.message.as_str(), line.reason), ("m", None));
        assert_eq!(MetricLine::read(&log), None);

        let metrics = json!({"_aws": {}, "Application": "a", "Kind": "Damaged", "Failures": 1});
        let line = MetricLine::read(&metrics).unwrap();
        assert!(line.is_about("a") && line.counts_failure("Damaged"));
        assert_eq!(line.value("Successes"), None);
        assert_eq!(LogLine::read(&metrics), None);
    }
}
