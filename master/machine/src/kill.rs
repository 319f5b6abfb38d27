//! KILL and SHUTDOWN (behaviour section 7).

use bytes::Bytes;
use prost::Message as _;
use tepui_model::id::{AgentId, ExecutorId, FrameworkId, TaskId};
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log::operation::Kind;
use tepui_model::{log, wire};

use crate::counters::Counter;
use crate::machine::Machine;
use crate::statuses::is_terminal;

impl Machine {
    /// KILL. The intent is a fact of the log: it reaches the agent now or when it comes
    /// back. A task that is not active is reconciled instead; one on another agent than
    /// said is left alone.
    pub(crate) fn kill(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        agent_id: Option<&AgentId>,
        policy: Option<&wire::KillPolicy>,
    ) {
        self.counters.add(Counter::MessagesKillTask);
        let Some(row) = self
            .state
            .task(framework_id, task_id)
            .filter(|row| !row.unreachable)
            .cloned()
        else {
            self.reconcile_task(framework_id, task_id, agent_id);
            return;
        };
        if agent_id.is_some_and(|agent_id| agent_id.as_str() != row.agent_id)
            || is_terminal(row.state)
        {
            return;
        }
        let agent_id = AgentId::from(row.agent_id.as_str());
        let payload = policy
            .map(|policy| Bytes::from(policy.encode_to_vec()))
            .unwrap_or_default();
        self.order_kill(framework_id, task_id, &agent_id, payload);
    }

    /// Logs and sends the kill; one that waits unconfirmed with the same policy is sent
    /// again, so that repetitions do not fill the log.
    pub(crate) fn order_kill(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        agent_id: &AgentId,
        kill_policy_payload: Bytes,
    ) {
        let kill = log::Kill {
            framework_id: framework_id.as_str().to_owned(),
            task_id: task_id.as_str().to_owned(),
            kill_policy_payload,
        };
        let waiting = self
            .state
            .pending_commands(agent_id)
            .find(|command| matches!(&command.kind, Some(log::command::Kind::Kill(it)) if *it == kill))
            .cloned();
        if let Some(waiting) = waiting {
            self.send_agent(agent_id, ToAgent::Command(log::Command::clone(&waiting)));
            return;
        }
        let command = self.command(agent_id, log::command::Kind::Kill(kill));
        self.log(Kind::KillTask(log::KillTask {
            framework_id: framework_id.as_str().to_owned(),
            task_id: task_id.as_str().to_owned(),
            command: Some(command.clone()),
        }));
        self.send_agent(agent_id, ToAgent::Command(command));
    }

    /// SHUTDOWN of an executor: no acknowledgement, nothing for unknown ones. A command
    /// task is an executor of its own, named like the task.
    pub(crate) fn shutdown_executor(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        executor_id: &ExecutorId,
    ) {
        let executor = self.state.executor(framework_id, agent_id, executor_id);
        let task = self.state.task(framework_id, &executor_id.as_str().into());
        let runs = task.is_some_and(|row| {
            row.agent_id == agent_id.as_str()
                && row.executor_id.is_empty()
                && !is_terminal(row.state)
        });
        if executor.is_none() && !runs {
            return;
        }
        let shutdown = log::ShutdownExecutor {
            framework_id: framework_id.as_str().to_owned(),
            executor_id: executor_id.as_str().to_owned(),
        };
        let waits = self.state.pending_commands(agent_id).any(
            |command| matches!(&command.kind, Some(log::command::Kind::ShutdownExecutor(it)) if *it == shutdown),
        );
        if !waits {
            self.order(agent_id, log::command::Kind::ShutdownExecutor(shutdown));
        }
    }
}
