//! A stand-in for the CLI to play on, and the CLI.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::FutureExt as _;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::s3::{ACCESS_KEY, SECRET_KEY};
use rekindle_tests::standin::{ProtectedGroup, StandIn};
use rekindle_tests::wait::wait_for;
use serde_json::{Value, json};

/// Generous: what is waited for takes well below a second of work, but machines may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const GROUP: &str = "demo";

/// A stand-in with one group and no functions: the test answers the hooks, by the CLI.
pub(crate) struct Stage {
    pub(crate) stand_in: StandIn,
}

impl Stage {
    pub(crate) async fn set() -> Result<Self> {
        let document = json!({"schemaVersion": "2.2",
            "parameters": {
                "Text": {"type": "String", "allowedPattern": "^[A-Za-z0-9 ;$&>]{1,64}$"},
                "Seconds": {"type": "String", "default": "60"}},
            "mainSteps": [
                {"action": "aws:runShellScript", "name": "greet", "inputs": {"timeoutSeconds": "60",
                    "runCommand": ["#!/bin/bash", "set -o pipefail", "echo \"$SSM_COMMAND_ID $REKINDLE_ROOT\""]}},
                {"action": "aws:runShellScript", "name": "perform", "inputs": {
                    "timeoutSeconds": "{{ Seconds }}", "runCommand": ["{{ Text }}"]}}]});
        let stand_in = StandIn::builder()
            .without_functions()
            .document("Play", document)
            .time_scale(120.0)
            .execution_scale(10.0)
            .start()
            .await?;
        stand_in.create_group(ProtectedGroup {
            name: GROUP.to_owned(),
            application: "demo".to_owned(),
            user_data: Arc::new(|_| async { Ok(()) }.boxed()),
            retain_on_abandon: false,
            tagged: true,
        })?;
        Ok(Self { stand_in })
    }

    /// A stage whose instance is in service and can be sent commands.
    pub(crate) async fn serving() -> Result<(Self, Arc<Node>)> {
        let stage = Self::set().await?;
        let node = stage.answer_launch(None).await?;
        Ok((stage, node))
    }

    pub(crate) async fn answer_launch(&self, not: Option<&str>) -> Result<Arc<Node>> {
        let waiting = self
            .stand_in
            .wait_until(GROUP, Lifecycle::PendingWait, not, PATIENCE)
            .await?;
        self.aws(&[
            "autoscaling",
            "complete-lifecycle-action",
            "--auto-scaling-group-name",
            GROUP,
            "--lifecycle-hook-name",
            "rekindle-launch",
            "--instance-id",
            waiting.id(),
            "--lifecycle-action-result",
            "CONTINUE",
        ])
        .await?;
        let node = self
            .stand_in
            .wait_until_in_service(GROUP, not, PATIENCE)
            .await?;
        wait_for("the agent", PATIENCE, async || {
            Ok::<_, String>(node.agent_runs().then_some(()))
        })
        .await?;
        Ok(node)
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<std::process::Output> {
        tokio::process::Command::new("aws")
            .args(arguments)
            .env("AWS_ENDPOINT_URL", self.stand_in.endpoint())
            // Version 1 of the CLI knows only the one, the SDKs only the other.
            .env("AWS_DEFAULT_REGION", self.stand_in.region())
            .env("AWS_REGION", self.stand_in.region())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_PAGER", "")
            .env("AWS_MAX_ATTEMPTS", "1")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .output()
            .await
            .context(
                "start the aws CLI: `make test` installs it into .venv and puts it on the PATH",
            )
    }

    /// Runs the CLI and reads its JSON; an error has what it complained of.
    pub(crate) async fn aws(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.run(arguments).await?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "aws {arguments:?}: {complaint}");
        if output.stdout.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the answer of aws {arguments:?}"))
    }

    /// Runs the CLI, which has to be refused; returns AWS's code and sentence.
    pub(crate) async fn refused(&self, arguments: &[&str]) -> Result<(String, String)> {
        let output = self.run(arguments).await?;
        ensure!(
            !output.status.success(),
            "aws {arguments:?} was not refused"
        );
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = complaint
            .split_once("An error occurred (")
            .and_then(|(_, rest)| rest.split_once(')'))
            .with_context(|| format!("aws {arguments:?} has no code: {complaint}"))?;
        Ok((code.0.to_owned(), complaint.clone()))
    }

    /// Sends the document and waits for the end of its second step.
    pub(crate) async fn play(
        &self,
        node: &Node,
        text: &str,
        seconds: &str,
    ) -> Result<(String, Value)> {
        let id = self.send(node, text, seconds).await?;
        let end = self.end_of(&id, node).await?;
        Ok((id, end))
    }

    pub(crate) async fn send(&self, node: &Node, text: &str, seconds: &str) -> Result<String> {
        let parameters = json!({"Text": [text], "Seconds": [seconds]}).to_string();
        let sent = self
            .aws(&[
                "ssm",
                "send-command",
                "--document-name",
                "Play",
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

    pub(crate) async fn end_of(&self, id: &str, node: &Node) -> Result<Value> {
        for _ in 0..100 {
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
            if output.status.success() {
                let answer: Value = serde_json::from_slice(&output.stdout)?;
                let status = answer["Status"].as_str().unwrap_or_default();
                if !["Pending", "InProgress", "Cancelling"].contains(&status) {
                    return Ok(answer);
                }
            } else {
                // The first moments of a command; see InvocationDoesNotExist.
                let complaint = String::from_utf8_lossy(&output.stderr);
                ensure!(complaint.contains("InvocationDoesNotExist"), "{complaint}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("command {id} does not end")
    }
}
