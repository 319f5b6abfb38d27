//! What each operation does to the rows.
//!
//! The leader has decided; here nothing is decided or refused. An operation about a row
//! that does not exist does nothing. The one thing that stops a replica is an operation
//! that it does not know, since guessing would make it differ from the others.

use std::sync::Arc;

use prost::Message;
use tepui_model::{
    id::{AgentId, ExecutorId, FrameworkId, TaskId},
    log::{self, operation::Kind},
    time::ClusterTime,
    wire::{
        TaskState,
        task_status::{Reason, Source},
    },
};

use crate::state::{ClusterState, MAX_COMPLETED_FRAMEWORKS, SYNTHETIC_VERSION};

/// Why a replica must stop: going on would make it differ from the others.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The oneof of the operation has no variant of this release.
    #[error(
        "the log holds an operation that this release does not know; run a release at least as new as the leader's"
    )]
    UnknownOperation,
    /// The cluster goes on to a version that this release does not know.
    #[error(
        "the cluster was raised to version {version} and this release knows versions up to {supported}; run a newer release"
    )]
    NewerVersion {
        /// Of the cluster from now on.
        version: u64,
        /// The newest one that this release knows.
        supported: u64,
    },
    /// The bytes of an entry are no entry.
    #[error("log entry cannot be decoded")]
    Malformed(#[source] prost::DecodeError),
    /// This replica's rows are not the leader's.
    #[error(
        "state differs from the leader's: hash {found:016x} where the log says {expected:016x}; this replica's rows must be replaced by another's"
    )]
    Diverged {
        /// The hash in the entry.
        expected: u64,
        /// The hash over the rows here.
        found: u64,
    },
}

/// Decodes the bytes of a log entry. Payloads are copied out of `bytes`: rows live long, and a
/// slice of a few bytes would keep the whole entry in memory.
///
/// # Errors
/// The bytes are no entry ([`ApplyError::Malformed`]).
pub fn decode_entry(bytes: &[u8]) -> Result<log::Entry, ApplyError> {
    log::Entry::decode(bytes).map_err(ApplyError::Malformed)
}

/// Whether a task in this state (a number of `mesos.v1.TaskState`) will never run again.
/// UNREACHABLE and UNKNOWN are not terminal: the task may come back.
pub fn is_terminal(state: i32) -> bool {
    TaskState::try_from(state).is_ok_and(|it| match it {
        TaskState::TaskFinished
        | TaskState::TaskFailed
        | TaskState::TaskKilled
        | TaskState::TaskError
        | TaskState::TaskLost
        | TaskState::TaskDropped
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => true,
        TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnreachable
        | TaskState::TaskUnknown => false,
    })
}

impl ClusterState {
    /// Applies one committed entry: compares the hash when the entry carries one and books are
    /// kept, applies its operations, then advances cluster time.
    ///
    /// # Errors
    /// The replica must stop; see [`ApplyError`]. The state may be half-way through the entry
    /// and must not be used or written any more.
    pub fn apply_entry(&mut self, entry: &log::Entry) -> Result<(), ApplyError> {
        self.compare_hash(entry)?;
        for operation in &entry.operations {
            self.apply(operation)?;
        }
        self.advance(ClusterTime(entry.cluster_time_ns));
        Ok(())
    }

    /// As [`ClusterState::apply_entry`] for an entry that nobody else needs: the rows of tasks
    /// that it brings are kept, where that copies them.
    ///
    /// # Errors
    /// As there.
    pub fn take_entry(&mut self, entry: log::Entry) -> Result<(), ApplyError> {
        self.compare_hash(&entry)?;
        for operation in entry.operations {
            match operation.kind {
                Some(Kind::LaunchTask(it)) => self.launch_task(it),
                Some(Kind::UpdateTask(it)) => self.update_task(it),
                kind => self.apply(&log::Operation { kind })?,
            }
        }
        self.advance(ClusterTime(entry.cluster_time_ns));
        Ok(())
    }

