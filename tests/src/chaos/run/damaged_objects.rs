//! Every object of a backup, truncated at every percent, and with single bits flipped: the shipped agent must refuse each,
//! and leave the node unchanged. These are too many for the whole scenario, which covers a sample.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use shared::exit_code::ExitCode;
use shared::layout;
use shared::manifest::Manifest;
use shared::report::Report;

use crate::chaos::application::choices::Choices;
use crate::chaos::application::{APPLICATION, Application};
use crate::fixtures::protected_groups::ProtectedGroups;
use crate::fixtures::standalone::{StandaloneNode, launch_operation};
use crate::fixtures::tampering;

/// The objects, by their names within a backup.
const OBJECTS: [&str; 6] = [
    layout::INDEX,
    layout::CONTENTS,
    layout::GLOBALS,
    layout::CONFIGURATION,
    "postgres/0.dump.zst",
    "postgres/1.dump.zst",
];

/// The number of machines that restore at the same time.
const MACHINES: usize = 3;

/// The results for one kind of object and damage.
#[derive(Debug, Clone)]
pub struct DamagedObjects {
    /// The object and the damage.
    pub what: String,
    /// The number of restores.
    pub tried: usize,
    /// The number of restores that were refused without any change.
    pub refused: usize,
    /// The other restores.
    pub problems: Vec<String>,
}

/// Truncates objects at every percent that is a multiple of `step`, flips `bits` bits of each, and restores after each
/// damage.
pub async fn restore_damaged(seed: u64, step: usize, bits: usize) -> Result<Vec<DamagedObjects>> {
    let mut app = Application::open(false).await?;
    app.write().await?;
    let newest = app.protected.back_up(APPLICATION).await?;
    let (protected, mut all) = (&app.protected, vec![manifests(&newest, step)?]);
    let mut work = Vec::new();
    for machine in 0..MACHINES {
        let own = OBJECTS.into_iter().skip(machine).step_by(MACHINES);
        work.push(trials_of_machine(
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

/// Checks that a truncated manifest is never accepted.
fn manifests(genuine: &Manifest, step: usize) -> Result<DamagedObjects> {
    let bytes = serde_json::to_vec_pretty(genuine)?;
    let (application, id) = (&genuine.index.application, &genuine.index.backup_id);
    ensure!(
        Manifest::parse(&bytes, application, id).is_ok(),
        "the genuine manifest cannot be read"
    );
    let mut damaged = DamagedObjects::of("manifest truncated, the functions' parser".to_owned());
    for percent in (0..100).step_by(step) {
        let length = bytes.len() * percent / 100;
        damaged.count(
            Manifest::parse(&bytes[..length], application, id).is_err(),
            || format!("{percent} % was read"),
        );
    }
    Ok(damaged)
}

async fn trials_of_machine(
    protected: &ProtectedGroups,
    genuine: &Manifest,
    objects: Vec<&str>,
    seed: u64,
    step: usize,
    bits: usize,
) -> Result<Vec<DamagedObjects>> {
    let standalone = StandaloneNode::with_data(protected, APPLICATION).await?;
    let before = standalone.snapshot().await?;
    let mut all = Vec::new();
    for object in objects {
        let trial = Trial {
            protected,
            standalone: &standalone,
            // A copy for each machine, so that they do not damage the same object.
            backup: tampering::forge(protected, genuine, |_, _| Ok(()))?,
            object,
        };
        let mut truncated = DamagedObjects::of(format!("{object} truncated, the agent"));
        for percent in (0..100).step_by(step) {
            trial.truncate(percent, &mut truncated).await?;
        }
        let mut flipped = DamagedObjects::of(format!("{object}, one bit flipped, the agent"));
        let mut choices = Choices::new(seed, object);
        for _ in 0..bits {
            trial.flip(&mut choices, &mut flipped).await?;
        }
        let after = standalone.snapshot().await?;
        for damaged in [&mut truncated, &mut flipped] {
            if after != before {
                damaged.problems.push("the node was changed".to_owned());
            }
        }
        all.extend([truncated, flipped]);
    }
    Ok(all)
}

/// One object that is damaged and restored.
struct Trial<'a> {
    protected: &'a ProtectedGroups,
    standalone: &'a StandaloneNode,
    backup: Manifest,
    object: &'a str,
}

impl Trial<'_> {
    fn key(&self) -> String {
        let index = &self.backup.index;
        layout::object(
            &index.application,
            &index.backup_id,
            &index.run_id,
            self.object,
        )
    }

    /// Replaces the object by its first part: S3 returns the new size.
    async fn truncate(&self, percent: usize, damaged: &mut DamagedObjects) -> Result<()> {
        let standin = &self.protected.standin;
        let (s3, bucket, key) = (standin.s3(), standin.bucket(), self.key());
        let genuine: BTreeMap<_, _> = s3.save(bucket, &key)?.into_iter().collect();
        let bytes = s3.read(bucket, &key)?;
        s3.replace(bucket, &key, &bytes[..bytes.len() * percent / 100])?;
        self.try_restore(&format!("{percent} %"), damaged).await?;
        for (path, bytes) in genuine {
            std::fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// Flips one bit at rest: S3 still returns the old size and checksum.
    async fn flip(&self, choices: &mut Choices, damaged: &mut DamagedObjects) -> Result<()> {
        let standin = &self.protected.standin;
        let path = standin.s3().path(standin.bucket(), &self.key())?;
        let genuine = std::fs::read(&path)?;
        let mut bytes = genuine.clone();
        let bit = choices.flip(&mut bytes);
        std::fs::write(&path, bytes)?;
        self.try_restore(&format!("bit {bit}"), damaged).await?;
        std::fs::write(&path, genuine).context("flip the bit back")
    }

    async fn try_restore(&self, case: &str, damaged: &mut DamagedObjects) -> Result<()> {
        let name = self.object.replace(['/', '.', '_'], "-");
        let operation = launch_operation(&format!("{name} {case}"));
        let candidate = self.backup.candidate();
        let answer = self.standalone.restore(&operation, &[candidate]).await?;
        let refused = matches!(
            answer.report(),
            Ok(Report::Failure(failure)) if failure.exit_code == ExitCode::Verification
        );
        let unmarked = !self.standalone.node.marker().exists();
        damaged.count(refused && unmarked, || {
            format!("{case}: exit status {:?}: {}", answer.code, answer.output)
        });
        if !unmarked {
            self.standalone.forget_restore()?;
        }
        Ok(())
    }
}

impl DamagedObjects {
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
