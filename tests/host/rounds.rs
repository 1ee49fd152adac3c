//! How often a test repeats what depends on chance.

/// `usual` times, or five times as often where everything is to be run, and time does not matter: `tools/test --all`.
pub(crate) fn rounds(usual: u32) -> u32 {
    if std::env::var_os("CRR_TEST_ALL").is_some() { usual.saturating_mul(5) } else { usual }
}
