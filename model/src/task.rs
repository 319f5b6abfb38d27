//! Tasks: what is to run, and what became of it.

use crate::{AgentId, Resources, TaskId, executor::ExecutorInfo, payload, resources, time, wire};
use bytes::Bytes;
use core::time::Duration;
use prost::Message;
use std::{collections::BTreeMap, sync::Arc};

pub use crate::resources::Scalar;
pub use wire::TaskState;
pub use wire::task_status::{Reason, Source};

/// How much more than requested a task may use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Limit {
    /// At most this much.
    Amount(Scalar),
    /// As much as there is.
    Infinite,
}

/// The description of a task. Reading it never fails; [`crate::validation`] says what is wrong
/// about it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskInfo {
    /// Its id, unique among the framework's tasks that have not ended.
    pub task_id: TaskId,
    /// Where it is to run.
    pub agent_id: AgentId,
    /// Its name, for people.
    pub name: String,
    /// What it uses, its executor apart.
    pub resources: Resources,
    /// Upper bounds by resource name. Invalid ones are left out here and refused by validation.
    pub limits: BTreeMap<Arc<str>, Limit>,
    /// What cannot be read of the resources, which are empty then.
    pub fault: Option<resources::Error>,
    /// The executor that runs it; none for a command task.
    pub executor: Option<ExecutorInfo>,
    /// Whether it has a command of its own.
    pub has_command: bool,
    /// How long it has after a kill; none for the default. Negative ones are taken as zero (and
    /// refused by validation).
    pub kill_grace: Option<Duration>,
    /// `mesos.v1.TaskInfo` as it came.
    pub payload: Bytes,
    /// The same, decoded.
    pub wire: Arc<wire::TaskInfo>,
}

/// Number of `executor` in `TaskInfo`.
const EXECUTOR: u32 = 5;

impl TaskInfo {
    /// Reads the message; `raw` is what it was decoded from, if it came as protobuf.
    pub fn from_wire(info: wire::TaskInfo, raw: Option<Bytes>) -> TaskInfo {
        let raw_executor = raw.as_ref().and_then(|it| payload::path(it, &[EXECUTOR]));
        let executor = info.executor.clone();
        let payload = payload::or_encoded(raw, &info);
        let (resources, fault) = match Resources::from_wire(&info.resources) {
            Ok(it) => (it, None),
            Err(error) => (Resources::new(), Some(error)),
        };
        let limits = info.limits.iter().filter_map(|(name, it)| {
            let limit = limit(name, it.value).ok()?;
            Some((Arc::from(name.as_str()), limit))
        });
        TaskInfo {
            task_id: TaskId::from_wire(&info.task_id),
            agent_id: AgentId::from_wire(&info.agent_id),
            name: info.name.clone(),
            resources,
            limits: limits.collect(),
            fault,
            executor: executor.map(|it| ExecutorInfo::from_wire(it, raw_executor)),
            has_command: info.command.is_some(),
            kill_grace: grace(info.kill_policy.as_ref()),
            payload,
            wire: Arc::new(info),
        }
    }

    /// Reads what was kept. Bytes that are not such a message read as an empty one; none are kept
    /// that were not decoded before.
    pub fn from_payload(payload: Bytes) -> TaskInfo {
        let info = wire::TaskInfo::decode(payload.clone()).unwrap_or_default();
        TaskInfo::from_wire(info, Some(payload))
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::TaskInfo {
        (*self.wire).clone()
    }

    /// The resources of the task and of its executor, if it names one.
    pub fn resources_with_executor(&self) -> Resources {
        match &self.executor {
            None => self.resources.clone(),
            Some(executor) => self.resources.union(&executor.resources),
        }
    }

    /// The type of the health check that the master infers when the framework left it out:
    /// from the sub-message that is set. None when there is no check or it has a type.
    pub fn inferred_health_check(&self) -> Option<wire::health_check::Type> {
        let check = self.wire.health_check.as_ref()?;
        if check.r#type.is_some() {
            return None;
        }
        if check.command.is_some() {
            return Some(wire::health_check::Type::Command);
        }
        check
            .http
            .is_some()
            .then_some(wire::health_check::Type::Http)
    }
}

