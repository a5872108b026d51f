mod failure;
mod postgres;
mod settings;
fn main() {}
