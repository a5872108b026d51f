//! The archive of an image: anybody who may write one to the bucket may write anything.

use std::io::Read as _;

use rekindle_node::images::archive as image_archive;
use shared::checksum::digests;
use shared::id::Sha256;

use super::names::name;

/// The image of the corpus.
const ID: &str = "7561409900b6798cbde00e073764874ad2a9b22917aac08c5ea46a3cfb9f3bdb";

/// An accepted archive has a file whose digest is the image's id. That file names the digest of every other part.
pub(super) fn image(input: &[u8]) {
    let id: Sha256 = name(ID);
    if image_archive::verify(&mut &input[..], &id).is_err() {
        return;
    }
    let mut archive = tar::Archive::new(input);
    let mut entries = archive.entries().into_iter().flatten().flatten();
    let is_config = |mut entry: tar::Entry<'_, &[u8]>| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).is_ok() && digests(&bytes).sha256 == id
    };
    assert!(
        entries.any(is_config),
        "an archive without the image was accepted"
    );
}
