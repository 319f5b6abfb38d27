//! What becomes of containers, told as status updates.

use crate::{
    input::{ContainerEvent, Ended, Limit, RecoveredState},
    knowledge::TaskKey,
    machine::Machine,
};
use tepui_model::{
    link::record::Kind,
    wire,
    wire::{
        TaskState,
        framework_info::capability::Type as Capability,
        task_status::{Reason, Source},
    },
};

impl Machine {
    /// A status as an executor would send it, with the container's data.
    pub(crate) fn executor_status(&self, key: &TaskKey, state: TaskState) -> wire::TaskStatus {
        let draining = self.knowledge.draining.is_some();
        let killed = matches!(state, TaskState::TaskKilling | TaskState::TaskKilled);
        wire::TaskStatus {
            state: state as i32,
            source: Some(Source::Executor as i32),
            reason: (draining && killed).then_some(Reason::AgentDraining as i32),
            executor_id: Self::executor_id(key),
            container_status: self.container_status(key),
            ..Default::default()
        }
    }

    fn container_status(&self, key: &TaskKey) -> Option<wire::ContainerStatus> {
        let task = self.knowledge.tasks.get(key)?;
        let mut addresses = task.progress.ip_addresses.clone();
        if addresses.is_empty() {
            // On the host's network: the agent's own address.
            let (ip, _) = self.options.address.rsplit_once(':')?;
            addresses.push(ip.to_owned());
        }
        let ip_addresses = addresses.into_iter().map(|address| {
            let protocol = match address.contains(':') {
                true => wire::network_info::Protocol::IPv6,
                false => wire::network_info::Protocol::IPv4,
            };
            wire::network_info::IpAddress {
                protocol: Some(protocol as i32),
                ip_address: Some(address),
            }
        });
        let network = wire::NetworkInfo {
            ip_addresses: ip_addresses.collect(),
            ..self.named_network(key)
        };
        Some(wire::ContainerStatus {
            container_id: Some(wire::ContainerId {
                value: task.launched.container_id.clone(),
                parent: None,
            }),
            network_infos: vec![network],
            executor_pid: (task.progress.pid != 0).then_some(task.progress.pid),
            ..Default::default()
        })
    }

    /// The first network that the task names, as the framework wrote it.
    fn named_network(&self, key: &TaskKey) -> wire::NetworkInfo {
        use prost::Message;
        let payload = self
            .knowledge
            .tasks
            .get(key)
            .map(|it| it.launched.task_info_payload.clone());
        let info = payload.and_then(|it| wire::TaskInfo::decode(it).ok());
        let container = info.and_then(|it| it.container);
        let first = container.and_then(|it| it.network_infos.into_iter().next());
        first.unwrap_or_default()
    }

    pub(crate) fn container_event(&mut self, container_id: &str, event: ContainerEvent) {
        let Some(key) = self.knowledge.task_in(container_id) else {
            return;
        };
        match event {
            ContainerEvent::Started {
                pid,
                ip_addresses,
                data,
            } => self.started(&key, pid, ip_addresses, data),
            ContainerEvent::LaunchFailed {
                killed,
                unknown_user,
                message,
            } => self.launch_failed(&key, killed, unknown_user, message),
            ContainerEvent::Exited(ended) => self.exited(&key, ended),
            ContainerEvent::Health {
                healthy,
                kill,
                message,
            } => self.health(&key, healthy, kill, message),
            ContainerEvent::Check(check) => {
                let mut status = self.executor_status(&key, TaskState::TaskRunning);
                status.reason = Some(Reason::TaskCheckStatusUpdated as i32);
                status.check_status = Some(check);
                self.update(&key, status);
            }
        }
    }

    fn started(
        &mut self,
        key: &TaskKey,
        pid: u32,
        ip_addresses: Vec<String>,
        data: Option<String>,
    ) {
        let Some(task) = self.knowledge.tasks.get(key) else {
            return;
        };
        if task.progress.started || task.is_terminal() {
            return;
        }
        let mut progress = task.progress.clone();
        progress.started = true;
        progress.pid = pid;
        progress.ip_addresses = ip_addresses;
        self.record(Kind::Progress(progress));
        let starting = self.executor_status(key, TaskState::TaskStarting);
        self.update(key, starting);
        let mut running = self.executor_status(key, TaskState::TaskRunning);
        running.data = data.map(Into::into);
        running.check_status = self.empty_check(key);
        self.update(key, running);
    }

