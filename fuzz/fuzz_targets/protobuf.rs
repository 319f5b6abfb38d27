//! Protobuf from a client, checked, cut into parts and written as JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tepui_proto::fuzzing::protobuf(data));
