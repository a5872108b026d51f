//! A dump that is not complete never becomes a backup.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use rekindle_tests::fixtures::processes;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::registry::MAIN_DATABASE;
use rekindle_tests::nodes::machine::{Node, write_program};
use rekindle_tests::nodes::postgres::bin_directory;
use shared::exit_code::ExitCode;
use shared::report::Report;
use time::{Duration, OffsetDateTime};

/// Creates 64 MiB that cannot be compressed: several parts of an upload, and more than the agent holds in memory.
const LARGE: &str = "CREATE TABLE large AS SELECT i, (SELECT string_agg(sha256((i * 1000 + j)::text::bytea), ''::bytea)
    FROM generate_series(1, 512) j) AS bytes FROM generate_series(1, 4096) i";

/// Kills the node's processes whose command line contains `word` when S3 receives the first part of a dump. The returned
/// flag is set once that has happened.
fn kill_at_first_part(
    protected: &ProtectedGroups,
    node: &Arc<Node>,
    word: &'static str,
) -> Arc<AtomicBool> {
    let (node, done) = (Arc::clone(node), Arc::new(AtomicBool::new(false)));
    let once = Arc::clone(&done);
    protected.standin.s3().on_request(move |call| {
        if call.operation == "UploadPart" && !once.load(Ordering::SeqCst) {
            let killed = processes::find(&node, &[word]).and_then(|found| processes::kill(&found));
            once.store(killed.is_ok(), Ordering::SeqCst);
        }
        None
    });
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_or_an_upload_that_fails_leaves_no_backup() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let node = protected.create_empty("cut").await?;
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    client.batch_execute(LARGE).await?;
    let (standin, at) = (&protected.standin, OffsetDateTime::now_utc());

    let killed = kill_at_first_part(&protected, &node, "pg_dump");
    standin.bus().tick(at);
    let ended = protected.wait_until_ended(&node, "backup", 0).await?;
    assert!(killed.load(Ordering::SeqCst), "pg_dump was not found");
    let Report::Failure(report) = Report::from_output(&ended.output)? else {
        anyhow::bail!("{ended:?}");
    };
    assert_eq!(report.exit_code, ExitCode::Dump, "{report:?}");
    let message = protected
        .wait_for_failure("cut", ExitCode::Dump.word())
        .await?;
    assert!(message.contains("pg_dump"), "{message}");
    assert_eq!(protected.open_uploads().await?, 0);
    standin.s3().clear_hook();

    // S3 refuses to complete the upload.
    standin
        .s3()
        .deny("CompleteMultipartUpload", standin.bucket(), "backups/cut/");
    standin.bus().tick(at + Duration::seconds(5));
    let ended = protected.wait_until_ended(&node, "backup", 1).await?;
    assert_eq!(ended.code, i32::from(ExitCode::Upload.code()), "{ended:?}");
    assert_eq!(protected.open_uploads().await?, 0);
    standin.s3().allow_all();
    protected.wait_until_idle().await?;

    // A killed agent cannot abort its upload; a lifecycle rule of the bucket does that.
    let killed = kill_at_first_part(&protected, &node, "rekindle-node");
    standin.bus().tick(at + Duration::seconds(10));
    let ended = protected.wait_until_ended(&node, "backup", 2).await?;
    assert!(killed.load(Ordering::SeqCst), "the agent was not found");
    assert_ne!(ended.status, "Success");
    standin.s3().clear_hook();
    protected.wait_until_idle().await?;
    let problems = protected.errors("cut");
    let logged = problems
        .iter()
        .any(|line| line.contains("without a report of this operation"));
    assert!(logged, "{problems:#?}");
    assert!(protected.backups("cut")?.is_empty());

    standin.bus().tick(at + Duration::seconds(15));
    let manifest = protected.wait_for_backup("cut", 0).await?;
    assert!(manifest.index.bytes() > 64 * 1024 * 1024);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_dump_is_no_backup_even_if_pg_dump_exits_with_0() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("early").await?;
    let genuine = bin_directory()?.join("pg_dump");
    let genuine = genuine.display();
    let program = node.root().join("usr/local/bin/pg_dump");
    let at = OffsetDateTime::now_utc();
    // A truncated dump, then an empty one; `pg_dump` exits with 0 both times.
    for (number, bytes) in [2_000, 0].into_iter().enumerate() {
        let script = format!(
            "#!/bin/sh\n[ \"$1\" != --version ] || exec {genuine} \"$@\"\n\
             {genuine} \"$@\" 2>/dev/null | head -c {bytes}\nexit 0\n"
        );
        write_program(&program, &script)?;
        let tick = at + Duration::seconds(5) * i32::try_from(number)?;
        protected.standin.bus().tick(tick);
        let ended = protected.wait_until_ended(&node, "backup", number).await?;
        assert_eq!(ended.status, "Failed", "{bytes} bytes: {ended:?}");
        protected.wait_until_idle().await?;
        assert!(protected.backups("early")?.is_empty(), "{bytes} bytes");
        assert_eq!(protected.open_uploads().await?, 0, "{bytes} bytes");
    }
    std::fs::remove_file(&program)?;
    protected.standin.bus().tick(at + Duration::seconds(15));
    protected.wait_for_backup("early", 0).await?;
    Ok(())
}
