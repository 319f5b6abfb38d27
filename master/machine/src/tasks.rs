//! The life of a task in the log: every change of its state goes through here, so
//! that its resources are held exactly while it may run.

use tepui_model::event::Event;
use tepui_model::id::{AgentId, FrameworkId, TaskId};
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::resources::Resources;
use tepui_model::task;
use tepui_model::wire::task_status::Reason;
use tepui_model::wire::{self, TaskState};

use crate::counters::Counter;
use crate::machine::{Machine, holds_resources};
use crate::statuses::{Verdict, is_terminal};

/// What a master's verdict does to the task's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It goes to the unreachable list and may come back.
    Unreachable,
    /// It is over; no acknowledgement is awaited, so it is completed at once.
    Completed,
}

impl Machine {
    /// The framework understands the states of partition awareness.
    pub(crate) fn is_partition_aware(&self, framework_id: &FrameworkId) -> bool {
        self.framework_infos
            .get(framework_id)
            .is_some_and(|info| info.is_partition_aware())
    }

    /// The state as this framework may see it: without PARTITION_AWARE everything about
    /// partitions is TASK_LOST (section 5).
    pub(crate) fn visible_state(&self, framework_id: &FrameworkId, state: TaskState) -> TaskState {
        task::visible(state, self.is_partition_aware(framework_id))
    }

    /// Tells the framework the master's verdict about a task that has no row (refused
    /// before it was launched).
    pub(crate) fn refuse_task(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &str,
        agent_id: &str,
        state: TaskState,
        reason: Reason,
        message: &str,
    ) {
        let state = self.visible_state(framework_id, state);
        let status = Verdict {
            task_id,
            agent_id: Some(agent_id),
            state,
            reason,
            message,
            wall: self.wall,
        }
        .status();
        self.count_terminal(&status);
        self.event(framework_id, Event::Update(Box::new(status)));
    }

    /// Logs a new state of a task, and lets go of its resources or takes them again.
    /// `latest` is the newest state that its agent knows. A state that ends the task is
    /// never replaced.
    pub(crate) fn update_task(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        status: &wire::TaskStatus,
        latest: Option<i32>,
        unreachable: bool,
    ) {
        let Some(row) = self.state.task(framework_id, task_id) else {
            return;
        };
        let held = holds_resources(row);
        let newest = latest.unwrap_or(status.state);
        // Except that an unreachable one may come back, whatever was said of it.
        let state = if is_terminal(row.state) && !row.unreachable {
            row.state
        } else {
            newest
        };
        let ends = !is_terminal(row.state) && is_terminal(state) && !unreachable;
        let agent_id = AgentId::from(row.agent_id.as_str());
        if ends {
            self.count_terminal(status);
        }
        self.log(Kind::UpdateTask(log::UpdateTask {
            framework_id: framework_id.as_str().to_owned(),
            task_id: task_id.as_str().to_owned(),
            status: Some(task::status_to_log(status)),
            latest_state: (state != status.state).then_some(state),
            unreachable,
        }));
        let Some(row) = self.state.task(framework_id, task_id) else {
            return;
        };
        let holds = holds_resources(row);
        if held != holds {
            let resources = Resources::from_wire(&row.resources).unwrap_or_default();
            if holds {
                self.allocator
                    .add_allocation(framework_id, &agent_id, &resources);
            } else {
                self.release(framework_id, &agent_id, &resources);
            }
        }
    }

