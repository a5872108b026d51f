//! The descriptions of backups, and the application's state that records them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rekindle_node::restore::targets as configured;
use shared::aws::state::ApplicationState;
use shared::command::RestoreCommand;
use shared::id::ApplicationName;
use shared::layout::{self, BackupState};
use shared::manifest::{Index, MOST_IMAGES, Manifest, ObjectRecord};

use super::commands::accepts;
use super::names::{APPLICATION, BACKUP, RUN, assert_harmless, name};

/// The configured paths of the node that restores.
const CONFIGURED: [&str; 2] = ["/etc/app", "/srv/app"];

/// An accepted index names every object of its own attempt exactly once and no other, its dumps in order, and is restored
/// only to configured paths below the root.
pub(super) fn index(input: &[u8]) {
    let (application, backup, run) = (name(APPLICATION), name(BACKUP), name(RUN));
    let Ok(index) = Index::parse(input, &application, &backup, &run) else {
        return;
    };
    let prefix = layout::run_prefix(&application, &backup, &run);
    let expected: BTreeSet<String> = [layout::GLOBALS, layout::CONTENTS, layout::CONFIGURATION]
        .into_iter()
        .map(str::to_owned)
        .chain((0..index.databases.len()).map(layout::dump))
        .map(|name| format!("{prefix}{name}"))
        .collect();
    let listed: BTreeSet<String> = index.objects.iter().map(|it| it.key.clone()).collect();
    assert_eq!(listed, expected, "an index of other objects was accepted");
    assert_eq!(
        index.objects.len(),
        expected.len(),
        "an object is listed twice"
    );
    for (number, database) in index.databases.iter().enumerate() {
        assert_eq!(database.key, format!("{prefix}{}", layout::dump(number)));
    }
    index.objects.iter().for_each(assert_record);
    assert_images(&index);
    assert!(index.bytes() > 0);
    assert!(index.rows() >= index.databases.iter().map(|it| it.rows).max().unwrap_or(0));

    let written = serde_json::to_vec(&index).unwrap_or_default();
    let again = Index::parse(&written, &application, &backup, &run);
    assert_eq!(again.ok().as_ref(), Some(&index));

    let root = Path::new("/mnt/rescued");
    let settings = CONFIGURED.map(PathBuf::from);
    if let Ok(places) = configured::targets(root, &settings, &index.configuration_paths) {
        let allowed = ["/mnt/rescued/etc/app", "/mnt/rescued/srv/app"].map(PathBuf::from);
        assert!(
            places.iter().all(|place| allowed.contains(place)),
            "{places:?}"
        );
        let different: BTreeSet<&PathBuf> = places.iter().collect();
        assert_eq!(different.len(), places.len(), "{places:?}");
    }
}

/// Every image has the key of its id below the index's own application, exactly once, and the number of images is bounded.
fn assert_images(index: &Index) {
    let ids: BTreeSet<&str> = index.images.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids.len(), index.images.len(), "an image is listed twice");
    assert!(ids.len() <= MOST_IMAGES);
    for image in &index.images {
        let key = format!("backups/{}/images/{}.tar.zst", index.application, image.id);
        assert_eq!(image.object.key, key);
        assert_record(&image.object);
    }
}

/// An accepted manifest names objects of its own application only. The document accepts its candidate, and the agent reads
/// the same candidate.
pub(super) fn manifest(input: &[u8]) {
    let (application, backup): (ApplicationName, _) = (name(APPLICATION), name(BACKUP));
    let Ok(manifest) = Manifest::parse(input, &application, &backup) else {
        return;
    };
    let (index, own) = (&manifest.index, &manifest.index_object);
    let prefix = layout::run_prefix(&application, &backup, &index.run_id);
    assert_eq!(own.key, format!("{prefix}{}", layout::INDEX));
    assert_record(own);
    for record in &index.objects {
        assert!(record.key.starts_with(&prefix), "{record:?}");
        assert!(!record.key.contains("/../"), "{record:?}");
        assert_record(record);
    }
    assert_images(index);
    let candidate = manifest.candidate();
    let text = candidate.to_string();
    assert!(accepts("Candidates", &text), "the document refuses {text}");
    assert_eq!(RestoreCommand::parse_candidates(&text), Ok(vec![candidate]));

    let written = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    let again = Manifest::parse(&written, &application, &backup);
    assert_eq!(again.ok().as_ref(), Some(&manifest));
}

fn assert_record(record: &ObjectRecord) {
    assert!(record.size > 0, "{record:?}");
    if let Some(version) = &record.version_id {
        assert_harmless(version.trim_start_matches(['.', '-', '_']));
        assert!(version.len() <= 256, "{record:?}");
    }
}

/// For any listed key: the key of an attempt's object is below the attempt's prefix, and the key of a manifest is
/// built again from its backup.
pub(super) fn key(input: &[u8]) {
    let (application, key): (ApplicationName, _) =
        (name(APPLICATION), &*String::from_utf8_lossy(input));
    if let Some((backup, run)) = layout::run_of_object(&application, key) {
        assert!(
            key.starts_with(&layout::run_prefix(&application, &backup, &run)),
            "{key:?}"
        );
        assert!(
            key.starts_with(&layout::backup(&application, &backup)),
            "{key:?}"
        );
        assert!(key.starts_with("backups/dtr/"), "{key:?}");
    }
    if let Some(backup) = layout::backup_of_manifest(key) {
        assert_harmless(backup.as_str());
        for state in [BackupState::Committed, BackupState::Quarantined] {
            let built = state.manifest(&application, &backup);
            assert_eq!(layout::backup_of_manifest(&built).as_ref(), Some(&backup));
            assert!(built.starts_with(&state.prefix_of_day(&application, &backup.day())));
        }
    }
}

/// An accepted state that is written is read back unchanged.
pub(super) fn state(input: &[u8]) {
    let application = name(APPLICATION);
    let Ok(state) = ApplicationState::parse(&String::from_utf8_lossy(input), &application) else {
        return;
    };
    assert_harmless(state.first_backup.as_str());
    let written = serde_json::to_string(&state).unwrap_or_default();
    assert_eq!(
        ApplicationState::parse(&written, &application).ok(),
        Some(state)
    );
}
