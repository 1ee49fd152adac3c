//! Logs of CRIU: `crr::fuzz::log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crr::fuzz::log(data));
