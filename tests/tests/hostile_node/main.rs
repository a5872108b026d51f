//! A compromised node answers its commands with false reports. No manifest is forged, no other application is affected,
//! and no function crashes.

mod answers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::nodes::machine::{Node, write_program};
use rekindle_tests::wait::wait_for;
use serde_json::json;
use shared::checksum::digests;
use shared::command::Purpose;
use shared::id::BackupId;
use shared::layout;
use shared::manifest::{Index, Manifest, ObjectRecord};
use shared::report::{BackupReport, Report};

use crate::answers::FALSE_ANSWERS;

const COMPROMISED: &str = "compromised";
const VICTIM: &str = "victim";

/// Replaces the agent of a node by a program that waits for the file `answer` and prints it.
fn compromise(root: &Path) -> Result<()> {
    let programs = root.join("usr/local/bin");
    let false_agent = "#!/bin/sh\nuntil [ -e \"$REKINDLE_ROOT/answer\" ]; do sleep 0.05; done\ncat \"$REKINDLE_ROOT/answer\"\n";
    // The document ends with `mv -f <the downloaded agent> <the agent's path>` and then runs the agent.
    let false_mv = "#!/bin/sh\ncp \"$REKINDLE_ROOT/usr/local/bin/false-agent\" \"$3\"\n";
    for (name, text) in [("false-agent", false_agent), ("mv", false_mv)] {
        write_program(&programs.join(name), text)?;
    }
    Ok(())
}

/// Writes the file `answer` in one step, so that the false agent never prints a part of it.
fn answer_with(root: &Path, answer: &str) -> Result<()> {
    std::fs::write(root.join("answer.new"), answer)?;
    std::fs::rename(root.join("answer.new"), root.join("answer")).context("write the answer")
}

/// Two applications with one backup each. The node of the first is compromised.
struct Scenario {
    protected: ProtectedGroups,
    node: Arc<Node>,
    own: Manifest,
    theirs: Manifest,
}

/// Returns a false answer to the command for a backup with this id.
type FalseAnswer = fn(&Scenario, &BackupId) -> Result<String>;

impl Scenario {
    async fn start() -> Result<Self> {
        let (protected, node) = ProtectedGroups::with_filled_group(COMPROMISED).await?;
        protected.create_filled(VICTIM).await?;
        protected.standin.tick();
        let own = protected.wait_for_backup(COMPROMISED, 0).await?;
        let theirs = protected.wait_for_backup(VICTIM, 0).await?;
        // The state parameter is written after the manifest.
        protected.wait_until_idle().await?;
        compromise(&node.root())?;
        Ok(Self {
            protected,
            node,
            own,
            theirs,
        })
    }

    /// Writes an object; returns its record.
    fn put(&self, key: &str, bytes: &[u8]) -> Result<ObjectRecord> {
        let standin = &self.protected.standin;
        standin.s3().replace(standin.bucket(), key, bytes)?;
        let found = digests(bytes);
        Ok(ObjectRecord {
            key: key.to_owned(),
            version_id: None,
            size: found.size,
            sha256: found.sha256,
            crc64: found.crc64,
        })
    }

    /// Uploads a backup with this id that is good except for the changes of its index by `change`. Returns its report.
    fn backup(
        &self,
        backup: &BackupId,
        change: impl FnOnce(&mut Index) -> Result<()>,
    ) -> Result<BackupReport> {
        let standin = &self.protected.standin;
        let mut index = self.own.index.clone();
        index.backup_id = backup.clone();
        index.operation_id = backup.as_str().parse()?;
        index.purpose = Purpose::Manual;
        let old = layout::run_prefix(&index.application, &self.own.index.backup_id, &index.run_id);
        let new = layout::run_prefix(&index.application, backup, &index.run_id);
        for record in &mut index.objects {
            let bytes = standin.s3().read(standin.bucket(), &record.key)?;
            *record = self.put(&record.key.replace(&old, &new), &bytes)?;
        }
        for database in &mut index.databases {
            database.key = database.key.replace(&old, &new);
        }
        let run_id = index.run_id.clone();
        change(&mut index)?;
        let key = format!("{new}{}", layout::INDEX);
        let put = self.put(&key, &serde_json::to_vec(&index)?)?;
        Ok(BackupReport {
            operation_id: backup.as_str().parse()?,
            backup_id: backup.clone(),
            run_id,
            index_sha256: put.sha256,
            index_size: put.size,
            databases: 2,
            tables: 1,
            rows: 1,
            bytes: 1,
            seconds: 1.0,
            peak_memory_kib: 1,
        })
    }

    /// Reads everything that no false answer may change: the victim's objects, every manifest, and both state parameters.
    async fn protected_state(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let standin = &self.protected.standin;
        let mut all = BTreeMap::new();
        for prefix in ["backups/victim/", "manifests/"] {
            for key in standin.s3().keys(standin.bucket(), prefix)? {
                let bytes = standin.s3().read(standin.bucket(), &key)?;
                all.insert(key, bytes);
            }
        }
        let ssm = aws_sdk_ssm::Client::new(standin.aws());
        for application in [COMPROMISED, VICTIM] {
            let name = layout::state_parameter(&application.parse()?);
            let found = ssm.get_parameter().name(&name).send().await?;
            let value = found.parameter().and_then(|found| found.value());
            all.insert(name, value.unwrap_or_default().into());
        }
        Ok(all)
    }

