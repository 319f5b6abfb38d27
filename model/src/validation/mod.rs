//! Checks of what frameworks want done, as far as no table is needed.
//!
//! Each check is one small function in a list, in Mesos' order: the first that fails gives the
//! text. What depends on a master's tables (a task id that is in use, the executor that is there
//! already, the pool that is left, who may run what) is checked by the master between these:
//!
//! | step | by |
//! |---|---|
//! | resources can be read | [`OfferOperation::fault`](crate::operation::OfferOperation::fault) |
//! | `id` where there must be none | [`operation_id`] |
//! | authorization | master |
//! | 1: the task's id | [`task_id`] |
//! | 2: the id is not in use | master |
//! | 3 to 11: the task itself | [`task`] |
//! | 12 to 14, 16: command or executor | [`launch`] |
//! | 13: the executor is not another one already | master, with [`ExecutorInfo::is_same_executor`](crate::executor::ExecutorInfo::is_same_executor) |
//! | 15: the pool holds it | master |
//!
//! For a task group, [`group`] makes all of these at once. [`operation`] checks the others.

mod check;
mod container;
mod group;
mod operation;
mod resource;
mod task;

pub use group::group;
pub use operation::{OperationContext, operation, operation_id};
pub use task::{launch, task, task_id};

use crate::{AgentId, FrameworkId, agent::AgentCapabilities};
use std::fmt;

pub use crate::wire::task_status::Reason;

/// Why a task is answered with TASK_ERROR.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The reason of the status.
    pub reason: Reason,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Rejection {
    /// A fault of one task.
    pub fn task(message: impl Into<String>) -> Rejection {
        Rejection {
            reason: Reason::TaskInvalid,
            message: message.into(),
        }
    }

    /// A fault of a task group.
    pub fn group(message: impl Into<String>) -> Rejection {
        Rejection {
            reason: Reason::TaskGroupInvalid,
            message: message.into(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}

/// What a task is checked against.
#[derive(Clone, Copy, Debug)]
pub struct TaskContext<'a> {
    /// The framework that launches.
    pub framework_id: &'a FrameworkId,
    /// The agent of the offers.
    pub agent_id: &'a AgentId,
    /// What that agent can.
    pub agent_capabilities: AgentCapabilities,
}

/// The text of what is wrong; none when nothing is.
type Fault = Option<String>;

/// The first fault that a list of checks finds.
fn first<T: ?Sized>(checks: &[fn(&T) -> Fault], it: &T) -> Fault {
    checks.iter().find_map(|check| check(it))
}