    /// The first statuses of a task with a check carry an empty result of its type.
    fn empty_check(&self, key: &TaskKey) -> Option<wire::CheckStatusInfo> {
        use prost::Message;
        let task = self.knowledge.tasks.get(key)?;
        let info = wire::TaskInfo::decode(task.launched.task_info_payload.clone()).ok()?;
        let kind = info.check?.r#type();
        let mut status = wire::CheckStatusInfo {
            r#type: Some(kind as i32),
            ..Default::default()
        };
        match kind {
            wire::check_info::Type::Command => status.command = Some(Default::default()),
            wire::check_info::Type::Http => status.http = Some(Default::default()),
            wire::check_info::Type::Tcp => status.tcp = Some(Default::default()),
            wire::check_info::Type::Unknown => return None,
        }
        Some(status)
    }

    fn launch_failed(&mut self, key: &TaskKey, killed: bool, unknown_user: bool, message: String) {
        if self.ended_silently(key) {
            return;
        }
        if unknown_user {
            // As Mesos: the executor of such a task cannot be started.
            self.drop_task(key, Reason::ExecutorTerminated, &message);
            return;
        }
        let (state, reason) = match killed {
            true => (TaskState::TaskKilled, Reason::TaskKilledDuringLaunch),
            false => (TaskState::TaskFailed, Reason::ContainerLaunchFailed),
        };
        self.update(
            key,
            wire::TaskStatus {
                state: state as i32,
                source: Some(Source::Agent as i32),
                reason: Some(reason as i32),
                executor_id: Self::executor_id(key),
                message: Some(message),
                ..Default::default()
            },
        );
    }

    fn exited(&mut self, key: &TaskKey, ended: Ended) {
        if self.ended_silently(key) {
            return;
        }
        let Some(task) = self.knowledge.tasks.get(key) else {
            return;
        };
        let killed = ended.killed || task.progress.kill_ordered;
        let unhealthy = task.progress.unhealthy;
        let mut status = match ended.limit {
            Some(limit) => self.limited(key, limit),
            None => {
                let state = match (killed, ended.success) {
                    (true, _) => self.killed_state(key),
                    (false, true) => TaskState::TaskFinished,
                    (false, false) => TaskState::TaskFailed,
                };
                self.executor_status(key, state)
            }
        };
        if unhealthy {
            status.healthy = Some(false);
        }
        status.message = Some(ended.message);
        self.update(key, status);
    }

    /// What a killed task is called; a drain that marks the agent gone says so.
    fn killed_state(&self, key: &TaskKey) -> TaskState {
        let gone = self
            .knowledge
            .draining
            .as_ref()
            .is_some_and(|it| it.mark_gone);
        let aware = gone && self.framework_can(&key.0, Capability::PartitionAware);
        match aware {
            true => TaskState::TaskGoneByOperator,
            false => TaskState::TaskKilled,
        }
    }

    fn limited(&self, key: &TaskKey, limit: Limit) -> wire::TaskStatus {
        let failed = self.executor_status(key, TaskState::TaskFailed);
        let (source, reason, limitation) = match limit {
            Limit::Memory(megabytes) => {
                let limitation = megabytes.map(|it| limitation("mem", it as f64));
                (Source::Agent, Reason::ContainerLimitationMemory, limitation)
            }
            Limit::Disk => (Source::Agent, Reason::ContainerLimitationDisk, None),
            Limit::CompletionTime => (Source::Executor, Reason::MaxCompletionTimeReached, None),
        };
        wire::TaskStatus {
            source: Some(source as i32),
            reason: Some(reason as i32),
            limitation,
            ..failed
        }
    }

