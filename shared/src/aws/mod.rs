//! The AWS calls: domain types in, domain types out, one API operation per function.
