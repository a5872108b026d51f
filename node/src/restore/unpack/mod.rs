//! Unpacks a configuration archive into staging directories.
//!
//! The archive is not trusted: every entry must be in a directory that the same archive created, so that neither `..`
//! nor a symbolic link leads anywhere else.

mod attributes;
mod disk;
mod error;
mod headers;
mod sparse;
mod writers;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode};
use tar::{Entry, EntryType};

use self::attributes::Attributes;
use self::disk::{Disks, Meter};
use self::error::Result;
use self::headers::{Described, long_name, records};
use self::writers::{SMALL, SmallFile, Writers};
use crate::chunks::{CHUNK, next_chunk};
use crate::files::{create_private_directory, create_private_file, flags, shown};

pub use self::error::UnpackError;

/// The paths to which entries are unpacked, by the name of the entry. An entry below a name is unpacked below its path.
pub type Places = BTreeMap<PathBuf, PathBuf>;

/// Unpacks a tar to these places. Reads to the archive's end.
///
/// No place may exist before. Afterwards the place of each configured path exists, and everything is on the disk.
pub fn unpack(reader: impl Read, places: &Places) -> Result<()> {
    let disks = Disks::open(places.values())?;
    let is_root = rustix::process::geteuid().is_root();
    let unpacked = disks.while_flushing(|meter| {
        writers::with_writers(is_root, |writers| {
            entries(reader, places, is_root, Output { meter, writers })
        })
    })?;
    unpacked.finish()?;
    disks.flush()?;
    unpacked.check_flushed()
}

fn entries<'p>(
    reader: impl Read,
    places: &'p Places,
    is_root: bool,
    output: Output<'_>,
) -> Result<Unpacking<'p>> {
    let mut archive = tar::Archive::new(reader);
    let mut unpacking = Unpacking {
        places,
        created: BTreeMap::new(),
        directories: Vec::new(),
        flags: Vec::new(),
        is_root,
    };
    let mut next = Described::default();
    // Raw entries, because the library's own reader splits the values of attributes at newlines.
    for entry in archive.entries().map_err(UnpackError::Read)?.raw(true) {
        let mut entry = entry.map_err(UnpackError::Read)?;
        match entry.header().entry_type() {
            EntryType::XHeader => next.records = records(&headers::content(&mut entry)?)?,
            EntryType::GNULongName => next.name = Some(long_name(&mut entry)?),
            EntryType::GNULongLink => next.link = Some(long_name(&mut entry)?),
            _ => unpacking.entry(&mut entry, std::mem::take(&mut next), output)?,
        }
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(UnpackError::Read)?;
    output.writers.finish()?;
    Ok(unpacking)
}

/// The threads that write small files and flush the disks, while this one decodes.
#[derive(Clone, Copy)]
struct Output<'o> {
    meter: &'o Meter,
    writers: &'o Writers,
}

/// The kind of an entry that was created.
#[derive(Debug, PartialEq, Eq)]
enum Created {
    Directory,
    File,
    Other,
}

struct Unpacking<'p> {
    places: &'p Places,
    /// Every entry of this archive that was created, by its name.
    created: BTreeMap<PathBuf, Created>,
    /// The attributes of directories. They are set after all entries of the directory are created.
    directories: Vec<(PathBuf, Attributes)>,
    /// The files and directories with flags. They are set at the end: an immutable file cannot be linked, for example.
    flags: Vec<(PathBuf, IFlags)>,
    is_root: bool,
}

