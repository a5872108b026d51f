//! An S3 with the distance of a region's: ten milliseconds each way, and at most 100 MB/s for each connection.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::plan::{Plan, REKINDLE};
use super::sample::{Row, time};
use super::site::{BUCKET, Site};

/// The latency from one end to the other.
const ONE_WAY: Duration = Duration::from_millis(10);
/// The bandwidth of each connection, each way.
const BYTES_PER_SECOND: f64 = 100_000_000.0;
const CHUNK: usize = 64 * 1024;
/// The bytes in flight on one connection: twice the bandwidth-delay product.
const ON_THE_WAY: usize = 4 * 1024 * 1024;
/// The size of the file. It is random, so that compression is no advantage.
const BYTES: usize = 500_000_000;
const CLI: &str = "aws s3 cp";
const KEY: &str = "network/object";

/// A proxy that adds the distance to its target. Dropping it stops it.
struct Distance {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Distance {
    async fn to(target: String) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    if let Err(error) = connect(near, &target).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(near: TcpStream, target: &str) -> Result<()> {
    near.set_nodelay(true)?;
    let far = TcpStream::connect(target).await?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    // A new connection needs a round trip before it carries data.
    let open_at = Instant::now() + 2 * ONE_WAY;
    let (there, back) = tokio::join!(
        carry(near_in, far_out, open_at),
        carry(far_in, near_out, open_at)
    );
    there.and(back)
}

/// Carries bytes one way: each chunk arrives `ONE_WAY` after it was sent, in order.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, open_at: Instant) -> Result<()> {
    let room = Arc::new(Semaphore::new(ON_THE_WAY));
    let (sender, mut receiver) =
        mpsc::unbounded_channel::<(Instant, Vec<u8>, OwnedSemaphorePermit)>();
    let reading = async move {
        let mut free_at = open_at;
        loop {
            let permit = Arc::clone(&room)
                .acquire_many_owned(u32::try_from(CHUNK)?)
                .await?;
            let mut chunk = vec![0; CHUNK];
            let length = from.read(&mut chunk).await?;
            if length == 0 {
                return anyhow::Ok(());
            }
            chunk.truncate(length);
            let size = u32::try_from(length)?;
            let takes = Duration::from_secs_f64(f64::from(size) / BYTES_PER_SECOND);
            free_at = free_at.max(Instant::now()) + takes;
            if sender.send((free_at + ONE_WAY, chunk, permit)).is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk, _permit)) = receiver.recv().await {
            sleep_until(at).await;
            to.write_all(&chunk).await?;
        }
        to.shutdown().await?;
        anyhow::Ok(())
    };
    let (read, written) = tokio::join!(reading, writing);
    read.and(written)
}

/// Measures 500 MB up and down at that distance. Rekindle's are a whole backup and a whole restore, of one file and a
/// database without rows.
pub(super) async fn rows(site: &Site, plan: &Plan) -> Result<Vec<Row>> {
    let names = ["up", "down"];
    let [mut up, mut down] = names.map(|way| {
        Row::new(&format!(
            "500 MB {way}, 20 ms away, 100 MB/s per connection"
        ))
    });
    if !plan.wants(&up.name) && !plan.wants(&down.name) {
        return Ok(Vec::new());
    }
    plan.log("writing a file of 500 MB");
    let target = site.surroundings.endpoint.trim_start_matches("http://");
    let distance = Distance::to(target.to_owned()).await?;
    let mut surroundings = site.surroundings.clone();
    surroundings.endpoint = format!("http://{}", distance.address);
    let node = site.machine_at(&["/srv/app"], &surroundings).await?;
    let file = node.root().join("srv/app/random");
    let written = file.clone();
    tokio::task::spawn_blocking(move || -> Result<()> {
        let random = std::fs::File::open("/dev/urandom")?;
        let mut bytes = Vec::with_capacity(BYTES);
        random.take(BYTES as u64).read_to_end(&mut bytes)?;
        std::fs::File::create(&written)?.write_all(&bytes)?;
        Ok(())
    })
    .await
    .context("write the file")??;
    let put = format!(
        "aws s3 cp --only-show-errors {} s3://{BUCKET}/{KEY}",
        file.display()
    );
    let (_, warm) = site.back_up(&node).await?;
    site.delete(&warm).await?;
    for run in 1..=plan.runs {
        plan.log_run(&up.name, run);
        let (sample, report) = site.back_up(&node).await?;
        up.add(REKINDLE, sample);
        let mut sample = site.script(&node, &put).await?.sample;
        sample.s3_bytes = Some(site.size(KEY)?);
        up.add(CLI, sample);

        let target = site.machine_at(&["/srv/app"], &surroundings).await?;
        let (sample, _) = site.restore(&target, &report).await?;
        down.add(REKINDLE, sample);
        target.discard().await?;
        let target = site.machine_at(&["/srv/app"], &surroundings).await?;
        let file = target.root().join("srv/app/random");
        let get = format!(
            "aws s3 cp --only-show-errors s3://{BUCKET}/{KEY} {file}\nsync {file}",
            file = file.display()
        );
        let mut sample = site.script(&target, &get).await?.sample;
        sample.s3_bytes = Some(site.size(KEY)?);
        down.add(CLI, sample);
        target.discard().await?;
        site.delete(&report).await?;
        site.delete_below(KEY).await?;
    }
    for row in [&mut up, &mut down] {
        row.compare("time relative to the aws CLI", CLI, 1.0, time);
    }
    if up.misses() || down.misses() {
        plan.log("profiling 500 MB");
        let target = site.machine_at(&["/srv/app"], &surroundings).await?;
        [up.profile, down.profile] = site.profiles(&node, &target).await?;
        target.discard().await?;
    }
    Ok(vec![up, down])
}
