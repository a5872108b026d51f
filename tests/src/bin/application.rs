//! The application of a simulated node: while it runs, it inserts events into its database one at a time, and records
//! the id of each event that Postgres acknowledged. A planned replacement must not lose a recorded event.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio_postgres::{Client, NoTls};

#[derive(Parser)]
struct Arguments {
    /// The connection string of the database, in libpq format.
    #[arg(long)]
    database: String,
    /// The file to which acknowledged ids are appended, one per line.
    #[arg(long)]
    acknowledged: PathBuf,
    /// Insert events only while this file exists.
    #[arg(long)]
    load: PathBuf,
    /// The pid file. The application exits when it is removed.
    #[arg(long)]
    pid_file: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut acknowledged = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&arguments.acknowledged)
        .with_context(|| format!("open {}", arguments.acknowledged.display()))?;
    let mut connection: Option<Client> = None;
    // As real requests do, an event takes some time. The pause also keeps an idle application from spinning.
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while arguments.pid_file.exists() {
        pace.tick().await;
        if !arguments.load.exists() {
            continue;
        }
        if let Some(client) = connection.take_if(|client| !client.is_closed()) {
            if let Ok(id) = push(&client).await {
                writeln!(acknowledged, "{id}")?;
                connection = Some(client);
            }
        } else {
            connection = connect(&arguments.database).await.ok();
        }
    }
    Ok(())
}

async fn connect(database: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn push(client: &Client) -> Result<i64> {
    let statement = "INSERT INTO registry.push_event (actor, target) VALUES ('load', gen_random_uuid()::text) RETURNING id";
    Ok(client.query_one(statement, &[]).await?.get(0))
}
