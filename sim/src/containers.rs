//! Containers of one simulated machine: they live without the agent, end when their task does,
//! and die with a boot.

use crate::{
    clock::{MILLI, SECOND},
    core::Core,
    workload::TaskPlan,
};
use std::collections::BTreeMap;
use tepui_agent_machine::{
    input::{ContainerEvent, Ended, RecoveredState},
    output::{ContainerCommand, Launch},
};

/// How a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being prepared.
    Launching,
    /// It runs.
    Running,
    /// It ended, or never ran.
    Over {
        /// It ran.
        ran: bool,
        /// Exit status zero.
        success: bool,
        /// Somebody killed it.
        killed: bool,
    },
}

/// A container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its task.
    pub task: String,
    /// How it stands.
    pub state: State,
    killed: bool,
    // The executor that it is under.
    executor: Option<String>,
}

/// What happens to a container of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It comes up.
    Up,
    /// Its task has done its work.
    Done,
    /// A kill takes effect.
    Killed,
    /// A health check has a result.
    Health,
}

/// A turn that is to come.
#[derive(Clone, Debug)]
pub struct Coming {
    /// After this long.
    pub after: u64,
    /// Which container.
    pub id: String,
    /// What.
    pub turn: Turn,
    /// The agent's process does it: it does not come when that has died.
    pub by_agent: bool,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Containers {
    all: BTreeMap<String, Container>,
}

impl Containers {
    /// Each with its id.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Container)> {
        self.all.iter()
    }

    /// Obeys an order; what is known at once, and what comes later.
    pub fn obey(
        &mut self,
        core: &mut Core,
        agent: usize,
        command: ContainerCommand,
    ) -> (Option<(String, ContainerEvent)>, Option<Coming>) {
        match command {
            ContainerCommand::Launch(launch) => (None, self.launch(core, agent, &launch)),
            ContainerCommand::Kill { container_id, .. } => match self.all.get_mut(&container_id) {
                Some(it) if !matches!(it.state, State::Over { .. }) => {
                    it.killed = true;
                    // Who does not listen to TERM gets KILL from the agent.
                    let by_agent = core.random.chance(500);
                    let coming = Coming {
                        after: core.random.between(MILLI, SECOND / 2),
                        id: container_id,
                        turn: Turn::Killed,
                        by_agent,
                    };
                    (None, Some(coming))
                }
                _ => {
                    // It is not there, so it is over.
                    let event = ContainerEvent::LaunchFailed {
                        killed: true,
                        unknown_user: false,
                        message: "there is no such container".to_owned(),
                    };
                    (Some((container_id, event)), None)
                }
            },
            ContainerCommand::Remove { container_id } => {
                self.end(core, agent, &container_id);
                self.all.remove(&container_id);
                (None, None)
            }
        }
    }

    fn launch(&mut self, core: &mut Core, agent: usize, launch: &Launch) -> Option<Coming> {
        let id = launch.container_id.clone();
        if self.all.contains_key(&id) {
            // The machine may repeat itself.
            return None;
        }
        let task = launch.task.task_id.value.clone();
        let verdict = core
            .checkers
            .lives
            .launched(agent, &launch.framework_id, &task, &id);
        core.judge("lives", verdict);
        let volumes = launch.resources.iter().filter_map(|it| {
            let persistence = it.disk.as_ref()?.persistence.as_ref()?;
            Some(persistence.id.clone())
        });
        for volume in volumes {
            let it = &mut core.checkers;
            let verdict = it.volumes.used(agent, &volume, &task, &it.tasks);
            core.judge("volumes", verdict);
        }
        let executor = launch
            .task
            .executor
            .as_ref()
            .map(|it| it.executor_id.value.clone());
        if let Some(executor) = &executor {
            let framework = &launch.framework_id;
            core.checkers
                .lives
                .executor_began(agent, framework, executor);
        }
        self.all.insert(
            id.clone(),
            Container {
                task,
                state: State::Launching,
                killed: false,
                executor: executor.clone(),
            },
        );
        Some(Coming {
            after: core.random.between(2 * MILLI, 200 * MILLI),
            id,
            turn: Turn::Up,
            by_agent: false,
        })
    }

