//! Sets of unsigned numbers, kept as sorted, disjoint, non-adjacent intervals.

use super::Error;
use crate::wire;
use std::{cmp, fmt};

/// Most intervals taken from one input; more is an attack or a mistake.
pub const MAX_RANGES: usize = 10_000;

/// An interval with both ends included; `begin <= end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The first number.
    pub begin: u64,
    /// The last number.
    pub end: u64,
}

impl Range {
    /// How many numbers are in it; saturating for the one interval that has 2^64.
    pub fn len(&self) -> u64 {
        (self.end - self.begin).saturating_add(1)
    }

    /// Never: an interval holds at least one number.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.begin, self.end)
    }
}

/// A set of numbers, such as the ports of an agent. Sorted; no two intervals touch.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// Sorts and merges intervals given as (first, last).
    ///
    /// # Errors
    /// An interval ends before it begins, or there are more than [`MAX_RANGES`]. `name` is the
    /// resource's name for the text.
    pub fn new(name: &str, ranges: impl IntoIterator<Item = (u64, u64)>) -> Result<Ranges, Error> {
        let mut all = Vec::new();
        for (begin, end) in ranges {
            if begin > end {
                return Err(Error::BackwardRange {
                    name: name.to_owned(),
                    begin,
                    end,
                });
            }
            if all.len() == MAX_RANGES {
                return Err(Error::TooManyRanges {
                    name: name.to_owned(),
                });
            }
            all.push(Range { begin, end });
        }
        Ok(Ranges(normal(all)))
    }

    /// From the message of the wire.
    ///
    /// # Errors
    /// As [`Ranges::new`].
    pub fn from_wire(name: &str, ranges: &wire::value::Ranges) -> Result<Ranges, Error> {
        Ranges::new(name, ranges.range.iter().map(|it| (it.begin, it.end)))
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::value::Ranges {
        let range = self.0.iter().map(|it| wire::value::Range {
            begin: it.begin,
            end: it.end,
        });
        wire::value::Ranges {
            range: range.collect(),
        }
    }

    /// Whether there is no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are; saturating.
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum: u64, it| sum.saturating_add(it.len()))
    }

    /// The intervals in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range> + DoubleEndedIterator {
        self.0.iter().copied()
    }

    /// The numbers in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|it| it.begin..=it.end)
    }

    /// Whether `number` is one of them.
    pub fn contains_number(&self, number: u64) -> bool {
        let at = self.0.partition_point(|it| it.end < number);
        self.0.get(at).is_some_and(|it| it.begin <= number)
    }

    /// Whether every number of `other` is one of these.
    pub fn contains(&self, other: &Ranges) -> bool {
        let mut mine = self.0.iter();
        let mut current = mine.next();
        'other: for theirs in &other.0 {
            while let Some(it) = current {
                if it.end >= theirs.begin {
                    if it.begin <= theirs.begin && theirs.end <= it.end {
                        continue 'other;
                    }
                    return false;
                }
                current = mine.next();
            }
            return false;
        }
        true
    }

    /// Whether some number is in both.
    pub fn intersects(&self, other: &Ranges) -> bool {
        let (mut left, mut right) = (0, 0);
        while let (Some(a), Some(b)) = (self.0.get(left), other.0.get(right)) {
            if a.begin <= b.end && b.begin <= a.end {
                return true;
            }
            if a.end < b.end {
                left += 1;
            } else {
                right += 1;
            }
        }
        false
    }

    /// Adds the numbers of `other`.
    pub fn insert_all(&mut self, other: &Ranges) {
        if other.0.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(&other.0);
        self.0 = normal(all);
    }

    /// Removes the numbers of `other`, those that are not there included.
    pub fn remove_all(&mut self, other: &Ranges) {
        if !self.intersects(other) {
            return;
        }
        let mut rest = Vec::with_capacity(self.0.len() + other.0.len());
        let mut cuts = other.0.iter().copied().peekable();
        for range in &self.0 {
            let mut begin = range.begin;
            let mut open = true;
            while let Some(cut) = cuts.peek().copied() {
                if cut.end < begin {
                    cuts.next();
                    continue;
                }
                if cut.begin > range.end {
                    break;
                }
                if cut.begin > begin {
                    let end = cut.begin - 1;
                    rest.push(Range { begin, end });
                }
                if cut.end >= range.end {
                    // It may reach into the next interval too, so it stays.
                    open = false;
                    break;
                }
                begin = cut.end + 1;
                cuts.next();
            }
            if open {
                let end = range.end;
                rest.push(Range { begin, end });
            }
        }
        self.0 = rest;
    }

    /// The first `count` numbers, or all when there are fewer.
    pub fn take(&self, count: u64) -> Ranges {
        let (mut left, mut taken) = (count, Vec::new());
        for it in &self.0 {
            if left == 0 {
                break;
            }
            let begin = it.begin;
            let end = cmp::min(it.end, begin.saturating_add(left - 1));
            taken.push(Range { begin, end });
            left = left.saturating_sub(it.len());
        }
        Ranges(taken)
    }
}

