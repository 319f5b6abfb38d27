//! Every status update is acknowledged once and in order, none is invented, none contradicts what
//! happened or what was said before.

use super::{lives::Lives, tasks::Tasks};
use crate::trace::bytes_hash;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use tepui_model::{
    link::{self, record::Kind},
    wire::{self, TaskState, task_status::Reason},
};

#[derive(Debug)]
struct Sent {
    task: String,
    state: TaskState,
    // Its place in the stream of the task on this agent.
    place: usize,
    hash: u64,
}

#[derive(Debug, Default)]
struct Stream {
    appended: usize,
    popped: usize,
    order: Vec<Bytes>,
}

#[derive(Debug, Default)]
struct Heard {
    // A terminal state that the agent itself reported.
    ended: Option<TaskState>,
    newest: Option<TaskState>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Updates {
    sent: BTreeMap<Bytes, Sent>,
    streams: BTreeMap<(usize, String), Stream>,
    // Acknowledged by the framework.
    acknowledged: BTreeSet<Bytes>,
    heard: BTreeMap<String, Heard>,
    // A pop that nobody acknowledged, told at the next look.
    wrong: Option<String>,
    told: u64,
    states: BTreeMap<&'static str, u64>,
}

/// Frameworks that make no sense ask about tasks with names that begin like this.
pub const NO_TASK: &str = "no task";

/// Whether a task in this state will never run again.
pub fn ends(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::TaskFinished
            | TaskState::TaskFailed
            | TaskState::TaskKilled
            | TaskState::TaskError
            | TaskState::TaskLost
            | TaskState::TaskDropped
            | TaskState::TaskGone
            | TaskState::TaskGoneByOperator
    )
}

/// What a framework that does not know of partitions sees.
fn plain(state: TaskState) -> TaskState {
    match state {
        TaskState::TaskDropped
        | TaskState::TaskUnreachable
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator
        | TaskState::TaskUnknown => TaskState::TaskLost,
        it => it,
    }
}

impl Updates {
    /// A record is on an agent's disk.
    pub fn recorded(&mut self, agent: usize, record: &link::Record) {
        match &record.kind {
            Some(Kind::Task(it)) => {
                let key = (agent, it.task_id.clone());
                self.streams.insert(key, Stream::default());
            }
            Some(Kind::AppendUpdate(it)) => {
                let status =
                    wire::TaskStatus::decode(it.status_payload.clone()).unwrap_or_default();
                let stream = self.streams.entry((agent, it.task_id.clone())).or_default();
                let uuid = status.uuid.clone().unwrap_or_default();
                stream.order.push(uuid.clone());
                let sent = Sent {
                    task: it.task_id.clone(),
                    state: status.state(),
                    place: stream.appended,
                    hash: bytes_hash(&it.status_payload),
                };
                stream.appended += 1;
                self.sent.insert(uuid, sent);
            }
            Some(Kind::PopUpdate(it)) => {
                let stream = self.streams.entry((agent, it.task_id.clone())).or_default();
                let uuid = stream.order.get(stream.popped).cloned().unwrap_or_default();
                stream.popped += 1;
                if !self.acknowledged.contains(&uuid) {
                    let task = &it.task_id;
                    let framework = &it.framework_id;
                    self.wrong.get_or_insert(format!(
                        "agent {agent} drops an update of task {task} that framework {framework} \
                         did not acknowledge"
                    ));
                }
            }
            _ => {}
        }
    }

    /// What was noticed between two looks; `removed` says which frameworks never answer.
    pub fn look(&mut self, tasks: &Tasks) -> Result<(), String> {
        match self.wrong.take() {
            Some(text) => {
                let gone = tasks.iter().any(|it| {
                    tasks.is_removed(&it.framework_id) && text.contains(&it.framework_id)
                });
                match gone {
                    true => Ok(()),
                    false => Err(text),
                }
            }
            None => Ok(()),
        }
    }

    /// Masters may tell of tasks what they knew when a backup was made.
    pub fn forgotten(&mut self) {
        for it in self.heard.values_mut() {
            it.ended = None;
        }
    }

    /// A framework sends an acknowledgement.
    pub fn acknowledge(&mut self, uuid: &Bytes) {
        self.acknowledged.insert(uuid.clone());
    }

