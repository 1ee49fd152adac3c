//! Image files: `crr::fuzz::image`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crr::fuzz::image(data));