/// Reads one limit of a task: like an amount, or infinite.
pub(crate) fn limit(name: &str, value: f64) -> Result<Limit, resources::Error> {
    if value == f64::INFINITY {
        return Ok(Limit::Infinite);
    }
    Scalar::from_f64(name, value).map(Limit::Amount)
}

/// The grace period of a kill policy; negative ones as zero.
pub fn grace(policy: Option<&wire::KillPolicy>) -> Option<Duration> {
    let grace = policy?.grace_period.as_ref()?;
    Some(time::duration_from_wire(grace).unwrap_or_default())
}

/// Whether nothing comes after the state.
pub fn is_terminal(state: TaskState) -> bool {
    match state {
        TaskState::TaskFinished
        | TaskState::TaskFailed
        | TaskState::TaskKilled
        | TaskState::TaskLost
        | TaskState::TaskError
        | TaskState::TaskDropped
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => true,
        TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnreachable
        | TaskState::TaskUnknown => false,
    }
}

/// Whether a task in the state holds its resources: UNREACHABLE has released them, and so have
/// all terminal states.
pub fn holds_resources(state: TaskState) -> bool {
    !is_terminal(state) && state != TaskState::TaskUnreachable && state != TaskState::TaskUnknown
}

/// The state a task is in after an update: the first terminal state stays.
pub fn next(current: TaskState, update: TaskState) -> TaskState {
    if is_terminal(current) {
        current
    } else {
        update
    }
}

/// The state as a framework sees it: without PARTITION_AWARE it knows only LOST for whatever
/// may have become of a task.
pub fn visible(state: TaskState, partition_aware: bool) -> TaskState {
    match state {
        TaskState::TaskDropped
        | TaskState::TaskUnreachable
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator
        | TaskState::TaskUnknown
            if !partition_aware =>
        {
            TaskState::TaskLost
        }
        state => state,
    }
}

/// Adds a status to a task's history: `data` is removed, and of consecutive equal states only the
/// newest stays.
pub fn push_status(history: &mut Vec<wire::TaskStatus>, mut status: wire::TaskStatus) {
    status.data = None;
    match history.last_mut() {
        Some(last) if last.state == status.state => *last = status,
        _ => history.push(status),
    }
}

/// The status in the form of the log: without `data`, ids implied by the row.
pub fn status_to_log(status: &wire::TaskStatus) -> crate::log::TaskStatus {
    fn encoded<M: Message>(message: &Option<M>) -> Bytes {
        let message = message.as_ref();
        message.map_or_else(Bytes::new, |it| it.encode_to_vec().into())
    }
    let executor_id = status.executor_id.as_ref();
    crate::log::TaskStatus {
        state: status.state,
        uuid: status.uuid.clone().unwrap_or_default(),
        reason: status.reason,
        source: status.source,
        healthy: status.healthy,
        timestamp: status.timestamp.unwrap_or_default(),
        message: status.message.clone().unwrap_or_default(),
        container_status_payload: encoded(&status.container_status),
        labels_payload: encoded(&status.labels),
        check_status_payload: encoded(&status.check_status),
        unreachable_time_ns: status
            .unreachable_time
            .as_ref()
            .and_then(|it| u64::try_from(it.nanoseconds).ok()),
        limitation_payload: encoded(&status.limitation),
        executor_id: executor_id.map_or_else(String::new, |it| it.value.clone()),
    }
}

