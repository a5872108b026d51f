//! Failed backups: the exit code, the cause and the remedy are reported, no upload stays open, and the next backup
//! succeeds once the cause is fixed.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, change_settings};
use rekindle_tests::nodes::machine::Node;
use shared::exit_code::ExitCode;
use shared::report::Report;
use time::{Duration, OffsetDateTime};

use super::tick;

/// One application per failure: its name, the exit code, and a part of the message.
const CASES: [(&str, ExitCode, &str); 6] = [
    ("path", ExitCode::ConfigurationMissing, "var/local/dtr"),
    ("server", ExitCode::PostgresUnreachable, "psql"),
    ("container", ExitCode::PostgresUnreachable, "psql"),
    ("bucket", ExitCode::Upload, "NoSuchBucket"),
    ("denied", ExitCode::Upload, "AccessDenied"),
    ("settings", ExitCode::Settings, "konfiguration"),
];

/// The nodes of [`CASES`], each broken in its own way.
struct BrokenNodes<'a> {
    protected: &'a ProtectedGroups,
    nodes: Vec<Arc<Node>>,
    configured: PathBuf,
    moved: PathBuf,
    /// The original settings of the node that now names a container.
    settings: String,
}

impl<'a> BrokenNodes<'a> {
    async fn start(protected: &'a ProtectedGroups) -> Result<Self> {
        let created = CASES.map(|(application, ..)| protected.create_empty(application));
        let nodes = try_join_all(created).await?;
        let [path, server, container, bucket, _denied, settings] = &nodes[..] else {
            anyhow::bail!("{} nodes were created", nodes.len());
        };
        let standin = &protected.standin;
        let configured = path.root().join("var/local/dtr");
        let moved = path.root().join("var/local/moved");
        std::fs::rename(&configured, &moved)?;
        server.cluster()?.stop().await?;
        let original = std::fs::read_to_string(container.root().join("etc/rekindle/node.toml"))?;
        let cluster = container.cluster()?;
        let socket = cluster.socket_directory();
        let host = format!("host = \"{}\"\nport = {}", socket.display(), cluster.port());
        change_settings(container, &host, "container = \"absent-container\"")?;
        change_settings(bucket, standin.bucket(), "absent-bucket")?;
        let s3 = standin.s3();
        s3.deny("PutObject", standin.bucket(), "backups/denied/");
        change_settings(settings, "[configuration]", "[konfiguration]")?;
        Ok(Self {
            protected,
            configured,
            moved,
            settings: original,
            nodes,
        })
    }

    async fn repair(&self) -> Result<()> {
        let [_path, server, container, bucket, _denied, settings] = &self.nodes[..] else {
            anyhow::bail!("{} nodes were created", self.nodes.len());
        };
        let standin = &self.protected.standin;
        std::fs::rename(&self.moved, &self.configured)?;
        server.cluster()?.start().await?;
        let path = container.root().join("etc/rekindle/node.toml");
        std::fs::write(path, &self.settings)?;
        change_settings(bucket, "absent-bucket", standin.bucket())?;
        standin.s3().allow_all();
        change_settings(settings, "[konfiguration]", "[configuration]")
    }

    /// Checks that the node's command failed with this exit code, and that the agent, SSM and the function report the
    /// cause and the remedy.
    async fn assert_failed(
        &self,
        node: &Node,
        application: &str,
        code: ExitCode,
        cause: &str,
    ) -> Result<()> {
        let ended = self.protected.wait_until_ended(node, "backup", 0).await?;
        assert_eq!(
            (ended.status.as_str(), ended.code),
            ("Failed", i32::from(code.code())),
            "{application}: {ended:?} {:?}",
            self.protected.errors(application)
        );
        let report = Report::from_output(&ended.output).context(ended.output.clone())?;
        let Report::Failure(report) = report else {
            anyhow::bail!("{application}: {}", ended.output);
        };
        assert_eq!(report.exit_code, code, "{application}");
        let message = &report.message;
        assert!(message.contains(cause), "{application}: {message}");
        // An operator who looks at the command itself finds the remedy in the agent's log.
        let log = &ended.errors;
        assert!(log.contains("remedy"), "{application}: {log}");
        let line = self.protected.wait_for_failure(application, code.word());
        let line = line.await?;
        assert!(line.contains(cause), "{application}: {line}");
        assert_eq!(line.remedy.as_deref(), Some(code.remedy()), "{application}");
        assert!(
            self.protected.backups(application)?.is_empty(),
            "{application}"
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_backup_reports_its_cause_and_remedy_and_the_next_one_succeeds() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let broken = BrokenNodes::start(&protected).await?;
    let at = OffsetDateTime::now_utc();
    let answer = protected.invoke("backup", tick(at)?).await?;
    let started = answer["started"].as_array().map(Vec::len);
    assert_eq!(started, Some(CASES.len()), "{answer}");
    for (node, (application, code, cause)) in broken.nodes.iter().zip(CASES) {
        broken.assert_failed(node, application, code, cause).await?;
    }
    assert_eq!(protected.open_uploads().await?, 0);

    broken.repair().await?;
    protected.wait_until_idle().await?;
    protected.standin.bus().tick(at + Duration::seconds(5));
    for (application, ..) in CASES {
        protected.wait_for_backup(application, 0).await?;
    }
    Ok(())
}
