//! What the agent's machine answers.

use crate::input::LinkId;
use core::time::Duration;
use tepui_model::{link, log, wire};

/// The result of one step. Nothing in `send`, `containers` and `process` may happen before
/// `records` are durable; `records` are already applied to the machine's own state. What is in
/// `volumes` happens before: a confirmed operation is on the disk, and one that was done but
/// not confirmed comes again.
#[must_use]
#[derive(Debug, Default)]
pub struct Output {
    /// For the checkpoint log, in order.
    pub records: Vec<link::Record>,
    /// Persistent volumes to make or to destroy, in order; twice is harmless.
    pub volumes: Vec<VolumeCommand>,
    /// Frames for masters, in order per link.
    pub send: Vec<(LinkId, link::AgentMessage)>,
    /// Orders for the containerizer, in order.
    pub containers: Vec<ContainerCommand>,
    /// What concerns the process.
    pub process: Vec<ProcessCommand>,
}

impl Output {
    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.volumes.is_empty()
            && self.send.is_empty()
            && self.containers.is_empty()
            && self.process.is_empty()
    }
}

/// An order about the folder of a persistent volume.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeCommand {
    /// Make the folder; one that is there stays as it is.
    Create(Box<wire::Resource>),
    /// Destroy the folder with everything in it: the only thing that ever does.
    Destroy(Box<wire::Resource>),
}

/// An order for the containerizer.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerCommand {
    /// Launch the container of a task. Twice is harmless.
    Launch(Box<Launch>),
    /// TERM, and KILL after the grace (the task's own when `None`).
    Kill {
        /// Which.
        container_id: String,
        /// Grace of the order.
        grace: Option<Duration>,
    },
    /// Forget it; its sandbox stays until it is collected.
    Remove {
        /// Which.
        container_id: String,
    },
}

/// What a launch needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Of this agent, for paths and environment.
    pub agent_id: String,
    /// The framework.
    pub framework_id: String,
    /// Who the framework is (user, checkpoint).
    pub framework: wire::FrameworkInfo,
    /// Equals the task's id for command tasks.
    pub executor_id: String,
    /// Chosen by the master.
    pub container_id: String,
    /// The task as the framework sent it, with the inferred type of its health check.
    pub task: wire::TaskInfo,
    /// Normalised, with allocation roles.
    pub resources: Vec<wire::Resource>,
}

/// What concerns the process.
#[derive(Clone, Debug, PartialEq)]
pub enum ProcessCommand {
    /// Close a link and open it again after a while.
    Reconnect {
        /// Which.
        link: LinkId,
        /// How long to wait.
        after: Duration,
    },
    /// A master that does not lead named who does (`host:port`).
    FollowLeader(String),
    /// End, with a reason for the operator. Containers that still run were told to end.
    Exit(String),
}

/// A task as endpoints show it.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// As launched.
    pub task: link::LaunchedTask,
    /// Newest state, number of `mesos.v1.TaskState`.
    pub state: i32,
    /// History, oldest first, consecutive equal states collapsed.
    pub statuses: Vec<wire::TaskStatus>,
    /// Everything was acknowledged.
    pub completed: bool,
}

/// A framework with its tasks as endpoints show it.
#[derive(Clone, Debug)]
pub struct FrameworkView {
    /// Its id.
    pub framework_id: String,
    /// As the master passed it on.
    pub info: wire::FrameworkInfo,
    /// Live and ended tasks, oldest first.
    pub tasks: Vec<TaskView>,
    /// All of its tasks are over and acknowledged.
    pub completed: bool,
}

/// Everything that endpoints show.
#[derive(Clone, Debug, Default)]
pub struct AgentView {
    /// Empty until registered.
    pub agent_id: String,
    /// Registered with a leader now.
    pub registered: bool,
    /// Totals after reservations and volumes.
    pub total: Vec<wire::Resource>,
    /// What may be given away once more, beyond the totals.
    pub oversubscribed: Vec<wire::Resource>,
    /// Live and completed ones.
    pub frameworks: Vec<FrameworkView>,
    /// While the agent drains.
    pub drain: Option<log::Drain>,
    /// Operations with feedback that was not acknowledged yet.
    pub operations: Vec<link::PendingOperation>,
}
