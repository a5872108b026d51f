//! The story of a registry in containers: its images by digest, its users, its TLS identity and its metadata must be
//! there before a replacement is in service, on an engine that had not even the images that the application is made of.

use super::restore::between;
use super::state::State;
use super::*;
use crate::fixtures::containers::{Application, Client, POSTGRES, Pushed, STORAGE, tls_identity};
use crate::nodes::engine;
use crate::standin::autoscaling::Lifecycle;
use crate::standin::bus::DeliveryFault;

/// Bytes of the images that are pushed: more than the 10 MiB that the registry uploads as one part.
const IMAGE_BYTES: usize = 12 << 20;
/// Who pushes and pulls; the second one comes between two backups.
const USERS: [(&str, &str); 2] = [("alice", "pass word of alice"), ("bob", "b0b's: ü")];

/// How a story in containers went.
#[derive(Debug, Clone)]
pub struct ContainerOutcome {
    /// The replacements, the first of which nobody planned.
    pub replacements: Vec<(String, Replacement)>,
    /// The images that were pushed.
    pub images: usize,
    /// How often one was pulled by its digest while its node was not in service yet.
    pub pulled: usize,
    /// Problems that a user would have noticed.
    pub noticed: Vec<String>,
    /// The application's own images in S3, and their bytes.
    pub saved_images: (usize, u64),
}

impl ContainerOutcome {
    /// Tells whether nothing that had to be kept was lost, and nobody noticed anything.
    pub fn is_faithful(&self) -> bool {
        let replaced = self.replacements.len();
        self.replacements.iter().all(|(_, one)| one.is_faithful())
            && self.noticed.is_empty()
            && self.pulled == replaced * self.images
    }
}

/// Plays the story: a loss without warning, and as many planned replacements; `say` gets a line for each step.
pub async fn play(seed: Seed, planned: usize, say: &dyn Fn(&str)) -> Result<ContainerOutcome> {
    say("the image of Postgres and the registry is made of Debian packages, where it is missing");
    let image = engine::image().await?;
    // No sweep prolongs a hook while a replacement is looked at, so hooks get time enough for a loaded machine.
    let standin = StandIn::builder().time_scale(10.0).drain(5.0);
    let standin = standin.registration_delay(5.0).start().await?;
    let load = Load::in_directory(&standin.directory());
    let application = Application::new(&standin, APPLICATION, &image)?;
    let client = Client::start(&standin.directory().join("client"), &application).await?;
    let mut scene = Scene {
        story: Story {
            standin,
            load,
            say,
            peak_memory_kib: 0,
        },
        application,
        client,
        pushed: Vec::new(),
        noticed: Vec::new(),
        pulled: 0,
    };
    say(
        "an empty group launches its first instance; its engine has the image, its disk a fresh installation",
    );
    let (mut node, manifest) = scene.begin(seed).await?;
    let identity = tls_identity(&scene.application).await?;
    let mut replacements = Vec::new();
    for number in 0..=planned {
        let kind = if number == 0 {
            say(
                "the node loses power without a warning; the next one's engine has no image at all",
            );
            "unplanned loss"
        } else {
            say(&format!(
                "its replacement is in service, and is replaced on purpose ({number})"
            ));
            "planned replacement"
        };
        let (next, replacement) = scene.replace(&node, number > 0, &identity).await?;
        replacements.push((kind.to_owned(), replacement));
        node = next;
    }
    say("its replacement is in service");
    let images = &manifest.index.images;
    Ok(ContainerOutcome {
        replacements,
        images: scene.pushed.len(),
        pulled: scene.pulled,
        noticed: scene.noticed,
        saved_images: (
            images.len(),
            images.iter().map(|image| image.object.size).sum(),
        ),
    })
}

struct Scene<'a> {
    /// Goes before the standin, in whose directory it works.
    client: Client,
    story: Story<'a>,
    application: Application,
    pushed: Vec<Pushed>,
    noticed: Vec<String>,
    pulled: usize,
}

