//! The only code that builds S3 keys.
//!
//! ```text
//! backups/<application>/<yyyy-mm-dd>/<backup id>/<run id>/<object>   objects of a backup, written by the node
//! backups/<application>/<yyyy-mm-dd>/<backup id>/exceptions/<operation>.json   exceptions of a restore, written by the node
//! backups/<application>/images/<image id>.tar.zst                    image, written by the node, once for all backups
//! manifests/<application>/<yyyy-mm-dd>/<backup id>.json              manifest, written last by the backup function
//! quarantine/<application>/<yyyy-mm-dd>/<backup id>.json             manifest of a quarantined backup
//! commits/<backup id>/<application>                                  commit marker, written after the manifest
//! pins/<application>/<backup id>                                     pin, written by the backup function
//! agent/<sha256>/rekindle-node                                       the agent, written by both functions
//! ```

use crate::id::{ApplicationName, BackupId, RunId, Sha256};
use crate::operation::Operation;

/// The name of the object that lists all other objects of a backup.
pub const INDEX: &str = "index.json";
/// The name of the object with the tables, exact row counts and database properties.
pub const CONTENTS: &str = "contents.json.zst";
/// The name of the object with roles, memberships and tablespaces.
pub const GLOBALS: &str = "globals.sql.zst";
/// The name of the object with the configuration archive.
pub const CONFIGURATION: &str = "config.tar.zst";

/// Returns the name of the dump of the database with this number in the index.
pub fn dump(number: usize) -> String {
    format!("postgres/{number}.dump.zst")
}

/// Returns the prefix of one run of a backup, with its final slash.
pub fn run_prefix(application: &ApplicationName, backup: &BackupId, run: &RunId) -> String {
    format!("backups/{application}/{}/{backup}/{run}/", backup.day())
}

/// Returns the key of one object of one run of a backup.
pub fn object(application: &ApplicationName, backup: &BackupId, run: &RunId, name: &str) -> String {
    format!("{}{name}", run_prefix(application, backup, run))
}

/// The state of a complete backup: the prefix below which its manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupState {
    /// A launch restore may choose it.
    Committed,
    /// It is suspicious, until an operator accepts or rejects it.
    Quarantined,
}

impl BackupState {
    fn folder(self) -> &'static str {
        match self {
            Self::Committed => "manifests",
            Self::Quarantined => "quarantine",
        }
    }

    /// Returns the prefix of all applications' manifests.
    pub fn prefix_of_all(self) -> String {
        format!("{}/", self.folder())
    }

    /// Returns the prefix of an application's manifests.
    pub fn prefix(self, application: &ApplicationName) -> String {
        format!("{}/{application}/", self.folder())
    }

    /// Returns the prefix of an application's manifests of one `yyyy-mm-dd`.
    pub fn prefix_of_day(self, application: &ApplicationName, day: &str) -> String {
        format!("{}/{application}/{day}/", self.folder())
    }

    /// Returns the key of a backup's manifest.
    pub fn manifest(self, application: &ApplicationName, backup: &BackupId) -> String {
        format!(
            "{}/{application}/{}/{backup}.json",
            self.folder(),
            backup.day()
        )
    }
}

/// Returns the key of a committed backup's manifest. The backup exists if and only if this object does.
pub fn manifest(application: &ApplicationName, backup: &BackupId) -> String {
    BackupState::Committed.manifest(application, backup)
}

/// The prefix of all commit markers.
pub const COMMITS: &str = "commits/";

/// Returns the key of a backup's commit marker. It begins with the time, so that one listing has the recent commits of
/// all applications.
pub fn commit(application: &ApplicationName, backup: &BackupId) -> String {
    format!("{COMMITS}{backup}/{application}")
}

/// Returns the key that sorts directly before the commit markers of this backup's time.
pub fn commits_from(backup: &BackupId) -> String {
    format!("{COMMITS}{backup}")
}

/// Returns the application and the backup of a commit marker's key, or `None` if it is another key.
pub fn commit_of_key(key: &str) -> Option<(ApplicationName, BackupId)> {
    let (backup, application) = key.strip_prefix(COMMITS)?.split_once('/')?;
    Some((application.parse().ok()?, backup.parse().ok()?))
}

/// Returns the prefix of all objects of an application's backups.
pub fn backups(application: &ApplicationName) -> String {
    format!("backups/{application}/")
}

/// Returns the prefix of all objects of one backup, of all its runs.
pub fn backup(application: &ApplicationName, backup: &BackupId) -> String {
    format!("backups/{application}/{}/{backup}/", backup.day())
}

/// Returns the prefix of the exceptions of all restores of a backup. Retention deletes them with the backup.
pub fn exceptions_prefix(application: &ApplicationName, backup: &BackupId) -> String {
    format!("{}exceptions/", self::backup(application, backup))
}

