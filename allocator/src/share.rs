//! Shares as exact fractions.

use crate::amounts::Amounts;
use std::cmp::Ordering;

/// Weight of what has none, in millionths.
pub(crate) const UNIT_WEIGHT: u64 = 1_000_000;

/// What shares are fractions of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scale {
    /// The whole cluster.
    pub(crate) total: Amounts,
    /// Names that count in no share, by dimension.
    pub(crate) excluded: Vec<bool>,
}

/// A weighted dominant share, `part / whole / weight`, and how often its owner was served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    part: u64,
    whole: u64,
    weight: u64,
    count: u64,
}

impl Share {
    /// The largest fraction that `allocated` is of any of the totals, by weight (millionths).
    /// What the cluster has none of and excluded names do not count.
    pub(crate) fn dominant(scale: &Scale, allocated: &Amounts, weight: u64, count: u64) -> Share {
        // A number above 64 bits is no real amount; it saturates.
        let clamp = |it: i128| u64::try_from(it.max(0)).unwrap_or(u64::MAX);
        let mut share = Share {
            part: 0,
            whole: 1,
            weight: weight.max(1),
            count,
        };
        for (dimension, part) in allocated.iter() {
            let whole = clamp(scale.total.get(dimension));
            if whole == 0 || scale.excluded.get(dimension).copied().unwrap_or(false) {
                continue;
            }
            let part = clamp(part);
            let larger = u128::from(part) * u128::from(share.whole)
                > u128::from(share.part) * u128::from(whole);
            if larger {
                share.part = part;
                share.whole = whole;
            }
        }
        share
    }

    /// The smaller share goes first, among equal ones the one served less often.
    pub(crate) fn compare(&self, other: &Share) -> Ordering {
        self.compare_fractions(other)
            .then(self.count.cmp(&other.count))
    }

    fn compare_fractions(&self, other: &Share) -> Ordering {
        if self.weight == other.weight {
            if self.whole == other.whole {
                return self.part.cmp(&other.part);
            }
            let left = u128::from(self.part) * u128::from(other.whole);
            return left.cmp(&(u128::from(other.part) * u128::from(self.whole)));
        }
        let left = product(self.part, other.whole, other.weight);
        left.cmp(&product(other.part, self.whole, self.weight))
    }
}

/// `a * b * c` as (high, low) halves of 256 bits, of which 192 are used.
fn product(a: u64, b: u64, c: u64) -> (u128, u128) {
    let ab = u128::from(a) * u128::from(b);
    let low = (ab & u128::from(u64::MAX)) * u128::from(c);
    let high = (ab >> 64) * u128::from(c);
    let (sum, carry) = low.overflowing_add(high << 64);
    ((high >> 64) + u128::from(carry), sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(cpus: i128, mem: i128) -> Amounts {
        let mut amounts = Amounts::default();
        amounts.add_to(0, cpus);
        amounts.add_to(1, mem);
        amounts
    }

    fn share(cpus: i128, mem: i128, weight: u64) -> Share {
        let scale = Scale {
            total: amounts(9, 18),
            excluded: Vec::new(),
        };
        Share::dominant(&scale, &amounts(cpus, mem), weight, 0)
    }

    #[test]
    fn the_largest_fraction_counts() {
        // The example of the DRF paper, section 4: <1 cpu, 4 GB> against <3 cpus, 1 GB>.
        let compare = |a: Share, b: Share| a.compare(&b);
        assert_eq!(compare(share(3, 12, 1), share(6, 2, 1)), Ordering::Equal);
        assert_eq!(compare(share(1, 4, 1), share(3, 1, 1)), Ordering::Less);
    }

    #[test]
    fn weights_divide_and_counts_break_ties() {
        let (heavy, mut light) = (share(6, 0, 2 * UNIT_WEIGHT), share(3, 0, UNIT_WEIGHT));
        assert_eq!(heavy.compare(&light), Ordering::Equal);
        light.count = 1;
        assert_eq!(heavy.compare(&light), Ordering::Less);
    }

    #[test]
    fn absurd_amounts_saturate_and_products_do_not_overflow() {
        let max = u64::MAX;
        assert!(product(max, max, max) > product(max, max, max - 1));
        assert!(product(max, max, 1) < product(max, max, 2));
        assert_eq!(product(3, 5, 7), (0, 105));
        assert_eq!(
            share(i128::MAX, 0, 1).compare(&share(i128::MAX, 0, 1)),
            Ordering::Equal
        );
    }
}
