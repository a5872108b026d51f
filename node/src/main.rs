mod contents;
mod context;
mod database;
mod failure;
mod health;
mod instance;
mod marker;
mod postgres;
mod s3;
mod setting;
mod settings;
mod state;
#[cfg(test)]
mod testing;
mod upload;
mod watch;
fn main() {}
