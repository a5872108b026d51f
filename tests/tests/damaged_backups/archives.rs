//! Configuration archives of an attacker who can write to the bucket and tries to write to other paths on the node.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::StandaloneNode;
use rekindle_tests::fixtures::tampering;
use shared::exit_code::ExitCode;
use shared::layout;

use super::{APPLICATION, Scenario, assert_refused};

/// Returns an archive with these entries: name, type and link target. The `tar` crate itself refuses to write such names.
fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, target) in entries {
        let mut header = tar::Header::new_gnu();
        let content: &[u8] = if kind.is_file() { b"evil\n" } else { b"" };
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let fields = header.as_gnu_mut().context("a GNU header")?;
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, content)?;
    }
    Ok(zstd::encode_all(&builder.into_inner()?[..], 3)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_leaves_its_directories_is_refused_even_if_its_hashes_match() -> Result<()>
{
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let scenario = Scenario::start().await?;
    let standalone = StandaloneNode::with_data(&scenario.protected, APPLICATION).await?;
    let before = standalone.snapshot().await?;
    let root = standalone.node.root();
    let absolute = root.join("escaped");
    let (absolute, etc) = (
        absolute.display().to_string(),
        root.join("etc").display().to_string(),
    );
    let secret = root.join("etc/rekindle/node.toml").display().to_string();
    let cases = [
        ("..", archive(&[("0/../../../escaped", Regular, "")])?),
        ("a leading ..", archive(&[("../escaped", Regular, "")])?),
        (
            "an absolute path",
            archive(&[(absolute.as_str(), Regular, "")])?,
        ),
        (
            "a path that is not configured",
            archive(&[("7/escaped", Regular, "")])?,
        ),
        (
            "a symlink as a directory",
            archive(&[
                ("0", Directory, ""),
                ("0/way", Symlink, etc.as_str()),
                ("0/way/escaped", Regular, ""),
            ])?,
        ),
        (
            "a hard link to a file outside",
            archive(&[("0", Directory, ""), ("0/escaped", Link, secret.as_str())])?,
        ),
    ];
    for (number, (case, bytes)) in cases.iter().enumerate() {
        let forged = tampering::forge(&scenario.protected, &scenario.newer, |_, parts| {
            parts.insert(layout::CONFIGURATION.to_owned(), bytes.clone());
            Ok(())
        })?;
        let answer = standalone
            .restore(&format!("launch-i-{number:08x}"), &[forged.candidate()])
            .await?;
        assert_refused(&answer, ExitCode::Verification, "configuration", case)?;
        assert_eq!(
            standalone.snapshot().await?,
            before,
            "{case}: {}",
            answer.log
        );
        let nodes = scenario.protected.standin.directory().join("nodes");
        assert_eq!(standalone::find_file(&nodes, "escaped")?, None, "{case}");
    }
    Ok(())
}
