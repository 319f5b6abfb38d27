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
    ledger::Slot,
    state::{ClusterState, MAX_COMPLETED_TASKS, MAX_UNREACHABLE_TASKS},
    table::{Set, Table},
};

// Puts a row into a table and returns the one it replaces.
fn put<K: Ord + Clone, V: Clone>(
    table: &mut Table<K, Slot<V>>,
    key: K,
    row: Arc<V>,
) -> Option<Slot<V>> {
    table.insert(key, Slot::new(row))
}

// Takes a row out of a nested table, and the inner table with its last row.
fn take<A: Ord + Clone, B: Ord + Clone, V: Clone>(
    table: &mut Table<A, Table<B, Slot<V>>>,
    outer: &A,
    inner: &B,
) -> Option<Slot<V>> {
    let rows = table.get_mut(outer)?;
    let slot = rows.remove(inner);
    if rows.is_empty() {
        table.remove(outer);
    }
    slot
}

fn unindex<A: Ord + Clone, B: Ord + Clone>(index: &mut Table<A, Set<B>>, outer: &A, inner: &B) {
    if let Some(set) = index.get_mut(outer) {
        set.remove(inner);
        if set.is_empty() {
            index.remove(outer);
        }
    }
}

// The place after the newest one of a ring. Rings lose rows at the old end alone while they
// fill, so places are not used twice within what anybody can still see.
fn next_place<V>(ring: Option<&Table<u64, V>>) -> u64 {
    ring.and_then(|it| it.get_max())
        .map_or(1, |(place, _)| place.saturating_add(1))
}

impl ClusterState {
    pub(crate) fn edit_cluster(&mut self, change: impl FnOnce(&mut log::Cluster)) {
        let old = self.cluster.edit(change);
        self.ledger.changed(RowKey::Cluster, old);
    }

    pub(crate) fn put_cluster(&mut self, row: Arc<log::Cluster>) {
        let old = std::mem::replace(&mut self.cluster, Slot::new(row));
        self.ledger.changed(RowKey::Cluster, old.hash());
    }

    // ------------------------------------------------------------ agents

    /// Says whether the agent is new.
    pub(crate) fn put_agent(&mut self, id: AgentId, row: Arc<log::Agent>) -> bool {
        let old = put(&mut self.agents, id.clone(), row);
        let new = old.is_none();
        self.ledger
            .changed(RowKey::Agent(id), old.and_then(|it| it.hash()));
        new
    }

    pub(crate) fn edit_agent(&mut self, id: &AgentId, change: impl FnOnce(&mut log::Agent)) {
        if let Some(slot) = self.agents.get_mut(id) {
            let old = slot.edit(change);
            self.ledger.changed(RowKey::Agent(id.clone()), old);
        }
    }

    pub(crate) fn take_agent(&mut self, id: &AgentId) {
        if let Some(slot) = self.agents.remove(id) {
            self.ledger.removed(RowKey::Agent(id.clone()), slot.hash());
        }
    }

    pub(crate) fn put_command(&mut self, agent: AgentId, row: Arc<log::Command>) {
        let sequence = row.sequence;
        let table = self.commands.entry(agent.clone()).or_default();
        let old = put(table, sequence, row);
        self.ledger.changed(
            RowKey::Command(agent, sequence),
            old.and_then(|it| it.hash()),
        );
    }

