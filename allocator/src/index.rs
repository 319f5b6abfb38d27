//! From ids to ordinals: a hash table that is only ever asked for one id, never gone through, so
//! that its order cannot reach an output.

/// FNV-1a, 64 bits.
pub(crate) fn hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const EMPTY: u32 = u32::MAX;

/// Open addressing with linear probing over hashes and ordinals; the ids themselves stay with
/// their owners, which `is` asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// A power of two long, at most half full.
    slots: Vec<(u64, u32)>,
    length: usize,
}

impl Index {
    fn start(&self, hash: u64) -> usize {
        // The low bits of FNV depend on the last bytes mostly; those of numbered ids differ there.
        (hash ^ hash >> 32) as usize & (self.slots.len() - 1)
    }

    /// The ordinal of the id with this hash for which `is` holds.
    pub(crate) fn get(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let at = self.find(hash, is)?;
        Some(self.slots[at].1)
    }

    fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.start(hash);
        loop {
            let (found, ordinal) = self.slots[at];
            if ordinal == EMPTY {
                return None;
            }
            if found == hash && is(ordinal) {
                return Some(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds an id that is not there.
    pub(crate) fn insert(&mut self, hash: u64, ordinal: u32) {
        if 2 * (self.length + 1) > self.slots.len() {
            let size = (4 * (self.length + 1)).next_power_of_two();
            let before = std::mem::replace(&mut self.slots, vec![(0, EMPTY); size]);
            self.length = 0;
            for (hash, ordinal) in before {
                if ordinal != EMPTY {
                    self.insert(hash, ordinal);
                }
            }
        }
        let mut at = self.start(hash);
        while self.slots[at].1 != EMPTY {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = (hash, ordinal);
        self.length += 1;
    }

    /// Removes an ordinal.
    pub(crate) fn remove(&mut self, hash: u64, ordinal: u32) {
        let Some(mut hole) = self.find(hash, |it| it == ordinal) else {
            return;
        };
        self.length -= 1;
        // Those behind that would no longer be found move up.
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            self.slots[hole].1 = EMPTY;
            loop {
                at = (at + 1) & mask;
                let (hash, ordinal) = self.slots[at];
                if ordinal == EMPTY {
                    return;
                }
                let start = self.start(hash);
                let distance = |from: usize, to: usize| to.wrapping_sub(from) & mask;
                if distance(start, at) >= distance(hole, at) {
                    self.slots[hole] = (hash, ordinal);
                    hole = at;
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        let mut index = Index::default();
        let mut known = BTreeSet::new();
        // Few hashes, so that many collide and the table's end is crossed.
        let hash_of = |it: u32| u64::from(it % 7) * 5;
        for step in 0_u32..5000 {
            let it = step.wrapping_mul(2_654_435_761) % 60;
            match known.insert(it) {
                true => index.insert(hash_of(it), it),
                false => {
                    known.remove(&it);
                    index.remove(hash_of(it), it);
                }
            }
            for it in 0..60 {
                let found = index.get(hash_of(it), |found| found == it);
                assert_eq!(found.is_some(), known.contains(&it), "step {step}: {it}");
            }
        }
    }
}
