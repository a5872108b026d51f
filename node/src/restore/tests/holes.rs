//! A file with holes keeps them, and takes no more time and space than its data.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use super::{Nodes, archive, restore};

/// As long as `lastlog` is with one large user id.
const LENGTH: u64 = 1 << 40;

fn bytes_on_disk(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn a_file_with_holes_keeps_them_on_the_new_node() {
    let nodes = Nodes::new();
    fs::create_dir(nodes.old()).unwrap();
    let create = |name: &str, length: u64| {
        let file = File::create(nodes.old().join(name)).unwrap();
        file.set_len(length).unwrap();
        file
    };
    create("only a hole", LENGTH);
    let end = create("data near the end", LENGTH);
    end.write_all_at(b"end", LENGTH - 5_000_000).unwrap();
    let many = create("many pieces", 1 << 30);
    for number in 0..1_000 {
        many.write_all_at(b"piece", number << 20).unwrap();
    }
    create("small", 100_000).write_all_at(b"start", 0).unwrap();
    let zeros = create("zeros without a hole", 0);
    zeros.write_all_at(&vec![0; 1 << 20], 0).unwrap();
    if bytes_on_disk(&nodes.old()) + bytes_on_disk(&nodes.old().join("only a hole")) > 1 << 20 {
        eprintln!("skipped: the file system has no holes");
        return;
    }
    fs::hard_link(nodes.old().join("small"), nodes.old().join("second name")).unwrap();

    let archived = archive(&nodes.old());
    assert!(archived.len() < 10 << 20, "{} bytes", archived.len());
    restore(&archived, &nodes.new_node());

    for entry in fs::read_dir(nodes.old()).unwrap() {
        let name = entry.unwrap().file_name();
        let (old, new) = (nodes.old().join(&name), nodes.new_node().join(&name));
        assert!(bytes_on_disk(&new) <= bytes_on_disk(&old), "{name:?}");
        let (old, new) = (File::open(old).unwrap(), File::open(new).unwrap());
        assert_same_content(&old, &new);
    }
    let zeros = nodes.new_node().join("zeros without a hole");
    assert!(bytes_on_disk(&zeros) >= 1 << 20);
    assert_eq!(archive(&nodes.new_node()).len(), archived.len());
}

/// Compares two files where either has data.
fn assert_same_content(one: &File, other: &File) {
    let length = one.metadata().unwrap().len();
    assert_eq!(other.metadata().unwrap().len(), length);
    for file in [one, other] {
        let mut at = 0;
        while let Ok(start) = seek(file, SeekFrom::Data(at)) {
            at = seek(file, SeekFrom::Hole(start)).unwrap();
            let size = usize::try_from(at - start).unwrap();
            let (mut left, mut right) = (vec![0; size], vec![0; size]);
            one.read_exact_at(&mut left, start).unwrap();
            other.read_exact_at(&mut right, start).unwrap();
            assert!(left == right, "the data at {start} differ");
        }
    }
}
