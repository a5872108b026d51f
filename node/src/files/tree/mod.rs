//! Writes trees of files as one tar. GNU headers allow names of any length with any bytes; PAX records contain the
//! attributes for which the headers have no field. Entries are sorted by the bytes of their names, so that equal trees
//! make equal archives.

mod attributes;
mod content;

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use self::attributes::attributes;
use self::content::Content;
use crate::files::mounts::is_of_kernel;
use crate::files::{shown, unless_missing};

/// Why a tree could not be archived.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A file could not be read.
    #[error("cannot archive {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    /// A file changed while it was read, so that the archive would be incomplete.
    #[error(
        "cannot archive {0}: it was truncated or replaced while it was read; if this repeats, stop the program that rewrites it"
    )]
    Changed(String),
    /// A device, which a restore does not create.
    #[error("cannot archive {0}: it is a device; remove it, or configure only the paths beside it")]
    Device(String),
    /// The archive could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

type Result<T> = std::result::Result<T, CaptureError>;

/// The longest path that is archived, in bytes. The kernel's limit is 4,095, and the path in a staging directory is longer.
const LONGEST_PATH: usize = 4_000;

/// The name of the entry that contains a long name for the next entry.
const LONG_LINK: &[u8] = b"././@LongLink";

/// Archives every path, numbered from 0, with everything below it. Returns the number of entries.
pub fn write_tree(paths: &[PathBuf], writer: &mut dyn Write) -> Result<u64> {
    let mut tree = Tree {
        tar: Builder::new(writer),
        links: HashMap::new(),
        entries: 0,
    };
    for (number, path) in paths.iter().enumerate() {
        tree.path(path, number.to_string().into_bytes())?;
    }
    let writer = tree.tar.into_inner().map_err(CaptureError::Write)?;
    writer.flush().map_err(CaptureError::Write)?;
    Ok(tree.entries)
}

struct Tree<'w> {
    tar: Builder<&'w mut dyn Write>,
    /// The first name of every file with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
}

