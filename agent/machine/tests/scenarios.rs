//! Scenario files: commands in, the whole trace out.
//!
//! Each `.txt` below `scenarios/` is a list of commands; the lines behind `>` are what the
//! machine answered. `UPDATE=1 cargo test -p tepui-agent-machine` writes them anew.

use prost::Message;
use std::{fmt::Write, path::Path, time::Duration};
use tepui_agent_machine::{
    Machine, Options,
    input::{ContainerEvent, Ended, Input, Intervals, Limit, LinkId, RecoveredState},
    model::{
        Resource, Resources,
        link::{self, agent_message, master_message, record},
        log,
        time::{Instant, WallTime},
        wire,
    },
    output::{ContainerCommand, Output, ProcessCommand},
};

/// An agent with its disk, which outlives it.
struct World {
    machine: Machine,
    disk: Vec<link::Record>,
    now: u64,
    boot: String,
    term: u64,
    /// The link that commands are about.
    link: LinkId,
    resources: String,
}

fn options(world_boot: &str, resources: &str) -> Options {
    Options {
        info: wire::AgentInfo {
            hostname: "host".into(),
            resources: tepui_agent_machine::model::Resources::parse(resources, "*")
                .expect("resources of a scenario")
                .to_wire(),
            ..Default::default()
        },
        address: "127.0.0.1:5051".into(),
        version: "1.12.0".into(),
        capabilities: vec!["MULTI_ROLE".into()],
        boot_id: world_boot.into(),
        intervals: Intervals::default(),
        reconfiguration_additive: false,
    }
}

impl World {
    fn new() -> (World, String) {
        let resources = "cpus:4;mem:1024".to_owned();
        let (machine, output) = Machine::birth(
            Vec::new(),
            options("boot-1", &resources),
            Instant(0),
            WallTime(0.0),
            7,
        )
        .expect("a new agent starts");
        let mut world = World {
            machine,
            disk: Vec::new(),
            now: 0,
            boot: "boot-1".into(),
            term: 1,
            link: LinkId(1),
            resources,
        };
        let trace = world.keep(output);
        (world, trace)
    }

    fn keep(&mut self, output: Output) -> String {
        let trace = show(&output);
        self.disk.extend(output.records);
        trace
    }

    fn step(&mut self, input: Input) -> String {
        let wall = WallTime(self.now as f64 / 1e9);
        let output = self.machine.step(Instant(self.now), wall, input);
        self.machine.check_invariants();
        self.keep(output)
    }

    fn master(&mut self, kind: master_message::Kind) -> String {
        let message = link::MasterMessage {
            fence: Some(link::Fence {
                cluster_id: "c".into(),
                incarnation: 1,
                term: self.term,
            }),
            kind: Some(kind),
        };
        self.step(Input::Master {
            link: self.link,
            message: Box::new(message),
        })
    }

    fn container(&mut self, container_id: &str, event: ContainerEvent) -> String {
        self.step(Input::Container {
            container_id: container_id.to_owned(),
            event,
        })
    }

    /// A new process on the same disk.
    fn restart(&mut self) -> String {
        let wall = WallTime(self.now as f64 / 1e9);
        let options = options(&self.boot, &self.resources);
        match Machine::birth(self.disk.clone(), options, Instant(self.now), wall, 7) {
            Ok((machine, output)) => {
                self.machine = machine;
                self.keep(output)
            }
            Err(text) => format!("> refuses to start: {text}\n"),
        }
    }

