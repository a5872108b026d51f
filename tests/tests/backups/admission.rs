//! Only a node that is known to hold the truth is backed up.

use std::path::PathBuf;

use anyhow::Result;
use rekindle_tests::node::Node;
use rekindle_tests::protected::Protected;
use serde_json::json;
use shared::command::Purpose;
use shared::manifest::Lineage;

use super::{ask, event};

fn marker(node: &Node) -> PathBuf {
    node.root().join("var/lib/rekindle/restored.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_node_is_protected_and_adoption_over_backups_has_to_be_said() -> Result<()> {
    let (protected, node) = Protected::one("handmade").await?;
    std::fs::remove_file(marker(&node))?;
    let mut adopt = event("adopt.json")?;
    adopt["stack"] = json!("handmade");

    let answer = ask(&protected, adopt.clone()).await?;
    assert_eq!(answer["outcome"], "requested", "{answer}");
    assert_eq!(answer["instance_id"], node.id());
    let manifest = protected.committed("handmade", 0).await?;
    assert_eq!(manifest.index.purpose, Purpose::Adopt);
    assert_eq!(manifest.index.node.lineage, Lineage::Adopted);
    assert!(manifest.index.rows() > 0);
    let scheduled = protected.back_up("handmade").await?;
    assert_eq!(scheduled.index.node.lineage, Lineage::Adopted);

    std::fs::remove_file(marker(&node))?;
    let refused = ask(&protected, adopt.clone()).await?;
    assert_eq!(
        (&refused["outcome"], &refused["kind"]),
        (&json!("refused"), &json!("Refused"))
    );
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("over_existing_backups")
            && message.contains(scheduled.index.backup_id.as_str()),
        "{message}"
    );
    assert_eq!(protected.backups("handmade")?.len(), 2);

    adopt["over_existing_backups"] = json!(true);
    let answer = ask(&protected, adopt).await?;
    assert_eq!(answer["outcome"], "requested", "{answer}");
    let manifest = protected.committed("handmade", 2).await?;
    assert_eq!(manifest.index.purpose, Purpose::Adopt);
    Ok(())
}
