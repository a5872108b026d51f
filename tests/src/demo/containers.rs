//! The demonstration with Postgres and a real registry in containers. Each replacement's engine starts without images.
//! Before a replacement is in service, its registry must have the pushed images (by digest), the users, the TLS identity
//! and the metadata of its predecessor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use shared::manifest::Manifest;
use time::OffsetDateTime;

use super::replacement::Replacement;
use super::restore::between;
use super::scenario::{APPLICATION, Scenario, WAIT_LIMIT};
use super::state::State;
use crate::fixtures::containers::{Application, Client, POSTGRES, Pushed, STORAGE, tls_identity};
use crate::fixtures::registry;
use crate::fixtures::registry::Seed;
use crate::nodes::engine;
use crate::nodes::machine::Node;
use crate::standin::StandIn;
use crate::standin::autoscaling::Lifecycle;
use crate::standin::bus::DeliveryFault;
use crate::standin::ssm::reports_success;

/// The size of each pushed image, in bytes: more than the 10 MiB that the registry uploads as one part.
const IMAGE_BYTES: usize = 12 << 20;
/// The users that push and pull. The second one is added between two backups.
const USERS: [(&str, &str); 2] = [("alice", "pass word of alice"), ("bob", "b0b's: ü")];

/// The result of the demonstration in containers.
#[derive(Debug, Clone)]
pub struct ContainerResult {
    /// The replacements by kind. The first one was not planned.
    pub replacements: Vec<(String, Replacement)>,
    /// The number of images that were pushed.
    pub images: usize,
    /// The number of pulls by digest from a node that was not in service yet.
    pub pulled: usize,
    /// Problems that a user would have noticed.
    pub noticed: Vec<String>,
    /// The number of the application's own container images in S3, and their size in bytes.
    pub saved_images: (usize, u64),
}

impl ContainerResult {
    /// Returns whether every replacement has everything that it must have, and no user noticed a problem.
    pub fn is_faithful(&self) -> bool {
        let replaced = self.replacements.len();
        self.replacements.iter().all(|(_, one)| one.is_faithful())
            && self.noticed.is_empty()
            && self.pulled == replaced * self.images
    }
}

/// Runs the demonstration: an unplanned loss, then `planned` planned replacements. `print` receives one line for each
/// step.
pub async fn play(seed: Seed, planned: usize, print: &dyn Fn(&str)) -> Result<ContainerResult> {
    print(
        "Building the image of Postgres and the registry from Debian packages, if it does not exist.",
    );
    let image = engine::image().await?;
    let mut demo = ContainerDemo::start(&image, print).await?;
    print(
        "An Auto Scaling group without instances launches its first one: with the image and a fresh installation.",
    );
    let (mut node, manifest) = demo.begin(seed).await?;
    let identity = tls_identity(&demo.application).await?;
    let mut replacements = Vec::new();
    for number in 0..=planned {
        let kind = if number == 0 {
            print(&format!(
                "{} loses power. Its replacement's engine has no images.",
                node.id()
            ));
            "unplanned loss"
        } else {
            print(&format!(
                "{} was restored and is in service. It is terminated on purpose ({number} of {planned}).",
                node.id()
            ));
            "planned replacement"
        };
        let (next, replacement) = demo.replace(&node, number > 0, &identity).await?;
        replacements.push((kind.to_owned(), replacement));
        node = next;
    }
    print(&format!("{} was restored and is in service.", node.id()));
    let images = &manifest.index.images;
    Ok(ContainerResult {
        replacements,
        images: demo.pushed.len(),
        pulled: demo.pulled,
        noticed: demo.noticed,
        saved_images: (
            images.len(),
            images.iter().map(|image| image.object.size).sum(),
        ),
    })
}

struct ContainerDemo<'a> {
    /// Declared first, so that it is dropped before the stand-in, whose directory it uses.
    client: Client,
    scenario: Scenario<'a>,
    application: Application,
    pushed: Vec<Pushed>,
    noticed: Vec<String>,
    pulled: usize,
}