    fn compare_hash(&mut self, entry: &log::Entry) -> Result<(), ApplyError> {
        if let Some(expected) = entry.state_hash
            && !self.ledger.is_stopped()
        {
            let found = self.hash();
            if found != expected {
                return Err(ApplyError::Diverged { expected, found });
            }
        }
        Ok(())
    }

    /// Advances cluster time; an earlier time changes nothing. The leader calls this with the
    /// stamp of each entry that it makes, after the entry's operations, as replicas do.
    pub fn advance(&mut self, to: ClusterTime) {
        if to > self.cluster_time() {
            self.edit_cluster(|it| it.cluster_time_ns = to.0);
        }
    }

    /// Applies one decided operation. Total: what does not exist is left alone.
    ///
    /// # Errors
    /// [`ApplyError::UnknownOperation`] and [`ApplyError::NewerVersion`] alone: the operation
    /// comes from a newer release, or is about one.
    pub fn apply(&mut self, operation: &log::Operation) -> Result<(), ApplyError> {
        let kind = operation
            .kind
            .as_ref()
            .ok_or(ApplyError::UnknownOperation)?;
        match kind {
            Kind::FormCluster(it) => self.form_cluster(it),
            Kind::BeginTerm(it) => self.begin_term(it),
            Kind::SetClusterVersion(it) => self.set_cluster_version(it.version)?,
            Kind::Synthetic(_) if self.supported >= SYNTHETIC_VERSION => {
                self.edit_cluster(|row| row.synthetic += 1);
            }
            Kind::Synthetic(_) => return Err(ApplyError::UnknownOperation),
            Kind::PutAgent(it) => self.admit_agent(it),
            Kind::AgentConnected(it) => self.agent_connected(it),
            Kind::AgentDisconnected(it) => self.edit_agent(&it.agent_id, |row| {
                row.disconnected_at_ns = Some(it.cluster_time_ns);
            }),
            Kind::MarkUnreachable(it) => self.edit_agent(&it.agent_id, |row| {
                row.set_state(log::AgentState::Unreachable);
                row.wall_unreachable = Some(it.wall_time);
            }),
            Kind::MarkGone(it) => self.mark_gone(it),
            Kind::RemoveAgent(it) => self.remove_agent(it),
            Kind::SetAgentResources(it) => self.edit_agent(&it.agent_id, |row| {
                row.total.clone_from(&it.total);
            }),
            Kind::ConfirmCommands(it) => self.take_commands(&it.agent_id, it.up_to),
            Kind::SetAgentActivation(it) => self.edit_agent(&it.agent_id, |row| {
                row.deactivated = it.deactivated;
                row.drain.clone_from(&it.drain);
            }),
            Kind::AddCommand(it) => self.add_command(&it.agent_id, it.command.clone()),
            Kind::PutFramework(it) => self.admit_framework(it),
            Kind::FrameworkConnected(it) => {
                self.edit_framework(&it.framework_id, |row| {
                    row.disconnected_at_ns = None;
                    row.wall_disconnected = None;
                    row.wall_reregistered = Some(it.wall_time);
                });
            }
            Kind::FrameworkDisconnected(it) => {
                self.edit_framework(&it.framework_id, |row| {
                    row.disconnected_at_ns = Some(it.cluster_time_ns);
                    row.wall_disconnected = Some(it.wall_time);
                });
            }
            Kind::RemoveFramework(it) => self.remove_framework(it),
            Kind::SetSuppressed(it) => self.edit_framework(&it.framework_id, |row| {
                row.suppressed_roles.clone_from(&it.suppressed_roles);
            }),
            Kind::LaunchTask(it) => self.launch_task(it.clone()),
            Kind::UpdateTask(it) => self.update_task(it.clone()),
            Kind::AcknowledgeTask(it) => self.acknowledge_task(it),
            Kind::RemoveTask(it) => {
                self.complete_task(&framework(&it.framework_id), &task(&it.task_id), |_| ());
            }
            Kind::KillTask(it) => self.kill_task(it),
            Kind::RemoveExecutor(it) => self.take_executor(
                &framework(&it.framework_id),
                &agent(&it.agent_id),
                &ExecutorId::from(it.executor_id.as_str()),
            ),
            Kind::PutOperation(it) => {
                if let Some(row) = &it.operation {
                    self.put_operation(Arc::new(row.clone()));
                }
            }
            Kind::UpdateOperation(it) => self.edit_operation(&it.operation_uuid, |row| {
                row.status_payload = it.status_payload.clone();
                row.state = it.state;
            }),
            Kind::RemoveOperation(it) => self.take_operation(&it.operation_uuid),
            Kind::SetWeights(it) => self.set_weights(it),
            Kind::SetQuotas(it) => self.set_quotas(it),
            Kind::SetMaintenance(it) => self.put_maintenance(Arc::new(it.clone())),
            Kind::PutVariable(it) => self.set_variable(it),
            Kind::RemoveVariable(it) => self.expunge_variable(it),
            Kind::PutLease(it) => self.grant_lease(it),
            Kind::RemoveLease(it) => self.end_lease(it),
        }
        Ok(())
    }

