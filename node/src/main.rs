mod database;
mod health;
mod marker;
mod setting;
mod failure;
mod postgres;
mod settings;
#[cfg(test)]
mod testing;
fn main() {}