impl Scene<'_> {
    /// Fills the first node, and has two backups taken, with an image pushed before each.
    async fn begin(&mut self, seed: Seed) -> Result<(Arc<Node>, Manifest)> {
        let standin = &self.story.standin;
        standin.create_group(self.application.group(standin.bucket()))?;
        let node = self.in_service(None).await?;
        let cluster = node.cluster()?;
        registry::create(&cluster.connect(MAIN_DATABASE).await?, seed).await?;
        registry::create_notary(&cluster.connect(NOTARY_DATABASE).await?).await?;
        registry::create_configuration(&node.root(), seed.seed)?;
        let mut newest = None;
        for (number, user) in USERS.into_iter().enumerate() {
            self.application.add_users(&node, &[user]).await?;
            self.client.log_in(user).await?;
            let repository = format!("{}-and-friends/application", user.0);
            let image = self.client.push(&repository, IMAGE_BYTES).await?;
            (self.story.say)(&format!(
                "{} logs in and pushes {repository}@{}; the schedule fires",
                user.0, image.digest
            ));
            self.application.add_health_check(user, &image)?;
            self.pushed.push(image);
            let manifest = self.story.backup().await?;
            ensure!(
                manifest.index.unsaved_images.is_empty(),
                "{:?}",
                manifest.index.unsaved_images
            );
            let said = ["saved", "named again"][number];
            (self.story.say)(&format!(
                "  the application's own images were {said}: {}",
                manifest.index.images.len()
            ));
            newest = Some(manifest);
        }
        let manifest = newest.context("nobody pushed anything")?;
        Ok((node, manifest))
    }

    /// Waits until another node than `not` is in service; the minute sweep fires meanwhile.
    async fn in_service(&self, not: Option<&Node>) -> Result<Arc<Node>> {
        let standin = &self.story.standin;
        let sweeps = async {
            loop {
                tokio::time::sleep(standin.clock().wait(60.0)).await;
                standin.sweep();
            }
        };
        tokio::select! {
            arrived = standin.wait_until_in_service(APPLICATION, not.map(Node::id), PATIENCE) => arrived,
            never = sweeps => never,
        }
    }

    /// Loses the node, or replaces it on purpose, and has the images pulled before its replacement is in service.
    async fn replace(
        &mut self,
        node: &Arc<Node>,
        planned: bool,
        identity: &str,
    ) -> Result<(Arc<Node>, Replacement)> {
        let before = State::read(node).await?;
        let backups = self.story.backups()?.len();
        // The replacement waits for what the restore function hears of this event, or finds at a sweep.
        let bus = Arc::clone(self.story.standin.bus());
        let document = self.restore_document()?;
        let restored = move |event: &serde_json::Value| {
            let detail = &event["detail"];
            detail["document-name"] == document.as_str() && detail["status"] == "Success"
        };
        bus.inject_where(restored, DeliveryFault::Hold, usize::MAX);
        let lost_at = OffsetDateTime::now_utc();
        if planned {
            self.story.standin.terminate(node.id()).await?;
        } else {
            self.story.standin.kill_instance(node.id()).await?;
        }
        let next = self.restored_node(node).await?;
        let served_at = OffsetDateTime::now_utc();
        self.look(&next, identity).await?;
        let looked_at = OffsetDateTime::now_utc();
        bus.clear_faults();
        bus.release();
        self.in_service(Some(node)).await?;
        let in_service_at = OffsetDateTime::now_utc();

        let restore = self.story.restore_of(&next).await?;
        let state = self.story.restored_state(&restore.report)?;
        let after = State::read(&next).await?;
        let mut timeline = restore.timeline(
            lost_at,
            "node lost, or termination requested",
            in_service_at,
        );
        timeline.push((
            "both images pulled by digest".to_owned(),
            between(lost_at, looked_at),
        ));
        timeline.sort_by_key(|(_, at)| *at);
        if planned {
            let taken = self.story.backups()?.len() - backups;
            ensure!(taken > 0, "the terminated node took no final backup");
        }
        // What the looking took is the story's own.
        let looking = between(served_at, looked_at);
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
            outage: between(lost_at, in_service_at).saturating_sub(looking),
            timeline,
            node_work: restore.work(),
            orchestration: between(restore.registered_at, in_service_at)
                .saturating_sub(restore.work() + looking),
        };
        Ok((next, replacement))
    }

    /// Waits until the replacement has reported its restore, with which it is not in service yet.
    async fn restored_node(&mut self, node: &Node) -> Result<Arc<Node>> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            // Asked before the report is. A sweep after the restore's end would find it, and answer the hook: what is at
            // rest now and has no report then has not begun.
            let members = self.story.standin.group(APPLICATION);
            let ids: Vec<&str> = members.iter().map(|one| one.id.as_str()).collect();
            let at_rest = self.story.standin.is_at_rest(&ids);
            for member in &members {
                if member.id == node.id() {
                    continue;
                }
                ensure!(
                    member.state != Lifecycle::InService,
                    "{} came into service before anybody could look at it",
                    member.id
                );
                if member.state == Lifecycle::PendingWait
                    && let Ok(next) = self.story.standin.node(&member.id)
                    && self.story.restore_of(&next).await.is_ok()
                {
                    return Ok(next);
                }
            }
            ensure!(
                std::time::Instant::now() < deadline,
                "no replacement was restored in {PATIENCE:?}: {members:?}"
            );
            // The restore waits for a sweep where its predecessor still ends.
            if at_rest {
                self.story.standin.sweep();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Does what users do, and notes what they would notice. The node is not in service, before and after.
    async fn look(&mut self, node: &Node, identity: &str) -> Result<()> {
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
                self.noticed.push(format!("{container} does not run"));
            }
        }
        let members = self.story.standin.group(APPLICATION);
        let state = members
            .iter()
            .find(|one| one.id == node.id())
            .map(|one| one.state);
        ensure!(
            state == Some(Lifecycle::PendingWait),
            "the replacement is {state:?}: the images were not pulled before it came into service"
        );
        Ok(())
    }

    fn restore_document(&self) -> Result<String> {
        let standin = &self.story.standin;
        let function = standin
            .functions()
            .find(|name| name.to_lowercase().contains("restore"));
        let environment = function.and_then(|function| standin.environment(function));
        environment
            .and_then(|environment| environment.get(shared::env::RESTORE_DOCUMENT))
            .cloned()
            .context("the restore document has no name")
    }
}