    // ------------------------------------------------------------ the cluster

    fn form_cluster(&mut self, it: &log::FormCluster) {
        self.edit_cluster(|row| {
            row.cluster_id.clone_from(&it.cluster_id);
            row.incarnation = it.incarnation;
            row.wall_formed = it.wall_time;
        });
    }

    fn begin_term(&mut self, it: &log::BeginTerm) {
        self.edit_cluster(|row| {
            row.term = it.term;
            row.master_id.clone_from(&it.master_id);
            row.wall_term_began = it.wall_time;
        });
    }

    fn set_cluster_version(&mut self, version: u64) -> Result<(), ApplyError> {
        let supported = self.supported;
        if version > supported {
            return Err(ApplyError::NewerVersion { version, supported });
        }
        if version > self.cluster_version() {
            self.edit_cluster(|row| row.cluster_version = version);
        }
        Ok(())
    }

    // ------------------------------------------------------------ agents

    fn admit_agent(&mut self, it: &log::PutAgent) {
        let Some(row) = &it.agent else { return };
        let id = agent(&row.agent_id);
        let mut row = row.clone();
        // Sequence numbers are never used twice, whatever the operation says.
        let last = self.agent(&id).map_or(0, |it| it.last_command);
        row.last_command = row.last_command.max(last);
        if self.put_agent(id, Arc::new(row)) {
            self.edit_cluster(|row| row.agents_made = row.agents_made.saturating_add(1));
        }
    }

    fn agent_connected(&mut self, it: &log::AgentConnected) {
        self.edit_agent(&it.agent_id, |row| {
            row.set_state(log::AgentState::Admitted);
            row.disconnected_at_ns = None;
            row.wall_unreachable = None;
            row.wall_reregistered = Some(it.wall_time);
        });
    }

    fn mark_gone(&mut self, it: &log::MarkGone) {
        let id = agent(&it.agent_id);
        self.edit_agent(&it.agent_id, |row| {
            row.set_state(log::AgentState::Gone);
            row.wall_gone = Some(it.wall_time);
        });
        self.strip_agent(&id, &|id| {
            let message = format!("Agent {id} has been marked gone");
            let reason = Reason::AgentRemovedByOperator;
            end(TaskState::TaskGoneByOperator, reason, it.wall_time, message)
        });
    }

    fn remove_agent(&mut self, it: &log::RemoveAgent) {
        let id = agent(&it.agent_id);
        self.take_agent(&id);
        self.strip_agent(&id, &|id| {
            let message = format!("Agent {id} removed");
            let reason = Reason::AgentRemoved;
            end(TaskState::TaskLost, reason, it.wall_time, message)
        });
    }

