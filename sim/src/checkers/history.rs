//! Committed state is one history on all masters: the same entries in the same order, the same
//! state after each, one leader a term.

use std::collections::BTreeMap;

/// What is known of one entry.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    decided: (u64, u64),
    data: u64,
    state: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct History {
    entries: BTreeMap<u64, Known>,
    // Which entry a term's decision became.
    places: BTreeMap<(u64, u64), u64>,
    // The last entry that each master applied in this life.
    applied: BTreeMap<usize, u64>,
    leaders: BTreeMap<u64, (usize, u64)>,
    // Hash that a leader expects before the entry after its decision.
    expected: BTreeMap<(u64, u64), u64>,
    // First applied anywhere, by term: since when the term counts.
    begun: BTreeMap<u64, u64>,
}

impl History {
    /// A master starts from rows as of an entry.
    pub fn start(&mut self, master: usize, applied: u64) {
        self.applied.insert(master, applied);
    }

    /// A master's disk is gone.
    pub fn forget(&mut self, master: usize) {
        self.applied.remove(&master);
    }

    /// A master was elected.
    pub fn elected(&mut self, now: u64, master: usize, term: u64) -> Result<(), String> {
        match self.leaders.insert(term, (master, now)) {
            Some((other, _)) if other != master => Err(format!(
                "masters {other} and {master} both lead term {term}"
            )),
            _ => Ok(()),
        }
    }

    /// A leader says what the state is right after its decision.
    pub fn decided(&mut self, decided: (u64, u64), state: u64) {
        self.expected.insert(decided, state);
    }

    /// A master applied an entry.
    pub fn applied(
        &mut self,
        master: usize,
        index: u64,
        decided: (u64, u64),
        data: u64,
        state: u64,
    ) -> Result<(), String> {
        let last = self.applied.insert(master, index).unwrap_or(0);
        if index <= last {
            return Err(format!(
                "master {master} applies entry {index} after entry {last}"
            ));
        }
        // Between the two lie entries of consensus alone, or it has skipped one.
        if let Some((missed, _)) = self.entries.range(last + 1..index).next() {
            return Err(format!(
                "master {master} applies entry {index} and never applied entry {missed}"
            ));
        }
        if let Some(expected) = self.expected.get(&decided)
            && *expected != state
        {
            return Err(format!(
                "master {master} has another state after entry {index} than its leader had"
            ));
        }
        let known = Known {
            decided,
            data,
            state,
        };
        if let Some(other) = self.places.insert(decided, index)
            && other != index
        {
            return Err(format!(
                "decision {decided:?} is entry {other} and entry {index}"
            ));
        }
        match self.entries.get(&index) {
            None => {
                self.entries.insert(index, known);
                Ok(())
            }
            Some(before) if before.data != data || before.decided != decided => Err(format!(
                "master {master} applies entry {index} of decision {decided:?}, others of {:?}",
                before.decided
            )),
            Some(before) if before.state != state => Err(format!(
                "master {master} has another state after entry {index} than others"
            )),
            Some(_) => Ok(()),
        }
    }

    /// The place of a decision in the log, once anybody has applied it.
    pub fn place(&self, decided: (u64, u64)) -> Option<u64> {
        self.places.get(&decided).copied()
    }

    /// Whether this entry was applied before, by anybody.
    pub fn is_known(&self, index: u64) -> bool {
        self.entries.contains_key(&index)
    }

    /// A term's first entry was applied.
    pub fn begun(&mut self, now: u64, term: u64) {
        self.begun.entry(term).or_insert(now);
    }

    /// The newest term of which something was applied before this time.
    pub fn newest_term(&self, before: u64) -> u64 {
        let newest = self.begun.iter().rev().find(|(_, at)| **at < before);
        newest.map_or(0, |(term, _)| *term)
    }

    /// Entries applied so far.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was applied yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Terms that had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}
