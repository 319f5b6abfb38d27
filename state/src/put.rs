//! Rows in and out of their tables, with the indexes and the ledger kept in step.
//!
//! Nothing else touches the tables: an operation is a few calls of these.

use std::sync::Arc;

use tepui_model::{
    id::{AgentId, ExecutorId, FrameworkId, TaskId},
    log,
    wire::quota::QuotaConfig,
};

use crate::{
    key::RowKey,
    ledger::{Ledger, Slot},
    state::{ClusterState, MAX_COMPLETED_TASKS, MAX_UNREACHABLE_TASKS},
    table::{Set, Table},
};

// Puts a row into a table and returns the one it replaces.
fn put<K: Ord + Clone, V: Clone>(
    ledger: &mut Ledger,
    table: &mut Table<K, Slot<V>>,
    key: K,
    row: Arc<V>,
    name: impl FnOnce(K) -> RowKey,
) -> Option<Arc<V>> {
    if let Some(slot) = table.get_mut(&key) {
        return Some(ledger.replace(slot, row, || name(key)));
    }
    let slot = ledger.add(row, || name(key.clone()));
    table.insert(key, slot);
    None
}

fn unindex<A: Ord + Clone + std::borrow::Borrow<str>, B: Ord + Clone>(
    index: &mut Table<A, Set<B>>,
    outer: &str,
    inner: &B,
) {
    if let Some(set) = index.get_mut(outer) {
        set.remove(inner);
        if set.is_empty() {
            index.remove(outer);
        }
    }
}

// The table of this name, a new one if there is none. Looks before it makes a key.
fn table_of<'a, A, B>(tables: &'a mut Table<A, B>, name: &str) -> &'a mut B
where
    A: Ord + Clone + std::borrow::Borrow<str> + for<'b> From<&'b str>,
    B: Clone + Default,
{
    if !tables.contains_key(name) {
        tables.insert(name.into(), B::default());
    }
    tables.get_mut(name).expect("it is there now")
}

// The place after the newest one of a ring. Rings lose rows at the old end alone while they
// fill, so places are not used twice within what anybody can still see.
fn next_place<V>(ring: Option<&Table<u64, V>>) -> u64 {
    ring.and_then(|it| it.get_max())
        .map_or(1, |(place, _)| place.saturating_add(1))
}

impl ClusterState {
    pub(crate) fn edit_cluster(&mut self, change: impl FnOnce(&mut log::Cluster)) {
        let name = || RowKey::Cluster;
        self.ledger.edit(&mut self.cluster, name, change);
    }

    pub(crate) fn put_cluster(&mut self, row: Arc<log::Cluster>) {
        let name = || RowKey::Cluster;
        self.ledger.replace(&mut self.cluster, row, name);
    }

    // ------------------------------------------------------------ agents

    /// Says whether the agent is new.
    pub(crate) fn put_agent(&mut self, id: AgentId, row: Arc<log::Agent>) -> bool {
        let (ledger, table) = (&mut self.ledger, &mut self.agents);
        put(ledger, table, id, row, RowKey::Agent).is_none()
    }

    pub(crate) fn edit_agent(&mut self, id: &str, change: impl FnOnce(&mut log::Agent)) {
        if let Some(slot) = self.agents.get_mut(id) {
            let name = || RowKey::Agent(id.into());
            self.ledger.edit(slot, name, change);
        }
    }

    pub(crate) fn take_agent(&mut self, id: &AgentId) {
        if let Some(slot) = self.agents.remove(id) {
            let name = || RowKey::Agent(id.clone());
            self.ledger.removed(&slot, name);
        }
    }

    pub(crate) fn put_command(&mut self, agent: &str, row: Arc<log::Command>) {
        let sequence = row.sequence;
        let table = table_of(&mut self.commands, agent);
        put(&mut self.ledger, table, sequence, row, |sequence| {
            RowKey::Command(agent.into(), sequence)
        });
    }

    /// Drops the agent's commands up to and including `up_to`.
    pub(crate) fn take_commands(&mut self, agent: &str, up_to: u64) {
        let Some(table) = self.commands.get_mut(agent) else {
            return;
        };
        let done: Vec<u64> = table.range(..=up_to).map(|(it, _)| *it).collect();
        for sequence in done {
            if let Some(slot) = table.remove(&sequence) {
                let name = || RowKey::Command(agent.into(), sequence);
                self.ledger.removed(&slot, name);
            }
        }
        if table.is_empty() {
            self.commands.remove(agent);
        }
    }

    // ------------------------------------------------------------ frameworks

    /// Says whether the framework is new.
    pub(crate) fn put_framework(&mut self, id: FrameworkId, row: Arc<log::Framework>) -> bool {
        let (completed, place) = (row.completed, row.ring_sequence);
        let (ledger, table) = (&mut self.ledger, &mut self.frameworks);
        let old = put(ledger, table, id.clone(), row, RowKey::Framework);
        let ring = &mut self.indexes.completed_frameworks;
        if let Some(old) = &old
            && old.completed
        {
            ring.remove(&old.ring_sequence);
        }
        if completed {
            ring.insert(place, id);
        }
        old.is_none()
    }

