//! The functions: they execute a decision by one call to AWS after the other.

pub(super) mod backup;
pub(super) mod breaker;
pub(super) mod calls;
pub(super) mod commit;
pub(super) mod invocations;
pub(super) mod restore;
pub(super) mod retention;
