//! How long to wait before the next attempt to reach a master.

use std::time::Duration;

/// Exponential back-off with full jitter.
///
/// The first wait after a success is at most [`Backoff::MIN`], so that a failover of
/// the masters costs a framework next to nothing; repeated failures double the bound
/// up to [`Backoff::MAX`]. Full jitter spreads ten thousand frameworks that lost the
/// same leader at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Backoff {
    /// Bound of the first wait.
    pub(crate) const MIN: Duration = Duration::from_millis(100);
    /// Bound of every wait.
    pub(crate) const MAX: Duration = Duration::from_secs(10);

    pub(crate) fn new() -> Self {
        Self { bound: Self::MIN }
    }

    /// The wait before the next attempt; `random` is uniform in 0..1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let wait = self.bound.mul_f64(random.clamp(0.0, 1.0));
        self.bound = (self.bound * 2).min(Self::MAX);
        wait
    }

    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.bound = Self::MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_again() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        backoff.reset();
        assert_eq!(backoff.next(0.5).as_millis(), 50);
    }
}
