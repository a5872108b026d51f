//! Waits for cloud-init, whose user data writes the settings: SSM reaches a launching instance before it is done.

use std::path::Path;
use std::time::Duration;

use shared::budget;
use shared::id::InstanceId;
use tokio::time::Instant;

/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until cloud-init has finished this instance's first boot, at most as long as the timing budget says.
/// A node without cloud-init is ready at once. What is still missing after that, reading the settings will say.
pub(crate) async fn wait_finished(root: &Path, instance: &InstanceId) {
    let instances = root.join("var/lib/cloud/instances");
    // An image may carry the directories of the instance that it was made from: only our own counts.
    let finished = instances.join(instance.as_str()).join("boot-finished");
    let deadline = Instant::now() + budget::seconds(budget::CLOUD_INIT);
    while instances.exists() && !finished.exists() {
        if Instant::now() >= deadline {
            tracing::warn!(file = %finished.display(), "cloud-init has not finished; going on without it");
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_cloud_init_and_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let instance = "i-0123abcd".parse().unwrap();
        let started = Instant::now();
        wait_finished(root.path(), &instance).await;
        assert_eq!(started.elapsed(), Duration::ZERO);

        let own = root.path().join("var/lib/cloud/instances/i-0123abcd");
        std::fs::create_dir_all(&own).unwrap();
        let other = root.path().join("var/lib/cloud/instances/i-0000abcd");
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(other.join("boot-finished"), "").unwrap();
        let file = own.join("boot-finished");
        let writing = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            std::fs::write(file, "").unwrap();
        };
        tokio::join!(wait_finished(root.path(), &instance), writing);
        assert_eq!(started.elapsed().as_secs(), 20);

        wait_finished(root.path(), &"i-0000abce".parse().unwrap()).await;
        assert_eq!(
            started.elapsed().as_secs(),
            20 + u64::from(budget::CLOUD_INIT)
        );
    }
}
