//! Unpacks a configuration archive beside what is live. Nothing is trusted: every entry must lie in a directory
//! that this very archive made, so that neither `..` nor a symbolic link leads anywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use tar::{Entry, EntryType};

/// The longest name or set of attributes that is read, in bytes.
const MOST_HEADER_BYTES: u64 = 1024 * 1024;
const ATTRIBUTE: &str = "SCHILY.xattr.";

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
/// each does afterwards. Reads to the archive's end.
pub fn unpack(reader: impl Read, targets: &[PathBuf]) -> Result<()> {
    let mut archive = tar::Archive::new(reader);
    let mut unpacking = Unpacking {
        targets,
        made: BTreeMap::new(),
        directories: Vec::new(),
        is_root: rustix::process::geteuid().is_root(),
    };
    let mut next = Announced::default();
    // Raw entries: the attributes' values are bytes, which the library's own reader would split at newlines.
    for entry in archive.entries().map_err(UnpackError::Read)?.raw(true) {
        let mut entry = entry.map_err(UnpackError::Read)?;
        match entry.header().entry_type() {
            EntryType::XHeader => next.records = records(&announcement(&mut entry)?)?,
            EntryType::GNULongName => next.name = Some(name_of(announcement(&mut entry)?)),
            EntryType::GNULongLink => next.link = Some(name_of(announcement(&mut entry)?)),
            _ => unpacking.entry(&mut entry, std::mem::take(&mut next))?,
        }
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(UnpackError::Read)?;
    unpacking.finish()
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

/// What makes a file what it is, apart from its name and content.
struct Attributes {
    mode: u32,
    uid: u64,
    gid: u64,
    modified: Timespec,
    extended: Vec<(OsString, Vec<u8>)>,
}

impl Unpacking<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, announced: Announced) -> Result<()> {
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
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(failed)?;
                let expected = entry.size();
                let written = io::copy(entry, &mut file).map_err(failed)?;
                if written != expected {
                    return Err(refuse(&name, "ends early"));
                }
                drop(file);
                attributes.apply(&path, self.is_root).map_err(failed)?;
                Made::File
            }
            EntryType::Link => {
                let target = link.ok_or_else(|| refuse(&name, "links to nothing"))?;
                let target = self.checked(&target)?;
                if !matches!(self.made.get(&target), Some(Made::File | Made::Other)) {
                    return Err(refuse(&name, "links to what is not in the archive"));
                }
                let target = self.place(&target)?;
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

    fn finish(self) -> Result<()> {
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
        self.flush().map_err(|(path, source)| failed(&path, source))
    }

    /// Brings everything to the disk: at first all at once, for each file by itself waits for the disk by itself. Older
    /// kernels tell of what cannot be written only when they are asked for the file.
    fn flush(&self) -> std::result::Result<(), (PathBuf, io::Error)> {
        let mut flushed = BTreeSet::new();
        for target in self.targets {
            let beside = target.parent().unwrap_or(Path::new("/"));
            File::open(beside)
                .and_then(|directory| {
                    if flushed.insert(directory.metadata()?.dev()) {
                        rustix::fs::syncfs(&directory)?;
                    }
                    Ok(())
                })
                .map_err(|error| (beside.to_owned(), error))?;
        }
        let files = self.made.iter().filter(|(_, made)| **made == Made::File);
        let files = files.filter_map(|(name, _)| self.place(name).ok());
        let directories = self.directories.iter().map(|(path, _)| path.clone());
        for path in files.chain(directories) {
            match File::open(&path).and_then(|file| file.sync_all()) {
                // Its own mode may keep everybody but root out.
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                    return Err((path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Attributes {
    fn of(entry: &Entry<'_, impl Read>, records: &[Record]) -> Result<Self> {
        let header = entry.header();
        let extended = records.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(ATTRIBUTE)?;
            Some((OsString::from(name), value.clone()))
        });
        let modified = records
            .iter()
            .find(|(key, _)| key == "mtime")
            .and_then(|(_, value)| timestamp(std::str::from_utf8(value).ok()?));
        let modified = match modified {
            Some(modified) => modified,
            None => Timespec {
                tv_sec: header
                    .mtime()
                    .map_err(UnpackError::Read)?
                    .try_into()
                    .unwrap_or(0),
                tv_nsec: 0,
            },
        };
        Ok(Self {
            mode: header.mode().map_err(UnpackError::Read)? & 0o7777,
            uid: header.uid().map_err(UnpackError::Read)?,
            gid: header.gid().map_err(UnpackError::Read)?,
            modified,
            extended: extended.collect(),
        })
    }

    /// Sets everything on a file or directory that nobody but the agent could have put there.
    fn apply(&self, path: &Path, is_root: bool) -> io::Result<()> {
        if is_root {
            std::os::unix::fs::lchown(path, Some(id(self.uid)?), Some(id(self.gid)?))?;
        }
        // Changing the owner clears the set-user-id bit, so the mode comes later; an access control list brings
        // its own.
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        for (name, value) in &self.extended {
            match xattr::set(path, name, value) {
                Ok(()) => {}
                Err(error) if dispensable(name, &error, is_root) => {
                    tracing::warn!(path = %path.display(), ?name, %error, "attribute left out");
                }
                Err(error) => {
                    let problem = format!("set the extended attribute {}: {error}", name.display());
                    return Err(io::Error::new(error.kind(), problem));
                }
            }
        }
        self.touch(path)
    }

    fn apply_to_link(&self, path: &Path, is_root: bool) -> io::Result<()> {
        if is_root {
            std::os::unix::fs::lchown(path, Some(id(self.uid)?), Some(id(self.gid)?))?;
        }
        self.touch(path)
    }

    fn touch(&self, path: &Path) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: self.modified,
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// Labels of the old node's kernel mean nothing to a kernel that has no such module, and only root sets them.
fn dispensable(name: &OsStr, error: &io::Error, is_root: bool) -> bool {
    let kernels =
        name.as_bytes().starts_with(b"security.") || name.as_bytes().starts_with(b"trusted.");
    kernels && (error.kind() == io::ErrorKind::Unsupported || !is_root)
}

fn id(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other(format!("{number} is no user or group id")))
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

/// Reads seconds with a fraction, which may be negative.
fn timestamp(text: &str) -> Option<Timespec> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    // As 64 bits first: whatever an archive says, nothing below overflows.
    let (seconds, nanoseconds) = (seconds.parse::<u64>().ok()?, digits.parse::<u32>().ok()?);
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let total = if negative { -total } else { total };
    Some(Timespec {
        tv_sec: i64::try_from(total.div_euclid(1_000_000_000)).ok()?,
        tv_nsec: i64::try_from(total.rem_euclid(1_000_000_000)).ok()?,
    })
}

#[cfg(test)]
mod tests;