    /// Drops what hangs on an agent; tasks that have not ended end with `status`.
    fn strip_agent(&mut self, id: &AgentId, status: &dyn Fn(&AgentId) -> log::TaskStatus) {
        self.take_commands(id.as_str(), u64::MAX);
        let tasks: Vec<_> = self
            .tasks_of_agent(id)
            .map(|(framework, task, _)| (framework.clone(), task.clone()))
            .collect();
        for (framework, task) in tasks {
            self.complete_task(&framework, &task, |row| end_task(row, || status(id)));
        }
        let executors: Vec<_> = self
            .executors_of_agent(id)
            .map(|(framework, executor, _)| (framework.clone(), executor.clone()))
            .collect();
        for (framework, executor) in executors {
            self.take_executor(&framework, id, &executor);
        }
        let operations: Vec<_> = self
            .operations_of_agent(id)
            .map(|it| it.uuid.clone())
            .collect();
        for uuid in operations {
            self.take_operation(&uuid);
        }
    }

    fn add_command(&mut self, id: &str, command: Option<log::Command>) {
        let Some(command) = command else { return };
        // Commands of an agent that is not there would never be confirmed.
        if !self.agents.contains_key(id) {
            return;
        }
        self.edit_agent(id, |row| {
            row.last_command = row.last_command.max(command.sequence);
        });
        self.put_command(id, Arc::new(command));
    }

    // ------------------------------------------------------------ frameworks

    fn admit_framework(&mut self, it: &log::PutFramework) {
        let Some(row) = &it.framework else { return };
        let mut row = row.clone();
        // A place in the ring is given by RemoveFramework alone.
        row.completed = false;
        row.ring_sequence = 0;
        if self.put_framework(framework(&row.framework_id), Arc::new(row)) {
            self.edit_cluster(|row| row.frameworks_made = row.frameworks_made.saturating_add(1));
        }
    }

    fn remove_framework(&mut self, it: &log::RemoveFramework) {
        let id = framework(&it.framework_id);
        let Some(row) = self.framework(&id) else {
            return;
        };
        if row.completed {
            return;
        }
        let mut row = Arc::clone(row);
        let completed = Arc::make_mut(&mut row);
        completed.completed = true;
        completed.wall_unregistered = Some(it.wall_time);
        completed.ring_sequence = self.next_framework_place();
        self.put_framework(id.clone(), row);

        let tasks: Vec<_> = self
            .tasks_of_framework(&id)
            .map(|(task, _)| task.clone())
            .collect();
        for task in tasks {
            self.complete_task(&id, &task, |row| {
                end_task(row, || {
                    let message = format!("Framework {id} removed");
                    let reason = Reason::FrameworkRemoved;
                    end(TaskState::TaskKilled, reason, it.wall_time, message)
                });
            });
        }
        self.drop_of_framework(&id);
        while self.indexes.completed_frameworks.len() > MAX_COMPLETED_FRAMEWORKS
            && let Some((_, oldest)) = self.indexes.completed_frameworks.get_min()
        {
            let oldest = oldest.clone();
            self.forget_framework(&oldest);
        }
    }

    fn drop_of_framework(&mut self, id: &FrameworkId) {
        let executors: Vec<_> = self
            .executors_of_framework(id)
            .map(|it| {
                (
                    agent(&it.agent_id),
                    ExecutorId::from(it.executor_id.as_str()),
                )
            })
            .collect();
        for (agent, executor) in executors {
            self.take_executor(id, &agent, &executor);
        }
        let operations: Vec<_> = self
            .operations_of_framework(id)
            .map(|it| it.uuid.clone())
            .collect();
        for uuid in operations {
            self.take_operation(&uuid);
        }
    }

    /// Drops a framework that fell out of the ring of completed ones.
    fn forget_framework(&mut self, id: &FrameworkId) {
        let completed: Vec<_> = self
            .completed_tasks(id)
            .map(|it| it.ring_sequence)
            .collect();
        for place in completed {
            self.take_completed_task(id, place);
        }
        // A task launched for a completed framework would be a mistake of the leader, but must
        // not stay for ever.
        let tasks: Vec<_> = self
            .tasks_of_framework(id)
            .map(|(task, _)| task.clone())
            .collect();
        for task in tasks {
            self.take_task(id, &task);
        }
        self.drop_of_framework(id);
        self.take_framework(id);
    }

