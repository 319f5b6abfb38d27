//! Checks of tasks (behaviour 4.3).

use super::{Fault, Rejection, TaskContext, check, container, resource};
use crate::{
    agent, executor::ExecutorInfo, executor::ExecutorKind, id, resources::Scalar, task::Limit,
    task::TaskInfo,
};

/// Item 1: the task's id.
///
/// # Errors
/// The id is not one.
pub fn task_id(task: &TaskInfo) -> Result<(), Rejection> {
    id::validate("task_id", task.task_id.as_str()).map_err(|it| Rejection::task(it.to_string()))
}

/// Items 3 to 11: the task itself, its health check's type being inferred where it has none.
///
/// # Errors
/// The first fault.
pub fn task(task: &TaskInfo, context: &TaskContext<'_>) -> Result<(), Rejection> {
    refuse(faults(task, context, true))
}

/// Items 12 to 14 and 16: command or executor, and how the two share the resources. The executor
/// must have its framework's id by now.
///
/// # Errors
/// The first fault.
pub fn launch(task: &TaskInfo, context: &TaskContext<'_>) -> Result<(), Rejection> {
    const CHECKS: [fn(&TaskInfo, &TaskContext<'_>) -> Fault; 4] = [
        either_command_or_executor,
        executor_is_valid,
        executor_uses_other_ports,
        cgroups_are_shared,
    ];
    refuse(CHECKS.iter().find_map(|it| it(task, context)))
}

fn refuse(fault: Fault) -> Result<(), Rejection> {
    fault.map_or(Ok(()), |it| Err(Rejection::task(it)))
}

/// Items 3 to 11. Task groups pass them too, but their health checks need a type.
pub(super) fn faults(task: &TaskInfo, context: &TaskContext<'_>, infer: bool) -> Fault {
    const BEFORE: [fn(&TaskInfo, &TaskContext<'_>) -> Fault; 4] =
        [agent, kill_policy, max_completion_time, check_is_valid];
    const AFTER: [fn(&TaskInfo, &TaskContext<'_>) -> Fault; 4] =
        [resources, command, container_is_valid, limits];
    BEFORE
        .iter()
        .find_map(|it| it(task, context))
        .or_else(|| health_check(task, infer))
        .or_else(|| AFTER.iter().find_map(|it| it(task, context)))
}

fn agent(task: &TaskInfo, context: &TaskContext<'_>) -> Fault {
    let (given, expected) = (&task.agent_id, context.agent_id);
    (given != expected)
        .then(|| format!("'agent_id' is {given:?}; expected the agent of the offers, {expected:?}"))
}

fn kill_policy(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    let grace = task.wire.kill_policy.as_ref()?.grace_period.as_ref()?;
    negative("kill_policy.grace_period", grace.nanoseconds)
}

fn max_completion_time(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    let time = task.wire.max_completion_time.as_ref()?;
    negative("max_completion_time", time.nanoseconds)
}

fn negative(field: &str, nanoseconds: i64) -> Fault {
    (nanoseconds < 0).then(|| format!("'{field}' is {nanoseconds} ns; expected at least 0"))
}

fn check_is_valid(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    let fault = check::check(task.wire.check.as_ref()?)?;
    Some(format!("the task uses an invalid check: {fault}"))
}

fn health_check(task: &TaskInfo, infer: bool) -> Fault {
    let inferred = task.inferred_health_check().filter(|_| infer);
    let fault = check::health_check(task.wire.health_check.as_ref()?, inferred)?;
    Some(format!("the task uses an invalid health check: {fault}"))
}

fn resources(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    if let Some(fault) = &task.fault {
        return Some(format!("the task uses invalid resources: {fault}"));
    }
    if task.wire.resources.is_empty() {
        return Some("the task uses no resources".to_owned());
    }
    let fault = resource::usable(&task.resources)?;
    Some(format!("the task uses invalid resources: {fault}"))
}

fn command(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    let fault = container::command(task.wire.command.as_ref()?)?;
    Some(format!("the task's command is invalid: {fault}"))
}

fn container_is_valid(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    let fault = container::container(task.wire.container.as_ref()?)?;
    Some(format!("the task's container is invalid: {fault}"))
}

fn limits(task: &TaskInfo, context: &TaskContext<'_>) -> Fault {
    if task.wire.limits.is_empty() {
        return None;
    }
    let capability = agent::Capability::TaskResourceLimits;
    if !context.agent_capabilities.is(capability) {
        return Some("'limits' is set, but the agent lacks TASK_RESOURCE_LIMITS".to_owned());
    }
    task.wire.limits.iter().find_map(|(name, value)| {
        if !matches!(name.as_str(), "cpus" | "mem") {
            return Some(format!(
                "'limits' has {name:?}; expected \"cpus\" and \"mem\" only"
            ));
        }
        let limit = match crate::task::limit(name, value.value) {
            Ok(it) => it,
            Err(error) => return Some(format!("'limits': {error}")),
        };
        let Some(request) = task.resources.scalar(name) else {
            return Some(format!(
                "'limits' has {name:?}, of which the task requests nothing"
            ));
        };
        match limit {
            Limit::Amount(it) if it < request => Some(format!(
                "the limit of {name:?} is {it}; expected at least what is requested, {request}"
            )),
            _ => None,
        }
    })
}

fn either_command_or_executor(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    (task.has_command == task.executor.is_some())
        .then(|| "expecting exactly one of 'command' and 'executor' to be set".to_owned())
}

fn executor_is_valid(task: &TaskInfo, context: &TaskContext<'_>) -> Fault {
    let executor = task.executor.as_ref()?;
    if executor.kind == ExecutorKind::Default {
        return Some("'executor.type' is DEFAULT, which only LAUNCH_GROUP can use".to_owned());
    }
    if let Some(fault) = self::executor(executor, context) {
        return Some(fault);
    }
    let shared = container::share_cgroups(executor.wire.container.as_ref());
    (shared == Some(true)).then(|| {
        "'executor.container.linux_info.share_cgroups' is true; an executor has its own cgroups"
            .to_owned()
    })
}

/// What holds for every executor, in a group or not (item 13).
pub(super) fn executor(executor: &ExecutorInfo, context: &TaskContext<'_>) -> Fault {
    const CHECKS: [fn(&ExecutorInfo) -> Fault; 6] = [
        executor_id,
        executor_type,
        executor_grace,
        executor_resources,
        executor_command,
        executor_container,
    ];
    let expected = context.framework_id;
    match &executor.framework_id {
        Some(it) if it == expected => super::first(&CHECKS, executor),
        Some(it) => Some(format!(
            "'executor.framework_id' is {it:?}; expected the framework's own, {expected:?}"
        )),
        None => Some("expecting 'executor.framework_id' to be set".to_owned()),
    }
}

fn executor_id(executor: &ExecutorInfo) -> Fault {
    let error = id::validate("executor.executor_id", executor.executor_id.as_str()).err()?;
    Some(error.to_string())
}

fn executor_type(executor: &ExecutorInfo) -> Fault {
    match executor.kind {
        ExecutorKind::Unset | ExecutorKind::Custom => (!executor.has_command)
            .then(|| "expecting 'executor.command' to be set for a CUSTOM executor".to_owned()),
        ExecutorKind::Default => default_executor(executor),
    }
}

/// The built-in executor: no command, and no container but MESOS without an image.
fn default_executor(executor: &ExecutorInfo) -> Fault {
    if executor.has_command {
        return Some("expecting 'executor.command' to be unset for a DEFAULT executor".to_owned());
    }
    let container = executor.wire.container.as_ref()?;
    if container.r#type() != crate::wire::container_info::Type::Mesos {
        return Some("a DEFAULT executor's container must be of type MESOS".to_owned());
    }
    let image = container.mesos.as_ref()?.image.is_some();
    image.then(|| "a DEFAULT executor's container must not have an image".to_owned())
}

fn executor_grace(executor: &ExecutorInfo) -> Fault {
    let grace = executor.wire.shutdown_grace_period.as_ref()?;
    negative("executor.shutdown_grace_period", grace.nanoseconds)
}

fn executor_resources(executor: &ExecutorInfo) -> Fault {
    if let Some(fault) = &executor.fault {
        return Some(format!("the executor uses invalid resources: {fault}"));
    }
    if let Some(it) = executor.resources.iter().find(|it| it.shared) {
        return Some(format!(
            "the executor uses the shared resource {it}; only tasks can"
        ));
    }
    let fault = resource::usable(&executor.resources)?;
    Some(format!("the executor uses invalid resources: {fault}"))
}

fn executor_command(executor: &ExecutorInfo) -> Fault {
    let fault = container::command(executor.wire.command.as_ref()?)?;
    Some(format!("the executor's command is invalid: {fault}"))
}

fn executor_container(executor: &ExecutorInfo) -> Fault {
    let fault = container::container(executor.wire.container.as_ref()?)?;
    Some(format!("the executor's container is invalid: {fault}"))
}

fn executor_uses_other_ports(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    let executor = task.executor.as_ref()?;
    let name = resource::overlap(&task.resources, &executor.resources)?;
    Some(format!(
        "the task and its executor use some of the same '{name}'"
    ))
}

fn cgroups_are_shared(task: &TaskInfo, _: &TaskContext<'_>) -> Fault {
    let shared = container::share_cgroups(task.wire.container.as_ref());
    (shared == Some(false)).then(|| {
        "'container.linux_info.share_cgroups' is false, which only tasks of a group can say"
            .to_owned()
    })
}

/// Least cpus of an executor; a LAUNCH with less is allowed.
pub(super) const MIN_CPUS: Scalar = Scalar::from_millis(10);
/// Least memory of an executor, in MB; a LAUNCH with less is allowed.
pub(super) const MIN_MEM: Scalar = Scalar::from_units(32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentId, FrameworkId, Resources, agent::AgentCapabilities, wire};

    /// The first text of the three steps, as the master takes them.
    fn text(info: wire::TaskInfo) -> String {
        let (framework_id, agent_id) = (FrameworkId::from("f"), AgentId::from("a"));
        let context = TaskContext {
            framework_id: &framework_id,
            agent_id: &agent_id,
            agent_capabilities: AgentCapabilities::all(),
        };
        let info = TaskInfo::from_wire(info, None);
        let result = task_id(&info)
            .and_then(|()| task(&info, &context))
            .and_then(|()| launch(&info, &context));
        match result {
            Ok(()) => String::new(),
            Err(it) => {
                assert_eq!(it.reason, super::super::Reason::TaskInvalid);
                it.message
            }
        }
    }

    fn good() -> wire::TaskInfo {
        wire::TaskInfo {
            name: "t".into(),
            task_id: crate::TaskId::from("t").to_wire(),
            agent_id: AgentId::from("a").to_wire(),
            resources: Resources::parse("cpus:0.5;mem:64;ports:[1-2]", "*")
                .unwrap()
                .to_wire(),
            command: Some(wire::CommandInfo::default()),
            ..Default::default()
        }
    }

    fn executor() -> wire::ExecutorInfo {
        wire::ExecutorInfo {
            executor_id: crate::ExecutorId::from("e").to_wire(),
            framework_id: Some(FrameworkId::from("f").to_wire()),
            command: Some(wire::CommandInfo::default()),
            ..Default::default()
        }
    }

    fn with_executor(executor: wire::ExecutorInfo) -> wire::TaskInfo {
        wire::TaskInfo {
            command: None,
            executor: Some(executor),
            ..good()
        }
    }

    #[test]
    fn good_tasks_pass() {
        assert_eq!(text(good()), "");
        assert_eq!(text(with_executor(executor())), "");
    }

    /// Faults in the order in which they are found: each task has its own fault and all later
    /// ones, so a wrong order shows.
    #[test]
    fn faults_are_found_in_mesos_order() {
        type Spoil = fn(&mut wire::TaskInfo);
        let steps: [(&str, Spoil); 12] = [
            ("task_id", |it| it.task_id.value = "a/b".into()),
            ("agent_id", |it| it.agent_id.value = "other".into()),
            ("kill_policy", |it| {
                it.kill_policy = Some(wire::KillPolicy {
                    grace_period: Some(wire::DurationInfo { nanoseconds: -1 }),
                });
            }),
            ("max_completion_time", |it| {
                it.max_completion_time = Some(wire::DurationInfo { nanoseconds: -1 });
            }),
            ("invalid check", |it| {
                it.check = Some(wire::CheckInfo::default());
            }),
            ("invalid health check", |it| {
                it.health_check = Some(wire::HealthCheck::default());
            }),
            ("no resources", |it| it.resources.clear()),
            ("command is invalid", |it| {
                let variable = wire::environment::Variable {
                    name: "V".into(),
                    ..Default::default()
                };
                let environment = wire::Environment {
                    variables: vec![variable],
                };
                it.command = Some(wire::CommandInfo {
                    environment: Some(environment),
                    ..Default::default()
                });
            }),
            ("container is invalid", |it| {
                it.container = Some(wire::ContainerInfo {
                    r#type: wire::container_info::Type::Docker.into(),
                    linux_info: Some(wire::LinuxInfo {
                        share_cgroups: Some(false),
                        ..Default::default()
                    }),
                    ..Default::default()
                });
            }),
            ("limits", |it| {
                it.limits = [("disk".to_owned(), wire::value::Scalar { value: 1.0 })].into();
            }),
            ("exactly one", |it| it.executor = Some(Default::default())),
            ("share_cgroups", |it| {
                it.container = Some(wire::ContainerInfo {
                    r#type: wire::container_info::Type::Mesos.into(),
                    linux_info: Some(wire::LinuxInfo {
                        share_cgroups: Some(false),
                        ..Default::default()
                    }),
                    ..Default::default()
                });
            }),
        ];

        for first in 0..steps.len() {
            let mut info = good();
            // The last fault and the container's exclude each other, so later ones go first.
            for (_, spoil) in steps[first..].iter().rev() {
                spoil(&mut info);
            }
            let text = text(info);
            assert!(text.contains(steps[first].0), "{}: {text}", steps[first].0);
        }
    }

    #[test]
    fn limits_are_not_below_requests() {
        let limited = |name: &str, value: f64| {
            let mut info = good();
            info.limits = [(name.to_owned(), wire::value::Scalar { value })].into();
            text(info)
        };
        assert_eq!(limited("cpus", 0.5), "");
        assert_eq!(limited("mem", f64::INFINITY), "");
        for (name, value) in [
            ("cpus", 0.4),
            ("cpus", f64::NAN),
            ("cpus", -1.0),
            ("mem", -f64::INFINITY),
            ("ports", 1.0),
        ] {
            assert!(limited(name, value).contains("limit"), "{name} {value}");
        }
    }

    #[test]
    fn executors_are_checked() {
        type Spoil = fn(&mut wire::ExecutorInfo);
        let cases: [(&str, Spoil); 7] = [
            ("framework_id", |it| it.framework_id = None),
            ("framework_id", |it| {
                it.framework_id = Some(FrameworkId::from("g").to_wire());
            }),
            ("DEFAULT", |it| {
                it.r#type = Some(wire::executor_info::Type::Default.into());
            }),
            ("executor.command", |it| it.command = None),
            ("executor_id", |it| it.executor_id.value = "..".into()),
            ("shutdown_grace_period", |it| {
                it.shutdown_grace_period = Some(wire::DurationInfo { nanoseconds: -1 });
            }),
            ("same 'ports'", |it| {
                it.resources = Resources::parse("ports:[2-3]", "*").unwrap().to_wire();
            }),
        ];
        for (word, spoil) in cases {
            let mut executor = executor();
            spoil(&mut executor);
            let text = text(with_executor(executor));
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
