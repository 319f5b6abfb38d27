//! What must hold of every state, for tests and simulations.

use crate::{
    ledger::row_hash,
    state::{
        ClusterState, Indexes, MAX_COMPLETED_FRAMEWORKS, MAX_COMPLETED_TASKS, MAX_UNREACHABLE_TASKS,
    },
};

impl ClusterState {
    /// Checks indexes, rings and the hash against the rows. Costs an encoding of every row.
    ///
    /// # Panics
    /// An invariant does not hold: a mistake in this crate.
    pub fn check_invariants(&self) {
        assert_eq!(self.indexes, self.rebuilt_indexes(), "indexes");
        let completed = self.completed_frameworks().count();
        assert!(completed <= MAX_COMPLETED_FRAMEWORKS, "{completed}");
        for (id, tasks) in &self.tasks {
            assert!(!tasks.is_empty(), "{id}: empty table");
            for (task, slot) in tasks {
                let row = &slot.row;
                assert!(!row.completed, "{id}: {task} is completed");
                assert_eq!(row.unreachable, row.ring_sequence > 0, "{id}: {task}");
            }
            let unreachable = self.unreachable_tasks(id).count();
            assert!(unreachable <= MAX_UNREACHABLE_TASKS, "{id}: {unreachable}");
        }
        for (id, ring) in &self.completed_tasks {
            assert!(!ring.is_empty(), "{id}: empty ring");
            assert!(ring.len() <= MAX_COMPLETED_TASKS, "{id}: {}", ring.len());
            assert!(ring.values().all(|it| it.row.completed), "{id}: live task");
        }
        for (id, commands) in &self.commands {
            let last = self.agent(id).map(|it| it.last_command);
            let newest = commands.get_max().map(|(sequence, _)| *sequence);
            assert!(last >= newest, "{id}: command {newest:?} after {last:?}");
        }
        self.service.check_invariants();
        let mut copy = self.clone();
        let sum = self
            .keys()
            .iter()
            .map(|key| {
                let slot = self.slot(key).expect("a key of this state");
                row_hash(key, &slot.encode())
            })
            .fold(0, u64::wrapping_add);
        assert_eq!(copy.hash(), sum, "hash");
    }

    fn rebuilt_indexes(&self) -> Indexes {
        let mut indexes = Indexes::default();
        for (framework, slot) in &self.frameworks {
            if slot.row.completed {
                let place = slot.row.ring_sequence;
                indexes
                    .completed_frameworks
                    .insert(place, framework.clone());
            }
        }
        for (framework, task, row) in self.tasks() {
            let agent = row.agent_id.as_str().into();
            let tasks = indexes.tasks_by_agent.entry(agent).or_default();
            tasks.insert((framework.clone(), task.clone()));
            if row.unreachable {
                let ring = indexes.unreachable_tasks.entry(framework.clone());
                ring.or_default().insert(row.ring_sequence, task.clone());
            }
        }
        for (agent, executors) in &self.executors {
            for (framework, executor) in executors.keys() {
                let index = indexes.executors_by_framework.entry(framework.clone());
                index.or_default().insert((agent.clone(), executor.clone()));
            }
        }
        for (uuid, slot) in &self.operations {
            let agent = slot.row.agent_id.as_str().into();
            let index = indexes.operations_by_agent.entry(agent);
            index.or_default().insert(uuid.clone());
            let framework = slot.row.framework_id.as_str().into();
            let index = indexes.operations_by_framework.entry(framework);
            index.or_default().insert(uuid.clone());
        }
        indexes
    }
}