impl<'a> ContainerDemo<'a> {
    /// Starts a stand-in and a client's Docker Engine.
    async fn start(image: &str, print: &'a dyn Fn(&str)) -> Result<Self> {
        // No sweep extends a hook while a replacement is inspected, so the hooks get enough time for a loaded machine.
        let builder = StandIn::builder().time_scale(10.0).drain(5.0);
        let scenario = Scenario::start(builder.registration_delay(5.0), print).await?;
        let standin = &scenario.protected.standin;
        let application = Application::new(standin, APPLICATION, image)?;
        let client = Client::start(&standin.directory().join("client"), &application).await?;
        Ok(Self {
            client,
            scenario,
            application,
            pushed: Vec::new(),
            noticed: Vec::new(),
            pulled: 0,
        })
    }

    /// Fills the first node and takes two backups, with an image pushed before each.
    async fn begin(&mut self, seed: Seed) -> Result<(Arc<Node>, Manifest)> {
        let standin = &self.scenario.protected.standin;
        standin.create_group(self.application.group(standin.bucket()))?;
        let node = self.in_service(None).await?;
        registry::fill(&node, seed).await?;
        let mut newest = None;
        for (number, user) in USERS.into_iter().enumerate() {
            self.application.add_users(&node, &[user]).await?;
            self.client.log_in(user).await?;
            let repository = format!("{}-and-friends/application", user.0);
            let image = self.client.push(&repository, IMAGE_BYTES).await?;
            (self.scenario.print)(&format!(
                "{} logs in and pushes {repository}@{}. The schedule fires.",
                user.0, image.digest
            ));
            self.application.add_health_check(user, &image)?;
            self.pushed.push(image);
            let manifest = self.scenario.backup().await?;
            ensure!(
                manifest.index.unsaved_images.is_empty(),
                "{:?}",
                manifest.index.unsaved_images
            );
            let action = ["uploaded", "already in S3"][number];
            (self.scenario.print)(&format!(
                "  the application's own container images, {action}: {}",
                manifest.index.images.len()
            ));
            newest = Some(manifest);
        }
        let manifest = newest.context("no image was pushed")?;
        Ok((node, manifest))
    }

    /// Waits until a node other than `not` is in service. Meanwhile the sweep fires every minute of stand-in time.
    async fn in_service(&self, not: Option<&Node>) -> Result<Arc<Node>> {
        let protected = &self.scenario.protected;
        let not = not.map(Node::id);
        let arrival = protected
            .standin
            .wait_until_in_service(APPLICATION, not, WAIT_LIMIT);
        protected.with_sweeps(arrival).await
    }

