//! What comes over a connection: `crr::fuzz::wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crr::fuzz::wire(data));
