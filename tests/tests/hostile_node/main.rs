//! A node that somebody has taken over answers its commands with whatever it likes. Other applications lose nothing by it, no
//! manifest is forged by it, and no function fails over it.

mod lies;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::wait::wait_for;
use serde_json::json;
use shared::checksum::digests;
use shared::command::Purpose;
use shared::id::BackupId;
use shared::layout;
use shared::manifest::{Index, Manifest, ObjectRecord};
use shared::report::{BackupReport, Report};

use crate::lies::LIES;

const LIAR: &str = "liar";
const VICTIM: &str = "victim";

/// Takes a node over: what runs in the agent's place says what is in the file `lie`, once that is there.
fn take_over(root: &Path) -> Result<()> {
    let programs = root.join("usr/local/bin");
    let says = "#!/bin/sh\nuntil [ -e \"$REKINDLE_ROOT/lie\" ]; do sleep 0.05; done\ncat \"$REKINDLE_ROOT/lie\"\n";
    // The document ends with `mv -f <what was fetched> <the agent>` and runs the agent.
    let puts = "#!/bin/sh\ncp \"$REKINDLE_ROOT/usr/local/bin/liar\" \"$3\"\n";
    for (name, text) in [("liar", says), ("mv", puts)] {
        let path = programs.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Says a lie: written aside, so that no half of it is read.
fn say(root: &Path, lie: &str) -> Result<()> {
    std::fs::write(root.join("lie.new"), lie)?;
    std::fs::rename(root.join("lie.new"), root.join("lie")).context("say a lie")
}

/// Two applications with a backup each; the node of one is not what it was.
struct Scene {
    protected: ProtectedGroups,
    node: Arc<Node>,
    own: Manifest,
    theirs: Manifest,
}

/// A lie: what the node says when it is asked for a backup of this id.
type Lie = fn(&Scene, &BackupId) -> Result<String>;

impl Scene {
    async fn set() -> Result<Self> {
        let (protected, node) = ProtectedGroups::with_filled_group(LIAR).await?;
        protected.create_filled(VICTIM).await?;
        protected.standin.tick();
        let own = protected.wait_for_backup(LIAR, 0).await?;
        let theirs = protected.wait_for_backup(VICTIM, 0).await?;
        take_over(&node.root())?;
        Ok(Self {
            protected,
            node,
            own,
            theirs,
        })
    }

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

    /// Puts a backup of this id that is good in everything but in what `change` does to its index; returns its report.
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

    /// Reads everything that no lie may change: the victim's objects and state, and every manifest.
    async fn untouchable(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let standin = &self.protected.standin;
        let mut all = BTreeMap::new();
        for prefix in ["backups/victim/", "manifests/"] {
            for key in standin.s3().keys(standin.bucket(), prefix)? {
                let bytes = standin.s3().read(standin.bucket(), &key)?;
                all.insert(key, bytes);
            }
        }
        let ssm = aws_sdk_ssm::Client::new(standin.aws());
        for application in [LIAR, VICTIM] {
            let name = layout::state_parameter(&application.parse()?);
            let found = ssm.get_parameter().name(&name).send().await?;
            let value = found.parameter().and_then(|found| found.value());
            all.insert(name, value.unwrap_or_default().into());
        }
        Ok(all)
    }

    /// Asks the node for a backup; returns the backup's id.
    async fn ask(&self) -> Result<BackupId> {
        let function = self.protected.function("backup")?;
        let request = json!({"rekindle": "backup-now", "application": LIAR});
        let answer = self.protected.standin.invoke(&function, request).await?;
        let backup = answer["backup_id"].as_str();
        let backup = backup.with_context(|| format!("no backup was asked for: {answer}"))?;
        Ok(backup.parse()?)
    }

    /// Asks for a backup, lets the node lie, and returns what the function says of it.
    async fn lied_to(&self, lie: Lie) -> Result<String> {
        let root = self.node.root();
        let (before, commands) = (
            self.protected.error_lines(LIAR).len(),
            self.protected
                .invocations(&self.node, "backup")
                .await?
                .len(),
        );
        let backup = self.ask().await?;
        say(&root, &lie(self, &backup)?)?;
        let ended = self
            .protected
            .wait_until_ended(&self.node, "backup", commands)
            .await?;
        ensure!(ended.status == "Success", "{ended:?}");
        let told = wait_for("an ERROR line about it", WAIT_LIMIT, async || {
            let problems = self.protected.error_lines(LIAR);
            match problems.get(before) {
                Some(problem) => Ok(Some(problem["fields"].clone())),
                None => Err(format!("{problems:?}")),
            }
        });
        let told = told.await?;
        self.protected.wait_until_idle().await?;
        std::fs::remove_file(root.join("lie"))?;
        ensure!(told["kind"] == "Contract", "{told}");
        Ok(told["message"].as_str().unwrap_or_default().to_owned())
    }
}

fn line(report: BackupReport) -> String {
    Report::Backup(report).to_line() + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_node_reports_no_manifest_is_forged_and_no_other_application_is_touched()
-> Result<()> {
    let scene = Scene::set().await?;
    let before = scene.untouchable().await?;
    assert!(before.len() >= 10, "{:?}", before.keys());
    for (lie, word, told) in LIES {
        let message = scene.lied_to(told).await.context(lie)?;
        assert!(message.contains("is not committed"), "{lie}: {message}");
        assert!(message.contains(word), "{lie}: {message}");
        assert!(
            scene.untouchable().await? == before,
            "{lie} changed something"
        );
    }
    // Nor does what looks for lost events take any of them.
    scene.protected.standin.sweep();
    scene.protected.wait_until_idle().await?;
    assert!(scene.untouchable().await? == before);
    let logs = scene.protected.standin.logs();
    let panic = logs.iter().find(|line| line.line.contains("panicked"));
    assert!(panic.is_none(), "{panic:?}");

    // It was the lies: the same answer without one is committed, and the node's own agent is still heard.
    let good = scene.ask().await?;
    say(&scene.node.root(), &line(scene.backup(&good, |_| Ok(()))?))?;
    let manifest = scene.protected.wait_for_backup(LIAR, 1).await?;
    assert_eq!(manifest.index.backup_id, good);
    std::fs::remove_file(scene.node.root().join("usr/local/bin/mv"))?;
    let own = scene.ask().await?;
    let manifest = scene.protected.wait_for_backup(LIAR, 2).await?;
    assert_eq!(manifest.index.backup_id, own);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_repeats_another_ones_restore_does_not_come_into_service() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    // Whether the machines that boot are taken over from their first moment, and what they say then.
    let hostile = Arc::new(AtomicBool::new(false));
    let lie = protected.standin.directory().join("lie");
    let mut group = protected.describe(LIAR)?;
    let (prepare, flag, said) = (
        Arc::clone(&group.user_data),
        Arc::clone(&hostile),
        lie.clone(),
    );
    group.user_data = Arc::new(move |node| {
        let (prepare, flag, said) = (Arc::clone(&prepare), Arc::clone(&flag), said.clone());
        async move {
            if flag.load(Ordering::SeqCst) {
                take_over(&node.root())?;
                say(&node.root(), &std::fs::read_to_string(said)?)?;
            }
            prepare(node).await
        }
        .boxed()
    });
    protected.standin.create_group(group)?;
    let first = protected.wait_until_in_service(LIAR, None).await?;
    rekindle_tests::fixtures::protected_groups::fill(&first).await?;
    protected.back_up(LIAR).await?;
    let then = standalone::snapshot(&first).await?;
    let genuine = protected.invocations(&first, "restore").await?;
    let genuine = genuine.into_iter().find(|one| one.status == "Success");
    std::fs::write(&lie, genuine.context("no restore succeeded")?.output)?;

    hostile.store(true, Ordering::SeqCst);
    protected.standin.kill_instance(first.id()).await?;
    let refused = protected
        .with_sweeps(protected.wait_for_failure(LIAR, "Contract"))
        .await?;
    assert!(refused.contains("abandoned"), "{refused}");
    hostile.store(false, Ordering::SeqCst);
    let good = protected.wait_until_in_service(LIAR, Some(&first)).await?;
    assert_eq!(standalone::snapshot(&good).await?.databases, then.databases);
    let lines = protected.log_lines(0);
    let let_in = lines.iter().filter(|line| {
        let message = line["fields"]["message"].as_str().unwrap_or_default();
        message.ends_with("let into service") && line["fields"]["instance_id"] != first.id()
    });
    let let_in: Vec<_> = let_in.map(|line| &line["fields"]["instance_id"]).collect();
    assert_eq!(let_in, [&json!(good.id())]);
    Ok(())
}