    /// Drops the agent's commands up to and including `up_to`.
    pub(crate) fn take_commands(&mut self, agent: &AgentId, up_to: u64) {
        let Some(table) = self.commands.get_mut(agent) else {
            return;
        };
        let done: Vec<u64> = table.range(..=up_to).map(|(it, _)| *it).collect();
        for sequence in done {
            if let Some(slot) = table.remove(&sequence) {
                let key = RowKey::Command(agent.clone(), sequence);
                self.ledger.removed(key, slot.hash());
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
        let old = put(&mut self.frameworks, id.clone(), row);
        let ring = &mut self.indexes.completed_frameworks;
        if let Some(old) = &old
            && old.row.completed
        {
            ring.remove(&old.row.ring_sequence);
        }
        if completed {
            ring.insert(place, id.clone());
        }
        let new = old.is_none();
        self.ledger
            .changed(RowKey::Framework(id), old.and_then(|it| it.hash()));
        new
    }

    /// `change` leaves `completed` and `ring_sequence` alone.
    pub(crate) fn edit_framework(
        &mut self,
        id: &FrameworkId,
        change: impl FnOnce(&mut log::Framework),
    ) {
        if let Some(slot) = self.frameworks.get_mut(id) {
            let old = slot.edit(change);
            self.ledger.changed(RowKey::Framework(id.clone()), old);
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
            self.ledger
                .removed(RowKey::Framework(id.clone()), slot.hash());
        }
    }

    /// An id for keys, shared with the framework's own row: tasks have theirs in several.
    fn framework_id(&self, id: &str) -> FrameworkId {
        let id = FrameworkId::from(id);
        match self.frameworks.get_key_value(&id) {
            Some((known, _)) => known.clone(),
            None => id,
        }
    }

    // ------------------------------------------------------------ tasks

    pub(crate) fn put_task(&mut self, row: Arc<log::Task>) {
        let framework = self.framework_id(&row.framework_id);
        let task = TaskId::from(row.task_id.as_str());
        self.take_task(&framework, &task);
        self.indexes
            .tasks_by_agent
            .entry(row.agent_id.as_str().into())
            .or_default()
            .insert((framework.clone(), task.clone()));
        if row.unreachable {
            self.indexes
                .unreachable_tasks
                .entry(framework.clone())
                .or_default()
                .insert(row.ring_sequence, task.clone());
        }
        let table = self.tasks.entry(framework.clone()).or_default();
        put(table, task.clone(), row);
        self.ledger.changed(RowKey::Task(framework, task), None);
    }

    /// `change` leaves the ids, `unreachable` and `ring_sequence` alone.
    pub(crate) fn edit_task(
        &mut self,
        framework: &FrameworkId,
        task: &TaskId,
        change: impl FnOnce(&mut log::Task),
    ) {
        let tasks = self.tasks.get_mut(framework);
        if let Some(slot) = tasks.and_then(|it| it.get_mut(task)) {
            let old = slot.edit(change);
            let key = RowKey::Task(framework.clone(), task.clone());
            self.ledger.changed(key, old);
        }
    }

    /// Moves a task into the framework's ring of unreachable tasks, whose oldest is forgotten
    /// when it is full, or out of it.
    pub(crate) fn set_unreachable(&mut self, framework: &FrameworkId, task: &TaskId, to: bool) {
        let Some(row) = self.task(framework, task) else {
            return;
        };
        if row.unreachable == to {
            return;
        }
        let place = match to {
            true => next_place(self.indexes.unreachable_tasks.get(framework)),
            false => 0,
        };
        let mut row = Arc::clone(row);
        let changed = Arc::make_mut(&mut row);
        changed.unreachable = to;
        changed.ring_sequence = place;
        self.put_task(row);
        while let Some(ring) = self.indexes.unreachable_tasks.get(framework)
            && ring.len() > MAX_UNREACHABLE_TASKS
            && let Some((_, oldest)) = ring.get_min()
        {
            let oldest = oldest.clone();
            self.take_task(framework, &oldest);
        }
    }

    pub(crate) fn take_task(
        &mut self,
        framework: &FrameworkId,
        task: &TaskId,
    ) -> Option<Arc<log::Task>> {
        let slot = take(&mut self.tasks, framework, task)?;
        let key = (framework.clone(), task.clone());
        let agent = AgentId::from(slot.row.agent_id.as_str());
        unindex(&mut self.indexes.tasks_by_agent, &agent, &key);
        if slot.row.unreachable
            && let Some(ring) = self.indexes.unreachable_tasks.get_mut(framework)
        {
            ring.remove(&slot.row.ring_sequence);
            if ring.is_empty() {
                self.indexes.unreachable_tasks.remove(framework);
            }
        }
        self.ledger.removed(RowKey::Task(key.0, key.1), slot.hash());
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
        let old = put(table, place, row);
        self.ledger.changed(
            RowKey::CompletedTask(framework, place),
            old.and_then(|it| it.hash()),
        );
    }

    pub(crate) fn take_completed_task(&mut self, framework: &FrameworkId, place: u64) {
        if let Some(slot) = take(&mut self.completed_tasks, framework, &place) {
            let key = RowKey::CompletedTask(framework.clone(), place);
            self.ledger.removed(key, slot.hash());
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
        let old = put(table, (framework.clone(), executor.clone()), row);
        self.ledger.changed(
            RowKey::Executor(framework, agent, executor),
            old.and_then(|it| it.hash()),
        );
    }

    pub(crate) fn take_executor(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        executor: &ExecutorId,
    ) {
        let key = (framework.clone(), executor.clone());
        if let Some(slot) = take(&mut self.executors, agent, &key) {
            unindex(
                &mut self.indexes.executors_by_framework,
                framework,
                &(agent.clone(), executor.clone()),
            );
            let key = RowKey::Executor(key.0, agent.clone(), key.1);
            self.ledger.removed(key, slot.hash());
        }
    }

    // ------------------------------------------------------------ operations

    pub(crate) fn put_operation(&mut self, row: Arc<log::OfferOperation>) {
        let uuid: Arc<str> = row.uuid.as_str().into();
        self.take_operation(&uuid);
        self.indexes
            .operations_by_agent
            .entry(row.agent_id.as_str().into())
            .or_default()
            .insert(Arc::clone(&uuid));
        self.indexes
            .operations_by_framework
            .entry(row.framework_id.as_str().into())
            .or_default()
            .insert(Arc::clone(&uuid));
        put(&mut self.operations, Arc::clone(&uuid), row);
        self.ledger.changed(RowKey::Operation(uuid), None);
    }

    /// `change` leaves the ids alone.
    pub(crate) fn edit_operation(
        &mut self,
        uuid: &str,
        change: impl FnOnce(&mut log::OfferOperation),
    ) {
        if let Some(slot) = self.operations.get_mut(uuid) {
            let old = slot.edit(change);
            self.ledger.changed(RowKey::Operation(uuid.into()), old);
        }
    }

    pub(crate) fn take_operation(&mut self, uuid: &str) {
        if let Some((uuid, slot)) = self.operations.remove_with_key(uuid) {
            let agent = AgentId::from(slot.row.agent_id.as_str());
            let framework = FrameworkId::from(slot.row.framework_id.as_str());
            unindex(&mut self.indexes.operations_by_agent, &agent, &uuid);
            unindex(&mut self.indexes.operations_by_framework, &framework, &uuid);
            self.ledger.removed(RowKey::Operation(uuid), slot.hash());
        }
    }

    // ------------------------------------------------------------ the operator's settings

    pub(crate) fn put_weight(&mut self, row: Arc<log::Weight>) {
        let role: Arc<str> = row.role.as_str().into();
        let old = put(&mut self.weights, Arc::clone(&role), row);
        self.ledger
            .changed(RowKey::Weight(role), old.and_then(|it| it.hash()));
    }

    pub(crate) fn take_weight(&mut self, role: &str) {
        if let Some(slot) = self.weights.remove(role) {
            self.ledger
                .removed(RowKey::Weight(role.into()), slot.hash());
        }
    }

    pub(crate) fn put_quota(&mut self, row: Arc<QuotaConfig>) {
        let role: Arc<str> = row.role.as_str().into();
        let old = put(&mut self.quotas, Arc::clone(&role), row);
        self.ledger
            .changed(RowKey::Quota(role), old.and_then(|it| it.hash()));
    }

    pub(crate) fn take_quota(&mut self, role: &str) {
        if let Some(slot) = self.quotas.remove(role) {
            self.ledger.removed(RowKey::Quota(role.into()), slot.hash());
        }
    }

    pub(crate) fn put_maintenance(&mut self, row: Arc<log::SetMaintenance>) {
        let old = self.maintenance.replace(Slot::new(row));
        self.ledger
            .changed(RowKey::Maintenance, old.and_then(|it| it.hash()));
    }
}
