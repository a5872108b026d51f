//! Run Command and the Parameter Store, with the aws CLI.

use anyhow::Result;
use rekindle_tests::wait::wait_for;
use serde_json::{Value, json};

use super::setup::{CliSetup, WAIT_LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn the_cli_shows_how_each_command_ended() -> Result<()> {
    let (cli, node) = CliSetup::in_service().await?;
    let (id, end) = cli
        .run_script(&node, "echo hallo; echo weh >&2", "60")
        .await?;
    assert_eq!(
        (end["Status"].as_str(), end["ResponseCode"].as_i64()),
        (Some("Success"), Some(0))
    );
    assert_eq!(end["StandardOutputContent"], "hallo\n");
    assert_eq!(end["StandardErrorContent"], "weh\n");
    let greeted = cli
        .aws(&format!(
            "ssm get-command-invocation --command-id {id} --instance-id {} --plugin-name greet",
            node.id()
        ))
        .await?;
    let greeting = format!("{id} {}\n", node.root().display());
    assert_eq!(greeted["StandardOutputContent"], greeting);

    let (failed, end) = cli.run_script(&node, "exit 23", "60").await?;
    assert_eq!(
        (end["Status"].as_str(), end["ResponseCode"].as_i64()),
        (Some("Failed"), Some(23))
    );
    let (_, end) = cli.run_script(&node, "exit 137", "60").await?;
    assert_eq!(end["StatusDetails"], "ExecutionTimedOut");
    let (_, end) = cli.run_script(&node, "sleep 600", "10").await?;
    assert_eq!(
        (end["Status"].as_str(), end["ResponseCode"].as_i64()),
        (Some("TimedOut"), Some(137))
    );

    let commands = cli
        .aws("ssm list-commands --filters key=Status,value=Failed")
        .await?;
    assert_eq!(commands["Commands"][0]["CommandId"], failed.as_str());
    assert_eq!(commands["Commands"].as_array().map(Vec::len), Some(1));
    let all = cli.aws("ssm list-commands --page-size 1").await?;
    assert_eq!(all["Commands"].as_array().map(Vec::len), Some(4));
    let invocations = cli
        .aws(&format!(
            "ssm list-command-invocations --command-id {failed} --details"
        ))
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

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_get_the_error_codes_of_ssm() -> Result<()> {
    let (cli, node) = CliSetup::in_service().await?;
    let absent = "00000000-0000-4000-8000-000000000000";
    let send = |document: &'static str, parameters: Value| {
        let (cli, node) = (&cli, &node);
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
            Ok::<_, anyhow::Error>(cli.refused_arguments(&arguments).await?.0)
        }
    };
    assert_eq!(send("Absent", json!({})).await?, "InvalidDocument");
    assert_eq!(send("RunScript", json!({})).await?, "InvalidParameters");
    assert_eq!(
        send("RunScript", json!({"Text": ["`reboot`"]})).await?,
        "InvalidParameters"
    );
    assert_eq!(
        send("RunScript", json!({"Text": ["true"], "More": ["x"]})).await?,
        "InvalidParameters"
    );
    let (code, _) = cli
        .refused(&format!(
            "ssm get-command-invocation --command-id {absent} --instance-id {}",
            node.id()
        ))
        .await?;
    assert_eq!(code, "InvocationDoesNotExist");
    let (id, _) = cli.run_script(&node, "true", "60").await?;
    let (code, _) = cli
        .refused(&format!(
            "ssm get-command-invocation --command-id {id} --instance-id {}",
            node.id()
        ))
        .await?;
    assert_eq!(code, "InvalidPluginName");
    let (code, _) = cli
        .refused("ssm get-parameter --name /rekindle/demo")
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
    cli.aws_arguments(&put).await?;
    assert_eq!(
        cli.refused_arguments(&put).await?.0,
        "ParameterAlreadyExists"
    );
    let parameter = cli.aws("ssm get-parameter --name /rekindle/demo").await?;
    assert_eq!(parameter["Parameter"]["Value"], "{}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_of_a_dead_node_stays_in_progress_until_its_timeout() -> Result<()> {
    let (cli, node) = CliSetup::in_service().await?;
    // The 600 s for delivery and 660 s for execution last 11 s here.
    let id = cli.send(&node, "sleep 600 & sleep 600", "600").await?;
    let started = ["ssm", "list-command-invocations", "--command-id", &id];
    wait_for("the script to start", WAIT_LIMIT, async || {
        let answer = cli
            .aws_arguments(&started)
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
    cli.standin.kill_instance(node.id()).await?;
    let answer = cli.aws_arguments(&started).await?;
    assert_eq!(answer["CommandInvocations"][0]["Status"], "InProgress");
    wait_for("SSM to time out the command", WAIT_LIMIT, async || {
        let answer = cli
            .aws_arguments(&started)
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
