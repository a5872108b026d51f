//! Deploys the template: functions with the agent's layer, permissions and hooks.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use shared::checksum::digests;

use crate::standin::autoscaling::{Hook, HookResult, Transition};
use crate::standin::lambda::Function;
use crate::standin::s3::{Permissions, S3, SECRET_KEY};
use crate::standin::template::{FunctionSpec, HookSpec, Template};

/// The most processes of a function at a time.
const CONCURRENCY: usize = 10;

/// The paths of the shipped programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The directory with the functions' binaries.
    pub functions: PathBuf,
    /// The path of the agent.
    pub agent: PathBuf,
}

impl Binaries {
    /// Finds the programs: the packages in the directory `$REKINDLE_PACKAGES`, or else the programs of this build.
    pub fn find() -> Result<Self> {
        let packages = std::env::vars_os().find(|(name, _)| name == "REKINDLE_PACKAGES");
        match packages {
            Some((_, directory)) => Self::packaged(Path::new(&directory)),
            None => Self::of_this_build(),
        }
    }

    /// Finds the packages that `make package` or `sam build` wrote.
    fn packaged(directory: &Path) -> Result<Self> {
        let layers = ["agent", "AgentLayer"].map(|layer| directory.join(layer));
        let agent = layers.map(|layer| layer.join("rekindle-node"));
        let agent = agent.into_iter().find(|agent| agent.is_file());
        Ok(Self {
            functions: directory.to_owned(),
            agent: agent.with_context(|| format!("no agent in {}", directory.display()))?,
        })
    }

    /// Returns the path of a function's binary, in a build or in a package.
    pub fn function(&self, name: &str) -> Result<PathBuf> {
        let (first, rest) = name.split_at(1);
        let logical_name = format!("{}{rest}Function", first.to_uppercase());
        let candidates = [
            PathBuf::from(name),
            Path::new(name).join("bootstrap"),
            Path::new(&logical_name).join("bootstrap"),
        ];
        let candidates = candidates.map(|path| self.functions.join(path));
        candidates
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| {
                format!(
                    "{name} is not in {}: run `cargo build --workspace` first",
                    self.functions.display()
                )
            })
    }

    /// Finds the programs of this build: next to this program, or one directory up for tests.
    fn of_this_build() -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let directory = program
            .ancestors()
            .skip(1)
            .find(|directory| directory.join("rekindle-node").is_file());
        let directory = directory.with_context(|| {
            format!(
                "rekindle-node is not built beside {}: run `cargo build --workspace` first",
                program.display()
            )
        })?;
        Ok(Self {
            functions: directory.to_owned(),
            agent: directory.join("rekindle-node"),
        })
    }
}

/// Writes the files of the functions' layer into a directory. Returns the path of the agent in it.
pub(super) fn publish_layer(agent: &Path, layer: &Path) -> Result<PathBuf> {
    let bytes = std::fs::read(agent).with_context(|| format!("read {}", agent.display()))?;
    std::fs::create_dir_all(layer).with_context(|| format!("create {}", layer.display()))?;
    let path = layer.join("rekindle-node");
    std::fs::write(&path, &bytes).with_context(|| format!("write {}", path.display()))?;
    // As layer/Makefile does, so that cold starts do not hash the agent.
    let recorded = format!("{}  rekindle-node\n", digests(&bytes).sha256);
    let beside = layer.join("rekindle-node.sha256");
    std::fs::write(&beside, recorded).with_context(|| format!("write {}", beside.display()))?;
    Ok(path)
}

/// Returns a function of the template as Lambda runs it. Its access key is its logical id.
pub(super) fn function(
    spec: &FunctionSpec,
    binaries: &Binaries,
    agent: &Path,
    endpoint: &str,
    region: &str,
) -> Result<Function> {
    let binary = binaries.function(&spec.binary)?;
    let mut environment = spec.environment.clone();
    for (name, value) in [
        (shared::function::env::AGENT, agent.display().to_string()),
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_REGION", region.to_owned()),
        ("AWS_ACCESS_KEY_ID", spec.logical_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ] {
        environment.insert(name.to_owned(), value);
    }
    Ok(Function {
        name: spec.name.clone(),
        binary,
        environment,
        timeout: spec.timeout,
        memory_mb: spec.memory_mb,
        concurrency: CONCURRENCY,
        retries: spec.retries,
        max_event_age: spec.max_event_age,
    })
}

/// Restricts the functions to the S3 permissions of their roles.
pub(super) fn restrict_functions(s3: &S3, template: &Template) -> Result<()> {
    for function in &template.functions {
        if let Some(role) = &function.role {
            s3.restrict(&function.logical_id, permissions(template, role)?);
        }
    }
    Ok(())
}

/// Restricts the nodes of an application to the S3 permissions of their role. Returns their access key.
pub(super) fn restrict_nodes(s3: &S3, template: &Template, application: &str) -> Result<String> {
    let access_key = format!("NODE-{application}");
    s3.restrict(&access_key, permissions(template, "NodeRole")?);
    Ok(access_key)
}

fn permissions(template: &Template, role: &str) -> Result<Permissions> {
    let resource = template.resources.get(role);
    let resource = resource.with_context(|| format!("the template has no role {role}"))?;
    Permissions::of_role(resource).with_context(|| format!("in {role}"))
}

/// Returns the template's hooks, or hooks with the timeouts of `budget` if the template has none.
pub(super) fn hooks(specs: &[HookSpec]) -> Result<Vec<Hook>> {
    let refused = |error: crate::standin::fault::ApiError| {
        anyhow::anyhow!("template.yaml: {}", error.message)
    };
    if specs.is_empty() {
        let hook = |name: &str, transition, heartbeat_timeout, default_result| Hook {
            name: name.to_owned(),
            transition,
            heartbeat_timeout,
            default_result,
            metadata: None,
        };
        return Ok(vec![
            hook(
                "rekindle-launch",
                Transition::Launching,
                shared::budget::LAUNCH_HEARTBEAT,
                HookResult::Abandon,
            ),
            hook(
                "rekindle-terminate",
                Transition::Terminating,
                shared::budget::TERMINATE_HEARTBEAT,
                HookResult::Continue,
            ),
        ]);
    }
    let hooks = specs.iter().map(|spec| {
        Ok(Hook {
            name: spec.name.clone(),
            transition: Transition::parse(&spec.transition).map_err(refused)?,
            heartbeat_timeout: u32::try_from(spec.heartbeat.as_secs())
                .context("a hook's HeartbeatTimeout")?,
            default_result: HookResult::parse(&spec.default_result).map_err(refused)?,
            metadata: None,
        })
    });
    hooks.collect()
}
