//! A stand-in for AWS in one process. [`StandIn`] is the whole; each module implements one service.
//!
//! # Faults that a test can inject
//!
//! | part | fault | how |
//! |---|---|---|
//! | S3 requests | errors, a broken connection, a lost answer, a delay, a wrong `ETag` | [`s3::S3::on_request`] with [`s3::S3Fault`] |
//! | S3 permissions | `AccessDenied` | [`s3::S3::deny`], [`s3::S3::restrict`] |
//! | S3 objects at rest | truncated, changed, exchanged, replaced or removed bytes | [`s3::S3::truncate`], [`s3::S3::flip`], [`s3::S3::flip_middle`], [`s3::S3::swap`], [`s3::S3::replace`], [`s3::S3::remove`] |
//! | Auto Scaling, SSM, STS, Invoke | any error, by operation or by call | [`StandIn::faults`] with [`fault::PlannedFaults`] |
//! | events | lost, duplicate, late, reordered | [`StandIn::bus`] with [`bus::DeliveryFault`] |
//! | asynchronous invocations | duplicates | [`lambda::Lambda::duplicate_next`] |
//! | running functions | a timeout, a killed process | [`lambda::Lambda::time_out`], [`lambda::Lambda::processes`] |
//! | SSM agents | late registration, a stopped agent, lost connections sooner | [`StandIn::hold_agents`], [`Node::stop_agent`](crate::nodes::machine::Node::stop_agent), [`StandInBuilder::stale`] |
//! | machines | loss of power, a termination | [`StandIn::kill_instance`], [`StandIn::terminate`] |
//! | processes on a machine | a killed agent or `pg_dump` | [`processes`](crate::fixtures::processes) |
//! | dumps | blocked by a lock | [`block_dumps`](crate::fixtures::registry::block_dumps) |
//! | hooks | an expired heartbeat | [`StandIn::expire_hooks`] |
//! | time | an older history, a later time | [`StandIn::backdate`], [`StandIn::advance_by`] |
//! | backups | forged ones with matching hashes | [`tampering`](crate::fixtures::tampering) |

mod assembly;
pub mod autoscaling;
pub mod bus;
pub mod clock;
mod endpoint;
pub mod fault;
pub mod lambda;
pub mod pattern;
pub mod s3;
pub mod ssm;
pub mod template;

pub use assembly::{APPLICATION_TAG, Binaries, ProtectedGroup, StandIn, StandInBuilder, UserData};