    /// A task of which nobody wants to hear is forgotten at its end.
    fn ended_silently(&mut self, key: &TaskKey) -> bool {
        let silent = self
            .knowledge
            .tasks
            .get(key)
            .is_some_and(|it| it.progress.silent);
        if silent {
            self.forget_task(key);
        }
        silent
    }

    fn health(&mut self, key: &TaskKey, healthy: bool, kill: bool, message: String) {
        let mut status = self.executor_status(key, TaskState::TaskRunning);
        status.reason = Some(Reason::TaskHealthCheckStatusUpdated as i32);
        status.healthy = Some(healthy);
        status.message = (!message.is_empty()).then_some(message);
        self.update(key, status);
        if !kill {
            return;
        }
        if let Some(task) = self.knowledge.tasks.get(key) {
            let mut progress = task.progress.clone();
            progress.unhealthy = true;
            self.record(Kind::Progress(progress));
            self.kill(key, None);
        }
    }

    // ------------------------------------------------------------ recovery

    /// What the containerizer found of an earlier life.
    pub(crate) fn containers_recovered(&mut self, containers: Vec<(String, RecoveredState)>) {
        let mut found: Vec<TaskKey> = Vec::new();
        for (container_id, state) in containers {
            let Some(key) = self.knowledge.task_in(&container_id) else {
                continue;
            };
            found.push(key.clone());
            match state {
                RecoveredState::Launching => {}
                RecoveredState::Running(event) | RecoveredState::Over(event) => {
                    self.container_event(&container_id, event);
                }
            }
            self.kill_again(&key);
        }
        let missing: Vec<TaskKey> = self
            .knowledge
            .tasks
            .iter()
            .filter(|(key, task)| !task.is_terminal() && !found.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in missing {
            self.missing(&key);
        }
        self.recovered = true;
        self.register_everywhere();
    }

    /// A kill that was ordered before the agent died is ordered again.
    fn kill_again(&mut self, key: &TaskKey) {
        let Some(task) = self.knowledge.tasks.get(key) else {
            return;
        };
        if task.progress.kill_ordered && !task.is_terminal() {
            let grace = task.progress.kill_grace_ns;
            self.kill(key, grace);
        }
    }

    /// No container: one that never started is launched now; one that did is lost.
    fn missing(&mut self, key: &TaskKey) {
        if self.ended_silently(key) {
            return;
        }
        let (started, killed) = match self.knowledge.tasks.get(key) {
            Some(task) => (task.progress.started, task.progress.kill_ordered),
            None => return,
        };
        match (started, killed) {
            (false, true) => {
                let text = "killed before it was launched".to_owned();
                self.launch_failed(key, true, false, text);
            }
            (false, false) => self.launch(key),
            (true, _) => self.container_lost(key),
        }
    }

    fn container_lost(&mut self, key: &TaskKey) {
        let aware = self.framework_can(&key.0, Capability::PartitionAware);
        let state = match aware {
            true => TaskState::TaskGone,
            false => TaskState::TaskLost,
        };
        self.update(
            key,
            wire::TaskStatus {
                state: state as i32,
                source: Some(Source::Agent as i32),
                reason: Some(Reason::ExecutorReregistrationTimeout as i32),
                executor_id: Self::executor_id(key),
                message: Some("the container did not survive".to_owned()),
                ..Default::default()
            },
        );
    }

    /// The machine was booted: no container of before is left.
    pub(crate) fn containers_died(&mut self) {
        let live: Vec<TaskKey> = self
            .knowledge
            .tasks
            .iter()
            .filter(|(_, task)| !task.is_terminal())
            .map(|(key, _)| key.clone())
            .collect();
        for key in live {
            if !self.ended_silently(&key) {
                self.container_lost(&key);
            }
        }
    }
}

fn limitation(name: &str, amount: f64) -> wire::TaskResourceLimitation {
    wire::TaskResourceLimitation {
        resources: vec![wire::Resource {
            name: name.to_owned(),
            r#type: wire::value::Type::Scalar as i32,
            scalar: Some(wire::value::Scalar { value: amount }),
            ..Default::default()
        }],
    }
}
