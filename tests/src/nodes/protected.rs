//! Protected groups in service, and what the end-to-end tests ask again and again: which backups there are, what a
//! node answered, what the functions said.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use serde_json::Value;
use shared::command::AGENT_STEP;
use shared::env;
use shared::id::{ApplicationName, BackupId};
use shared::layout::{self, BackupState};
use shared::manifest::Manifest;
use shared::report::{Report, RestoreReport};

use crate::nodes::machine::Node;
use crate::nodes::registry;
use crate::nodes::registry::{Load, MAIN_DATABASE, NOTARY_DATABASE, Seed};
use crate::standin::world::{ProtectedGroup, StandIn, StandInBuilder, UserData};
use crate::wait::wait_for;

/// How long a test waits for anything: machines are slow and loaded.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Rows of a filled node; few, so that a test stays short.
pub const ROWS: u64 = 300;

/// A stand-in with any number of protected groups. A group, its application and its tag share one name.
pub struct Protected {
    /// The stand-in.
    pub world: StandIn,
}

/// A command's invocation on one node, as SSM shows it to an operator.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The command.
    pub command_id: String,
    /// Its document.
    pub document: String,
    /// SSM's word, such as `Success`.
    pub status: String,
    /// The exit code of the agent's step.
    pub code: i32,
    /// The agent's step's standard output: the report.
    pub output: String,
    /// The agent's step's standard error: the log.
    pub errors: String,
}

impl Invocation {
    /// Tells whether nothing more will happen.
    pub fn has_ended(&self) -> bool {
        !["Pending", "InProgress", "Delayed", "Cancelling"].contains(&self.status.as_str())
    }
}

impl Protected {
    /// Starts a stand-in without groups.
    pub async fn start() -> Result<Self> {
        Self::with(Self::builder()).await
    }

    /// Describes a stand-in whose time runs fast, and still leaves a loaded machine's nodes the time that hooks and
    /// deliveries allow.
    pub fn builder() -> StandInBuilder {
        StandIn::builder()
            .time_scale(20.0)
            .registration_delay(5.0)
            .drain(5.0)
    }

    /// Starts a stand-in of this description, without groups.
    pub async fn with(builder: StandInBuilder) -> Result<Self> {
        let world = builder.start().await?;
        Ok(Self { world })
    }

    /// Starts a stand-in with one filled group in service; returns its node, too.
    pub async fn one(application: &str) -> Result<(Self, Arc<Node>)> {
        let protected = Self::start().await?;
        let node = protected.filled(application).await?;
        Ok((protected, node))
    }

    /// Returns what drives the application of this application's nodes.
    pub fn load(&self, application: &str) -> Result<Load> {
        let directory = self.world.directory().join("loads").join(application);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        Ok(Load::in_directory(&directory))
    }

    /// Describes a protected group whose nodes run the registry.
    pub fn description(&self, application: &str) -> Result<ProtectedGroup> {
        let load = self.load(application)?;
        Ok(registry::protected_group(
            application,
            self.world.bucket(),
            &load,
        ))
    }

    /// Creates a group whose machines are changed by `prepare`, too, before their agent starts.
    pub fn create_changed(
        &self,
        application: &str,
        prepare: impl Fn(&Node) -> Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        let group = self.description(application)?;
        let (inner, prepare) = (group.user_data, Arc::new(prepare));
        let user_data: UserData = Arc::new(move |node| {
            let (inner, prepare) = (Arc::clone(&inner), Arc::clone(&prepare));
            async move {
                inner(Arc::clone(&node)).await?;
                prepare(&node)
            }
            .boxed()
        });
        self.world
            .create_group(ProtectedGroup { user_data, ..group })
    }

    /// Creates a group and waits until its first, still empty, node is in service.
    pub async fn empty(&self, application: &str) -> Result<Arc<Node>> {
        self.world.create_group(self.description(application)?)?;
        self.in_service(application, None).await
    }

