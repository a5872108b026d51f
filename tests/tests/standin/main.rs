//! The stand-in answers as AWS does: each part is asked over the wire, by the real SDK, the stock aws CLI or curl.

mod cli;
mod lambda;
mod s3;
