//! The replicated log of a master, on its disk and its threads.
//!
//! [`Store::open`] finds what the last process left: rows as of an applied index, and the
//! log. [`Replica::start`] runs the pure node (`tepui-replication-node`) over it:
//!
//! ```text
//!  machine ── Handle::propose ──►  raft thread  ── batches ──►  log thread (one fsync for many)
//!                                   │  ▲  │ └────── wake ◄──────────┘
//!           Listener::on_committed ◄┘  │  └── dirty rows, every second or 64 MiB ──► rows thread
//!                              peers' messages                                        │
//!                                   ▲──────────── applied index is durable ───────────┘
//! ```
//!
//! The raft thread is that of a small runtime, which the owner gives and which also reads and
//! writes the links to the peers; the other two are plain threads. A [`Listener`] lives on the raft
//! thread: it owns the committed state, receives every committed entry and hands out dirty rows.
//!
//! # Invariants
//! - What [`Listener::on_committed`] receives is durable here and on a quorum; after a crash it
//!   is there again. Each entry is received once, in order, after the rows' applied index.
//! - Rows and their applied index are written as one; the log is cut behind it only once it is
//!   durable.
//! - After a failed write or fsync nothing more is acknowledged: the process ends
//!   ([`Options::on_fatal`]).
//! - All of RocksDB is in `rocks.rs`.

mod fatal;
mod listener;
mod marks;
mod options;
mod priority;
mod raft_thread;
mod replica;
mod rocks;
mod store;
mod transfer;
mod writers;

pub use fatal::Fatal;
pub use listener::{BoxError, Listener, RowChange, RowChanges};
pub use options::Options;
pub use priority::go_first;
pub use replica::{
    Full, Handle, Permit, Position, ProposeError, Proposed, Replica, Status, Written,
};
pub use rocks::DiskFailure;
pub use store::{Identity, OpenError, Row, Salvage, Store};
pub use tepui_replication_node::{
    Committed, MemberChange, Members, NodeId, Origin, Outgoing, Peer, Role, StepError, Ticket,
};
pub use transfer::{Checksum, FetchError, FetchedRows, Prepared, RowsPart, RowsSink, RowsWriter};
