//! When the sandboxes of ended containers are deleted.
//!
//! A sandbox is kept for `--gc_delay` from its last change on. A disk that fills up shortens
//! that: the age allowed is `gc_delay * max(0, 1 - gc_disk_headroom - usage)`, so that with the
//! default headroom of 0.1 a disk that is 90 % full keeps nothing.

use core::time::Duration;
use std::collections::BTreeMap;
use tepui_model::time::WallTime;

/// What is to be deleted, by path, with the time of its last change.
#[derive(Clone, Debug)]
pub struct Schedule {
    delay: Duration,
    headroom: f64,
    paths: BTreeMap<String, WallTime>,
}

impl Schedule {
    /// Nothing yet. `headroom` is a fraction of the disk, 0 to 1.
    pub fn new(delay: Duration, headroom: f64) -> Schedule {
        Schedule {
            delay,
            headroom,
            paths: BTreeMap::new(),
        }
    }

    /// Takes a path up; the newest time of its last change counts.
    pub fn add(&mut self, path: impl Into<String>, changed: WallTime) {
        self.paths.insert(path.into(), changed);
    }

    /// Keeps a path after all: it is in use again.
    pub fn cancel(&mut self, path: &str) {
        self.paths.remove(path);
    }

    /// How many paths wait.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// True when no path waits.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// How old a sandbox may get on a disk of which the fraction `usage` is in use.
    pub fn allowed_age(&self, usage: f64) -> Duration {
        let fraction = (1.0 - self.headroom - usage).clamp(0.0, 1.0);
        self.delay.mul_f64(fraction)
    }

    /// Takes out what is to be deleted now. Without `usage` only what has reached the full
    /// age goes.
    pub fn due(&mut self, now: WallTime, usage: Option<f64>) -> Vec<String> {
        let allowed = usage.map_or(self.delay, |it| self.allowed_age(it));
        let old = |changed: &WallTime| now.as_secs() - changed.as_secs() >= allowed.as_secs_f64();
        let due: Vec<String> = self
            .paths
            .iter()
            .filter(|(_, changed)| old(changed))
            .map(|(path, _)| path.clone())
            .collect();
        for path in &due {
            self.paths.remove(path);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 86_400.0;

    fn schedule() -> Schedule {
        let mut schedule = Schedule::new(Duration::from_secs(7 * 86_400), 0.1);
        schedule.add("old", WallTime(0.0));
        schedule.add("new", WallTime(5.0 * DAY));
        schedule
    }

    #[test]
    fn a_week_after_the_last_change() {
        let mut schedule = schedule();
        assert!(schedule.due(WallTime(7.0 * DAY - 1.0), None).is_empty());
        assert_eq!(schedule.due(WallTime(7.0 * DAY), None), ["old"]);
        assert_eq!(schedule.due(WallTime(12.0 * DAY), None), ["new"]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn a_full_disk_shortens_the_wait() {
        // 40 % in use: half of the week is allowed.
        let mut schedule = schedule();
        assert_eq!(schedule.due(WallTime(6.0 * DAY), Some(0.4)), ["old"]);
        // 90 %: nothing is kept.
        assert_eq!(schedule.due(WallTime(6.0 * DAY), Some(0.9)), ["new"]);
        assert_eq!(schedule.allowed_age(2.0), Duration::ZERO);
    }

    #[test]
    fn what_is_used_again_stays() {
        let mut schedule = schedule();
        schedule.cancel("old");
        schedule.add("new", WallTime(20.0 * DAY));
        assert!(schedule.due(WallTime(21.0 * DAY), None).is_empty());
        assert_eq!(schedule.len(), 1);
    }
}
