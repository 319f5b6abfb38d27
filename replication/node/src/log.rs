//! The log as consensus reads it: the newest entries from memory, older ones from the disk.

use std::collections::VecDeque;

use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};

use crate::{
    codec::{self, State},
    disk::{Disk, DiskError},
};

#[derive(Debug)]
pub(crate) struct Log<D> {
    disk: D,
    pub(crate) state: State,
    // Without gaps up to the last entry; those before lie on the disk alone.
    tail: VecDeque<Entry>,
    tail_bytes: u64,
    last_index: u64,
    // Index and term of the newest entry handed out as committed.
    pub(crate) handed: (u64, u64),
}

// What an entry costs in memory and, about, on the wire.
fn size(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + 32) as u64
}

impl<D: Disk> Log<D> {
    pub(crate) fn new(disk: D, state: State, last_index: u64) -> Log<D> {
        let last_index = last_index.max(state.cut_index);
        Log {
            disk,
            state,
            tail: VecDeque::new(),
            tail_bytes: 0,
            last_index,
            handed: (0, 0),
        }
    }

    fn tail_first(&self) -> u64 {
        self.last_index + 1 - self.tail.len() as u64
    }

    /// Appends entries; those with the same or a larger index are replaced. Returns the first
    /// index that was dropped without a replacement.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Option<u64> {
        let first = entries.first()?.index;
        let dropped_to = self.last_index;
        assert!(
            self.state.cut_index < first && first <= dropped_to + 1,
            "entry {first} appended to a log of {}..={dropped_to}",
            self.state.cut_index + 1,
        );
        while self.last_index >= first {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= size(&entry);
            }
            self.last_index -= 1;
        }
        for entry in entries {
            self.tail_bytes += size(entry);
            self.tail.push_back(entry.clone());
            self.last_index += 1;
        }
        (self.last_index < dropped_to).then_some(self.last_index + 1)
    }

    /// Forgets entries in memory, oldest first, down to `max_bytes`; those after `keep_from` stay.
    pub(crate) fn trim(&mut self, keep_from: u64, max_bytes: u64) {
        while self.tail_bytes > max_bytes
            && let Some(entry) = self.tail.front()
            && entry.index < keep_from
        {
            self.tail_bytes -= size(entry);
            self.tail.pop_front();
        }
    }

    /// Forgets everything up to and including `index`.
    pub(crate) fn cut(&mut self, index: u64, term: u64) {
        self.state.cut_index = index;
        self.state.cut_term = term;
        while let Some(entry) = self.tail.front()
            && entry.index <= index
        {
            self.tail_bytes -= size(entry);
            self.tail.pop_front();
        }
    }

    /// Forgets the whole log: it begins anew behind a ticket.
    pub(crate) fn restart(&mut self, index: u64, term: u64) {
        self.tail.clear();
        self.tail_bytes = 0;
        self.state.cut_index = index;
        self.state.cut_term = term;
        self.last_index = index;
        self.handed = (index, term);
    }

    fn read(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, DiskError> {
        let mut entries = Vec::new();
        for bytes in self.disk.entries(low, high, max_bytes)? {
            let entry = codec::decode_entry(bytes).map_err(|it| DiskError(it.to_string()))?;
            let expected = low + entries.len() as u64;
            if entry.index != expected {
                let found = entry.index;
                let text = format!("entry {expected} is missing; found {found} in its place");
                return Err(DiskError(text));
            }
            entries.push(entry);
        }
        match entries.is_empty() {
            true => Err(DiskError(format!("entry {low} is missing"))),
            false => Ok(entries),
        }
    }
}

