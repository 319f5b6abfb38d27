//! What a replica tells its owner.

use bytes::Bytes;
use tepui_replication_node::{Committed, Members, NodeId, Origin, Outgoing};

use crate::transfer::Prepared;

/// An error of whatever the listener does.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A row that changed: its key, and its bytes or `None` when it is gone.
pub type RowChange = (Bytes, Option<Bytes>);

/// Rows that changed, to be encoded on the thread that writes them.
pub type RowChanges = Box<dyn FnOnce() -> Vec<RowChange> + Send>;

/// The owner of the committed state. Called on the raft thread alone, one call at a time; a call
/// that takes long delays commits and heartbeats, so it hands on what it can.
pub trait Listener: Send {
    /// An entry has been committed: apply it. Every entry after the rows' applied index comes
    /// once, in order.
    ///
    /// # Errors
    /// The entry cannot be applied; the process must end ([`crate::Fatal::Apply`]).
    fn on_committed(&mut self, entry: Committed) -> Result<(), BoxError>;

    /// The rows that changed since the last call. They are as of everything received by
    /// [`Listener::on_committed`] so far and will be written with its index as one. Encoding
    /// them is left to the thread that writes.
    fn take_dirty_rows(&mut self) -> RowChanges;

    /// This master leads `term` from now on, and has applied everything from before. It may
    /// propose ([`crate::Handle::propose`]) until the next [`Listener::on_follower`].
    fn on_leader(&mut self, term: u64);

    /// This master does not lead (any more). `leader` is who does, when known. Proposals that
    /// were not received yet may still be committed, or never.
    fn on_follower(&mut self, leader: Option<NodeId>);

    /// This master still led after [`crate::Handle::confirm`] was called with `ticket` or a
    /// later one, and has applied everything that was committed then.
    fn on_confirmed(&mut self, ticket: u64);

    /// The newest term seen has risen.
    fn on_term(&mut self, term: u64) {
        let _ = term;
    }

    /// The committed state is that of rows fetched from another master
    /// ([`crate::Handle::restore`]) from now on; every entry after `origin` comes next. `prepared`
    /// is what the owner made of them before, where there was time for it.
    ///
    /// # Errors
    /// The rows cannot be used; the process must end ([`crate::Fatal::Restore`]).
    fn on_restored(&mut self, origin: &Origin, prepared: Prepared) -> Result<(), BoxError> {
        let _ = (origin, prepared);
        Err("this owner cannot go on with rows of another master".into())
    }

    /// A message for a peer. Losing it does no harm; a ticket's fate must be reported. A group
    /// of one never sends.
    fn on_send(&mut self, message: Outgoing) {
        let _ = message;
    }

    /// The members have changed.
    fn on_members(&mut self, members: &Members) {
        let _ = members;
    }
}
