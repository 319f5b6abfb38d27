//! Checks of task groups (behaviour 4.4).

use super::{
    Fault, Rejection, TaskContext, container, resource,
    task::{self, MIN_CPUS, MIN_MEM},
};
use crate::{
    executor::{ExecutorInfo, ExecutorKind},
    id,
    task::TaskInfo,
    wire,
};
use std::{collections::BTreeSet, sync::Arc};

/// A task group and its executor: every task by itself, the executor, and how they fit. All tasks
/// fail together. Whether ids are in use and the pool holds it all is the master's to say.
///
/// # Errors
/// The first fault, with the reason TASK_GROUP_INVALID.
pub fn group(
    executor: &ExecutorInfo,
    tasks: &[Arc<TaskInfo>],
    context: &TaskContext<'_>,
) -> Result<(), Rejection> {
    let fault = || {
        if tasks.is_empty() {
            return Some("the task group has no tasks".to_owned());
        }
        tasks
            .iter()
            .find_map(|it| in_group(it, executor, context))
            .or_else(|| ids_differ(tasks))
            .or_else(|| cgroups_are_uniform(tasks))
            .or_else(|| group_executor(executor, context))
            .or_else(|| ports_differ(executor, tasks))
    };
    fault().map_or(Ok(()), |it| Err(Rejection::group(it)))
}

fn in_group(info: &TaskInfo, executor: &ExecutorInfo, context: &TaskContext<'_>) -> Fault {
    let fault = task::task_id(info)
        .err()
        .map(|it| it.message)
        .or_else(|| task::faults(info, context, false))
        .or_else(|| same_executor(info, executor))
        .or_else(|| not_docker(info))
        .or_else(|| reachable_health_check(info))
        .or_else(|| limits_need_own_cgroups(info));
    fault.map(|it| format!("task {:?} of the group is invalid: {it}", info.task_id))
}

fn same_executor(info: &TaskInfo, executor: &ExecutorInfo) -> Fault {
    let own = info.executor.as_ref()?;
    (own.wire != executor.wire)
        .then(|| "its 'executor' differs from the group's; expected it equal or unset".to_owned())
}

fn not_docker(info: &TaskInfo) -> Fault {
    let kind = info.wire.container.as_ref()?.r#type();
    (kind == wire::container_info::Type::Docker)
        .then(|| "a container of type DOCKER cannot be in a group".to_owned())
}

/// An HTTP or TCP health check goes to the executor's network, so the task cannot have its own.
fn reachable_health_check(info: &TaskInfo) -> Fault {
    use wire::health_check::Type;
    let own_network = !info.wire.container.as_ref()?.network_infos.is_empty();
    let kind = info.wire.health_check.as_ref()?.r#type();
    (own_network && matches!(kind, Type::Http | Type::Tcp)).then(|| {
        "an HTTP or TCP health check cannot reach a container with its own 'network_infos'"
            .to_owned()
    })
}

fn limits_need_own_cgroups(info: &TaskInfo) -> Fault {
    let own = container::share_cgroups(info.wire.container.as_ref()) == Some(false);
    (!info.wire.limits.is_empty() && !own).then(|| {
        "'limits' needs 'container.linux_info.share_cgroups' to be false in a group".to_owned()
    })
}

fn ids_differ(tasks: &[Arc<TaskInfo>]) -> Fault {
    let mut seen = BTreeSet::new();
    let twice = tasks.iter().find(|it| !seen.insert(&it.task_id))?;
    Some(format!(
        "the task id {:?} is in the group twice",
        twice.task_id
    ))
}

fn cgroups_are_uniform(tasks: &[Arc<TaskInfo>]) -> Fault {
    let shared =
        |it: &Arc<TaskInfo>| container::share_cgroups(it.wire.container.as_ref()).unwrap_or(true);
    let first = shared(tasks.first()?);
    tasks.iter().any(|it| shared(it) != first).then(|| {
        "'container.linux_info.share_cgroups' differs between tasks of one executor".to_owned()
    })
}