    /// Creates a group and fills its first node with a small registry.
    pub async fn filled(&self, application: &str) -> Result<Arc<Node>> {
        let node = self.empty(application).await?;
        fill(&node).await?;
        Ok(node)
    }

    /// Waits until a node of the group other than `not` is in service; the minute sweep fires meanwhile.
    pub async fn in_service(&self, application: &str, not: Option<&Node>) -> Result<Arc<Node>> {
        let not = not.map(Node::id);
        let arrival = self.world.wait_until_in_service(application, not, PATIENCE);
        let arrived = self.sweeping(arrival).await;
        let node = arrived.with_context(|| format!("{:#?}", self.problems(application)))?;
        self.world
            .wait_until_at_rest(&[node.id()], PATIENCE)
            .await?;
        Ok(node)
    }

    /// Takes the node's power away without a warning; returns its replacement once that is in service.
    pub async fn lose(&self, node: &Node) -> Result<Arc<Node>> {
        self.world.kill_instance(node.id()).await?;
        self.in_service(node.group(), Some(node)).await
    }

    /// Fires the minute sweep again and again, in the stand-in's time, until `work` is done.
    pub async fn sweeping<T>(&self, work: impl Future<Output = T>) -> T {
        let sweeps = async {
            loop {
                tokio::time::sleep(self.world.clock().wait(60.0)).await;
                self.world.sweep();
            }
        };
        tokio::select! {
            done = work => done,
            never = sweeps => never,
        }
    }

    /// Sends the operator's request to resume; returns what it came to.
    pub async fn resume(&self, application: &str) -> Result<Value> {
        let request = serde_json::json!({"rekindle": "resume", "application": application});
        let answer = self.world.invoke(&self.function("restore")?, request).await;
        answer.map_err(|error| anyhow::anyhow!("resume {application}: {error}"))
    }

    /// Returns the committed backups of an application, oldest first.
    pub fn backups(&self, application: &str) -> Result<Vec<BackupId>> {
        let prefix = BackupState::Committed.prefix(&application.parse()?);
        let keys = self.world.s3().keys(self.world.bucket(), &prefix)?;
        keys.iter()
            .map(|key| {
                layout::backup_of_manifest(key).with_context(|| format!("{key} is no manifest"))
            })
            .collect()
    }

    /// Reads a committed backup's manifest.
    pub fn manifest(&self, application: &str, backup: &BackupId) -> Result<Manifest> {
        let application: ApplicationName = application.parse()?;
        let key = layout::manifest(&application, backup);
        let bytes = self.world.s3().read(self.world.bucket(), &key)?;
        Ok(Manifest::parse(&bytes, &application, backup)?)
    }

    /// Waits until the application has more than `before` backups; returns the newest one's manifest.
    pub async fn committed(&self, application: &str, before: usize) -> Result<Manifest> {
        let what = format!("more than {before} committed backups of {application}");
        let newest = wait_for(&what, PATIENCE, async || {
            let backups = self
                .backups(application)
                .map_err(|error| format!("{error:#}"))?;
            if backups.len() > before {
                Ok(backups.last().cloned())
            } else {
                Err(format!("{backups:?}; {:#?}", self.problems(application)))
            }
        })
        .await?;
        self.manifest(application, &newest)
    }

    /// Counts the uploads to the bucket of backups that were begun and neither completed nor aborted, as S3 lists them.
    pub async fn open_uploads(&self) -> Result<usize> {
        let s3 = aws_sdk_s3::Client::new(self.world.aws());
        let uploads = s3.list_multipart_uploads().bucket(self.world.bucket());
        let listed = uploads.send().await.context("list the open uploads")?;
        Ok(listed.uploads().len())
    }

    /// Fires the schedule and waits until the application has one backup more.
    pub async fn back_up(&self, application: &str) -> Result<Manifest> {
        let before = self.backups(application)?.len();
        self.world.tick();
        self.committed(application, before).await
    }

    /// Returns the name of the function whose name contains `word`, such as `backup`.
    pub fn function(&self, word: &str) -> Result<String> {
        let named = |name: &&str| name.to_lowercase().contains(word);
        let found = self.world.functions().find(named);
        Ok(found
            .with_context(|| format!("there is no {word} function"))?
            .to_owned())
    }

