//! what CRIU and the two ends of a transfer of memory say: `crr::fuzz::pages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crr::fuzz::pages(data));
