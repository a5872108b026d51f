//! The `restored` marker: the file that proves that this instance's data came from its application's backups.
//!
//! It names the instance and the cluster, so that a marker in an AMI, or beside an empty volume, is not valid.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::exit_code::ExitCode;
use shared::id::{ApplicationName, InstanceId};
use shared::manifest::Lineage;
use shared::operation::Operation;
use time::OffsetDateTime;

use crate::agent::failure::{OrFail as _, Result};
use crate::agent::state::{DIRECTORY, read_if_exists, remove, write_durably};

/// The name of the marker's file in the agent's directory.
const NAME: &str = "restored.json";

/// The content of the marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The application that the data belong to.
    pub(crate) application: ApplicationName,
    /// The instance that the data were restored on.
    pub(crate) instance_id: InstanceId,
    /// The system identifier of the Postgres cluster.
    pub(crate) system_identifier: String,
    /// The origin of the data.
    pub(crate) lineage: Lineage,
    /// The operation that wrote the marker.
    pub(crate) operation_id: Operation,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) time: OffsetDateTime,
}

impl Marker {
    /// Reads the marker of the node with this root. Returns `None` if there is none. An unreadable marker is an error:
    /// the agent must not guess whether the node was restored.
    pub(crate) fn load(root: &Path) -> Result<Option<Self>> {
        let path = path(root);
        let Some(bytes) = read_if_exists(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .or_fail(ExitCode::NodeState, || {
                format!("cannot read {}; replace the node", path.display())
            })
    }

    /// Writes the marker. A crash leaves either the old marker or the new one.
    pub(crate) fn store(&self, root: &Path) -> Result<()> {
        let path = path(root);
        let bytes = serde_json::to_vec_pretty(self).or_fail(ExitCode::NodeState, || {
            format!("cannot write {}", path.display())
        })?;
        write_durably(&path, &bytes)
    }

    /// Removes the marker, so that the node is not backed up any more.
    pub(crate) fn remove(root: &Path) -> Result<()> {
        remove(&path(root))
    }

    /// Returns whether the marker was written on this instance for this application, for any cluster.
    pub(crate) fn is_of(&self, application: &ApplicationName, instance: &InstanceId) -> bool {
        (&self.application, &self.instance_id) == (application, instance)
    }

    /// Returns the origin of the data if the marker names this cluster, otherwise `None`.
    pub(crate) fn lineage_of(self, system_identifier: &str) -> Option<Lineage> {
        (self.system_identifier == system_identifier).then_some(self.lineage)
    }
}

fn path(root: &Path) -> PathBuf {
    root.join(DIRECTORY).join(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_valid_only_for_its_own_application_instance_and_cluster() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Marker::load(root.path()).unwrap(), None);
        let marker = Marker {
            application: "dtr".parse().unwrap(),
            instance_id: "i-0123abcd".parse().unwrap(),
            system_identifier: "7".to_owned(),
            lineage: Lineage::FirstBoot,
            operation_id: "launch-i-0123abcd".parse().unwrap(),
            time: OffsetDateTime::UNIX_EPOCH,
        };
        marker.store(root.path()).unwrap();
        assert_eq!(Marker::load(root.path()).unwrap().as_ref(), Some(&marker));

        let (application, instance) = (marker.application.clone(), marker.instance_id.clone());
        assert!(marker.is_of(&application, &instance));
        assert!(!marker.is_of(&application, &"i-0123abce".parse().unwrap()));
        assert!(!marker.is_of(&"gitea".parse().unwrap(), &instance));
        assert_eq!(marker.clone().lineage_of("7"), Some(Lineage::FirstBoot));
        assert_eq!(marker.lineage_of("8"), None);

        Marker::remove(root.path()).unwrap();
        Marker::remove(root.path()).unwrap();
        assert_eq!(Marker::load(root.path()).unwrap(), None);
    }

    #[test]
    fn an_unreadable_marker_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("var/lib/rekindle")).unwrap();
        std::fs::write(path(root.path()), "{").unwrap();
        let failure = Marker::load(root.path()).unwrap_err();
        assert_eq!(failure.code, ExitCode::NodeState);
    }
}