    /// Sends `backup-now` for the compromised node; returns the id of the backup.
    async fn request_backup(&self) -> Result<BackupId> {
        let request = json!({"rekindle": "backup-now", "application": COMPROMISED});
        let answer = self.protected.invoke("backup", request).await?;
        let backup = answer["backup_id"].as_str();
        let backup = backup.with_context(|| format!("no backup was requested: {answer}"))?;
        Ok(backup.parse()?)
    }

    /// Requests a backup and answers it falsely; returns the reason in the function's ERROR line.
    async fn refusal_of(&self, false_answer: FalseAnswer) -> Result<String> {
        let root = self.node.root();
        let (before, commands) = (
            self.protected.errors(COMPROMISED).len(),
            self.protected
                .invocations(&self.node, "backup")
                .await?
                .len(),
        );
        let backup = self.request_backup().await?;
        answer_with(&root, &false_answer(self, &backup)?)?;
        let ended = self
            .protected
            .wait_until_ended(&self.node, "backup", commands)
            .await?;
        ensure!(ended.status == "Success", "{ended:?}");
        let refusal = wait_for("an ERROR line about the answer", WAIT_LIMIT, async || {
            let problems = self.protected.errors(COMPROMISED);
            match problems.get(before) {
                Some(problem) => Ok(Some(problem.clone())),
                None => Err(format!("{problems:?}")),
            }
        });
        let refusal = refusal.await?;
        self.protected.wait_until_idle().await?;
        std::fs::remove_file(root.join("answer"))?;
        ensure!(refusal.has_kind("Contract"), "{refusal}");
        ensure!(refusal.message == "the backup failed", "{refusal}");
        refusal.reason.context("the line has no reason")
    }
}

/// Returns the line that an agent prints for a report.
fn line(report: BackupReport) -> String {
    Report::Backup(report).to_line() + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_report_forges_no_manifest_and_affects_no_other_application() -> Result<()> {
    let scenario = Scenario::start().await?;
    let before = scenario.protected_state().await?;
    assert!(before.len() >= 10, "{:?}", before.keys());
    for (name, word, false_answer) in FALSE_ANSWERS {
        let message = scenario.refusal_of(false_answer).await.context(name)?;
        assert!(message.contains(word), "{name}: {message}");
        assert!(
            scenario.protected_state().await? == before,
            "{name} changed something"
        );
    }
    // A sweep, which looks for backups whose events were lost, commits none of them either.
    scenario.protected.standin.sweep();
    scenario.protected.wait_until_idle().await?;
    assert!(scenario.protected_state().await? == before);
    let logs = scenario.protected.standin.logs();
    let panic = logs.iter().find(|line| line.line.contains("panicked"));
    assert!(panic.is_none(), "{panic:?}");

    // The reports were refused because they were false: a true report of the same program is committed, and so is a backup
    // of the original agent.
    let good = scenario.request_backup().await?;
    answer_with(
        &scenario.node.root(),
        &line(scenario.backup(&good, |_| Ok(()))?),
    )?;
    let manifest = scenario.protected.wait_for_backup(COMPROMISED, 1).await?;
    assert_eq!(manifest.index.backup_id, good);
    std::fs::remove_file(scenario.node.root().join("usr/local/bin/mv"))?;
    let own = scenario.request_backup().await?;
    let manifest = scenario.protected.wait_for_backup(COMPROMISED, 2).await?;
    assert_eq!(manifest.index.backup_id, own);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_repeats_the_restore_report_of_another_node_is_not_admitted() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    // While this flag is set, nodes are compromised from their boot, and answer with the contents of this file.
    let compromised = Arc::new(AtomicBool::new(false));
    let file = protected.standin.directory().join("answer");
    let mut group = protected.describe(COMPROMISED)?;
    let (prepare, flag, answer) = (
        Arc::clone(&group.user_data),
        Arc::clone(&compromised),
        file.clone(),
    );
    group.user_data = Arc::new(move |node| {
        let (prepare, flag, answer) = (Arc::clone(&prepare), Arc::clone(&flag), answer.clone());
        async move {
            if flag.load(Ordering::SeqCst) {
                compromise(&node.root())?;
                answer_with(&node.root(), &std::fs::read_to_string(answer)?)?;
            }
            prepare(node).await
        }
        .boxed()
    });
    protected.standin.create_group(group)?;
    let first = protected.wait_until_in_service(COMPROMISED, None).await?;
    rekindle_tests::fixtures::protected_groups::fill(&first).await?;
    protected.back_up(COMPROMISED).await?;
    let data = standalone::snapshot(&first).await?;
    let genuine = protected.invocations(&first, "restore").await?;
    let genuine = genuine.into_iter().find(|one| one.status == "Success");
    std::fs::write(&file, genuine.context("no restore succeeded")?.output)?;

    compromised.store(true, Ordering::SeqCst);
    protected.standin.kill_instance(first.id()).await?;
    let refused = protected
        .with_sweeps(protected.wait_for_failure(COMPROMISED, "Contract"))
        .await?;
    assert!(refused.contains("abandoned"), "{refused}");
    compromised.store(false, Ordering::SeqCst);
    let good = protected
        .wait_until_in_service(COMPROMISED, Some(&first))
        .await?;
    assert_eq!(standalone::snapshot(&good).await?.databases, data.databases);
    let lines = protected.log(0).into_iter();
    let admitted: Vec<String> = lines
        .filter(|line| line.has_decision("admit") && !line.is_about_instance(first.id()))
        .filter_map(|line| line.instance_id)
        .collect();
    assert_eq!(admitted, [good.id()]);
    Ok(())
}