    /// `change` leaves `completed` and `ring_sequence` alone.
    pub(crate) fn edit_framework(&mut self, id: &str, change: impl FnOnce(&mut log::Framework)) {
        if let Some(slot) = self.frameworks.get_mut(id) {
            let name = || RowKey::Framework(id.into());
            self.ledger.edit(slot, name, change);
        }
    }

    pub(crate) fn next_framework_place(&self) -> u64 {
        next_place(Some(&self.indexes.completed_frameworks))
    }

    pub(crate) fn take_framework(&mut self, id: &FrameworkId) {
        if let Some(slot) = self.frameworks.remove(id) {
            if slot.row.completed {
                self.indexes
                    .completed_frameworks
                    .remove(&slot.row.ring_sequence);
            }
            let name = || RowKey::Framework(id.clone());
            self.ledger.removed(&slot, name);
        }
    }

    /// An id for keys, shared with the framework's own row: tasks have theirs in several.
    fn framework_id(&self, id: &str) -> FrameworkId {
        match self.frameworks.get_key_value(id) {
            Some((known, _)) => known.clone(),
            None => id.into(),
        }
    }

    // ------------------------------------------------------------ tasks

    pub(crate) fn put_task(&mut self, row: Arc<log::Task>) {
        let framework = self.framework_id(&row.framework_id);
        let task = TaskId::from(row.task_id.as_str());
        self.take_task(&framework, &task);
        table_of(&mut self.indexes.tasks_by_agent, &row.agent_id)
            .insert((framework.clone(), task.clone()));
        if row.unreachable {
            self.indexes
                .unreachable_tasks
                .entry(framework.clone())
                .or_default()
                .insert(row.ring_sequence, task.clone());
        }
        let name = || RowKey::Task(framework.clone(), task.clone());
        let slot = self.ledger.add(row, name);
        self.tasks.entry(framework).or_default().insert(task, slot);
    }

    /// `change` leaves the ids, `unreachable` and `ring_sequence` alone.
    pub(crate) fn edit_task(
        &mut self,
        framework: &str,
        task: &str,
        change: impl FnOnce(&mut log::Task),
    ) {
        let tasks = self.tasks.get_mut(framework);
        if let Some(slot) = tasks.and_then(|it| it.get_mut(task)) {
            let name = || RowKey::Task(framework.into(), task.into());
            self.ledger.edit(slot, name, change);
        }
    }

    /// Moves a task into the framework's ring of unreachable tasks, whose oldest is forgotten
    /// when it is full, or out of it.
    pub(crate) fn set_unreachable(&mut self, framework: &str, task: &str, to: bool) {
        let Some(slot) = self.tasks.get(framework).and_then(|it| it.get(task)) else {
            return;
        };
        if slot.row.unreachable == to {
            return;
        }
        let place = match to {
            true => next_place(self.indexes.unreachable_tasks.get(framework)),
            false => 0,
        };
        let mut row = Arc::clone(&slot.row);
        let changed = Arc::make_mut(&mut row);
        changed.unreachable = to;
        changed.ring_sequence = place;
        self.put_task(row);
        let framework = self.framework_id(framework);
        while let Some(ring) = self.indexes.unreachable_tasks.get(&framework)
            && ring.len() > MAX_UNREACHABLE_TASKS
            && let Some((_, oldest)) = ring.get_min()
        {
            let oldest = oldest.clone();
            self.take_task(&framework, &oldest);
        }
    }

    pub(crate) fn take_task(
        &mut self,
        framework: &FrameworkId,
        task: &TaskId,
    ) -> Option<Arc<log::Task>> {
        let rows = self.tasks.get_mut(framework)?;
        let slot = rows.remove(task)?;
        if rows.is_empty() {
            self.tasks.remove(framework);
        }
        let key = (framework.clone(), task.clone());
        unindex(&mut self.indexes.tasks_by_agent, &slot.row.agent_id, &key);
        if slot.row.unreachable
            && let Some(ring) = self.indexes.unreachable_tasks.get_mut(framework)
        {
            ring.remove(&slot.row.ring_sequence);
            if ring.is_empty() {
                self.indexes.unreachable_tasks.remove(framework);
            }
        }
        let (framework, task) = key;
        let name = || RowKey::Task(framework, task);
        self.ledger.removed(&slot, name);
        Some(slot.row)
    }

    /// Moves a task into its framework's ring of completed tasks, whose oldest is forgotten when
    /// it is full.
    pub(crate) fn complete_task(
        &mut self,
        framework: &FrameworkId,
        task: &TaskId,
        change: impl FnOnce(&mut log::Task),
    ) {
        let Some(mut row) = self.take_task(framework, task) else {
            return;
        };
        let completed = Arc::make_mut(&mut row);
        change(completed);
        completed.completed = true;
        completed.unreachable = false;
        completed.ring_sequence = next_place(self.completed_tasks.get(framework));
        self.put_completed_task(row);
        while let Some(ring) = self.completed_tasks.get(framework)
            && ring.len() > MAX_COMPLETED_TASKS
            && let Some(&(oldest, _)) = ring.get_min()
        {
            self.take_completed_task(framework, oldest);
        }
    }

