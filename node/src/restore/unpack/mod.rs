//! Unpacks a configuration archive beside what is live. Nothing is trusted: every entry must lie in a directory
//! that this very archive made, so that neither `..` nor a symbolic link leads anywhere else.

mod attributes;
mod disk;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode};
use tar::{Entry, EntryType};

use self::attributes::Attributes;
use self::disk::{Disks, Meter};
use self::writers::{SMALL, Small, Writers};

/// The longest name or set of attributes that is read, in bytes.
const MOST_HEADER_BYTES: u64 = 1024 * 1024;
/// How much of a file is written at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is not what the agent writes: another backup may be better.
    #[error("the configuration archive {0}")]
    Archive(String),
    /// A file could not be written.
    #[error("restore {path}")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The archive could not be read.
    #[error("read the configuration archive")]
    Read(#[source] io::Error),
}

type Result<T> = std::result::Result<T, UnpackError>;

/// Unpacks a tar: the entry `<n>` becomes `targets[n]`, and `<n>/…` what is in it. No target may exist before;
/// each does afterwards, on the disk. Reads to the archive's end.
pub fn unpack(reader: impl Read, targets: &[PathBuf]) -> Result<()> {
    let disks = Disks::open(targets)?;
    let is_root = rustix::process::geteuid().is_root();
    let unpacked = disks.while_flushing(|meter| {
        writers::beside(is_root, |writers| {
            entries(reader, targets, is_root, Out { meter, writers })
        })
    })?;
    unpacked.finish()?;
    disks.flush()?;
    unpacked.check_flushed()
}

fn entries<'t>(
    reader: impl Read,
    targets: &'t [PathBuf],
    is_root: bool,
    out: Out<'_>,
) -> Result<Unpacking<'t>> {
    let mut archive = tar::Archive::new(reader);
    let mut unpacking = Unpacking {
        targets,
        made: BTreeMap::new(),
        directories: Vec::new(),
        is_root,
    };
    let mut next = Announced::default();
    // Raw entries: the attributes' values are bytes, which the library's own reader would split at newlines.
    for entry in archive.entries().map_err(UnpackError::Read)?.raw(true) {
        let mut entry = entry.map_err(UnpackError::Read)?;
        match entry.header().entry_type() {
            EntryType::XHeader => next.records = records(&announcement(&mut entry)?)?,
            EntryType::GNULongName => next.name = Some(name_of(announcement(&mut entry)?)),
            EntryType::GNULongLink => next.link = Some(name_of(announcement(&mut entry)?)),
            _ => unpacking.entry(&mut entry, std::mem::take(&mut next), out)?,
        }
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(UnpackError::Read)?;
    out.writers.finish()?;
    Ok(unpacking)
}

/// What is beside the thread that decodes.
#[derive(Clone, Copy)]
struct Out<'o> {
    meter: &'o Meter,
    writers: &'o Writers,
}

/// What the entries before an entry say of it.
#[derive(Default)]
struct Announced {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<Record>,
}

#[derive(Debug, PartialEq, Eq)]
enum Made {
    Directory,
    File,
    Other,
}

struct Unpacking<'t> {
    targets: &'t [PathBuf],
    /// Everything that this archive made, by its name in it.
    made: BTreeMap<PathBuf, Made>,
    /// The directories' attributes, which are set when nothing is put into them any more.
    directories: Vec<(PathBuf, Attributes)>,
    is_root: bool,
}

