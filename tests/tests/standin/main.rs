//! The stand-in answers as AWS does: the real SDK, the stock aws CLI or curl sends the requests.

mod cli;
mod lambda;
mod s3;
