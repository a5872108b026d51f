//! The bounded part of fuzzing: every committed input, and the same seeded mutations in every run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rekindle_tests::fuzz::mutation::{changed, changes};
use rekindle_tests::fuzz::{TARGETS, Target};

/// Runs the corpus of a target, and mutations of it.
fn search(name: &str) -> Result<()> {
    let target = Target::named(name)?;
    let inputs = target.inputs()?;
    ensure!(!inputs.is_empty(), "the target {name} has no inputs");
    for (path, input) in &inputs {
        let held = catch_unwind(AssertUnwindSafe(|| (target.check)(input))).is_ok();
        ensure!(held, "{} breaks a promise: see above", path.display());
    }
    let config = Config {
        cases: target.runs,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, seed);
    let which = (any::<Index>(), any::<Index>(), changes());
    let input_of = |(one, other, changes): &(Index, Index, Vec<_>)| {
        let (one, other) = (one.index(inputs.len()), other.index(inputs.len()));
        changed(&inputs[one].1, &inputs[other].1, changes)
    };
    let outcome = runner.run(&which, |drawn| {
        let input = input_of(&drawn);
        catch_unwind(AssertUnwindSafe(|| (target.check)(&input)))
            .map_err(|_| TestCaseError::fail("a promise is broken"))
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Abort(reason)) => anyhow::bail!("{name}: {reason}"),
        Err(TestError::Fail(_, drawn)) => {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken");
            let path = folder.join(name);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(&path, input_of(&drawn))
                .with_context(|| format!("write {}", path.display()))?;
            anyhow::bail!(
                "{name}: a promise is broken, see above; the input is {}: add it to tests/corpus/{name}",
                path.display()
            )
        }
    }
}

/// Makes a test for each target.
macro_rules! searches {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                search(stringify!($name))
            }
        )*

        #[test]
        fn every_target_is_searched() {
            let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(known, [$(stringify!($name)),*]);
        }
    };
}

searches! {
    event report index manifest key state parameter settings configuration image contents globals dump
}
