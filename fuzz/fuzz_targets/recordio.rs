//! A RecordIO stream, read in pieces of different sizes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tepui_proto::fuzzing::recordio(data));