/// Sorts and merges what overlaps or touches.
fn normal(mut all: Vec<Range>) -> Vec<Range> {
    if !all.is_sorted_by(|a, b| a.end < b.begin) {
        all.sort_unstable();
    }
    all.dedup_by(|next, kept| {
        // `kept.end + 1 >= next.begin` without the overflow at the top.
        let touches = kept.end == u64::MAX || next.begin <= kept.end + 1;
        if touches {
            kept.end = cmp::max(kept.end, next.end);
        }
        touches
    });
    all
}

impl fmt::Display for Ranges {
    /// `[1-2, 5-9]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, it) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{it:?}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(all: &[(u64, u64)]) -> Ranges {
        Ranges::new("ports", all.iter().copied()).unwrap()
    }

    #[test]
    fn both_ends_of_the_number_line_are_safe() {
        let mut all = ranges(&[(0, u64::MAX)]);
        assert_eq!(all.count(), u64::MAX);
        all.remove_all(&ranges(&[(0, 0), (u64::MAX, u64::MAX)]));
        assert_eq!(all, ranges(&[(1, u64::MAX - 1)]));
        all.insert_all(&ranges(&[(u64::MAX, u64::MAX)]));
        all.insert_all(&ranges(&[(u64::MAX - 5, u64::MAX)]));
        assert_eq!(all, ranges(&[(1, u64::MAX)]));
    }

    #[test]
    fn too_many_and_backward_intervals_are_refused() {
        assert!(Ranges::new("ports", [(2, 1)]).is_err());
        let many = (0..=MAX_RANGES as u64).map(|it| (it * 2, it * 2));
        assert!(Ranges::new("ports", many).is_err());
    }

    const LINE: u64 = 64;

    /// A set of numbers below 64 as bits: the obvious model.
    fn bits(ranges: &Ranges) -> u64 {
        ranges.numbers().fold(0, |bits, it| bits | 1 << it)
    }

    fn some_ranges() -> impl Strategy<Value = Ranges> {
        proptest::collection::vec((0..LINE, 0..8u64), 0..8).prop_map(|all| {
            let all = all
                .into_iter()
                .map(|(begin, len)| (begin, (begin + len).min(LINE - 1)));
            Ranges::new("ports", all).unwrap()
        })
    }

    fn normalised(ranges: &Ranges) -> bool {
        ranges.0.iter().all(|it| it.begin <= it.end)
            && ranges.0.windows(2).all(|it| it[0].end + 1 < it[1].begin)
    }

    proptest! {
        #[test]
        fn ranges_are_sets_of_numbers(a in some_ranges(), b in some_ranges(), n in 0..LINE) {
            let (bits_a, bits_b) = (bits(&a), bits(&b));
            let mut sum = a.clone();
            sum.insert_all(&b);
            prop_assert_eq!(bits(&sum), bits_a | bits_b);
            let mut rest = a.clone();
            rest.remove_all(&b);
            prop_assert_eq!(bits(&rest), bits_a & !bits_b);
            prop_assert!(normalised(&sum) && normalised(&rest));
            prop_assert_eq!(a.contains(&b), bits_a & bits_b == bits_b);
            prop_assert_eq!(a.intersects(&b), bits_a & bits_b != 0);
            prop_assert_eq!(a.contains_number(n), bits_a & (1 << n) != 0);
            prop_assert_eq!(a.count(), u64::from(bits_a.count_ones()));
            let taken = a.take(n);
            prop_assert!(a.contains(&taken));
            prop_assert_eq!(taken.count(), n.min(a.count()));
        }
    }
}
