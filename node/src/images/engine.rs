//! The node's container engine, through the `docker` command.

use std::time::Duration;

use shared::exit_code::ExitCode;
use shared::id::Sha256;

use crate::agent::failure::{OrFail as _, Result};
use crate::agent::process::Program;

/// The time limit of a `docker` command that loads or saves no image.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Returns the id of the image that a container was created from.
pub(super) async fn image_of(container: &str) -> Result<Sha256> {
    let format = ["--type", "container", "--format", "{{.Image}}"];
    let id = answer(docker(["inspect"]).args(format).arg(container)).await?;
    let id = id.trim();
    id.strip_prefix("sha256:")
        .unwrap_or(id)
        .parse()
        .or_fail(ExitCode::Internal, || {
            format!("cannot parse the image id that docker inspect {container} printed")
        })
}

/// Returns the names of an image, such as `registry:2`.
pub(super) async fn names_of(id: &Sha256) -> Result<Vec<String>> {
    let names = answer(inspect("{{json .RepoTags}}", &reference(id))).await?;
    let names: Option<Vec<String>> = serde_json::from_str(&names).or_fail(
        ExitCode::Internal,
        || "cannot parse the names that docker image inspect printed",
    )?;
    Ok(names.unwrap_or_default())
}

/// Returns whether the engine has an image, by its id or its name. An engine that does not answer is an error.
pub(super) async fn has_image(reference: &str) -> Result<bool> {
    match answer(inspect("{{.Id}}", reference)).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.chain().contains("No such image") => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Gives an image a name.
pub(super) async fn name(id: &Sha256, name: &str) -> Result<()> {
    answer(docker(["tag", &reference(id), name]))
        .await
        .map(drop)
}

/// Prepares the program that writes an image's archive to its standard output. The argument is the id, so that the
/// archive contains no names: a restore takes the names from the index.
pub(super) fn save(id: &Sha256) -> Program {
    docker(["save", &reference(id)])
}

/// Prepares the program that loads an archive from its standard input.
pub(super) fn load() -> Program {
    docker(["load", "--quiet"])
}

/// Returns how the engine refers to an image by its id.
pub(super) fn reference(id: &Sha256) -> String {
    format!("sha256:{id}")
}

fn inspect(format: &str, reference: &str) -> Program {
    docker(["image", "inspect", "--format", format, reference]).quiet()
}

/// Prepares a docker command. Failures and the log call it by its first argument, as in `docker load`.
fn docker<const N: usize>(arguments: [&str; N]) -> Program {
    let label = format!("docker {}", arguments.first().unwrap_or(&""));
    Program::new("docker").label(label).args(arguments)
}

async fn answer(program: Program) -> Result<String> {
    let output = program.limit(ANSWER_LIMIT).output(ExitCode::Internal);
    Ok(String::from_utf8_lossy(&output.await?).into_owned())
}
