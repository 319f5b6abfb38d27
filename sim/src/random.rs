//! Chance from the seed: the only one there is.

/// A generator of its own for every concern, so that a draw more in one of them leaves the others
/// as they are.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of one concern under a seed.
    pub fn new(seed: u64, concern: &str) -> Random {
        let mut hash = seed ^ 0x9e37_79b9_7f4a_7c15;
        for byte in concern.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut random = Random(hash);
        random.next();
        random
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    #[allow(clippy::should_implement_trait)] // endless, and no iterator
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    /// Below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The bias is far below anything that a simulation could notice.
        self.next() % limit.max(1)
    }

    /// From `low` up to and including `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True `parts` times in a thousand.
    pub fn chance(&mut self, parts: u64) -> bool {
        self.below(1000) < parts
    }

    /// One of several, of which there is at least one.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concerns_differ_and_repeat() {
        let draw = |seed, concern| Random::new(seed, concern).next();
        assert_eq!(draw(1, "network"), draw(1, "network"));
        assert_ne!(draw(1, "network"), draw(1, "disk"));
        assert_ne!(draw(1, "network"), draw(2, "network"));
        let mut random = Random::new(3, "range");
        assert!((0..1000).all(|_| (5..=9).contains(&random.between(5, 9))));
    }
}
