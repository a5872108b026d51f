//! The short part of `make chaos`: a sample of the faults, and the proof that the checks can fail.

mod violations;

use anyhow::Result;
use rekindle_tests::chaos::faults::catalogue;
use rekindle_tests::chaos::run::damaged_objects::restore_damaged;
use rekindle_tests::chaos::run::{Options, run};

/// A fast fault of each kind.
const SAMPLE: [&str; 10] = [
    "backup: 503 SlowDown to agent PutObject globals",
    "backup: agent killed at agent PutObject index",
    "backup: agent killed at exit 3 of pg_dump",
    "backup: timed out at backup function PutObject manifest",
    "backup: dump 1 truncated before its commit",
    "restore: a connection reset to agent GetObject dump 1",
    "restore: pg_restore killed",
    "restore: killed at restore function SendCommand",
    "restore: contents swapped with another backup's",
    "restore: agent killed at the line message:swapped",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_promise_is_broken_by_a_sample_of_the_faults() -> Result<()> {
    let options = Options {
        seed: 1,
        runs: 3,
        only: SAMPLE.map(str::to_owned).to_vec(),
        applications: 3,
    };
    let report = run(&options, &|line| println!("{line}")).await?;
    println!("{report}");
    assert!(report.passed(), "see above");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_object_or_one_with_a_flipped_bit_is_never_restored() -> Result<()> {
    for damaged in restore_damaged(1, 10, 1).await? {
        println!("{damaged:?}");
        assert_eq!(damaged.tried, damaged.refused, "{damaged:?}");
        assert!(damaged.problems.is_empty(), "{damaged:?}");
    }
    Ok(())
}

#[test]
fn every_fault_has_its_own_name_and_the_sample_is_in_the_list() {
    let names: Vec<String> = catalogue::all()
        .into_iter()
        .map(|fault| fault.name)
        .collect();
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
    for name in SAMPLE {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}
