//! The container images of the application: saved once, and loaded only if they are undamaged.

use anyhow::{Context as _, Result, ensure};
use rekindle_tests::fixtures::containers::Application;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, fill};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::nodes::engine;
use shared::exit_code::ExitCode;
use shared::report::Report;

use super::{skipped, standalone_node};

const APPLICATION: &str = "pictures";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_saved_once_and_never_loaded_damaged() -> Result<()> {
    if skipped().await? {
        return Ok(());
    }
    let image = engine::image().await?;
    let protected = ProtectedGroups::start().await?;
    let (standin, application) = (
        &protected.standin,
        Application::new(&protected.standin, APPLICATION, &image)?,
    );
    standin.create_group(application.group(standin.bucket()))?;
    let node = protected.wait_until_in_service(APPLICATION, None).await?;
    fill(&node).await?;
    let first = protected.back_up(APPLICATION).await?;
    // A node without its records of saved images finds the image in S3 and verifies it.
    let records = node.root().join("var/lib/rekindle/images");
    std::fs::remove_dir_all(&records).with_context(|| format!("remove {}", records.display()))?;
    let second = protected.back_up(APPLICATION).await?;
    assert_eq!(second.index.images, first.index.images);
    assert_eq!(second.index.unsaved_images, Vec::<String>::new());
    let [saved] = second.index.images.as_slice() else {
        anyhow::bail!("{:?}", second.index.images);
    };
    assert_eq!(saved.names, [image.as_str()]);
    let stored = standin.s3().keys(standin.bucket(), "backups/")?;
    let stored = stored.iter().filter(|key| key.contains("/images/"));
    assert_eq!(stored.collect::<Vec<_>>(), [&saved.object.key]);

    let data = standalone::snapshot(&node).await?;
    let machine = standalone_node(&protected, &application).await?;
    let engine = machine.node.engine()?;
    let candidates = [second.candidate()];
    let operation = format!("launch-{}", machine.node.id());
    // S3 still reports the original size and checksum of an object that is damaged at rest.
    let key = &saved.object.key;
    standin.s3().flip_middle(standin.bucket(), key)?;
    let damaged = machine.restore(&operation, &candidates).await?;
    let Report::Failure(failure) = damaged.report()? else {
        anyhow::bail!("{damaged:?}");
    };
    assert_eq!(failure.exit_code, ExitCode::StartCommand, "{failure:?}");
    ensure!(
        failure.message.contains("images that were not loaded"),
        "{failure:?}"
    );
    assert_eq!(engine.images().await?, Vec::<String>::new());

    standin.s3().flip_middle(standin.bucket(), key)?;
    let restored = machine.restore(&operation, &candidates).await?;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert_eq!(engine.images().await?, [format!("sha256:{}", saved.id)]);
    let names = [
        "image",
        "inspect",
        "--format",
        "{{index .RepoTags 0}}",
        &image,
    ];
    assert_eq!(engine.run(&names).await?.trim(), image);
    let found = standalone::snapshot(&machine.node).await?;
    ensure!(found.databases == data.databases, "the databases differ");
    assert_eq!(found.files, data.files);
    Ok(())
}
