//! LAUNCH and LAUNCH_GROUP: what depends on the state, in the order of behaviour
//! sections 4.3 and 4.4, then the facts and the command. A task that passes is in the
//! log before anybody hears of it.

use std::sync::Arc;

use bytes::Bytes;

use tepui_model::executor::{ExecutorInfo, ExecutorKind};
use tepui_model::id::{AgentId, FrameworkId};
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::operation::{OfferOperation, OperationKind};
use tepui_model::resources::Resources;
use tepui_model::task::TaskInfo;
use tepui_model::validation::{self, TaskContext};
use tepui_model::wire::TaskState;
use tepui_model::wire::task_status::Reason;

use crate::accept::Accepting;
use crate::agents::Capabilities;
use crate::counters::Counter;
use crate::machine::Machine;

impl Machine {
    /// Each task on its own: one that fails does not touch the others.
    pub(crate) fn launch_tasks(&mut self, accepting: &mut Accepting, operation: &OfferOperation) {
        let OperationKind::Launch { tasks } = &operation.kind else {
            return;
        };
        for task in tasks {
            match self.check_task(accepting, task) {
                Ok(executor) => self.launch_task(accepting, task, executor),
                Err(message) => {
                    let framework_id = accepting.framework_id.clone();
                    self.refuse_task(
                        &framework_id,
                        task.task_id.as_str(),
                        task.agent_id.as_str(),
                        TaskState::TaskError,
                        Reason::TaskInvalid,
                        &message,
                    );
                }
            }
        }
    }

    /// All tasks or none.
    pub(crate) fn launch_group(&mut self, accepting: &mut Accepting, operation: &OfferOperation) {
        let OperationKind::LaunchGroup { executor, tasks } = &operation.kind else {
            return;
        };
        if let Err(message) = self.check_group(accepting, executor, tasks) {
            let framework_id = accepting.framework_id.clone();
            self.refuse_launch(
                &framework_id,
                operation,
                TaskState::TaskError,
                Reason::TaskGroupInvalid,
                &message,
            );
            return;
        }
        let executor = Arc::clone(executor);
        let new = self.is_new_executor(accepting, &executor);
        let mut runs = Vec::with_capacity(tasks.len());
        let mut rows = Vec::with_capacity(tasks.len());
        for task in tasks {
            let container_id = self.ids.uuid().to_string();
            take(accepting, &task.resources);
            runs.push(self.run_task(accepting, task, Some(&executor), &container_id));
            rows.push(self.task_row(accepting, task, Some(&executor), container_id));
        }
        let mut executor_row = None;
        if new {
            take(accepting, &executor.resources);
            executor_row = Some(self.executor_row(accepting, &executor));
        }
        let group = log::RunTaskGroup {
            framework_id: accepting.framework_id.as_str().to_owned(),
            tasks: runs,
        };
        let command = self.command(&accepting.agent_id, log::command::Kind::RunTaskGroup(group));
        // The command rides on the first fact; the others make the rows.
        let mut first = Some((executor_row, command.clone()));
        for row in rows {
            let (executor, command) = match first.take() {
                Some((executor, command)) => (executor, Some(command)),
                None => (None, None),
            };
            self.counters.add(Counter::TasksLaunched);
            self.log(Kind::LaunchTask(log::LaunchTask {
                task: Some(row),
                executor,
                command,
            }));
        }
        self.send_agent(&accepting.agent_id, ToAgent::Command(command));
    }

    fn launch_task(
        &mut self,
        accepting: &mut Accepting,
        task: &TaskInfo,
        executor: Option<ExecutorInfo>,
    ) {
        let container_id = self.ids.uuid().to_string();
        take(accepting, &task.resources);
        let mut executor_row = None;
        if let Some(executor) = &executor
            && self.is_new_executor(accepting, executor)
        {
            take(accepting, &executor.resources);
            executor_row = Some(self.executor_row(accepting, executor));
        }
        let run = self.run_task(accepting, task, executor.as_ref(), &container_id);
        let row = self.task_row(accepting, task, executor.as_ref(), container_id);
        let command = self.command(&accepting.agent_id, log::command::Kind::RunTask(run));
        self.counters.add(Counter::TasksLaunched);
        self.log(Kind::LaunchTask(log::LaunchTask {
            task: Some(row),
            executor: executor_row,
            command: Some(command.clone()),
        }));
        self.send_agent(&accepting.agent_id, ToAgent::Command(command));
    }

