//! Reads the archive that `docker save` writes, and compares it with the image's id.
//!
//! An id is the digest of the image's configuration, which contains the digests of all layers. Therefore the archive
//! itself proves that it is complete and that it contains this image. Engines before version 25 write a folder for each
//! layer. Later engines write one folder of blobs, and the name of a blob is its digest. If they keep images in
//! containerd, the id is the digest of a blob.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use shared::checksum::ObjectDigest;
use shared::id::Sha256;
use tar::{Archive, EntryType};

use crate::chunks::next_chunk;

/// The largest file that is kept in memory, in bytes: a configuration or a manifest.
const MOST_DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;
/// The most files of an archive: an image has at most some hundred layers.
const MOST_FILES: usize = 10_000;
/// The most zero bytes after the end: archives are padded to a multiple of a block.
const MOST_PADDING: u64 = 1024 * 1024;
/// The file that lists the image's configuration and layers.
const MANIFEST: &str = "manifest.json";
/// The folder of blobs. The name of a file in it is its digest.
const BLOBS: &str = "blobs/sha256/";

/// A file of the archive.
enum File {
    Plain {
        digest: Sha256,
        document: Option<Vec<u8>>,
    },
    /// A link to another file of the archive, in place of a layer that exists already.
    Link(PathBuf),
}

/// One image in the archive's manifest.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestEntry {
    config: String,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Configuration {
    rootfs: Layers,
}

#[derive(Deserialize)]
struct Layers {
    diff_ids: Vec<String>,
}

/// Reads an archive to its end, and checks that it contains the complete image with this id and no other image. `Err`
/// is the problem.
pub fn verify(reader: &mut dyn Read, id: &Sha256) -> Result<(), String> {
    let files = read(reader)?;
    let manifest = document(&files, MANIFEST)?;
    let images: Vec<ManifestEntry> =
        serde_json::from_slice(manifest).map_err(|error| format!("{MANIFEST}: {error}"))?;
    let [image] = images.as_slice() else {
        return Err(format!(
            "it contains {} images instead of one",
            images.len()
        ));
    };
    let configuration = digest(&files, &image.config)?;
    let is_blob = is_named_by(&image.config, configuration)
        && digest(&files, &format!("{BLOBS}{id}")).is_ok_and(|digest| digest == id);
    if configuration != id && !is_blob {
        return Err(format!("it contains the image {configuration}"));
    }
    let configuration: Configuration = serde_json::from_slice(document(&files, &image.config)?)
        .map_err(|error| format!("{}: {error}", image.config))?;
    let expected = &configuration.rootfs.diff_ids;
    if expected.len() != image.layers.len() {
        let (found, expected) = (image.layers.len(), expected.len());
        return Err(format!("it has {found} layers instead of {expected}"));
    }
    for (layer, expected) in image.layers.iter().zip(expected) {
        let found = digest(&files, layer)?;
        // A blob may be compressed. Its digest is then not the one of the layer.
        if expected.strip_prefix("sha256:") != Some(found.as_str()) && !is_named_by(layer, found) {
            return Err(format!(
                "{layer} has the digest {found} instead of {expected}"
            ));
        }
    }
    Ok(())
}

fn is_named_by(name: &str, digest: &Sha256) -> bool {
    name.strip_prefix(BLOBS) == Some(digest.as_str())
}

fn read(reader: &mut dyn Read) -> Result<BTreeMap<PathBuf, File>, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut files = BTreeMap::new();
    let mut archive = Archive::new(reader);
    for entry in archive.entries().map_err(text)? {
        let mut entry = entry.map_err(text)?;
        let path = entry.path().map_err(text)?.into_owned();
        let file = match entry.header().entry_type() {
            EntryType::Regular => plain(&mut entry).map_err(text)?,
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name().map_err(text)?.unwrap_or_default();
                File::Link(match entry.header().entry_type() {
                    EntryType::Link => target.into_owned(),
                    _ => link_target(&path, &target),
                })
            }
            _ => continue,
        };
        files.insert(path, file);
        if files.len() > MOST_FILES {
            return Err(format!("it contains more than {MOST_FILES} files"));
        }
    }
    let mut rest = Vec::new();
    let reader = archive.into_inner();
    reader
        .take(MOST_PADDING + 1)
        .read_to_end(&mut rest)
        .map_err(text)?;
    if rest.len() as u64 > MOST_PADDING || rest.iter().any(|byte| *byte != 0) {
        return Err("bytes follow its end".to_owned());
    }
    Ok(files)
}

fn plain(entry: &mut impl Read) -> std::io::Result<File> {
    let (mut digest, mut document) = (ObjectDigest::new(), Some(Vec::new()));
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    while let Some(chunk) = next_chunk(entry, &mut buffer)? {
        size += chunk.len() as u64;
        digest.update(chunk);
        match &mut document {
            Some(kept) if size <= MOST_DOCUMENT_BYTES => kept.extend_from_slice(chunk),
            _ => document = None,
        }
    }
    Ok(File::Plain {
        digest: digest.finish().sha256,
        document,
    })
}

