//! The short part of `make chaos`: some of the list, and the proof that the checks can fail.

mod plants;

use anyhow::Result;
use rekindle_tests::chaos::{self, Options, catalogue};

/// Of each kind of fault one that takes little time.
const SHORT: [&str; 10] = [
    "backup: 503 SlowDown to agent PutObject globals",
    "backup: agent killed at agent PutObject index",
    "backup: agent killed at exit 3 of pg_dump",
    "backup: timed out at backup function PutObject manifest",
    "backup: dump 1 truncated before its commit",
    "restore: a reset to agent GetObject dump 1",
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
        only: SHORT.map(str::to_owned).to_vec(),
        lanes: 3,
    };
    let table = chaos::run(&options, &|line| println!("{line}")).await?;
    println!("{table}");
    assert!(table.held(), "see above");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_cut_off_anywhere_or_has_a_bit_turned_is_never_restored() -> Result<()> {
    for cuts in chaos::cuts::cut(1, 10, 1).await? {
        println!("{cuts:?}");
        assert_eq!(cuts.tried, cuts.refused, "{cuts:?}");
        assert!(cuts.problems.is_empty(), "{cuts:?}");
    }
    Ok(())
}

#[test]
fn no_two_faults_have_one_name_and_the_sample_is_of_the_list() {
    let names: Vec<String> = catalogue::all()
        .into_iter()
        .map(|fault| fault.name)
        .collect();
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
    for name in SHORT {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}
