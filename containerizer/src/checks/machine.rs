//! When a check is due and what its results mean: behaviour 11.8. Pure; times are milliseconds
//! since the epoch, handed in, so that a restarted agent goes on where the last one was.

use serde::{Deserialize, Serialize};
use tepui_model::wire;

/// Times of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// From the task's start to the first check.
    pub delay_ms: u64,
    /// From the end of one check to the next.
    pub interval_ms: u64,
    /// Longest time of one check; `None` for no limit.
    pub timeout_ms: Option<u64>,
}

fn ms(seconds: Option<f64>, default: f64) -> u64 {
    // Validation has refused negative values; a cast of anything else saturates.
    (seconds.unwrap_or(default).max(0.0) * 1000.0) as u64
}

fn schedule(delay: Option<f64>, interval: Option<f64>, timeout: Option<f64>) -> Schedule {
    Schedule {
        delay_ms: ms(delay, 15.0),
        interval_ms: ms(interval, 10.0),
        timeout_ms: Some(ms(timeout, 20.0)).filter(|it| *it > 0),
    }
}

/// What is kept over a restart of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthState {
    /// Last result that was told.
    pub healthy: Option<bool>,
    /// Failures in a row, those ignored left out.
    pub failures: u32,
    /// End of the last check; 0 before the first.
    pub last_ms: u64,
}

/// A result that the framework must hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Healthy or not.
    pub healthy: bool,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// The task has to be killed.
    pub kill: bool,
}

/// The health check of one task.
#[derive(Clone, Debug)]
pub struct Health {
    /// Its times.
    pub schedule: Schedule,
    /// What is kept.
    pub state: HealthState,
    grace_ms: u64,
    threshold: u32,
    started_ms: u64,
}

impl Health {
    /// From the task's description; `state` is what was kept, or the default.
    pub fn new(check: &wire::HealthCheck, started_ms: u64, state: HealthState) -> Health {
        Health {
            schedule: schedule(
                check.delay_seconds,
                check.interval_seconds,
                check.timeout_seconds,
            ),
            state,
            grace_ms: ms(check.grace_period_seconds, 10.0),
            threshold: check.consecutive_failures.unwrap_or(3).max(1),
            started_ms,
        }
    }

    /// When the next check is due.
    pub fn due_ms(&self) -> u64 {
        due(&self.schedule, self.started_ms, self.state.last_ms)
    }

    /// Takes a result that came in at `now_ms`.
    ///
    /// The first success, the change to healthy and every failure are reported; failures before
    /// the first success within the grace period are not even counted.
    pub fn result(&mut self, now_ms: u64, success: bool) -> Option<Report> {
        self.state.last_ms = now_ms;
        if success {
            let news = self.state.healthy != Some(true);
            self.state.healthy = Some(true);
            self.state.failures = 0;
            return news.then_some(Report {
                healthy: true,
                consecutive_failures: 0,
                kill: false,
            });
        }
        let in_grace = now_ms < self.started_ms.saturating_add(self.grace_ms);
        if self.state.healthy.is_none() && in_grace {
            return None;
        }
        self.state.healthy = Some(false);
        self.state.failures = self.state.failures.saturating_add(1);
        Some(Report {
            healthy: false,
            consecutive_failures: self.state.failures,
            kill: self.state.failures >= self.threshold,
        })
    }
}

/// The `check` of one task: it only tells.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its times.
    pub schedule: Schedule,
    started_ms: u64,
    /// End of the last check; 0 before the first.
    pub last_ms: u64,
    last: Option<wire::CheckStatusInfo>,
}

impl Check {
    /// From the task's description. What the last result was need not be kept: after a restart
    /// the first one is told again.
    pub fn new(check: &wire::CheckInfo, started_ms: u64, last_ms: u64) -> Check {
        Check {
            schedule: schedule(
                check.delay_seconds,
                check.interval_seconds,
                check.timeout_seconds,
            ),
            started_ms,
            last_ms,
            last: None,
        }
    }