    /// A turn comes; what the agent is told of it, and what comes after.
    pub fn turn(
        &mut self,
        core: &mut Core,
        agent: usize,
        id: &str,
        turn: Turn,
    ) -> (Option<ContainerEvent>, Vec<Coming>) {
        let Some(container) = self.all.get_mut(id) else {
            return (None, Vec::new());
        };
        let coming = |after, turn| Coming {
            after,
            id: id.to_owned(),
            turn,
            by_agent: false,
        };
        match (turn, container.state) {
            (Turn::Up, State::Launching) => {
                let plan = core.checkers.tasks.plan(&container.task);
                if plan.as_ref().is_some_and(|it| it.fails_to_launch) {
                    container.state = State::Over {
                        ran: false,
                        success: false,
                        killed: false,
                    };
                    container.leave(core, agent);
                    return (Some(over(container)), Vec::new());
                }
                container.state = State::Running;
                let task = container.task.clone();
                let verdict = core.checkers.began(core.now, agent, &task, id);
                core.judge("lives", verdict);
                let mut later = Vec::new();
                if let Some(TaskPlan {
                    runs_for, checks, ..
                }) = plan
                {
                    later.extend(runs_for.map(|it| coming(it, Turn::Done)));
                    later.extend(checks.map(|it| coming(it, Turn::Health)));
                }
                (Some(started()), later)
            }
            (Turn::Done, State::Running) => {
                let plan = core.checkers.tasks.plan(&container.task);
                let success = plan.is_none_or(|it| it.succeeds);
                container.state = State::Over {
                    ran: true,
                    success,
                    killed: false,
                };
                let (task, event) = (container.task.clone(), over(container));
                container.leave(core, agent);
                core.checkers.ended(agent, &task, success, false);
                (Some(event), Vec::new())
            }
            (Turn::Killed, State::Launching | State::Running) => {
                let ran = container.state == State::Running;
                container.state = State::Over {
                    ran,
                    success: false,
                    killed: true,
                };
                let (task, event) = (container.task.clone(), over(container));
                container.leave(core, agent);
                if ran {
                    core.checkers.ended(agent, &task, false, true);
                }
                (Some(event), Vec::new())
            }
            (Turn::Health, State::Running) => {
                let event = ContainerEvent::Health {
                    healthy: core.random.chance(500),
                    kill: false,
                    message: String::new(),
                };
                let again = core.random.between(SECOND, 10 * SECOND);
                (Some(event), vec![coming(again, Turn::Health)])
            }
            _ => (None, Vec::new()),
        }
    }

    /// What is found of those expected; all others are removed.
    pub fn recover(
        &mut self,
        core: &mut Core,
        agent: usize,
        expected: &[String],
    ) -> Vec<(String, RecoveredState)> {
        let orphans: Vec<String> = self
            .all
            .keys()
            .filter(|it| !expected.contains(it))
            .cloned()
            .collect();
        for id in orphans {
            self.end(core, agent, &id);
            self.all.remove(&id);
        }
        let state = |container: &Container| match container.state {
            State::Launching => RecoveredState::Launching,
            State::Running => RecoveredState::Running(started()),
            State::Over { .. } => RecoveredState::Over(over(container)),
        };
        self.all
            .iter()
            .map(|(id, it)| (id.clone(), state(it)))
            .collect()
    }

    /// The machine is booted, or everything is deleted: nothing runs any more.
    pub fn die(&mut self, core: &mut Core, agent: usize) {
        let ids: Vec<String> = self.all.keys().cloned().collect();
        for id in ids {
            self.end(core, agent, &id);
        }
        self.all.clear();
    }

    fn end(&mut self, core: &mut Core, agent: usize, id: &str) {
        if let Some(container) = self.all.get_mut(id)
            && !matches!(container.state, State::Over { .. })
        {
            container.leave(core, agent);
            let ran = container.state == State::Running;
            container.state = State::Over {
                ran,
                success: false,
                killed: true,
            };
            let task = container.task.clone();
            if ran {
                core.checkers.ended(agent, &task, false, true);
            }
        }
    }
}

impl Container {
    /// Its executor had nothing else to do. One that never came up leaves its volumes, too.
    fn leave(&mut self, core: &mut Core, agent: usize) {
        core.checkers.volumes.left(&self.task);
        if let Some(executor) = self.executor.take() {
            core.checkers.lives.executor_ended(agent, &executor);
        }
    }
}

fn started() -> ContainerEvent {
    ContainerEvent::Started {
        pid: 1,
        ip_addresses: Vec::new(),
        data: None,
    }
}

fn over(container: &Container) -> ContainerEvent {
    match container.state {
        State::Over {
            ran: true,
            success,
            killed,
        } => ContainerEvent::Exited(Ended {
            success,
            killed: killed || container.killed,
            limit: None,
            message: String::new(),
        }),
        State::Over { killed, .. } => ContainerEvent::LaunchFailed {
            killed,
            unknown_user: false,
            message: String::new(),
        },
        State::Launching | State::Running => started(),
    }
}
