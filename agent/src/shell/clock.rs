//! The machine's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tepui_agent_machine::model::time::{Instant, WallTime};

/// Nanoseconds since the start of the agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Clock {
        Clock {
            origin: std::time::Instant::now(),
        }
    }

    /// Time since the start. Five centuries fit.
    pub(crate) fn now(self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// How long it is until then.
    pub(crate) fn until(self, then: Instant) -> Duration {
        then.saturating_since(self.now())
    }

    /// Time of day.
    pub(crate) fn wall(self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        WallTime(since.map_or(0.0, |it| it.as_secs_f64()))
    }
}
