//! What the containerizer tells the agent.

use crate::{spec::ContainerSpec, text};
use serde::{Deserialize, Serialize};
use tepui_model::wire;

/// How the main process of a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody knows: the shim was killed, or the engine forgot the container.
    Unknown,
}

impl Exit {
    /// Whether this is success.
    pub fn is_success(self) -> bool {
        self == Exit::Code(0)
    }
}

/// A limit that ended the container; each is one `REASON_...` of the task's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limitation {
    /// Over its memory limit (`REASON_CONTAINER_LIMITATION_MEMORY`).
    Memory {
        /// The limit in force, in bytes; 0 when unknown.
        limit_bytes: u64,
    },
    /// Over its disk quota (`REASON_CONTAINER_LIMITATION_DISK`).
    Disk {
        /// The limit in force, in bytes.
        limit_bytes: u64,
        /// What the sandbox used when it was noticed, in bytes.
        used_bytes: u64,
    },
    /// `max_completion_time` passed (`REASON_MAX_COMPLETION_TIME_REACHED`).
    CompletionTime,
}

/// The one end of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// Exit status of the main process.
    pub exit: Exit,
    /// A kill or destroy was asked for before it ended; `TASK_KILLED` even when `exit` is a
    /// success.
    pub killed: bool,
    /// The limit that ended it, if one did.
    pub limitation: Option<Limitation>,
    /// For the status message, in Mesos' words: `Command exited with status 3`.
    pub message: String,
    /// When it ended: milliseconds since the epoch.
    pub finished_ms: u64,
}

impl Termination {
    /// Builds the message in Mesos' words; `subject` is `Command` or `Container`.
    pub fn describe(
        subject: &str,
        exit: Exit,
        limitation: Option<&Limitation>,
        core_dumped: bool,
    ) -> String {
        match limitation {
            Some(Limitation::Memory { limit_bytes: 0 }) => {
                "Memory limit exceeded: the container was killed by the kernel's OOM killer".into()
            }
            Some(Limitation::Memory { limit_bytes }) => format!(
                "Memory limit exceeded: the container used more than its limit of {}",
                text::bytes(*limit_bytes)
            ),
            Some(Limitation::Disk {
                limit_bytes,
                used_bytes,
            }) => format!(
                "Disk usage ({}) exceeds quota ({})",
                text::bytes(*used_bytes),
                text::bytes(*limit_bytes)
            ),
            Some(Limitation::CompletionTime) => {
                format!("{subject} did not finish within its maximum completion time")
            }
            None => format!("{subject} {}", text::exit(exit, core_dumped)),
        }
    }
}

/// Why a container never came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A URI could not be fetched or extracted.
    Fetch,
    /// The image could not be had: unknown, refused, unreachable registry.
    Image,
    /// The task asks for something invalid or unsupported.
    Invalid,
    /// The engine, the kernel or the disk refused.
    Runtime,
    /// Killed before it started (`REASON_TASK_KILLED_DURING_LAUNCH`): state `TASK_KILLED`.
    Killed,
}

/// A container came up.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// Process id on the host of the task's main process.
    pub pid: u32,
    /// Addresses of the container; empty when it shares the host's network.
    pub ip_addresses: Vec<String>,
    /// The engine's inspect answer as JSON text (`data` of the `TASK_RUNNING` update); `None`
    /// for processes.
    pub inspect: Option<String>,
    /// Start: milliseconds since the epoch.
    pub started_ms: u64,
}

/// What happened to a container.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerEvent {
    /// It runs.
    Started {
        /// Which.
        container_id: String,
        /// How.
        started: Started,
    },
    /// It never ran; nothing of it is left but the sandbox. Last event of a container.
    LaunchFailed {
        /// Which.
        container_id: String,
        /// Kind of cause.
        class: FailureClass,
        /// Cause, naming what was refused and by whom.
        message: String,
    },
    /// It ended, and all its output is in the sandbox. Last event of a container.
    Exited {
        /// Which.
        container_id: String,
        /// How.
        termination: Termination,
    },
    /// A result of the health check that the framework must hear of: first success, change to
    /// healthy, and every failure outside of the grace period.
    Health {
        /// Which.
        container_id: String,
        /// Healthy or not.
        healthy: bool,
        /// Failures in a row.
        consecutive_failures: u32,
        /// `consecutive_failures` of the task is reached: kill it.
        kill: bool,
        /// What failed, for the log and the message.
        message: String,
    },
    /// The result of the task's `check` changed.
    Check {
        /// Which.
        container_id: String,
        /// The new result (empty inner message when the check itself failed).
        status: wire::CheckStatusInfo,
    },
}

impl ContainerEvent {
    /// The container that it is about.
    pub fn container_id(&self) -> &str {
        match self {
            ContainerEvent::Started { container_id, .. }
            | ContainerEvent::LaunchFailed { container_id, .. }
            | ContainerEvent::Exited { container_id, .. }
            | ContainerEvent::Health { container_id, .. }
            | ContainerEvent::Check { container_id, .. } => container_id,
        }
    }
}

/// What became of a container while no agent was there.
#[derive(Clone, Debug, PartialEq)]
pub enum RecoveredState {
    /// It runs; its events go on as if nothing had been.
    Running(Started),
    /// It ended; no event follows. Kept until [`remove`](crate::Containerizer::remove).
    Exited(Termination),
    /// It never came to run, or nothing is known of it: launch died with the agent, or the
    /// runtime directory was wiped. No event follows and nothing is left.
    Gone,
}

/// Answer of [`recover`](crate::Containerizer::recover) for one expected container.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// Which.
    pub container_id: String,
    /// What it is, unless nothing of it was found.
    pub spec: Option<ContainerSpec>,
    /// Its state.
    pub state: RecoveredState,
}
