//! Where a backup's configuration goes on this node: only to paths that the settings name, each once, and below the
//! node's root, whatever the backup's index calls them.

use std::path::{Path, PathBuf};

use shared::report::ExitCode;

use crate::agent::failure::{Failure, Result};
use crate::backup::configuration::on_node;

/// Returns where each of the `archived` paths of a backup goes, in their order.
pub fn places(root: &Path, configured: &[PathBuf], archived: &[String]) -> Result<Vec<PathBuf>> {
    let named = |path: &String| configured.iter().find(|one| **one == Path::new(path));
    let alien: Vec<&String> = archived
        .iter()
        .filter(|path| named(path).is_none())
        .collect();
    if !alien.is_empty() {
        let message = format!(
            "the backup holds the configuration of {alien:?} too, and the settings name {configured:?} alone: add to \
             [configuration] paths what the application had when it was backed up"
        );
        return Err(Failure::new(ExitCode::ConfigurationRestore, message));
    }
    let mut places: Vec<PathBuf> = Vec::new();
    for path in archived.iter().filter_map(named) {
        // The settings' own spelling: an index may write `//etc/app`, which equals it.
        let place = on_node(root, path);
        if places.contains(&place) {
            let message = format!("the backup's index names {} twice", path.display());
            return Err(Failure::new(ExitCode::Verification, message));
        }
        places.push(place);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_below_the_root_however_the_index_writes_it() {
        let root = Path::new("/mnt/rescued");
        let configured = ["/etc/app", "/srv/app"].map(PathBuf::from);
        let places = |archived: &[&str]| {
            let archived: Vec<String> = archived.iter().map(ToString::to_string).collect();
            places(root, &configured, &archived).map_err(|failure| failure.code)
        };
        let expected = ["/mnt/rescued/srv/app", "/mnt/rescued/etc/app"].map(PathBuf::from);
        assert_eq!(places(&["/srv/app", "//etc/./app/"]), Ok(expected.to_vec()));
        for alien in ["/etc", "etc/app", "/etc/app/../shadow", "/etc/app/x", ""] {
            let refused = places(&["/srv/app", alien]);
            assert_eq!(refused, Err(ExitCode::ConfigurationRestore), "{alien}");
        }
        let twice = places(&["/etc/app", "/etc//app"]);
        assert_eq!(twice, Err(ExitCode::Verification));
    }
}
