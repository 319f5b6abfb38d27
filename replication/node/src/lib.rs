//! One voter of the replicated log, without I/O: a deterministic wrapper of `raft`.
//!
//! A [`Node`] is told about ticks, messages, proposals and finished writes, and answers
//! with a [`Ready`]: what to send, what to persist, what has been committed. It reads
//! old entries back through a [`Disk`]; everything else it needs it holds in memory.
//! Bytes on the wire and on the disk are messages of our own (`codec`).
//!
//! # Invariants
//! - No clock, no thread, no randomness: same calls, same bytes out. Election time-outs
//!   are a function of seed, node, term and leader.
//! - A vote, and what a follower acknowledges, leaves after it is durable; a leader's
//!   entries leave before, but it counts its own copy only when it is durable.
//! - What [`Ready::committed`] hands out is durable here and on a quorum, in order,
//!   without gaps, each entry once in the life of a node.
//! - A proposal is accepted by an announced leader alone and never forwarded; an entry
//!   whose decided term is not its Raft term is skipped by every node.

mod codec;
mod disk;
mod log;
mod members;
mod node;

pub use disk::{
    Batch, Disk, DiskError, Origin, Stored, cut_of_state, first_state, members_of_state,
    seize_state,
};
pub use members::{MemberChange, Members};
pub use node::{
    Committed, Config, NewError, Node, Outgoing, Peer, Persist, ProposeError, Read, Ready, Role,
    StepError, Ticket,
};

/// Names a member of the group; never 0.
pub type NodeId = u64;
