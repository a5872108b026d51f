//! Every kind of damage to an object of a backup.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::standalone::AgentOutput;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use rekindle_tests::fixtures::standalone::StandaloneNode;
use rekindle_tests::standin::s3::S3Fault;
use shared::exit_code::ExitCode;
use shared::layout;
use shared::manifest::Manifest;
use shared::report::{Report, RestoreOutcome, SkippedBackup};

use super::{APPLICATION, DUMP, Scenario, assert_refused, put_back, save};

/// Damages one object of the newer backup.
type Damage = fn(&Scenario) -> Result<()>;

/// Every kind of damage: its name, a part of the reason for which the backup is skipped, and the damage itself.
const DAMAGES: [(&str, &str, Damage); 10] = [
    ("a truncated dump", DUMP, |scenario| {
        let standin = &scenario.protected.standin;
        let key = scenario.key(DUMP);
        let length = scenario.bytes(&key)?.len() as u64;
        standin.s3().truncate(standin.bucket(), &key, length / 2)
    }),
    ("one flipped byte in a dump", DUMP, Scenario::flip_in_dump),
    ("a replaced dump", DUMP, |scenario| {
        let key = scenario.key(DUMP);
        let mut bytes = scenario.bytes(&key)?;
        let last = bytes.last_mut().context("an empty dump")?;
        *last ^= 1;
        scenario.put(&key, &bytes)
    }),
    ("another database's dump", DUMP, |scenario| {
        let standin = &scenario.protected.standin;
        let other = scenario.key("postgres/1.dump.zst");
        standin
            .s3()
            .swap(standin.bucket(), &scenario.key(DUMP), &other)
    }),
    ("another backup's dump", DUMP, |scenario| {
        let older = &scenario.older.index.databases[0].key;
        let bytes = scenario.bytes(older)?;
        scenario.put(&scenario.key(DUMP), &bytes)
    }),
    ("an empty dump", DUMP, |scenario| {
        let standin = &scenario.protected.standin;
        standin
            .s3()
            .truncate(standin.bucket(), &scenario.key(DUMP), 0)
    }),
    ("no dump", DUMP, |scenario| {
        let standin = &scenario.protected.standin;
        let removed = async {
            standin
                .s3()
                .remove(standin.bucket(), &scenario.key(DUMP))
                .await
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(removed))
    }),
    (
        "a damaged configuration",
        layout::CONFIGURATION,
        |scenario| {
            let standin = &scenario.protected.standin;
            let key = scenario.key(layout::CONFIGURATION);
            standin.s3().flip(standin.bucket(), &key, 40)
        },
    ),
    ("damaged globals", layout::GLOBALS, |scenario| {
        let standin = &scenario.protected.standin;
        let key = scenario.key(layout::GLOBALS);
        standin.s3().flip(standin.bucket(), &key, 20)
    }),
    ("a damaged index", layout::INDEX, |scenario| {
        let key = scenario.key(layout::INDEX);
        let mut bytes = scenario.bytes(&key)?;
        bytes.push(b' ');
        scenario.put(&key, &bytes)
    }),
];

/// Returns whether a standalone node that had data of its own has the data of a backup.
fn has_data_of(standalone: &DataSnapshot, backed_up: &DataSnapshot) -> bool {
    standalone.databases.iter().all(|(name, rows)| {
        // A database that is in no backup is not touched.
        name == "diary" || backed_up.databases.get(name) == Some(rows)
    }) && standalone.databases.len() > backed_up.databases.len()
        && standalone.files == backed_up.files
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_the_next_older_good_backup_is_restored_and_no_other_data_changes()
-> Result<()> {
    let scenario = Scenario::start().await?;
    let standalone = StandaloneNode::with_data(&scenario.protected, APPLICATION).await?;
    let both = [scenario.newer.candidate(), scenario.older.candidate()];
    let before = standalone.snapshot().await?;
    // If the damaged backup is the only candidate, the restore is refused and changes nothing.
    for (number, (damage, object, act)) in DAMAGES.iter().enumerate() {
        let saved = save(&scenario)?;
        act(&scenario)?;
        let answer = standalone
            .restore(&format!("launch-i-a000{number:04x}"), &both[..1])
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

    // If there is a fallback, it is restored, and the report contains the skipped backup with the reason.
    for (number, (damage, object, act)) in DAMAGES.iter().enumerate() {
        let saved = save(&scenario)?;
        act(&scenario)?;
        let operation = format!("launch-i-b000{number:04x}");
        let answer = standalone.restore(&operation, &both).await?;
        let skipped = assert_restored(&answer, &scenario.older, damage)?;
        assert_eq!(skipped.len(), 1, "{damage}: {skipped:?}");
        assert_eq!(
            skipped[0].backup_id, scenario.newer.index.backup_id,
            "{damage}"
        );
        assert!(skipped[0].reason.contains(object), "{damage}: {skipped:?}");
        let data = standalone.snapshot().await?;
        assert!(
            has_data_of(&data, &scenario.older_data),
            "{damage}: {data:?}"
        );
        put_back(&saved)?;
        standalone.forget_restore()?;
    }

    // Without damage, the newest backup is restored: only the damage prevented that.
    let answer = standalone.restore("launch-i-c0000000", &both).await?;
    assert_eq!(assert_restored(&answer, &scenario.newer, "none")?, []);
    assert!(has_data_of(
        &standalone.snapshot().await?,
        &scenario.newer_data
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_answer_of_s3_is_retried_and_not_taken_for_damage() -> Result<()> {
    let scenario = Scenario::start().await?;
    let standalone = StandaloneNode::with_data(&scenario.protected, APPLICATION).await?;
    let both = [scenario.newer.candidate(), scenario.older.candidate()];
    let s3 = scenario.protected.standin.s3();
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
            .restore(&format!("launch-i-{number:08x}"), &both)
            .await?;
        assert_eq!(
            assert_restored(&answer, &scenario.newer, &case)?,
            [],
            "{case}"
        );
        standalone.forget_restore()?;
    }
    s3.clear_hook();
    Ok(())
}

/// Checks that the agent restored this backup; returns the skipped ones.
fn assert_restored(
    answer: &AgentOutput,
    from: &Manifest,
    case: &str,
) -> Result<Vec<SkippedBackup>> {
    assert_eq!(answer.code, Some(0), "{case}: {answer:?}");
    let Report::Restore(report) = answer.report()? else {
        anyhow::bail!("{case}: the report is not about a restore: {answer:?}");
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
