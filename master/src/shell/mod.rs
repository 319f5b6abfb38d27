//! The master's shell: threads, sockets, clocks and disks around the pure machine.

pub(crate) mod agent_links;
pub(crate) mod core;
pub(crate) mod destinations;
pub(crate) mod door;
mod explain;
pub(crate) mod grpc;
pub(crate) mod grpc_scheduler;
pub(crate) mod grpc_state;
pub(crate) mod http;
pub(crate) mod http_scheduler;
pub(crate) mod intake;
pub(crate) mod leadership;
pub(crate) mod mailbox;
pub(crate) mod members;
pub(crate) mod metrics;
pub(crate) mod operator;
pub(crate) mod operator_events;
pub(crate) mod operator_stream;
pub(crate) mod peers;
pub(crate) mod raft;
pub(crate) mod reads;
pub(crate) mod sessions;
pub(crate) mod stale;
pub(crate) mod view_thread;
pub(crate) mod writes;
pub(crate) mod zookeeper;
