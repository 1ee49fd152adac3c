//! What crr does with a CRIU that dies, lies, hangs, or says something else than CRIU would: against a fake peer, which is this
//! same binary, started through a wrapper as CRIU is.

mod peer;
mod tests;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "swrk") {
        let setting = |name: &str| std::env::var(name).expect(name);
        let socket = words[at + 1].parse().expect("a descriptor");
        peer::play(&setting("CRR_FAKE_SCRIPT"), &setting("CRR_FAKE_SEEN"), socket);
    }
    let arguments = libtest_mimic::Arguments::from_args();
    libtest_mimic::run(&arguments, tests::all()).exit_code()
}