impl Unpacking<'_> {
    /// Creates one entry.
    fn entry(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        described: Described,
        output: Output<'_>,
    ) -> Result<()> {
        let name = described
            .name
            .unwrap_or_else(|| entry.path_bytes().into_owned());
        let (name, path) = self.checked_name(&name)?;
        self.check_place(&name)?;
        let link = described
            .link
            .or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned));
        let link = || link.ok_or_else(|| UnpackError::refused(&name, "links to nothing"));
        let attributes = Attributes::of(entry, &described.records)?;
        let kind = entry.header().entry_type();
        let has_flags = kind == EntryType::Directory || kind == EntryType::Regular;
        if has_flags && !attributes.flags.is_empty() {
            self.flags.push((path.clone(), attributes.flags));
        }
        let created = match kind {
            EntryType::Directory => self.directory(path, attributes)?,
            EntryType::Regular | EntryType::Continuous => {
                let real_size = sparse::real_size(&described.records);
                let file = (&*name, path, attributes);
                let written = write(entry, file, real_size, self.is_root, output)?;
                if written != entry.size() {
                    return Err(UnpackError::refused(&name, "ends early"));
                }
                Created::File
            }
            EntryType::Link => self.hard_link(&name, &path, &link()?, output.writers)?,
            EntryType::Symlink => self.symbolic_link(&path, &link()?, &attributes)?,
            EntryType::Fifo => self.fifo(&path, &attributes)?,
            other => {
                let problem = format!("is of type {other:?}, which is never restored");
                return Err(UnpackError::refused(&name, &problem));
            }
        };
        self.created.insert(name, created);
        Ok(())
    }

    /// Parses a name: the number of a configured path, then plain names. Returns it with its path on the node.
    fn checked_name(&self, name: &[u8]) -> Result<(PathBuf, PathBuf)> {
        let path = Path::new(OsStr::from_bytes(name));
        let plain = path
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        if !plain || name.contains(&0) {
            return Err(UnpackError::refused(
                path,
                "leads out of the configured paths",
            ));
        }
        let name: PathBuf = path.components().collect();
        let path = self.path(&name)?;
        Ok((name, path))
    }

    /// Checks that the entry's parent is a directory of this archive, and that the entry does not exist yet.
    fn check_place(&self, name: &Path) -> Result<()> {
        let parent = name
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent
            && self.created.get(parent) != Some(&Created::Directory)
        {
            return Err(UnpackError::refused(
                name,
                "is not in a directory of the archive",
            ));
        }
        if self.created.contains_key(name) {
            return Err(UnpackError::refused(name, "is in the archive twice"));
        }
        Ok(())
    }

    /// Returns the path to which an entry is unpacked.
    fn path(&self, name: &Path) -> Result<PathBuf> {
        let mut places = name
            .ancestors()
            .filter_map(|ancestor| Some((self.places.get(ancestor)?, ancestor)));
        let (place, ancestor) = places
            .next()
            .ok_or_else(|| UnpackError::refused(name, "belongs to no configured path"))?;
        Ok(match name.strip_prefix(ancestor) {
            Ok(below) if !below.as_os_str().is_empty() => place.join(below),
            _ => place.clone(),
        })
    }

    fn directory(&mut self, path: PathBuf, attributes: Attributes) -> Result<Created> {
        // No access for others until it is complete.
        create_private_directory(&path).map_err(|source| UnpackError::write(&path, source))?;
        self.directories.push((path, attributes));
        Ok(Created::Directory)
    }

    fn hard_link(
        &self,
        name: &Path,
        path: &Path,
        target: &[u8],
        writers: &Writers,
    ) -> Result<Created> {
        let (target, target_path) = self.checked_name(target)?;
        if !matches!(
            self.created.get(&target),
            Some(Created::File | Created::Other)
        ) {
            return Err(UnpackError::refused(
                name,
                "links to a file that is not in the archive",
            ));
        }
        // The target may be a small file that is not written yet.
        writers.finish()?;
        rustix::fs::linkat(CWD, &target_path, CWD, path, AtFlags::empty())
            .map_err(|errno| UnpackError::write(path, errno))?;
        Ok(Created::Other)
    }

    fn symbolic_link(
        &self,
        path: &Path,
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<Created> {
        std::os::unix::fs::symlink(OsStr::from_bytes(target), path)
            .and_then(|()| attributes.apply_to_link(path, self.is_root))
            .map_err(|source| UnpackError::write(path, source))?;
        Ok(Created::Other)
    }

    fn fifo(&self, path: &Path, attributes: &Attributes) -> Result<Created> {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0)
            .map_err(|errno| UnpackError::write(path, errno))?;
        attributes
            .apply(path, self.is_root)
            .map_err(|source| UnpackError::write(path, source))?;
        Ok(Created::Other)
    }

    /// Checks that every configured path was created, and sets the attributes of the directories, then all flags.
    fn finish(&self) -> Result<()> {
        let configured = |name: &&PathBuf| name.components().count() == 1;
        let mut configured = self.places.keys().filter(configured);
        if let Some(missing) = configured.find(|name| !self.created.contains_key(*name)) {
            let problem = format!("has nothing of the configured path {}", missing.display());
            return Err(UnpackError::Archive(problem));
        }
        // The inner directories first: setting their attributes changes the directory around them.
        for (path, attributes) in self.directories.iter().rev() {
            attributes
                .apply(path, self.is_root)
                .map_err(|source| UnpackError::write(path, source))?;
        }
        for (path, wanted) in &self.flags {
            if let Err(error) = flags::set(path, *wanted) {
                // The new node's file system has no flags, or the agent may not set them.
                let flags = flags::to_text(*wanted);
                tracing::warn!(path = %shown(path), flags, %error, "cannot set the flags of a file");
            }
        }
        Ok(())
    }

    /// Checks for each file that it is on the disk, if this kernel's flush of the whole disk does not report errors.
    fn check_flushed(&self) -> Result<()> {
        if disk::flush_reports_errors() {
            return Ok(());
        }
        let files = self
            .created
            .iter()
            .filter(|(_, created)| **created == Created::File);
        let files = files.filter_map(|(name, _)| self.path(name).ok());
        let directories = self.directories.iter().map(|(path, _)| path.clone());
        for path in files.chain(directories) {
            match File::open(&path).and_then(|file| file.sync_all()) {
                // The file's own mode may deny access to everyone except root.
                Err(source) if source.kind() != io::ErrorKind::PermissionDenied => {
                    return Err(UnpackError::write(&path, source));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a file, or passes it to a thread if it is small. Returns the number of its bytes in the archive.
fn write(
    entry: &mut Entry<'_, impl Read>,
    (name, path, attributes): (&Path, PathBuf, Attributes),
    real_size: Option<u64>,
    is_root: bool,
    Output { meter, writers }: Output<'_>,
) -> Result<u64> {
    if entry.size() <= SMALL && real_size.is_none() {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(UnpackError::Read)?;
        meter.add(bytes.len());
        let written = bytes.len() as u64;
        writers.write(SmallFile {
            path,
            bytes,
            attributes,
        })?;
        return Ok(written);
    }
    let failed = |source| UnpackError::write(&path, source);
    let mut file = create_private_file(&path).map_err(failed)?;
    let mut written = 0;
    if let Some(real_size) = real_size {
        written = sparse::write(name, (&path, &file), entry, real_size, meter)?;
    } else {
        let mut buffer = vec![0; CHUNK];
        while let Some(chunk) = next_chunk(entry, &mut buffer).map_err(UnpackError::Read)? {
            file.write_all(chunk).map_err(failed)?;
            meter.add(chunk.len());
            written += chunk.len() as u64;
        }
    }
    drop(file);
    attributes.apply(&path, is_root).map_err(failed)?;
    Ok(written)
}

#[cfg(test)]
mod tests;
