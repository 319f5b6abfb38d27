//! The tables and how they are read.

use std::{ops::Bound, sync::Arc};

use tepui_model::{
    id::{AgentId, ExecutorId, FrameworkId, TaskId},
    log,
    time::ClusterTime,
    wire::quota::QuotaConfig,
};

use crate::{
    key::RowKey,
    ledger::{AnySlot, Ledger, Slot, row_hash},
    table::{Iter, Set, Table},
    variables::Variables,
};

/// The newest version of the log and the rows that this release knows. It rises with every
/// release that adds operations or changes what one does.
pub const VERSION: u64 = 1;
/// The version that only tests know of; see `tepui.log.v1.Synthetic`.
pub const SYNTHETIC_VERSION: u64 = VERSION + 1;

/// Completed frameworks that are kept (Mesos' default of `--max_completed_frameworks`).
pub const MAX_COMPLETED_FRAMEWORKS: usize = 50;
/// Completed tasks kept per framework (Mesos' default of `--max_completed_tasks_per_framework`).
pub const MAX_COMPLETED_TASKS: usize = 1000;
/// Unreachable tasks kept per framework (Mesos' default of
/// `--max_unreachable_tasks_per_framework`).
pub const MAX_UNREACHABLE_TASKS: usize = 1000;

/// Everything that is replicated; see the crate's documentation.
///
/// A clone shares everything that neither side changes, and does not track dirty ones ([`ClusterState::take_dirty`]).
#[derive(Clone, Debug)]
pub struct ClusterState {
    pub(crate) cluster: Slot<log::Cluster>,
    pub(crate) agents: Table<AgentId, Slot<log::Agent>>,
    pub(crate) commands: Table<AgentId, Table<u64, Slot<log::Command>>>,
    // Live and completed.
    pub(crate) frameworks: Table<FrameworkId, Slot<log::Framework>>,
    pub(crate) tasks: Table<FrameworkId, Table<TaskId, Slot<log::Task>>>,
    pub(crate) completed_tasks: Table<FrameworkId, Table<u64, Slot<log::Task>>>,
    pub(crate) executors: Table<AgentId, Table<(FrameworkId, ExecutorId), Slot<log::Executor>>>,
    pub(crate) operations: Table<Arc<str>, Slot<log::OfferOperation>>,
    pub(crate) weights: Table<Arc<str>, Slot<log::Weight>>,
    pub(crate) quotas: Table<Arc<str>, Slot<QuotaConfig>>,
    pub(crate) maintenance: Option<Slot<log::SetMaintenance>>,
    pub(crate) service: Variables,
    pub(crate) indexes: Indexes,
    pub(crate) ledger: Ledger,
    /// Not a row: what this replica can.
    pub(crate) supported: u64,
}

/// Derived from the rows; rebuilt by [`ClusterState::load`]. No set is kept empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Indexes {
    pub(crate) tasks_by_agent: Table<AgentId, Set<(FrameworkId, TaskId)>>,
    // Oldest first.
    pub(crate) unreachable_tasks: Table<FrameworkId, Table<u64, TaskId>>,
    // Oldest first.
    pub(crate) completed_frameworks: Table<u64, FrameworkId>,
    pub(crate) executors_by_framework: Table<FrameworkId, Set<(AgentId, ExecutorId)>>,
    pub(crate) operations_by_agent: Table<AgentId, Set<Arc<str>>>,
    pub(crate) operations_by_framework: Table<FrameworkId, Set<Arc<str>>>,
}

impl Default for ClusterState {
    fn default() -> ClusterState {
        ClusterState::new()
    }
}

impl ClusterState {
    /// The state of a cluster that has not been formed.
    pub fn new() -> ClusterState {
        let mut ledger = Ledger::new();
        let cluster = ledger.add(Arc::default(), || RowKey::Cluster);
        ClusterState {
            cluster,
            agents: Table::new(),
            commands: Table::new(),
            frameworks: Table::new(),
            tasks: Table::new(),
            completed_tasks: Table::new(),
            executors: Table::new(),
            operations: Table::new(),
            weights: Table::new(),
            quotas: Table::new(),
            maintenance: None,
            service: Variables::default(),
            indexes: Indexes::default(),
            ledger,
            supported: VERSION,
        }
    }

