//! The `crr` command.

fn main() {}
