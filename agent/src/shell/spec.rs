//! From a launch order to what the containerizer runs.

use crate::config::Settings;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tepui_agent_machine::{
    model::{Resource, Resources, resources::DiskKind, time::duration_from_wire, wire},
    output::Launch,
};
use tepui_containerizer::{Amounts, ContainerSpec, Kind, Limit, sandbox};
use tepui_server::flags::value::print_duration;

/// What all launches share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Holds sandboxes and volumes.
    pub(crate) work_dir: PathBuf,
    /// Where this agent is reached.
    pub(crate) address: SocketAddr,
    /// `--executor_environment_variables`.
    pub(crate) environment: Vec<(String, String)>,
    /// `--executor_shutdown_grace_period`.
    pub(crate) kill_grace: Duration,
    /// `--switch_user`.
    pub(crate) switch_user: bool,
    /// How long tasks would wait for the agent, as Mesos says it to executors.
    pub(crate) recovery: Duration,
    /// `--revocable_cpu_low_priority`.
    pub(crate) revocable_last: bool,
}

impl Context {
    /// Of the flags.
    pub(crate) fn new(settings: &Settings, address: SocketAddr) -> Context {
        Context {
            work_dir: settings.work_dir.clone(),
            address,
            environment: settings.environment.clone(),
            kill_grace: settings.kill_grace,
            switch_user: settings.switch_user,
            // Mesos' default; nothing waits here, for tasks do not notice that the agent is away.
            recovery: Duration::from_secs(15 * 60),
            revocable_last: settings.revocable_last,
        }
    }

    /// The sandbox of a run.
    pub(crate) fn sandbox(
        &self,
        agent: &str,
        framework: &str,
        executor: &str,
        run: &str,
    ) -> PathBuf {
        sandbox::path(&self.work_dir, agent, framework, executor, run)
    }
}

/// Docker when the task says so, a process otherwise.
pub(crate) fn kind(task: &wire::TaskInfo) -> Kind {
    match task.container.as_ref().map(wire::ContainerInfo::r#type) {
        Some(wire::container_info::Type::Docker) => Kind::Docker,
        _ => Kind::Process,
    }
}

/// What the containerizer is to run.
///
/// # Errors
/// What of the order makes no sense.
pub(crate) fn spec(launch: &Launch, context: &Context) -> Result<ContainerSpec, String> {
    let task = &launch.task;
    let resources = Resources::from_wire(&launch.resources).map_err(|error| error.to_string())?;
    let command = task
        .command
        .clone()
        .ok_or("the task has no command: executors are not run")?;
    let kind = kind(task);
    let user = match context.switch_user {
        true => Some(
            command
                .user
                .clone()
                .unwrap_or_else(|| launch.framework.user.clone()),
        )
        .filter(|it| !it.is_empty()),
        false => None,
    };
    let kill_grace = task
        .kill_policy
        .as_ref()
        .and_then(|it| it.grace_period.as_ref());
    Ok(ContainerSpec {
        container_id: launch.container_id.clone(),
        framework_id: launch.framework_id.clone(),
        executor_id: launch.executor_id.clone(),
        task_id: task.task_id.value.clone(),
        kind,
        environment: environment(launch, &resources, kind, context),
        command,
        container: task.container.clone(),
        amounts: Amounts {
            comes_last: context.revocable_last && has_revocable_cpus(&resources),
            ..amounts(&resources, task)
        },
        user,
        sandbox: context.sandbox(
            &launch.agent_id,
            &launch.framework_id,
            &launch.executor_id,
            &launch.container_id,
        ),
        volumes: volumes(&resources, &context.work_dir),
        kill_grace: kill_grace
            .and_then(duration_from_wire)
            .unwrap_or(context.kill_grace),
        max_completion_time: task
            .max_completion_time
            .as_ref()
            .and_then(duration_from_wire),
        health_check: task.health_check.clone(),
        check: task.check.clone(),
        labels: Vec::new(),
    })
}

