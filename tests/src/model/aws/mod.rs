//! The AWS services that the protocol depends on.

pub(super) mod group;
pub(super) mod ssm;
