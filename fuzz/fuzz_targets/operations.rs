#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| reput_fuzz::targets::operations(data));