fn amounts(resources: &Resources, task: &wire::TaskInfo) -> Amounts {
    let amount = |it: Option<tepui_agent_machine::model::Scalar>| it.map_or(0.0, |it| it.as_f64());
    let limit = |name: &str| {
        task.limits.get(name).map(|it| match it.value.is_finite() {
            true => Limit::At(it.value),
            false => Limit::Infinite,
        })
    };
    let port = |it: u64| u16::try_from(it).unwrap_or(u16::MAX);
    Amounts {
        cpus: amount(resources.cpus()),
        mem: amount(resources.mem()),
        disk: amount(resources.disk()),
        gpus: amount(resources.gpus()),
        ports: resources
            .ports()
            .iter()
            .map(|it| (port(it.begin), port(it.end)))
            .collect(),
        cpus_limit: limit("cpus"),
        mem_limit: limit("mem"),
        comes_last: false,
    }
}

/// Cpus of a task are revocable or not, never both: the master checks that.
fn has_revocable_cpus(resources: &Resources) -> bool {
    resources.revocable().cpus().is_some_and(|it| !it.is_zero())
}

/// Variables as Mesos gives them to a task with a command. A Docker task gets fewer: it has
/// no executor around it whose environment it could inherit.
fn environment(
    launch: &Launch,
    resources: &Resources,
    kind: Kind,
    context: &Context,
) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| all.push((name.to_owned(), value));
    if kind == Kind::Process {
        for (name, value) in &context.environment {
            add(name, value.clone());
        }
        let checkpoint = launch.framework.checkpoint();
        add("LIBPROCESS_IP", context.address.ip().to_string());
        add("LIBPROCESS_PORT", "0".to_owned());
        add("MESOS_AGENT_ENDPOINT", context.address.to_string());
        add("MESOS_CHECKPOINT", u8::from(checkpoint).to_string());
        if checkpoint {
            add("MESOS_RECOVERY_TIMEOUT", print_duration(context.recovery));
            add("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs".to_owned());
        }
        add("MESOS_EXECUTOR_ID", launch.executor_id.clone());
        add(
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
            print_duration(context.kill_grace),
        );
        add("MESOS_FRAMEWORK_ID", launch.framework_id.clone());
        add("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned());
        add("MESOS_SLAVE_ID", launch.agent_id.clone());
        add("MESOS_SLAVE_PID", format!("slave(1)@{}", context.address));
    }
    let role = resources.iter().find_map(|it| it.allocation_role.as_ref());
    if let Some(role) = role {
        add("MESOS_ALLOCATION_ROLE", role.to_string());
    }
    all
}

/// Persistent volumes: folder on the host, path in the container, read-only.
fn volumes(resources: &Resources, work_dir: &Path) -> Vec<(PathBuf, String, bool)> {
    resources
        .iter()
        .filter(|it| it.is_persistent_volume())
        .filter_map(|it| {
            let volume = it.to_wire().disk?.volume?;
            let read_only = volume.mode() == wire::volume::Mode::Ro;
            Some((volume_path(it, work_dir)?, volume.container_path, read_only))
        })
        .collect()
}

