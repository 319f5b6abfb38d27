//! What an agent knows: the fold of its checkpoint records.

use std::collections::{BTreeMap, VecDeque};
use tepui_model::{link, link::record::Kind, wire};

/// A task with its stream of updates.
#[derive(Clone, Debug)]
pub struct Task {
    /// As launched.
    pub launched: link::LaunchedTask,
    /// Where it stands.
    pub progress: link::TaskProgress,
    /// Updates that are not acknowledged yet, encoded, oldest first.
    pub updates: VecDeque<bytes::Bytes>,
    /// Every status, consecutive equal states collapsed; for endpoints.
    pub statuses: Vec<wire::TaskStatus>,
}

/// Names a task: framework and task id.
pub type TaskKey = (String, String);

/// Everything that survives the process.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    pub(crate) identity: link::Identity,
    pub(crate) boot_id: String,
    pub(crate) fence: link::Fence,
    pub(crate) commands_done: u64,
    pub(crate) total: Option<Vec<wire::Resource>>,
    pub(crate) frameworks: BTreeMap<String, wire::FrameworkInfo>,
    pub(crate) framework_payloads: BTreeMap<String, bytes::Bytes>,
    /// Also those that are forgotten but for their completed tasks; for endpoints.
    pub(crate) seen_frameworks: BTreeMap<String, wire::FrameworkInfo>,
    pub(crate) tasks: BTreeMap<TaskKey, Task>,
    /// Ended and acknowledged, oldest first; bounded.
    pub(crate) completed: VecDeque<Task>,
    pub(crate) operations: BTreeMap<String, link::PendingOperation>,
    pub(crate) draining: Option<link::Draining>,
    /// `host:port` of every master.
    pub(crate) masters: Vec<String>,
}

/// Completed tasks remembered, over all frameworks (Mesos: 200 per executor).
const MAX_COMPLETED: usize = 1000;

impl Knowledge {
    /// Applies one record. Total: a record about something unknown changes nothing.
    pub fn apply(&mut self, record: &link::Record) {
        use prost::Message;
        let Some(kind) = &record.kind else { return };
        match kind {
            Kind::Identity(it) => self.identity = it.clone(),
            Kind::Boot(it) => self.boot_id.clone_from(&it.boot_id),
            Kind::Fence(it) => self.fence = it.clone(),
            Kind::CommandsDone(it) => self.commands_done = it.up_to,
            Kind::Totals(it) => self.total = Some(it.total.clone()),
            Kind::Framework(it) => {
                let info = wire::FrameworkInfo::decode(it.info_payload.clone()).unwrap_or_default();
                self.seen_frameworks
                    .insert(it.framework_id.clone(), info.clone());
                self.frameworks.insert(it.framework_id.clone(), info);
                self.framework_payloads
                    .insert(it.framework_id.clone(), it.info_payload.clone());
            }
            Kind::ForgetFramework(it) => {
                self.frameworks.remove(&it.framework_id);
                self.framework_payloads.remove(&it.framework_id);
            }
            Kind::Task(it) => {
                let key = (it.framework_id.clone(), it.task_id.clone());
                let progress = link::TaskProgress {
                    framework_id: it.framework_id.clone(),
                    task_id: it.task_id.clone(),
                    state: wire::TaskState::TaskStaging as i32,
                    ..Default::default()
                };
                let task = Task {
                    launched: it.clone(),
                    progress,
                    updates: VecDeque::new(),
                    statuses: Vec::new(),
                };
                self.tasks.insert(key, task);
            }
            Kind::Progress(it) => {
                let key = (it.framework_id.clone(), it.task_id.clone());
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.progress = it.clone();
                }
            }
            Kind::AppendUpdate(it) => {
                let key = (it.framework_id.clone(), it.task_id.clone());
                let Some(task) = self.tasks.get_mut(&key) else {
                    return;
                };
                let status =
                    wire::TaskStatus::decode(it.status_payload.clone()).unwrap_or_default();
                if task
                    .statuses
                    .last()
                    .is_some_and(|last| last.state == status.state)
                {
                    task.statuses.pop();
                }
                task.statuses.push(wire::TaskStatus {
                    data: None,
                    ..status
                });
                task.updates.push_back(it.status_payload.clone());
            }
            Kind::PopUpdate(it) => {
                let key = (it.framework_id.clone(), it.task_id.clone());
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.updates.pop_front();
                }
            }
            Kind::ForgetTask(it) => {
                let key = (it.framework_id.clone(), it.task_id.clone());
                if let Some(task) = self.tasks.remove(&key) {
                    self.completed.push_back(task);
                    if self.completed.len() > MAX_COMPLETED {
                        self.completed.pop_front();
                        self.forget_unseen();
                    }
                }
            }
            Kind::Operation(it) => {
                self.operations
                    .insert(it.operation_uuid.clone(), it.clone());
            }
            Kind::ForgetOperation(it) => {
                self.operations.remove(&it.operation_uuid);
            }
            Kind::Draining(it) => self.draining = it.draining.then_some(*it),
            Kind::Masters(it) => self.masters.clone_from(&it.address),
        }
    }

    /// Drops frameworks of which nothing is shown any more.
    fn forget_unseen(&mut self) {
        let shown: std::collections::BTreeSet<&str> = self
            .completed
            .iter()
            .chain(self.tasks.values())
            .map(|task| task.launched.framework_id.as_str())
            .collect();
        self.seen_frameworks
            .retain(|id, _| shown.contains(id.as_str()));
    }

    /// The shortest list of records with the same fold, but for completed tasks, which are
    /// remembered for people only.
    pub fn snapshot(&self) -> Vec<link::Record> {
        let mut records = vec![
            Kind::Identity(self.identity.clone()),
            Kind::Boot(link::Boot {
                boot_id: self.boot_id.clone(),
            }),
            Kind::Fence(self.fence.clone()),
            Kind::CommandsDone(link::CommandsDone {
                up_to: self.commands_done,
            }),
        ];
        if let Some(total) = &self.total {
            let total = total.clone();
            records.push(Kind::Totals(link::Totals { total }));
        }
        for (framework_id, payload) in &self.framework_payloads {
            records.push(Kind::Framework(link::KnownFramework {
                framework_id: framework_id.clone(),
                info_payload: payload.clone(),
            }));
        }
        for ((framework_id, task_id), task) in &self.tasks {
            records.push(Kind::Task(task.launched.clone()));
            records.push(Kind::Progress(task.progress.clone()));
            for payload in &task.updates {
                records.push(Kind::AppendUpdate(link::AppendUpdate {
                    framework_id: framework_id.clone(),
                    task_id: task_id.clone(),
                    status_payload: payload.clone(),
                }));
            }
        }
        records.extend(self.operations.values().cloned().map(Kind::Operation));
        records.extend(self.draining.map(Kind::Draining));
        if !self.masters.is_empty() {
            let address = self.masters.clone();
            records.push(Kind::Masters(link::Masters { address }));
        }
        let record = |kind| link::Record { kind: Some(kind) };
        records.into_iter().map(record).collect()
    }

    /// Tasks of a framework.
    pub(crate) fn tasks_of(&self, framework_id: &str) -> Vec<TaskKey> {
        let keys = self.tasks.keys();
        keys.filter(|(of, _)| of == framework_id).cloned().collect()
    }

    /// The task with this container.
    pub(crate) fn task_in(&self, container_id: &str) -> Option<TaskKey> {
        let mut found = self.tasks.iter();
        found
            .find(|(_, task)| task.launched.container_id == container_id)
            .map(|(key, _)| key.clone())
    }
}
