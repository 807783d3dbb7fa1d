#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless::app::proxy::hygiene::holds(data));
