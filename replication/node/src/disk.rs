//! What a node asks of the disk: bytes under indices, read back rarely, written in batches.

use bytes::Bytes;

use crate::{NodeId, codec, codec::State, members::Members};

/// Reads the log back. A node keeps the newest entries in memory and asks for older ones
/// alone: after a start, and for peers that lag behind.
pub trait Disk {
    /// Encoded entries from `low` up to but not including `high`: at least the first one, then
    /// about `max_bytes` in all. Every one asked for has been in a batch that is written.
    ///
    /// # Errors
    /// The disk failed or an entry is missing. The node cannot go on without and panics, which
    /// must end the process.
    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Bytes>, DiskError>;
}

impl<D: Disk> Disk for &D {
    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Bytes>, DiskError> {
        (**self).entries(low, high, max_bytes)
    }
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("log cannot be read: {0}")]
pub struct DiskError(pub String);

/// What a disk holds when a node starts.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// [`Batch::state`] of the newest batch; `None` on an empty disk.
    pub state: Option<Bytes>,
    /// Index of the last entry; 0 when there is none.
    pub last_index: u64,
    /// Where the rows came from, when another master sent them and until later ones are stored:
    /// they may be ahead of the log, which then begins anew behind them.
    pub origin: Option<Origin>,
}

/// What rows that come from another master stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Last entry whose effects they hold.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The members as of that entry.
    pub members: Members,
}

impl Origin {
    /// For a record beside the rows, and for the wire.
    pub fn encode(&self) -> Bytes {
        codec::encode_origin(self)
    }

    /// What [`Origin::encode`] made.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Origin, DiskError> {
        codec::decode_origin(bytes).map_err(|it| DiskError(it.to_string()))
    }
}

/// [`Stored::state`] of a member that has heard nothing yet: so that its members are on the disk
/// before it votes, and do not come from flags at its next start.
pub fn first_state(members: &Members) -> Bytes {
    let state = State {
        members: members.clone(),
        ..State::default()
    };
    state.encode()
}

/// The members that a record beside the entries names.
///
/// # Errors
/// The record is damaged.
pub fn members_of_state(record: &[u8]) -> Result<Members, DiskError> {
    let state = State::decode(record).map_err(|it| DiskError(it.to_string()))?;
    Ok(state.members)
}

/// The last entry that is not in the log any more, as the record beside the entries says: rows
/// from before are of no use to this log.
///
/// # Errors
/// The record is damaged.
pub fn cut_of_state(record: &[u8]) -> Result<u64, DiskError> {
    let state = State::decode(record).map_err(|it| DiskError(it.to_string()))?;
    Ok(state.cut_index)
}

/// A record beside the entries in which this node alone votes, for a cluster that has lost its
/// quorum for good. Term, vote and log stay as they are; changes of members that the log, which
/// ends at `last_index`, still holds are of the members before and have no effect.
///
/// # Errors
/// The record is damaged.
pub fn seize_state(
    record: &[u8],
    id: NodeId,
    note: Bytes,
    last_index: u64,
) -> Result<Bytes, DiskError> {
    let mut state = State::decode(record).map_err(|it| DiskError(it.to_string()))?;
    let mut members = Members::voters([id]);
    members.inherit(&state.members, [(id, note)].into());
    state.members = members;
    state.members_index = last_index;
    Ok(state.encode())
}

/// Written as one, in the order of the batches: all of it or nothing survives a crash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Entries with a smaller or equal index are deleted.
    pub delete_to: Option<u64>,
    /// Entries with this or a larger index are deleted, before `entries` are put.
    pub delete_from: Option<u64>,
    /// Index and bytes, without gaps; each replaces what lies under its index.
    pub entries: Vec<(u64, Bytes)>,
    /// Replaces the record beside the entries.
    pub state: Option<Bytes>,
    /// Whether it must be durable before it is confirmed. Otherwise losing it does no harm.
    pub must_sync: bool,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.delete_to.is_none()
            && self.delete_from.is_none()
            && self.entries.is_empty()
            && self.state.is_none()
    }

    /// Bytes of the entries.
    pub fn entry_bytes(&self) -> usize {
        self.entries.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}
