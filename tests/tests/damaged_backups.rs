//! A backup that is not what it was is never restored, and never in silence: the next older good one is, or
//! nothing is and nothing changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rekindle_tests::node::Node;
use rekindle_tests::protected::Protected;
use rekindle_tests::registry::MAIN_DATABASE;
use rekindle_tests::spare::{self, Answer, Holding, Spare};
use serde_json::Value;
use shared::command::Candidate;
use shared::layout;
use shared::manifest::Manifest;
use shared::report::{ExitCode, Report, RestoreOutcome, SkippedBackup};

const STACK: &str = "damaged";

/// A group with two backups that differ.
struct Scene {
    protected: Protected,
    node: Arc<Node>,
    older: Manifest,
    /// What the node had when the older backup was taken.
    then: Holding,
    newer: Manifest,
    now: Holding,
}

impl Scene {
    async fn set() -> Result<Self> {
        let (protected, node) = Protected::one(STACK).await?;
        let older = protected.back_up(STACK).await?;
        let then = spare::holding(&node).await?;
        let main = node.cluster()?.connect(MAIN_DATABASE).await?;
        main.batch_execute("UPDATE registry.tag SET name = 'later ' || name")
            .await?;
        let newer = protected.back_up(STACK).await?;
        let now = spare::holding(&node).await?;
        ensure!(then != now, "the two backups are to differ");
        Ok(Self {
            protected,
            node,
            older,
            then,
            newer,
            now,
        })
    }

    fn key(&self, name: &str) -> String {
        let index = &self.newer.index;
        layout::object(&index.stack, &index.backup_id, &index.run_id, name)
    }

    fn manifest_key(&self) -> String {
        layout::manifest(&self.newer.index.stack, &self.newer.index.backup_id)
    }

    fn bytes(&self, key: &str) -> Result<Vec<u8>> {
        let world = &self.protected.world;
        world.s3().read(world.bucket(), key)
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let world = &self.protected.world;
        world.s3().replace(world.bucket(), key, bytes)
    }

    /// Loses the node, and waits for its restored replacement.
    async fn replace_node(&mut self) -> Result<()> {
        let lost = Arc::clone(&self.node);
        self.protected.world.kill_instance(lost.id()).await?;
        self.node = self.protected.in_service(STACK, Some(&lost)).await?;
        Ok(())
    }

    /// Returns an ERROR line of the functions about the newer backup on the present node, with its kind.
    async fn told(&self, message: &str) -> Result<Value> {
        let what = format!("the line {message:?}");
        let id = self.newer.index.backup_id.to_string();
        rekindle_tests::wait::wait_for(&what, rekindle_tests::protected::PATIENCE, async || {
            let lines = self.protected.lines(0);
            let found = lines.iter().find(|line| {
                let fields = &line["fields"];
                fields["message"] == message
                    && fields["instance_id"] == self.node.id()
                    && fields["backup_id"] == id.as_str()
            });
            found.map_or_else(|| Err("not told"), |line| Ok(Some(line["fields"].clone())))
        })
        .await
    }
}

/// Damages one object of the newer backup.
type Damage = fn(&Scene) -> Result<()>;

const DUMP: &str = "postgres/0.dump.zst";

