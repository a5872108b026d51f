//! A stand-in without functions, and the aws CLI with the environment to use it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::s3::{ACCESS_KEY, SECRET_KEY};
use rekindle_tests::standin::{ProtectedGroup, StandIn};
use rekindle_tests::wait::wait_for;
use serde_json::{Value, json};

/// The limit of each wait. The work takes less than a second, but the machine may be loaded.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_mins(1);
pub(crate) const GROUP: &str = "demo";

/// A stand-in with one group and no functions. The test completes the hooks with the CLI.
pub(crate) struct CliSetup {
    pub(crate) standin: StandIn,
}

impl CliSetup {
    pub(crate) async fn start() -> Result<Self> {
        let document = json!({"schemaVersion": "2.2",
            "parameters": {
                "Text": {"type": "String", "allowedPattern": "^[A-Za-z0-9 ;$&>]{1,64}$"},
                "Seconds": {"type": "String", "default": "60"}},
            "mainSteps": [
                {"action": "aws:runShellScript", "name": "greet", "inputs": {"timeoutSeconds": "60",
                    "runCommand": ["#!/bin/bash", "set -o pipefail", "echo \"$SSM_COMMAND_ID $REKINDLE_ROOT\""]}},
                {"action": "aws:runShellScript", "name": "perform", "inputs": {
                    "timeoutSeconds": "{{ Seconds }}", "runCommand": ["{{ Text }}"]}}]});
        let standin = StandIn::builder()
            .without_functions()
            .document("RunScript", document)
            .time_scale(120.0)
            .execution_scale(10.0)
            .start()
            .await?;
        standin.create_group(ProtectedGroup {
            name: GROUP.to_owned(),
            application: "demo".to_owned(),
            user_data: Arc::new(|_| async { Ok(()) }.boxed()),
            retain_on_abandon: false,
            tagged: true,
        })?;
        Ok(Self { standin })
    }

    /// Starts a stand-in whose instance is in service and has a registered agent.
    pub(crate) async fn in_service() -> Result<(Self, Arc<Node>)> {
        let cli = Self::start().await?;
        let node = cli.answer_launch(None).await?;
        Ok((cli, node))
    }

    /// Completes the launch hook of the next instance other than `not`; returns it when its agent is registered.
    pub(crate) async fn answer_launch(&self, not: Option<&str>) -> Result<Arc<Node>> {
        let waiting = self
            .standin
            .wait_until(GROUP, Lifecycle::PendingWait, not, WAIT_LIMIT)
            .await?;
        self.aws(&format!("autoscaling complete-lifecycle-action --auto-scaling-group-name {GROUP} --lifecycle-hook-name rekindle-launch --instance-id {} --lifecycle-action-result CONTINUE", waiting.id()))
        .await?;
        let node = self
            .standin
            .wait_until_in_service(GROUP, not, WAIT_LIMIT)
            .await?;
        wait_for("the agent", WAIT_LIMIT, async || {
            Ok::<_, String>(node.agent_runs().then_some(()))
        })
        .await?;
        Ok(node)
    }

    /// Runs the CLI; returns its exit status and output.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<std::process::Output> {
        tokio::process::Command::new("aws")
            .args(arguments)
            .env("AWS_ENDPOINT_URL", self.standin.endpoint())
            // Version 1 of the CLI reads only AWS_DEFAULT_REGION, and the SDKs read only AWS_REGION.
            .env("AWS_DEFAULT_REGION", self.standin.region())
            .env("AWS_REGION", self.standin.region())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_PAGER", "")
            .env("AWS_MAX_ATTEMPTS", "1")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .output()
            .await
            .context(
                "cannot start the aws CLI; run `make venv` and add .venv/bin to PATH (`make test` does both)",
            )
    }

    /// Runs the CLI with these words and parses its JSON; an error contains its stderr.
    pub(crate) async fn aws(&self, line: &str) -> Result<Value> {
        let arguments: Vec<&str> = line.split(' ').collect();
        self.aws_arguments(&arguments).await
    }

    /// Runs the CLI with arguments that may contain spaces and parses its JSON; an error contains its stderr.
    pub(crate) async fn aws_arguments(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.run(arguments).await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "aws {arguments:?}: {stderr}");
        if output.stdout.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the answer of aws {arguments:?}"))
    }

    /// Runs the CLI with these words; AWS must refuse the request. Returns the error code and the whole message.
    pub(crate) async fn refused(&self, line: &str) -> Result<(String, String)> {
        let arguments: Vec<&str> = line.split(' ').collect();
        self.refused_arguments(&arguments).await
    }

    /// Like [`Self::refused`], with arguments that may contain spaces.
    pub(crate) async fn refused_arguments(&self, arguments: &[&str]) -> Result<(String, String)> {
        let output = self.run(arguments).await?;
        ensure!(
            !output.status.success(),
            "aws {arguments:?} was not refused"
        );
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = stderr
            .split_once("An error occurred (")
            .and_then(|(_, rest)| rest.split_once(')'))
            .with_context(|| format!("aws {arguments:?} has no code: {stderr}"))?;
        Ok((code.0.to_owned(), stderr.clone()))
    }

    /// Sends the document and waits until its second step has ended; returns the command's id and that step.
    pub(crate) async fn run_script(
        &self,
        node: &Node,
        text: &str,
        seconds: &str,
    ) -> Result<(String, Value)> {
        let id = self.send(node, text, seconds).await?;
        let end = self.end_of(&id, node).await?;
        Ok((id, end))
    }

    /// Sends the document; returns the command's id.
    pub(crate) async fn send(&self, node: &Node, text: &str, seconds: &str) -> Result<String> {
        let parameters = json!({"Text": [text], "Seconds": [seconds]}).to_string();
        let sent = self
            .aws_arguments(&[
                "ssm",
                "send-command",
                "--document-name",
                "RunScript",
                "--instance-ids",
                node.id(),
                "--timeout-seconds",
                "600",
                "--parameters",
                &parameters,
            ])
            .await?;
        let id = sent["Command"]["CommandId"].as_str();
        Ok(id.context("no CommandId")?.to_owned())
    }

    /// Waits until the second step of a command has ended; returns its invocation.
    pub(crate) async fn end_of(&self, id: &str, node: &Node) -> Result<Value> {
        let what = format!("the command {id} to end");
        wait_for(&what, WAIT_LIMIT, async || {
            Ok::<_, String>(self.ended(id, node).await.transpose())
        })
        .await?
    }

    /// Returns the invocation of the second step of a command, or `None` if it has not ended.
    async fn ended(&self, id: &str, node: &Node) -> Result<Option<Value>> {
        let arguments = [
            "ssm",
            "get-command-invocation",
            "--command-id",
            id,
            "--instance-id",
            node.id(),
            "--plugin-name",
            "perform",
        ];
        let output = self.run(&arguments).await?;
        if !output.status.success() {
            // SSM does not show the invocation in the first moments of a command.
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(stderr.contains("InvocationDoesNotExist"), "{stderr}");
            return Ok(None);
        }
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let status = answer["Status"].as_str().unwrap_or_default();
        let running = ["Pending", "InProgress", "Cancelling"].contains(&status);
        Ok((!running).then_some(answer))
    }
}
