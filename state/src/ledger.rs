//! Books about rows: which have changed, and the hash over all of them.
//!
//! The hash of the state is the wrapping sum of one 64-bit hash per row, so it does
//! not depend on order or history and one changed row costs one subtraction and one
//! addition. Hashing is lazy: a row that changes ten times between two looks at the
//! hash is encoded once.
//!
//! The hash finds replicas that differ by a mistake or a broken disk; it does not
//! withstand somebody who chooses rows to collide, and need not: only the leader
//! chooses rows.

use std::{collections::BTreeSet, sync::Arc};

use prost::Message;
use tepui_model::hash;

use crate::key::RowKey;

/// A row in its table, with its share of the hash.
#[derive(Clone, Debug)]
pub(crate) struct Slot<V> {
    pub(crate) row: Arc<V>,
    // `None` since it changed, until the hash is asked for.
    hash: Option<u64>,
}

impl<V: Clone> Slot<V> {
    pub(crate) fn new(row: Arc<V>) -> Slot<V> {
        Slot { row, hash: None }
    }

    /// Changes the row in place (a copy when somebody shares it) and returns the share of the
    /// hash that it had.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut V)) -> Option<u64> {
        change(Arc::make_mut(&mut self.row));
        self.hash.take()
    }

    pub(crate) fn hash(&self) -> Option<u64> {
        self.hash
    }
}

/// A row of any table, to be encoded later and elsewhere.
pub(crate) trait AnyRow: Send + Sync {
    fn encode_row(&self) -> Vec<u8>;
}

pub(crate) type SharedRow = Arc<dyn AnyRow>;

impl<V: Message> AnyRow for V {
    fn encode_row(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// A slot of any table.
pub(crate) trait AnySlot {
    fn encode(&self) -> Vec<u8>;
    fn share(&self) -> SharedRow;
    fn set_hash(&mut self, hash: u64);
}

impl<V: Message + 'static> AnySlot for Slot<V> {
    fn encode(&self) -> Vec<u8> {
        self.row.encode_to_vec()
    }

    fn share(&self) -> SharedRow {
        Arc::clone(&self.row) as SharedRow
    }

    fn set_hash(&mut self, hash: u64) {
        self.hash = Some(hash);
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    // Sum over the rows that are not in `unhashed`.
    sum: u64,
    unhashed: BTreeSet<RowKey>,
    // Nobody will ask for the hash.
    stopped: bool,
    // Changed or removed since the last `take_dirty`; `None` in a copy.
    dirty: Option<BTreeSet<RowKey>>,
}

impl Clone for Ledger {
    /// Writing behind is the original's business: a copy that nobody drains would only grow.
    fn clone(&self) -> Ledger {
        Ledger {
            sum: self.sum,
            unhashed: self.unhashed.clone(),
            stopped: self.stopped,
            dirty: None,
        }
    }
}

impl Ledger {
    pub(crate) fn new() -> Ledger {
        Ledger {
            sum: 0,
            unhashed: BTreeSet::new(),
            stopped: false,
            dirty: Some(BTreeSet::new()),
        }
    }

    /// The row was put or edited; `old` is the share of what it replaced.
    pub(crate) fn changed(&mut self, key: RowKey, old: Option<u64>) {
        if self.stopped {
            return;
        }
        self.sum = self.sum.wrapping_sub(old.unwrap_or(0));
        if let Some(dirty) = &mut self.dirty {
            dirty.insert(key.clone());
        }
        self.unhashed.insert(key);
    }

    /// The row is gone; `old` is the share it had.
    pub(crate) fn removed(&mut self, key: RowKey, old: Option<u64>) {
        if self.stopped {
            return;
        }
        self.sum = self.sum.wrapping_sub(old.unwrap_or(0));
        self.unhashed.remove(&key);
        if let Some(dirty) = &mut self.dirty {
            dirty.insert(key);
        }
    }

    pub(crate) fn take_unhashed(&mut self) -> BTreeSet<RowKey> {
        std::mem::take(&mut self.unhashed)
    }

    pub(crate) fn unhashed_len(&self) -> usize {
        self.unhashed.len()
    }

    /// From here on nothing is written down.
    pub(crate) fn stop(&mut self) {
        *self = Ledger {
            stopped: true,
            dirty: None,
            ..Ledger::new()
        };
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn add(&mut self, hash: u64) {
        self.sum = self.sum.wrapping_add(hash);
    }

    pub(crate) fn sum(&self) -> u64 {
        debug_assert!(self.unhashed.is_empty());
        self.sum
    }

    pub(crate) fn take_dirty(&mut self) -> BTreeSet<RowKey> {
        self.dirty.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.as_ref().map_or(0, BTreeSet::len)
    }

    /// The keys that are to be written go over to the books of another copy of the same rows.
    pub(crate) fn hand_over_dirty(&mut self, to: &mut Ledger) {
        to.dirty = self.dirty.take();
    }

    pub(crate) fn start_tracking(&mut self) {
        self.dirty = Some(BTreeSet::new());
    }
}

/// The hash of one row: its key's bytes, then its own.
pub(crate) fn row_hash(key: &RowKey, row: &[u8]) -> u64 {
    hash::bytes(hash::bytes(hash::SEED, &key.to_bytes()), row)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The hash is compared between releases: its values are permanent.
    #[test]
    fn values_are_permanent() {
        let hash = row_hash(&RowKey::Agent("a".into()), b"0123456789");
        assert_eq!(hash, 13_961_981_771_139_547_565);
    }
}