    // ------------------------------------------------------------ checks

    /// Section 4.3. Returns the executor that runs it, its framework's id filled in.
    fn check_task(
        &self,
        accepting: &Accepting,
        task: &TaskInfo,
    ) -> Result<Option<ExecutorInfo>, String> {
        let message = |rejection: validation::Rejection| rejection.message;
        let context = self.task_context(accepting);
        validation::task_id(task).map_err(message)?;
        self.check_unused_id(accepting, task)?;
        validation::task(task, &context).map_err(message)?;
        let executor = task
            .executor
            .as_ref()
            .map(|executor| executor.with_framework_id(&accepting.framework_id));
        match &executor {
            None => validation::launch(task, &context).map_err(message)?,
            Some(executor) => {
                let task = TaskInfo {
                    executor: Some(executor.clone()),
                    ..task.clone()
                };
                validation::launch(&task, &context).map_err(message)?;
            }
        }
        if executor.is_some() && !self.capabilities(accepting).custom_executor {
            return Err(format!(
                "Task '{}' names an executor of its own, which agent '{}' cannot run yet: use a command task",
                task.task_id, accepting.agent_id
            ));
        }
        let mut wanted = task.resources.clone();
        if let Some(executor) = &executor {
            self.check_same_executor(accepting, executor)?;
            if self.is_new_executor(accepting, executor) {
                wanted.add(&executor.resources);
            }
        }
        check_pool(accepting, &wanted)?;
        Ok(executor)
    }

