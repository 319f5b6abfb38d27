//! Random lives of an agent that dies at any moment: no update is lost, doubled or invented.
//!
//! The disk has what was durable when the agent died: a crash between a step and its sync
//! takes back the step's records and everything that it wanted to send.

use proptest::prelude::*;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tepui_agent_machine::{
    Machine, Options,
    input::{ContainerEvent, Ended, Input, Intervals, LinkId, RecoveredState},
    model::{
        link::{self, agent_message, master_message},
        log,
        time::{Instant, WallTime},
        wire::{self, TaskState},
    },
    output::{ContainerCommand, Output},
};

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    Run,
    Kill(usize),
    Start(usize),
    Exit(usize, bool),
    Acknowledge(usize),
    Wait(u64),
    BreakLink,
    /// The agent dies; with `true` before what the last step wrote was durable.
    Crash(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Run),
        1 => (0..8usize).prop_map(Event::Kill),
        4 => (0..8usize).prop_map(Event::Start),
        3 => (0..8usize, any::<bool>()).prop_map(|(task, success)| Event::Exit(task, success)),
        6 => (0..8usize).prop_map(Event::Acknowledge),
        1 => (1..700u64).prop_map(Event::Wait),
        1 => Just(Event::BreakLink),
        1 => any::<bool>().prop_map(Event::Crash),
    ]
}

/// How a container stands, outside of the agent: containers survive it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Container {
    Launched,
    Running,
    Ended(bool),
}

/// The world around the agent: disk, containers, and the master with its framework.
struct World {
    machine: Machine,
    disk: Vec<link::Record>,
    /// Durable before the last step.
    disk_before: usize,
    now: u64,
    containers: BTreeMap<String, Container>,
    /// Commands that the agent has not confirmed.
    pending: Vec<log::Command>,
    sequence: u64,
    /// Latest unacknowledged update of each task that the master has seen.
    seen: BTreeMap<String, wire::TaskStatus>,
    /// States acknowledged by task, in order, and all uuids acknowledged.
    history: BTreeMap<String, Vec<TaskState>>,
    acknowledged: BTreeSet<Vec<u8>>,
    ordered: Vec<String>,
    /// How containers really ended.
    truth: BTreeMap<String, bool>,
    kills: BTreeSet<String>,
    /// Lives of the agent; each draws another seed, as the shell does.
    lives: u64,
}

fn options() -> Options {
    Options {
        info: wire::AgentInfo {
            hostname: "h".into(),
            ..Default::default()
        },
        address: "127.0.0.1:5051".into(),
        version: "1.12.0".into(),
        capabilities: Vec::new(),
        boot_id: "b".into(),
        intervals: Intervals::default(),
        reconfiguration_additive: false,
    }
}

impl World {
    fn new() -> World {
        let (machine, output) =
            Machine::birth(Vec::new(), options(), Instant(0), WallTime(0.0), 3).expect("new");
        let mut world = World {
            machine,
            disk: output.records,
            disk_before: 0,
            now: 0,
            containers: BTreeMap::new(),
            pending: Vec::new(),
            sequence: 0,
            seen: BTreeMap::new(),
            history: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            ordered: Vec::new(),
            truth: BTreeMap::new(),
            kills: BTreeSet::new(),
            lives: 0,
        };
        world.attach();
        world
    }

    fn step(&mut self, input: Input) -> Output {
        let wall = WallTime(self.now as f64 / 1e9);
        let output = self.machine.step(Instant(self.now), wall, input);
        self.machine.check_invariants();
        output
    }

