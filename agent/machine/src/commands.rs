//! Commands of the leader: launch, kill, shut down, apply, drain.

use crate::{
    input::LinkId,
    knowledge::TaskKey,
    machine::Machine,
    output::{ContainerCommand, Launch, VolumeCommand},
};
use core::time::Duration;
use prost::Message;
use tepui_model::{
    framework::FrameworkInfo,
    link,
    link::agent_message,
    link::record::Kind,
    log,
    log::command,
    wire,
    wire::{
        TaskState,
        framework_info::capability::Type as Capability,
        task_status::{Reason, Source},
    },
};

impl Machine {
    /// Obeys a command once and confirms it every time.
    pub(crate) fn command(&mut self, from: LinkId, command: log::Command) {
        if command.sequence > self.knowledge.commands_done {
            self.obey(command.kind);
            let up_to = command.sequence;
            self.record(Kind::CommandsDone(link::CommandsDone { up_to }));
        }
        let up_to = self.knowledge.commands_done;
        let done = link::CommandsDone { up_to };
        self.send(from, agent_message::Kind::CommandsDone(done));
    }

    fn obey(&mut self, kind: Option<command::Kind>) {
        match kind {
            Some(command::Kind::RunTask(it)) => self.run_task(it),
            Some(command::Kind::RunTaskGroup(group)) => {
                for task in group.tasks {
                    let key = self.accept_task(&task);
                    self.fail(&key, "task groups are not supported by this agent yet");
                }
            }
            Some(command::Kind::Kill(it)) => {
                let policy = wire::KillPolicy::decode(it.kill_policy_payload).unwrap_or_default();
                let grace = policy.grace_period.map(|it| it.nanoseconds.max(0) as u64);
                self.kill(&(it.framework_id, it.task_id), grace);
            }
            Some(command::Kind::ShutdownFramework(it)) => {
                for key in self.knowledge.tasks_of(&it.framework_id) {
                    self.kill_silently(&key);
                }
            }
            Some(command::Kind::ShutdownExecutor(it)) => {
                // A command task is an executor of its own, named like the task.
                self.kill(&(it.framework_id, it.executor_id), None);
            }
            Some(command::Kind::ApplyOperation(it)) => self.apply_operation(it),
            Some(command::Kind::SetResources(it)) => {
                self.record(Kind::Totals(link::Totals { total: it.total }));
            }
            Some(command::Kind::Drain(it)) => self.drain(it),
            // A command of a newer master: confirmed, because it would block all others.
            None => {}
        }
    }

    /// Takes a task over: its framework and the task are on the disk from now on.
    fn accept_task(&mut self, run: &log::RunTask) -> TaskKey {
        let key = (run.framework_id.clone(), run.task_id.clone());
        let known = self.knowledge.framework_payloads.get(&run.framework_id);
        if known != Some(&run.framework_info_payload) {
            self.record(Kind::Framework(link::KnownFramework {
                framework_id: run.framework_id.clone(),
                info_payload: run.framework_info_payload.clone(),
            }));
        }
        self.record(Kind::Task(link::LaunchedTask {
            framework_id: run.framework_id.clone(),
            task_id: run.task_id.clone(),
            container_id: run.container_id.clone(),
            // Command tasks have an executor of the task's name.
            executor_id: run.task_id.clone(),
            task_info_payload: run.task_info_payload.clone(),
            resources: run.resources.clone(),
            health_check_type: run.health_check_type,
            wall_launched: self.wall.as_secs(),
        }));
        key
    }

    fn run_task(&mut self, run: log::RunTask) {
        let known = (run.framework_id.clone(), run.task_id.clone());
        if self.knowledge.tasks.contains_key(&known) {
            // Sent again after a failover.
            return;
        }
        let has_executor = !run.executor_info_payload.is_empty();
        let key = self.accept_task(&run);
        if has_executor {
            self.fail(&key, "custom executors are not supported by this agent yet");
        } else if self.knowledge.draining.is_some() {
            self.drop_task(&key, Reason::AgentDraining, "the agent drains");
        } else if !self.writable {
            let text = "the disk of the agent's work folder is full";
            self.drop_task(&key, Reason::GcError, text);
        } else {
            self.launch(&key);
        }
    }

