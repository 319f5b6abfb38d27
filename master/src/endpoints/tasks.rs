//! Tasks: `/tasks`, and their part of `/state`.

use super::{json::Writer, resources};
use crate::view::{View, totals};
use prost::Message;
use tepui_master_machine::model::{log, wire};
use tepui_server::proto::{json, wire as raw};

/// Numbers of the fields of `mesos.v1.TaskInfo` that are cut out of what the framework
/// sent, without decoding the rest.
mod field {
    pub(super) const COMMAND: u32 = 7;
    pub(super) const HEALTH_CHECK: u32 = 8;
    pub(super) const CONTAINER: u32 = 9;
    pub(super) const LABELS: u32 = 10;
    pub(super) const DISCOVERY: u32 = 11;
    pub(super) const LIMITS: u32 = 15;
    /// `CommandInfo.user`.
    pub(super) const USER: u32 = 5;
}

/// The last occurrence of a length-delimited field.
fn cut(bytes: &[u8], number: u32) -> Option<&[u8]> {
    raw::fields(bytes, number).last()
}

/// The name of a state.
pub(crate) fn state_name(state: i32) -> &'static str {
    wire::TaskState::try_from(state).map_or("TASK_UNKNOWN", |it| it.as_str_name())
}

/// One task.
pub(crate) fn task(writer: &mut Writer, row: &log::Task) {
    let info: &[u8] = &row.task_info_payload;
    writer.object(|it| {
        it.string_field("id", &row.task_id);
        it.string_field("name", &row.name);
        it.string_field("framework_id", &row.framework_id);
        it.string_field("executor_id", &row.executor_id);
        it.string_field("slave_id", &row.agent_id);
        it.string_field("state", state_name(row.state));
        resources::summary(it.key("resources"), &totals::resources(&row.resources));
        limits(it, info);
        it.string_field("role", &row.role);
        it.array_field("statuses", |it| {
            for status in &row.statuses {
                self::status(it, status);
            }
        });
        let user = cut(info, field::COMMAND).and_then(|command| cut(command, field::USER));
        if let Some(user) = user {
            it.string_field("user", &String::from_utf8_lossy(user));
        }
        if let Some(found) = cut(info, field::LABELS) {
            labels(it, found);
        }
        for (name, number, message) in [
            ("discovery", field::DISCOVERY, "mesos.v1.DiscoveryInfo"),
            ("container", field::CONTAINER, "mesos.v1.ContainerInfo"),
            ("health_check", field::HEALTH_CHECK, "mesos.v1.HealthCheck"),
        ] {
            if let Some(found) = cut(info, number) {
                it.key(name).wire(message, found);
            }
        }
    });
}

fn limits(it: &mut Writer, info: &[u8]) {
    if cut(info, field::LIMITS).is_none() {
        return;
    }
    let info = wire::TaskInfo::decode(info).unwrap_or_default();
    it.object_field("limits", |it| {
        for (name, limit) in &info.limits {
            it.double_field(name, limit.value);
        }
    });
}

/// Labels as an array of pairs; the field is left out when there are none.
pub(crate) fn labels(it: &mut Writer, bytes: &[u8]) {
    let labels = wire::Labels::decode(bytes).unwrap_or_default();
    if labels.labels.is_empty() {
        return;
    }
    it.array_field("labels", |it| {
        for label in &labels.labels {
            it.object(|it| {
                it.string_field("key", &label.key);
                if let Some(value) = &label.value {
                    it.string_field("value", value);
                }
            });
        }
    });
}

fn status(writer: &mut Writer, status: &log::TaskStatus) {
    writer.object(|it| {
        it.string_field("state", state_name(status.state));
        it.double_field("timestamp", status.timestamp);
        labels(it, &status.labels_payload);
        if !status.container_status_payload.is_empty() {
            let container = wire::ContainerStatus::decode(status.container_status_payload.clone())
                .unwrap_or_default();
            container_status(it, &container);
        }
        if let Some(healthy) = status.healthy {
            it.bool_field("healthy", healthy);
        }
    });
}

/// The part of a container's status that v0 shows.
fn container_status(it: &mut Writer, status: &wire::ContainerStatus) {
    it.object_field("container_status", |it| {
        if let Some(id) = &status.container_id {
            it.key("container_id").raw(&json::encode(id));
        }
        if !status.network_infos.is_empty() {
            it.array_field("network_infos", |it| {
                for network in &status.network_infos {
                    it.raw(&json::encode(network));
                }
            });
        }
        if let Some(cgroup) = &status.cgroup_info {
            it.key("cgroup_info").raw(&json::encode(cgroup));
        }
    });
}

/// Query of `/tasks`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// Tasks skipped.
    pub(crate) offset: usize,
    /// Tasks shown; Mesos' default is 100.
    pub(crate) limit: Option<usize>,
    /// Oldest first.
    pub(crate) ascending: bool,
    /// Only this framework's.
    pub(crate) framework_id: Option<String>,
    /// Only this one.
    pub(crate) task_id: Option<String>,
}

/// How many tasks `/tasks` shows unless asked otherwise.
const DEFAULT_LIMIT: usize = 100;

