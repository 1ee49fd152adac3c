//! crr.json: `crr::fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crr::fuzz::record(data));
