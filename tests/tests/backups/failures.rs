//! Backups that fail: the operator finds the exit code, the cause and the remedy, nothing is left half done, and
//! the next one works once the cause is gone.

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, change_settings};
use shared::report::{ExitCode, Report};
use time::{Duration, OffsetDateTime};
use tokio::try_join;

use super::{ask, tick};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_backup_says_its_cause_and_remedy_and_the_next_one_works_again() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let (path, server, container, bucket, denied, settings) = try_join!(
        protected.create_empty("path"),
        protected.create_empty("server"),
        protected.create_empty("container"),
        protected.create_empty("bucket"),
        protected.create_empty("denied"),
        protected.create_empty("settings")
    )?;
    let standin = &protected.standin;
    let configured = path.root().join("var/local/dtr");
    let aside = path.root().join("var/local/aside");
    std::fs::rename(&configured, &aside)?;
    server.cluster()?.stop().await?;
    let original = std::fs::read_to_string(container.root().join("etc/rekindle/node.toml"))?;
    let cluster = container.cluster()?;
    let host = format!(
        "host = \"{}\"\nport = {}",
        cluster.socket_directory().display(),
        cluster.port()
    );
    change_settings(&container, &host, "container = \"absent-container\"")?;
    change_settings(&bucket, standin.bucket(), "absent-bucket")?;
    standin
        .s3()
        .deny("PutObject", standin.bucket(), "backups/denied/");
    change_settings(&settings, "[configuration]", "[konfiguration]")?;

    let cases = [
        (
            "path",
            &path,
            ExitCode::ConfigurationMissing,
            "var/local/dtr",
        ),
        ("server", &server, ExitCode::PostgresUnreachable, "psql"),
        (
            "container",
            &container,
            ExitCode::PostgresUnreachable,
            "psql",
        ),
        ("bucket", &bucket, ExitCode::Upload, "NoSuchBucket"),
        ("denied", &denied, ExitCode::Upload, "AccessDenied"),
        ("settings", &settings, ExitCode::Settings, "konfiguration"),
    ];
    let at = OffsetDateTime::now_utc();
    let answer = ask(&protected, tick(at)?).await?;
    let started = answer["started"].as_array().map(Vec::len);
    assert_eq!(started, Some(cases.len()), "{answer}");
    for (application, node, code, cause) in cases {
        let ended = protected.wait_until_ended(node, "backup", 0).await?;
        assert_eq!(
            (ended.status.as_str(), ended.code),
            ("Failed", i32::from(code.code())),
            "{application}: {ended:?} {:?}",
            protected.error_lines(application)
        );
        let Report::Failure(report) = Report::from_output(&ended.output)? else {
            anyhow::bail!("{application}: {}", ended.output);
        };
        assert_eq!(report.exit_code, code, "{application}");
        assert!(
            report.message.contains(cause),
            "{application}: {}",
            report.message
        );
        // The agent's log has the remedy too, for whoever looks at the command itself.
        assert!(
            ended.errors.contains("remedy"),
            "{application}: {}",
            ended.errors
        );
        let message = protected.wait_for_failure(application, code.word()).await?;
        assert!(
            message.contains(cause) && message.contains(code.remedy()),
            "{application}: {message}"
        );
        assert!(protected.backups(application)?.is_empty(), "{application}");
    }
    assert_eq!(protected.open_uploads().await?, 0);

    std::fs::rename(&aside, &configured)?;
    server.cluster()?.start().await?;
    std::fs::write(container.root().join("etc/rekindle/node.toml"), original)?;
    change_settings(&bucket, "absent-bucket", standin.bucket())?;
    standin.s3().allow_all();
    change_settings(&settings, "[konfiguration]", "[configuration]")?;
    protected.wait_until_idle().await?;
    standin.bus().tick(at + Duration::seconds(5));
    for (application, ..) in cases {
        protected.wait_for_backup(application, 0).await?;
    }
    Ok(())
}
