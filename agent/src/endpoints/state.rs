//! `/state`, and its counterparts in the operator API.

use super::{
    executors,
    tasks::{self, Stage},
    values,
};
use prost::Message;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::Path};
use tepui_agent_machine::{
    model::{FrameworkId, Resources, framework::FrameworkInfo, wire},
    output::{AgentView, FrameworkView},
};
use tepui_server::proto::json::to_value;
use wire::agent::response::{
    GetAgent, GetExecutors, GetFrameworks, GetOperations, GetState, GetTasks, get_executors,
    get_frameworks,
};

/// What of the agent is not in its view.
#[derive(Debug, Clone)]
pub(crate) struct About<'a> {
    /// Names and values of the version, as JSON.
    pub(crate) version: Vec<(&'static str, String)>,
    /// Seconds since the epoch.
    pub(crate) start_time: f64,
    /// As the agent registers.
    pub(crate) info: &'a wire::AgentInfo,
    /// `ip:port`.
    pub(crate) address: String,
    /// Names of capabilities.
    pub(crate) capabilities: &'a [&'static str],
    /// Of the master that leads, when one is known.
    pub(crate) master_hostname: Option<String>,
    /// `--log_dir`.
    pub(crate) log_dir: Option<String>,
    /// Every flag that has a value.
    pub(crate) flags: BTreeMap<String, String>,
    /// Where the sandboxes are.
    pub(crate) work_dir: &'a Path,
}

/// What live tasks use.
pub(crate) fn used(view: &AgentView) -> Resources {
    let mut used = Resources::default();
    let all = view.frameworks.iter().flat_map(|it| &it.tasks);
    for task in all.filter(|it| !executors::is_over(it)) {
        used.add(&values::resources(&task.task.resources).unallocate());
    }
    used
}

/// `/state`.
pub(crate) fn state(view: &AgentView, about: &About<'_>) -> Value {
    let total = values::resources(&view.total);
    let used = used(view);
    let (completed, live): (Vec<_>, Vec<_>) = view.frameworks.iter().partition(|it| it.completed);
    let show = |list: Vec<&FrameworkView>| -> Value {
        let shown = list
            .into_iter()
            .map(|it| framework(it, &view.agent_id, about.work_dir));
        shown.collect()
    };
    let mut value = json!({
        "start_time": about.start_time,
        "id": view.agent_id,
        "pid": format!("slave(1)@{}", about.address),
        "hostname": about.info.hostname,
        "capabilities": about.capabilities,
        "resources": values::summary(&total),
        "reserved_resources": values::by_role(&total, values::summary),
        "unreserved_resources": values::summary(&total.unreserved()),
        "reserved_resources_full": values::by_role(&total, values::full),
        "unreserved_resources_full": values::full(&total.unreserved()),
        "reserved_resources_allocated": values::by_role(&used, values::summary),
        "unreserved_resources_allocated": values::summary(&used.unreserved()),
        "resource_providers": [],
        "attributes": values::attributes(&about.info.attributes),
        "flags": about.flags,
        "frameworks": show(live),
        "completed_frameworks": show(completed),
    });
    for (name, text) in &about.version {
        values::put(&mut value, name, serde_json::from_str(text).ok());
    }
    values::put(
        &mut value,
        "domain",
        about.info.domain.as_ref().map(to_value),
    );
    values::put(
        &mut value,
        "drain_config",
        drain_config(view).as_ref().map(to_value),
    );
    values::put(
        &mut value,
        "master_hostname",
        about.master_hostname.clone().map(Value::from),
    );
    values::put(
        &mut value,
        "log_dir",
        about.log_dir.clone().map(Value::from),
    );
    value
}

fn framework(view: &FrameworkView, agent_id: &str, work_dir: &Path) -> Value {
    let info = FrameworkInfo::from_wire(view.info.clone(), None);
    let mut executors: BTreeMap<bool, Vec<Value>> = BTreeMap::new();
    for task in &view.tasks {
        let list = executors.entry(executors::is_over(task)).or_default();
        list.push(executors::executor(task, agent_id, work_dir));
    }
    let mut value = json!({
        "id": view.framework_id,
        "name": info.name,
        "user": info.user,
        "failover_timeout": view.info.failover_timeout(),
        "checkpoint": info.checkpoint,
        "hostname": view.info.hostname(),
        "executors": executors.remove(&false).unwrap_or_default(),
        "completed_executors": executors.remove(&true).unwrap_or_default(),
    });
    values::put(
        &mut value,
        "principal",
        view.info.principal.clone().map(Value::from),
    );
    let roles: Vec<&str> = info.roles.iter().map(|it| it.as_str()).collect();
    match info.multi_role {
        true => values::put(&mut value, "roles", Some(json!(roles))),
        false => values::put(
            &mut value,
            "role",
            Some(json!(roles.first().unwrap_or(&"*"))),
        ),
    }
    value
}

