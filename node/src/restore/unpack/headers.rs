//! The entries of an archive that describe the next entry: long names and PAX records.

use std::io::Read;

use tar::Entry;

use crate::restore::unpack::error::{Result, UnpackError};

/// The largest description that is read, in bytes.
const MOST_HEADER_BYTES: u64 = 1024 * 1024;

/// A PAX record: its key and its value.
pub(super) type Record = (String, Vec<u8>);

/// The description of the next entry.
#[derive(Default)]
pub(super) struct Described {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) records: Vec<Record>,
}

/// Reads the content of an entry that describes the next one.
pub(super) fn content(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>> {
    if entry.size() > MOST_HEADER_BYTES {
        let problem = format!(
            "has a header of {} bytes (limit {MOST_HEADER_BYTES})",
            entry.size()
        );
        return Err(UnpackError::Archive(problem));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(UnpackError::Read)?;
    Ok(bytes)
}

/// Reads a long name, without the zero byte at its end.
pub(super) fn long_name(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>> {
    let mut bytes = content(entry)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// Parses PAX records: `<length> <key>=<value>\n`. The length includes the whole record, and the value can have any
/// bytes.
pub(super) fn records(bytes: &[u8]) -> Result<Vec<Record>> {
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

/// Returns the value of a record, or `None` if there is none.
pub(super) fn value<'r>(records: &'r [Record], key: &str) -> Option<&'r [u8]> {
    let found = records.iter().find(|(other, _)| other == key);
    found.map(|(_, value)| value.as_slice())
}

fn one_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let key = String::from_utf8(record[..equals].to_vec()).ok()?;
    Some(((key, record[equals + 1..].to_vec()), &bytes[length..]))
}
