//! Tasks: their part of `/state`, and `mesos.v1.Task`.

use super::values::{labels, put, resources, role, summary};
use prost::Message;
use serde_json::{Map, Value, json};
use tepui_agent_machine::{
    model::{task::is_terminal, wire},
    output::TaskView,
};
use tepui_server::proto::json::to_value;

/// How far a task has come, as the operator API sorts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its container is being launched.
    Queued,
    /// It runs, or is being killed.
    Launched,
    /// It has ended, and its framework has not acknowledged that yet.
    Terminated,
    /// It is over for everybody.
    Completed,
}

/// How far a task has come.
pub(crate) fn stage(task: &TaskView) -> Stage {
    let state = wire::TaskState::try_from(task.state).unwrap_or_default();
    match state {
        _ if task.completed => Stage::Completed,
        state if is_terminal(state) => Stage::Terminated,
        wire::TaskState::TaskStaging => Stage::Queued,
        _ => Stage::Launched,
    }
}

/// The name of a state.
pub(crate) fn state_name(state: i32) -> &'static str {
    wire::TaskState::try_from(state).map_or("TASK_UNKNOWN", |it| it.as_str_name())
}

/// The task as the framework sent it.
pub(crate) fn info(task: &TaskView) -> wire::TaskInfo {
    wire::TaskInfo::decode(task.task.task_info_payload.clone()).unwrap_or_default()
}

/// A task that has been launched, for `/state`.
pub(crate) fn task(task: &TaskView, agent_id: &str) -> Value {
    let info = info(task);
    let total = resources(&task.task.resources);
    let statuses: Vec<Value> = task.statuses.iter().map(status).collect();
    let mut value = json!({
        "id": task.task.task_id,
        "name": info.name,
        "framework_id": task.task.framework_id,
        // Command tasks have no executor of their own.
        "executor_id": "",
        "slave_id": agent_id,
        "state": state_name(task.state),
        "resources": summary(&total),
        "role": role(&total),
        "statuses": statuses,
    });
    if !info.limits.is_empty() {
        let limits = info
            .limits
            .iter()
            .map(|(name, limit)| (name.clone(), amount(limit.value)));
        put(
            &mut value,
            "limits",
            Some(limits.collect::<Map<_, _>>().into()),
        );
    }
    let user = info.command.as_ref().and_then(|it| it.user.clone());
    put(&mut value, "user", user.map(Value::from));
    put(&mut value, "labels", labels(info.labels.as_ref()));
    put(
        &mut value,
        "discovery",
        info.discovery.as_ref().map(to_value),
    );
    put(
        &mut value,
        "container",
        info.container.as_ref().map(to_value),
    );
    put(
        &mut value,
        "health_check",
        info.health_check.as_ref().map(to_value),
    );
    value
}

/// A number, or the text that JSON has for one without end.
fn amount(value: f64) -> Value {
    match value.is_finite() {
        true => json!(value),
        false => json!("Infinity"),
    }
}

/// A task whose container is being launched, for `/state`.
pub(crate) fn queued(task: &TaskView, agent_id: &str) -> Value {
    let info = info(task);
    let total = resources(&task.task.resources);
    let mut value = json!({
        "id": task.task.task_id,
        "name": info.name,
        "slave_id": agent_id,
        "resources": summary(&total),
        "role": role(&total),
    });
    put(&mut value, "command", info.command.as_ref().map(to_value));
    put(
        &mut value,
        "discovery",
        info.discovery.as_ref().map(to_value),
    );
    value
}

fn status(status: &wire::TaskStatus) -> Value {
    let mut value = json!({
        "state": state_name(status.state),
        "timestamp": status.timestamp(),
    });
    put(&mut value, "labels", labels(status.labels.as_ref()));
    put(
        &mut value,
        "container_status",
        status.container_status.as_ref().map(container_status),
    );
    put(&mut value, "healthy", status.healthy.map(Value::from));
    value
}

/// The part of a container's status that `/state` shows.
fn container_status(status: &wire::ContainerStatus) -> Value {
    let mut value = json!({});
    put(
        &mut value,
        "container_id",
        status.container_id.as_ref().map(to_value),
    );
    if !status.network_infos.is_empty() {
        let networks = status.network_infos.iter().map(to_value).collect();
        put(&mut value, "network_infos", Some(networks));
    }
    put(
        &mut value,
        "cgroup_info",
        status.cgroup_info.as_ref().map(to_value),
    );
    value
}

/// A task for the operator API.
pub(crate) fn task_v1(task: &TaskView, agent_id: &str) -> wire::Task {
    let info = info(task);
    let last = task.statuses.last();
    wire::Task {
        name: info.name,
        task_id: wire::TaskId {
            value: task.task.task_id.clone(),
        },
        framework_id: wire::FrameworkId {
            value: task.task.framework_id.clone(),
        },
        agent_id: wire::AgentId {
            value: agent_id.to_owned(),
        },
        state: task.state,
        resources: task.task.resources.clone(),
        limits: info.limits,
        statuses: task.statuses.clone(),
        status_update_state: last.map(|it| it.state),
        status_update_uuid: last.and_then(|it| it.uuid.clone()),
        labels: info.labels,
        discovery: info.discovery,
        container: info.container,
        health_check: info.health_check,
        kill_policy: info.kill_policy,
        user: info.command.and_then(|it| it.user),
        ..Default::default()
    }
}
