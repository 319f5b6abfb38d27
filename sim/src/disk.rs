//! Disks that persist late, forget at a crash what was not synced, and fail.
//!
//! A master has two stores, as in production: the log, written in groups of batches each of which
//! survives a crash wholly or not at all, and the rows, written behind. What a crash leaves of
//! unsynced groups is a prefix, as a log with check sums leaves it.

use bytes::Bytes;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
use tepui_replication_node::{Batch, Disk, DiskError, Origin, Stored};

/// Entries and the record beside them.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Encoded entries by index.
    pub entries: BTreeMap<u64, Bytes>,
    /// The newest record.
    pub state: Option<Bytes>,
}

impl Image {
    fn write(&mut self, batch: &Batch) {
        if let Some(to) = batch.delete_to {
            self.entries = self.entries.split_off(&(to + 1));
        }
        if let Some(from) = batch.delete_from {
            self.entries.split_off(&from);
        }
        for (index, bytes) in &batch.entries {
            self.entries.insert(*index, bytes.clone());
        }
        if let Some(state) = &batch.state {
            self.state = Some(state.clone());
        }
    }
}

/// The log's store.
#[derive(Clone, Debug, Default)]
pub struct LogStore {
    // As the process sees it.
    current: Image,
    // As a crash leaves it at least.
    durable: Image,
    // Written since the last sync, oldest first.
    unsynced: Vec<Vec<Batch>>,
}

impl LogStore {
    /// A group has been written; with a sync it and all before it are durable.
    pub fn write(&mut self, group: Vec<Batch>, sync: bool) {
        for batch in &group {
            self.current.write(batch);
        }
        self.unsynced.push(group);
        if sync {
            for group in self.unsynced.drain(..) {
                for batch in &group {
                    self.durable.write(batch);
                }
            }
        }
    }

    /// The power goes: of what was not synced, `keep` groups survive.
    pub fn crash(&mut self, keep: usize) {
        for group in self.unsynced.drain(..).take(keep) {
            for batch in &group {
                self.durable.write(batch);
            }
        }
        self.current = self.durable.clone();
    }

    /// Groups that a crash may take.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The newest record, if a crash now would leave it.
    pub fn durable_state(&self) -> Option<&Bytes> {
        self.durable.state.as_ref()
    }

    /// The entry under an index, if a crash now would leave it.
    pub fn durable_entry(&self, index: u64) -> Option<&Bytes> {
        self.durable.entries.get(&index)
    }
}

/// The log as the node reads it back.
#[derive(Clone, Debug, Default)]
pub struct SharedLog(pub Rc<RefCell<LogStore>>);

impl SharedLog {
    /// What a starting node is told.
    pub fn stored(&self, origin: Option<Origin>) -> Stored {
        let store = self.0.borrow();
        Stored {
            state: store.current.state.clone(),
            last_index: store
                .current
                .entries
                .last_key_value()
                .map_or(0, |(index, _)| *index),
            origin,
        }
    }
}

impl Disk for SharedLog {
    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Bytes>, DiskError> {
        let store = self.0.borrow();
        let mut bytes = 0;
        let mut found = Vec::new();
        for (expected, (index, entry)) in (low..).zip(store.current.entries.range(low..high)) {
            if *index != expected {
                return Err(DiskError(format!("entry {expected} is missing")));
            }
            bytes += entry.len() as u64;
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }
}

/// The rows' store: every write is one, synced.
#[derive(Clone, Debug, Default)]
pub struct RowStore {
    /// Rows by key.
    pub rows: BTreeMap<Bytes, Bytes>,
    /// As of which entry they are; 0 at the beginning.
    pub applied: u64,
    /// That entry, its term, and the members as of it.
    pub stamp: Option<Origin>,
    /// They came from another master, and no rows of the replica's own are written over them.
    pub copied: bool,
}

impl RowStore {
    /// Writes changed rows with the entry as of which they are.
    pub fn write(&mut self, changes: Vec<(Bytes, Option<Bytes>)>, stamp: Origin) {
        for (key, row) in changes {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        self.applied = stamp.index;
        self.stamp = Some(stamp);
        self.copied = false;
    }

    /// What a starting node is told of rows that came from another master.
    pub fn origin(&self) -> Option<Origin> {
        self.stamp.clone().filter(|_| self.copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(index: u64) -> Batch {
        Batch {
            entries: vec![(index, Bytes::from_static(b"x"))],
            state: Some(Bytes::from(vec![index as u8])),
            ..Batch::default()
        }
    }

    #[test]
    fn a_crash_takes_what_was_not_synced() {
        let mut store = LogStore::default();
        store.write(vec![batch(1)], true);
        store.write(vec![batch(2)], false);
        store.write(vec![batch(3), batch(4)], false);
        let mut half = store.clone();
        half.crash(1);
        assert_eq!(half.current.entries.len(), 2);
        store.crash(0);
        assert_eq!(store.current.entries.len(), 1);
        assert_eq!(store.current.state, Some(Bytes::from(vec![1])));
        store.write(vec![batch(2)], false);
        store.write(vec![batch(3)], true);
        store.crash(0);
        assert_eq!(store.current.entries.len(), 3);
    }
}
