//! Shares as exact fractions.

use std::cmp::Ordering;
use tepui_model::Quantities;

/// A weighted dominant share: `part / whole / weight`, weight in millionths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    part: u64,
    whole: u64,
    weight: u64,
}

impl Share {
    /// The largest fraction of any resource that `allocated` is of `total`. Resources that
    /// the cluster has none of, and excluded names, do not count.
    pub(crate) fn dominant<'a>(
        allocated: &Quantities,
        total: &Quantities,
        weight: u64,
        mut is_excluded: impl FnMut(&str) -> bool + 'a,
    ) -> Share {
        let mut dominant = Share {
            part: 0,
            whole: 1,
            weight: weight.max(1),
        };
        for (name, amount) in allocated.iter() {
            let whole = u64::try_from(total.get(name).as_millis()).unwrap_or(0);
            if whole == 0 || is_excluded(name) {
                continue;
            }
            let part = u64::try_from(amount.as_millis()).unwrap_or(0);
            let larger = u128::from(part) * u128::from(dominant.whole)
                > u128::from(dominant.part) * u128::from(whole);
            if larger {
                dominant.part = part;
                dominant.whole = whole;
            }
        }
        dominant
    }
}

impl Ord for Share {
    /// Exact comparison: 64 x 64 x 64 bits on either side.
    fn cmp(&self, other: &Share) -> Ordering {
        let left = product(self.part, other.whole, other.weight);
        let right = product(other.part, self.whole, self.weight);
        left.cmp(&right)
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Share) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Share) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Share {}

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
    use tepui_model::Scalar;

    fn quantities(cpus: i64, mem: i64) -> Quantities {
        let mut quantities = Quantities::new();
        quantities.insert("cpus", Scalar::from_units(cpus));
        quantities.insert("mem", Scalar::from_units(mem));
        quantities
    }

    fn share(cpus: i64, mem: i64, weight: u64) -> Share {
        Share::dominant(&quantities(cpus, mem), &quantities(9, 18), weight, |_| {
            false
        })
    }

    #[test]
    fn the_largest_fraction_counts() {
        // The example of the DRF paper, section 4: <1 cpu, 4 GB> against <3 cpus, 1 GB>.
        assert_eq!(
            share(3, 12, 1_000_000).cmp(&share(6, 2, 1_000_000)),
            Ordering::Equal
        );
        assert_eq!(
            share(1, 4, 1_000_000).cmp(&share(3, 1, 1_000_000)),
            Ordering::Less
        );
    }

    #[test]
    fn weights_divide() {
        assert_eq!(
            share(6, 0, 2_000_000).cmp(&share(3, 0, 1_000_000)),
            Ordering::Equal
        );
    }

    #[test]
    fn products_do_not_overflow() {
        let (max, one) = (u64::MAX, 1);
        assert!(product(max, max, max) > product(max, max, max - 1));
        assert!(product(max, max, one) < product(max, max, 2));
        assert_eq!(product(3, 5, 7), (0, 105));
    }
}
