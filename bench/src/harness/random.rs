//! Random numbers from a seed, the same on every machine and in every version.

/// A generator; SplitMix64, which passes what workloads need of it.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator for one purpose: `stream` tells those of one seed apart.
    pub(crate) fn new(seed: u64, stream: u64) -> Random {
        let mut it = Random(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        it.next();
        it
    }

    /// 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ it >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ it >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ it >> 31
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 (included) to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Distributed as `exp(N(ln median, sigma))`.
    pub(crate) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let (a, b) = (1.0 - self.unit(), self.unit());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        median * (sigma * normal).exp()
    }

    /// `count` different numbers below `bound`, in random order; all of them if there are fewer.
    pub(crate) fn distinct(&mut self, count: u64, bound: u64) -> Vec<u64> {
        let mut all = std::collections::BTreeSet::new();
        let mut order = Vec::new();
        // Floyd's way: no more draws than numbers.
        for at in bound.saturating_sub(count)..bound {
            let drawn = self.below(at + 1);
            let it = if all.insert(drawn) { drawn } else { at };
            all.insert(it);
            order.push(it);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_within_bounds_and_repeat_with_the_seed() {
        let mut random = Random::new(7, 1);
        let mut same = Random::new(7, 1);
        let mut other = Random::new(7, 2);
        assert_eq!(random.next(), same.next());
        assert_ne!(random.next(), other.next());
        let mut distinct = random.distinct(50, 60);
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 50);
        assert!(distinct.iter().all(|it| *it < 60));
        assert_eq!(random.distinct(5, 3).len(), 3);
        let mean = (0..10_000).map(|_| random.exponential(3.0)).sum::<f64>() / 10_000.0;
        assert!((2.8..3.2).contains(&mean), "{mean}");
    }
}