/// The status as the wire has it, from the form of the log. Bytes that cannot be decoded are left
/// out; what is in the log was decoded before.
pub fn status_from_log(
    status: &crate::log::TaskStatus,
    task_id: &TaskId,
    agent_id: Option<&AgentId>,
) -> wire::TaskStatus {
    fn decoded<M: Message + Default>(payload: &Bytes) -> Option<M> {
        if payload.is_empty() {
            return None;
        }
        M::decode(payload.clone()).ok()
    }
    fn set(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }
    wire::TaskStatus {
        task_id: task_id.to_wire(),
        state: status.state,
        message: set(&status.message),
        source: status.source,
        reason: status.reason,
        data: None,
        agent_id: agent_id.map(AgentId::to_wire),
        executor_id: set(&status.executor_id).map(|value| wire::ExecutorId { value }),
        timestamp: Some(status.timestamp),
        uuid: (!status.uuid.is_empty()).then(|| status.uuid.clone()),
        healthy: status.healthy,
        check_status: decoded(&status.check_status_payload),
        labels: decoded(&status.labels_payload),
        container_status: decoded(&status.container_status_payload),
        unreachable_time: status.unreachable_time_ns.map(|it| wire::TimeInfo {
            nanoseconds: i64::try_from(it).unwrap_or(i64::MAX),
        }),
        limitation: decoded(&status.limitation_payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state that the wire has.
    fn states() -> impl Iterator<Item = TaskState> {
        (0..32).filter_map(|it| TaskState::try_from(it).ok())
    }

    #[test]
    fn the_first_terminal_state_stays() {
        assert_eq!(states().count(), 14);
        assert_eq!(states().filter(|it| is_terminal(*it)).count(), 8);
        for first in states() {
            for second in states() {
                let expected = if is_terminal(first) { first } else { second };
                assert_eq!(next(first, second), expected);
            }
            assert!(!(is_terminal(first) && holds_resources(first)));
        }
    }

    #[test]
    fn old_frameworks_see_only_lost() {
        let lost = [9, 10, 11, 12, 13];
        for state in states() {
            assert_eq!(visible(state, true), state);
            let expected = match lost.contains(&(state as i32)) {
                true => TaskState::TaskLost,
                false => state,
            };
            assert_eq!(visible(state, false), expected);
        }
    }

    #[test]
    fn history_keeps_the_newest_of_equal_states() {
        let status = |state: TaskState, message: &str| wire::TaskStatus {
            state: state.into(),
            message: Some(message.into()),
            data: Some(Bytes::from_static(b"bulk")),
            ..Default::default()
        };
        let mut history = Vec::new();
        push_status(&mut history, status(TaskState::TaskRunning, "a"));
        push_status(&mut history, status(TaskState::TaskRunning, "b"));
        push_status(&mut history, status(TaskState::TaskFinished, "c"));
        let messages: Vec<_> = history.iter().map(|it| it.message()).collect();
        assert_eq!(messages, ["b", "c"]);
        assert!(history.iter().all(|it| it.data.is_none()));
    }

    #[test]
    fn statuses_survive_the_log() {
        let status = wire::TaskStatus {
            task_id: TaskId::from("t").to_wire(),
            agent_id: Some(AgentId::from("a").to_wire()),
            executor_id: Some(crate::ExecutorId::from("e").to_wire()),
            state: TaskState::TaskLost.into(),
            message: Some("gone".into()),
            source: Some(Source::Master.into()),
            reason: Some(Reason::AgentRemoved.into()),
            timestamp: Some(1.5),
            uuid: Some(Bytes::from_static(&[7; 16])),
            healthy: Some(false),
            unreachable_time: Some(wire::TimeInfo { nanoseconds: 5 }),
            container_status: Some(wire::ContainerStatus {
                executor_pid: Some(7),
                ..Default::default()
            }),
            ..Default::default()
        };
        let log = status_to_log(&status);
        let read = status_from_log(&log, &"t".into(), Some(&"a".into()));
        assert_eq!(read, status);
    }

    #[test]
    fn payloads_keep_what_is_not_known() {
        let info = wire::TaskInfo {
            name: "t".into(),
            executor: Some(wire::ExecutorInfo::default()),
            ..Default::default()
        };
        let mut raw = info.encode_to_vec();
        // Field 1000 with the text "new".
        raw.extend_from_slice(&[0xc2, 0x3e, 3, b'n', b'e', b'w']);
        let task = TaskInfo::from_wire(info, Some(raw.clone().into()));
        assert_eq!(task.payload, raw);
        assert_eq!(TaskInfo::from_payload(task.payload.clone()), task);
        assert!(task.executor.is_some());
    }

    #[test]
    fn health_checks_get_their_type_from_what_is_set() {
        let with = |check| {
            let info = wire::TaskInfo {
                health_check: Some(check),
                ..Default::default()
            };
            TaskInfo::from_wire(info, None).inferred_health_check()
        };
        let command = wire::HealthCheck {
            command: Some(wire::CommandInfo::default()),
            ..Default::default()
        };
        assert_eq!(
            with(command.clone()),
            Some(wire::health_check::Type::Command)
        );
        let typed = wire::HealthCheck {
            r#type: Some(wire::health_check::Type::Http.into()),
            ..command
        };
        assert_eq!(with(typed), None);
        assert_eq!(with(wire::HealthCheck::default()), None);
    }
}
