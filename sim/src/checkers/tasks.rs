//! What was asked for: every task that a framework launched, what it was answered, and what
//! befell the agents in between.

use crate::{clock::SECOND, plan::Shape, workload::TaskPlan};
use std::collections::BTreeMap;

/// What a framework knows about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// None came (yet).
    None,
    /// 202.
    Accepted,
    /// It was not taken.
    Refused,
}

/// A task as it was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What.
    pub plan: TaskPlan,
    /// The framework's id when it asked.
    pub framework_id: String,
    /// When.
    pub at: u64,
    /// What the master said to the ACCEPT.
    pub answer: Answer,
    /// Somebody, at some time, asked to end it.
    pub kill: bool,
    /// ... and was told that this was taken.
    pub kill_taken: bool,
    /// Its launch is in the log.
    pub logged: bool,
    /// Masters may have forgotten it since.
    pub forgotten: bool,
    /// No master may launch it: the framework asked for what it was not offered.
    pub wrong: bool,
    /// The same ACCEPT names it once more, which is refused with TASK_ERROR.
    pub twice: bool,
}

#[derive(Clone, Debug, Default)]
struct AgentLog {
    // When a frame of it last reached a leader.
    contact: u64,
    // Ends and lengths of silences.
    silences: Vec<(u64, u64)>,
    // Boots, wipes, exits, and what operators did to it.
    troubles: Vec<u64>,
    // Somebody drained it or marked it gone.
    condemned: bool,
    // It became somebody else.
    renamed: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Tasks {
    asked: BTreeMap<String, Asked>,
    agents: Vec<AgentLog>,
    // When a framework was removed, by its id.
    removed: BTreeMap<String, u64>,
    // An agent may be called unreachable after this much silence, with clocks as they are.
    patience: u64,
}

impl Tasks {
    pub(super) fn new(shape: &Shape) -> Tasks {
        let timing = shape.timing;
        let patience = (timing.ping * u64::from(timing.pings)).min(timing.reregister);
        // Clocks may run this much too fast and leap; the rest is the way there and back.
        let drift = 2 * shape.drift.unsigned_abs().max(SECOND / 1000);
        let patience = patience - (patience as u128 * drift as u128 / SECOND as u128) as u64;
        Tasks {
            asked: BTreeMap::new(),
            agents: vec![AgentLog::default(); shape.agents],
            removed: BTreeMap::new(),
            patience: patience.saturating_sub(4 * SECOND),
        }
    }

    /// A framework asks for a task.
    pub fn ask(&mut self, now: u64, framework_id: &str, plan: TaskPlan) {
        let asked = Asked {
            framework_id: framework_id.to_owned(),
            at: now,
            answer: Answer::None,
            kill: false,
            kill_taken: false,
            logged: false,
            forgotten: false,
            wrong: false,
            twice: false,
            plan,
        };
        self.asked.insert(asked.plan.id.clone(), asked);
    }

    /// ... for which it was not offered enough.
    pub fn is_wrong(&mut self, task: &str) {
        if let Some(it) = self.asked.get_mut(task) {
            it.wrong = true;
        }
    }

    /// ... and asks for the same one again at once.
    pub fn is_asked_twice(&mut self, task: &str) {
        if let Some(it) = self.asked.get_mut(task) {
            it.twice = true;
        }
    }

    /// ... and was answered.
    pub fn answer(&mut self, task: &str, answer: Answer) {
        if let Some(it) = self.asked.get_mut(task) {
            it.answer = answer;
        }
    }

    /// Somebody asks for the end of a task.
    pub fn kill(&mut self, task: &str) {
        if let Some(it) = self.asked.get_mut(task) {
            it.kill = true;
        }
    }

    /// ... and was told that this was taken.
    pub fn kill_taken(&mut self, task: &str) {
        // A KILL of what nobody knows any more, or not yet again, ends nothing.
        if let Some(it) = self.asked.get_mut(task).filter(|it| !it.forgotten) {
            it.kill_taken = true;
        }
    }

