//! How many bytes of the log lie behind which entry.

use std::collections::VecDeque;

/// Remembers where the log stood, to cut it by bytes.
#[derive(Debug)]
pub(crate) struct Marks {
    // Index of an entry, and bytes of all entries up to it, both rising.
    marks: VecDeque<(u64, u64)>,
    total: u64,
}

// Finer marks would only cost memory.
const STEP_BYTES: u64 = 64 << 10;

impl Marks {
    /// Entries up to `last` lie in the log from before; their bytes are unknown and count as
    /// none.
    pub(crate) fn new(last: u64) -> Marks {
        Marks {
            marks: VecDeque::from([(last, 0)]),
            total: 0,
        }
    }

    /// Bytes of all entries so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The log has grown by `bytes`, up to the entry `last`.
    pub(crate) fn grow(&mut self, last: u64, bytes: u64) {
        self.total += bytes;
        // Entries replaced by another leader's are shorter than what was marked.
        while self.marks.back().is_some_and(|(index, _)| *index >= last) {
            self.marks.pop_back();
        }
        let fine =
            self.marks.len() >= 2 && self.total - self.marks[self.marks.len() - 2].1 < STEP_BYTES;
        if fine {
            self.marks.pop_back();
        }
        self.marks.push_back((last, self.total));
    }

    /// The last entry that may be cut when those after `flushed` and about `keep` bytes must
    /// stay.
    pub(crate) fn cut(&mut self, flushed: u64, keep: u64) -> Option<u64> {
        let mut cut = None;
        while let Some(&(index, bytes)) = self.marks.front()
            && index <= flushed
            && self.total - bytes >= keep
        {
            cut = Some(index);
            self.marks.pop_front();
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_flushed_or_is_young_stays() {
        let mut marks = Marks::new(10);
        for index in 11..=20 {
            marks.grow(index, STEP_BYTES);
        }
        assert_eq!(marks.total(), 10 * STEP_BYTES);
        assert_eq!(marks.cut(9, 0), None);
        assert_eq!(marks.cut(14, 0), Some(14));
        assert_eq!(marks.cut(20, 2 * STEP_BYTES), Some(18));
        assert_eq!(marks.cut(20, 2 * STEP_BYTES), None);
        assert_eq!(marks.cut(20, 0), Some(20));
    }

    #[test]
    fn small_entries_share_a_mark() {
        let mut marks = Marks::new(0);
        for index in 1..=1000 {
            marks.grow(index, 1000);
        }
        assert!(marks.marks.len() < 40, "{}", marks.marks.len());
        assert_eq!(marks.cut(1000, 0), Some(1000));
    }
}
