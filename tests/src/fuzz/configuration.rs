//! The archive of the configuration, unpacked beside a file that it must not reach.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rekindle_node::files::tree::write_tree;
use rekindle_node::restore::unpack::{Places, UnpackError, unpack};

const BLOCK: usize = 512;

/// For any archive: unpacking it changes nothing outside the target folder and creates no device. An archive of
/// the unpacked files unpacks to the same files.
pub(super) fn configuration(input: &[u8]) {
    let sandbox = prepared(tempfile::tempdir());
    let at = |name: &str| sandbox.path().join(name);
    prepared(fs::create_dir(at("outside")));
    prepared(fs::create_dir(at("staging")));
    prepared(fs::write(at("outside/secret"), "untouched"));
    let before = prepared(fs::symlink_metadata(at("outside/secret")));

    let targets = [at("staging/0"), at("staging/1")];
    let unpacked = unpack(&with_checksums(input)[..], &places(&targets));

    assert_eq!(names(sandbox.path()), ["outside", "staging"]);
    assert_eq!(names(&at("outside")), ["secret"]);
    let after = prepared(fs::symlink_metadata(at("outside/secret")));
    assert_eq!(
        identity(&after),
        identity(&before),
        "the file outside was touched"
    );
    assert_eq!(prepared(fs::read(at("outside/secret"))), b"untouched");
    let staged = names(&at("staging"));
    assert!(
        staged.iter().all(|name| name == "0" || name == "1"),
        "{staged:?}"
    );
    no_devices(&at("staging"));

    match unpacked {
        Ok(()) => {
            assert_eq!(staged.len(), 2, "a configured path is missing");
            unpacks_to_the_same(&targets, &at("staging"));
        }
        // The folder is new, so that an existing file there comes from the archive itself.
        Err(UnpackError::Write { source, path }) => {
            assert_ne!(source.kind(), io::ErrorKind::AlreadyExists, "{path}");
        }
        Err(UnpackError::Archive(_) | UnpackError::Read(_)) => {}
    }
}

fn prepared<T>(made: io::Result<T>) -> T {
    made.unwrap_or_else(|error| unreachable!("the temporary folder: {error}"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = prepared(fs::read_dir(folder));
    let mut names: Vec<String> = entries
        .map(|entry| prepared(entry).file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn places(targets: &[PathBuf]) -> Places {
    let numbered = targets.iter().enumerate();
    numbered
        .map(|(number, target)| (number.to_string().into(), target.clone()))
        .collect()
}

fn identity(metadata: &Metadata) -> [u64; 7] {
    [
        metadata.ino(),
        metadata.nlink(),
        u64::from(metadata.mode()),
        u64::from(metadata.uid()),
        u64::from(metadata.gid()),
        metadata.size(),
        metadata.mtime().cast_unsigned(),
    ]
}

fn no_devices(folder: &Path) {
    // A user other than root may not read every unpacked folder.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = prepared(entry);
        let kind = prepared(entry.file_type());
        let device = kind.is_block_device() || kind.is_char_device() || kind.is_socket();
        assert!(!device, "{} is a device", entry.path().display());
        if kind.is_dir() {
            no_devices(&entry.path());
        }
    }
}

fn unpacks_to_the_same(targets: &[PathBuf], staging: &Path) {
    let mut first = Vec::new();
    if write_tree(targets, &mut first).is_err() {
        return;
    }
    let again = ["again 0", "again 1"].map(|name| staging.join(name));
    let unpacked = unpack(&first[..], &places(&again));
    assert!(
        unpacked.is_ok(),
        "the written archive is not read: {unpacked:?}"
    );
    let mut second = Vec::new();
    let written = write_tree(&again, &mut second);
    assert!(written.is_ok() && first == second, "{written:?}");
}

/// Corrects the checksum of every header, so that a changed header is not refused for its checksum.
fn with_checksums(input: &[u8]) -> Vec<u8> {
    let mut archive = input.to_vec();
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&block[124..135]).unwrap_or_default();
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        at = at.saturating_add(size.div_ceil(BLOCK) * BLOCK);
    }
    archive
}
