//! Agents that do not answer: pings, broken links, time-outs, and what becomes of the
//! tasks (behaviour sections 2.3, 5 and 11.2).

use tepui_model::event::Event;
use tepui_model::id::AgentId;
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log::operation::Kind;
use tepui_model::resources::Resources;
use tepui_model::wire::TaskState;
use tepui_model::wire::task_status::Reason;
use tepui_model::{link, log};

use crate::counters::Counter;
use crate::input::ConnectionId;
use crate::machine::Machine;
use crate::output::{Destination, Status, ViewChange};
use crate::tasks::Fate;

/// Why an agent leaves the admitted ones for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaving {
    /// It said so itself.
    Unregistered,
    /// Another one registered at its address.
    Replaced,
    /// Its machine is DOWN.
    MachineDown,
    /// An operator marked it gone.
    Gone,
}

impl Machine {
    /// The link broke: nothing is offered of it, pings count as unanswered.
    ///
    /// Unlike Mesos' agents, ours checkpoint for every framework: a lost link ends no
    /// task, whether `checkpoint` is set or not.
    pub(crate) fn agent_disconnected(&mut self, connection: ConnectionId) {
        if let Some(agent_id) = self.agents.of_connection(connection).cloned() {
            self.detach_agent(&agent_id);
        }
    }

    pub(crate) fn detach_agent(&mut self, agent_id: &AgentId) {
        if !self.agents.is_attached(agent_id) {
            return;
        }
        self.agents
            .detach(agent_id, self.now + self.config.agent_reregister_timeout);
        self.log(Kind::AgentDisconnected(log::AgentDisconnected {
            agent_id: agent_id.as_str().to_owned(),
            cluster_time_ns: self.cluster_time(self.now).as_nanos(),
        }));
        self.rescind_agent(agent_id);
        self.withdraw_inverse_offers(agent_id);
        self.allocator.deactivate_agent(agent_id);
        self.set_oversubscribed(agent_id, Resources::default());
        self.view_agent(agent_id);
    }

    /// Pings that are due: the next one goes out, or the agent is unreachable after too
    /// many without an answer. A broken link answers nothing.
    pub(crate) fn ping_agents(&mut self) {
        let interval = self.config.agent_ping_timeout;
        while let Some((agent_id, unanswered)) = self.agents.pop_ping(self.now, interval) {
            if unanswered >= self.config.max_agent_ping_timeouts {
                self.counters.add(Counter::SlaveUnreachableScheduled);
                self.mark_unreachable(&agent_id, "it did not answer pings");
            } else {
                self.send_agent(&agent_id, ToAgent::Ping(link::Ping { connected: true }));
            }
        }
    }

    /// Agents that did not come back in `agent_reregister_timeout`.
    pub(crate) fn expire_agents(&mut self) {
        while let Some(agent_id) = self.agents.pop_overdue(self.now) {
            self.counters.add(Counter::SlaveUnreachableScheduled);
            if self.agents.is_recovered(&agent_id) {
                self.counters.add(Counter::RecoverySlaveRemovals);
            }
            self.mark_unreachable(&agent_id, "it did not register again in time");
        }
    }

    /// Moves the agent to the unreachable: first the log, then the tasks' updates, then
    /// FAILURE to every framework. Tasks may come back with it.
    pub(crate) fn mark_unreachable(&mut self, agent_id: &AgentId, why: &str) {
        self.rescind_agent(agent_id);
        self.withdraw_inverse_offers(agent_id);
        let Some(link) = self.agents.remove(agent_id) else {
            return;
        };
        self.log(Kind::MarkUnreachable(log::MarkUnreachable {
            agent_id: agent_id.as_str().to_owned(),
            wall_time: self.wall.as_secs(),
        }));
        let message = format!("Agent {} is unreachable: {why}", link.host.hostname);
        for (framework_id, task_id) in self.task_keys_of_agent(agent_id) {
            self.decide_task(
                &framework_id,
                &task_id,
                TaskState::TaskUnreachable,
                Reason::AgentRemoved,
                &message,
                Fate::Unreachable,
            );
        }
        self.remove_executors(agent_id, None);
        self.lose_operations(agent_id, false);
        self.forget_agent(agent_id);
        self.agent_left(agent_id);
        self.counters.add(Counter::SlaveUnreachableCompleted);
        self.counters.add(Counter::SlaveRemovals);
        self.counters.add(Counter::SlaveRemovalsReasonUnhealthy);
        if let Some(connection) = link.connection {
            self.close(
                Destination::Agent(connection),
                Status::Unavailable,
                &message,
            );
        }
    }

    /// Removes an agent for good, admitted or unreachable: its tasks end, it is told to
    /// shut down.
    pub(crate) fn remove_agent(&mut self, agent_id: &AgentId, leaving: Leaving) {
        if self.state.agent(agent_id).is_none() {
            return;
        }
        self.rescind_agent(agent_id);
        self.withdraw_inverse_offers(agent_id);
        let link = self.agents.remove(agent_id);
        let (state, reason, message) = match leaving {
            Leaving::Unregistered => (
                TaskState::TaskLost,
                Reason::AgentRemoved,
                "Agent unregistered".to_owned(),
            ),
            Leaving::Replaced => (
                TaskState::TaskLost,
                Reason::AgentRemoved,
                "Agent removed: a new agent registered at its address".to_owned(),
            ),
            Leaving::MachineDown => (
                TaskState::TaskLost,
                Reason::AgentRemoved,
                "Agent removed: its machine is down for maintenance".to_owned(),
            ),
            Leaving::Gone => (
                TaskState::TaskGoneByOperator,
                Reason::AgentRemovedByOperator,
                "Agent was marked gone by an operator".to_owned(),
            ),
        };
        for (framework_id, task_id) in self.task_keys_of_agent(agent_id) {
            // Frameworks that do not know of partitions get the older reason as well.
            let reason = if self.is_partition_aware(&framework_id) {
                reason
            } else {
                Reason::AgentRemoved
            };
            self.decide_task(
                &framework_id,
                &task_id,
                state,
                reason,
                &message,
                Fate::Completed,
            );
        }
        self.remove_executors(agent_id, None);
        self.lose_operations(agent_id, leaving == Leaving::Gone);
        let id = agent_id.as_str().to_owned();
        let wall_time = self.wall.as_secs();
        self.log(match leaving {
            Leaving::Gone => Kind::MarkGone(log::MarkGone {
                agent_id: id,
                wall_time,
            }),
            _ => Kind::RemoveAgent(log::RemoveAgent {
                agent_id: id,
                wall_time,
            }),
        });
        let Some(link) = link else {
            return;
        };
        self.forget_agent(agent_id);
        self.agent_left(agent_id);
        self.counters.add(Counter::SlaveRemovals);
        match leaving {
            Leaving::Unregistered => self.counters.add(Counter::SlaveRemovalsReasonUnregistered),
            Leaving::Replaced => self.counters.add(Counter::SlaveRemovalsReasonRegistered),
            Leaving::MachineDown | Leaving::Gone => {}
        }
        if let Some(connection) = link.connection {
            self.send_link(
                connection,
                ToAgent::Shutdown(link::Shutdown {
                    message: message.clone(),
                }),
            );
            self.close(Destination::Agent(connection), Status::Ok, &message);
        }
    }

    fn agent_left(&mut self, agent_id: &AgentId) {
        self.broadcast(Event::Failure {
            agent_id: Some(agent_id.clone()),
            executor_id: None,
            status: None,
        });
        self.out
            .view
            .push(ViewChange::AgentRemoved(agent_id.clone()));
    }
}
