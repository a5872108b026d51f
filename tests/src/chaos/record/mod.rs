//! The independent record of all writes: it is read from the nodes themselves, and kept outside S3.

pub mod decode;
pub mod history;
pub mod snapshot;