    pub(crate) fn put_completed_task(&mut self, row: Arc<log::Task>) {
        let framework = self.framework_id(&row.framework_id);
        let place = row.ring_sequence;
        let table = self.completed_tasks.entry(framework.clone()).or_default();
        put(&mut self.ledger, table, place, row, |place| {
            RowKey::CompletedTask(framework, place)
        });
    }

    pub(crate) fn take_completed_task(&mut self, framework: &FrameworkId, place: u64) {
        let Some(rows) = self.completed_tasks.get_mut(framework) else {
            return;
        };
        if let Some(slot) = rows.remove(&place) {
            let name = || RowKey::CompletedTask(framework.clone(), place);
            self.ledger.removed(&slot, name);
        }
        if rows.is_empty() {
            self.completed_tasks.remove(framework);
        }
    }

    // ------------------------------------------------------------ executors

    pub(crate) fn put_executor(&mut self, row: Arc<log::Executor>) {
        let framework = FrameworkId::from(row.framework_id.as_str());
        let agent = AgentId::from(row.agent_id.as_str());
        let executor = ExecutorId::from(row.executor_id.as_str());
        self.indexes
            .executors_by_framework
            .entry(framework.clone())
            .or_default()
            .insert((agent.clone(), executor.clone()));
        let table = self.executors.entry(agent.clone()).or_default();
        let key = (framework, executor);
        put(
            &mut self.ledger,
            table,
            key,
            row,
            |(framework, executor)| RowKey::Executor(framework, agent, executor),
        );
    }

    pub(crate) fn take_executor(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        executor: &ExecutorId,
    ) {
        let Some(rows) = self.executors.get_mut(agent) else {
            return;
        };
        let slot = rows.remove(&(framework.clone(), executor.clone()));
        if rows.is_empty() {
            self.executors.remove(agent);
        }
        if let Some(slot) = slot {
            unindex(
                &mut self.indexes.executors_by_framework,
                framework.as_str(),
                &(agent.clone(), executor.clone()),
            );
            let name = || RowKey::Executor(framework.clone(), agent.clone(), executor.clone());
            self.ledger.removed(&slot, name);
        }
    }

    // ------------------------------------------------------------ operations

    pub(crate) fn put_operation(&mut self, row: Arc<log::OfferOperation>) {
        let uuid: Arc<str> = row.uuid.as_str().into();
        self.take_operation(&uuid);
        table_of(&mut self.indexes.operations_by_agent, &row.agent_id).insert(Arc::clone(&uuid));
        table_of(&mut self.indexes.operations_by_framework, &row.framework_id)
            .insert(Arc::clone(&uuid));
        let (ledger, table) = (&mut self.ledger, &mut self.operations);
        put(ledger, table, uuid, row, RowKey::Operation);
    }

    /// `change` leaves the ids alone.
    pub(crate) fn edit_operation(
        &mut self,
        uuid: &str,
        change: impl FnOnce(&mut log::OfferOperation),
    ) {
        if let Some(slot) = self.operations.get_mut(uuid) {
            let name = || RowKey::Operation(uuid.into());
            self.ledger.edit(slot, name, change);
        }
    }

    pub(crate) fn take_operation(&mut self, uuid: &str) {
        if let Some((uuid, slot)) = self.operations.remove_with_key(uuid) {
            let (agent, framework) = (&slot.row.agent_id, &slot.row.framework_id);
            unindex(&mut self.indexes.operations_by_agent, agent, &uuid);
            unindex(&mut self.indexes.operations_by_framework, framework, &uuid);
            let name = || RowKey::Operation(uuid);
            self.ledger.removed(&slot, name);
        }
    }

    // ------------------------------------------------------------ the operator's settings

    pub(crate) fn put_weight(&mut self, row: Arc<log::Weight>) {
        let role: Arc<str> = row.role.as_str().into();
        let (ledger, table) = (&mut self.ledger, &mut self.weights);
        put(ledger, table, role, row, RowKey::Weight);
    }

    pub(crate) fn take_weight(&mut self, role: &str) {
        if let Some(slot) = self.weights.remove(role) {
            let name = || RowKey::Weight(role.into());
            self.ledger.removed(&slot, name);
        }
    }

    pub(crate) fn put_quota(&mut self, row: Arc<QuotaConfig>) {
        let role: Arc<str> = row.role.as_str().into();
        let (ledger, table) = (&mut self.ledger, &mut self.quotas);
        put(ledger, table, role, row, RowKey::Quota);
    }

    pub(crate) fn take_quota(&mut self, role: &str) {
        if let Some(slot) = self.quotas.remove(role) {
            let name = || RowKey::Quota(role.into());
            self.ledger.removed(&slot, name);
        }
    }

    pub(crate) fn put_maintenance(&mut self, row: Arc<log::SetMaintenance>) {
        let name = || RowKey::Maintenance;
        match &mut self.maintenance {
            Some(slot) => drop(self.ledger.replace(slot, row, name)),
            None => self.maintenance = Some(self.ledger.add(row, name)),
        }
    }
}
