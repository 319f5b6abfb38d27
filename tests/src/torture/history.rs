//! What the frameworks saw, and what must hold of it.

use anyhow::{Result, bail};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tepui_scheduler_api::{task::is_terminal, v1};
use v1::task_status::Reason;

/// How a task has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// By itself, with this exit status.
    Exit(u8),
    /// It is killed.
    Killed,
}

/// What is known of one task.
#[derive(Debug)]
struct Story {
    expect: Expect,
    /// States in the order in which they were told, without repetitions of one update.
    states: Vec<Told>,
}

#[derive(Debug, Clone, PartialEq)]
struct Told {
    state: v1::TaskState,
    /// None for the answers of a reconciliation.
    uuid: Option<Vec<u8>>,
    reason: Option<Reason>,
    message: String,
}

#[derive(Debug, Default)]
struct Inner {
    tasks: BTreeMap<String, Story>,
    unexpected: Vec<String>,
    /// When offers came.
    offers: Vec<Instant>,
}

/// Written by all frameworks of a run.
#[derive(Debug, Default)]
pub struct History {
    inner: Mutex<Inner>,
    offered: tokio::sync::Notify,
}

impl History {
    /// Empty.
    pub fn new() -> History {
        History::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task is about to be launched.
    pub fn launching(&self, task: &str, expect: Expect) {
        let story = Story {
            expect,
            states: Vec::new(),
        };
        let before = self.lock().tasks.insert(task.to_owned(), story);
        assert!(before.is_none(), "{task} is not a new name");
    }

    /// Something that never may be told was.
    pub fn unexpected(&self, text: String) {
        self.lock().unexpected.push(text);
    }

    /// An offer came.
    pub fn offers(&self) {
        self.lock().offers.push(Instant::now());
        self.offered.notify_waiters();
    }

    /// An update came.
    pub fn update(&self, status: &v1::TaskStatus) {
        let mut inner = self.lock();
        let told = Told {
            state: status.state(),
            uuid: status.uuid.as_ref().map(|it| it.to_vec()),
            reason: status.reason.map(|_| status.reason()),
            message: status.message.clone().unwrap_or_default(),
        };
        let Some(story) = inner.tasks.get_mut(&status.task_id.value) else {
            let text = format!(
                "an update of {}, which nobody launched",
                status.task_id.value
            );
            inner.unexpected.push(text);
            return;
        };
        let again = match told.uuid {
            Some(_) => story.states.iter().any(|it| it.uuid == told.uuid),
            None => story.states.last() == Some(&told),
        };
        if !again {
            story.states.push(told);
        }
    }

    /// Waits for an offer that came after `moment`; the longest time without any since then.
    ///
    /// # Errors
    /// None came.
    pub async fn offered_after(&self, moment: Instant, patience: Duration) -> Result<Duration> {
        loop {
            let offered = self.offered.notified();
            if let Some(silence) = self.lock().silence(moment) {
                return Ok(silence);
            }
            if tokio::time::timeout(patience, offered).await.is_err() {
                bail!(
                    "no framework was offered anything for {} s",
                    patience.as_secs()
                );
            }
        }
    }

    /// Tasks that have ended.
    pub fn ended(&self) -> usize {
        let inner = self.lock();
        let ended = |it: &&Story| it.states.iter().any(|it| is_terminal(it.state));
        inner.tasks.values().filter(ended).count()
    }

    /// Tasks by their last state.
    pub fn ends(&self) -> BTreeMap<String, u64> {
        let mut ends = BTreeMap::new();
        for story in self.lock().tasks.values() {
            let end = story.states.last();
            let name = end.map_or("nothing", |it| it.state.as_str_name());
            *ends.entry(name.to_owned()).or_default() += 1;
        }
        ends
    }

    /// What must not have happened, given how often each task lived.
    pub fn check(&self, lives: &BTreeMap<String, u64>) -> Vec<String> {
        let inner = self.lock();
        let mut violations = inner.unexpected.clone();
        for (task, story) in &inner.tasks {
            let lives = lives.get(task).copied().unwrap_or_default();
            if let Some(wrong) = story.wrong(lives) {
                violations.push(format!("{task}: {wrong}; {story:?}, {lives} lives"));
            }
        }
        for task in lives.keys() {
            if !inner.tasks.contains_key(task) {
                violations.push(format!("{task} ran, and nobody launched it"));
            }
        }
        violations
    }
}

impl Inner {
    /// The longest time without an offer between `moment` and the last one.
    fn silence(&self, moment: Instant) -> Option<Duration> {
        let after = self.offers.partition_point(|it| *it <= moment);
        let mut before = moment;
        let mut longest = None;
        for offer in &self.offers[after..] {
            longest = longest.max(Some(*offer - before));
            before = *offer;
        }
        longest
    }
}

impl Story {
    fn wrong(&self, lives: u64) -> Option<String> {
        use v1::TaskState::*;
        if lives > 1 {
            return Some("it lived more than once".to_owned());
        }
        let Some(first) = self.states.iter().position(|it| is_terminal(it.state)) else {
            // Who asks without naming an agent is told no more than that.
            if lives == 0 && self.states.last().is_some_and(|it| it.state == TaskUnknown) {
                return None;
            }
            return Some("it never came to an end".to_owned());
        };
        let end = &self.states[first];
        // A launch that was lost with its master, or came too late for its offer, is told as
        // such when it is made or asked for; it must not have run. Everything else is from the
        // agent, which knows.
        let never_ran = |state| matches!(state, TaskLost | TaskDropped | TaskGone);
        let agrees = |it: &Told| {
            // UNKNOWN is what a KILL is answered that names no agent, also one that came when
            // the task had just ended.
            let nothing = never_ran(it.state) || it.state == TaskUnknown;
            let too_late = it.state == TaskUnknown && self.expect == Expect::Killed;
            it.state == end.state || nothing && never_ran(end.state) || too_late
        };
        if let Some(other) = self.states[first..].iter().find(|it| !agrees(it)) {
            return Some(format!(
                "{} was followed by {}",
                end.state.as_str_name(),
                other.state.as_str_name()
            ));
        }
        // Reconciliation has words of its own.
        let says = |text: String| {
            let mut updates = self.states.iter().filter(|it| it.uuid.is_some());
            updates.any(|it| it.message.contains(&text))
        };
        match (end.state, self.expect) {
            (TaskFinished, Expect::Exit(0)) if lives == 1 => None,
            (TaskFailed, Expect::Exit(code))
                if code != 0 && lives == 1 && says(format!("exited with status {code}")) =>
            {
                None
            }
            // Before its first command it leaves no trace of a life.
            (TaskKilled, Expect::Killed) => None,
            (state, _) if never_ran(state) && lives == 0 => None,
            (state, expect) => Some(format!(
                "{} where {expect:?} was expected",
                state.as_str_name()
            )),
        }
    }
}

/// How often each task lived: every life wrote a line to the file of its name.
///
/// # Errors
/// The folder cannot be read.
pub fn lives(folder: &Path) -> Result<BTreeMap<String, u64>> {
    let mut lives = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let text = std::fs::read_to_string(entry.path())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        lives.insert(name, text.lines().count() as u64);
    }
    Ok(lives)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(task: &str, state: v1::TaskState, uuid: Option<u8>) -> v1::TaskStatus {
        v1::TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state as i32,
            uuid: uuid.map(|it| vec![it; 16].into()),
            message: Some("Command exited with status 3".to_owned()),
            ..Default::default()
        }
    }

    fn judged(expect: Expect, states: &[(v1::TaskState, Option<u8>)], lives: u64) -> usize {
        let history = History::new();
        history.launching("t", expect);
        for (state, uuid) in states {
            history.update(&status("t", *state, *uuid));
        }
        history
            .check(&BTreeMap::from([("t".to_owned(), lives)]))
            .len()
    }

    #[test]
    fn what_must_not_happen_is_found() {
        use v1::TaskState::*;
        let running = (TaskRunning, Some(1));
        let ended = (TaskFinished, Some(2));
        assert_eq!(judged(Expect::Exit(0), &[running, ended, ended], 1), 0);
        assert_eq!(judged(Expect::Exit(3), &[(TaskFailed, Some(2))], 1), 0);
        assert_eq!(judged(Expect::Exit(0), &[(TaskLost, None)], 0), 0);
        assert_eq!(judged(Expect::Exit(0), &[(TaskUnknown, None)], 0), 0);
        assert_eq!(judged(Expect::Exit(0), &[(TaskUnknown, None)], 1), 1);
        // Twice, never, not at all, as something else, after its end, lost while it ran.
        assert_eq!(judged(Expect::Exit(0), &[running, ended], 2), 1);
        assert_eq!(judged(Expect::Exit(0), &[running], 1), 1);
        assert_eq!(judged(Expect::Exit(0), &[ended], 0), 1);
        assert_eq!(judged(Expect::Exit(4), &[(TaskFailed, Some(2))], 1), 1);
        assert_eq!(judged(Expect::Exit(0), &[ended, running], 1), 1);
        assert_eq!(judged(Expect::Exit(0), &[(TaskLost, None)], 1), 1);
    }

    #[test]
    fn a_task_that_nobody_launched_is_found() {
        let history = History::new();
        history.update(&status("x", v1::TaskState::TaskRunning, Some(1)));
        assert_eq!(history.check(&BTreeMap::new()).len(), 1);
        let lives = BTreeMap::from([("y".to_owned(), 1)]);
        assert_eq!(History::new().check(&lives).len(), 1);
    }
}
