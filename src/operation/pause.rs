//! A place for tests to kill crr at.

/// Stops this process (SIGSTOP) if the environment variable `CRR_TEST_PAUSE_AT` names this step, so that a test can kill crr or
/// CRIU exactly there, or send a signal and let it go on. Only in builds with debug assertions.
pub(crate) fn pause(step: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("CRR_TEST_PAUSE_AT").is_some_and(|wanted| wanted.to_str() == Some(step)) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
    }
    #[cfg(not(debug_assertions))]
    let _ = step;
}
