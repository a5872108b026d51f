//! What the functions write, line by line.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use super::locked;

/// One line of a function's output.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The function's name.
    pub function: String,
    /// The line, without its end.
    pub line: String,
    /// The line as JSON, where it is.
    pub json: Option<Value>,
}

/// All lines so far. Clones share them.
#[derive(Clone)]
pub(super) struct Logs {
    lines: Arc<Mutex<Vec<LogLine>>>,
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

    pub(super) fn lines(&self) -> Vec<LogLine> {
        locked(&self.lines).clone()
    }

    /// Collects what comes out of a process, until it ends.
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
        locked(&self.lines).push(LogLine {
            function: function.to_owned(),
            line: line.to_owned(),
            json: serde_json::from_str(line).ok(),
        });
    }
}
