//! The targets of a backup's configuration on this node: only configured paths, each once, below the node's root,
//! whatever paths the backup's index contains.

use std::path::{Path, PathBuf};

use shared::exit_code::ExitCode;

use crate::agent::failure::{Failure, Result};
use crate::files::on_node;

/// Returns the target on this node of each `archived` path of a backup, in their order.
pub fn targets(root: &Path, configured: &[PathBuf], archived: &[String]) -> Result<Vec<PathBuf>> {
    let configured_path = |path: &String| configured.iter().find(|one| **one == Path::new(path));
    let unknown: Vec<&String> = archived
        .iter()
        .filter(|path| configured_path(path).is_none())
        .collect();
    if !unknown.is_empty() {
        let message = format!(
            "cannot restore the configuration: the backup contains {unknown:?}, but the settings contain only {configured:?}; \
             add the missing paths to [configuration] paths"
        );
        return Err(Failure::new(ExitCode::ConfigurationRestore, message));
    }
    let mut targets: Vec<PathBuf> = Vec::new();
    for path in archived.iter().filter_map(configured_path) {
        // `path` is spelled as in the settings: an index may contain `//etc/app`, which is an equal path.
        let target = on_node(root, path);
        if targets.contains(&target) {
            let message = format!(
                "the backup's index contains the path {} twice; restore another backup",
                path.display()
            );
            return Err(Failure::new(ExitCode::Verification, message));
        }
        targets.push(target);
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_below_the_root_whatever_the_index_contains() {
        let root = Path::new("/mnt/rescued");
        let configured = ["/etc/app", "/srv/app"].map(PathBuf::from);
        let targets_of = |archived: &[&str]| {
            let archived: Vec<String> = archived.iter().map(ToString::to_string).collect();
            targets(root, &configured, &archived).map_err(|failure| failure.code)
        };
        let expected = ["/mnt/rescued/srv/app", "/mnt/rescued/etc/app"].map(PathBuf::from);
        assert_eq!(
            targets_of(&["/srv/app", "//etc/./app/"]),
            Ok(expected.to_vec())
        );
        for unknown in ["/etc", "etc/app", "/etc/app/../shadow", "/etc/app/x", ""] {
            let refused = targets_of(&["/srv/app", unknown]);
            assert_eq!(refused, Err(ExitCode::ConfigurationRestore), "{unknown}");
        }
        let twice = targets_of(&["/etc/app", "/etc//app"]);
        assert_eq!(twice, Err(ExitCode::Verification));
    }
}