/// Returns the path that a symbolic link at `path` points to, without looking at any file.
fn link_target(path: &Path, target: &Path) -> PathBuf {
    let mut resolved = path.parent().unwrap_or(Path::new("")).to_owned();
    for part in target.components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            Component::Normal(name) => resolved.push(name),
            _ => {}
        }
    }
    resolved
}

fn find<'f>(files: &'f BTreeMap<PathBuf, File>, name: &str) -> Result<&'f File, String> {
    let mut found = files.get(Path::new(name));
    // No engine writes a link to a link.
    if let Some(File::Link(target)) = found {
        found = files.get(target);
    }
    found.ok_or_else(|| format!("it does not contain {name}"))
}

fn digest<'f>(files: &'f BTreeMap<PathBuf, File>, name: &str) -> Result<&'f Sha256, String> {
    match find(files, name)? {
        File::Plain { digest, .. } => Ok(digest),
        File::Link(_) => Err(format!("{name} is a link to a link")),
    }
}

fn document<'f>(files: &'f BTreeMap<PathBuf, File>, name: &str) -> Result<&'f [u8], String> {
    match find(files, name)? {
        File::Plain {
            document: Some(document),
            ..
        } => Ok(document),
        _ => Err(format!("{name} is larger than {MOST_DOCUMENT_BYTES} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shared::checksum::digests;

    const LAYER: &[u8] = b"a layer";

    fn sha256(bytes: &[u8]) -> Sha256 {
        digests(bytes).sha256
    }

    fn configuration() -> Vec<u8> {
        let layer = format!("sha256:{}", sha256(LAYER));
        json!({"rootfs": {"type": "layers", "diff_ids": [layer, layer]}})
            .to_string()
            .into_bytes()
    }

    fn archive(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        for (path, target) in links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, path, target).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Makes an archive as an engine of version 20 does. The second layer is the same, so it is a link.
    fn saved(configuration: &[u8], layer: &[u8]) -> Vec<u8> {
        let config = format!("{}.json", sha256(configuration));
        let manifest =
            json!([{"Config": config, "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"]}]);
        let manifest = manifest.to_string();
        archive(
            &[
                (&config, configuration),
                ("a/layer.tar", layer),
                (MANIFEST, manifest.as_bytes()),
            ],
            &[("b/layer.tar", "../a/layer.tar")],
        )
    }

    #[test]
    fn only_the_complete_image_with_the_id_is_accepted() {
        let configuration = configuration();
        let (id, whole) = (sha256(&configuration), saved(&configuration, LAYER));
        assert_eq!(verify(&mut &whole[..], &id), Ok(()));
        let other = verify(&mut &whole[..], &sha256(b"another")).unwrap_err();
        assert_eq!(other, format!("it contains the image {id}"));
        let changed = verify(&mut &saved(&configuration, b"A layer")[..], &id).unwrap_err();
        assert!(
            changed.starts_with("a/layer.tar has the digest"),
            "{changed}"
        );
        let padded = [&whole[..], &[0; 8192]].concat();
        assert_eq!(verify(&mut &padded[..], &id), Ok(()));
        let followed = [&whole[..], &whole[..]].concat();
        assert_eq!(
            verify(&mut &followed[..], &id),
            Err("bytes follow its end".to_owned())
        );
        for length in [0, 1, 511, 700, whole.len() / 2] {
            assert!(verify(&mut &whole[..length], &id).is_err(), "{length}");
        }
    }

    #[test]
    fn blobs_are_checked_by_their_names() {
        let (configuration, compressed) = (configuration(), b"compressed");
        let config = format!("{BLOBS}{}", sha256(&configuration));
        let layer = format!("{BLOBS}{}", sha256(compressed));
        let blob = b"{\"manifests\": []}";
        let (id, of_id) = (sha256(blob), format!("{BLOBS}{}", sha256(blob)));
        let manifest = json!([{"Config": config, "Layers": [layer, layer]}]).to_string();
        let with = |layer: &str, bytes: &[u8]| {
            let files = [
                (config.as_str(), configuration.as_slice()),
                (layer, bytes),
                (&of_id, blob),
                (MANIFEST, manifest.as_bytes()),
            ];
            archive(&files, &[])
        };
        assert_eq!(verify(&mut &with(&layer, compressed)[..], &id), Ok(()));
        assert!(verify(&mut &with(&layer, b"something else")[..], &id).is_err());
        let unknown = verify(&mut &with(&layer, compressed)[..], &sha256(b"x"));
        assert!(unknown.unwrap_err().starts_with("it contains the image"));
    }
}
