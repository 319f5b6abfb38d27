//! The return of an agent that has not changed: one small frame after a change of leader.
//!
//! The agent sends a digest of what a registration would say ([`tepui_model::digest`]). When
//! it is the one over the log's rows, nothing of the table in `attach` applies but the first
//! line: the agent is attached, unconfirmed commands are sent again, and nothing is logged.
//! Otherwise the agent is asked for a registration.

use tepui_model::digest::{Digest, Head};
use tepui_model::id::AgentId;
use tepui_model::link;
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log;
use tepui_model::log::operation::Kind;

use crate::counters::Counter;
use crate::input::ConnectionId;
use crate::machine::Machine;
use crate::statuses::is_terminal;

impl Machine {
    /// A frame of an agent that thinks the log has it as it is.
    pub(crate) fn reattach(&mut self, connection: ConnectionId, attach: link::Attach) {
        if !self.is_invited(attach.term) {
            return;
        }
        let agent_id = AgentId::from(attach.agent_id.as_str());
        let bound = self.agents.of_connection(connection);
        let known =
            bound.is_none_or(|bound| *bound == agent_id) && self.is_as_logged(&agent_id, &attach);
        if !known {
            self.send_link(connection, ToAgent::RegisterAgain(link::RegisterAgain {}));
            return;
        }
        self.counters.add(Counter::MessagesReregisterSlave);
        if bound.is_none() {
            self.attach_unchanged(connection, &agent_id);
        }
        self.confirm_commands(&agent_id, attach.commands_done);
        let timeout = self.config.total_ping_timeout().as_nanos();
        self.send_agent(
            &agent_id,
            ToAgent::Registered(link::Registered {
                agent_id: attach.agent_id,
                total_ping_timeout_ns: u64::try_from(timeout).unwrap_or(u64::MAX),
                // It has them.
                total: Vec::new(),
                reregistered: true,
            }),
        );
        self.send_pending(&agent_id);
        self.resume_operations(&agent_id);
    }

    /// Whether a frame answers an invitation of this term. One that was sent before the term
    /// may tell of a past in which tasks of this term do not exist.
    pub(crate) fn is_invited(&self, term: u64) -> bool {
        term == 0 || term == self.state.cluster().term
    }

    fn attach_unchanged(&mut self, connection: ConnectionId, agent_id: &AgentId) {
        self.take_over_link(agent_id);
        let away = self
            .state
            .agent(agent_id)
            .is_some_and(|row| row.disconnected_at_ns.is_some());
        if away {
            self.log(Kind::AgentConnected(log::AgentConnected {
                agent_id: agent_id.as_str().to_owned(),
                wall_time: self.wall.as_secs(),
            }));
        }
        self.counters.add(Counter::SlaveReregistrations);
        let interval = self.config.agent_ping_timeout;
        self.agents.attach(agent_id, connection, self.now, interval);
        self.offer_again(agent_id);
        self.view_agent(agent_id);
    }

    /// The log holds the agent as its digest says.
    fn is_as_logged(&self, agent_id: &AgentId, attach: &link::Attach) -> bool {
        let (Some(row), Some(link)) = (self.state.agent(agent_id), self.agents.get(agent_id))
        else {
            return false;
        };
        let done = attach.commands_done;
        row.state() == log::AgentState::Admitted
            // A log that is older than the agent.
            && done <= row.last_command
            && !self.is_machine_down(&link.host.hostname, &link.address.ip)
            && self.digest_of(agent_id, row, done) == Some(attach.digest)
    }

    /// The digest that an agent has which is as the log says and has done the commands up to
    /// `done`; nothing when its tasks need more than a comparison.
    fn digest_of(&self, agent_id: &AgentId, row: &log::Agent, done: u64) -> Option<u64> {
        let cluster = self.state.cluster();
        let mut digest = Digest::new(Head {
            cluster_id: &cluster.cluster_id,
            incarnation: cluster.incarnation,
            info_payload: &row.info_payload,
            address: &row.address,
            version: &row.version,
            capabilities: &row.capabilities,
            boot_id: &row.boot_id,
            total: &row.total,
        });
        let coming = self.unconfirmed_launches(agent_id, done);
        for (framework_id, task_id, task) in self.state.tasks_of_agent(agent_id) {
            if task.unreachable {
                return None;
            }
            let key = (framework_id.clone(), task_id.clone());
            if coming.is_empty() || !coming.contains(&key) {
                let ended = is_terminal(task.state);
                digest.task(
                    framework_id.as_str(),
                    task_id.as_str(),
                    &task.container_id,
                    ended,
                );
            }
        }
        Some(digest.finish())
    }
}
