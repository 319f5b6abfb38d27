//! Agents that are unreachable or gone are not remembered for ever (behaviour section
//! 11.2): the log drops them after two weeks, and the oldest when there are too many.

use core::time::Duration;

use tepui_model::id::AgentId;
use tepui_model::log;
use tepui_model::log::operation::Kind;

use crate::machine::Machine;

/// `--registry_gc_interval`.
pub(crate) const INTERVAL: Duration = Duration::from_secs(15 * 60);
/// `--registry_max_agent_age`.
const MAX_AGE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// `--registry_max_agent_count`.
const MAX_COUNT: usize = 100 * 1024;
/// Dropped in one step; the rest follows a second later.
const BATCH: usize = 1000;

impl Machine {
    /// Drops what is too old or too much. Ages are by wall clocks: of display value
    /// only, as is the knowledge that they end.
    pub(crate) fn collect_garbage(&mut self) {
        if self.gc_at > self.now {
            return;
        }
        self.gc_at = self.now + INTERVAL;
        let admitted = self.agents.iter().len();
        let away = self.state.agents().len().saturating_sub(admitted);
        if away == 0 {
            return;
        }
        let oldest_kept = self.wall.as_secs() - MAX_AGE.as_secs_f64();
        let mut known: Vec<(f64, AgentId)> = self
            .state
            .agents()
            .filter(|(_, row)| row.state() != log::AgentState::Admitted)
            .map(|(id, row)| {
                let since = row.wall_gone.or(row.wall_unreachable);
                (since.unwrap_or_default(), id.clone())
            })
            .collect();
        known.sort_by(|one, other| one.0.total_cmp(&other.0).then_with(|| one.1.cmp(&other.1)));
        let surplus = known.len().saturating_sub(MAX_COUNT);
        for (position, (since, agent_id)) in known.into_iter().enumerate() {
            if since >= oldest_kept && position >= surplus {
                break;
            }
            if position == BATCH {
                self.gc_at = self.now + Duration::from_secs(1);
                break;
            }
            self.log(Kind::RemoveAgent(log::RemoveAgent {
                agent_id: agent_id.as_str().to_owned(),
                wall_time: self.wall.as_secs(),
            }));
        }
    }
}