/// Every kind of damage, with a word that the reason must have.
const DAMAGES: [(&str, &str, Damage); 10] = [
    ("a truncated dump", DUMP, |scene| {
        let world = &scene.protected.world;
        let key = scene.key(DUMP);
        let length = scene.bytes(&key)?.len() as u64;
        world.s3().truncate(world.bucket(), &key, length / 2)
    }),
    ("one flipped byte in a dump", DUMP, |scene| {
        let world = &scene.protected.world;
        let key = scene.key(DUMP);
        let length = scene.bytes(&key)?.len() as u64;
        world.s3().flip(world.bucket(), &key, length / 2)
    }),
    ("a replaced dump", DUMP, |scene| {
        let key = scene.key(DUMP);
        let mut bytes = scene.bytes(&key)?;
        let last = bytes.last_mut().context("an empty dump")?;
        *last ^= 1;
        scene.put(&key, &bytes)
    }),
    ("another database's dump", DUMP, |scene| {
        let world = &scene.protected.world;
        let other = scene.key("postgres/1.dump.zst");
        world.s3().swap(world.bucket(), &scene.key(DUMP), &other)
    }),
    ("another backup's dump", DUMP, |scene| {
        let older = &scene.older.index.databases[0].key;
        let bytes = scene.bytes(older)?;
        scene.put(&scene.key(DUMP), &bytes)
    }),
    ("an empty dump", DUMP, |scene| {
        let world = &scene.protected.world;
        world.s3().truncate(world.bucket(), &scene.key(DUMP), 0)
    }),
    ("no dump", DUMP, |scene| {
        let world = &scene.protected.world;
        let removed = async { world.s3().remove(world.bucket(), &scene.key(DUMP)).await };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(removed))
    }),
    ("a damaged configuration", layout::CONFIGURATION, |scene| {
        let world = &scene.protected.world;
        let key = scene.key(layout::CONFIGURATION);
        world.s3().flip(world.bucket(), &key, 40)
    }),
    ("damaged globals", layout::GLOBALS, |scene| {
        let world = &scene.protected.world;
        let key = scene.key(layout::GLOBALS);
        world.s3().flip(world.bucket(), &key, 20)
    }),
    ("a damaged index", layout::INDEX, |scene| {
        let key = scene.key(layout::INDEX);
        let mut bytes = scene.bytes(&key)?;
        bytes.push(b' ');
        scene.put(&key, &bytes)
    }),
];

/// The state that a backup of the group's node restores to, on a machine with directories of its own.
fn restored_to(spare: &Holding, backed_up: &Holding) -> bool {
    spare.databases.iter().all(|(name, rows)| {
        // What is in no backup is left alone.
        name == "diary" || backed_up.databases.get(name) == Some(rows)
    }) && spare.databases.len() > backed_up.databases.len()
        && spare.files == backed_up.files
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_the_next_older_good_backup_is_restored_and_nothing_else_is_touched()
-> Result<()> {
    let scene = Scene::set().await?;
    let spare = Spare::with_data(&scene.protected, STACK).await?;
    let both = [scene.newer.candidate(), scene.older.candidate()];
    let before = spare.holding().await?;
    // Alone, the damaged backup is refused, and the machine stays exactly as it was.
    for (number, (damage, object, act)) in DAMAGES.iter().enumerate() {
        let saved = save(&scene)?;
        act(&scene)?;
        let answer = spare
            .restore(&format!("alone-{number}"), &both[..1])
            .await?;
        assert_refused(&answer, ExitCode::Verification, object, damage)?;
        assert_eq!(spare.holding().await?, before, "{damage}: {}", answer.log);
        put_back(&saved)?;
    }

    // With an older one behind it, that one is restored, and the report says what was passed over and why.
    for (number, (damage, object, act)) in DAMAGES.iter().enumerate() {
        let saved = save(&scene)?;
        act(&scene)?;
        let answer = spare.restore(&format!("both-{number}"), &both).await?;
        let skipped = assert_restored(&answer, &scene.older, damage)?;
        assert_eq!(skipped.len(), 1, "{damage}: {skipped:?}");
        assert_eq!(
            skipped[0].backup_id, scene.newer.index.backup_id,
            "{damage}"
        );
        assert!(skipped[0].reason.contains(object), "{damage}: {skipped:?}");
        let holding = spare.holding().await?;
        assert!(restored_to(&holding, &scene.then), "{damage}: {holding:?}");
        put_back(&saved)?;
        spare.forget_restore()?;
    }

    // Undamaged, the newest is the one; so it was the damage that kept it from being restored.
    let answer = spare.restore("undamaged", &both).await?;
    assert_eq!(assert_restored(&answer, &scene.newer, "none")?, []);
    assert!(restored_to(&spare.holding().await?, &scene.now));
    Ok(())
}

/// Everything small in S3, as it lies on the disk: objects and what is recorded of them.
type Saved = Vec<(PathBuf, Vec<u8>)>;

/// The agent's binary is larger, and nothing of a backup is.
const SMALL: u64 = 1 << 20;

fn save(scene: &Scene) -> Result<Saved> {
    let mut saved = Vec::new();
    collect(&scene.protected.world.directory().join("s3"), &mut saved)?;
    Ok(saved)
}

fn collect(directory: &Path, saved: &mut Saved) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() {
            collect(&path, saved)?;
        } else if entry.metadata()?.len() < SMALL {
            saved.push((path.clone(), std::fs::read(&path)?));
        }
    }
    Ok(())
}

