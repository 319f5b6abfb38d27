//! The replicated state of a cluster: rows, and the operations that change them.
//!
//! Every master holds a [`ClusterState`] that committed log entries move
//! ([`ClusterState::take_entry`]); the leader's machine holds a second one, born from
//! a [`Clone`] of the first, which it moves at once with every [`ClusterState::apply`].
//! Rows are the protobuf messages of `tepui.log.v1`, shared by `Arc` in tables that share
//! their nodes: a copy of the whole state costs next to nothing, however large it is.
//!
//! Rows reach the disk behind the log: [`ClusterState::take_dirty`] hands out what
//! changed since it was called last, [`ClusterState::load`] rebuilds a state from rows.
//!
//! # Invariants
//! - `apply` reads no clock, disk or random number, decides nothing and checks nothing:
//!   same state, same operation, same result, on every replica of every release.
//! - Cascades follow keys alone: removing a framework is one operation of a few bytes.
//! - Every row changed by an operation is named by it or hangs by key on one that is.
//! - The hash is that of the set of rows, whatever history led to it.
//! - An agent is in exactly one of admitted, unreachable and gone.
//! - Rings (completed frameworks, completed and unreachable tasks of a framework, recent
//!   writes of a principal) are
//!   bounded by constants, never by a flag, or replicas would differ.

pub use tepui_model as model;

mod apply;
mod check;
mod key;
mod ledger;
mod load;
mod put;
mod state;
mod table;
mod variables;

pub use apply::{ApplyError, decode_entry, is_terminal};
pub use key::{KeyError, RowKey};
pub use load::{DirtyRows, LoadError};
pub use state::{
    ClusterState, MAX_COMPLETED_FRAMEWORKS, MAX_COMPLETED_TASKS, MAX_UNREACHABLE_TASKS,
    SYNTHETIC_VERSION, VERSION,
};
pub use variables::{MAX_RECENT_WRITES, Owner, ROW_OVERHEAD, variable_bytes};
