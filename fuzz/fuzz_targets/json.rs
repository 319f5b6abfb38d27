//! JSON from a client, read, written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tepui_proto::fuzzing::json(data));