    /// A step whose effects reach the disk and the world.
    fn live(&mut self, input: Input) {
        let output = self.step(input);
        self.disk_before = self.disk.len();
        self.disk.extend(output.records);
        for command in output.containers {
            match command {
                ContainerCommand::Launch(it) => {
                    let name = it.container_id.clone();
                    self.containers.entry(name).or_insert(Container::Launched);
                }
                ContainerCommand::Kill { container_id, .. } => {
                    if let Some(it) = self.containers.get_mut(&container_id)
                        && !matches!(it, Container::Ended(_))
                    {
                        *it = Container::Ended(false);
                        self.truth.insert(container_id.clone(), false);
                    }
                }
                ContainerCommand::Remove { container_id } => {
                    self.containers.remove(&container_id);
                }
            }
        }
        for (_, message) in output.send {
            match message.kind {
                Some(agent_message::Kind::TaskUpdate(it)) => {
                    let status = wire::TaskStatus::decode(it.status_payload).expect("a status");
                    self.seen.insert(status.task_id.value.clone(), status);
                }
                Some(agent_message::Kind::CommandsDone(it)) => {
                    self.pending.retain(|command| command.sequence > it.up_to);
                }
                _ => {}
            }
        }
    }

    fn attach(&mut self) {
        let containers = self.containers.iter().map(|(id, it)| {
            let state = match it {
                Container::Launched => RecoveredState::Launching,
                Container::Running => RecoveredState::Running(started()),
                Container::Ended(success) => RecoveredState::Over(exited(*success)),
            };
            (id.clone(), state)
        });
        let containers = containers.collect();
        self.live(Input::Recovered { containers });
        self.link();
    }

    fn link(&mut self) {
        self.live(Input::LinkUp {
            link: LinkId(1),
            term: 1,
        });
        self.master(master_message::Kind::Registered(link::Registered {
            agent_id: "S0".into(),
            ..Default::default()
        }));
        for command in self.pending.clone() {
            self.master(master_message::Kind::Command(command));
        }
    }

    fn master(&mut self, kind: master_message::Kind) {
        let message = link::MasterMessage {
            fence: Some(link::Fence {
                cluster_id: "c".into(),
                incarnation: 1,
                term: 1,
            }),
            kind: Some(kind),
        };
        self.live(Input::Master {
            link: LinkId(1),
            message: Box::new(message),
        });
    }

    fn order(&mut self, kind: log::command::Kind) {
        self.sequence += 1;
        let command = log::Command {
            sequence: self.sequence,
            kind: Some(kind),
        };
        self.pending.push(command.clone());
        self.master(master_message::Kind::Command(command));
    }