    /// The master decides what became of a task: logged, told to the framework without a
    /// uuid. `state` is translated for frameworks without PARTITION_AWARE.
    pub(crate) fn decide_task(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        state: TaskState,
        reason: Reason,
        message: &str,
        fate: Fate,
    ) {
        let Some(row) = self.state.task(framework_id, task_id).cloned() else {
            return;
        };
        // An end that only its agent knew of, and never told, is news.
        let told = row.statuses.last().is_some_and(|it| is_terminal(it.state));
        let ended = is_terminal(row.state) && told && !row.unreachable;
        if !ended {
            let mut status = Verdict {
                task_id: task_id.as_str(),
                agent_id: Some(&row.agent_id),
                state: self.visible_state(framework_id, state),
                reason,
                message,
                wall: self.wall,
            }
            .status();
            if fate == Fate::Unreachable {
                status.unreachable_time = Some(self.wall.to_wire());
            }
            if !row.executor_id.is_empty() {
                status.executor_id = Some(wire::ExecutorId {
                    value: row.executor_id.clone(),
                });
            }
            let unreachable = fate == Fate::Unreachable;
            self.update_task(framework_id, task_id, &status, None, unreachable);
            self.event(framework_id, Event::Update(Box::new(status)));
        }
        if fate == Fate::Completed {
            self.complete_task(framework_id, task_id);
        }
    }

    /// Moves a task to the completed ring of its framework.
    pub(crate) fn complete_task(&mut self, framework_id: &FrameworkId, task_id: &TaskId) {
        let Some(row) = self.state.task(framework_id, task_id) else {
            return;
        };
        let agent_id = AgentId::from(row.agent_id.as_str());
        if holds_resources(row) {
            let resources = Resources::from_wire(&row.resources).unwrap_or_default();
            self.release(framework_id, &agent_id, &resources);
        }
        self.log(Kind::RemoveTask(log::RemoveTask {
            framework_id: framework_id.as_str().to_owned(),
            task_id: task_id.as_str().to_owned(),
        }));
        self.check_drained(&agent_id);
    }

    /// Forgets an executor and lets go of its resources.
    pub(crate) fn remove_executor(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        executor_id: &tepui_model::id::ExecutorId,
    ) {
        let Some(row) = self.state.executor(framework_id, agent_id, executor_id) else {
            return;
        };
        let resources = Resources::from_wire(&row.resources).unwrap_or_default();
        self.release(framework_id, agent_id, &resources);
        self.log(Kind::RemoveExecutor(log::RemoveExecutor {
            framework_id: framework_id.as_str().to_owned(),
            agent_id: agent_id.as_str().to_owned(),
            executor_id: executor_id.as_str().to_owned(),
        }));
    }

    /// Forgets every executor of an agent, of one framework or of all.
    pub(crate) fn remove_executors(&mut self, agent_id: &AgentId, of: Option<&FrameworkId>) {
        let executors: Vec<_> = self
            .state
            .executors_of_agent(agent_id)
            .filter(|(framework_id, _, _)| of.is_none_or(|it| it == *framework_id))
            .map(|(framework_id, executor_id, _)| (framework_id.clone(), executor_id.clone()))
            .collect();
        for (framework_id, executor_id) in executors {
            self.remove_executor(&framework_id, agent_id, &executor_id);
        }
    }

    /// Tasks of an agent that are not completed, unreachable ones included.
    pub(crate) fn task_keys_of_agent(&self, agent_id: &AgentId) -> Vec<(FrameworkId, TaskId)> {
        self.state
            .tasks_of_agent(agent_id)
            .map(|(framework_id, task_id, _)| (framework_id.clone(), task_id.clone()))
            .collect()
    }

    fn count_terminal(&mut self, status: &wire::TaskStatus) {
        let counter = match TaskState::try_from(status.state) {
            Ok(TaskState::TaskFinished) => Counter::TasksFinished,
            Ok(TaskState::TaskFailed) => Counter::TasksFailed,
            Ok(TaskState::TaskKilled) => Counter::TasksKilled,
            Ok(TaskState::TaskLost) => Counter::TasksLost,
            Ok(TaskState::TaskError) => Counter::TasksError,
            Ok(TaskState::TaskDropped) => Counter::TasksDropped,
            Ok(TaskState::TaskGone) => Counter::TasksGone,
            Ok(TaskState::TaskGoneByOperator) => Counter::TasksGoneByOperator,
            _ => return,
        };
        self.counters.add(counter);
        self.counters.add_terminal(
            status.state,
            status.source.unwrap_or_default(),
            status.reason,
        );
    }
}
