//! Deletes container images. Many backups name one image; it is deleted when no manifest names it any more.

use std::collections::{BTreeMap, BTreeSet};

use shared::Result;
use shared::aws::catalog;
use shared::id::BackupId;
use shared::layout::BackupState;
use time::OffsetDateTime;

use super::decide::UNTOUCHED;
use super::pass::Pass;

impl Pass<'_> {
    /// Deletes the images that no manifest names. Returns their number. `owners` are all backups that have a manifest.
    ///
    /// If a running backup has just found the image in the bucket, the check before its commit refuses that backup, and
    /// the next backup saves the image again.
    ///
    /// # Errors
    /// If a manifest cannot be read, it may name any image: nothing is deleted.
    pub(super) async fn delete_unnamed_images(&self, owners: &BTreeSet<BackupId>) -> Result<usize> {
        let (client, bucket) = (&self.context.aws.s3, &self.context.config.bucket);
        let manifests = self.context.manifests(self.application);
        let images = catalog::images(client, bucket, self.application).await?;
        let mut unnamed: BTreeMap<String, OffsetDateTime> = images.into_iter().collect();
        unnamed.retain(|_, written_at| self.now - *written_at >= UNTOUCHED);
        for backup in outside_in(owners) {
            if unnamed.is_empty() {
                return Ok(0);
            }
            // An accepted backup moves from the first state to the second, and must be seen in one of them.
            for state in [BackupState::Quarantined, BackupState::Committed] {
                if let Some(manifest) = manifests.read(state, backup).await? {
                    for image in &manifest.index.images {
                        unnamed.remove(&image.object.key);
                    }
                }
            }
        }
        let unnamed: Vec<String> = unnamed.into_keys().collect();
        self.delete(&unnamed).await?;
        Ok(unnamed.len())
    }
}

/// Returns the backups from both ends to the middle: the newest ones name the images in use, the oldest ones the former
/// images. Therefore a pass reads few manifests, unless it deletes an image.
fn outside_in(backups: &BTreeSet<BackupId>) -> impl Iterator<Item = &BackupId> {
    let pairs = backups.iter().rev().zip(backups);
    pairs
        .flat_map(|(newer, older)| [newer, older])
        .take(backups.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use shared::function::context::Context;
    use shared::layout;

    use super::super::tests::{NOW, application, hours_ago, manifest};
    use super::*;
    use crate::testing::{Bucket, context, keys, put};

    fn image(digit: &str) -> String {
        layout::image(&application(), &digit.repeat(64).parse().unwrap())
    }

    fn backed_up(bucket: &Bucket, state: BackupState, backup: &BackupId, digits: &[&str]) {
        let images: Vec<Value> = digits
            .iter()
            .map(|digit| {
                json!({"id": digit.repeat(64), "names": [], "object": {
                    "key": image(digit), "size": 1, "sha256": "0".repeat(64), "crc64": "rosUhgp5mIg="}})
            })
            .collect();
        let key = state.manifest(&application(), backup);
        put(bucket, &key, manifest(backup, &images).as_bytes());
    }

    async fn deleted(bucket: &Bucket, owners: &BTreeSet<BackupId>) -> Result<usize> {
        let context: Context = context(bucket, &[]);
        let pass = Pass {
            context: &context,
            application: &application(),
            now: NOW,
        };
        pass.delete_unnamed_images(owners).await
    }

    #[tokio::test]
    async fn an_image_is_deleted_with_the_last_manifest_that_names_it() {
        let bucket = Bucket::default();
        for digit in ["a", "b", "c", "d"] {
            put(&bucket, &image(digit), b"image");
        }
        let owners: BTreeSet<BackupId> = (0..5).map(hours_ago).collect();
        for owner in &owners {
            backed_up(&bucket, BackupState::Committed, owner, &["a"]);
        }
        backed_up(&bucket, BackupState::Committed, &hours_ago(2), &["a", "b"]);
        backed_up(&bucket, BackupState::Quarantined, &hours_ago(9), &["c"]);
        let all: BTreeSet<BackupId> = owners.iter().cloned().chain([hours_ago(9)]).collect();

        assert_eq!(deleted(&bucket, &all).await.unwrap(), 1);
        assert_eq!(keys(&bucket, "backups/"), ["a", "b", "c"].map(image));
        assert_eq!(deleted(&bucket, &owners).await.unwrap(), 1);
        assert_eq!(keys(&bucket, "backups/"), ["a", "b"].map(image));
    }

    #[tokio::test]
    async fn no_image_is_deleted_while_a_manifest_cannot_be_read() {
        let bucket = Bucket::default();
        put(&bucket, &image("a"), b"image");
        let (good, bad) = (hours_ago(1), hours_ago(2));
        backed_up(&bucket, BackupState::Committed, &good, &[]);
        put(&bucket, &layout::manifest(&application(), &bad), b"{");
        assert!(deleted(&bucket, &[good, bad].into()).await.is_err());
        assert_eq!(keys(&bucket, "backups/"), [image("a")]);
    }

    #[test]
    fn every_backup_is_read_once() {
        for count in 0..7 {
            let backups: BTreeSet<BackupId> = (0..count).map(hours_ago).collect();
            let seen: Vec<&BackupId> = outside_in(&backups).collect();
            assert_eq!(seen.len(), backups.len());
            assert_eq!(
                seen.into_iter().collect::<BTreeSet<_>>().len(),
                backups.len()
            );
        }
    }
}
