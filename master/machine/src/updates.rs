//! Status updates: from an agent to the log and the framework, and the framework's
//! acknowledgement back (behaviour section 6).

use bytes::Bytes;
use prost::Message as _;
use tepui_model::event::Event;
use tepui_model::id::{AgentId, ExecutorId, FrameworkId, TaskId};
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log::operation::Kind;
use tepui_model::wire::{self, TaskState};
use tepui_model::{link, log};

use crate::counters::Counter;
use crate::machine::Machine;
use crate::statuses::is_terminal;

impl Machine {
    /// An update from an agent's stream. It is sent again until acknowledged, so a
    /// repetition is forwarded without another fact in the log.
    pub(crate) fn task_update(&mut self, agent_id: &AgentId, update: link::TaskUpdate) {
        self.counters.add(Counter::MessagesStatusUpdate);
        let framework_id = FrameworkId::from(update.framework_id.as_str());
        let Ok(mut status) = wire::TaskStatus::decode(update.status_payload.clone()) else {
            self.counters.add(Counter::InvalidStatusUpdates);
            return;
        };
        let task_id = TaskId::from(status.task_id.value.as_str());
        let uuid = status.uuid.clone().unwrap_or_default();
        if uuid.len() != 16 || TaskState::try_from(status.state).is_err() {
            self.counters.add(Counter::InvalidStatusUpdates);
            return;
        }
        if !self.is_live(&framework_id) {
            // It can never acknowledge: the master does, so that the agent may forget.
            self.counters.add(Counter::InvalidStatusUpdates);
            self.acknowledge_at_agent(agent_id, &framework_id, &task_id, uuid);
            return;
        }
        self.counters.add(Counter::ValidStatusUpdates);
        if let Ok(state) = TaskState::try_from(status.state) {
            status.state = self.visible_state(&framework_id, state) as i32;
        }
        status.agent_id = Some(agent_id.to_wire());
        let latest = TaskState::try_from(update.latest_state)
            .ok()
            .map(|state| self.visible_state(&framework_id, state) as i32);
        if let Some(row) = self.state.task(&framework_id, &task_id)
            && row.agent_id == agent_id.as_str()
        {
            let newest = latest.unwrap_or(status.state);
            let repeated = row.forwarded_uuid == uuid
                && (row.state == newest || is_terminal(row.state))
                && !row.unreachable;
            if !repeated {
                self.update_task(&framework_id, &task_id, &status, latest, false);
            }
        }
        self.event(&framework_id, Event::Update(Box::new(status)));
    }

    /// ACKNOWLEDGE. Dropped when the agent is not attached (it repeats the update then),
    /// or when the task has no update with this uuid on its way; a task that the master
    /// does not know does not stop it.
    pub(crate) fn acknowledge(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        task_id: &TaskId,
        uuid: Bytes,
    ) {
        self.counters
            .add(Counter::MessagesStatusUpdateAcknowledgement);
        if !self.agents.is_attached(agent_id) {
            self.counters
                .add(Counter::InvalidStatusUpdateAcknowledgements);
            return;
        }
        if let Some(row) = self.state.task(framework_id, task_id) {
            if row.agent_id != agent_id.as_str() || row.forwarded_uuid != uuid {
                self.counters
                    .add(Counter::InvalidStatusUpdateAcknowledgements);
                return;
            }
            let ended = is_terminal(row.state)
                && row.forwarded_state.is_some_and(is_terminal)
                && !row.unreachable;
            self.log(Kind::AcknowledgeTask(log::AcknowledgeTask {
                framework_id: framework_id.as_str().to_owned(),
                task_id: task_id.as_str().to_owned(),
                uuid: uuid.clone(),
            }));
            if ended {
                self.complete_task(framework_id, task_id);
            }
        }
        self.counters
            .add(Counter::ValidStatusUpdateAcknowledgements);
        self.acknowledge_at_agent(agent_id, framework_id, task_id, uuid);
    }

    fn acknowledge_at_agent(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        uuid: Bytes,
    ) {
        self.send_agent(
            agent_id,
            ToAgent::AcknowledgeUpdate(link::AcknowledgeUpdate {
                framework_id: framework_id.as_str().to_owned(),
                task_id: task_id.as_str().to_owned(),
                uuid,
            }),
        );
    }

    /// A custom or default executor ended: FAILURE with its status (section 2.4).
    pub(crate) fn executor_exited(&mut self, agent_id: &AgentId, exited: &link::ExecutorExited) {
        self.counters.add(Counter::MessagesExitedExecutor);
        let framework_id = FrameworkId::from(exited.framework_id.as_str());
        let executor_id = ExecutorId::from(exited.executor_id.as_str());
        if self
            .state
            .executor(&framework_id, agent_id, &executor_id)
            .is_none()
        {
            return;
        }
        self.remove_executor(&framework_id, agent_id, &executor_id);
        self.event(
            &framework_id,
            Event::Failure {
                agent_id: Some(agent_id.clone()),
                executor_id: Some(executor_id),
                status: Some(exited.status),
            },
        );
    }

    /// Bytes from an executor: best effort, never logged.
    pub(crate) fn executor_message(&mut self, agent_id: &AgentId, message: link::ExecutorMessage) {
        self.counters.add(Counter::MessagesExecutorToFramework);
        let framework_id = FrameworkId::from(message.framework_id.as_str());
        if !self.frameworks.is_connected(&framework_id) {
            self.counters
                .add(Counter::InvalidExecutorToFrameworkMessages);
            return;
        }
        self.counters.add(Counter::ValidExecutorToFrameworkMessages);
        self.event(
            &framework_id,
            Event::Message {
                agent_id: agent_id.clone(),
                executor_id: ExecutorId::from(message.executor_id),
                data: message.data,
            },
        );
    }

    /// MESSAGE: bytes to an executor, through its agent; best effort.
    pub(crate) fn scheduler_message(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        executor_id: &ExecutorId,
        data: Bytes,
    ) {
        self.counters.add(Counter::MessagesFrameworkToExecutor);
        let sent = self.send_agent(
            agent_id,
            ToAgent::SchedulerMessage(link::SchedulerMessage {
                framework_id: framework_id.as_str().to_owned(),
                executor_id: executor_id.as_str().to_owned(),
                data,
            }),
        );
        self.counters.add(if sent {
            Counter::ValidFrameworkToExecutorMessages
        } else {
            Counter::InvalidFrameworkToExecutorMessages
        });
    }
}
