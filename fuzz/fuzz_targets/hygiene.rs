#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless::app::dataplane::proxy::fuzz_support::check_forwarding(data));
