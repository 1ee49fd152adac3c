//! What runc and crun keep of a container: `crr::fuzz::oci`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crr::fuzz::oci(data));
