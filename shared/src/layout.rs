//! The only code that builds S3 keys.
//!
//! ```text
//! backups/<stack>/<yyyy-mm-dd>/<backup id>/<run id>/<object>   put by the node
//! backups/<stack>/images/<image id>.tar.zst                    put by the node, once for all backups
//! manifests/<stack>/<yyyy-mm-dd>/<backup id>.json              put by the backup function, last
//! quarantine/<stack>/<yyyy-mm-dd>/<backup id>.json             the same, of a backup that is kept aside
//! commits/<backup id>/<stack>                                  put by the backup function, after the manifest
//! pins/<stack>/<backup id>                                     put by the backup function: kept for ever
//! agent/<sha256>/rekindle-node                                 put by a function
//! ```

use crate::id::{BackupId, RunId, Sha256, StackName};

/// The object that lists all others of a backup.
pub const INDEX: &str = "index.json";
/// Tables, exact row counts and database properties.
pub const CONTENTS: &str = "contents.json.zst";
/// Roles, memberships and tablespaces.
pub const GLOBALS: &str = "globals.sql.zst";
/// The configuration archive.
pub const CONFIGURATION: &str = "config.tar.zst";

/// Names the dump of the database with this number in the index.
pub fn dump(number: usize) -> String {
    format!("postgres/{number}.dump.zst")
}

/// Returns the prefix of one attempt at a backup, with its final slash.
pub fn run_prefix(stack: &StackName, backup: &BackupId, run: &RunId) -> String {
    format!("backups/{stack}/{}/{backup}/{run}/", backup.day())
}

/// Returns the key of one object of one attempt at a backup.
pub fn object(stack: &StackName, backup: &BackupId, run: &RunId, name: &str) -> String {
    format!("{}{name}", run_prefix(stack, backup, run))
}

/// Where a backup's manifest stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Among those that a restore may choose.
    Committed,
    /// Kept aside until an operator accepts it.
    Quarantined,
}

impl Shelf {
    fn folder(self) -> &'static str {
        match self {
            Self::Committed => "manifests",
            Self::Quarantined => "quarantine",
        }
    }

    /// Returns the prefix of every stack's manifests, by which the stacks are listed.
    pub fn prefix_of_all(self) -> String {
        format!("{}/", self.folder())
    }

    /// Returns the prefix of a stack's manifests, by which their days are listed.
    pub fn prefix(self, stack: &StackName) -> String {
        format!("{}/{stack}/", self.folder())
    }

    /// Returns the prefix of a stack's manifests of one `yyyy-mm-dd`.
    pub fn prefix_of_day(self, stack: &StackName, day: &str) -> String {
        format!("{}/{stack}/{day}/", self.folder())
    }

    /// Returns the key of a backup's manifest.
    pub fn manifest(self, stack: &StackName, backup: &BackupId) -> String {
        format!("{}/{stack}/{}/{backup}.json", self.folder(), backup.day())
    }
}

/// Returns the key of a committed backup's manifest. The backup exists if and only if this object does.
pub fn manifest(stack: &StackName, backup: &BackupId) -> String {
    Shelf::Committed.manifest(stack, backup)
}

/// The prefix of what says that a backup was committed, of every stack.
pub const COMMITS: &str = "commits/";

/// Returns the key of what says that a backup of a stack was committed: by time, so that one listing tells of all stacks.
pub fn commit(stack: &StackName, backup: &BackupId) -> String {
    format!("{COMMITS}{backup}/{stack}")
}

/// Returns what sorts right before the commits of this backup's time and later ones.
pub fn commits_from(backup: &BackupId) -> String {
    format!("{COMMITS}{backup}")
}

/// Reads a commit's key; none where the key is not one.
pub fn commit_of_key(key: &str) -> Option<(StackName, BackupId)> {
    let (backup, stack) = key.strip_prefix(COMMITS)?.split_once('/')?;
    Some((stack.parse().ok()?, backup.parse().ok()?))
}

/// Returns the prefix of all objects of a stack's backups.
pub fn backups(stack: &StackName) -> String {
    format!("backups/{stack}/")
}