    /// Returns the name of the backup document or of the restore document.
    pub fn document(&self, word: &str) -> Result<String> {
        let name = match word {
            "backup" => env::BACKUP_DOCUMENT,
            _ => env::RESTORE_DOCUMENT,
        };
        let environment = self.world.environment(&self.function("backup")?);
        environment
            .and_then(|environment| environment.get(name))
            .cloned()
            .with_context(|| format!("{name} is not set"))
    }

    /// Returns the commands of one document on a node, oldest first, as SSM shows them. `word` is `backup` or
    /// `restore`.
    pub async fn invocations(&self, node: &Node, word: &str) -> Result<Vec<Invocation>> {
        let document = self.document(word)?;
        let ssm = aws_sdk_ssm::Client::new(self.world.aws());
        let mut found = Vec::new();
        let mut pages = ssm
            .list_command_invocations()
            .instance_id(node.id())
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.context("list the node's commands")?;
            for command in page.command_invocations() {
                if command.document_name() != Some(&document) {
                    continue;
                }
                let command_id = command.command_id().unwrap_or_default().to_owned();
                let invocation = ssm
                    .get_command_invocation()
                    .command_id(&command_id)
                    .instance_id(node.id())
                    .plugin_name(AGENT_STEP)
                    .send()
                    .await
                    .with_context(|| format!("ask for {command_id}"))?;
                let requested = command
                    .requested_date_time()
                    .context("when was it requested?")?
                    .as_nanos();
                let status = command.status().map_or("", |status| status.as_str());
                let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                let one = Invocation {
                    command_id,
                    document: document.clone(),
                    status: status.to_owned(),
                    code: invocation.response_code(),
                    output: text(invocation.standard_output_content()),
                    errors: text(invocation.standard_error_content()),
                };
                found.push((requested, one));
            }
        }
        found.sort_by_key(|(requested, _)| *requested);
        Ok(found.into_iter().map(|(_, one)| one).collect())
    }

    /// Waits until the node has ended more than `before` commands of one document; returns the newest.
    pub async fn ended(&self, node: &Node, word: &str, before: usize) -> Result<Invocation> {
        let what = format!("more than {before} ended {word} commands on {}", node.id());
        wait_for(&what, PATIENCE, async || {
            let all = self.invocations(node, word).await;
            let all = all.map_err(|error| format!("{error:#}"))?;
            let ended: Vec<&Invocation> = all.iter().filter(|one| one.has_ended()).collect();
            match ended.last() {
                Some(last) if ended.len() > before => Ok(Some((*last).clone())),
                _ => Err(format!("{all:?}")),
            }
        })
        .await
    }

    /// Waits until so many commands of one document execute on the node, and SSM lists them.
    pub async fn executing(&self, node: &Node, word: &str, count: usize) -> Result<()> {
        let what = format!("{count} {word} commands to execute on {}", node.id());
        wait_for(&what, PATIENCE, async || {
            let all = self.invocations(node, word).await;
            let all = all.map_err(|error| format!("{error:#}"))?;
            let executing = all.iter().filter(|one| one.status == "InProgress").count();
            if executing == count {
                Ok(Some(()))
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await
    }

    /// Returns what the node reported of its restore: the first report that is one.
    pub async fn restored(&self, node: &Node) -> Result<RestoreReport> {
        let all = self.invocations(node, "restore").await?;
        let report = all
            .iter()
            .find_map(|one| match Report::from_output(&one.output) {
                Ok(Report::Restore(report)) => Some(report),
                _ => None,
            });
        report.with_context(|| format!("{} reports no restore: {all:?}", node.id()))
    }

    /// Returns how the launches of a group ended, or what they are at, the oldest first, as Auto Scaling tells an
    /// operator: `Successful`, `Cancelled`, `MidLifecycleAction` and so on.
    pub async fn launches(&self, group: &str) -> Result<Vec<String>> {
        let auto_scaling = aws_sdk_autoscaling::Client::new(self.world.aws());
        let asked = auto_scaling
            .describe_scaling_activities()
            .auto_scaling_group_name(group);
        let told = asked.send().await.context("ask for the activities")?;
        let launches = told.activities().iter().rev().filter(|activity| {
            let description = activity.description().unwrap_or_default();
            description.starts_with("Launching")
        });
        let status = launches.filter_map(|activity| activity.status_code());
        Ok(status.map(|status| status.as_str().to_owned()).collect())
    }

    /// Returns what of Auto Scaling's processes is suspended for a group.
    pub async fn suspended(&self, group: &str) -> Result<Vec<String>> {
        let auto_scaling = aws_sdk_autoscaling::Client::new(self.world.aws());
        let described = auto_scaling
            .describe_auto_scaling_groups()
            .auto_scaling_group_names(group);
        let described = described.send().await.context("describe the group")?;
        let group = described.auto_scaling_groups().first();
        let suspended = group.context("the group is gone")?.suspended_processes();
        let names = suspended
            .iter()
            .filter_map(|process| process.process_name());
        Ok(names.map(str::to_owned).collect())
    }

    /// Returns every JSON line that the functions wrote since the first `after` lines.
    pub fn lines(&self, after: usize) -> Vec<Value> {
        let lines = self.world.logs().into_iter().skip(after);
        lines.filter_map(|line| line.json).collect()
    }

    /// Returns the number of lines so far, for [`Self::lines`].
    pub fn mark(&self) -> usize {
        self.world.logs().len()
    }

    /// Returns the ERROR lines that name an application.
    pub fn problems(&self, application: &str) -> Vec<Value> {
        let lines = self.lines(0).into_iter();
        lines
            .filter(|line| line["level"] == "ERROR" && line["fields"]["application"] == application)
            .collect()
    }

    /// Waits for the ERROR line of an application with this word, and for the metric that raises the alarm; returns the
    /// line's message.
    pub async fn failure(&self, application: &str, kind: &str) -> Result<String> {
        let what = format!("an ERROR line and a metric of the kind {kind} for {application}");
        wait_for(&what, PATIENCE, async || {
            let problems = self.problems(application);
            let line = problems.iter().find(|line| line["fields"]["kind"] == kind);
            let metric = self.lines(0).into_iter().any(|line| {
                line["Failures"] == 1 && line["Application"] == application && line["Kind"] == kind
            });
            match line.and_then(|line| line["fields"]["message"].as_str()) {
                Some(message) if metric => Ok(Some(message.to_owned())),
                _ => Err(format!("metric: {metric}; {problems:#?}")),
            }
        })
        .await
    }

    /// Waits until no asynchronous event is running or waits for another attempt.
    pub async fn quiet(&self) -> Result<()> {
        wait_for("the functions to be idle", PATIENCE, async || {
            match self.world.lambda().pending() {
                0 => Ok(Some(())),
                pending => Err(format!("{pending} events are pending")),
            }
        })
        .await
    }
}

/// Fills an empty node with a small registry, a second database and a configuration tree.
pub async fn fill(node: &Node) -> Result<()> {
    let cluster = node.cluster()?;
    let seed = Seed {
        rows: ROWS,
        seed: 1,
    };
    registry::create(&cluster.connect(MAIN_DATABASE).await?, seed).await?;
    registry::create_notary(&cluster.connect(NOTARY_DATABASE).await?).await?;
    registry::create_configuration(&node.root(), seed.seed)
}

/// Changes a node's settings: every occurrence of `from` becomes `to`. An error where there is none.
pub fn change_settings(node: &Node, from: &str, to: &str) -> Result<()> {
    let path = node.root().join("etc/rekindle/node.toml");
    let text = std::fs::read_to_string(&path).context("read the settings")?;
    ensure!(text.contains(from), "the settings hold no {from:?}: {text}");
    std::fs::write(&path, text.replace(from, to)).context("write the settings")
}