/// The folder of a persistent volume. Mesos' layout.
pub(crate) fn volume_path(volume: &Resource, work_dir: &Path) -> Option<PathBuf> {
    let id = volume.persistence_id()?;
    let role = volume.reservation_role()?.to_string();
    let source = volume.disk.as_ref()?.source.as_ref();
    let root = match source.map(|it| (it.kind(), it.root())) {
        // The whole mount is the volume.
        Some((DiskKind::Mount, Some(root))) => return Some(work_dir.join(root)),
        Some((_, Some(root))) => work_dir.join(root),
        _ => work_dir.to_owned(),
    };
    // A role's slashes would make one role's folder hold another's.
    let role = role.replace('/', " ");
    Some(root.join("volumes/roles").join(role).join(id.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            work_dir: "/w".into(),
            address: "127.0.0.1:5051".parse().unwrap(),
            environment: vec![("FROM_FLAG".into(), "1".into())],
            kill_grace: Duration::from_secs(5),
            switch_user: true,
            recovery: Duration::from_secs(900),
            revocable_last: true,
        }
    }

    fn launch(container: Option<wire::container_info::Type>) -> Launch {
        let resources = Resources::parse("cpus:0.5;mem:64;ports:[31000-31001]", "*").unwrap();
        let role = tepui_agent_machine::model::Role::new("web").unwrap();
        let mut task = wire::TaskInfo {
            command: Some(wire::CommandInfo {
                value: Some("true".into()),
                ..Default::default()
            }),
            container: container.map(|kind| wire::ContainerInfo {
                r#type: kind as i32,
                ..Default::default()
            }),
            ..Default::default()
        };
        task.task_id.value = "t".into();
        task.limits.insert(
            "mem".into(),
            wire::value::Scalar {
                value: f64::INFINITY,
            },
        );
        Launch {
            agent_id: "a".into(),
            framework_id: "f".into(),
            framework: wire::FrameworkInfo {
                user: "nobody".into(),
                ..Default::default()
            },
            executor_id: "t".into(),
            container_id: "c".into(),
            task,
            resources: resources.allocate(&role).to_wire(),
        }
    }

    #[test]
    fn a_command_task_is_a_process_with_mesos_environment() {
        let spec = spec(&launch(None), &context()).unwrap();
        assert_eq!(spec.kind, Kind::Process);
        assert_eq!(spec.user.as_deref(), Some("nobody"));
        assert_eq!(spec.amounts.ports, [(31000, 31001)]);
        assert_eq!(spec.amounts.mem_limit, Some(Limit::Infinite));
        assert_eq!(
            spec.sandbox,
            Path::new("/w/slaves/a/frameworks/f/executors/t/runs/c")
        );
        let value = |name: &str| {
            let found = spec.environment.iter().find(|(it, _)| it == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("MESOS_ALLOCATION_ROLE"), Some("web"));
        assert_eq!(value("MESOS_SLAVE_PID"), Some("slave(1)@127.0.0.1:5051"));
        assert_eq!(value("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"), Some("5secs"));
        assert_eq!(value("FROM_FLAG"), Some("1"));
        assert_eq!(value("MESOS_RECOVERY_TIMEOUT"), None);
    }

    #[test]
    fn a_docker_task_has_its_own_environment() {
        let spec = spec(
            &launch(Some(wire::container_info::Type::Docker)),
            &context(),
        )
        .unwrap();
        assert_eq!(spec.kind, Kind::Docker);
        let names: Vec<&str> = spec.environment.iter().map(|(it, _)| it.as_str()).collect();
        assert_eq!(names, ["MESOS_ALLOCATION_ROLE"]);
    }

    #[test]
    fn revocable_cpus_come_last_unless_a_flag_says_otherwise() {
        let mut launch = launch(None);
        let comes_last = |launch: &Launch, context: &Context| {
            let spec = spec(launch, context).unwrap();
            (spec.amounts.cpus, spec.amounts.comes_last)
        };
        assert_eq!(comes_last(&launch, &context()), (0.5, false));
        for it in &mut launch.resources {
            if it.name == "cpus" {
                it.revocable = Some(wire::resource::RevocableInfo {});
            }
        }
        assert_eq!(comes_last(&launch, &context()), (0.5, true));
        let equal = Context {
            revocable_last: false,
            ..context()
        };
        assert_eq!(comes_last(&launch, &equal), (0.5, false));
    }

    #[test]
    fn an_executor_is_refused() {
        let mut launch = launch(None);
        launch.task.command = None;
        assert!(spec(&launch, &context()).is_err());
    }
}
