//! Waits for cloud-init: user data writes the settings, and SSM can run commands on a launching instance before that.

use std::path::Path;
use std::time::Duration;

use shared::budget;
use shared::id::InstanceId;
use tokio::time::{Instant, sleep};

/// The pause between two checks.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// Waits until cloud-init has finished the first boot of this instance, for at most `budget::CLOUD_INIT`.
///
/// A node without cloud-init is ready at once. If the time limit is over, this returns, too: if the settings are still
/// missing, the failure to read them has a better message.
pub(crate) async fn wait_finished(root: &Path, instance: &InstanceId) {
    let instances = root.join("var/lib/cloud/instances");
    // An AMI may contain the directories of the instance that it was made from, so check this instance's own.
    let finished = instances.join(instance.as_str()).join("boot-finished");
    let deadline = Instant::now() + budget::seconds(budget::CLOUD_INIT);
    while instances.exists() && !finished.exists() {
        if Instant::now() >= deadline {
            tracing::warn!(
                file = %finished.display(),
                limit_seconds = budget::CLOUD_INIT,
                "cloud-init has not finished in time; continuing without it"
            );
            return;
        }
        sleep(CHECK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_when_cloud_init_has_finished_or_the_limit_is_over() {
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
            sleep(Duration::from_secs(20)).await;
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