/// Returns the key of the exceptions of one restore of a backup.
pub fn exceptions(
    application: &ApplicationName,
    backup: &BackupId,
    operation: &Operation,
) -> String {
    format!("{}{operation}.json", exceptions_prefix(application, backup))
}

/// Returns the prefix of the images of an application's containers. It differs from every day's prefix of backups.
pub fn images(application: &ApplicationName) -> String {
    format!("{}images/", backups(application))
}

/// Returns the key of the container image with this id.
pub fn image(application: &ApplicationName, id: &Sha256) -> String {
    format!("{}{id}.tar.zst", images(application))
}

/// Returns the backup and the run of an object's key, or `None` if it is not the key of a backup's object.
pub fn run_of_object(application: &ApplicationName, key: &str) -> Option<(BackupId, RunId)> {
    let mut parts = key.strip_prefix(&backups(application))?.split('/').skip(1);
    let (backup, run) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    key.starts_with(&run_prefix(application, &backup, &run))
        .then_some((backup, run))
}

/// Returns the prefix of an application's pins.
pub fn pins(application: &ApplicationName) -> String {
    format!("pins/{application}/")
}

/// Returns the key of the object that pins a backup.
pub fn pin(application: &ApplicationName, backup: &BackupId) -> String {
    format!("pins/{application}/{backup}")
}

/// Returns the backup of a manifest's key, or `None` if it is another key.
pub fn backup_of_manifest(key: &str) -> Option<BackupId> {
    key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()
}

/// Returns the key of the agent with this SHA-256.
pub fn agent(sha256: &Sha256) -> String {
    format!("agent/{sha256}/rekindle-node")
}

/// Returns the name of the SSM parameter with an application's state.
pub fn state_parameter(application: &ApplicationName) -> String {
    format!("/rekindle/{application}")
}

/// Returns the name of the SSM parameter with the circuit breakers of an application's groups. It differs from the name
/// of every application's state, because an application's name has no slash.
pub fn breaker_parameter(application: &ApplicationName) -> String {
    format!("{}/breaker", state_parameter(application))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_documented_format() {
        let application: ApplicationName = "dtr".parse().unwrap();
        let backup: BackupId = "20261123T021500.000Z".parse().unwrap();
        let run: RunId = "0a1b2c3d".parse().unwrap();
        assert_eq!(
            object(&application, &backup, &run, &dump(0)),
            "backups/dtr/2026-11-23/20261123T021500.000Z/0a1b2c3d/postgres/0.dump.zst"
        );
        let key = manifest(&application, &backup);
        assert_eq!(key, "manifests/dtr/2026-11-23/20261123T021500.000Z.json");
        assert!(
            key.starts_with(&BackupState::Committed.prefix_of_day(&application, &backup.day()))
        );
        assert_eq!(backup_of_manifest(&key), Some(backup.clone()));
        assert_eq!(
            BackupState::Quarantined.manifest(&application, &backup),
            "quarantine/dtr/2026-11-23/20261123T021500.000Z.json"
        );
        assert_eq!(pin(&application, &backup), "pins/dtr/20261123T021500.000Z");
        let marker = commit(&application, &backup);
        assert_eq!(marker, "commits/20261123T021500.000Z/dtr");
        assert_eq!(
            commit_of_key(&marker),
            Some((application.clone(), backup.clone()))
        );
        assert_eq!(commit_of_key("commits/notes.txt"), None);
        assert!(commits_from(&backup) < marker);
        let object = object(&application, &backup, &run, INDEX);
        let run_of_object_found = run_of_object(&application, &object);
        assert_eq!(run_of_object_found, Some((backup.clone(), run)));
        let operation: Operation = "launch-i-0123abcd".parse().unwrap();
        let exceptions = exceptions(&application, &backup, &operation);
        assert_eq!(
            exceptions,
            "backups/dtr/2026-11-23/20261123T021500.000Z/exceptions/launch-i-0123abcd.json"
        );
        assert_eq!(run_of_object(&application, &exceptions), None);
        let elsewhere = object.replace("2026-11-23", "2026-11-24");
        assert_eq!(run_of_object(&application, &elsewhere), None);
        let id: Sha256 = "0a".repeat(32).parse().unwrap();
        let image = image(&application, &id);
        assert_eq!(image, format!("backups/dtr/images/{id}.tar.zst"));
        assert_eq!(run_of_object(&application, &image), None);
        assert_eq!(
            backup_of_manifest("manifests/dtr/2026-11-23/notes.json"),
            None
        );
        assert_eq!(state_parameter(&application), "/rekindle/dtr");
        assert_eq!(breaker_parameter(&application), "/rekindle/dtr/breaker");
    }
}
