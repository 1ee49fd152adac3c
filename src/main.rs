//! The `crr` command: see `crr --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
