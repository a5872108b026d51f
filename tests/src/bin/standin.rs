//! `make local`: runs the stand-in with one protected group, for the aws CLI and cargo-lambda.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use rekindle_tests::fixtures::registry;
use rekindle_tests::fixtures::registry::Load;
use rekindle_tests::interruption::interruption;
use rekindle_tests::output::print;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::s3::{ACCESS_KEY, SECRET_KEY};
use rekindle_tests::standin::{Binaries, StandIn};
use tracing_subscriber::EnvFilter;

/// Runs a local stand-in for AWS with one protected group until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "standin", version)]
struct Arguments {
    /// The port on 127.0.0.1.
    #[arg(long, default_value_t = 4599)]
    port: u16,
    /// The name of the application and of its group.
    #[arg(long, default_value = "dtr")]
    application: String,
    /// The factor by which AWS's own waits are shortened.
    #[arg(long, default_value_t = 10.0)]
    time_scale: f64,
    /// The seconds between two scheduled backups.
    #[arg(long, default_value_t = 900)]
    schedule_seconds: u64,
    /// The seconds between two sweeps.
    #[arg(long, default_value_t = 60)]
    sweep_seconds: u64,
    /// The file for the functions' logs. By default, a temporary file that is deleted at the end.
    #[arg(long)]
    log_file: Option<PathBuf>,
    /// The directory of the functions' binaries. By default, those of this build.
    #[arg(long, requires = "agent")]
    functions: Option<PathBuf>,
    /// The path of the agent. By default, that of this build.
    #[arg(long, requires = "functions")]
    agent: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let own_log = tempfile::Builder::new()
        .prefix("rekindle-functions-")
        .suffix(".log")
        .tempfile()
        .context("create the file for the functions' logs")?;
    let logs = arguments.log_file.clone();
    let logs = logs.unwrap_or_else(|| own_log.path().to_owned());
    let mut builder = StandIn::builder()
        .port(arguments.port)
        .time_scale(arguments.time_scale)
        .echo(&logs);
    if let (Some(functions), Some(agent)) = (arguments.functions, arguments.agent) {
        builder = builder.binaries(Binaries { functions, agent });
    }
    let mut standin = builder.start().await?;
    let load = Load::in_directory(&standin.directory());
    standin.create_group(registry::protected_group(
        &arguments.application,
        standin.bucket(),
        &load,
    ))?;
    standin.run_schedules(
        Some(Duration::from_secs(arguments.schedule_seconds)),
        Some(Duration::from_secs(arguments.sweep_seconds)),
    );
    print(&instructions(&standin, &arguments.application, &logs))?;
    tokio::select! {
        stopped = interruption() => stopped,
        watched = watch(&standin, &arguments.application) => watched,
    }
}

/// Prints a line whenever an instance of the group changes its state.
async fn watch(standin: &StandIn, group: &str) -> Result<()> {
    let mut known: Vec<(String, Lifecycle)> = Vec::new();
    loop {
        let instances = standin.group(group).into_iter();
        let present: Vec<_> = instances.map(|one| (one.id, one.state)).collect();
        for (id, state) in &present {
            if !known.contains(&(id.clone(), *state)) {
                print(&format!("{id} is {state}\n"))?;
            }
        }
        for (id, _) in &known {
            if !present.iter().any(|(other, _)| other == id) {
                print(&format!("{id} is terminated\n"))?;
            }
        }
        known = present;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns the text that is printed at the start: environment variables to paste, and commands to try.
fn instructions(standin: &StandIn, group: &str, logs: &std::path::Path) -> String {
    let endpoint = standin.endpoint();
    let mut exports = vec![
        ("AWS_ENDPOINT_URL".to_owned(), endpoint.to_owned()),
        ("AWS_REGION".to_owned(), standin.region().to_owned()),
        ("AWS_DEFAULT_REGION".to_owned(), standin.region().to_owned()),
        ("AWS_ACCESS_KEY_ID".to_owned(), ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), SECRET_KEY.to_owned()),
    ];
    // Both functions have the variables of the template's Globals, so those of any one are enough.
    let function = standin.functions().next().unwrap_or_default().to_owned();
    for (name, value) in standin.environment(&function).into_iter().flatten() {
        if name.starts_with("REKINDLE_") {
            exports.push((name.clone(), value.clone()));
        }
    }
    let exports: Vec<String> = exports
        .iter()
        .map(|(name, value)| format!("  export {name}='{value}'\n"))
        .collect();
    let exports = exports.concat();
    format!(
        "The stand-in listens on {endpoint} and protects the group {group:?}.\n\
         Ctrl-C stops it and deletes all its data.\n\n\
         Follow the functions' logs:\n\n\
         \x20 tail -f {logs}\n\n\
         Paste this into another terminal to use the aws CLI and cargo-lambda with the stand-in:\n\n{exports}\n\
         Then try, for example:\n\n\
         \x20 aws autoscaling describe-auto-scaling-groups\n\
         \x20 aws autoscaling terminate-instance-in-auto-scaling-group --no-should-decrement-desired-capacity \
         --instance-id i-…\n\
         \x20 aws ssm list-commands\n\
         \x20 aws s3 ls --recursive s3://{bucket}/\n\n\
         Run the functions yourself, from this source tree:\n\n\
         \x20 cargo lambda watch\n\
         \x20 cargo lambda invoke backup --data-file events/backup-now.json\n\n\
         State changes of the group's instances:\n\n",
        logs = logs.display(),
        bucket = standin.bucket(),
    )
}
