//! Executors: a command task has one of its own name, which is no process of its own here.

use super::{
    tasks::{self, Stage},
    values::{labels, put, resources, role, summary},
};
use serde_json::{Value, json};
use std::path::Path;
use tepui_agent_machine::{model::wire, output::TaskView};
use tepui_containerizer::sandbox;

/// Letters of a command that an executor's name quotes, and when it is cut to fewer.
const QUOTED: (usize, usize) = (15, 12);

/// What a task's executor is called: `Command Executor (Task: t) (Command: sh -c 'sleep 9')`.
pub(crate) fn name(info: &wire::TaskInfo) -> String {
    let command = info.command.as_ref();
    let value = command.map_or("", |it| it.value());
    let (most, kept) = QUOTED;
    let quoted = match value.chars().count() > most {
        true => format!("{}...", value.chars().take(kept).collect::<String>()),
        false => value.to_owned(),
    };
    let quoted = match command.is_none_or(|it| it.shell()) {
        true => format!("sh -c '{quoted}'"),
        false => quoted,
    };
    format!(
        "Command Executor (Task: {}) (Command: {quoted})",
        info.task_id.value
    )
}

/// The sandbox of a task.
pub(crate) fn directory(work_dir: &Path, agent_id: &str, task: &TaskView) -> String {
    let its = &task.task;
    let path = sandbox::path(
        work_dir,
        agent_id,
        &its.framework_id,
        &its.executor_id,
        &its.container_id,
    );
    path.to_string_lossy().into_owned()
}

/// Whether its container is over.
pub(crate) fn is_over(task: &TaskView) -> bool {
    matches!(tasks::stage(task), Stage::Terminated | Stage::Completed)
}

/// The executor of a task, for `/state`.
pub(crate) fn executor(task: &TaskView, agent_id: &str, work_dir: &Path) -> Value {
    let info = tasks::info(task);
    let used = match is_over(task) {
        true => resources(&[]),
        false => resources(&task.task.resources),
    };
    let list = |wanted: &[Stage], show: &dyn Fn() -> Value| -> Vec<Value> {
        let listed = wanted.contains(&tasks::stage(task));
        listed.then(show).into_iter().collect()
    };
    let shown = || tasks::task(task, agent_id);
    let mut value = json!({
        "id": task.task.executor_id,
        "name": name(&info),
        "source": task.task.task_id,
        "container": task.task.container_id,
        "directory": directory(work_dir, agent_id, task),
        "resources": summary(&used),
        "role": role(&resources(&task.task.resources)),
        "tasks": list(&[Stage::Launched], &shown),
        "queued_tasks": list(&[Stage::Queued], &|| tasks::queued(task, agent_id)),
        "completed_tasks": list(&[Stage::Terminated, Stage::Completed], &shown),
    });
    put(&mut value, "labels", labels(info.labels.as_ref()));
    value
}

/// What an executor of a command task takes beside its task. In Mesos that is a process
/// with a share of its own; here the task itself is all that runs, so that it is none of
/// cpus and memory, which readers expect to be listed.
fn own_resources(task: &TaskView) -> Vec<wire::Resource> {
    let role = role(&resources(&task.task.resources));
    let none = |name: &str| wire::Resource {
        name: name.to_owned(),
        r#type: wire::value::Type::Scalar as i32,
        scalar: Some(wire::value::Scalar { value: 0.0 }),
        allocation_info: Some(wire::resource::AllocationInfo {
            role: Some(role.clone()),
        }),
        ..Default::default()
    };
    vec![none("cpus"), none("mem")]
}

/// The executor of a task, for the operator API.
#[allow(deprecated)] // Mesos still fills `source` in.
pub(crate) fn executor_v1(task: &TaskView) -> wire::ExecutorInfo {
    let info = tasks::info(task);
    let name = name(&info);
    wire::ExecutorInfo {
        executor_id: wire::ExecutorId {
            value: task.task.executor_id.clone(),
        },
        framework_id: Some(wire::FrameworkId {
            value: task.task.framework_id.clone(),
        }),
        // What runs is the task's command itself.
        command: info.command,
        resources: own_resources(task),
        name: Some(name),
        source: Some(task.task.task_id.clone()),
        discovery: info.discovery,
        labels: info.labels,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_quote_the_beginning_of_the_command() {
        let info = |shell: bool, value: &str| wire::TaskInfo {
            task_id: wire::TaskId { value: "t".into() },
            command: Some(wire::CommandInfo {
                shell: Some(shell),
                value: Some(value.into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        for (shell, command, expected) in [
            (true, "sleep 1000", "sh -c 'sleep 1000'"),
            (true, "env | sort; pwd", "sh -c 'env | sort; pwd'"),
            (true, "env | sort; pwd; ls", "sh -c 'env | sort; ...'"),
            (false, "/bin/true", "/bin/true"),
            (true, "ääääääääääääääää", "sh -c 'ääääääääääää...'"),
        ] {
            let expected = format!("Command Executor (Task: t) (Command: {expected})");
            assert_eq!(name(&info(shell, command)), expected);
        }
    }
}
