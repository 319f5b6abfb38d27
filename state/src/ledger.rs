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
//!
//! Slots know where their keys stand in the books, so that a row that changes again costs
//! nothing there, and one that comes and goes between two writings is never written. What is to
//! be written stands on a page; each writing turns it, and a slot that names an older page stands
//! nowhere.

use std::sync::Arc;

use prost::Message;
use tepui_model::hash;

use crate::key::RowKey;

/// A row in its table, with its share of the hash and its place in the books.
#[derive(Clone, Debug)]
pub(crate) struct Slot<V> {
    pub(crate) row: Arc<V>,
    // While it is hashed; otherwise the key stands among the unhashed.
    hash: u64,
    is_hashed: bool,
    // The page on which the key stands as changed; 0 for none.
    page: u32,
    // The row came on that page: the disk has none of its key, or it is among those gone.
    is_new: bool,
}

impl<V> Slot<V> {
    fn new(row: Arc<V>) -> Slot<V> {
        Slot {
            row,
            hash: 0,
            is_hashed: false,
            page: 0,
            is_new: false,
        }
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
    fn is_hashed(&self) -> bool;
    fn set_hash(&mut self, hash: u64);
}

impl<V: Message + 'static> AnySlot for Slot<V> {
    fn encode(&self) -> Vec<u8> {
        self.row.encode_to_vec()
    }

    fn share(&self) -> SharedRow {
        Arc::clone(&self.row) as SharedRow
    }

    fn is_hashed(&self) -> bool {
        self.is_hashed
    }

    fn set_hash(&mut self, hash: u64) {
        self.hash = hash;
        self.is_hashed = true;
    }
}

/// What is to be written to the disk.
#[derive(Debug)]
struct Dirty {
    // Rises with every writing; slots name it.
    page: u32,
    // Put or edited; some twice, and some gone since.
    changed: Vec<RowKey>,
    // Removed, though the disk may have them; some are there again since.
    gone: Vec<RowKey>,
}

impl Dirty {
    fn begin(page: u32) -> Dirty {
        Dirty {
            page,
            changed: Vec::new(),
            gone: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    // Sum over the rows that are hashed.
    sum: u64,
    // The other ones; some twice, and some gone since.
    unhashed: Vec<RowKey>,
    // Nobody will ask for the hash.
    stopped: bool,
    // `None` in a copy.
    dirty: Option<Dirty>,
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
            unhashed: Vec::new(),
            stopped: false,
            dirty: Some(Dirty::begin(1)),
        }
    }

    /// A row that was not there; `key` is only asked for when it is written down.
    pub(crate) fn add<V>(&mut self, row: Arc<V>, key: impl FnOnce() -> RowKey) -> Slot<V> {
        let mut slot = Slot::new(row);
        if self.stopped {
            return slot;
        }
        let key = key();
        if let Some(dirty) = &mut self.dirty {
            dirty.changed.push(key.clone());
            slot.page = dirty.page;
            slot.is_new = true;
        }
        self.unhashed.push(key);
        slot
    }

    /// Another row in the place of the one that is there, which is returned.
    pub(crate) fn replace<V>(
        &mut self,
        slot: &mut Slot<V>,
        row: Arc<V>,
        key: impl FnOnce() -> RowKey,
    ) -> Arc<V> {
        let old = std::mem::replace(&mut slot.row, row);
        self.note(slot, key);
        old
    }

    /// Changes a row in place, or a copy when somebody shares it.
    pub(crate) fn edit<V: Clone>(
        &mut self,
        slot: &mut Slot<V>,
        key: impl FnOnce() -> RowKey,
        change: impl FnOnce(&mut V),
    ) {
        change(Arc::make_mut(&mut slot.row));
        self.note(slot, key);
    }

    /// The row is not what it was.
    fn note<V>(&mut self, slot: &mut Slot<V>, key: impl FnOnce() -> RowKey) {
        if self.stopped {
            return;
        }
        let was_hashed = std::mem::replace(&mut slot.is_hashed, false);
        if was_hashed {
            self.sum = self.sum.wrapping_sub(slot.hash);
        }
        let dirty = self.dirty.as_mut().filter(|it| it.page != slot.page);
        if !was_hashed && dirty.is_none() {
            return;
        }
        let key = key();
        if let Some(dirty) = dirty {
            slot.page = dirty.page;
            slot.is_new = false;
            dirty.changed.push(key.clone());
        }
        if was_hashed {
            self.unhashed.push(key);
        }
    }

    /// A row is gone.
    pub(crate) fn removed<V>(&mut self, slot: &Slot<V>, key: impl FnOnce() -> RowKey) {
        if self.stopped {
            return;
        }
        if slot.is_hashed {
            self.sum = self.sum.wrapping_sub(slot.hash);
        }
        if let Some(dirty) = &mut self.dirty
            && !(slot.is_new && slot.page == dirty.page)
        {
            dirty.gone.push(key());
        }
    }

    /// What may have to be hashed; see [`AnySlot::is_hashed`].
    pub(crate) fn take_unhashed(&mut self) -> Vec<RowKey> {
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

    pub(crate) fn add_hash(&mut self, hash: u64) {
        self.sum = self.sum.wrapping_add(hash);
    }

    pub(crate) fn sum(&self) -> u64 {
        debug_assert!(self.unhashed.is_empty());
        self.sum
    }

    /// Keys of rows to be written, if they are there, and of rows to be removed, if they are not.
    pub(crate) fn take_dirty(&mut self) -> (Vec<RowKey>, Vec<RowKey>) {
        let Some(dirty) = &mut self.dirty else {
            return (Vec::new(), Vec::new());
        };
        let next = Dirty::begin(dirty.page + 1);
        let taken = std::mem::replace(dirty, next);
        (taken.changed, taken.gone)
    }

    pub(crate) fn dirty_len(&self) -> usize {
        let dirty = self.dirty.as_ref();
        dirty.map_or(0, |it| it.changed.len() + it.gone.len())
    }

    /// The keys that are to be written go over to the books of another copy of the same rows,
    /// whose slots know nothing of them: on a page that none of them names.
    pub(crate) fn hand_over_dirty(&mut self, to: &mut Ledger) {
        to.dirty = self.dirty.take().map(|it| Dirty {
            page: it.page + 1,
            ..it
        });
    }

    /// Nothing is dirty as of now.
    pub(crate) fn start_tracking(&mut self) {
        let page = self.dirty.as_ref().map_or(0, |it| it.page);
        self.dirty = Some(Dirty::begin(page + 1));
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
