//! An operator's requests `backup-now` and `list-backups`.

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use serde_json::json;
use shared::command::Purpose;
use shared::layout;

use super::event;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_starts_backups_and_lists_them_newest_first() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("asked").await?;
    let mut now = event("backup-now.json")?;
    now["application"] = json!("asked");
    let mut list = event("list-backups.json")?;
    list["application"] = json!("asked");
    let empty = protected.invoke("backup", list.clone()).await?;
    assert_eq!(
        empty,
        json!({"outcome": "backups", "application": "asked", "backups": []})
    );

    let mut committed = Vec::new();
    for before in 0..3 {
        let answer = protected.invoke("backup", now.clone()).await?;
        assert_eq!(
            (
                &answer["outcome"],
                &answer["application"],
                &answer["instance_id"]
            ),
            (&json!("requested"), &json!("asked"), &json!(node.id()))
        );
        let manifest = protected.wait_for_backup("asked", before).await?;
        assert_eq!(manifest.index.purpose, Purpose::Manual);
        assert_eq!(answer["backup_id"], manifest.index.backup_id.as_str());
        assert_eq!(answer["command_id"], manifest.command_id.as_str());
        committed.push(manifest);
    }

    // A manifest that cannot be read does not hide the other backups.
    let damaged = layout::manifest(&"asked".parse()?, &committed[0].index.backup_id);
    let standin = &protected.standin;
    standin.s3().replace(standin.bucket(), &damaged, b"{}")?;
    let listed = protected.invoke("backup", list.clone()).await?;
    let newest = &committed[2];
    assert_eq!(
        listed["backups"][0],
        json!({
            "backup_id": newest.index.backup_id, "purpose": "manual",
            "committed_at": serde_json::to_value(newest)?["committed_at"], "rows": newest.index.rows(),
            "bytes": newest.index.bytes(), "instance_id": node.id(), "pinned": false,
        })
    );
    assert_eq!(
        listed["backups"][1]["backup_id"],
        committed[1].index.backup_id.as_str()
    );
    assert_eq!(
        listed["backups"][2]["backup_id"],
        committed[0].index.backup_id.as_str()
    );
    let problem = listed["backups"][2]["problem"].as_str().unwrap_or_default();
    assert!(problem.contains(&damaged), "{listed}");
    list["limit"] = json!(1);
    let one = protected.invoke("backup", list).await?;
    assert_eq!(one["backups"].as_array().map(Vec::len), Some(1), "{one}");

    now["application"] = json!("unknown");
    let refused = protected.invoke("backup", now).await?;
    assert_eq!(refused["outcome"], "refused");
    let message = refused["reason"].as_str().unwrap_or_default();
    assert!(
        message.contains("rekindle:application=unknown"),
        "{message}"
    );
    Ok(())
}
