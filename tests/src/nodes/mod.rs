//! The machines that the stand-in boots, and the applications on them.

pub mod containers;
pub mod engine;
pub mod machine;
pub mod postgres;
pub mod protected;
pub mod registry;
pub mod spare;