fn failed(error: DiskError) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl<D: Disk> Storage for Log<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard = HardState {
            term: self.state.term,
            vote: self.state.vote,
            commit: self.state.commit,
            ..HardState::default()
        };
        let members: ConfState = codec::to_conf_state(&self.state.members);
        Ok(RaftState::new(hard, members))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.state.cut_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last_index + 1, "{high} is behind the log");
        let max = max_size.into().unwrap_or(u64::MAX);
        let first = self.tail_first();
        let mut entries = Vec::new();
        if low < first {
            entries = self.read(low, high.min(first), max).map_err(failed)?;
        }
        let mut bytes: u64 = entries.iter().map(size).sum();
        // The disk stopped early, at its limit.
        let from = low + entries.len() as u64;
        if from < first {
            return Ok(entries);
        }
        for index in from..high {
            // Below `high`, which is inside the log.
            let entry = &self.tail[(index - first) as usize];
            bytes += size(entry);
            if bytes > max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.state.cut_index {
            return Ok(self.state.cut_term);
        }
        if index < self.state.cut_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last_index {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let first = self.tail_first();
        if index >= first {
            return Ok(self.tail[(index - first) as usize].term);
        }
        let entries = self.read(index, index + 1, 0).map_err(failed)?;
        Ok(entries[0].term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.state.cut_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    /// A ticket alone: rows travel beside consensus.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let (index, term) = self.handed;
        if index < request_index || index == 0 {
            let error = StorageError::SnapshotTemporarilyUnavailable;
            return Err(raft::Error::Store(error));
        }
        Ok(codec::snapshot(index, term, &self.state.members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    struct Entries(Vec<Entry>);

    impl Disk for Entries {
        fn entries(&self, low: u64, high: u64, max: u64) -> Result<Vec<Bytes>, DiskError> {
            let mut bytes = 0;
            let mut found = Vec::new();
            for entry in self.0.iter().filter(|it| (low..high).contains(&it.index)) {
                bytes += size(entry);
                if bytes > max && !found.is_empty() {
                    break;
                }
                found.push(codec::encode_entry(entry));
            }
            Ok(found)
        }
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: Bytes::from(vec![0; 68]),
            ..Entry::default()
        }
    }

    fn indices(log: &Log<Entries>, low: u64, high: u64, max: u64) -> Vec<u64> {
        let entries = log.entries(low, high, max, GetEntriesContext::empty(false));
        entries
            .expect("entries")
            .iter()
            .map(|it| it.index)
            .collect()
    }

    #[test]
    fn disk_and_memory_are_one_log() {
        let disk = Entries((1..=4).map(|it| entry(it, 1)).collect());
        let mut log = Log::new(disk, State::default(), 4);
        assert_eq!(log.append(&[entry(5, 2), entry(6, 2)]), None);
        assert_eq!(indices(&log, 1, 7, u64::MAX), [1, 2, 3, 4, 5, 6]);
        // At least one; then as many as fit in; also when the disk stops short of the memory.
        assert_eq!(indices(&log, 2, 7, 0), [2]);
        assert_eq!(indices(&log, 2, 7, 200), [2, 3]);
        assert_eq!(indices(&log, 5, 7, 0), [5]);
        assert_eq!(indices(&log, 3, 7, 350), [3, 4, 5]);
        assert_eq!(log.term(4).expect("on disk"), 1);
        assert_eq!(log.term(5).expect("in memory"), 2);
        assert!(log.term(7).is_err());

        // Another leader's entries replace a part of the memory and one of the disk.
        assert_eq!(log.append(&[entry(4, 3)]), Some(5));
        assert_eq!(log.last_index().expect("last"), 4);
        assert_eq!(log.term(4).expect("in memory"), 3);

        log.cut(2, 1);
        assert_eq!(log.first_index().expect("first"), 3);
        assert_eq!(log.term(2).expect("of the cut"), 1);
        assert!(log.term(1).is_err());
        assert!(
            log.entries(2, 4, None, GetEntriesContext::empty(false))
                .is_err()
        );
    }

    #[test]
    fn a_hole_is_noticed() {
        let disk = Entries(vec![entry(1, 1), entry(3, 1)]);
        let log = Log::new(disk, State::default(), 3);
        assert!(
            log.entries(1, 4, None, GetEntriesContext::empty(false))
                .is_err()
        );
        assert!(log.term(2).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let disk = Entries((1..=10).map(|it| entry(it, 1)).collect());
        let mut log = Log::new(disk, State::default(), 0);
        let entries: Vec<_> = (1..=10).map(|it| entry(it, 1)).collect();
        log.append(&entries);
        log.trim(6, 0);
        assert_eq!(log.tail_first(), 6);
        log.trim(100, 250);
        assert_eq!(log.tail_first(), 9);
        assert_eq!(indices(&log, 1, 11, u64::MAX).len(), 10);
    }
}