fn group_executor(executor: &ExecutorInfo, context: &TaskContext<'_>) -> Fault {
    if executor.kind == ExecutorKind::Unset {
        return Some("expecting 'executor.type' to be DEFAULT or CUSTOM".to_owned());
    }
    if let Some(fault) = task::executor(executor, context) {
        return Some(fault);
    }
    let docker = executor.wire.container.as_ref().map(|it| it.r#type());
    if docker == Some(wire::container_info::Type::Docker) {
        return Some("the executor of a group cannot have a container of type DOCKER".to_owned());
    }
    let resources = &executor.resources;
    for (name, least) in [("cpus", MIN_CPUS), ("mem", MIN_MEM)] {
        let amount = resources.scalar(name).unwrap_or_default();
        if amount < least {
            return Some(format!(
                "the executor has '{name}' {amount}; expected at least {least}"
            ));
        }
    }
    resources
        .disk()
        .is_none()
        .then(|| "the executor has no 'disk'; expected some".to_owned())
}

fn ports_differ(executor: &ExecutorInfo, tasks: &[Arc<TaskInfo>]) -> Fault {
    let mut used = executor.resources.clone();
    for it in tasks {
        if let Some(name) = resource::overlap(&it.resources, &used) {
            let id: &id::TaskId = &it.task_id;
            return Some(format!(
                "task {id:?} uses some of the '{name}' of its executor or of another task"
            ));
        }
        used.add(&it.resources.non_scalars());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentId, FrameworkId, Resources, agent::AgentCapabilities};

    fn task(id: &str, resources: &str) -> wire::TaskInfo {
        wire::TaskInfo {
            task_id: crate::TaskId::from(id).to_wire(),
            agent_id: AgentId::from("a").to_wire(),
            resources: Resources::parse(resources, "*").unwrap().to_wire(),
            command: Some(wire::CommandInfo::default()),
            ..Default::default()
        }
    }

    fn executor() -> wire::ExecutorInfo {
        wire::ExecutorInfo {
            r#type: Some(wire::executor_info::Type::Default.into()),
            executor_id: crate::ExecutorId::from("e").to_wire(),
            framework_id: Some(FrameworkId::from("f").to_wire()),
            resources: Resources::parse("cpus:0.1;mem:32;disk:32", "*")
                .unwrap()
                .to_wire(),
            ..Default::default()
        }
    }

    fn text(executor: wire::ExecutorInfo, tasks: Vec<wire::TaskInfo>) -> String {
        let (framework_id, agent_id) = (FrameworkId::from("f"), AgentId::from("a"));
        let context = TaskContext {
            framework_id: &framework_id,
            agent_id: &agent_id,
            agent_capabilities: AgentCapabilities::all(),
        };
        let tasks: Vec<_> = tasks
            .into_iter()
            .map(|it| Arc::new(TaskInfo::from_wire(it, None)))
            .collect();
        let executor = ExecutorInfo::from_wire(executor, None);
        match group(&executor, &tasks, &context) {
            Ok(()) => String::new(),
            Err(it) => {
                assert_eq!(it.reason, super::super::Reason::TaskGroupInvalid);
                it.message
            }
        }
    }

    fn pair() -> Vec<wire::TaskInfo> {
        vec![
            task("t1", "cpus:1;mem:1;ports:[1-1]"),
            task("t2", "cpus:1;mem:1;ports:[2-2]"),
        ]
    }

    #[test]
    fn good_groups_pass() {
        assert_eq!(text(executor(), pair()), "");
        let mut with_executor = pair();
        with_executor[0].executor = Some(executor());
        assert_eq!(text(executor(), with_executor), "");
    }

    #[test]
    fn one_bad_task_fails_the_group() {
        type Spoil = fn(&mut wire::TaskInfo);
        let cases: [(&str, Spoil); 7] = [
            ("agent_id", |it| it.agent_id.value = "b".into()),
            ("twice", |it| it.task_id.value = "t1".into()),
            ("'ports'", |it| {
                it.resources = task("t", "cpus:1;ports:[1-2]").resources
            }),
            ("DOCKER", |it| {
                it.container = Some(wire::ContainerInfo {
                    r#type: wire::container_info::Type::Docker.into(),
                    docker: Some(Default::default()),
                    ..Default::default()
                });
            }),
            ("differs from the group's", |it| {
                it.executor = Some(Default::default())
            }),
            ("health check", |it| {
                it.health_check = Some(wire::HealthCheck {
                    command: Some(Default::default()),
                    ..Default::default()
                });
            }),
            ("share_cgroups", |it| {
                it.limits = [("cpus".to_owned(), wire::value::Scalar { value: 2.0 })].into();
            }),
        ];
        for (word, spoil) in cases {
            let mut tasks = pair();
            spoil(&mut tasks[1]);
            let text = text(executor(), tasks);
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(text(executor(), Vec::new()).contains("no tasks"));
    }

    #[test]
    fn the_executor_is_checked() {
        type Spoil = fn(&mut wire::ExecutorInfo);
        let cases: [(&str, Spoil); 6] = [
            ("executor.type", |it| it.r#type = None),
            ("framework_id", |it| it.framework_id = None),
            ("command", |it| it.command = Some(Default::default())),
            ("'cpus'", |it| {
                it.resources = task("t", "mem:32;disk:1").resources
            }),
            ("'mem'", |it| {
                it.resources = task("t", "cpus:1;mem:31;disk:1").resources
            }),
            ("'disk'", |it| {
                it.resources = task("t", "cpus:1;mem:32").resources
            }),
        ];
        for (word, spoil) in cases {
            let mut executor = executor();
            spoil(&mut executor);
            let text = text(executor, pair());
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
