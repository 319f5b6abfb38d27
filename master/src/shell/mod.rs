//! The master's shell: threads, sockets, clocks and disks around the pure machine.

pub(crate) mod core;
pub(crate) mod destinations;
pub(crate) mod intake;
pub(crate) mod raft;
pub(crate) mod survivors;
pub(crate) mod view_thread;