    /// Orders the container of a task.
    pub(crate) fn launch(&mut self, key: &TaskKey) {
        let Some(task) = self.knowledge.tasks.get(key) else {
            return;
        };
        let launched = &task.launched;
        let mut info =
            wire::TaskInfo::decode(launched.task_info_payload.clone()).unwrap_or_default();
        if let Some(check) = info.health_check.as_mut().filter(|it| it.r#type.is_none())
            && launched.health_check_type != 0
        {
            check.r#type = Some(launched.health_check_type);
        }
        let launch = Launch {
            agent_id: self.knowledge.identity.agent_id.clone(),
            framework_id: key.0.clone(),
            framework: self.framework(&key.0),
            executor_id: launched.executor_id.clone(),
            container_id: launched.container_id.clone(),
            task: info,
            resources: launched.resources.clone(),
        };
        self.container(ContainerCommand::Launch(Box::new(launch)));
    }

    pub(crate) fn framework(&self, id: &str) -> wire::FrameworkInfo {
        self.knowledge
            .frameworks
            .get(id)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn framework_can(&self, id: &str, capability: Capability) -> bool {
        let payload = self.knowledge.framework_payloads.get(id).cloned();
        FrameworkInfo::from_payload(payload.unwrap_or_default()).is(capability)
    }

    /// A task that this agent cannot run.
    fn fail(&mut self, key: &TaskKey, text: &str) {
        self.update(
            key,
            wire::TaskStatus {
                state: TaskState::TaskFailed as i32,
                source: Some(Source::Agent as i32),
                reason: Some(Reason::ContainerLaunchFailed as i32),
                executor_id: Self::executor_id(key),
                message: Some(text.to_owned()),
                ..Default::default()
            },
        );
    }

    /// The executor of a command task, as statuses name it.
    pub(crate) fn executor_id(key: &TaskKey) -> Option<wire::ExecutorId> {
        let value = key.1.clone();
        Some(wire::ExecutorId { value })
    }

    /// A task that never ran and may run elsewhere.
    pub(crate) fn drop_task(&mut self, key: &TaskKey, reason: Reason, text: &str) {
        let aware = self.framework_can(&key.0, Capability::PartitionAware);
        let state = match aware {
            true => TaskState::TaskDropped,
            false => TaskState::TaskLost,
        };
        self.update(
            key,
            wire::TaskStatus {
                state: state as i32,
                source: Some(Source::Agent as i32),
                reason: Some(reason as i32),
                executor_id: Self::executor_id(key),
                message: Some(text.to_owned()),
                ..Default::default()
            },
        );
    }

    /// Kills a task; of one that this agent does not have, it says so.
    pub(crate) fn kill(&mut self, key: &TaskKey, grace_ns: Option<u64>) {
        let Some(task) = self.knowledge.tasks.get(key) else {
            self.kill_of_unknown(key);
            return;
        };
        if task.is_terminal() {
            return;
        }
        let container_id = task.launched.container_id.clone();
        let again = task.progress.kill_ordered;
        let running = task.progress.started;
        let mut progress = task.progress.clone();
        progress.kill_ordered = true;
        progress.kill_grace_ns = grace_ns.or(progress.kill_grace_ns);
        self.record(Kind::Progress(progress));
        let grace = grace_ns.map(Duration::from_nanos);
        self.container(ContainerCommand::Kill {
            container_id,
            grace,
        });
        let told = self.framework_can(&key.0, Capability::TaskKillingState);
        if running && !again && told {
            let status = self.executor_status(key, TaskState::TaskKilling);
            self.update(key, status);
        }
    }

    fn kill_of_unknown(&mut self, key: &TaskKey) {
        let payload = self.knowledge.framework_payloads.get(&key.0).cloned();
        self.accept_task(&log::RunTask {
            framework_id: key.0.clone(),
            framework_info_payload: payload.unwrap_or_default(),
            task_id: key.1.clone(),
            ..Default::default()
        });
        let text = "the agent has no such task";
        self.drop_task(key, Reason::ExecutorTerminated, text);
    }

    fn apply_operation(&mut self, it: log::ApplyOperation) {
        self.volumes_of(&it);
        self.record(Kind::Totals(link::Totals { total: it.total }));
        if it.operation_id.is_empty() {
            return;
        }
        let uuid = wire::Uuid { value: self.uuid() };
        let status = wire::OperationStatus {
            operation_id: Some(wire::OperationId {
                value: it.operation_id,
            }),
            state: wire::OperationState::OperationFinished as i32,
            uuid: Some(uuid),
            agent_id: Some(wire::AgentId {
                value: self.knowledge.identity.agent_id.clone(),
            }),
            ..Default::default()
        };
        self.operation_done(link::PendingOperation {
            operation_uuid: it.uuid,
            framework_id: it.framework_id,
            status_payload: status.encode_to_vec().into(),
        });
    }

    /// What an operation means for the folders of persistent volumes.
    fn volumes_of(&mut self, it: &log::ApplyOperation) {
        let operation = wire::offer::Operation::decode(it.info_payload.clone()).unwrap_or_default();
        if let Some(create) = operation.create {
            let orders = create.volumes.into_iter().map(Box::new);
            self.out.volumes.extend(orders.map(VolumeCommand::Create));
        }
        if let Some(destroy) = operation.destroy {
            let orders = destroy.volumes.into_iter().map(Box::new);
            self.out.volumes.extend(orders.map(VolumeCommand::Destroy));
        }
    }

    /// Kills every task, with at most the grace period of the order.
    fn drain(&mut self, it: log::Drain) {
        let most = it.max_grace_period_ns;
        self.record(Kind::Draining(link::Draining {
            draining: !it.cancel,
            max_grace_period_ns: most,
            mark_gone: it.mark_gone,
        }));
        if it.cancel {
            return;
        }
        let tasks: Vec<TaskKey> = self.knowledge.tasks.keys().cloned().collect();
        for key in tasks {
            let own = self.own_grace(&key);
            let grace = match (most, own) {
                (None, _) => None,
                (Some(most), Some(own)) => Some(most.min(own)),
                (Some(most), None) => Some(most),
            };
            self.kill(&key, grace);
        }
    }

    fn own_grace(&self, key: &TaskKey) -> Option<u64> {
        let payload = &self.knowledge.tasks.get(key)?.launched.task_info_payload;
        let info = wire::TaskInfo::decode(payload.clone()).ok()?;
        let grace = info.kill_policy?.grace_period?;
        u64::try_from(grace.nanoseconds).ok()
    }
}
