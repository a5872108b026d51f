//! The objects of a backup in S3: how their bytes are uploaded and decoded, and the format of `contents.json.zst`.

pub mod contents;
pub(crate) mod stream;
