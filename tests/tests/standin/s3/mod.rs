//! The S3 stand-in, with the real SDK over the wire.

#![expect(
    clippy::unwrap_used,
    reason = "a failure of the setup is a failure of the test"
)]

mod multipart;
mod objects;
mod setup;

const BUCKET: &str = "backups";
const MIB: usize = 1 << 20;
