//! The independent record: what was written when, read from the node itself and kept outside S3.

pub mod decode;
pub mod history;
pub mod snapshot;
