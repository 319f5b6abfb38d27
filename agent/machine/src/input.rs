//! What the agent's machine is told: a closed list.

use core::time::Duration;
use tepui_model::{Resources, link, wire};

/// One link to a master, unique within the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// Everything that can happen to an agent.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time went on: step with this when [`crate::Machine::next_deadline`] is due.
    Tick,
    /// A link to a master that leads is open: the machine registers on it. Links to
    /// followers are the shell's alone.
    LinkUp {
        /// The link.
        link: LinkId,
        /// The term that the master leads; 0 when it did not say. Two links to the same
        /// leader are told apart from one to a new leader by it.
        term: u64,
    },
    /// A link is closed.
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// A frame of a master.
    Master {
        /// The link it came on.
        link: LinkId,
        /// The frame.
        message: Box<link::MasterMessage>,
    },
    /// What became of a container.
    Container {
        /// Which.
        container_id: String,
        /// What.
        event: ContainerEvent,
    },
    /// The containerizer has looked for the containers of an earlier life: each expected
    /// one that it found, as it is. Told once, before the first link.
    Recovered {
        /// Container id and state; those missing are gone.
        containers: Vec<(String, RecoveredState)>,
    },
    /// The checkpoints cannot be written (the disk is full), or can again.
    Disk {
        /// Whether they can.
        writable: bool,
    },
    /// What may be given away once more, all of it revocable, in the place of what was said
    /// before: the estimator's word.
    Estimate(Resources),
    /// SIGUSR1: leave the cluster and end everything.
    Unregister,
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerEvent {
    /// It runs.
    Started {
        /// Of the task's main process.
        pid: u32,
        /// Its addresses; empty on the host's network.
        ip_addresses: Vec<String>,
        /// `data` of the RUNNING update: what Docker's inspect says.
        data: Option<String>,
    },
    /// It never ran.
    LaunchFailed {
        /// It was killed before it started.
        killed: bool,
        /// The task asks for a user that this machine does not have.
        unknown_user: bool,
        /// The cause.
        message: String,
    },
    /// It ended.
    Exited(Ended),
    /// A result of the health check that the framework must hear of.
    Health {
        /// The result.
        healthy: bool,
        /// Enough failures in a row: the task is to be killed.
        kill: bool,
        /// What failed.
        message: String,
    },
    /// The result of the task's check changed.
    Check(wire::CheckStatusInfo),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Exit status zero.
    pub success: bool,
    /// A kill was ordered before.
    pub killed: bool,
    /// The limit that ended it.
    pub limit: Option<Limit>,
    /// In Mesos' words: `Command exited with status 3`.
    pub message: String,
}

/// A limit that ended a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Memory, with the limit in megabytes when it is known.
    Memory(Option<u64>),
    /// Disk.
    Disk,
    /// `max_completion_time`.
    CompletionTime,
}

/// How a container of an earlier life was found.
#[derive(Clone, Debug, PartialEq)]
pub enum RecoveredState {
    /// It is still being launched.
    Launching,
    /// It runs, as [`ContainerEvent::Started`] says.
    Running(ContainerEvent),
    /// It never ran, or ended meanwhile.
    Over(ContainerEvent),
}

/// The clocks of an agent, for tests and flags.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// First retry of an unacknowledged status update; doubles up to `retry_max`.
    pub retry_min: Duration,
    /// Longest time between two tries.
    pub retry_max: Duration,
    /// `--registration_backoff_factor`.
    pub registration_backoff: Duration,
    /// Longest wait between two registrations.
    pub registration_backoff_max: Duration,
}

impl Default for Intervals {
    /// Mesos' values.
    fn default() -> Self {
        Self {
            retry_min: Duration::from_secs(10),
            retry_max: Duration::from_secs(600),
            registration_backoff: Duration::from_secs(1),
            registration_backoff_max: Duration::from_secs(60),
        }
    }
}
