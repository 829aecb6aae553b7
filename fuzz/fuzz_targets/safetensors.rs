#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cigl_fuzz::read("safetensors", data));