fn drain_config(view: &AgentView) -> Option<wire::DrainConfig> {
    view.drain.as_ref().map(|it| wire::DrainConfig {
        max_grace_period: it
            .max_grace_period_ns
            .map(|nanoseconds| wire::DurationInfo {
                nanoseconds: i64::try_from(nanoseconds).unwrap_or(i64::MAX),
            }),
        mark_gone: Some(it.mark_gone),
    })
}

// ---------------------------------------------------------------- operator API

/// GET_STATE.
pub(crate) fn get_state(view: &AgentView) -> GetState {
    GetState {
        get_tasks: Some(get_tasks(view)),
        get_executors: Some(get_executors(view)),
        get_frameworks: Some(get_frameworks(view)),
    }
}

/// GET_TASKS.
pub(crate) fn get_tasks(view: &AgentView) -> GetTasks {
    let mut answer = GetTasks::default();
    for task in view.frameworks.iter().flat_map(|it| &it.tasks) {
        let list = match tasks::stage(task) {
            Stage::Queued => &mut answer.queued_tasks,
            Stage::Launched => &mut answer.launched_tasks,
            Stage::Terminated => &mut answer.terminated_tasks,
            Stage::Completed => &mut answer.completed_tasks,
        };
        list.push(tasks::task_v1(task, &view.agent_id));
    }
    answer
}

/// GET_EXECUTORS.
pub(crate) fn get_executors(view: &AgentView) -> GetExecutors {
    let mut answer = GetExecutors::default();
    for task in view.frameworks.iter().flat_map(|it| &it.tasks) {
        let list = match executors::is_over(task) {
            true => &mut answer.completed_executors,
            false => &mut answer.executors,
        };
        list.push(get_executors::Executor {
            executor_info: executors::executor_v1(task),
        });
    }
    answer
}

/// GET_FRAMEWORKS.
pub(crate) fn get_frameworks(view: &AgentView) -> GetFrameworks {
    let mut answer = GetFrameworks::default();
    for framework in &view.frameworks {
        let id = FrameworkId::from(framework.framework_id.as_str());
        let info = FrameworkInfo::from_wire(framework.info.clone(), None).with_id(&id);
        let list = match framework.completed {
            true => &mut answer.completed_frameworks,
            false => &mut answer.frameworks,
        };
        list.push(get_frameworks::Framework {
            framework_info: info.to_wire(),
        });
    }
    answer
}

/// GET_AGENT.
pub(crate) fn get_agent(view: &AgentView, info: &wire::AgentInfo) -> GetAgent {
    let mut info = info.clone();
    info.resources = view.total.clone();
    if !view.agent_id.is_empty() {
        info.id = Some(wire::AgentId {
            value: view.agent_id.clone(),
        });
    }
    GetAgent {
        agent_info: Some(info),
        drain_config: drain_config(view),
        estimated_drain_start_time: None,
    }
}

/// GET_OPERATIONS: those whose status the framework has not acknowledged yet.
pub(crate) fn get_operations(view: &AgentView) -> GetOperations {
    let operations = view.operations.iter().map(|it| {
        let status = wire::OperationStatus::decode(it.status_payload.clone()).unwrap_or_default();
        wire::Operation {
            framework_id: Some(wire::FrameworkId {
                value: it.framework_id.clone(),
            }),
            agent_id: Some(wire::AgentId {
                value: view.agent_id.clone(),
            }),
            info: wire::offer::Operation {
                id: status.operation_id.clone(),
                ..Default::default()
            },
            latest_status: status.clone(),
            statuses: vec![status],
            uuid: wire::Uuid {
                value: uuid(&it.operation_uuid),
            },
        }
    });
    GetOperations {
        operations: operations.collect(),
    }
}

/// The bytes of a hexadecimal uuid; nothing of what is none.
fn uuid(text: &str) -> bytes::Bytes {
    let digits: Option<Vec<u32>> = text
        .chars()
        .filter(|it| *it != '-')
        .map(|it| it.to_digit(16))
        .collect();
    let bytes = digits.unwrap_or_default();
    bytes
        .chunks_exact(2)
        .map(|it| (it[0] * 16 + it[1]) as u8)
        .collect()
}