    /// A state that knows versions up to `supported`, for tests of upgrades.
    #[must_use]
    pub fn supporting(mut self, supported: u64) -> ClusterState {
        self.supported = supported;
        self
    }

    // ------------------------------------------------------------ the cluster

    /// The row about the cluster itself.
    pub fn cluster(&self) -> &Arc<log::Cluster> {
        &self.cluster.row
    }

    /// Whether `FormCluster` has been applied: an empty store's state is not formed.
    pub fn is_formed(&self) -> bool {
        !self.cluster.row.cluster_id.is_empty()
    }

    /// The version up to which the log may use what releases know.
    pub fn cluster_version(&self) -> u64 {
        self.cluster.row.cluster_version.max(1)
    }

    /// The newest version that this replica knows.
    pub fn supported_version(&self) -> u64 {
        self.supported
    }

    /// Cluster time of the newest entry.
    pub fn cluster_time(&self) -> ClusterTime {
        ClusterTime(self.cluster.row.cluster_time_ns)
    }

    // ------------------------------------------------------------ agents

    /// An agent in any state.
    pub fn agent(&self, agent: &AgentId) -> Option<&Arc<log::Agent>> {
        self.agents.get(agent).map(|it| &it.row)
    }

    /// Every agent in any state, by id.
    pub fn agents(&self) -> impl ExactSizeIterator<Item = (&AgentId, &Arc<log::Agent>)> {
        self.agents.iter().map(|(id, slot)| (id, &slot.row))
    }

