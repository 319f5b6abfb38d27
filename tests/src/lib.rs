//! What the tests of real processes share: a cluster of the built binaries with
//! one master or several, an HTTP
//! client that shows the bytes, and the comparison with recorded exchanges.

pub mod cluster;
pub mod golden;
pub mod http;
mod leftovers;
pub mod masters;
pub mod scheduler;
pub mod stores;
pub mod story;
pub mod torture;
pub mod zookeeper;