    /// A framework hears that a task may be lost: a KILL of one that is away ends nothing, as in
    /// Mesos, and has to be sent again when the task is back.
    pub fn kill_void(&mut self, task: &str) {
        if let Some(it) = self.asked.get_mut(task) {
            it.kill_taken = false;
        }
    }

    /// The launch of a task was committed.
    pub fn logged(&mut self, task: &str) -> Result<(), String> {
        match self.asked.get_mut(task) {
            Some(it) if it.wrong => Err(format!(
                "task {task} is launched, and needs more than its framework was offered"
            )),
            Some(it) if !it.logged => {
                it.logged = true;
                Ok(())
            }
            Some(_) => Err(format!("the launch of task {task} is in the log twice")),
            None => Err(format!("task {task} is in the log and nobody asked for it")),
        }
    }

    /// All tasks of a framework may be killed.
    pub fn kill_all(&mut self, framework: usize) {
        for it in self.asked.values_mut() {
            it.kill |= it.plan.framework == framework;
        }
    }

    /// Whether anybody may have asked for the end of a task.
    pub fn may_kill(&self, asked: &Asked) -> bool {
        let agent = self.agents.get(asked.plan.agent);
        asked.kill || agent.is_none_or(|it| it.condemned)
    }

    /// What a task is.
    pub fn plan(&self, task: &str) -> Option<TaskPlan> {
        self.asked.get(task).map(|it| it.plan.clone())
    }

    /// A task as it was asked for.
    pub fn get(&self, task: &str) -> Option<&Asked> {
        self.asked.get(task)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Asked> {
        self.asked.values()
    }

    /// How many were asked for.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// Whether none was asked for.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    // ------------------------------------------------------------ frameworks

    /// A framework's id is refused from now on, or may be at any time.
    pub fn framework_removed(&mut self, now: u64, framework_id: &str) {
        self.removed.entry(framework_id.to_owned()).or_insert(now);
    }

    /// Whether a framework of this id is no more.
    pub fn is_removed(&self, framework_id: &str) -> bool {
        self.removed.contains_key(framework_id)
    }

    // ------------------------------------------------------------ agents

    /// A frame of an agent reached a leader.
    pub fn contact(&mut self, now: u64, agent: usize) {
        let patience = self.patience;
        if let Some(it) = self.agents.get_mut(agent) {
            let silence = now - it.contact;
            if silence >= patience {
                it.silences.push((now, silence));
            }
            it.contact = now;
        }
    }

    fn trouble(&mut self, agent: usize, now: u64) {
        if let Some(it) = self.agents.get_mut(agent) {
            it.troubles.push(now);
        }
    }

    /// What masters knew of tasks may be forgotten.
    pub fn forgotten(&mut self) {
        for it in self.asked.values_mut() {
            it.logged = false;
            it.forgotten = true;
            it.kill_taken = false;
        }
    }

    /// An agent's machine was booted.
    pub fn rebooted(&mut self, agent: usize) {
        self.trouble(agent, 0);
    }

    /// An agent's work folder was deleted.
    pub fn wiped(&mut self, agent: usize) {
        self.trouble(agent, 0);
    }

    /// An agent has ended for good, and comes back as somebody else.
    pub fn left(&mut self, agent: usize) {
        self.trouble(agent, 0);
        if let Some(it) = self.agents.get_mut(agent) {
            it.renamed = true;
        }
    }

    /// Whether an agent was somebody else before, of whom data may be left on its disk.
    pub fn was_renamed(&self, agent: usize) -> bool {
        self.agents.get(agent).is_some_and(|it| it.renamed)
    }

    /// An operator drains an agent or marks it gone.
    pub fn condemned(&mut self, agent: usize) {
        self.trouble(agent, 0);
        if let Some(it) = self.agents.get_mut(agent) {
            it.condemned = true;
        }
    }

    /// Whether tasks on an agent may have been lost since `since`.
    pub fn may_lose(&self, now: u64, agent: usize, since: u64) -> bool {
        let Some(it) = self.agents.get(agent) else {
            return true;
        };
        let silent = it.silences.iter().any(|(end, _)| *end >= since);
        silent || now - it.contact >= self.patience || !it.troubles.is_empty()
    }
}