    /// The uuid of the oldest update of a task.
    fn head(&self, task: &str) -> bytes::Bytes {
        let snapshot = self.machine.snapshot();
        let heads = snapshot.iter().filter_map(|it| match &it.kind {
            Some(record::Kind::AppendUpdate(it)) if it.task_id == task => {
                wire::TaskStatus::decode(it.status_payload.clone())
                    .ok()?
                    .uuid
            }
            _ => None,
        });
        heads.into_iter().next().unwrap_or_default()
    }

    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<u64>().expect("a number");
        let framework = |capability: Option<&str>| {
            let kind = capability
                .and_then(wire::framework_info::capability::Type::from_str_name)
                .map(|it| wire::framework_info::Capability {
                    r#type: Some(it as i32),
                });
            wire::FrameworkInfo {
                user: "u".into(),
                name: "f".into(),
                capabilities: kind.into_iter().collect(),
                ..Default::default()
            }
        };
        let command = |kind| {
            master_message::Kind::Command(log::Command {
                sequence: number(1),
                kind: Some(kind),
            })
        };
        match words[0] {
            "recovered" => {
                let containers = words[1..].iter().map(|word| {
                    let (id, state) = word.split_once('=').expect("container=state");
                    let state = match state {
                        "running" => RecoveredState::Running(started()),
                        "exited" => RecoveredState::Over(exited(false, false)),
                        other => panic!("unknown state {other}"),
                    };
                    (id.to_owned(), state)
                });
                let containers = containers.collect();
                self.step(Input::Recovered { containers })
            }
            "on" => {
                self.link = LinkId(number(1));
                String::new()
            }
            "up" => self.step(Input::LinkUp {
                link: self.link,
                term: words.get(1).map_or(0, |_| number(1)),
            }),
            "down" => self.step(Input::LinkDown { link: self.link }),
            "again" => self.master(master_message::Kind::RegisterAgain(link::RegisterAgain {})),
            "leader" => self.master(master_message::Kind::Leader(link::Leader {
                address: "leader:5050".into(),
                here: words[1] == "here",
                masters: words[2..].iter().map(|it| (*it).to_owned()).collect(),
                ..Default::default()
            })),
            "registered" => {
                let total = words.get(2).map_or(Vec::new(), |text| {
                    let parsed = tepui_agent_machine::model::Resources::parse(text, "*");
                    parsed.expect("resources").to_wire()
                });
                self.master(master_message::Kind::Registered(link::Registered {
                    agent_id: words[1].into(),
                    total,
                    total_ping_timeout_ns: 75_000_000_000,
                    ..Default::default()
                }))
            }
            "refused" => self.master(master_message::Kind::Refused(link::Refused {
                message: "refused".into(),
                shutdown: words.get(1) == Some(&"shutdown"),
            })),
            "ping" => self.master(master_message::Kind::Ping(link::Ping {
                connected: words[1] == "connected",
            })),
            "run" => {
                let task = wire::TaskInfo {
                    name: words[2].into(),
                    task_id: wire::TaskId {
                        value: words[2].into(),
                    },
                    ..Default::default()
                };
                let framework = framework(words.get(3).copied());
                self.master(command(log::command::Kind::RunTask(log::RunTask {
                    framework_id: "f".into(),
                    framework_info_payload: framework.encode_to_vec().into(),
                    task_info_payload: task.encode_to_vec().into(),
                    container_id: format!("c-{}", words[2]),
                    task_id: words[2].into(),
                    ..Default::default()
                })))
            }
            "run-executor" => {
                let executor = wire::ExecutorInfo::default().encode_to_vec();
                let run = log::RunTask {
                    executor_info_payload: executor.into(),
                    ..run_task(words[2])
                };
                self.master(command(log::command::Kind::RunTask(run)))
            }
            "run-group" => {
                let group = log::RunTaskGroup {
                    framework_id: "f".into(),
                    tasks: words[2..].iter().map(|it| run_task(it)).collect(),
                };
                self.master(command(log::command::Kind::RunTaskGroup(group)))
            }
            "kill" => self.master(command(log::command::Kind::Kill(log::Kill {
                framework_id: "f".into(),
                task_id: words[2].into(),
                kill_policy_payload: Default::default(),
            }))),
            "shutdown-framework" => {
                let kind = log::command::Kind::ShutdownFramework(log::ShutdownFramework {
                    framework_id: "f".into(),
                });
                self.master(command(kind))
            }
            "drain" => self.master(command(log::command::Kind::Drain(log::Drain {
                max_grace_period_ns: Some(1_000_000_000),
                mark_gone: false,
                cancel: false,
            }))),
            "kill-unknown" => self.master(master_message::Kind::KillUnknown(link::KillUnknown {
                framework_id: "f".into(),
                task_id: words[1].into(),
            })),
            "ack" => {
                let uuid = self.head(words[1]);
                self.master(master_message::Kind::AcknowledgeUpdate(
                    link::AcknowledgeUpdate {
                        framework_id: "f".into(),
                        task_id: words[1].into(),
                        uuid,
                    },
                ))
            }
            "wrong-ack" => self.master(master_message::Kind::AcknowledgeUpdate(
                link::AcknowledgeUpdate {
                    framework_id: "f".into(),
                    task_id: words[1].into(),
                    uuid: vec![1; 16].into(),
                },
            )),
            "starts" => self.container(words[1], started()),
            "fails" => self.container(
                words[1],
                ContainerEvent::LaunchFailed {
                    killed: words.get(2) == Some(&"killed"),
                    unknown_user: words.get(2) == Some(&"user"),
                    message: "cannot be launched".into(),
                },
            ),
            "exits" => self.container(words[1], exited(words[2] == "0", false)),
            "oom" => {
                let limit = Some(Limit::Memory(Some(64)));
                let ended = Ended {
                    success: false,
                    killed: false,
                    limit,
                    message: "too much memory".into(),
                };
                self.container(words[1], ContainerEvent::Exited(ended))
            }
            "unhealthy" => self.container(
                words[1],
                ContainerEvent::Health {
                    healthy: false,
                    kill: words.get(2) == Some(&"kill"),
                    message: "no answer".into(),
                },
            ),
            "wait" => {
                self.now += number(1) * Duration::from_secs(1).as_nanos() as u64;
                self.step(Input::Tick)
            }
            "disk" => self.step(Input::Disk {
                writable: words[1] == "free",
            }),
            "estimate" => {
                let text = words.get(1).copied().unwrap_or_default();
                let all = Resources::parse(text, "*").expect("resources");
                let revocable = all.iter().map(|it| Resource {
                    revocable: true,
                    ..it.clone()
                });
                self.step(Input::Estimate(revocable.collect()))
            }
            "unregister" => self.step(Input::Unregister),
            "crash" => self.restart(),
            "reboot" => {
                self.boot = "boot-2".into();
                self.restart()
            }
            "wipe" => {
                self.disk.clear();
                self.restart()
            }
            "resources" => {
                self.resources = words[1].into();
                String::new()
            }
            "term" => {
                self.term = number(1);
                String::new()
            }
            other => panic!("unknown command {other}"),
        }
    }
}