/// Mesos prints these lists also when they are empty, other than everything else.
pub(crate) fn with_empty_lists(answer: &mut Value) {
    const LISTS: &[(&str, &[&str])] = &[
        (
            "get_tasks",
            &[
                "pending_tasks",
                "queued_tasks",
                "launched_tasks",
                "terminated_tasks",
                "completed_tasks",
            ],
        ),
        ("get_executors", &["executors", "completed_executors"]),
        ("get_frameworks", &["frameworks", "completed_frameworks"]),
    ];
    let fill = |object: &mut Map<String, Value>| {
        for (name, lists) in LISTS {
            let Some(found) = object.get_mut(*name).and_then(Value::as_object_mut) else {
                continue;
            };
            for list in *lists {
                found.entry(*list).or_insert_with(|| json!([]));
            }
        }
    };
    let Some(answer) = answer.as_object_mut() else {
        return;
    };
    fill(answer);
    if let Some(state) = answer.get_mut("get_state").and_then(Value::as_object_mut) {
        fill(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_agent_machine::{model::link, output::TaskView};

    fn view() -> AgentView {
        let resources = Resources::parse("cpus:0.5;mem:64", "*").unwrap();
        let task = |id: &str, state: wire::TaskState, completed: bool| TaskView {
            task: link::LaunchedTask {
                framework_id: "f".into(),
                task_id: id.into(),
                executor_id: id.into(),
                container_id: format!("c-{id}"),
                task_info_payload: wire::TaskInfo {
                    name: id.into(),
                    ..Default::default()
                }
                .encode_to_vec()
                .into(),
                resources: resources.allocate(&"web".into()).to_wire(),
                ..Default::default()
            },
            state: state as i32,
            statuses: Vec::new(),
            completed,
        };
        AgentView {
            agent_id: "S0".into(),
            registered: true,
            total: Resources::parse("cpus:4;cpus(web):1;mem:1024", "*")
                .unwrap()
                .to_wire(),
            frameworks: vec![FrameworkView {
                framework_id: "f".into(),
                info: wire::FrameworkInfo::default(),
                tasks: vec![
                    task("queued", wire::TaskState::TaskStaging, false),
                    task("runs", wire::TaskState::TaskRunning, false),
                    task("ended", wire::TaskState::TaskFailed, false),
                    task("over", wire::TaskState::TaskFinished, true),
                ],
                completed: false,
            }],
            ..Default::default()
        }
    }

    fn about(info: &wire::AgentInfo) -> About<'_> {
        About {
            version: tepui_server::version::fields(),
            start_time: 1.0,
            info,
            address: "127.0.0.1:5051".into(),
            capabilities: &["MULTI_ROLE"],
            master_hostname: None,
            log_dir: None,
            flags: BTreeMap::new(),
            work_dir: Path::new("/w"),
        }
    }

    #[test]
    fn tasks_are_where_their_stage_puts_them() {
        let info = wire::AgentInfo::default();
        let state = state(&view(), &about(&info));
        let framework = &state["frameworks"][0];
        let ids = |list: &Value| -> Vec<String> {
            let list = list.as_array().unwrap().iter();
            list.map(|it| it["id"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(ids(&framework["executors"]), ["queued", "runs"]);
        assert_eq!(ids(&framework["completed_executors"]), ["ended", "over"]);
        assert_eq!(ids(&framework["executors"][0]["queued_tasks"]), ["queued"]);
        assert_eq!(ids(&framework["executors"][1]["tasks"]), ["runs"]);
        assert_eq!(
            framework["executors"][1]["directory"],
            "/w/slaves/S0/frameworks/f/executors/runs/runs/c-runs"
        );
        assert_eq!(framework["executors"][1]["role"], "web");
        // Both live tasks use something, the ended ones nothing.
        assert_eq!(state["unreserved_resources_allocated"]["cpus"], 1.0);
        assert_eq!(state["reserved_resources"]["web"]["cpus"], 1.0);
        assert_eq!(state["resources"]["cpus"], 5.0);
        assert_eq!(state["version"], tepui_server::version::MESOS);

        let tasks = get_tasks(&view());
        assert_eq!(tasks.queued_tasks.len(), 1);
        assert_eq!(tasks.launched_tasks[0].name, "runs");
        assert_eq!(tasks.terminated_tasks[0].name, "ended");
        assert_eq!(tasks.completed_tasks[0].name, "over");
    }

    #[test]
    fn empty_lists_are_printed_where_mesos_does() {
        let mut answer = json!({"type": "GET_STATE", "get_state": {"get_tasks": {}, "get_executors": {"executors": [1]}}});
        with_empty_lists(&mut answer);
        assert_eq!(answer["get_state"]["get_tasks"]["pending_tasks"], json!([]));
        assert_eq!(
            answer["get_state"]["get_executors"]["executors"],
            json!([1])
        );
        assert_eq!(
            answer["get_state"]["get_executors"]["completed_executors"],
            json!([])
        );
        assert!(answer["get_state"].get("get_frameworks").is_none());
    }

    #[test]
    fn uuids_are_read_with_and_without_dashes() {
        assert_eq!(uuid("00ff-10").as_ref(), [0, 255, 16]);
        assert!(uuid("xy").is_empty());
    }
}
