//! Every kind of damage to an object of a backup.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::standalone::AgentOutput;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use rekindle_tests::fixtures::standalone::StandaloneNode;
use rekindle_tests::standin::s3::S3Fault;
use shared::layout;
use shared::manifest::Manifest;
use shared::report::{ExitCode, Report, RestoreOutcome, SkippedBackup};

use super::{APPLICATION, DUMP, Scene, assert_refused, put_back, save};

/// Damages one object of the newer backup.
type Damage = fn(&Scene) -> Result<()>;

/// Every kind of damage, with a word that the reason must have.
const DAMAGES: [(&str, &str, Damage); 10] = [
    ("a truncated dump", DUMP, |scene| {
        let standin = &scene.protected.standin;
        let key = scene.key(DUMP);
        let length = scene.bytes(&key)?.len() as u64;
        standin.s3().truncate(standin.bucket(), &key, length / 2)
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
        let standin = &scene.protected.standin;
        let other = scene.key("postgres/1.dump.zst");
        standin
            .s3()
            .swap(standin.bucket(), &scene.key(DUMP), &other)
    }),
    ("another backup's dump", DUMP, |scene| {
        let older = &scene.older.index.databases[0].key;
        let bytes = scene.bytes(older)?;
        scene.put(&scene.key(DUMP), &bytes)
    }),
    ("an empty dump", DUMP, |scene| {
        let standin = &scene.protected.standin;
        standin.s3().truncate(standin.bucket(), &scene.key(DUMP), 0)
    }),
    ("no dump", DUMP, |scene| {
        let standin = &scene.protected.standin;
        let removed = async {
            standin
                .s3()
                .remove(standin.bucket(), &scene.key(DUMP))
                .await
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(removed))
    }),
    ("a damaged configuration", layout::CONFIGURATION, |scene| {
        let standin = &scene.protected.standin;
        let key = scene.key(layout::CONFIGURATION);
        standin.s3().flip(standin.bucket(), &key, 40)
    }),
    ("damaged globals", layout::GLOBALS, |scene| {
        let standin = &scene.protected.standin;
        let key = scene.key(layout::GLOBALS);
        standin.s3().flip(standin.bucket(), &key, 20)
    }),
    ("a damaged index", layout::INDEX, |scene| {
        let key = scene.key(layout::INDEX);
        let mut bytes = scene.bytes(&key)?;
        bytes.push(b' ');
        scene.put(&key, &bytes)
    }),
];

/// The state that a backup of the group's node restores to, on a machine with directories of its own.
fn restored_to(standalone: &DataSnapshot, backed_up: &DataSnapshot) -> bool {
    standalone.databases.iter().all(|(name, rows)| {
        // What is in no backup is left alone.
        name == "diary" || backed_up.databases.get(name) == Some(rows)
    }) && standalone.databases.len() > backed_up.databases.len()
        && standalone.files == backed_up.files
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_the_next_older_good_backup_is_restored_and_nothing_else_is_touched()
-> Result<()> {
    let scene = Scene::set().await?;
    let standalone = StandaloneNode::with_data(&scene.protected, APPLICATION).await?;
    let both = [scene.newer.candidate(), scene.older.candidate()];
    let before = standalone.snapshot().await?;
    // Alone, the damaged backup is refused, and the machine stays exactly as it was.
    for (number, (damage, object, act)) in DAMAGES.iter().enumerate() {
        let saved = save(&scene)?;
        act(&scene)?;
        let answer = standalone
            .restore(&format!("alone-{number}"), &both[..1])
            .await?;
        assert_refused(&answer, ExitCode::Verification, object, damage)?;
        assert_eq!(
            standalone.snapshot().await?,
            before,
            "{damage}: {}",
            answer.log
        );
        put_back(&saved)?;
    }

    // With an older one behind it, that one is restored, and the report says what was passed over and why.
    for (number, (damage, object, act)) in DAMAGES.iter().enumerate() {
        let saved = save(&scene)?;
        act(&scene)?;
        let answer = standalone.restore(&format!("both-{number}"), &both).await?;
        let skipped = assert_restored(&answer, &scene.older, damage)?;
        assert_eq!(skipped.len(), 1, "{damage}: {skipped:?}");
        assert_eq!(
            skipped[0].backup_id, scene.newer.index.backup_id,
            "{damage}"
        );
        assert!(skipped[0].reason.contains(object), "{damage}: {skipped:?}");
        let holding = standalone.snapshot().await?;
        assert!(restored_to(&holding, &scene.then), "{damage}: {holding:?}");
        put_back(&saved)?;
        standalone.forget_restore()?;
    }

    // Undamaged, the newest is the one; so it was the damage that kept it from being restored.
    let answer = standalone.restore("undamaged", &both).await?;
    assert_eq!(assert_restored(&answer, &scene.newer, "none")?, []);
    assert!(restored_to(&standalone.snapshot().await?, &scene.now));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_of_s3_is_no_damage_and_costs_no_backup() -> Result<()> {
    let scene = Scene::set().await?;
    let standalone = StandaloneNode::with_data(&scene.protected, APPLICATION).await?;
    let both = [scene.newer.candidate(), scene.older.candidate()];
    let s3 = scene.protected.standin.s3();
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
            due.then(|| S3Fault::OkWithError("InternalError".to_owned()))
        });
        let answer = standalone
            .restore(&format!("answer-{number}"), &both)
            .await?;
        assert_eq!(assert_restored(&answer, &scene.newer, &case)?, [], "{case}");
        standalone.forget_restore()?;
    }
    s3.clear_hook();
    Ok(())
}

fn assert_restored(
    answer: &AgentOutput,
    from: &Manifest,
    case: &str,
) -> Result<Vec<SkippedBackup>> {
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