    /// Commands that the agent has not confirmed, oldest first.
    pub fn pending_commands(
        &self,
        agent: &AgentId,
    ) -> impl Iterator<Item = &Arc<log::Command>> + use<'_> {
        rows(self.commands.get(agent)).map(|(_, row)| row)
    }

    /// Number of commands that the agent has not confirmed.
    pub fn pending_command_count(&self, agent: &AgentId) -> usize {
        self.commands.get(agent).map_or(0, Table::len)
    }

    // ------------------------------------------------------------ frameworks

    /// A framework, live or completed (see its `completed` field).
    pub fn framework(&self, framework: &FrameworkId) -> Option<&Arc<log::Framework>> {
        self.frameworks.get(framework).map(|it| &it.row)
    }

    /// Frameworks that are not completed, by id.
    pub fn frameworks(&self) -> impl Iterator<Item = (&FrameworkId, &Arc<log::Framework>)> {
        let live = |slot: &Slot<log::Framework>| !slot.row.completed;
        self.frameworks
            .iter()
            .filter(move |(_, slot)| live(slot))
            .map(|(id, slot)| (id, &slot.row))
    }

    /// The ring of completed frameworks, oldest first.
    pub fn completed_frameworks(
        &self,
    ) -> impl Iterator<Item = (&FrameworkId, &Arc<log::Framework>)> {
        self.indexes
            .completed_frameworks
            .values()
            .filter_map(|id| Some((id, &self.frameworks.get(id)?.row)))
    }

    // ------------------------------------------------------------ tasks

    /// A task that is not completed; it may be unreachable.
    pub fn task(&self, framework: &FrameworkId, task: &TaskId) -> Option<&Arc<log::Task>> {
        self.tasks.get(framework)?.get(task).map(|it| &it.row)
    }

    pub(crate) fn row_of_task(&self, framework: &str, task: &str) -> Option<&Arc<log::Task>> {
        self.tasks.get(framework)?.get(task).map(|it| &it.row)
    }

    /// Every task that is not completed, unreachable ones included, by framework and id.
    pub fn tasks(&self) -> impl Iterator<Item = (&FrameworkId, &TaskId, &Arc<log::Task>)> {
        self.tasks.iter().flat_map(|(framework, tasks)| {
            tasks
                .iter()
                .map(move |(task, slot)| (framework, task, &slot.row))
        })
    }

    /// The framework's tasks that are not completed, unreachable ones included, by id.
    pub fn tasks_of_framework(
        &self,
        framework: &FrameworkId,
    ) -> impl Iterator<Item = (&TaskId, &Arc<log::Task>)> + use<'_> {
        rows(self.tasks.get(framework))
    }

    /// Those of [`Self::tasks_of_framework`] behind `after`; all when it is `None`.
    pub fn tasks_of_framework_after(
        &self,
        framework: &FrameworkId,
        after: Option<&TaskId>,
    ) -> impl Iterator<Item = (&TaskId, &Arc<log::Task>)> + use<'_> {
        let from = after.map_or(Bound::Unbounded, |it| Bound::Excluded(it.clone()));
        let table = self.tasks.get(framework).into_iter();
        table
            .flat_map(move |it| it.range((from.clone(), Bound::Unbounded)))
            .map(|(id, slot)| (id, &slot.row))
    }

    /// The agent's tasks that are not completed, unreachable ones included, by framework and id.
    pub fn tasks_of_agent(
        &self,
        agent: &AgentId,
    ) -> impl Iterator<Item = (&FrameworkId, &TaskId, &Arc<log::Task>)> + use<'_> {
        self.indexes
            .tasks_by_agent
            .get(agent)
            .into_iter()
            .flatten()
            .filter_map(|(framework, task)| Some((framework, task, self.task(framework, task)?)))
    }

    /// The framework's ring of unreachable tasks, oldest first.
    pub fn unreachable_tasks(
        &self,
        framework: &FrameworkId,
    ) -> impl Iterator<Item = &Arc<log::Task>> + use<'_> {
        let tasks = self.tasks.get(framework);
        self.indexes
            .unreachable_tasks
            .get(framework)
            .into_iter()
            .flat_map(Table::values)
            .filter_map(move |task| Some(&tasks?.get(task)?.row))
    }

    /// The framework's ring of completed tasks, oldest first.
    pub fn completed_tasks(
        &self,
        framework: &FrameworkId,
    ) -> impl ExactSizeIterator<Item = &Arc<log::Task>> + use<'_> {
        rows(self.completed_tasks.get(framework)).map(|(_, row)| row)
    }

    // ------------------------------------------------------------ executors

    /// An executor.
    pub fn executor(
        &self,
        framework: &FrameworkId,
        agent: &AgentId,
        executor: &ExecutorId,
    ) -> Option<&Arc<log::Executor>> {
        self.executors
            .get(agent)?
            .get(&(framework.clone(), executor.clone()))
            .map(|it| &it.row)
    }

    /// Every executor, by agent, framework and id.
    pub fn executors(&self) -> impl Iterator<Item = &Arc<log::Executor>> {
        self.executors
            .values()
            .flat_map(|it| it.values().map(|slot| &slot.row))
    }

    /// The agent's executors, by framework and id.
    pub fn executors_of_agent(
        &self,
        agent: &AgentId,
    ) -> impl Iterator<Item = (&FrameworkId, &ExecutorId, &Arc<log::Executor>)> + use<'_> {
        rows(self.executors.get(agent))
            .map(|((framework, executor), row)| (framework, executor, row))
    }

    /// The framework's executors, by agent and id.
    pub fn executors_of_framework(
        &self,
        framework: &FrameworkId,
    ) -> impl Iterator<Item = &Arc<log::Executor>> + use<'_> {
        let id = framework.clone();
        self.indexes
            .executors_by_framework
            .get(framework)
            .into_iter()
            .flatten()
            .filter_map(move |(agent, executor)| self.executor(&id, agent, executor))
    }

    // ------------------------------------------------------------ operations

    /// An offer operation by the hexadecimal uuid that the master chose.
    pub fn operation(&self, uuid: &str) -> Option<&Arc<log::OfferOperation>> {
        self.operations.get(uuid).map(|it| &it.row)
    }

    /// Every offer operation, by uuid.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = &Arc<log::OfferOperation>> {
        self.operations.values().map(|it| &it.row)
    }

    /// The agent's offer operations, by uuid.
    pub fn operations_of_agent(
        &self,
        agent: &AgentId,
    ) -> impl Iterator<Item = &Arc<log::OfferOperation>> + use<'_> {
        self.named(self.indexes.operations_by_agent.get(agent))
    }

    /// The framework's offer operations, by uuid.
    pub fn operations_of_framework(
        &self,
        framework: &FrameworkId,
    ) -> impl Iterator<Item = &Arc<log::OfferOperation>> + use<'_> {
        self.named(self.indexes.operations_by_framework.get(framework))
    }

    fn named<'a>(
        &'a self,
        uuids: Option<&'a Set<Arc<str>>>,
    ) -> impl Iterator<Item = &'a Arc<log::OfferOperation>> {
        uuids
            .into_iter()
            .flatten()
            .filter_map(|uuid| self.operation(uuid))
    }

    // ------------------------------------------------------------ the operator's settings

    /// The weight of a role in millionths, when one was set.
    pub fn weight(&self, role: &str) -> Option<u64> {
        self.weights.get(role).map(|it| it.row.micro)
    }

    /// Every weight that was set, in millionths, by role.
    pub fn weights(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.weights
            .iter()
            .map(|(role, slot)| (role.as_ref(), slot.row.micro))
    }

    /// The quota of a role, when one was set.
    pub fn quota(&self, role: &str) -> Option<&Arc<QuotaConfig>> {
        self.quotas.get(role).map(|it| &it.row)
    }

    /// Every quota that was set, by role.
    pub fn quotas(&self) -> impl ExactSizeIterator<Item = (&str, &Arc<QuotaConfig>)> {
        self.quotas
            .iter()
            .map(|(role, slot)| (role.as_ref(), &slot.row))
    }

    /// Maintenance schedules and modes of machines, when any were set.
    pub fn maintenance(&self) -> Option<&Arc<log::SetMaintenance>> {
        self.maintenance.as_ref().map(|it| &it.row)
    }

    // ------------------------------------------------------------ books

    /// Takes over the rows and books of `same`, a copy that holds the same rows because the same
    /// operations were applied to it: from here on both hold each row once. Which rows are dirty
    /// stays as it was. Returns what was held before, for whoever has the time to drop it.
    pub fn share(&mut self, mut same: ClusterState) -> ClusterState {
        debug_assert_eq!(self.hash(), same.hash(), "copies to be shared differ");
        self.ledger.hand_over_dirty(&mut same.ledger);
        std::mem::replace(self, same)
    }

    /// Rows changed since the last call of [`ClusterState::hash`], at most: those that are gone
    /// since count too.
    pub fn unhashed_len(&self) -> usize {
        self.ledger.unhashed_len()
    }

    /// Keeps no books any more: neither hash nor dirty rows. For copies that are only read.
    pub fn stop_books(&mut self) {
        self.ledger.stop();
    }

    /// Hash over all rows; costs one encoding for each row changed since the last call. 0
    /// once the books were stopped.
    pub fn hash(&mut self) -> u64 {
        for key in self.ledger.take_unhashed() {
            let Some(slot) = self.slot_mut(&key).filter(|it| !it.is_hashed()) else {
                continue;
            };
            let hash = row_hash(&key, &slot.encode());
            slot.set_hash(hash);
            self.ledger.add_hash(hash);
        }
        self.ledger.sum()
    }

    pub(crate) fn slot(&self, key: &RowKey) -> Option<&dyn AnySlot> {
        fn any<V: prost::Message + 'static>(slot: Option<&Slot<V>>) -> Option<&dyn AnySlot> {
            slot.map(|it| it as &dyn AnySlot)
        }
        match key {
            RowKey::Cluster => Some(&self.cluster),
            RowKey::Agent(agent) => any(self.agents.get(agent)),
            RowKey::Command(agent, sequence) => any(self.commands.get(agent)?.get(sequence)),
            RowKey::Framework(framework) => any(self.frameworks.get(framework)),
            RowKey::Task(framework, task) => any(self.tasks.get(framework)?.get(task)),
            RowKey::CompletedTask(framework, place) => {
                any(self.completed_tasks.get(framework)?.get(place))
            }
            RowKey::Executor(framework, agent, executor) => {
                let key = (framework.clone(), executor.clone());
                any(self.executors.get(agent)?.get(&key))
            }
            RowKey::Operation(uuid) => any(self.operations.get(uuid)),
            RowKey::Weight(role) => any(self.weights.get(role)),
            RowKey::Quota(role) => any(self.quotas.get(role)),
            RowKey::Maintenance => any(self.maintenance.as_ref()),
            RowKey::Variable(owner, name) => any(self.service.variables.get(owner)?.get(name)),
            RowKey::Lease(owner, id) => any(self.service.leases.get(owner)?.get(id)),
            RowKey::StateAccount(owner) => any(self.service.accounts.get(owner)),
            RowKey::StateWrite(owner, revision) => {
                any(self.service.writes.get(owner)?.get(revision))
            }
        }
    }

    fn slot_mut(&mut self, key: &RowKey) -> Option<&mut dyn AnySlot> {
        fn any<V: prost::Message + 'static>(
            slot: Option<&mut Slot<V>>,
        ) -> Option<&mut dyn AnySlot> {
            slot.map(|it| it as &mut dyn AnySlot)
        }
        match key {
            RowKey::Cluster => Some(&mut self.cluster),
            RowKey::Agent(agent) => any(self.agents.get_mut(agent)),
            RowKey::Command(agent, sequence) => {
                any(self.commands.get_mut(agent)?.get_mut(sequence))
            }
            RowKey::Framework(framework) => any(self.frameworks.get_mut(framework)),
            RowKey::Task(framework, task) => any(self.tasks.get_mut(framework)?.get_mut(task)),
            RowKey::CompletedTask(framework, place) => {
                any(self.completed_tasks.get_mut(framework)?.get_mut(place))
            }
            RowKey::Executor(framework, agent, executor) => {
                let key = (framework.clone(), executor.clone());
                any(self.executors.get_mut(agent)?.get_mut(&key))
            }
            RowKey::Operation(uuid) => any(self.operations.get_mut(uuid)),
            RowKey::Weight(role) => any(self.weights.get_mut(role)),
            RowKey::Quota(role) => any(self.quotas.get_mut(role)),
            RowKey::Maintenance => any(self.maintenance.as_mut()),
            RowKey::Variable(owner, name) => {
                any(self.service.variables.get_mut(owner)?.get_mut(name))
            }
            RowKey::Lease(owner, id) => any(self.service.leases.get_mut(owner)?.get_mut(id)),
            RowKey::StateAccount(owner) => any(self.service.accounts.get_mut(owner)),
            RowKey::StateWrite(owner, revision) => {
                any(self.service.writes.get_mut(owner)?.get_mut(revision))
            }
        }
    }
}

// Rows of a nested table that may not exist.
fn rows<K: Ord, V>(table: Option<&Table<K, Slot<V>>>) -> Rows<'_, K, V> {
    Rows(table.map(Table::iter))
}

struct Rows<'a, K, V>(Option<Iter<'a, K, Slot<V>>>);

impl<'a, K: Ord, V> Iterator for Rows<'a, K, V> {
    type Item = (&'a K, &'a Arc<V>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, slot) = self.0.as_mut()?.next()?;
        Some((key, &slot.row))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let length = self.0.as_ref().map_or(0, ExactSizeIterator::len);
        (length, Some(length))
    }
}

impl<K: Ord, V> ExactSizeIterator for Rows<'_, K, V> {}
