//! Streams of status updates: one per task, reliable and in order.

use crate::{
    knowledge::{Task, TaskKey},
    machine::Machine,
    output::ContainerCommand,
};
use core::time::Duration;
use prost::Message;
use tepui_model::{link, link::agent_message, link::record::Kind, time::Instant, wire};

/// Something in flight: when to send it again, and how long it waited last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) at: Instant,
    pub(crate) interval: Duration,
}

impl Task {
    /// Whether its newest state is a terminal one.
    pub fn is_terminal(&self) -> bool {
        let state = wire::TaskState::try_from(self.progress.state);
        state.is_ok_and(tepui_model::task::is_terminal)
    }
}

impl Machine {
    /// Appends a status to the task's stream; sends it when it is the only one. Statuses
    /// after a terminal one do not count.
    pub(crate) fn update(&mut self, key: &TaskKey, mut status: wire::TaskStatus) {
        let Some(task) = self.knowledge.tasks.get(key) else {
            return;
        };
        if task.is_terminal() || task.progress.silent {
            return;
        }
        let mut progress = task.progress.clone();
        progress.state = status.state;
        let first = task.updates.is_empty();
        status.task_id = wire::TaskId {
            value: key.1.clone(),
        };
        status.agent_id = Some(wire::AgentId {
            value: self.knowledge.identity.agent_id.clone(),
        });
        status.timestamp = Some(self.wall.as_secs());
        status.uuid = Some(self.uuid());
        self.record(Kind::Progress(progress));
        self.record(Kind::AppendUpdate(link::AppendUpdate {
            framework_id: key.0.clone(),
            task_id: key.1.clone(),
            status_payload: status.encode_to_vec().into(),
        }));
        if first {
            self.send_head(key);
        }
    }

    /// Sends the oldest update of a task and begins to wait for its acknowledgement.
    fn send_head(&mut self, key: &TaskKey) {
        let interval = self.options.intervals.retry_min;
        let Some(link) = self.registered else { return };
        let Some(message) = self.head(key) else {
            self.retries.remove(key);
            return;
        };
        self.send(link, agent_message::Kind::TaskUpdate(message));
        self.retries
            .insert(key.clone(), Retry::begin(self.now, interval));
    }

    fn head(&self, key: &TaskKey) -> Option<link::TaskUpdate> {
        let task = self.knowledge.tasks.get(key)?;
        if task.progress.silent {
            return None;
        }
        Some(link::TaskUpdate {
            framework_id: key.0.clone(),
            status_payload: task.updates.front()?.clone(),
            latest_state: task.progress.state,
        })
    }

    /// An acknowledgement; one of anything but the head is ignored.
    pub(crate) fn acknowledged(&mut self, key: &TaskKey, uuid: &[u8]) {
        let Some(task) = self.knowledge.tasks.get(key) else {
            return;
        };
        let Some(head) = task.updates.front() else {
            return;
        };
        let head = wire::TaskStatus::decode(head.clone()).unwrap_or_default();
        if head.uuid.as_deref() != Some(uuid) {
            return;
        }
        self.record(Kind::PopUpdate(link::PopUpdate {
            framework_id: key.0.clone(),
            task_id: key.1.clone(),
        }));
        let state = wire::TaskState::try_from(head.state);
        if state.is_ok_and(tepui_model::task::is_terminal) {
            self.forget_task(key);
        } else {
            self.send_head(key);
        }
    }

    /// The task is over for everybody: its container's remains can go.
    pub(crate) fn forget_task(&mut self, key: &TaskKey) {
        let Some(task) = self.knowledge.tasks.get(key) else {
            return;
        };
        let container_id = task.launched.container_id.clone();
        self.retries.remove(key);
        self.record(Kind::ForgetTask(link::ForgetTask {
            framework_id: key.0.clone(),
            task_id: key.1.clone(),
            wall_ended: self.wall.as_secs(),
        }));
        self.container(ContainerCommand::Remove { container_id });
        if self.knowledge.tasks_of(&key.0).is_empty() {
            self.record(Kind::ForgetFramework(link::ForgetFramework {
                framework_id: key.0.clone(),
            }));
        }
    }

    // ------------------------------------------------------------ operations

    pub(crate) fn operation_done(&mut self, operation: link::PendingOperation) {
        let uuid = operation.operation_uuid.clone();
        self.record(Kind::Operation(operation));
        self.send_operation(&uuid);
    }

    fn send_operation(&mut self, uuid: &str) {
        let interval = self.options.intervals.retry_min;
        let (Some(link), Some(operation)) = (self.registered, self.knowledge.operations.get(uuid))
        else {
            return;
        };
        let message = link::OperationUpdate {
            framework_id: operation.framework_id.clone(),
            operation_uuid: uuid.to_owned(),
            status_payload: operation.status_payload.clone(),
            latest_state: wire::OperationState::OperationFinished as i32,
        };
        self.send(link, agent_message::Kind::OperationUpdate(message));
        self.operation_retries
            .insert(uuid.to_owned(), Retry::begin(self.now, interval));
    }

    pub(crate) fn operation_acknowledged(&mut self, uuid: &str) {
        if self.knowledge.operations.contains_key(uuid) {
            self.operation_retries.remove(uuid);
            self.record(Kind::ForgetOperation(link::ForgetOperation {
                operation_uuid: uuid.to_owned(),
            }));
        }
    }

    // ------------------------------------------------------------ retries

    /// The agent is registered (again): every head goes out at once.
    pub(crate) fn resend_everything(&mut self) {
        let tasks: Vec<TaskKey> = self.knowledge.tasks.keys().cloned().collect();
        for key in tasks {
            self.send_head(&key);
        }
        let operations: Vec<String> = self.knowledge.operations.keys().cloned().collect();
        for uuid in operations {
            self.send_operation(&uuid);
        }
    }

    /// One framework is there (again): the heads of its tasks go out at once.
    pub(crate) fn resend_framework(&mut self, framework_id: &str) {
        for key in self.knowledge.tasks_of(framework_id) {
            self.send_head(&key);
        }
    }

    pub(crate) fn retry_deadline(&self) -> Option<Instant> {
        let tasks = self.retries.values();
        let operations = self.operation_retries.values();
        tasks.chain(operations).map(|it| it.at).min()
    }

    pub(crate) fn retry_if_due(&mut self) {
        let (now, longest) = (self.now, self.options.intervals.retry_max);
        let due = |retry: &Retry| retry.at <= now;
        let later = |retry: &Retry| Retry::begin(now, (retry.interval * 2).min(longest));
        let tasks: Vec<(TaskKey, Retry)> = self
            .retries
            .iter()
            .filter(|(_, retry)| due(retry))
            .map(|(key, retry)| (key.clone(), later(retry)))
            .collect();
        for (key, retry) in tasks {
            self.send_head(&key);
            self.retries.insert(key, retry);
        }
        let operations: Vec<(String, Retry)> = self
            .operation_retries
            .iter()
            .filter(|(_, retry)| due(retry))
            .map(|(uuid, retry)| (uuid.clone(), later(retry)))
            .collect();
        for (uuid, retry) in operations {
            self.send_operation(&uuid);
            self.operation_retries.insert(uuid, retry);
        }
    }
}
