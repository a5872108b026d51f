//! Only a node with a valid `restored` marker is backed up.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::nodes::machine::Node;
use serde_json::{Value, json};
use shared::command::Purpose;
use shared::exit_code::ExitCode;
use shared::manifest::Lineage;
use shared::report::Report;
use tokio::try_join;

use super::event;

/// Changes one text field of the node's `restored` marker.
fn change_marker(node: &Node, field: &str, value: &str) -> Result<()> {
    let text = std::fs::read_to_string(node.marker()).context("read the marker")?;
    let mut marker_value: Value = serde_json::from_str(&text)?;
    assert!(marker_value[field].is_string(), "{text}");
    marker_value[field] = value.into();
    std::fs::write(node.marker(), marker_value.to_string()).context("write the marker")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_valid_marker_is_not_backed_up() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let (removed, instance, cluster, application) = try_join!(
        protected.create_empty("removed"),
        protected.create_empty("instance"),
        protected.create_empty("cluster"),
        protected.create_empty("application")
    )?;
    std::fs::remove_file(removed.marker())?;
    change_marker(&instance, "instance_id", "i-0123456789abcdef0")?;
    change_marker(&cluster, "system_identifier", "7000000000000000001")?;
    change_marker(&application, "application", "another")?;

    protected.standin.tick();
    for (name, node) in [
        ("removed", removed),
        ("instance", instance),
        ("cluster", cluster),
        ("application", application),
    ] {
        let ended = protected.wait_until_ended(&node, "backup", 0).await?;
        assert_eq!(
            (ended.status.as_str(), ended.code),
            ("Failed", 13),
            "{ended:?}"
        );
        let Report::Failure(report) = Report::from_output(&ended.output)? else {
            anyhow::bail!("{name}: {}", ended.output);
        };
        assert_eq!(report.exit_code, ExitCode::NotRestored);
        let line = protected.wait_for_failure(name, "NotRestored").await?;
        let reason = format!("no valid restored marker for the application {name};");
        assert!(line.contains(&reason), "{line}");
        assert!(protected.backups(name)?.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_node_is_backed_up_and_adoption_over_existing_backups_needs_a_flag() -> Result<()>
{
    let (protected, node) = ProtectedGroups::with_filled_group("handmade").await?;
    std::fs::remove_file(node.marker())?;
    let mut adopt = event("adopt.json")?;
    adopt["application"] = json!("handmade");

    let answer = protected.invoke("backup", adopt.clone()).await?;
    assert_eq!(answer["outcome"], "requested", "{answer}");
    assert_eq!(answer["instance_id"], node.id());
    let manifest = protected.wait_for_backup("handmade", 0).await?;
    assert_eq!(manifest.index.purpose, Purpose::Adopt);
    assert_eq!(manifest.index.node.lineage, Lineage::Adopted);
    assert!(manifest.index.rows() > 0);
    let scheduled = protected.back_up("handmade").await?;
    assert_eq!(scheduled.index.node.lineage, Lineage::Adopted);

    std::fs::remove_file(node.marker())?;
    let refused = protected.invoke("backup", adopt.clone()).await?;
    assert_eq!(
        (&refused["outcome"], &refused["kind"]),
        (&json!("refused"), &json!("Refused"))
    );
    let message = refused["reason"].as_str().unwrap_or_default();
    assert!(
        message.contains("over_existing_backups")
            && message.contains(scheduled.index.backup_id.as_str()),
        "{message}"
    );
    assert_eq!(protected.backups("handmade")?.len(), 2);

    adopt["over_existing_backups"] = json!(true);
    let answer = protected.invoke("backup", adopt).await?;
    assert_eq!(answer["outcome"], "requested", "{answer}");
    let manifest = protected.wait_for_backup("handmade", 2).await?;
    assert_eq!(manifest.index.purpose, Purpose::Adopt);
    Ok(())
}