    /// When the next check is due.
    pub fn due_ms(&self) -> u64 {
        due(&self.schedule, self.started_ms, self.last_ms)
    }

    /// Takes a result; gives it back when it is news.
    pub fn result(
        &mut self,
        now_ms: u64,
        status: wire::CheckStatusInfo,
    ) -> Option<wire::CheckStatusInfo> {
        self.last_ms = now_ms;
        if self.last.as_ref() == Some(&status) {
            return None;
        }
        self.last = Some(status);
        Some(status)
    }
}

fn due(schedule: &Schedule, started_ms: u64, last_ms: u64) -> u64 {
    if last_ms == 0 {
        started_ms.saturating_add(schedule.delay_ms)
    } else {
        last_ms.saturating_add(schedule.interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(state: HealthState) -> Health {
        let check = wire::HealthCheck {
            delay_seconds: Some(1.0),
            interval_seconds: Some(2.0),
            consecutive_failures: Some(2),
            grace_period_seconds: Some(10.0),
            ..Default::default()
        };
        Health::new(&check, 100_000, state)
    }

    fn report(healthy: bool, consecutive_failures: u32, kill: bool) -> Option<Report> {
        Some(Report {
            healthy,
            consecutive_failures,
            kill,
        })
    }

    #[test]
    fn defaults_are_those_of_mesos() {
        let it = Health::new(&wire::HealthCheck::default(), 0, HealthState::default());
        assert_eq!(
            it.schedule,
            Schedule {
                delay_ms: 15_000,
                interval_ms: 10_000,
                timeout_ms: Some(20_000)
            }
        );
        assert_eq!((it.grace_ms, it.threshold), (10_000, 3));
        let none = wire::HealthCheck {
            timeout_seconds: Some(0.0),
            ..Default::default()
        };
        let it = Health::new(&none, 0, HealthState::default());
        assert_eq!(it.schedule.timeout_ms, None);
    }

    #[test]
    fn a_life_with_grace_recovery_and_death() {
        let mut it = health(HealthState::default());
        assert_eq!(it.due_ms(), 101_000);
        // Failures within the grace period do not even count.
        assert_eq!(it.result(101_500, false), None);
        assert_eq!(it.due_ms(), 103_500);
        assert_eq!(it.result(109_999, false), None);
        // After it they do.
        assert_eq!(it.result(110_000, false), report(false, 1, false));
        assert_eq!(it.result(112_000, true), report(true, 0, false));
        assert_eq!(it.result(114_000, true), None);
        assert_eq!(it.result(116_000, false), report(false, 1, false));
        assert_eq!(it.result(118_000, false), report(false, 2, true));
        // Every failure is told, the task may be slow to die.
        assert_eq!(it.result(120_000, false), report(false, 3, true));
    }

    #[test]
    fn after_the_first_success_there_is_no_grace() {
        let mut it = health(HealthState::default());
        assert_eq!(it.result(101_000, true), report(true, 0, false));
        assert_eq!(it.result(102_000, false), report(false, 1, false));
    }

    #[test]
    fn a_restarted_agent_goes_on_counting() {
        let mut first = health(HealthState::default());
        first.result(111_000, false);
        let kept = first.state;
        let mut second = health(kept);
        assert_eq!(second.due_ms(), 113_000);
        assert_eq!(second.result(113_000, false), report(false, 2, true));
    }

    #[test]
    fn checks_tell_changes_only() {
        let status = |code| wire::CheckStatusInfo {
            command: Some(wire::check_status_info::Command {
                exit_code: Some(code),
            }),
            ..Default::default()
        };
        let mut it = Check::new(&wire::CheckInfo::default(), 0, 0);
        assert_eq!(it.due_ms(), 15_000);
        assert_eq!(it.result(15_000, status(0)), Some(status(0)));
        assert_eq!(it.result(25_000, status(0)), None);
        assert_eq!(it.result(35_000, status(1)), Some(status(1)));
        assert_eq!(it.due_ms(), 45_000);
    }
}
