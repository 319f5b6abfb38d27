//! Every task has one life at most, and lives on resources that nobody else has at that time.

use super::tasks::Tasks;
use crate::{
    agent::{CPUS, MEM},
    workload::{EXECUTOR_CPUS, EXECUTOR_MEM},
};
use std::collections::{BTreeMap, BTreeSet};

/// How a task lived.
#[derive(Clone, Debug)]
pub struct Life {
    /// On which agent.
    pub agent: usize,
    /// In which container.
    pub container: String,
    /// Success and whether it was killed; `None` while it lives.
    pub ended: Option<(bool, bool)>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Lives {
    // The container that each task was launched in.
    launched: BTreeMap<String, (usize, String)>,
    lives: BTreeMap<String, Life>,
    living: BTreeMap<usize, BTreeSet<String>>,
    // Executors that live on each agent, with their frameworks.
    executors: BTreeMap<usize, BTreeMap<String, String>>,
}

impl Lives {
    /// An agent launches a container for a task.
    pub fn launched(
        &mut self,
        agent: usize,
        framework_id: &str,
        task: &str,
        container: &str,
    ) -> Result<(), String> {
        let _ = framework_id;
        let launched = (agent, container.to_owned());
        match self.launched.get(task) {
            Some(before) if *before != launched => Err(format!(
                "task {task} is launched as {container} on agent {agent}, and was as {} on agent {}",
                before.1, before.0
            )),
            _ => {
                self.launched.insert(task.to_owned(), launched);
                Ok(())
            }
        }
    }

    /// Its container has come up.
    pub fn began(
        &mut self,
        _now: u64,
        agent: usize,
        task: &str,
        container: &str,
        tasks: &Tasks,
    ) -> Result<(), String> {
        let Some(asked) = tasks.get(task) else {
            return Err(format!("task {task} runs and nobody asked for it"));
        };
        if asked.plan.agent != agent {
            return Err(format!(
                "task {task} runs on agent {agent}, and was for agent {}",
                asked.plan.agent
            ));
        }
        if let Some(life) = self.lives.get(task) {
            return Err(format!(
                "task {task} runs again as {container}; it ran as {} on agent {}",
                life.container, life.agent
            ));
        }
        let life = Life {
            agent,
            container: container.to_owned(),
            ended: None,
        };
        self.lives.insert(task.to_owned(), life);
        let living = self.living.entry(agent).or_default();
        living.insert(task.to_owned());
        let executors = self.executors.get(&agent).into_iter().flatten();
        let executors = executors.filter(|(_, of)| !tasks.is_removed(of)).count() as i64;
        let (mut cpus, mut mem) = (executors * EXECUTOR_CPUS, executors * EXECUTOR_MEM);
        let mut ports = BTreeSet::new();
        for other in living.iter() {
            // As in Mesos, what a removed framework held is free at once, and its tasks die as
            // soon as their agent hears of it.
            let Some(it) = tasks
                .get(other)
                .filter(|it| !tasks.is_removed(&it.framework_id))
            else {
                continue;
            };
            cpus += it.plan.cpus;
            mem += it.plan.mem;
            if let Some(port) = it.plan.port
                && !ports.insert(port)
            {
                return Err(format!(
                    "port {port} of agent {agent} is used twice by {living:?}"
                ));
            }
        }
        if cpus > CPUS * 1000 || mem > MEM {
            return Err(format!(
                "agent {agent} has {CPUS} cpus and {MEM} MB, and {cpus} millicpus and {mem} MB \
                 are used by {living:?}"
            ));
        }
        Ok(())
    }

    /// An executor is started for a task.
    pub fn executor_began(&mut self, agent: usize, framework_id: &str, executor: &str) {
        let living = self.executors.entry(agent).or_default();
        living.insert(executor.to_owned(), framework_id.to_owned());
    }

    /// ... and has ended.
    pub fn executor_ended(&mut self, agent: usize, executor: &str) {
        if let Some(living) = self.executors.get_mut(&agent) {
            living.remove(executor);
        }
    }

    /// Executors that live on an agent, with their frameworks.
    pub fn executors_on(&self, agent: usize) -> BTreeMap<String, String> {
        self.executors.get(&agent).cloned().unwrap_or_default()
    }

    /// Executors that live.
    pub fn executors(&self) -> usize {
        self.executors.values().map(BTreeMap::len).sum()
    }

    /// A container that ran has ended.
    pub fn ended(&mut self, agent: usize, task: &str, success: bool, killed: bool) {
        if let Some(life) = self.lives.get_mut(task) {
            life.ended = life.ended.or(Some((success, killed)));
        }
        if let Some(living) = self.living.get_mut(&agent) {
            living.remove(task);
        }
    }

    /// How a task lived, if it ever did.
    pub fn get(&self, task: &str) -> Option<&Life> {
        self.lives.get(task)
    }

    /// Tasks that live on an agent.
    pub fn on(&self, agent: usize) -> impl Iterator<Item = &String> {
        self.living.get(&agent).into_iter().flatten()
    }

    /// Tasks that ever lived.
    pub fn len(&self) -> usize {
        self.lives.len()
    }

    /// Whether no task ever lived.
    pub fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }
}
