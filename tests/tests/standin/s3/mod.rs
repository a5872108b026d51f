//! The S3 stand-in, asked by the real SDK over the wire.

#![expect(
    clippy::unwrap_used,
    reason = "what a test sets up may fail as loudly as what it asserts"
)]

mod multipart;
mod objects;
mod world;

const BUCKET: &str = "backups";
const MIB: usize = 1 << 20;
