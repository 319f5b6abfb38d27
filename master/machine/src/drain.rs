//! Draining of agents (behaviour section 11.9): durable, done when nothing is left.

use tepui_model::id::AgentId;
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::wire::DrainState;

use crate::machine::Machine;
use crate::unreachable::Leaving;

impl Machine {
    /// A draining agent without tasks (every terminal update acknowledged) and operations
    /// is DRAINED, and gone when that was asked for.
    pub(crate) fn check_drained(&mut self, agent_id: &AgentId) {
        let Some(row) = self.state.agent(agent_id) else {
            return;
        };
        let Some(drain) = &row.drain else {
            return;
        };
        // Not while it is being removed.
        if self.agents.get(agent_id).is_none()
            || drain.state != DrainState::Draining as i32
            || self.state.tasks_of_agent(agent_id).next().is_some()
            || self.state.operations_of_agent(agent_id).next().is_some()
        {
            return;
        }
        let (deactivated, mark_gone) = (row.deactivated, drain.mark_gone);
        let drain = log::DrainInfo {
            state: DrainState::Drained as i32,
            ..*drain
        };
        self.log(Kind::SetAgentActivation(log::SetAgentActivation {
            agent_id: agent_id.as_str().to_owned(),
            deactivated,
            drain: Some(drain),
        }));
        if mark_gone {
            self.remove_agent(agent_id, Leaving::Gone);
        }
    }
}