    // ------------------------------------------------------------ tasks

    fn launch_task(&mut self, it: log::LaunchTask) {
        if let Some(mut row) = it.executor {
            // Who decodes keeps room for more.
            row.resources.shrink_to_fit();
            self.put_executor(Arc::new(row));
        }
        if let Some(mut row) = it.task {
            row.resources.shrink_to_fit();
            // Rings are entered by UpdateTask and RemoveTask alone.
            row.completed = false;
            row.unreachable = false;
            row.ring_sequence = 0;
            let row = Arc::new(row);
            self.put_task(row.clone());
            self.add_command(&row.agent_id, it.command);
        }
    }

    fn update_task(&mut self, it: log::UpdateTask) {
        let (framework, task) = (&it.framework_id, &it.task_id);
        if let Some(status) = it.status {
            self.edit_task(framework, task, |row| {
                row.state = it.latest_state.unwrap_or(status.state);
                // Statuses that masters make have no uuid and wait for no acknowledgement.
                if !status.uuid.is_empty() {
                    row.forwarded_state = Some(status.state);
                    row.forwarded_uuid = status.uuid.clone();
                }
                push_status(row, status);
            });
        }
        self.set_unreachable(framework, task, it.unreachable);
    }

    fn acknowledge_task(&mut self, it: &log::AcknowledgeTask) {
        let (framework, task) = (&it.framework_id, &it.task_id);
        // An acknowledgement that was overtaken by a newer status acknowledges nothing.
        let waiting = self
            .row_of_task(framework, task)
            .is_some_and(|row| row.forwarded_uuid == it.uuid && !it.uuid.is_empty());
        if waiting {
            self.edit_task(framework, task, |row| {
                row.forwarded_state = None;
                row.forwarded_uuid = bytes::Bytes::new();
            });
        }
    }

    fn kill_task(&mut self, it: &log::KillTask) {
        let (framework, task) = (&it.framework_id, &it.task_id);
        let Some(row) = self.row_of_task(framework, task) else {
            return;
        };
        let agent = row.agent_id.clone();
        self.edit_task(framework, task, |row| row.kill_intended = true);
        self.add_command(&agent, it.command.clone());
    }

    // ------------------------------------------------------------ the operator's settings

    fn set_weights(&mut self, it: &log::SetWeights) {
        for row in &it.weights {
            match row.micro {
                0 => self.take_weight(&row.role),
                _ => self.put_weight(Arc::new(row.clone())),
            }
        }
    }

    fn set_quotas(&mut self, it: &log::SetQuotas) {
        for row in &it.quotas {
            match row.guarantees.is_empty() && row.limits.is_empty() {
                true => self.take_quota(&row.role),
                false => self.put_quota(Arc::new(row.clone())),
            }
        }
    }
}

fn agent(id: &str) -> AgentId {
    id.into()
}

fn framework(id: &str) -> FrameworkId {
    id.into()
}

fn task(id: &str) -> TaskId {
    id.into()
}

/// The history keeps the newest status of a run of equal states, as Mesos does.
fn push_status(row: &mut log::Task, status: log::TaskStatus) {
    if row
        .statuses
        .last()
        .is_some_and(|it| it.state == status.state)
    {
        row.statuses.pop();
    }
    // Most tasks stay with one or two; room for more would be most of what their rows take.
    row.statuses.reserve_exact(1);
    row.statuses.push(status);
}

/// Ends a task by what happened around it, unless it ended on its own before.
fn end_task(row: &mut log::Task, status: impl FnOnce() -> log::TaskStatus) {
    if is_terminal(row.state) {
        return;
    }
    let status = status();
    row.state = status.state;
    push_status(row, status);
}

fn end(state: TaskState, reason: Reason, wall: f64, message: String) -> log::TaskStatus {
    log::TaskStatus {
        state: state.into(),
        reason: Some(reason.into()),
        source: Some(Source::Master.into()),
        timestamp: wall,
        message,
        ..log::TaskStatus::default()
    }
}