fn run_task(id: &str) -> log::RunTask {
    log::RunTask {
        framework_id: "f".into(),
        task_id: id.into(),
        container_id: format!("c-{id}"),
        ..Default::default()
    }
}

fn started() -> ContainerEvent {
    ContainerEvent::Started {
        pid: 42,
        ip_addresses: Vec::new(),
        data: None,
    }
}

fn exited(success: bool, killed: bool) -> ContainerEvent {
    ContainerEvent::Exited(Ended {
        success,
        killed,
        limit: None,
        message: if success {
            "exited with status 0"
        } else {
            "exited with status 3"
        }
        .into(),
    })
}

fn status(payload: &bytes::Bytes) -> String {
    let status = wire::TaskStatus::decode(payload.clone()).unwrap_or_default();
    let mut text = format!(
        "{} {}",
        status.state().as_str_name(),
        status.source().as_str_name()
    );
    if status.reason.is_some() {
        let _ = write!(text, " {}", status.reason().as_str_name());
    }
    if let Some(healthy) = status.healthy {
        let _ = write!(text, " healthy={healthy}");
    }
    if let Some(message) = &status.message {
        let _ = write!(text, " {message:?}");
    }
    text
}

fn show(output: &Output) -> String {
    let mut text = String::new();
    for record in &output.records {
        let line = match record.kind.as_ref() {
            Some(record::Kind::AppendUpdate(it)) => {
                format!("update {} {}", it.task_id, status(&it.status_payload))
            }
            Some(record::Kind::Progress(it)) => format!(
                "progress {} {}{}{}",
                it.task_id,
                wire::TaskState::try_from(it.state)
                    .unwrap_or_default()
                    .as_str_name(),
                if it.kill_ordered { " kill" } else { "" },
                if it.silent { " silent" } else { "" }
            ),
            Some(record::Kind::Task(it)) => format!("task {}", it.task_id),
            Some(record::Kind::PopUpdate(it)) => format!("pop {}", it.task_id),
            Some(record::Kind::ForgetTask(it)) => format!("forget {}", it.task_id),
            Some(record::Kind::CommandsDone(it)) => format!("commands done {}", it.up_to),
            Some(record::Kind::Identity(it)) => format!("identity {:?}", it.agent_id),
            Some(record::Kind::Fence(it)) => format!("fence term {}", it.term),
            Some(record::Kind::Totals(it)) => format!("total of {} resources", it.total.len()),
            Some(record::Kind::Boot(it)) => format!("boot {}", it.boot_id),
            Some(record::Kind::Framework(it)) => format!("framework {}", it.framework_id),
            Some(record::Kind::ForgetFramework(it)) => {
                format!("forget framework {}", it.framework_id)
            }
            Some(record::Kind::Draining(it)) => format!("draining {}", it.draining),
            Some(record::Kind::Masters(it)) => format!("masters {}", it.address.join(" ")),
            other => format!("{other:?}"),
        };
        let _ = writeln!(text, "> disk: {line}");
    }
    for (to, message) in &output.send {
        let line = match message.kind.as_ref() {
            Some(agent_message::Kind::Register(it)) => {
                let tasks: Vec<String> = it
                    .tasks
                    .iter()
                    .map(|task| {
                        let state = wire::TaskState::try_from(task.state).unwrap_or_default();
                        format!("{}:{}", task.task_id, state.as_str_name())
                    })
                    .collect();
                let id = &it.agent_id;
                format!(
                    "register {id:?} done {} tasks [{}]",
                    it.commands_done,
                    tasks.join(" ")
                )
            }
            Some(agent_message::Kind::TaskUpdate(it)) => {
                let latest = wire::TaskState::try_from(it.latest_state).unwrap_or_default();
                format!(
                    "{} (latest {})",
                    status(&it.status_payload),
                    latest.as_str_name()
                )
            }
            Some(agent_message::Kind::CommandsDone(it)) => format!("done {}", it.up_to),
            Some(agent_message::Kind::Pong(it)) => format!("pong connected={}", it.connected),
            Some(agent_message::Kind::FenceRefused(_)) => "fence refused".into(),
            Some(agent_message::Kind::Oversubscribed(it)) => {
                let resources = Resources::from_wire(&it.resources).expect("resources");
                format!("oversubscribed {resources}")
            }
            Some(agent_message::Kind::Unregister(_)) => "unregister".into(),
            Some(agent_message::Kind::Attach(it)) => {
                let (id, done) = (&it.agent_id, it.commands_done);
                let (term, digest) = (it.term, it.digest);
                format!("attach {id:?} done {done} term {term} digest {digest:016x}")
            }
            other => format!("{other:?}"),
        };
        // Most scenarios know of one link.
        let on = match to.0 {
            1 => String::new(),
            link => format!(" {link}"),
        };
        let _ = writeln!(text, "> master{on}: {line}");
    }
    for command in &output.containers {
        let line = match command {
            ContainerCommand::Launch(it) => format!("launch {}", it.container_id),
            ContainerCommand::Kill {
                container_id,
                grace,
            } => {
                format!("kill {container_id} grace {grace:?}")
            }
            ContainerCommand::Remove { container_id } => format!("remove {container_id}"),
        };
        let _ = writeln!(text, "> container: {line}");
    }
    for command in &output.process {
        let line = match command {
            ProcessCommand::Exit(text) => format!("exit: {text}"),
            ProcessCommand::FollowLeader(address) => format!("follow {address}"),
            ProcessCommand::Reconnect { .. } => "reconnect".into(),
        };
        let _ = writeln!(text, "> process: {line}");
    }
    text
}

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE").is_some();
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the scenarios")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{} scenarios", files.len());
    for file in files {
        let recorded = std::fs::read_to_string(&file).expect("a scenario");
        let (mut world, _) = World::new();
        let mut text = String::new();
        for line in recorded.lines().filter(|line| !line.starts_with('>')) {
            let _ = writeln!(text, "{line}");
            if !line.is_empty() && !line.starts_with('#') {
                text.push_str(&world.run(line));
            }
        }
        if update {
            std::fs::write(&file, text).expect("a scenario can be written");
        } else {
            assert_eq!(text, recorded, "{}", file.display());
        }
    }
}

/// All agents of a cluster send this frame after a failover.
#[test]
fn an_attachment_is_small() {
    let attach = link::Attach {
        agent_id: "8d2f4a0e-5c1b-4f0a-9d53-0e2b7c9a1f64-S99999".into(),
        digest: u64::MAX,
        commands_done: 16_383,
        term: 127,
    };
    let message = link::AgentMessage {
        kind: Some(agent_message::Kind::Attach(attach)),
    };
    assert!(message.encoded_len() <= 64, "{}", message.encoded_len());
}
