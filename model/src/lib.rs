//! What a cluster is made of: ids, time, resources, roles, attributes, frameworks, agents,
//! tasks, offers, operations, calls and events, and the checks that need no state.
//!
//! Everything here is a value: it is parsed once at the door, checked there, and carried
//! unchanged through the machines. Messages of the wire are reached through [`wire`], [`log`]
//! and [`link`], so that the pure crates need no arrow to the protocol crate.
//!
//! # Invariants
//!
//! - No clock, no randomness, no I/O, no threads: time and seeds are arguments.
//! - No input makes anything here panic; a refusal names the field and what would be right.
//! - Quantities are integers (thousandths), never floating point: `a + b - b == a` exactly.
//! - A [`Resources`] value is normalised at all times: entries that can be merged are merged,
//!   empty ones are gone, and the order of first insertion is kept.
//! - What a framework sent is kept beside what was read of it (`payload`), so that fields this
//!   version does not know travel on.
//! - Nothing that iterates a hash table reaches an output.

pub mod agent;
pub mod attribute;
pub mod call;
pub mod digest;
pub mod event;
pub mod executor;
pub mod framework;
pub mod hash;
pub mod id;
pub mod label;
pub mod offer;
pub mod operation;
mod payload;
pub mod resources;
pub mod role;
pub mod task;
pub mod time;
pub mod validation;

pub use id::{
    AgentId, ContainerId, ExecutorId, FrameworkId, MasterId, OfferId, OperationId, PersistenceId,
    Principal, TaskId, Uuid,
};
pub use resources::{Quantities, Resource, Resources, Scalar};
pub use role::Role;

/// The Mesos v1 messages.
pub use tepui_proto::mesos::v1 as wire;
/// The messages between a master and an agent.
pub use tepui_proto::tepui::agent::v1 as link;
/// The operations and rows of the replicated log.
pub use tepui_proto::tepui::log::v1 as log;
/// What the operator API has beyond Mesos.
pub use tepui_proto::tepui::operator::v1 as operator;
