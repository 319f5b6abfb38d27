//! Cluster time on an idle cluster (DESIGN section 5, Time). It is known to the next leader as far
//! as entries carried it, so without entries the time of this term would be forgotten with it, and
//! whoever is away would be waited for longer with each change of leader. While such a clock runs,
//! and only then, time alone is logged.

use core::time::Duration;

use tepui_model::time::Instant;

use crate::machine::Machine;

/// How much of a running clock a change of leader may forget.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

impl Machine {
    /// Asks for an entry when nothing was logged for [`INTERVAL`] and a clock runs that the next
    /// leader goes on with.
    pub(crate) fn stamp_time(&mut self) {
        if self.stamp_at > self.now {
            return;
        }
        let due = self.last_stamp() + INTERVAL;
        if due > self.now {
            self.stamp_at = due;
            return;
        }
        self.stamp_at = self.now + INTERVAL;
        self.out.stamp = self.runs_clock();
    }

    /// When to look again; never while nobody is away.
    pub(crate) fn next_stamp(&self) -> Option<Instant> {
        let mut frameworks = self.frameworks.away();
        let anybody = frameworks.next().is_some() || self.agents.away().next().is_some();
        anybody.then_some(self.stamp_at)
    }

    /// Somebody is away whose time-out a later leader counts from the log. Those that were
    /// connected to the last leader get their whole time from every next one.
    fn runs_clock(&self) -> bool {
        let framework = |id| {
            let row = self.state.framework(id);
            row.is_some_and(|it| it.disconnected_at_ns.is_some())
        };
        let agent = |id| {
            let row = self.state.agent(id);
            row.is_some_and(|it| it.disconnected_at_ns.is_some())
        };
        self.frameworks.away().any(framework) || self.agents.away().any(agent)
    }

    fn last_stamp(&self) -> Instant {
        self.instant_of(self.state.cluster_time())
    }
}
