//! The `restored` marker: the node's own proof that its data are the application's, and not an empty application's.
//!
//! It names the instance and the cluster, so one that was baked into an image or that lies beside a fresh volume
//! does not count.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::id::{ApplicationName, InstanceId, OperationId};
use shared::manifest::Lineage;
use shared::report::ExitCode;
use time::OffsetDateTime;

use crate::agent::failure::{OrFail as _, Result};

/// Where the marker is, below the root.
const PATH: &str = "var/lib/rekindle/restored.json";

/// What makes a node one that may be backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The application whose data the node has.
    pub(crate) application: ApplicationName,
    /// The instance.
    pub(crate) instance_id: InstanceId,
    /// Postgres' system identifier.
    pub(crate) system_identifier: String,
    /// How the data came here.
    pub(crate) lineage: Lineage,
    /// The operation that brought them.
    pub(crate) operation_id: OperationId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) time: OffsetDateTime,
}

impl Marker {
    /// Reads the marker of the node with this root; none where there is none. One that cannot be read is an
    /// error: whether the node was restored must never be guessed.
    pub(crate) fn load(root: &Path) -> Result<Option<Self>> {
        let path = path(root);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .or_fail(ExitCode::NodeState, || format!("read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).or_fail(ExitCode::NodeState, || format!("read {}", path.display()))
            }
        }
    }

    /// Writes the marker: after a crash there is the old one or the new one, never a part.
    pub(crate) fn store(&self, root: &Path) -> Result<()> {
        let path = path(root);
        self.replace(&path)
            .or_fail(ExitCode::NodeState, || format!("write {}", path.display()))
    }

    /// Removes the marker, so that the node is never again backed up as the application's truth.
    pub(crate) fn remove(root: &Path) -> Result<()> {
        let path = path(root);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).or_fail(ExitCode::NodeState, || format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Tells whether the marker was written on this instance, for this application and this very cluster.
    pub(crate) fn valid_for(
        &self,
        application: &ApplicationName,
        instance: &InstanceId,
        system_identifier: &str,
    ) -> bool {
        self.is_of(application, instance) && self.system_identifier == system_identifier
    }

    /// Tells whether the marker was written on this instance for this application, whatever the cluster.
    pub(crate) fn is_of(&self, application: &ApplicationName, instance: &InstanceId) -> bool {
        (&self.application, &self.instance_id) == (application, instance)
    }

    fn replace(&self, path: &Path) -> anyhow::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory)?;
        let new = path.with_extension("json.new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        std::fs::File::open(directory)?.sync_all()?;
        Ok(())
    }
}

fn path(root: &Path) -> PathBuf {
    root.join(PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_counts_only_for_its_own_application_instance_and_cluster() {
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
        assert!(marker.valid_for(&application, &instance, "7"));
        assert!(!marker.valid_for(&application, &instance, "8"));
        assert!(!marker.valid_for(&application, &"i-0123abce".parse().unwrap(), "7"));
        assert!(!marker.valid_for(&"gitea".parse().unwrap(), &instance, "7"));

        Marker::remove(root.path()).unwrap();
        Marker::remove(root.path()).unwrap();
        assert_eq!(Marker::load(root.path()).unwrap(), None);
    }

    #[test]
    fn an_unreadable_marker_is_an_error_and_not_an_absent_one() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("var/lib/rekindle")).unwrap();
        std::fs::write(root.path().join(PATH), "{").unwrap();
        let failure = Marker::load(root.path()).unwrap_err();
        assert_eq!(failure.code, ExitCode::NodeState);
    }
}
