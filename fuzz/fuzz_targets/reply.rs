//! packet from CRIU: `crr::fuzz::reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crr::fuzz::reply(data));
