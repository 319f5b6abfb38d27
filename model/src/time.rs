//! Three kinds of time, which must never be mixed.
//!
//! The machines never look at a clock: the shell hands the time in. [`Instant`] drives timers of
//! one process, [`ClusterTime`] is replicated and advances only while a leader leads, [`WallTime`]
//! is for display.

use crate::wire;
use core::{
    ops::{Add, Sub},
    time::Duration,
};

macro_rules! monotone {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The earliest time.
            pub const ZERO: $name = $name(0);
            /// Later than everything that happens.
            pub const MAX: $name = $name(u64::MAX);

            /// Nanoseconds since the origin.
            pub fn as_nanos(self) -> u64 {
                self.0
            }

            /// The time elapsed since an earlier one; zero when that one is later.
            pub fn saturating_since(self, earlier: $name) -> Duration {
                Duration::from_nanos(self.0.saturating_sub(earlier.0))
            }
        }

        impl Add<Duration> for $name {
            type Output = $name;

            /// Saturates at [`Self::MAX`]: a deadline that far away never comes.
            fn add(self, by: Duration) -> $name {
                $name(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
            }
        }

        impl Sub<$name> for $name {
            type Output = Duration;

            fn sub(self, earlier: $name) -> Duration {
                self.saturating_since(earlier)
            }
        }

        impl Sub<Duration> for $name {
            type Output = $name;

            /// Saturates at [`Self::ZERO`].
            fn sub(self, by: Duration) -> $name {
                $name(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
            }
        }
    )* };
}

monotone! {
    /// Nanoseconds of one process' monotone clock, with an origin of the shell's choice.
    Instant;
    /// Nanoseconds that the cluster was led; part of the replicated state.
    ClusterTime;
}

/// Seconds since the Unix epoch, for display and for the fields that Mesos fills with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct WallTime(pub f64);

impl WallTime {
    /// Seconds since the epoch, as `timestamp` fields carry it.
    pub fn as_secs(self) -> f64 {
        self.0
    }

    /// Nanoseconds since the epoch; saturating, zero for what is not a number.
    pub fn as_nanos(self) -> i64 {
        // A float to integer cast saturates, and is zero for NaN.
        (self.0 * 1e9) as i64
    }

    /// From nanoseconds since the epoch.
    pub fn from_nanos(nanos: i64) -> WallTime {
        WallTime(nanos as f64 / 1e9)
    }

    /// The message of the wire.
    pub fn to_wire(self) -> wire::TimeInfo {
        wire::TimeInfo {
            nanoseconds: self.as_nanos(),
        }
    }

    /// From the message of the wire.
    pub fn from_wire(time: &wire::TimeInfo) -> WallTime {
        WallTime::from_nanos(time.nanoseconds)
    }
}

/// Seconds of the wire as nanoseconds; `None` when they do not fit a signed 64-bit count of
/// nanoseconds (about 292 years), which is what Mesos calls unrepresentable. May be negative.
pub fn nanos_from_secs(seconds: f64) -> Option<i64> {
    let nanos = seconds * 1e9;
    // 2^63 is exactly representable; a range holds no NaN.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (-LIMIT..LIMIT).contains(&nanos).then_some(nanos as i64)
}

/// Seconds of the wire as a duration; `None` when negative or unrepresentable.
pub fn duration_from_secs(seconds: f64) -> Option<Duration> {
    nanos_from_secs(seconds).and_then(duration_from_nanos)
}

/// Nanoseconds of the wire as a duration; `None` when negative.
pub fn duration_from_nanos(nanos: i64) -> Option<Duration> {
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// A `DurationInfo` as a duration; `None` when negative.
pub fn duration_from_wire(duration: &wire::DurationInfo) -> Option<Duration> {
    duration_from_nanos(duration.nanoseconds)
}

/// A duration as a `DurationInfo`; saturating.
pub fn duration_to_wire(duration: Duration) -> wire::DurationInfo {
    wire::DurationInfo {
        nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_that_do_not_fit_are_refused() {
        assert_eq!(duration_from_secs(1.5), Some(Duration::from_millis(1500)));
        assert_eq!(nanos_from_secs(-1.0), Some(-1_000_000_000));
        assert_eq!(duration_from_secs(-1.0), None);
        for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e300, 9.3e9] {
            assert_eq!(nanos_from_secs(bad), None, "{bad}");
        }
    }

    #[test]
    fn deadlines_saturate() {
        assert_eq!(Instant::MAX + Duration::from_secs(1), Instant::MAX);
        assert_eq!(Instant(5) + Duration::MAX, Instant::MAX);
        assert_eq!(Instant(5) - Instant(7), Duration::ZERO);
        assert_eq!(WallTime(f64::NAN).as_nanos(), 0);
    }
}
