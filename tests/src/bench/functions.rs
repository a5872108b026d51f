//! The functions' cold start, memory and package, compared with the smallest Rust function and with Python.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::net::TcpListener;

use super::plan::{Plan, REKINDLE};
use super::process::{Program, python_script, resident_kib, run};
use super::profile;
use super::sample::{Row, Sample, memory, time};
use super::site::Programs;
use crate::http;
use crate::lock::lock;
use crate::standin::s3::{ACCESS_KEY, SECRET_KEY};
use crate::wait::wait_for;

/// How many times more runs a cold start gets than other rows: it takes milliseconds.
const MORE_RUNS: usize = 4;
const WAIT_LIMIT: Duration = Duration::from_secs(30);
const SCHEDULE: &str = include_str!("../../../events/schedule-rule.json");
const SWEEP: &str = include_str!("../../../events/sweep.json");
/// The answer to each function's first call: there are no groups.
const NO_GROUPS: &str = "<DescribeAutoScalingGroupsResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
    <DescribeAutoScalingGroupsResult><AutoScalingGroups/></DescribeAutoScalingGroupsResult><ResponseMetadata>\
    <RequestId>0</RequestId></ResponseMetadata></DescribeAutoScalingGroupsResponse>";

/// A function as Lambda starts it.
#[derive(Clone)]
struct Starter {
    name: String,
    line: Vec<String>,
    event: &'static str,
    calls: bool,
}

/// Measures the functions alone.
pub(super) async fn rows(programs: &Programs, plan: &Plan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (function, event) in [("backup", SCHEDULE), ("restore", SWEEP)] {
        let next = Row::new(&format!("cold start of {function} to its first /next"));
        let call = Row::new(&format!(
            "cold start of {function} to its first AWS call finished"
        ));
        let package = Row::new(&format!("package of {function}"));
        if plan.wants(&next.name) || plan.wants(&call.name) {
            rows.extend(cold_starts(programs, plan, function, event, [next, call]).await?);
        }
        if plan.wants(&package.name) {
            rows.push(packaged(programs, function, package).await?);
        }
    }
    Ok(rows)
}

const HELLO: &str = "hello world on lambda_runtime";
const PYTHON: &str = "the same in Python with boto3";

async fn cold_starts(
    programs: &Programs,
    plan: &Plan,
    function: &str,
    event: &'static str,
    [mut next, mut call]: [Row; 2],
) -> Result<Vec<Row>> {
    let binary = |name: &str| vec![programs.functions.join(name).display().to_string()];
    let python = vec![
        programs.python.join("bin/python3").display().to_string(),
        python_script("handler.py").display().to_string(),
    ];
    let starter = |name: &str, line: Vec<String>, calls: bool| Starter {
        name: name.to_owned(),
        line,
        event,
        calls,
    };
    let starters = [
        starter(REKINDLE, binary(function), true),
        starter(HELLO, binary("hello"), false),
        starter(PYTHON, python, true),
    ];
    plan.log(&format!("measuring cold starts of {function}"));
    for starter in &starters {
        // The first start reads the binary from the disk. Lambda also does that only once.
        start(starter).await?;
    }
    for _ in 0..plan.runs * MORE_RUNS {
        for starter in &starters {
            let start = start(starter).await?;
            let sample = |at: Duration| Sample {
                seconds: at.as_secs_f64(),
                peak_kib: Some(start.resident_kib),
                ..Sample::default()
            };
            next.add(&starter.name, sample(start.asked));
            if let Some(called) = start.called {
                call.add(&starter.name, sample(called));
            }
        }
    }
    next.compare("time relative to hello world", HELLO, 1.5, time);
    next.compare("time relative to boto3", PYTHON, 1.0 / 8.0, time);
    call.compare("time relative to boto3", PYTHON, 1.0 / 8.0, time);
    call.at_most("MiB of memory", 32.0, memory);
    if next.misses() || call.misses() {
        let starts = async {
            for _ in 0..plan.runs * MORE_RUNS {
                start(&starters[0]).await?;
            }
            Ok(())
        };
        (next.profile, _) = profile::of(starts).await?;
        call.profile.clone_from(&next.profile);
    }
    Ok(vec![next, call])
}

/// The times of a started function's first requests, from its start.
struct Start {
    asked: Duration,
    called: Option<Duration>,
    resident_kib: u64,
}

/// The first requests to the endpoint.
#[derive(Default)]
struct Seen {
    asked: Option<Instant>,
    called: Option<Instant>,
    /// Whether the process has answered the event, or requested the next one.
    done: bool,
}

