//! Fault injection, end to end: seeded runs of the shipped binaries on real Postgres. Each run injects a part of a list of
//! faults, one at a time. After each fault, checks compare the results with a record of what was written. That record uses
//! neither S3 nor the product.

pub mod application;
pub mod faults;
pub mod record;
pub mod run;
