//! What masters and agents share at the door: one port for HTTP/1.1, HTTP/2 and gRPC,
//! bodies and answers by Mesos' rules, paths as libprocess had them, files, flags, logs.
//!
//! # Invariants
//!
//! - What a client sends is bounded: headers in size and time, bodies in size also when
//!   they are compressed, connections in number.
//! - A refusal is a status with a text that names what was wrong; it never ends a process.
//! - No file outside an attached folder can be read, whatever the path says.
//! - The environment is read by the flags alone.

pub mod accounts;
pub mod body;
pub mod files;
pub mod flags;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod respond;
pub mod routing;
pub mod system;
pub mod version;
pub mod zookeeper;

pub use tepui_auth as auth;
pub use tepui_proto as proto;