/// `/tasks`: active, unreachable and completed tasks of registered and completed
/// frameworks, by the time of their first status, newest first.
pub(crate) fn tasks(view: &View, query: &Query) -> String {
    let state = view.state();
    let mut found: Vec<&log::Task> = Vec::new();
    let frameworks = state.frameworks().chain(state.completed_frameworks());
    for (id, _) in frameworks {
        if query
            .framework_id
            .as_deref()
            .is_some_and(|it| it != id.as_str())
        {
            continue;
        }
        found.extend(state.tasks_of_framework(id).map(|(_, row)| row.as_ref()));
        found.extend(state.completed_tasks(id).map(|row| row.as_ref()));
    }
    if let Some(wanted) = &query.task_id {
        found.retain(|task| task.task_id == *wanted);
    }
    let time = |task: &log::Task| {
        task.statuses
            .first()
            .map_or(task.wall_launched, |it| it.timestamp)
    };
    found.sort_by(|one, other| time(one).total_cmp(&time(other)));
    if !query.ascending {
        found.reverse();
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let mut writer = Writer::new();
    writer.object(|it| {
        it.array_field("tasks", |it| {
            for row in found.into_iter().skip(query.offset).take(limit) {
                task(it, row);
            }
        });
    });
    writer.finish()
}

/// One status for the v1 API.
pub(crate) fn status_v1(row: &log::Task, status: &log::TaskStatus) -> wire::TaskStatus {
    let some = |bytes: &bytes::Bytes| (!bytes.is_empty()).then(|| bytes.clone());
    let executor = match (status.executor_id.as_str(), row.executor_id.as_str()) {
        ("", "") => None,
        ("", executor) | (executor, _) => Some(wire::ExecutorId {
            value: executor.to_owned(),
        }),
    };
    wire::TaskStatus {
        task_id: wire::TaskId {
            value: row.task_id.clone(),
        },
        state: status.state,
        message: (!status.message.is_empty()).then(|| status.message.clone()),
        source: status.source,
        reason: status.reason,
        agent_id: Some(wire::AgentId {
            value: row.agent_id.clone(),
        }),
        executor_id: executor,
        timestamp: Some(status.timestamp),
        uuid: some(&status.uuid),
        healthy: status.healthy,
        check_status: some(&status.check_status_payload).and_then(|it| Message::decode(it).ok()),
        labels: some(&status.labels_payload).and_then(|it| Message::decode(it).ok()),
        container_status: some(&status.container_status_payload)
            .and_then(|it| Message::decode(it).ok()),
        unreachable_time: status
            .unreachable_time_ns
            .map(|nanoseconds| wire::TimeInfo {
                nanoseconds: nanoseconds.try_into().unwrap_or(i64::MAX),
            }),
        limitation: some(&status.limitation_payload).and_then(|it| Message::decode(it).ok()),
        ..Default::default()
    }
}

/// One task for the v1 API.
pub(crate) fn task_v1(row: &log::Task) -> wire::Task {
    let info = wire::TaskInfo::decode(row.task_info_payload.clone()).unwrap_or_default();
    let id = |value: &String| (!value.is_empty()).then(|| value.clone());
    // The newest that the agent sent; the row keeps it apart only while it waits for its
    // acknowledgement. Statuses that masters make have no uuid.
    let newest = row.statuses.iter().rev().find(|it| !it.uuid.is_empty());
    let (update_state, update_uuid) = match row.forwarded_uuid.is_empty() {
        true => (newest.map(|it| it.state), newest.map(|it| it.uuid.clone())),
        false => (row.forwarded_state, Some(row.forwarded_uuid.clone())),
    };
    wire::Task {
        name: row.name.clone(),
        task_id: wire::TaskId {
            value: row.task_id.clone(),
        },
        framework_id: wire::FrameworkId {
            value: row.framework_id.clone(),
        },
        executor_id: id(&row.executor_id).map(|value| wire::ExecutorId { value }),
        agent_id: wire::AgentId {
            value: row.agent_id.clone(),
        },
        state: row.state,
        resources: row.resources.clone(),
        limits: info.limits,
        statuses: row
            .statuses
            .iter()
            .map(|status| status_v1(row, status))
            .collect(),
        status_update_state: update_state,
        status_update_uuid: update_uuid,
        labels: info.labels,
        discovery: info.discovery,
        container: info.container,
        health_check: info.health_check,
        kill_policy: info.kill_policy,
        user: info.command.and_then(|it| it.user),
    }
}

/// GET_TASKS.
pub(crate) fn get_tasks(view: &View) -> wire::master::response::GetTasks {
    let state = view.state();
    let mut answer = wire::master::response::GetTasks::default();
    for (id, _) in state.frameworks().chain(state.completed_frameworks()) {
        for (_, row) in state.tasks_of_framework(id) {
            let task = task_v1(row);
            match row.unreachable {
                true => answer.unreachable_tasks.push(task),
                false => answer.tasks.push(task),
            }
        }
        let completed = state.completed_tasks(id).map(|row| task_v1(row));
        answer.completed_tasks.extend(completed);
    }
    answer
}
