//! The only code that builds S3 keys.
//!
//! ```text
//! backups/<stack>/<yyyy-mm-dd>/<backup id>/<run id>/<object>   put by the node
//! manifests/<stack>/<yyyy-mm-dd>/<backup id>.json              put by the backup function, last
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

/// Returns the prefix of a stack's manifests, by which their days are listed.
pub fn manifests(stack: &StackName) -> String {
    format!("manifests/{stack}/")
}

/// Returns the prefix of a stack's manifests of one `yyyy-mm-dd`.
pub fn manifests_of_day(stack: &StackName, day: &str) -> String {
    format!("manifests/{stack}/{day}/")
}

/// Returns the key of a backup's manifest. The backup exists if and only if this object does.
pub fn manifest(stack: &StackName, backup: &BackupId) -> String {
    format!("manifests/{stack}/{}/{backup}.json", backup.day())
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
        assert!(key.starts_with(&manifests_of_day(&stack, &backup.day())));
        assert_eq!(backup_of_manifest(&key), Some(backup));
        assert_eq!(
            backup_of_manifest("manifests/dtr/2026-11-23/notes.json"),
            None
        );
    }
}
