//! Clocks that go wrong, one for each process: a monotone one that runs too fast or too slow and
//! leaps forward, and a wall clock that jumps both ways.

use tepui_model::time::{Instant, WallTime};

/// Nanoseconds of true time in a second.
pub const SECOND: u64 = 1_000_000_000;
/// Nanoseconds of true time in a millisecond.
pub const MILLI: u64 = 1_000_000;

/// The wall time at which every simulation begins, in seconds since the epoch.
const WALL_BEGIN: f64 = 1_700_000_000.0;

/// What one process takes for the time.
#[derive(Clone, Debug)]
pub struct Clock {
    // Since this true time ...
    anchor: u64,
    // ... at which the local clock showed this, ...
    local: u64,
    // ... it gains this many nanoseconds a second, or loses them.
    drift: i64,
    // Seconds by which the wall clock is wrong.
    wall_error: f64,
}

impl Clock {
    /// A clock that shows `local` nanoseconds at the true time `now`.
    pub fn new(now: u64, local: u64, drift: i64) -> Clock {
        Clock {
            anchor: now,
            local,
            drift,
            wall_error: 0.0,
        }
    }

    /// What it shows.
    pub fn now(&self, now: u64) -> Instant {
        let elapsed = i128::from(now.saturating_sub(self.anchor));
        let shown = elapsed + elapsed * i128::from(self.drift) / i128::from(SECOND);
        Instant(self.local + u64::try_from(shown).unwrap_or(0))
    }

    /// The true time at which it will show `at`; `now` when it does already.
    pub fn true_time(&self, now: u64, at: Instant) -> u64 {
        let wait = at.0.saturating_sub(self.now(now).0);
        self.true_span(wait)
            .map_or(u64::MAX, |it| now.saturating_add(it))
    }

    /// How long a local span lasts, rounded up so that it has passed then.
    fn true_span(&self, local: u64) -> Option<u64> {
        let rate = i128::from(SECOND) + i128::from(self.drift);
        let span = i128::from(local) * i128::from(SECOND) / rate.max(1);
        u64::try_from(span + 1).ok()
    }

    /// What the wall clock shows.
    pub fn wall(&self, now: u64) -> WallTime {
        WallTime(WALL_BEGIN + now as f64 / 1e9 + self.wall_error)
    }

    /// The process lost sight of the time for a while: a suspended machine, say.
    pub fn leap(&mut self, now: u64, by: u64) {
        self.local = self.now(now).0 + by;
        self.anchor = now;
    }

    /// The clock runs at another speed from now on.
    pub fn set_drift(&mut self, now: u64, drift: i64) {
        self.local = self.now(now).0;
        self.anchor = now;
        self.drift = drift;
    }

    /// Somebody set the wall clock.
    pub fn set_wall_error(&mut self, seconds: f64) {
        self.wall_error = seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_and_true_time_agree() {
        let mut clock = Clock::new(5, 1000, 0);
        assert_eq!(clock.now(105), Instant(1100));
        clock.set_drift(105, (SECOND / 10) as i64);
        assert_eq!(
            clock.now(105 + SECOND),
            Instant(1100 + SECOND + SECOND / 10)
        );
        for drift in [-300_000_000, -7, 0, 13, 200_000_000] {
            let clock = Clock::new(77, 3, drift);
            for local in [4, 1000, 123_456_789, 60 * SECOND] {
                let due = clock.true_time(77, Instant(local));
                assert!(clock.now(due) >= Instant(local), "{drift} {local}");
                assert!(
                    clock.now(due.saturating_sub(10)) < Instant(local) || local < 10,
                    "{drift} {local}"
                );
            }
        }
        let before = clock.now(2 * SECOND);
        clock.leap(2 * SECOND, 50);
        assert_eq!(clock.now(2 * SECOND).0, before.0 + 50);
    }
}
