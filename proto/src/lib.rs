//! Bytes to messages and back: the Mesos v1 API and the protocols of our own.
//!
//! # Invariants
//!
//! - Field numbers and enum values equal Mesos'.
//! - No logic: what a message means is decided elsewhere.

/// Generated from `proto/`, module for package.
#[allow(missing_docs, clippy::all, deprecated)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use generated::{mesos, tepui};

/// Every message and service with its comments, for reflection and for the JSON codec.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
