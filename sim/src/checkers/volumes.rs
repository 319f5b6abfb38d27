//! Persistent data is made when somebody asked for it, and destroyed by DESTROY alone.

use super::tasks::Tasks;
use std::collections::{BTreeMap, BTreeSet};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Volumes {
    asked: BTreeSet<String>,
    unasked: BTreeSet<String>,
    shared: BTreeSet<String>,
    // Tasks that live on each. An agent that comes to a cluster without memory may bring one whose
    // name is used again elsewhere.
    living: BTreeMap<(usize, String), BTreeSet<String>>,
    // Folders by agent, with the tasks that wrote into them.
    folders: BTreeMap<usize, BTreeMap<String, Vec<String>>>,
}

impl Volumes {
    /// Somebody sends a CREATE.
    pub fn create(&mut self, volume: &str, shared: bool) {
        if shared {
            self.shared.insert(volume.to_owned());
        }
        self.asked.insert(volume.to_owned());
    }

    /// Somebody sends a DESTROY.
    pub fn destroy(&mut self, volume: &str) {
        self.unasked.insert(volume.to_owned());
    }

    /// The agent made the folder, or found it there.
    pub fn made(&mut self, agent: usize, volume: &str) -> Result<(), String> {
        if !self.asked.contains(volume) {
            return Err(format!("volume {volume} is made and nobody asked for it"));
        }
        let folders = self.folders.entry(agent).or_default();
        folders.entry(volume.to_owned()).or_default();
        Ok(())
    }

    /// The agent deleted the folder.
    pub fn destroyed(&mut self, agent: usize, volume: &str, tasks: &Tasks) -> Result<(), String> {
        if !self.unasked.contains(volume) {
            return Err(format!("volume {volume} is destroyed without DESTROY"));
        }
        let living = self.on_volume(agent, volume, tasks);
        if !living.is_empty() {
            return Err(format!(
                "volume {volume} is destroyed while tasks {living:?} are on it"
            ));
        }
        self.folders.entry(agent).or_default().remove(volume);
        Ok(())
    }

    /// Tasks that live on it. As in Mesos, what a removed framework held is free at once, and its
    /// tasks die as soon as their agent hears of it.
    fn on_volume(&self, agent: usize, volume: &str, tasks: &Tasks) -> Vec<&str> {
        let is_removed = |task: &str| {
            let asked = tasks.get(task);
            asked.is_some_and(|it| tasks.is_removed(&it.framework_id))
        };
        let living = self.living.get(&(agent, volume.to_owned()));
        let living = living.into_iter().flatten();
        let living = living.map(String::as_str);
        living.filter(|it| !is_removed(it)).collect()
    }

    /// A task that was on a volume has ended.
    pub fn left(&mut self, task: &str) {
        for tasks in self.living.values_mut() {
            tasks.remove(task);
        }
    }

    /// A task starts on the volume.
    pub fn used(
        &mut self,
        agent: usize,
        volume: &str,
        task: &str,
        tasks: &Tasks,
    ) -> Result<(), String> {
        let folder = self.folders.entry(agent).or_default().get_mut(volume);
        match folder {
            None => Err(format!(
                "task {task} starts on volume {volume}, which is not on agent {agent}"
            )),
            Some(folder) => {
                folder.push(task.to_owned());
                let living = self.living.entry((agent, volume.to_owned())).or_default();
                living.insert(task.to_owned());
                let living = self.on_volume(agent, volume, tasks);
                match living.len() > 1 && !self.shared.contains(volume) {
                    true => Err(format!(
                        "tasks {living:?} are on volume {volume}, which is not shared"
                    )),
                    false => Ok(()),
                }
            }
        }
    }

    /// Everything on the agent is gone.
    pub fn wiped(&mut self, agent: usize) {
        self.folders.remove(&agent);
    }

    /// Volumes that are on the agent's disk.
    pub fn on(&self, agent: usize) -> Vec<String> {
        let folders = self.folders.get(&agent);
        folders.map_or_else(Vec::new, |it| it.keys().cloned().collect())
    }

    /// Whether a DESTROY of it was ever sent.
    pub fn may_be_gone(&self, volume: &str) -> bool {
        self.unasked.contains(volume)
    }
}
