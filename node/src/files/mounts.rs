//! The mount points of the node.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

/// The types of the kernel's own file systems that have no files of a user: cgroup, cgroup2, devpts, proc and sysfs.
const OF_KERNEL: [i128; 5] = [0x27_e0eb, 0x6367_7270, 0x1cd1, 0x9fa0, 0x6265_6572];

/// Returns the mount points that this process sees.
pub(crate) fn mount_points() -> io::Result<BTreeSet<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(|point| PathBuf::from(unescape(point))).collect())
}

/// Returns the path as in the kernel's mount table: without symbolic links, except in its last name.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .and_then(|parent| fs::canonicalize(parent).ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// Returns the mount points within a path, as paths that begin with it. A mount at the path itself is not among them.
pub(crate) fn within(path: &Path, mounts: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let resolved = resolved(path);
    let below = mounts
        .iter()
        .filter_map(|mount| mount.strip_prefix(&resolved).ok());
    below
        .filter(|below| !below.as_os_str().is_empty())
        .map(|below| path.join(below))
        .collect()
}

/// Returns whether a path is in one of the kernel's own file systems, such as `/proc`. A backup has none of its files.
pub(crate) fn is_of_kernel(path: &Path) -> io::Result<bool> {
    let kind = i128::from(statfs(path)?.f_type);
    Ok(OF_KERNEL.contains(&kind))
}

/// Returns why a restore leaves a mounted file system as it is, or `None` if it replaces the files in it.
pub(crate) fn reason_to_leave(mount: &Path) -> io::Result<Option<&'static str>> {
    Ok(if !fs::symlink_metadata(mount)?.is_dir() {
        Some("a single file is mounted")
    } else if is_of_kernel(mount)? {
        Some("it is a file system of the kernel")
    } else if statvfs(mount)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        Some("it is read-only")
    } else {
        None
    })
}

/// Replaces the kernel's octal escapes, such as `\040` for a space.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, following)) = rest.split_first() {
        let escaped = following.get(..3).filter(|_| first == b'\\');
        let code = escaped
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() {
            &following[3..]
        } else {
            following
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_from_the_kernels_table() {
        assert!(mount_points().unwrap().contains(Path::new("/proc")));
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }
}