impl Tree<'_> {
    /// Archives a path and everything below it, each directory before its entries.
    fn path(&mut self, path: &Path, name: Vec<u8>) -> Result<()> {
        let configured = path;
        let mut waiting = vec![(path.to_owned(), name)];
        while let Some((path, name)) = waiting.pop() {
            if path != configured && path.as_os_str().len() > LONGEST_PATH {
                tracing::error!(
                    path = %shown(&path),
                    "left out of the backup: its path is longer than {LONGEST_PATH} bytes; shorten the names in it"
                );
                continue;
            }
            let Some(metadata) = unless_gone(&path, fs::symlink_metadata(&path))? else {
                if path == configured {
                    // An archive without this path could not be restored.
                    return Err(CaptureError::Changed(shown(&path)));
                }
                continue;
            };
            if !metadata.is_dir() {
                self.leaf(&path, &metadata, name)?;
                continue;
            }
            let mut directory_name = name.clone();
            directory_name.push(b'/');
            let kind = EntryType::Directory;
            self.append(&path, &metadata, kind, &directory_name, None, None)?;
            // `pop` returns the last one first.
            for child in children(&path)?.into_iter().rev() {
                let child_name = [&name[..], b"/", child.as_bytes()].concat();
                waiting.push((path.join(&child), child_name));
            }
        }
        Ok(())
    }

    /// Archives a path that is not a directory.
    fn leaf(&mut self, path: &Path, metadata: &Metadata, name: Vec<u8>) -> Result<()> {
        let kind = metadata.file_type();
        if kind.is_socket() {
            tracing::info!(path = %path.display(), "skipped a socket");
            return Ok(());
        }
        if kind.is_block_device() || kind.is_char_device() {
            return Err(CaptureError::Device(shown(path)));
        }
        let identity = (metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino()));
        let first = identity.and_then(|identity| self.links.get(&identity).cloned());
        if let Some(first) = first {
            return self.append(path, metadata, EntryType::Link, &name, Some(&first), None);
        }
        let archived = if kind.is_symlink() {
            self.symlink(path, metadata, &name)?
        } else if kind.is_fifo() {
            self.append(path, metadata, EntryType::Fifo, &name, None, None)?;
            true
        } else {
            self.file(path, &name)?
        };
        if let (Some(identity), true) = (identity, archived) {
            self.links.insert(identity, name);
        }
        Ok(())
    }

    /// Archives a symbolic link. Returns whether it still existed.
    fn symlink(&mut self, path: &Path, metadata: &Metadata, name: &[u8]) -> Result<bool> {
        let Some(target) = unless_gone(path, fs::read_link(path))? else {
            return Ok(false);
        };
        let target = Some(target.as_os_str().as_bytes());
        self.append(path, metadata, EntryType::Symlink, name, target, None)?;
        Ok(true)
    }

    /// Archives a file. Returns whether it still existed.
    fn file(&mut self, path: &Path, name: &[u8]) -> Result<bool> {
        // The path may have been replaced since its metadata were read. Opening a FIFO would block forever.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let opened = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path);
        let Some(file) = unless_gone(path, opened)? else {
            return Ok(false);
        };
        let unreadable = |source| unreadable(path, source);
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(CaptureError::Changed(shown(path)));
        }
        let mut content = Content::of(file, &metadata).map_err(unreadable)?;
        if content.ended_early {
            return Err(CaptureError::Changed(shown(path)));
        }
        let (kind, content) = (EntryType::Regular, &mut content);
        let appended = self.append(path, &metadata, kind, name, None, Some(content));
        if content.ended_early {
            return Err(CaptureError::Changed(shown(path)));
        }
        appended.map(|()| true)
    }

    fn append(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        kind: EntryType,
        name: &[u8],
        link: Option<&[u8]>,
        content: Option<&mut Content>,
    ) -> Result<()> {
        let mut records = attributes(path, metadata)?;
        records.extend(content.iter().flat_map(|content| content.records()));
        let records = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        self.tar
            .append_pax_extensions(records)
            .map_err(CaptureError::Write)?;

        let mut header = Header::new_gnu();
        self.set_name(&mut header, name, EntryType::GNULongName)?;
        if let Some(link) = link {
            self.set_name(&mut header, link, EntryType::GNULongLink)?;
        }
        header.set_entry_type(kind);
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(u64::from(metadata.uid()));
        header.set_gid(u64::from(metadata.gid()));
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        if content.as_ref().is_some_and(|content| content.has_holes())
            && let Some(gnu) = header.as_gnu_mut()
        {
            // GNU tar reads PAX records about holes only beside a POSIX header.
            (gnu.magic, gnu.version) = (*b"ustar\0", *b"00");
        }
        header.set_size(content.as_ref().map_or(0, |content| content.archived_size));
        header.set_cksum();
        match content {
            Some(content) => self.tar.append(&header, content),
            None => self.tar.append(&header, io::empty()),
        }
        .map_err(CaptureError::Write)?;
        self.entries += 1;
        Ok(())
    }

    /// Writes a name byte for byte. If the header has no room for it, it goes into an entry before this one.
    fn set_name(&mut self, header: &mut Header, name: &[u8], long: EntryType) -> Result<()> {
        let field = match header.as_gnu_mut() {
            Some(gnu) if long == EntryType::GNULongLink => &mut gnu.linkname,
            Some(gnu) => &mut gnu.name,
            None => return Ok(()),
        };
        if let Some(start) = field.get_mut(..name.len()) {
            start.copy_from_slice(name);
            return Ok(());
        }
        let mut longer = Header::new_gnu();
        if let Some(gnu) = longer.as_gnu_mut() {
            gnu.name[..LONG_LINK.len()].copy_from_slice(LONG_LINK);
        }
        longer.set_entry_type(long);
        longer.set_mode(0o644);
        longer.set_uid(0);
        longer.set_gid(0);
        longer.set_mtime(0);
        longer.set_size(name.len() as u64 + 1);
        longer.set_cksum();
        self.tar
            .append(&longer, name.chain(&b"\0"[..]))
            .map_err(CaptureError::Write)
    }
}

/// Returns the result, or `None` if the file no longer exists: temporary files disappear soon after they are listed.
fn unless_gone<T>(path: &Path, found: io::Result<T>) -> Result<Option<T>> {
    unless_missing(found).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> CaptureError {
    CaptureError::Read {
        path: shown(path),
        source,
    }
}

/// Returns the names in a directory, sorted by their bytes. The kernel's own file systems are archived as empty: their
/// files contain the state of a running machine.
fn children(path: &Path) -> Result<Vec<std::ffi::OsString>> {
    if unless_gone(path, is_of_kernel(path))? != Some(false) {
        return Ok(Vec::new());
    }
    let Some(listing) = unless_gone(path, fs::read_dir(path))? else {
        return Ok(Vec::new());
    };
    let names = listing.map(|entry| Ok(entry?.file_name()));
    let mut names: Vec<_> = names
        .collect::<io::Result<_>>()
        .map_err(|source| unreadable(path, source))?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