    /// A framework is told about a task.
    pub fn told(
        &mut self,
        now: u64,
        framework: usize,
        status: &wire::TaskStatus,
        tasks: &Tasks,
        lives: &Lives,
    ) -> Result<(), String> {
        self.told += 1;
        let task = &status.task_id.value;
        let Ok(state) = TaskState::try_from(status.state) else {
            return Err(format!("task {task} is in state {}", status.state));
        };
        if task.starts_with(NO_TASK) && (ends(state) || state == TaskState::TaskUnknown) {
            // Somebody asked about what never was, and is told so.
            return Ok(());
        }
        let Some(asked) = tasks.get(task) else {
            return Err(format!(
                "framework {framework} hears of task {task}, which nobody asked for"
            ));
        };
        if asked.plan.framework != framework {
            return Err(format!(
                "framework {framework} hears of another one's task {task}"
            ));
        }
        if asked.twice && state == TaskState::TaskError {
            // Of the second one.
            return Ok(());
        }
        if let Some(uuid) = status.uuid.clone().filter(|it| !it.is_empty()) {
            self.agent_said(task, state, &uuid)?;
        }
        let life = lives.get(task);
        let reason = status.reason.and_then(|it| Reason::try_from(it).ok());
        let wrong = |why: &str| {
            Err(format!(
                "task {task} is said to be {} ({reason:?}), {why}; it lived: {life:?}",
                state.as_str_name()
            ))
        };
        match state {
            TaskState::TaskStarting | TaskState::TaskRunning if life.is_none() => {
                return wrong("and never ran");
            }
            TaskState::TaskFinished
                if life
                    .and_then(|it| it.ended)
                    .is_none_or(|(success, _)| !success) =>
            {
                return wrong("and did not succeed");
            }
            TaskState::TaskFailed => {
                let ended = life.map(|it| it.ended);
                if matches!(ended, Some(None)) {
                    return wrong("and runs");
                }
            }
            TaskState::TaskKilled | TaskState::TaskKilling if !tasks.may_kill(asked) => {
                return wrong("and nobody asked for that");
            }
            TaskState::TaskLost
            | TaskState::TaskGone
            | TaskState::TaskDropped
            | TaskState::TaskUnreachable
            | TaskState::TaskGoneByOperator
                if life.is_some_and(|it| it.ended.is_none())
                    && !tasks.may_lose(now, asked.plan.agent, asked.at) =>
            {
                return wrong("runs, and its agent was there all the time");
            }
            _ => {}
        }
        let forgotten = matches!(
            state,
            TaskState::TaskUnknown | TaskState::TaskGone | TaskState::TaskLost
        ) && reason == Some(Reason::Reconciliation)
            && asked.logged
            && !self.sent.iter().any(|(uuid, it)| {
                // That is its end, or the framework knows another one and has said so.
                let is_this = it.state == state || plain(it.state) == state;
                let is_over = is_this || self.acknowledged.contains(uuid);
                it.task == *task && ends(it.state) && is_over
            })
            && self.heard.get(task).is_none_or(|it| it.ended.is_none())
            && !tasks.may_lose(now, asked.plan.agent, asked.at);
        if forgotten {
            return wrong("and its launch is in the log, and its end was never told");
        }
        *self.states.entry(state.as_str_name()).or_default() += 1;
        let heard = self.heard.entry(task.clone()).or_default();
        if let Some(ended) = heard.ended
            && !ends(state)
            && !matches!(state, TaskState::TaskUnknown | TaskState::TaskUnreachable)
        {
            return wrong(&format!("and was {} before", ended.as_str_name()));
        }
        let from_agent = status.uuid.as_ref().is_some_and(|it| !it.is_empty());
        if ends(state) && from_agent {
            heard.ended = Some(state);
        }
        heard.newest = Some(state);
        Ok(())
    }

    fn agent_said(&mut self, task: &str, state: TaskState, uuid: &Bytes) -> Result<(), String> {
        let Some(sent) = self.sent.get(uuid) else {
            return Err(format!(
                "an update of task {task} ({}) is on no agent's disk",
                state.as_str_name()
            ));
        };
        if sent.task != task || (sent.state != state && plain(sent.state) != state) {
            return Err(format!(
                "an update of task {task} came as {} and was sent as {} of task {}",
                state.as_str_name(),
                sent.state.as_str_name(),
                sent.task
            ));
        }
        let _ = sent.hash;
        // The stream stops until an update is acknowledged.
        let skipped = self
            .streams
            .iter()
            .filter(|((_, of), _)| of == task)
            .flat_map(|(_, stream)| stream.order.iter().take(sent.place))
            .any(|before| !self.acknowledged.contains(before));
        if skipped {
            return Err(format!(
                "update {} of task {task} ({}) comes before one that is not acknowledged",
                sent.place,
                state.as_str_name()
            ));
        }
        Ok(())
    }

    /// What a framework last heard of a task.
    pub fn newest(&self, task: &str) -> Option<TaskState> {
        self.heard.get(task)?.newest
    }

    /// How often frameworks were told of a state.
    pub fn count(&self, state: TaskState) -> u64 {
        self.states.get(state.as_str_name()).copied().unwrap_or(0)
    }

    /// Updates that frameworks were told.
    pub fn len(&self) -> u64 {
        self.told
    }

    /// Whether nobody was told anything.
    pub fn is_empty(&self) -> bool {
        self.told == 0
    }
}