fn put_back(saved: &Saved) -> Result<()> {
    for (path, bytes) in saved {
        let parent = path.parent().context("a file has a directory")?;
        std::fs::create_dir_all(parent)?;
        std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn assert_refused(answer: &Answer, code: ExitCode, word: &str, case: &str) -> Result<()> {
    assert_eq!(answer.code, Some(code.code().into()), "{case}: {answer:?}");
    let Report::Failure(failure) = answer.report()? else {
        anyhow::bail!("{case}: no report of a failure: {answer:?}");
    };
    assert_eq!(failure.exit_code, code, "{case}");
    assert!(failure.message.contains(word), "{case}: {failure:?}");
    Ok(())
}

fn assert_restored(answer: &Answer, from: &Manifest, case: &str) -> Result<Vec<SkippedBackup>> {
    assert_eq!(answer.code, Some(0), "{case}: {answer:?}");
    let Report::Restore(report) = answer.report()? else {
        anyhow::bail!("{case}: no report of a restore: {answer:?}");
    };
    match report.outcome {
        RestoreOutcome::Restored {
            backup_id, rows, ..
        } => {
            assert_eq!(backup_id, from.index.backup_id, "{case}");
            assert_eq!(rows, from.index.rows(), "{case}");
        }
        other => anyhow::bail!("{case}: {other:?}"),
    }
    Ok(report.skipped)
}

/// Rewrites the part of a backup that says what is in its databases.
fn edit_contents(part: &mut Vec<u8>, change: impl FnOnce(&mut Value)) -> Result<()> {
    let mut contents: Value = serde_json::from_slice(&zstd::decode_all(&part[..])?)?;
    change(&mut contents);
    *part = zstd::encode_all(&serde_json::to_vec(&contents)?[..], 3)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_cannot_fit_is_refused_before_anything_changes() -> Result<()> {
    let scene = Scene::set().await?;
    let spare = Spare::with_data(&scene.protected, STACK).await?;
    let before = spare.holding().await?;
    let (protected, newer) = (&scene.protected, &scene.newer);

    let too_new = spare::forge(protected, newer, |index, _| {
        index.versions.server = 990_001;
        Ok(())
    })?;
    let extended = spare::forge(protected, newer, |_, parts| {
        let part = parts.get_mut(layout::CONTENTS).context("no contents")?;
        edit_contents(part, |contents| {
            contents["databases"][0]["properties"]["extensions"] = serde_json::json!([{"name": "no_such_extension", "version": "1.0", "schema": "public"}]);
        })
    })?;
    let huge = spare::forge(protected, newer, |index, _| {
        index.databases[0].database_bytes = 1 << 60;
        Ok(())
    })?;
    let foreign = spare::forge(protected, newer, |index, _| {
        index.stack = "another".parse()?;
        Ok(())
    })?;
    let foreign = Candidate {
        // The node looks below its own stack's prefix alone.
        index_sha256: foreign.index_object.sha256.clone(),
        ..newer.candidate()
    };
    let from_the_future = spare::forge(protected, newer, |index, _| {
        index.schema_version = 2;
        Ok(())
    })?;
    let cases = [
        (
            too_new.candidate(),
            ExitCode::ServerTooOld,
            "backup is of 99",
        ),
        (
            extended.candidate(),
            ExitCode::ExtensionMissing,
            "no_such_extension 1.0",
        ),
        (huge.candidate(), ExitCode::DiskTooSmall, "MiB free"),
        (foreign, ExitCode::Verification, "index.json"),
        (
            from_the_future.candidate(),
            ExitCode::NoUsableBackup,
            "schema",
        ),
    ];
    for (candidate, code, word) in cases {
        // An older backup would do, and must not be taken: it would lose data that are still there. Only one
        // that is not what it was is passed over.
        let older = (code != ExitCode::Verification).then(|| scene.older.candidate());
        let candidates: Vec<Candidate> = std::iter::once(candidate).chain(older).collect();
        let operation = format!("launch-{}", code.word());
        let answer = spare.restore(&operation, &candidates).await?;
        assert_refused(&answer, code, word, code.word())?;
        assert_eq!(spare.holding().await?, before, "{code}: {}", answer.log);
        assert!(!spare.marker().exists(), "{code}");
    }

    // What the agent found is what the function's log and metric say, with the remedy.
    spare::commit(protected, &huge)?;
    protected.world.kill_instance(scene.node.id()).await?;
    protected.failure(STACK, "DiskTooSmall").await?;
    let problems = protected.problems(STACK);
    let line = problems
        .iter()
        .find(|line| line["fields"]["kind"] == "DiskTooSmall")
        .context("the line is gone")?;
    let fields = &line["fields"];
    assert_eq!(fields["remedy"], ExitCode::DiskTooSmall.remedy());
    let reason = fields["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("MiB free"), "{line}");
    Ok(())
}

/// Makes an archive of one entry whose name the `tar` crate itself would refuse to write.
fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, target) in entries {
        let mut header = tar::Header::new_gnu();
        let content: &[u8] = if kind.is_file() { b"evil\n" } else { b"" };
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let fields = header.as_gnu_mut().context("a GNU header")?;
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, content)?;
    }
    Ok(zstd::encode_all(&builder.into_inner()?[..], 3)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_reaches_out_of_its_directories_is_refused_whatever_its_hashes_say()
-> Result<()> {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let scene = Scene::set().await?;
    let spare = Spare::with_data(&scene.protected, STACK).await?;
    let before = spare.holding().await?;
    let root = spare.node.root();
    let absolute = root.join("escaped");
    let (absolute, etc) = (
        absolute.display().to_string(),
        root.join("etc").display().to_string(),
    );
    let secret = root.join("etc/rekindle/node.toml").display().to_string();
    let cases = [
        ("..", archive(&[("0/../../../escaped", Regular, "")])?),
        ("a leading ..", archive(&[("../escaped", Regular, "")])?),
        (
            "an absolute path",
            archive(&[(absolute.as_str(), Regular, "")])?,
        ),
        (
            "no configured path",
            archive(&[("7/escaped", Regular, "")])?,
        ),
        (
            "a symlink as a directory",
            archive(&[
                ("0", Directory, ""),
                ("0/way", Symlink, etc.as_str()),
                ("0/way/escaped", Regular, ""),
            ])?,
        ),
        (
            "a hard link to a file outside",
            archive(&[("0", Directory, ""), ("0/escaped", Link, secret.as_str())])?,
        ),
    ];
    for (number, (case, bytes)) in cases.iter().enumerate() {
        let forged = spare::forge(&scene.protected, &scene.newer, |_, parts| {
            parts.insert(layout::CONFIGURATION.to_owned(), bytes.clone());
            Ok(())
        })?;
        let answer = spare
            .restore(&format!("hostile-{number}"), &[forged.candidate()])
            .await?;
        assert_refused(&answer, ExitCode::Verification, "configuration", case)?;
        assert_eq!(spare.holding().await?, before, "{case}: {}", answer.log);
        let nodes = scene.protected.world.directory().join("nodes");
        assert_eq!(spare::find(&nodes, "escaped")?, None, "{case}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_comes_into_service_with_the_newest_good_backup_or_not_at_all() -> Result<()>
{
    let mut scene = Scene::set().await?;
    let saved = save(&scene)?;
    let (newer, older) = (
        scene.newer.index.backup_id.to_string(),
        scene.older.index.backup_id.to_string(),
    );
    let manifest = scene.bytes(&scene.manifest_key())?;

    // A dump that is not what it was.
    DAMAGES[1].2(&scene)?;
    scene.replace_node().await?;
    assert_eq!(
        spare::holding(&scene.node).await?.databases,
        scene.then.databases
    );
    let skipped = scene
        .told("a newer backup could not be restored, an older one was")
        .await?;
    assert_eq!(skipped["kind"], "Verification");
    assert_eq!(skipped["remedy"], ExitCode::Verification.remedy());
    let reason = skipped["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(DUMP), "{skipped}");
    let restored = scene.protected.lines(0).into_iter().find(|line| {
        line["fields"]["message"] == "restored, and let into service"
            && line["fields"]["instance_id"] == scene.node.id()
    });
    let restored = restored.context("nobody says what was restored")?;
    assert_eq!(restored["fields"]["backup_id"], older.as_str());
    assert!(restored["fields"]["age_seconds"].is_u64(), "{restored}");
    put_back(&saved)?;

    // A manifest that cannot be read, or that is not this stack's.
    let garbage: [(&str, Vec<u8>); 3] = [
        ("garbage", b"<html>not a manifest</html>".to_vec()),
        ("cut short", manifest[..manifest.len() / 2].to_vec()),
        ("another stack's", {
            let mut json: Value = serde_json::from_slice(&manifest)?;
            json["index"]["stack"] = "another".into();
            serde_json::to_vec(&json)?
        }),
    ];
    for (case, bytes) in garbage {
        scene.put(&scene.manifest_key(), &bytes)?;
        scene.replace_node().await?;
        let holding = spare::holding(&scene.node).await?;
        assert_eq!(holding.databases, scene.then.databases, "{case}");
        let told = scene
            .told("a committed backup is not offered to the restore")
            .await?;
        assert_eq!(told["kind"], "UnreadableManifest", "{case}");
        let reason = told["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(&newer), "{case}: {told}");
    }

    // A newer Rekindle's manifest is good, and only unreadable here: nothing older is put in its place.
    spare::change_manifest(&scene.protected, &scene.newer, |json| {
        json["schema_version"] = 2.into();
    })?;
    scene.protected.world.kill_instance(scene.node.id()).await?;
    scene.protected.failure(STACK, "NewerSchema").await?;

    // No good backup at all. What failed for good is not launched again before the operator says so.
    scene.put(&scene.manifest_key(), &manifest)?;
    DAMAGES[1].2(&scene)?;
    let world = &scene.protected.world;
    let key = &scene.older.index.databases[0].key;
    world.s3().truncate(world.bucket(), key, 10)?;
    scene.protected.resume(STACK).await?;
    scene.protected.failure(STACK, "NoUsableBackup").await?;
    let problems = scene.protected.problems(STACK);
    let line = problems
        .iter()
        .find(|line| line["fields"]["kind"] == "NoUsableBackup")
        .context("the line is gone")?;
    let reason = line["fields"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&newer) && reason.contains(&older), "{line}");
    assert_eq!(line["fields"]["remedy"], ExitCode::NoUsableBackup.remedy());
    // Nobody was let into service since the last good restore.
    let let_in = scene.protected.lines(0).into_iter().filter(|line| {
        let message = line["fields"]["message"].as_str().unwrap_or_default();
        message == "restored, and let into service"
    });
    assert_eq!(let_in.count(), 4);
    Ok(())
}