    fn task_context<'a>(&self, accepting: &'a Accepting) -> TaskContext<'a> {
        TaskContext {
            framework_id: &accepting.framework_id,
            agent_id: &accepting.agent_id,
            agent_capabilities: self.capabilities(accepting).mesos,
        }
    }

    fn capabilities(&self, accepting: &Accepting) -> Capabilities {
        self.agents
            .get(&accepting.agent_id)
            .map(|link| link.capabilities)
            .unwrap_or_default()
    }

    /// Item 2: unreachable tasks keep their ids, completed ones do not.
    fn check_unused_id(&self, accepting: &Accepting, task: &TaskInfo) -> Result<(), String> {
        if self
            .state
            .task(&accepting.framework_id, &task.task_id)
            .is_some()
        {
            return Err(format!(
                "Task has duplicate ID: '{}' is active or unreachable",
                task.task_id
            ));
        }
        Ok(())
    }

    fn check_same_executor(
        &self,
        accepting: &Accepting,
        executor: &ExecutorInfo,
    ) -> Result<(), String> {
        let known = self.state.executor(
            &accepting.framework_id,
            &accepting.agent_id,
            &executor.executor_id,
        );
        if let Some(known) = known {
            let known = ExecutorInfo::from_payload(known.executor_info_payload.clone());
            if !known.is_same_executor(executor) {
                return Err(format!(
                    "ExecutorInfo is not compatible with that of executor '{}' on agent '{}'",
                    executor.executor_id, accepting.agent_id
                ));
            }
        }
        Ok(())
    }

    /// Section 4.4.
    fn check_group(
        &self,
        accepting: &Accepting,
        executor: &ExecutorInfo,
        tasks: &[Arc<TaskInfo>],
    ) -> Result<(), String> {
        validation::group(executor, tasks, &self.task_context(accepting))
            .map_err(|rejection| rejection.message)?;
        let able = match executor.kind {
            ExecutorKind::Default => self.capabilities(accepting).task_group,
            ExecutorKind::Custom | ExecutorKind::Unset => {
                self.capabilities(accepting).custom_executor
            }
        };
        if !able {
            return Err(format!(
                "Agent '{}' cannot run task groups yet: launch command tasks",
                accepting.agent_id
            ));
        }
        let mut wanted = Resources::default();
        for task in tasks {
            self.check_unused_id(accepting, task)?;
            wanted.add(&task.resources);
        }
        self.check_same_executor(accepting, executor)?;
        if self.is_new_executor(accepting, executor) {
            wanted.add(&executor.resources);
        }
        check_pool(accepting, &wanted)?;
        Ok(())
    }

    fn is_new_executor(&self, accepting: &Accepting, executor: &ExecutorInfo) -> bool {
        self.state
            .executor(
                &accepting.framework_id,
                &accepting.agent_id,
                &executor.executor_id,
            )
            .is_none()
    }

    // ------------------------------------------------------------ rows and commands

    fn run_task(
        &self,
        accepting: &Accepting,
        task: &TaskInfo,
        executor: Option<&ExecutorInfo>,
        container_id: &str,
    ) -> log::RunTask {
        let framework = self.framework_infos.get(&accepting.framework_id);
        log::RunTask {
            framework_id: accepting.framework_id.as_str().to_owned(),
            framework_info_payload: framework
                .map(|info| info.payload.clone())
                .unwrap_or_default(),
            task_info_payload: task.payload.clone(),
            resources: task.resources.to_wire(),
            container_id: container_id.to_owned(),
            executor_info_payload: executor.map(|it| it.payload.clone()).unwrap_or_default(),
            executor_resources: executor
                .map(|it| it.resources.to_wire())
                .unwrap_or_default(),
            health_check_type: task.inferred_health_check().map_or(0, |kind| kind as i32),
            task_id: task.task_id.as_str().to_owned(),
        }
    }

    fn task_row(
        &self,
        accepting: &Accepting,
        task: &TaskInfo,
        executor: Option<&ExecutorInfo>,
        container_id: String,
    ) -> log::Task {
        log::Task {
            framework_id: accepting.framework_id.as_str().to_owned(),
            task_id: task.task_id.as_str().to_owned(),
            agent_id: accepting.agent_id.as_str().to_owned(),
            executor_id: executor
                .map(|it| it.executor_id.as_str().to_owned())
                .unwrap_or_default(),
            container_id,
            // A copy: the task's own is cut out of the whole request.
            task_info_payload: Bytes::copy_from_slice(&task.payload),
            resources: task.resources.to_wire(),
            role: accepting.role.as_str().to_owned(),
            state: TaskState::TaskStaging as i32,
            wall_launched: self.wall.as_secs(),
            name: task.name.clone(),
            ..log::Task::default()
        }
    }

    fn executor_row(&mut self, accepting: &Accepting, executor: &ExecutorInfo) -> log::Executor {
        log::Executor {
            framework_id: accepting.framework_id.as_str().to_owned(),
            agent_id: accepting.agent_id.as_str().to_owned(),
            executor_id: executor.executor_id.as_str().to_owned(),
            executor_info_payload: executor.payload.clone(),
            resources: executor.resources.to_wire(),
            container_id: self.ids.uuid().to_string(),
        }
    }

    /// Tasks and executors of the agent use one of the volumes.
    pub(crate) fn is_volume_used(
        &self,
        agent_id: &AgentId,
        volumes: &Resources,
    ) -> Option<FrameworkId> {
        let uses = |resources: &[tepui_model::wire::Resource]| {
            let resources = Resources::from_wire(resources)
                .unwrap_or_default()
                .unallocate();
            volumes
                .iter()
                .any(|volume| resources.contains_resource(volume))
        };
        let task = self
            .state
            .tasks_of_agent(agent_id)
            .find(|(_, _, task)| crate::machine::holds_resources(task) && uses(&task.resources))
            .map(|(framework_id, _, _)| framework_id.clone());
        task.or_else(|| {
            self.state
                .executors_of_agent(agent_id)
                .find(|(_, _, executor)| uses(&executor.resources))
                .map(|(framework_id, _, _)| framework_id.clone())
        })
    }
}

/// What is wanted is still in the pool; a shared volume stays there however often it is
/// used.
fn check_pool(accepting: &Accepting, wanted: &Resources) -> Result<(), String> {
    let shared_there = wanted
        .shared()
        .iter()
        .all(|volume| accepting.pool.contains_resource(volume));
    if shared_there && accepting.pool.contains(&wanted.non_shared()) {
        return Ok(());
    }
    Err(format!(
        "Task uses more resources {wanted} than available {}",
        accepting.pool
    ))
}

fn take(accepting: &mut Accepting, resources: &Resources) {
    accepting.pool.saturating_sub(&resources.non_shared());
    accepting.shared_used.add(&resources.shared());
}