async fn start(starter: &Starter) -> Result<Start> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let (watching, event) = (Arc::clone(&seen), starter.event);
    let routes = Router::new().fallback(move |request: Request| {
        let watching = Arc::clone(&watching);
        let path = request.uri().path().to_owned();
        let json = request.headers().contains_key("x-amz-target");
        async move { answer(&watching, event, &path, json).await }
    });
    let server = tokio::spawn(http::serve("the Lambda of the bench", listener, routes));
    let environment = environment(&address.to_string());
    let [program, arguments @ ..] = &starter.line[..] else {
        anyhow::bail!("there is no program to start");
    };
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let waited = wait_for(&starter.name, WAIT_LIMIT, async || {
        let seen = lock(&seen);
        let ready = seen.done && (seen.called.is_some() || !starter.calls);
        Ok::<_, String>(ready.then(|| (seen.asked, seen.called)))
    })
    .await;
    let resident_kib = resident_kib(child.id());
    child.kill().context("end a function")?;
    child.wait().context("end a function")?;
    server.abort();
    let (asked, called) = waited?;
    let asked = asked.context("the function requested no event")?;
    Ok(Start {
        asked: asked - began,
        called: called.map(|called| called - began),
        resident_kib,
    })
}

/// Returns the environment of a function whose Runtime API and AWS are at this address.
fn environment(address: &str) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in [
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("AWS_LAMBDA_RUNTIME_API", address.to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", "bench".to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_DEFAULT_REGION", "eu-central-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        // One bundle, as in Lambda's runtime: Debian's folder of single files would be read as well.
        (
            "SSL_CERT_FILE",
            "/etc/ssl/certs/ca-certificates.crt".to_owned(),
        ),
        (shared::function::env::BUCKET, "bench".to_owned()),
        (shared::function::env::BACKUP_DOCUMENT, "backup".to_owned()),
        (
            shared::function::env::RESTORE_DOCUMENT,
            "restore".to_owned(),
        ),
        (shared::function::env::AGENT, "/nowhere".to_owned()),
        (shared::function::env::METRIC_NAMESPACE, "Bench".to_owned()),
    ] {
        environment.insert(name.to_owned(), value);
    }
    environment
}

/// Serves the Runtime API with one event, and AWS with no groups.
async fn answer(seen: &Mutex<Seen>, event: &'static str, path: &str, json: bool) -> Response {
    let locked = || lock(seen);
    if path.ends_with("/invocation/next") {
        let again = locked().asked.is_some();
        if again {
            locked().done = true;
            std::future::pending::<()>().await;
        }
        locked().asked = Some(Instant::now());
        let deadline = time::OffsetDateTime::now_utc().unix_timestamp() * 1000 + 60_000;
        let headers = [
            ("lambda-runtime-aws-request-id", "bench".to_owned()),
            ("lambda-runtime-deadline-ms", deadline.to_string()),
            (
                "lambda-runtime-invoked-function-arn",
                "arn:aws:lambda:eu-central-1:123456789012:function:bench".to_owned(),
            ),
        ];
        return (headers, event).into_response();
    }
    if path.contains("/invocation/") {
        locked().done = true;
        return StatusCode::ACCEPTED.into_response();
    }
    let response = if json {
        ([(header::CONTENT_TYPE, "application/x-amz-json-1.1")], "{}").into_response()
    } else {
        ([(header::CONTENT_TYPE, "text/xml")], NO_GROUPS).into_response()
    };
    locked().called.get_or_insert_with(Instant::now);
    response
}

/// Packs a function for AWS: one file, deflated.
async fn packaged(programs: &Programs, function: &str, mut row: Row) -> Result<Row> {
    const PACK: &str = "import sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as package:\n    \
        package.write(sys.argv[1], 'bootstrap')";
    let directory = tempfile::tempdir()?;
    for (name, binary) in [(REKINDLE, function), (HELLO, "hello")] {
        let zip: PathBuf = directory.path().join(binary).with_extension("zip");
        let python = programs.python.join("bin/python3").display().to_string();
        let (binary, target) = (
            programs.functions.join(binary).display().to_string(),
            zip.display().to_string(),
        );
        let line = vec![python, "-c".to_owned(), PACK.to_owned(), binary, target];
        let packed = run(Program {
            line,
            environment: BTreeMap::new(),
        })
        .await?;
        let bytes = std::fs::metadata(&zip)?.len();
        row.add(
            name,
            Sample {
                seconds: packed.sample.seconds,
                disk_bytes: Some(bytes),
                ..Sample::default()
            },
        );
    }
    row.at_most("bytes of the package", 4_000_000.0, super::sample::written);
    Ok(row)
}

/// Parses the last line that a script printed.
pub(super) fn printed(output: &str) -> Result<Value> {
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("read {output:?}"))
}
