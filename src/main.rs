//! The `crr` command: see `crr --help`.

mod cli;

fn main() -> std::process::ExitCode {
    // Before anything else: as a helper of `crr check --self-test` this process has no command line.
    if let Some(code) = crr::criu::helper(std::env::args_os()) {
        return code;
    }
    cli::main()
}