    /// Cuts the node's power, or terminates the node on purpose, and pulls the images before its replacement is in service.
    async fn replace(
        &mut self,
        node: &Arc<Node>,
        planned: bool,
        identity: &str,
    ) -> Result<(Arc<Node>, Replacement)> {
        let before = State::read(node).await?;
        let backups = self.scenario.protected.backups(APPLICATION)?.len();
        // The replacement stays in its hook until the restore function receives this event, or until a sweep.
        let bus = Arc::clone(self.scenario.protected.standin.bus());
        let document = self.scenario.protected.document("restore")?;
        let restored = move |event: &serde_json::Value| {
            event["detail"]["document-name"] == document.as_str() && reports_success(event)
        };
        bus.inject_where(restored, DeliveryFault::Hold, usize::MAX);
        let lost_at = OffsetDateTime::now_utc();
        let standin = &self.scenario.protected.standin;
        if planned {
            standin.terminate(node.id()).await?;
        } else {
            standin.kill_instance(node.id()).await?;
        }
        let next = self.restored_node(node).await?;
        let served_at = OffsetDateTime::now_utc();
        self.inspect(&next, identity).await?;
        let inspected_at = OffsetDateTime::now_utc();
        bus.clear_faults();
        bus.release();
        self.in_service(Some(node)).await?;
        let in_service_at = OffsetDateTime::now_utc();

        let restore = self.scenario.restore_of(&next).await?;
        let state = self.scenario.restored_state(&restore.report)?;
        let after = State::read(&next).await?;
        let mut timeline = restore.timeline(
            lost_at,
            "node lost, or termination requested",
            in_service_at,
        );
        timeline.push((
            "all pushed images pulled by digest".to_owned(),
            between(lost_at, inspected_at),
        ));
        timeline.sort_by_key(|(_, at)| *at);
        if planned {
            let taken = self.scenario.protected.backups(APPLICATION)?.len() - backups;
            ensure!(taken > 0, "the terminated node took no final backup");
        }
        // The inspection belongs to the demonstration, not to the restore.
        let inspection = between(served_at, inspected_at);
        let replacement = Replacement {
            rows: before.rows(),
            different_rows: before.different_rows(&after),
            files: before.files.len(),
            different_files: registry::different_files(&before.files, &after.files),
            data_loss: if planned {
                Duration::ZERO
            } else {
                between(state, lost_at)
            },
            outage: between(lost_at, in_service_at).saturating_sub(inspection),
            timeline,
            node_work: restore.work(),
            orchestration: between(restore.registered_at, in_service_at)
                .saturating_sub(restore.work() + inspection),
        };
        Ok((next, replacement))
    }

    /// Waits until the replacement has reported its restore. At that moment it is not in service yet.
    async fn restored_node(&mut self, node: &Node) -> Result<Arc<Node>> {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            // Read before the reports: a sweep after the end of the restore would complete the hook. If everything is at
            // rest now and there is no report afterwards, the restore has not started.
            let members = self.scenario.protected.standin.group(APPLICATION);
            let ids: Vec<&str> = members.iter().map(|one| one.id.as_str()).collect();
            let at_rest = self.scenario.protected.standin.is_at_rest(&ids);
            for member in &members {
                if member.id == node.id() {
                    continue;
                }
                ensure!(
                    member.state != Lifecycle::InService,
                    "{} was in service before it could be inspected",
                    member.id
                );
                if member.state == Lifecycle::PendingWait
                    && let Ok(next) = self.scenario.protected.standin.node(&member.id)
                    && self.scenario.restore_of(&next).await.is_ok()
                {
                    return Ok(next);
                }
            }
            ensure!(
                Instant::now() < deadline,
                "no replacement was restored within {WAIT_LIMIT:?}: {members:?}"
            );
            // While its predecessor terminates, the restore waits for the next sweep.
            if at_rest {
                self.scenario.protected.standin.sweep();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Logs in and pulls as users do, and records the problems that they would notice. The node must not be in service,
    /// before and after.
    async fn inspect(&mut self, node: &Node, identity: &str) -> Result<()> {
        for user in USERS {
            self.client.log_in(user).await?;
        }
        for image in &self.pushed {
            self.client.pull(image).await?;
            self.pulled += 1;
        }
        if tls_identity(&self.application).await? != identity {
            self.noticed
                .push("the registry has another certificate".to_owned());
        }
        let engine = node.engine()?;
        for container in [POSTGRES, STORAGE] {
            let running = ["inspect", "--format", "{{.State.Running}}", container];
            if engine.run(&running).await?.trim() != "true" {
                self.noticed
                    .push(format!("the container {container} is not running"));
            }
        }
        let members = self.scenario.protected.standin.group(APPLICATION);
        let state = members
            .iter()
            .find(|one| one.id == node.id())
            .map(|one| one.state);
        ensure!(
            state == Some(Lifecycle::PendingWait),
            "the replacement is {state:?}: the images were not pulled before it was in service"
        );
        Ok(())
    }
}
