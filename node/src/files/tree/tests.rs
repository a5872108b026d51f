use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use super::*;

const NAME_OF_BYTES: &[u8] = b"not-utf8-\xff\xfe";

/// Creates a directory with every kind of file that an application can have.
fn create_every_kind(top: &Path) {
    fs::create_dir_all(top.join("deep/er")).unwrap();
    fs::write(top.join("plain"), "content").unwrap();
    fs::write(top.join("empty"), "").unwrap();
    fs::write(top.join("setuid"), "x").unwrap();
    fs::set_permissions(top.join("setuid"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(top.join("plain"), top.join("deep/second-name")).unwrap();
    symlink("../plain//", top.join("deep/link")).unwrap();
    symlink(format!("/{}", "t".repeat(200)), top.join("long-link")).unwrap();
    fs::write(top.join("deep/er").join("n".repeat(200)), "long").unwrap();
    fs::write(top.join(OsStr::from_bytes(NAME_OF_BYTES)), "bytes").unwrap();
    xattr::set(top.join("plain"), "user.with-newline", b"a\nb=c\0d").unwrap();
    // With more pieces than a header of the old GNU format has room for.
    let holes = fs::File::create(top.join("holes")).unwrap();
    for offset in 1..=30 {
        holes.write_all_at(b"data", offset << 20).unwrap();
    }
    holes.set_len(100 << 20).unwrap();
    let made = Command::new("mkfifo").arg(top.join("fifo")).status();
    assert!(made.unwrap().success());
    std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
}

fn archive(paths: &[PathBuf]) -> Result<(Vec<u8>, u64)> {
    let mut bytes = Vec::new();
    let entries = write_tree(paths, &mut bytes)?;
    Ok((bytes, entries))
}

#[test]
fn every_kind_of_file_is_archived() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("top");
    create_every_kind(&top);
    let single = directory.path().join("single.conf");
    fs::write(&single, "one").unwrap();
    let paths = [top, single];
    let (bytes, entries) = archive(&paths).unwrap();
    assert_eq!(
        archive(&paths).unwrap().0,
        bytes,
        "equal trees must make equal archives"
    );

    let mut read = tar::Archive::new(&bytes[..]);
    let kinds: BTreeMap<Vec<u8>, EntryType> = read
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path_bytes().into_owned(), entry.header().entry_type())
        })
        .collect();
    assert_eq!(kinds.len() as u64, entries);
    assert_eq!(kinds[&b"0/"[..]], EntryType::Directory);
    assert_eq!(kinds[&b"1"[..]], EntryType::Regular);
    assert_eq!(kinds[&b"0/fifo"[..]], EntryType::Fifo);
    // Sorted: the directory "deep" comes before the file "plain".
    assert_eq!(kinds[&b"0/deep/second-name"[..]], EntryType::Regular);
    assert_eq!(kinds[&b"0/plain"[..]], EntryType::Link);
    assert_eq!(
        kinds[&[b"0/", NAME_OF_BYTES].concat()[..]],
        EntryType::Regular
    );
    assert!(!kinds.contains_key(&b"0/socket"[..]));
}

#[test]
fn gnu_tar_restores_every_kind_of_file_from_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("top");
    create_every_kind(&top);
    let (bytes, _) = archive(std::slice::from_ref(&top)).unwrap();

    let back = directory.path().join("back");
    fs::create_dir(&back).unwrap();
    let file = directory.path().join("archive.tar");
    fs::write(&file, &bytes).unwrap();
    let unpacked = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&file)
        .current_dir(&back)
        .status();
    assert!(unpacked.unwrap().success());
    let back = back.join("0");
    assert_eq!(fs::read(back.join("plain")).unwrap(), b"content");
    assert_eq!(
        xattr::get(back.join("plain"), "user.with-newline")
            .unwrap()
            .unwrap(),
        b"a\nb=c\0d"
    );
    assert_eq!(
        fs::read_link(back.join("deep/link")).unwrap().as_os_str(),
        "../plain//"
    );
    assert_eq!(
        fs::read(back.join("deep/er").join("n".repeat(200))).unwrap(),
        b"long"
    );
    assert_eq!(
        fs::read(back.join(OsStr::from_bytes(NAME_OF_BYTES))).unwrap(),
        b"bytes"
    );
    let (was, is) = (top.join("holes"), back.join("holes"));
    assert!(fs::read(was).unwrap() == fs::read(&is).unwrap());
    assert!(fs::metadata(is).unwrap().blocks() * 512 < 1 << 20);
    let (was, is) = (top.join("setuid"), back.join("setuid"));
    let (was, is) = (fs::metadata(was).unwrap(), fs::metadata(is).unwrap());
    assert_eq!(
        (
            was.mode(),
            was.uid(),
            was.gid(),
            was.mtime(),
            was.mtime_nsec()
        ),
        (is.mode(), is.uid(), is.gid(), is.mtime(), is.mtime_nsec())
    );
    let (one, other) = (back.join("plain"), back.join("deep/second-name"));
    assert_eq!(
        fs::metadata(one).unwrap().ino(),
        fs::metadata(other).unwrap().ino()
    );
}

#[test]
fn a_device_is_refused() {
    let error = archive(&[PathBuf::from("/dev/null")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot archive /dev/null: it is a device; remove it, or configure only the paths beside it"
    );
}
