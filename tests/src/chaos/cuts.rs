//! Every object of a backup, cut off at every percent, and with single bits turned: the shipped agent must refuse each,
//! and leave the node as it was. Too many for the whole story; a sample of them has that.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use shared::layout;
use shared::manifest::Manifest;
use shared::report::{ExitCode, Report};

use super::dice::Dice;
use super::lane::{APPLICATION, Lane};
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::fixtures::standalone::StandaloneNode;
use crate::fixtures::tampering;

/// What is cut, by its name within a backup.
const OBJECTS: [&str; 6] = [
    layout::INDEX,
    layout::CONTENTS,
    layout::GLOBALS,
    layout::CONFIGURATION,
    "postgres/0.dump.zst",
    "postgres/1.dump.zst",
];

/// How many machines work at a time.
const MACHINES: usize = 3;

/// What was tried on one kind of object.
#[derive(Debug, Clone)]
pub struct Cuts {
    /// The object and what was done to it.
    pub what: String,
    /// How often.
    pub tried: usize,
    /// How often it was refused, and nothing changed.
    pub refused: usize,
    /// What was not refused, or not so.
    pub problems: Vec<String>,
}

/// Cuts objects off at every percent that is a multiple of `step`, and turns so many bits of each.
pub async fn cut(seed: u64, step: usize, bits: usize) -> Result<Vec<Cuts>> {
    let mut lane = Lane::open(false).await?;
    lane.write().await?;
    let newest = lane.protected.back_up(APPLICATION).await?;
    let (protected, mut all) = (&lane.protected, vec![manifests(&newest, step)?]);
    let mut work = Vec::new();
    for machine in 0..MACHINES {
        let own = OBJECTS.into_iter().skip(machine).step_by(MACHINES);
        work.push(machine_cuts(
            protected,
            &newest,
            own.collect(),
            seed,
            step,
            bits,
        ));
    }
    for done in futures_util::future::try_join_all(work).await? {
        all.extend(done);
    }
    all.sort_by(|one, other| one.what.cmp(&other.what));
    Ok(all)
}

/// A manifest that is cut off is never read as one.
fn manifests(genuine: &Manifest, step: usize) -> Result<Cuts> {
    let bytes = serde_json::to_vec_pretty(genuine)?;
    let (application, id) = (&genuine.index.application, &genuine.index.backup_id);
    ensure!(
        Manifest::parse(&bytes, application, id).is_ok(),
        "a whole one is read"
    );
    let mut cuts = Cuts::of("manifest cut off, the functions' parser".to_owned());
    for percent in (0..100).step_by(step) {
        let length = bytes.len() * percent / 100;
        cuts.count(
            Manifest::parse(&bytes[..length], application, id).is_err(),
            || format!("{percent} % was read"),
        );
    }
    Ok(cuts)
}

async fn machine_cuts(
    protected: &ProtectedGroups,
    genuine: &Manifest,
    objects: Vec<&str>,
    seed: u64,
    step: usize,
    bits: usize,
) -> Result<Vec<Cuts>> {
    let standalone = StandaloneNode::with_data(protected, APPLICATION).await?;
    let before = standalone.snapshot().await?;
    let mut all = Vec::new();
    for object in objects {
        let scene = Scene {
            protected,
            standalone: &standalone,
            // A copy of its own, so that machines do not meet.
            backup: tampering::forge(protected, genuine, |_, _| Ok(()))?,
            object,
        };
        let mut cuts = Cuts::of(format!("{object} cut off, the agent"));
        for percent in (0..100).step_by(step) {
            scene.cut_off(percent, &mut cuts).await?;
        }
        let mut turned = Cuts::of(format!("{object}, one bit turned, the agent"));
        let mut dice = Dice::new(seed, object);
        for _ in 0..bits {
            scene.turn(&mut dice, &mut turned).await?;
        }
        let after = standalone.snapshot().await?;
        for cuts in [&mut cuts, &mut turned] {
            if after != before {
                cuts.problems.push("the node is not as it was".to_owned());
            }
        }
        all.extend([cuts, turned]);
    }
    Ok(all)
}

/// One object under the knife.
struct Scene<'a> {
    protected: &'a ProtectedGroups,
    standalone: &'a StandaloneNode,
    backup: Manifest,
    object: &'a str,
}

impl Scene<'_> {
    fn key(&self) -> String {
        let index = &self.backup.index;
        layout::object(
            &index.application,
            &index.backup_id,
            &index.run_id,
            self.object,
        )
    }

    /// Replaces the object by its first part: S3 tells the new size.
    async fn cut_off(&self, percent: usize, cuts: &mut Cuts) -> Result<()> {
        let standin = &self.protected.standin;
        let (s3, bucket, key) = (standin.s3(), standin.bucket(), self.key());
        let genuine: BTreeMap<_, _> = s3.save(bucket, &key)?.into_iter().collect();
        let bytes = s3.read(bucket, &key)?;
        s3.replace(bucket, &key, &bytes[..bytes.len() * percent / 100])?;
        self.try_restore(&format!("{percent} %"), cuts).await?;
        for (path, bytes) in genuine {
            std::fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// Turns one bit at rest: S3 tells the size and the checksum of before.
    async fn turn(&self, dice: &mut Dice, cuts: &mut Cuts) -> Result<()> {
        let standin = &self.protected.standin;
        let path = standin.s3().path(standin.bucket(), &self.key())?;
        let genuine = std::fs::read(&path)?;
        let mut bytes = genuine.clone();
        let bit = dice.below(8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bytes)?;
        self.try_restore(&format!("bit {bit}"), cuts).await?;
        std::fs::write(&path, genuine).context("turn the bit back")
    }

    async fn try_restore(&self, case: &str, cuts: &mut Cuts) -> Result<()> {
        let name = self.object.replace(['/', '.', '_'], "-");
        let operation = format!("{name}-{}", case.replace([' ', '%'], ""));
        let candidate = self.backup.candidate();
        let answer = self.standalone.restore(&operation, &[candidate]).await?;
        let refused = matches!(
            answer.report(),
            Ok(Report::Failure(failure)) if failure.exit_code == ExitCode::Verification
        );
        let unmarked = !self.standalone.marker().exists();
        cuts.count(refused && unmarked, || {
            format!("{case}: exit status {:?}: {}", answer.code, answer.output)
        });
        if !unmarked {
            self.standalone.forget_restore()?;
        }
        Ok(())
    }
}

impl Cuts {
    fn of(what: String) -> Self {
        Self {
            what,
            tried: 0,
            refused: 0,
            problems: Vec::new(),
        }
    }

    fn count(&mut self, refused: bool, problem: impl FnOnce() -> String) {
        self.tried += 1;
        if refused {
            self.refused += 1;
        } else {
            self.problems.push(problem());
        }
    }
}
