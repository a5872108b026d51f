//! The stock aws CLI works with the stand-in as with AWS, and invalid requests get AWS's error codes.

mod commands;
mod groups;
mod setup;

use anyhow::Result;

use setup::CliSetup;

#[tokio::test(flavor = "multi_thread")]
async fn the_cli_lists_and_copies_objects() -> Result<()> {
    let cli = CliSetup::start().await?;
    let directory = tempfile::tempdir()?;
    let (there, back) = (
        directory.path().join("there"),
        directory.path().join("back"),
    );
    std::fs::write(&there, "a page")?;
    cli.standin.s3().create_bucket("notes")?;
    let (there, back) = (there.display().to_string(), back.display().to_string());
    for arguments in [
        ["s3", "cp", "--quiet", &there, "s3://notes/a/page.txt"],
        ["s3", "cp", "--quiet", "s3://notes/a/page.txt", &back],
    ] {
        let output = cli.run(&arguments).await?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(std::fs::read_to_string(&back)?, "a page");
    let output = cli.run(&["s3", "ls", "--recursive", "s3://notes/"]).await?;
    let listing = String::from_utf8_lossy(&output.stdout);
    assert!(listing.trim_end().ends_with("6 a/page.txt"), "{listing}");
    let (code, _) = cli
        .refused_arguments(&[
            "s3api",
            "get-object",
            "--bucket",
            "notes",
            "--key",
            "absent",
            &back,
        ])
        .await?;
    assert_eq!(code, "NoSuchKey");
    Ok(())
}
