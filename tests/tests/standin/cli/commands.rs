//! Run Command and the Parameter Store by the CLI.

use anyhow::Result;
use rekindle_tests::wait::wait_for;
use serde_json::{Value, json};

use super::stage::{PATIENCE, Stage};

/// Documents run on the node, step by step, and their ends are told apart as SSM tells them apart.
#[tokio::test(flavor = "multi_thread")]
async fn the_cli_follows_commands() -> Result<()> {
    let (stage, node) = Stage::serving().await?;
    let (id, end) = stage.play(&node, "echo hallo; echo weh >&2", "60").await?;
    assert_eq!(
        (end["Status"].as_str(), end["ResponseCode"].as_i64()),
        (Some("Success"), Some(0))
    );
    assert_eq!(end["StandardOutputContent"], "hallo\n");
    assert_eq!(end["StandardErrorContent"], "weh\n");
    let greeted = stage
        .aws(&[
            "ssm",
            "get-command-invocation",
            "--command-id",
            &id,
            "--instance-id",
            node.id(),
            "--plugin-name",
            "greet",
        ])
        .await?;
    let greeting = format!("{id} {}\n", node.root().display());
    assert_eq!(greeted["StandardOutputContent"], greeting);

    let (failed, end) = stage.play(&node, "exit 23", "60").await?;
    assert_eq!(
        (end["Status"].as_str(), end["ResponseCode"].as_i64()),
        (Some("Failed"), Some(23))
    );
    let (_, end) = stage.play(&node, "exit 137", "60").await?;
    assert_eq!(end["StatusDetails"], "ExecutionTimedOut");
    let (_, end) = stage.play(&node, "sleep 600", "10").await?;
    assert_eq!(
        (end["Status"].as_str(), end["ResponseCode"].as_i64()),
        (Some("TimedOut"), Some(137))
    );

    let commands = stage
        .aws(&[
            "ssm",
            "list-commands",
            "--filters",
            "key=Status,value=Failed",
        ])
        .await?;
    assert_eq!(commands["Commands"][0]["CommandId"], failed.as_str());
    assert_eq!(commands["Commands"].as_array().map(Vec::len), Some(1));
    let all = stage
        .aws(&["ssm", "list-commands", "--page-size", "1"])
        .await?;
    assert_eq!(all["Commands"].as_array().map(Vec::len), Some(4));
    let invocations = stage
        .aws(&[
            "ssm",
            "list-command-invocations",
            "--command-id",
            &failed,
            "--details",
        ])
        .await?;
    let plugins = &invocations["CommandInvocations"][0]["CommandPlugins"];
    assert_eq!(
        (
            plugins[0]["Name"].as_str(),
            plugins[0]["ResponseCode"].as_i64()
        ),
        (Some("greet"), Some(0))
    );
    assert_eq!(
        (
            plugins[1]["Name"].as_str(),
            plugins[1]["ResponseCode"].as_i64()
        ),
        (Some("perform"), Some(23))
    );
    Ok(())
}

/// Wrong requests to SSM get SSM's codes.
#[tokio::test(flavor = "multi_thread")]
async fn the_cli_is_refused_with_ssm_codes() -> Result<()> {
    let (stage, node) = Stage::serving().await?;
    let absent = "00000000-0000-4000-8000-000000000000";
    let send = |document: &'static str, parameters: Value| {
        let (stage, node) = (&stage, &node);
        async move {
            let parameters = parameters.to_string();
            let arguments = [
                "ssm",
                "send-command",
                "--document-name",
                document,
                "--instance-ids",
                node.id(),
                "--parameters",
                &parameters,
            ];
            Ok::<_, anyhow::Error>(stage.refused(&arguments).await?.0)
        }
    };
    assert_eq!(send("Absent", json!({})).await?, "InvalidDocument");
    assert_eq!(send("Play", json!({})).await?, "InvalidParameters");
    assert_eq!(
        send("Play", json!({"Text": ["`reboot`"]})).await?,
        "InvalidParameters"
    );
    assert_eq!(
        send("Play", json!({"Text": ["true"], "More": ["x"]})).await?,
        "InvalidParameters"
    );
    let (code, _) = stage
        .refused(&[
            "ssm",
            "get-command-invocation",
            "--command-id",
            absent,
            "--instance-id",
            node.id(),
        ])
        .await?;
    assert_eq!(code, "InvocationDoesNotExist");
    let (id, _) = stage.play(&node, "true", "60").await?;
    let (code, _) = stage
        .refused(&[
            "ssm",
            "get-command-invocation",
            "--command-id",
            &id,
            "--instance-id",
            node.id(),
        ])
        .await?;
    assert_eq!(code, "InvalidPluginName");
    let (code, _) = stage
        .refused(&["ssm", "get-parameter", "--name", "/rekindle/demo"])
        .await?;
    assert_eq!(code, "ParameterNotFound");
    let put = [
        "ssm",
        "put-parameter",
        "--name",
        "/rekindle/demo",
        "--value",
        "{}",
        "--type",
        "String",
    ];
    stage.aws(&put).await?;
    assert_eq!(stage.refused(&put).await?.0, "ParameterAlreadyExists");
    let parameter = stage
        .aws(&["ssm", "get-parameter", "--name", "/rekindle/demo"])
        .await?;
    assert_eq!(parameter["Parameter"]["Value"], "{}");
    Ok(())
}

/// A dead node's command stays in progress until its time is over, and its processes are gone at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_leaves_its_command_in_progress_until_its_time_is_over() -> Result<()> {
    let (stage, node) = Stage::serving().await?;
    // 600 s to deliver and 660 s to run are 11 s here.
    let id = stage.send(&node, "sleep 600 & sleep 600", "600").await?;
    let started = ["ssm", "list-command-invocations", "--command-id", &id];
    wait_for("the script", PATIENCE, async || {
        let answer = stage
            .aws(&started)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer["CommandInvocations"][0]["Status"]
            .as_str()
            .unwrap_or("none")
            .to_owned();
        if status == "InProgress" {
            Ok(Some(()))
        } else {
            Err(status)
        }
    })
    .await?;
    stage.stand_in.kill_instance(node.id()).await?;
    let answer = stage.aws(&started).await?;
    assert_eq!(answer["CommandInvocations"][0]["Status"], "InProgress");
    wait_for("SSM to give up", PATIENCE, async || {
        let answer = stage
            .aws(&started)
            .await
            .map_err(|error| error.to_string())?;
        let details = answer["CommandInvocations"][0]["StatusDetails"]
            .as_str()
            .unwrap_or("none")
            .to_owned();
        if details == "DeliveryTimedOut" {
            Ok(Some(()))
        } else {
            Err(details)
        }
    })
    .await
}
