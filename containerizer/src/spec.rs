//! What to run: the full description of one container, as the agent hands it over.
//!
//! The containerizer writes it into its own runtime directory, so the agent need not keep it
//! for recovery.

use crate::runtime::wire_field;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};
use tepui_model::wire;

/// Which containerizer runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As a container of the Docker engine.
    Docker,
    /// As a process under a shim, in namespaces and cgroups of its own.
    Process,
}

/// A resource limit above (or without regard to) what was requested.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// At most this much, in the unit of the resource.
    At(f64),
    /// `Infinity` in the task's `limits`.
    Infinite,
}

/// Amounts of resources as plain numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Amounts {
    /// Processors.
    pub cpus: f64,
    /// Memory in megabytes (2^20 bytes), as Mesos counts it.
    pub mem: f64,
    /// Disk in megabytes (2^20 bytes); 0 means that none was asked for.
    pub disk: f64,
    /// Graphics processors.
    pub gpus: f64,
    /// Ports as inclusive ranges.
    pub ports: Vec<(u16, u16)>,
    /// `limits.cpus` of the task, when given.
    pub cpus_limit: Option<Limit>,
    /// `limits.mem` of the task in megabytes, when given.
    pub mem_limit: Option<Limit>,
    /// The processors may be taken back: others go first when they are contended.
    #[serde(default)]
    pub comes_last: bool,
}

/// One container to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Text form of the container's id (`parent.child` when nested); names its files, its
    /// cgroup and, as `mesos-<id>`, its Docker container.
    pub container_id: String,
    /// Framework that the task belongs to.
    pub framework_id: String,
    /// Executor id; equals the task id for command tasks.
    pub executor_id: String,
    /// Task id; empty for a custom executor.
    pub task_id: String,
    /// Which containerizer.
    pub kind: Kind,
    /// What runs in it. A Docker task may leave `value` out: the image's own command runs.
    #[serde(with = "wire_field")]
    pub command: wire::CommandInfo,
    /// Image, volumes, network and limits, when the task has them.
    #[serde(with = "wire_field::option")]
    pub container: Option<wire::ContainerInfo>,
    /// Requests and limits. What the agent adds for an executor is the agent's business.
    pub amounts: Amounts,
    /// User for a process task: `command.user`, else the framework's; `None` runs as the agent.
    pub user: Option<String>,
    /// Variables from the agent (`MESOS_FRAMEWORK_ID`...), in order. The containerizer adds
    /// those that only it knows (`MESOS_SANDBOX`, `MESOS_DIRECTORY`, `MESOS_CONTAINER_NAME`)
    /// and then those of `command.environment`, which win.
    pub environment: Vec<(String, String)>,
    /// Absolute path of the sandbox; made if it is not there yet.
    pub sandbox: PathBuf,
    /// Persistent volumes: directory on the host, path in the container (relative paths are
    /// below the sandbox), and whether it is read-only.
    pub volumes: Vec<(PathBuf, String, bool)>,
    /// Grace between SIGTERM and SIGKILL when a kill names none.
    pub kill_grace: Duration,
    /// `max_completion_time`: counted from the start of the task, enforced without grace.
    pub max_completion_time: Option<Duration>,
    /// `health_check` of the task.
    #[serde(with = "wire_field::option")]
    pub health_check: Option<wire::HealthCheck>,
    /// `check` of the task.
    #[serde(with = "wire_field::option")]
    pub check: Option<wire::CheckInfo>,
    /// Labels for the Docker container beside our own.
    pub labels: Vec<(String, String)>,
}

impl ContainerSpec {
    /// Name of the Docker container: `mesos-<container id>`.
    pub fn docker_name(&self) -> String {
        format!("mesos-{}", self.container_id)
    }
}