impl Unpacking<'_> {
    fn entry(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        announced: Announced,
        out: Out<'_>,
    ) -> Result<()> {
        let kind = entry.header().entry_type();
        let name = announced
            .name
            .unwrap_or_else(|| entry.path_bytes().into_owned());
        let name = self.checked(&name)?;
        let path = self.place(&name)?;
        let parent = name
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent
            && self.made.get(parent) != Some(&Made::Directory)
        {
            return Err(refuse(&name, "is not in a directory of the archive"));
        }
        if self.made.contains_key(&name) {
            return Err(refuse(&name, "is in it twice"));
        }
        let link = announced
            .link
            .or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned));
        let attributes = Attributes::of(entry, &announced.records)?;
        let failed = |source| UnpackError::Write {
            path: path.display().to_string(),
            source,
        };
        let made = match kind {
            EntryType::Directory => {
                // Closed to others until it is complete.
                fs::create_dir(&path).map_err(failed)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
                self.directories.push((path, attributes));
                Made::Directory
            }
            EntryType::Regular | EntryType::Continuous => {
                let written = write(entry, path, attributes, self.is_root, out)?;
                if written != entry.size() {
                    return Err(refuse(&name, "ends early"));
                }
                Made::File
            }
            EntryType::Link => {
                let target = link.ok_or_else(|| refuse(&name, "links to nothing"))?;
                let target = self.checked(&target)?;
                if !matches!(self.made.get(&target), Some(Made::File | Made::Other)) {
                    return Err(refuse(&name, "links to what is not in the archive"));
                }
                let target = self.place(&target)?;
                out.writers.finish()?;
                rustix::fs::linkat(CWD, &target, CWD, &path, AtFlags::empty())
                    .map_err(|errno| failed(errno.into()))?;
                Made::Other
            }
            EntryType::Symlink => {
                let target = link.ok_or_else(|| refuse(&name, "links to nothing"))?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), &path).map_err(failed)?;
                attributes
                    .apply_to_link(&path, self.is_root)
                    .map_err(failed)?;
                Made::Other
            }
            EntryType::Fifo => {
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0)
                    .map_err(|errno| failed(errno.into()))?;
                attributes.apply(&path, self.is_root).map_err(failed)?;
                Made::Other
            }
            other => {
                let problem = format!("is of type {other:?}, which is never restored");
                return Err(refuse(&name, &problem));
            }
        };
        self.made.insert(name, made);
        Ok(())
    }

    /// Takes a name apart: the number of a configured path, then plain names.
    fn checked(&self, name: &[u8]) -> Result<PathBuf> {
        let path = Path::new(OsStr::from_bytes(name));
        let plain = path
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        if !plain || name.contains(&0) {
            return Err(refuse(path, "leads out of the configured paths"));
        }
        let path: PathBuf = path.components().collect();
        self.place(&path)?;
        Ok(path)
    }

    /// Returns where an entry goes.
    fn place(&self, name: &Path) -> Result<PathBuf> {
        let mut components = name.components();
        let number = components
            .next()
            .and_then(|first| number_of(first.as_os_str()));
        let target = number.and_then(|number| self.targets.get(number));
        let target = target.ok_or_else(|| refuse(name, "belongs to no configured path"))?;
        let below = components.as_path();
        Ok(if below.as_os_str().is_empty() {
            target.clone()
        } else {
            target.join(below)
        })
    }

    fn finish(&self) -> Result<()> {
        let there: BTreeSet<usize> = self
            .made
            .keys()
            .filter(|name| name.components().count() == 1)
            .filter_map(|name| number_of(name.as_os_str()))
            .collect();
        if let Some(number) = (0..self.targets.len()).find(|number| !there.contains(number)) {
            let problem = format!("has nothing of the configured path {number}");
            return Err(UnpackError::Archive(problem));
        }
        let failed = |path: &Path, source| UnpackError::Write {
            path: path.display().to_string(),
            source,
        };
        // What is inside first: setting its attributes changes the directory around it.
        for (path, attributes) in self.directories.iter().rev() {
            let set = attributes.apply(path, self.is_root);
            set.map_err(|source| failed(path, source))?;
        }
        Ok(())
    }

    /// Asks for every file whether it was written, where the flush of all of them does not tell.
    fn check_flushed(&self) -> Result<()> {
        if disk::flush_tells_all() {
            return Ok(());
        }
        let files = self.made.iter().filter(|(_, made)| **made == Made::File);
        let files = files.filter_map(|(name, _)| self.place(name).ok());
        let directories = self.directories.iter().map(|(path, _)| path.clone());
        for path in files.chain(directories) {
            match File::open(&path).and_then(|file| file.sync_all()) {
                // Its own mode may keep everybody but root out.
                Err(source) if source.kind() != io::ErrorKind::PermissionDenied => {
                    let path = path.display().to_string();
                    return Err(UnpackError::Write { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a file, or has it written on the side; returns how much of it the archive had.
fn write(
    entry: &mut Entry<'_, impl Read>,
    path: PathBuf,
    attributes: Attributes,
    is_root: bool,
    Out { meter, writers }: Out<'_>,
) -> Result<u64> {
    if entry.size() <= SMALL {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(UnpackError::Read)?;
        meter.add(bytes.len());
        let written = bytes.len() as u64;
        writers.put(Small {
            path,
            bytes,
            attributes,
        })?;
        return Ok(written);
    }
    let failed = |source| UnpackError::Write {
        path: path.display().to_string(),
        source,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let mut written = 0;
    loop {
        let length = entry.read(&mut buffer).map_err(UnpackError::Read)?;
        if length == 0 {
            break;
        }
        file.write_all(&buffer[..length]).map_err(failed)?;
        meter.add(length);
        written += length as u64;
    }
    drop(file);
    attributes.apply(&path, is_root).map_err(failed)?;
    Ok(written)
}

/// Reads the number of a configured path as it is written: no path has a second name, such as `00`.
fn number_of(name: &OsStr) -> Option<usize> {
    let number: usize = name.to_str()?.parse().ok()?;
    (number.to_string().as_str() == name).then_some(number)
}

fn refuse(name: &Path, problem: &str) -> UnpackError {
    let name = name.to_string_lossy();
    UnpackError::Archive(format!("is refused: the entry {name:?} {problem}"))
}

/// Reads the content of an entry that describes the next one.
fn announcement(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>> {
    if entry.size() > MOST_HEADER_BYTES {
        let problem = format!("has a header of {} bytes", entry.size());
        return Err(UnpackError::Archive(problem));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(UnpackError::Read)?;
    Ok(bytes)
}

fn name_of(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    OsString::from_vec(bytes).into_vec()
}

/// A PAX record: its key and its value.
type Record = (String, Vec<u8>);

/// Takes PAX records apart: `<length> <key>=<value>\n`, where the length counts all of it and the value may hold
/// any bytes.
fn records(bytes: &[u8]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (record, following) = one_record(rest)
            .ok_or_else(|| UnpackError::Archive("has a malformed header".to_owned()))?;
        records.push(record);
        rest = following;
    }
    Ok(records)
}

fn one_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let key = String::from_utf8(record[..equals].to_vec()).ok()?;
    Some(((key, record[equals + 1..].to_vec()), &bytes[length..]))
}

#[cfg(test)]
mod tests;
