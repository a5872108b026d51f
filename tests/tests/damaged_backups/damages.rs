//! Every kind of damage to an object of a backup.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use rekindle_tests::nodes::spare::{Answer, Holding, Spare};
use rekindle_tests::standin::s3::Fault;
use shared::layout;
use shared::manifest::Manifest;
use shared::report::{ExitCode, Report, RestoreOutcome, SkippedBackup};

use super::{APPLICATION, DUMP, Scene, assert_refused, put_back, save};

/// Damages one object of the newer backup.
type Damage = fn(&Scene) -> Result<()>;

/// Every kind of damage, with a word that the reason must have.
const DAMAGES: [(&str, &str, Damage); 10] = [
    ("a truncated dump", DUMP, |scene| {
        let world = &scene.protected.world;
        let key = scene.key(DUMP);
        let length = scene.bytes(&key)?.len() as u64;
        world.s3().truncate(world.bucket(), &key, length / 2)
    }),
    ("one flipped byte in a dump", DUMP, Scene::flip_in_dump),
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
    let spare = Spare::with_data(&scene.protected, APPLICATION).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_of_s3_is_no_damage_and_costs_no_backup() -> Result<()> {
    let scene = Scene::set().await?;
    let spare = Spare::with_data(&scene.protected, APPLICATION).await?;
    let both = [scene.newer.candidate(), scene.older.candidate()];
    let s3 = scene.protected.world.s3();
    for (number, (operation, object)) in [
        ("GetObject", layout::INDEX),
        ("HeadObject", layout::GLOBALS),
        ("GetObject", layout::CONFIGURATION),
        ("GetObject", DUMP),
    ]
    .into_iter()
    .enumerate()
    {
        let case = format!("{operation} {object}");
        let once = AtomicBool::new(false);
        s3.on_request(move |call| {
            let due = call.operation == operation && call.key.ends_with(object);
            let due = due && !once.swap(true, Ordering::SeqCst);
            due.then(|| Fault::OkWithError("InternalError".to_owned()))
        });
        let answer = spare.restore(&format!("answer-{number}"), &both).await?;
        assert_eq!(assert_restored(&answer, &scene.newer, &case)?, [], "{case}");
        spare.forget_restore()?;
    }
    s3.clear_hook();
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
