//! Bytes to messages and back: the Mesos v1 API and the protocols of our own.
//!
//! # Invariants
//!
//! - Field numbers and enum values equal Mesos'.
//! - No logic: what a message means is decided elsewhere.
//! - Nothing that a client sends makes this crate panic, recurse without bound or
//!   allocate more than a small multiple of what was sent.
//! - JSON and protobuf of the same message are accepted or refused alike: required
//!   fields are checked in both, and the error names the first path that is missing.

mod codec;
pub mod descriptor;
#[doc(hidden)]
pub mod fuzzing;
pub mod json;
pub mod media;
mod path;
pub mod recordio;
mod scan;
pub mod wire;

/// Generated from `proto/`, module for package.
#[allow(missing_docs, clippy::all, deprecated)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use generated::{mesos, tepui};

/// Every message and service with its comments, for reflection and for the JSON codec.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
