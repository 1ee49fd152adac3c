//! Records of migrations: `crr::fuzz::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crr::fuzz::journal(data));
