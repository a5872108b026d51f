//! The application of a simulated node: a process that, while it runs, pushes events into its database one at
//! a time and writes down each one that the server acknowledged. What it has written down must never be lost
//! in a planned replacement.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio_postgres::{Client, NoTls};

#[derive(Parser)]
struct Arguments {
    /// How to reach the database, as libpq writes it.
    #[arg(long)]
    database: String,
    /// Where acknowledged ids are appended, one a line.
    #[arg(long)]
    acknowledged: PathBuf,
    /// It pushes only while this file exists.
    #[arg(long)]
    load: PathBuf,
    /// It ends when this file, which names its process, is gone.
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
    // A served request takes a while; the pause also keeps an idle application from spinning.
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
