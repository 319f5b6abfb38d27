//! Task statuses that the master makes itself, and the two forms of the others: as
//! forwarded to the framework, as logged (behaviour section 5).

use bytes::Bytes;
use tepui_model::log;
use tepui_model::task;
use tepui_model::time::WallTime;
use tepui_model::wire::task_status::{Reason, Source};
use tepui_model::wire::{self, TaskState};

/// What the master says of a task: source MASTER, no uuid, so never acknowledged.
pub(crate) struct Verdict<'a> {
    pub(crate) task_id: &'a str,
    pub(crate) agent_id: Option<&'a str>,
    pub(crate) state: TaskState,
    pub(crate) reason: Reason,
    pub(crate) message: &'a str,
    pub(crate) wall: WallTime,
}

impl Verdict<'_> {
    pub(crate) fn status(&self) -> wire::TaskStatus {
        wire::TaskStatus {
            task_id: wire::TaskId {
                value: self.task_id.to_owned(),
            },
            state: self.state as i32,
            message: Some(self.message.to_owned()),
            source: Some(Source::Master as i32),
            reason: Some(self.reason as i32),
            agent_id: self.agent_id.map(|id| wire::AgentId {
                value: id.to_owned(),
            }),
            timestamp: Some(self.wall.0),
            ..wire::TaskStatus::default()
        }
    }
}

/// True for the states that end a task (behaviour section 5); numbers of the wire.
pub(crate) fn is_terminal(state: i32) -> bool {
    TaskState::try_from(state).is_ok_and(task::is_terminal)
}

/// What a reconciliation or the return of an agent tells of a task that is known:
/// `state`, and from its newest status health, check and container.
pub(crate) fn of_known_task(
    task: &log::Task,
    state: i32,
    verdict: &Verdict<'_>,
) -> wire::TaskStatus {
    let newest = task.statuses.last();
    let mut status = verdict.status();
    status.state = state;
    status.executor_id = (!task.executor_id.is_empty()).then(|| wire::ExecutorId {
        value: task.executor_id.clone(),
    });
    if let Some(newest) = newest {
        status.healthy = newest.healthy;
        status.check_status = decode(&newest.check_status_payload);
        status.container_status = decode(&newest.container_status_payload);
    }
    status
}

fn decode<M: prost::Message + Default>(payload: &Bytes) -> Option<M> {
    if payload.is_empty() {
        return None;
    }
    M::decode(payload.clone()).ok()
}