/// Returns the prefix of all objects of one backup, of every attempt at it.
pub fn backup(stack: &StackName, backup: &BackupId) -> String {
    format!("backups/{stack}/{}/{backup}/", backup.day())
}

/// Returns the prefix of the images of a stack's containers. No day has this name.
pub fn images(stack: &StackName) -> String {
    format!("{}images/", backups(stack))
}

/// Returns the key of the image with this id.
pub fn image(stack: &StackName, id: &Sha256) -> String {
    format!("{}{id}.tar.zst", images(stack))
}

/// Reads the backup and the attempt out of an object's key; none where the key is not one of a backup's objects.
pub fn attempt_of_object(stack: &StackName, key: &str) -> Option<(BackupId, RunId)> {
    let mut parts = key.strip_prefix(&backups(stack))?.split('/').skip(1);
    let (backup, run) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    key.starts_with(&run_prefix(stack, &backup, &run))
        .then_some((backup, run))
}

/// Returns the prefix of a stack's pins.
pub fn pins(stack: &StackName) -> String {
    format!("pins/{stack}/")
}

/// Returns the key of the object that pins a backup.
pub fn pin(stack: &StackName, backup: &BackupId) -> String {
    format!("pins/{stack}/{backup}")
}

/// Reads the backup's id out of its manifest's key; none where the key is not a manifest's.
pub fn backup_of_manifest(key: &str) -> Option<BackupId> {
    key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()
}

/// Returns the key of the agent binary with this digest.
pub fn agent(sha256: &Sha256) -> String {
    format!("agent/{sha256}/rekindle-node")
}

/// Returns the name of the SSM parameter that holds a stack's small state.
pub fn state_parameter(stack: &StackName) -> String {
    format!("/rekindle/{stack}")
}

/// Returns the name of the SSM parameter that holds the breakers of a stack's groups. No stack's state can have this
/// name, since a stack's own has no slash.
pub fn breaker_parameter(stack: &StackName) -> String {
    format!("{}/breaker", state_parameter(stack))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_documented() {
        let stack: StackName = "dtr".parse().unwrap();
        let backup: BackupId = "20261123T021500.000Z".parse().unwrap();
        let run: RunId = "0a1b2c3d".parse().unwrap();
        assert_eq!(
            object(&stack, &backup, &run, &dump(0)),
            "backups/dtr/2026-11-23/20261123T021500.000Z/0a1b2c3d/postgres/0.dump.zst"
        );
        let key = manifest(&stack, &backup);
        assert_eq!(key, "manifests/dtr/2026-11-23/20261123T021500.000Z.json");
        assert!(key.starts_with(&Shelf::Committed.prefix_of_day(&stack, &backup.day())));
        assert_eq!(backup_of_manifest(&key), Some(backup.clone()));
        assert_eq!(
            Shelf::Quarantined.manifest(&stack, &backup),
            "quarantine/dtr/2026-11-23/20261123T021500.000Z.json"
        );
        assert_eq!(pin(&stack, &backup), "pins/dtr/20261123T021500.000Z");
        let said = commit(&stack, &backup);
        assert_eq!(said, "commits/20261123T021500.000Z/dtr");
        assert_eq!(commit_of_key(&said), Some((stack.clone(), backup.clone())));
        assert_eq!(commit_of_key("commits/notes.txt"), None);
        assert!(commits_from(&backup) < said);
        let object = object(&stack, &backup, &run, INDEX);
        assert_eq!(attempt_of_object(&stack, &object), Some((backup, run)));
        let elsewhere = object.replace("2026-11-23", "2026-11-24");
        assert_eq!(attempt_of_object(&stack, &elsewhere), None);
        let id: Sha256 = "0a".repeat(32).parse().unwrap();
        let image = image(&stack, &id);
        assert_eq!(image, format!("backups/dtr/images/{id}.tar.zst"));
        assert_eq!(attempt_of_object(&stack, &image), None);
        assert_eq!(
            backup_of_manifest("manifests/dtr/2026-11-23/notes.json"),
            None
        );
        assert_eq!(state_parameter(&stack), "/rekindle/dtr");
        assert_eq!(breaker_parameter(&stack), "/rekindle/dtr/breaker");
    }
}