    fn task(&self, index: usize) -> Option<String> {
        self.ordered.get(index % self.ordered.len().max(1)).cloned()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Run => {
                let id = format!("t{}", self.ordered.len());
                self.ordered.push(id.clone());
                self.order(log::command::Kind::RunTask(log::RunTask {
                    framework_id: "f".into(),
                    task_id: id.clone(),
                    container_id: format!("c-{id}"),
                    ..Default::default()
                }));
            }
            Event::Kill(index) => {
                // The master kills no task that it knows to have ended.
                if let Some(id) = self.task(index).filter(|id| !self.has_ended(id)) {
                    self.kills.insert(id.clone());
                    self.order(log::command::Kind::Kill(log::Kill {
                        framework_id: "f".into(),
                        task_id: id,
                        ..Default::default()
                    }));
                }
            }
            Event::Start(index) => {
                if let Some(name) = self.task(index).map(|id| format!("c-{id}"))
                    && self.containers.get(&name) == Some(&Container::Launched)
                {
                    self.containers.insert(name.clone(), Container::Running);
                    self.container(name, started());
                }
            }
            Event::Exit(index, success) => {
                if let Some(name) = self.task(index).map(|id| format!("c-{id}")) {
                    match self.containers.get(&name) {
                        Some(Container::Running) => {
                            self.containers
                                .insert(name.clone(), Container::Ended(success));
                            self.truth.insert(name.clone(), success);
                            self.container(name, exited(success));
                        }
                        Some(Container::Ended(success)) => {
                            let event = exited(*success);
                            self.container(name, event);
                        }
                        _ => {}
                    }
                }
            }
            Event::Acknowledge(index) => {
                if let Some(id) = self.task(index) {
                    self.acknowledge(&id);
                }
            }
            Event::Wait(seconds) => {
                self.now += seconds * 1_000_000_000;
                self.live(Input::Tick);
            }
            Event::BreakLink => {
                self.live(Input::LinkDown { link: LinkId(1) });
                self.link();
            }
            Event::Crash(early) => {
                if early {
                    // A step whose records never reached the disk, and whose messages never
                    // left.
                    self.now += 1_000_000_000;
                    let _ = self.step(Input::Tick);
                }
                let wall = WallTime(self.now as f64 / 1e9);
                let disk = self.disk.clone();
                self.lives += 1;
                let seed = self.lives << 32;
                let (machine, output) =
                    Machine::birth(disk, options(), Instant(self.now), wall, seed)
                        .expect("the same agent");
                self.machine = machine;
                self.disk.extend(output.records);
                self.attach();
            }
        }
    }

    fn container(&mut self, container_id: String, event: ContainerEvent) {
        self.live(Input::Container {
            container_id,
            event,
        });
    }

    fn acknowledge(&mut self, id: &str) {
        let Some(status) = self.seen.remove(id) else {
            return;
        };
        let uuid = status.uuid.clone().expect("a uuid");
        // The same update again: the acknowledgement was lost, or the retry came first.
        if self.acknowledged.insert(uuid.to_vec()) {
            self.history
                .entry(id.to_owned())
                .or_default()
                .push(status.state());
        }
        self.master(master_message::Kind::AcknowledgeUpdate(
            link::AcknowledgeUpdate {
                framework_id: "f".into(),
                task_id: id.to_owned(),
                uuid,
            },
        ));
    }

    fn has_ended(&self, id: &str) -> bool {
        let last = self.history.get(id).and_then(|it| it.last());
        last.is_some_and(|it| tepui_agent_machine::model::task::is_terminal(*it))
    }

    /// Lets everything end that still can, and everything be acknowledged.
    fn settle(&mut self) {
        for _ in 0..20 {
            for index in 0..self.ordered.len() {
                self.happen(Event::Start(index));
                self.happen(Event::Exit(index, true));
                self.happen(Event::Acknowledge(index));
            }
            self.happen(Event::Wait(700));
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

fn exited(success: bool) -> ContainerEvent {
    ContainerEvent::Exited(Ended {
        success,
        killed: false,
        limit: None,
        message: String::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_update_is_lost_doubled_or_invented(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.settle();
        for id in &world.ordered {
            let history = world.history.get(id).cloned().unwrap_or_default();
            let last = history.last().copied();
            let terminal = |it: &TaskState| tepui_agent_machine::model::task::is_terminal(*it);
            prop_assert!(last.as_ref().is_some_and(terminal), "{id} has not ended: {history:?}");
            let ends = history.iter().filter(|it| terminal(it)).count();
            prop_assert_eq!(ends, 1, "{}: {:?}", id, history);
            // STARTING, RUNNING, the end: each once, in this order.
            let before: Vec<TaskState> = history[..history.len() - 1].to_vec();
            let whole = [TaskState::TaskStarting, TaskState::TaskRunning];
            prop_assert!(
                before.is_empty() || before == whole,
                "{}: {:?}", id, history
            );
            // A task that was not killed ends as its container did.
            if !world.kills.contains(id) {
                let expected = match world.truth.get(&format!("c-{id}")) {
                    Some(true) => TaskState::TaskFinished,
                    _ => TaskState::TaskFailed,
                };
                prop_assert_eq!(last, Some(expected), "{}: {:?}", id, history);
            } else {
                prop_assert!(
                    matches!(
                        last,
                        Some(TaskState::TaskKilled | TaskState::TaskFinished | TaskState::TaskFailed)
                    ),
                    "{}: {:?}", id, history
                );
            }
        }
        prop_assert!(world.containers.is_empty(), "left: {:?}", world.containers);
    }
}
