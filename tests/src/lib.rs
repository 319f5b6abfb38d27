//! What the tests of real processes share: a cluster of the built binaries, an HTTP
//! client that shows the bytes, and the comparison with recorded exchanges.

pub mod cluster;
pub mod golden;
pub mod http;
mod leftovers;
pub mod scheduler;
pub mod story;
pub mod torture;
