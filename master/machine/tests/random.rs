//! Random histories, garbage included: no panic, every invariant after every step, every
//! accepted task answered, and the same outputs when repeated.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use support::command::{self, Words};
use support::{World, trace};
use tepui_master_machine::input::ConnectionId;
use tepui_master_machine::output::{Destination, Message, Output};
use tepui_model::event::Event;
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::resources::{Resources, Scalar};

const HISTORIES: u64 = 60;
const STEPS: usize = 200;
const CALM_STEPS: usize = 60;

#[test]
fn random_histories_keep_every_promise() {
    let mut launched = 0;
    for seed in 0..HISTORIES {
        let mut random = Random(seed);
        let mut history = History::new(seed);
        let mut commands = Vec::new();
        for step in 0..STEPS {
            let command = match FIRST.get(step) {
                Some(command) => (*command).to_owned(),
                None => history.next(&mut random),
            };
            commands.push(command.clone());
            let step = catch_unwind(AssertUnwindSafe(|| history.perform(&command)));
            if step.is_err() {
                panic!(
                    "seed {seed}, the last of these commands:\n> {}",
                    commands.join("\n> ")
                );
            }
        }
        for command in LAST {
            commands.push((*command).to_owned());
            history.perform(command);
        }
        let mut calm = 0;
        while calm < CALM_STEPS {
            let command = history.next(&mut random);
            if is_calm(&command) {
                calm += 1;
                commands.push(command.clone());
                history.perform(&command);
            }
        }
        commands.push("tick 2ms".to_owned());
        history.perform("tick 2ms");
        let idle = history.idle();
        assert!(
            idle.is_empty(),
            "seed {seed}: nobody is offered {idle:?} after\n> {}",
            commands.join("\n> ")
        );
        let mut again = History::new(seed);
        for command in &commands {
            again.perform(command);
        }
        assert!(
            history.trace == again.trace,
            "seed {seed}: outputs differ when repeated"
        );
        launched += history.launched;
    }
    // Or the test would test refusals alone.
    assert!(
        launched > HISTORIES as usize * 3,
        "only {launched} launches"
    );
}

/// So that something can happen at all.
const FIRST: &[&str] = &[
    "pongs a0",
    "pongs a1",
    "pongs a2",
    "agent a0 host=h0 addr=127.0.0.1:5050 res=cpus:4;mem:512;disk:1000",
    "agent a1 host=h1 addr=127.0.0.1:5051 res=cpus:4;mem:512;disk:1000",
    "subscribe c0 roles=a principal=p caps=RESERVATION_REFINEMENT,SHARED_RESOURCES failover=1000",
    "subscribe c1 failover=1000",
    "tick 2ms",
];

/// Somebody who takes whatever there is.
const LAST: &[&str] = &[
    "whitelist",
    "operator quota a",
    "subscribe c9 failover=1000",
    "tick 2ms",
];

/// Nothing that keeps offers away from whoever came last.
fn is_calm(command: &str) -> bool {
    match command.split(' ').next().unwrap_or_default() {
        "accept" => command.contains(" refuse=0 "),
        "update" | "acknowledge" | "done" | "agent" | "detach" | "kill" | "subscribe"
        | "disconnect" | "behind" | "caught-up" => true,
        "tick" => command.ends_with("ms"),
        _ => false,
    }
}

struct History {
    world: World,
    trace: String,
    launched: usize,
    // Framework and stream of each scheduler's connection, as last subscribed.
    schedulers: BTreeMap<String, String>,
    // Agent of each link, as last registered.
    agents: BTreeMap<String, String>,
    tasks: u64,
}

impl History {
    fn new(seed: u64) -> History {
        let mut world = World::new();
        world.seed = seed;
        let output = world.birth();
        let trace = trace::output(&world, &output);
        History {
            world,
            trace,
            launched: 0,
            schedulers: BTreeMap::new(),
            agents: BTreeMap::new(),
            tasks: 0,
        }
    }

    fn perform(&mut self, text: &str) {
        let words = Words::parse(text);
        let outputs = match words.plain(0) {
            "birth" => {
                self.schedulers.clear();
                self.agents.clear();
                vec![self.world.birth()]
            }
            "rebirth" => self.world.rebirth(),
            "pongs" => {
                let connection = self.world.connection(words.plain(1));
                self.world.pongs.insert(connection);
                Vec::new()
            }
            "tick" => {
                let outputs = self.world.advance(command::duration(words.plain(1)));
                outputs.into_iter().map(|(_, output)| output).collect()
            }
            _ => {
                let input = command::input(&mut self.world, text).expect("a command");
                vec![self.world.step(input)]
            }
        };
        for output in &outputs {
            if words.plain(0) == "accept" {
                self.check_answered(text, output);
            }
            self.learn(output);
            let _ = write!(self.trace, "{}", trace::output(&self.world, output));
        }
    }

    /// Every task of an accepted call was launched or its framework was told otherwise.
    fn check_answered(&mut self, text: &str, output: &Output) {
        let accepted = output.send.iter().any(|outgoing| match &outgoing.message {
            Message::Answer { status, .. } => status.http_code() == 202,
            _ => false,
        });
        if !accepted {
            return;
        }
        let mut launched = BTreeSet::new();
        for operation in &output.log {
            if let Some(Kind::LaunchTask(launch)) = &operation.kind
                && let Some(task) = &launch.task
            {
                launched.insert(task.task_id.clone());
                self.launched += 1;
            }
        }
        let mut told = BTreeSet::new();
        for outgoing in &output.send {
            if let Message::Event { event, .. } = &outgoing.message
                && let Event::Update(status) = &**event
            {
                told.insert(status.task_id.value.clone());
            }
        }
        for operation in text.split(" | ").skip(1) {
            let words = Words::parse(operation);
            if matches!(words.plain(0), "launch" | "group") {
                for id in words.plain(1).split(',') {
                    assert!(
                        launched.contains(id) || told.contains(id),
                        "task {id} was neither launched nor answered"
                    );
                }
            }
        }
    }

    /// What attached agents have and nobody uses or is offered.
    fn idle(&self) -> Vec<String> {
        let mut idle = Vec::new();
        for (_, agent_id) in &self.world.survivors.agents {
            let Some(row) = self.world.replica.agent(agent_id) else {
                continue;
            };
            let admitted =
                row.state() == log::AgentState::Admitted && row.disconnected_at_ns.is_none();
            if !admitted || row.deactivated || row.drain.is_some() {
                continue;
            }
            let mut free = Resources::from_wire(&row.total)
                .expect("valid")
                .unreserved();
            for (_, _, task) in self.world.replica.tasks_of_agent(agent_id) {
                if !task.unreachable && !tepui_state::is_terminal(task.state) {
                    free.saturating_sub(
                        &Resources::from_wire(&task.resources)
                            .expect("valid")
                            .unallocate(),
                    );
                }
            }
            for (_, _, executor) in self.world.replica.executors_of_agent(agent_id) {
                free.saturating_sub(
                    &Resources::from_wire(&executor.resources)
                        .expect("valid")
                        .unallocate(),
                );
            }
            for offer in self
                .world
                .offers
                .values()
                .filter(|offer| offer.agent_id == *agent_id)
            {
                free.saturating_sub(&offer.resources);
            }
            let some = |amount: Option<Scalar>, least: Scalar| amount.is_some_and(|it| it >= least);
            if some(free.cpus(), Scalar::from_millis(10))
                || some(free.mem(), Scalar::from_units(32))
            {
                idle.push(format!("{agent_id}: {free}"));
            }
        }
        idle
    }

    fn learn(&mut self, output: &Output) {
        for outgoing in &output.send {
            match (&outgoing.to, &outgoing.message) {
                (Destination::Scheduler(connection), Message::Event { event, .. }) => {
                    if let Event::Subscribed { framework_id, .. } = &**event {
                        self.schedulers
                            .insert(self.name(*connection), framework_id.to_string());
                    }
                }
                (Destination::Agent(connection), Message::ToAgent(message)) => {
                    if let Some(ToAgent::Registered(registered)) = &message.kind {
                        self.agents
                            .insert(self.name(*connection), registered.agent_id.clone());
                    }
                }
                _ => {}
            }
        }
    }

    fn name(&self, connection: ConnectionId) -> String {
        self.world.connection_name(connection)
    }

    // ------------------------------------------------------------ the next command

    fn next(&mut self, random: &mut Random) -> String {
        match random.below(100) {
            0 if random.below(2) == 0 => "birth".to_owned(),
            0 => "rebirth".to_owned(),
            1..=6 => self.subscribe(random),
            7 => format!("disconnect c{}", random.below(6)),
            8 => format!(
                "{} c{}",
                random.of(&["disconnect", "behind", "caught-up"]),
                random.below(6)
            ),
            9..=16 => self.register(random),
            17 => format!("detach a{}", random.below(6)),
            18 => format!("pongs a{}", random.below(6)),
            19 if random.below(3) == 0 => "tick 700s".to_owned(),
            19..=34 => format!(
                "tick {}",
                random.of(&[
                    "1ms", "2ms", "2ms", "2ms", "5ms", "100ms", "1s", "5s", "20s"
                ])
            ),
            35..=54 => self.accept(random),
            55..=59 => {
                let rest = format!(
                    " {} refuse={}",
                    self.offers(random),
                    random.of(&["0", "5", "-1", "1e9"])
                );
                self.scheduler(random, "decline", &rest)
            }
            60..=75 => self.update(random),
            76..=81 => self.acknowledge(random),
            82..=86 => self.call(random),
            87 | 88 => format!("done a{} {}", random.below(6), random.below(12)),
            89 => format!(
                "oversubscribe a{}{}",
                random.below(6),
                random.of(&[
                    "",
                    " cpus:0.5",
                    " cpus:2",
                    " cpus:5;mem:64",
                    " cpus:1 plain=mem:1"
                ])
            ),
            90 => format!("whitelist{}", random.of(&["", "", " hosts=h0,h1"])),
            91..=96 => self.operator(random),
            _ => self.garbage(random),
        }
    }

    fn subscribe(&self, random: &mut Random) -> String {
        let known: Vec<&String> = self.schedulers.values().collect();
        let id = match random.below(4) {
            0 if !known.is_empty() => {
                format!(" id={}", known[random.below(known.len() as u64) as usize])
            }
            1 => random
                .of(&[" id=m1-0000", " id=m1-0001", " id=nobody-0001", " id=a/b"])
                .to_owned(),
            _ => String::new(),
        };
        let shape = random.of(&[
            "",
            " roles=a,b",
            " roles=a principal=p caps=RESERVATION_REFINEMENT",
            " caps=PARTITION_AWARE",
            " caps=REVOCABLE_RESOURCES",
            " roles=a,a",
        ]);
        let failover = random.of(&["", " failover=50", " failover=1000", " failover=1000"]);
        format!(
            "subscribe c{}{id}{shape}{failover}{}",
            random.below(6),
            random.of(&["", "", " suppressed=a", " auth=p"])
        )
    }

    fn register(&self, random: &mut Random) -> String {
        let link = random.below(6);
        let host = random.below(4);
        let known: Vec<String> = self
            .world
            .replica
            .agents()
            .map(|(id, _)| id.to_string())
            .collect();
        let mut text = format!("agent a{link} host=h{host} addr=127.0.0.1:{}", 5050 + host);
        if random.below(3) > 0 && !known.is_empty() {
            let id = &known[random.below(known.len() as u64) as usize];
            let _ = write!(
                text,
                " id={id} fence={}.1 done={}",
                random.below(2),
                random.below(9)
            );
            // The machine it was on, mostly.
            if random.below(8) > 0
                && let Some(row) = self.world.replica.agent(&id.as_str().into())
                && let Some((_, port)) = row.address.rsplit_once(':')
            {
                let host = port.parse::<u64>().unwrap_or(5050).saturating_sub(5050);
                text = text.replacen(
                    &format!(
                        "host=h{}",
                        text.split("host=h")
                            .nth(1)
                            .and_then(|it| it.split(' ').next())
                            .unwrap_or("0")
                    ),
                    &format!("host=h{host}"),
                    1,
                );
                let start = text.find("addr=").unwrap_or(0);
                let end = text[start..].find(' ').map_or(text.len(), |it| start + it);
                text.replace_range(start..end, &format!("addr={}", row.address));
            }
            for (framework, task, row) in self.world.replica.tasks() {
                if row.agent_id == *id && random.below(3) > 0 {
                    let state = random.of(&[
                        "TASK_RUNNING",
                        "TASK_RUNNING",
                        "TASK_FINISHED",
                        "TASK_STAGING",
                    ]);
                    let _ = write!(text, " task={framework}/{task}:{state}");
                }
            }
        }
        if random.below(6) == 0 {
            let _ = write!(
                text,
                " task=stranger-0001/x:TASK_RUNNING framework=stranger-0001"
            );
        }
        if random.below(3) > 0 {
            text.push_str(" caps=MULTI_ROLE,HIERARCHICAL_ROLE,RESERVATION_REFINEMENT,RESOURCE_PROVIDER,AGENT_OPERATION_FEEDBACK,RESIZE_VOLUME,TEPUI_CUSTOM_EXECUTOR,TEPUI_TASK_GROUP");
        }
        text.push_str(random.of(&[
            " res=cpus:4;mem:512;disk:1000",
            " res=cpus:4;mem:512;disk:1000",
            " res=cpus:6;mem:512;disk:1000",
            " res=cpus:2;mem:64",
        ]));
        text
    }

    /// A call of a scheduler that is subscribed, or of nobody.
    fn scheduler(&self, random: &mut Random, kind: &str, rest: &str) -> String {
        let all: Vec<_> = self.schedulers.iter().collect();
        if all.is_empty() {
            return format!("{kind} c0{rest}");
        }
        let (connection, framework) = all[random.below(all.len() as u64) as usize];
        format!("{kind} {connection}{rest} fw={framework}")
    }

    fn offers(&self, random: &mut Random) -> String {
        let agents: Vec<_> = self.agents.values().collect();
        match random.below(10) {
            0 => random
                .of(&["-", "m1-O0", "nonsense", "m1-O1,m1-O1"])
                .to_owned(),
            _ if agents.is_empty() => "none".to_owned(),
            _ => format!("@{}", agents[random.below(agents.len() as u64) as usize]),
        }
    }

    fn accept(&mut self, random: &mut Random) -> String {
        let outstanding: Vec<_> = self.world.offers.values().collect();
        // Mostly one's own offer; now and then whatever.
        let (offers, agent, framework) = if outstanding.is_empty() || random.below(8) == 0 {
            let offers = self.offers(random);
            let agent = offers.trim_start_matches('@').to_owned();
            (offers, agent, "m1-0000".to_owned())
        } else {
            let offer = outstanding[random.below(outstanding.len() as u64) as usize];
            (
                offer.id.to_string(),
                offer.agent_id.to_string(),
                offer.framework_id.to_string(),
            )
        };
        let connection = self
            .schedulers
            .iter()
            .find(|(_, id)| **id == framework)
            .map_or_else(|| "c0".to_owned(), |(connection, _)| connection.clone());
        let mut rest = format!(" {offers} refuse={}", random.of(&["0", "0", "5", "100"]));
        let _ = write!(rest, " fw={framework}");
        for _ in 0..random.below(4) {
            self.tasks += 1;
            let task = match random.below(5) {
                0 => random.below(self.tasks),
                _ => self.tasks,
            };
            let operation = match random.below(15) {
                0..=5 => format!(
                    "launch t{task} {} agent={agent}",
                    random.of(&["cpus:1;mem:32", "cpus:0.1;mem:1", "cpus:9;mem:1", "none"])
                ),
                6 => format!(
                    "launch t{task},u{task} cpus:0.5;mem:32 agent={agent} executor=e{}",
                    random.below(2)
                ),
                7 => format!("group t{task},u{task} cpus:0.1;mem:32 agent={agent} fw={framework}"),
                8 => format!("launch t{task} mem:1 cpus=-1 agent={agent}"),
                14 => format!("launch t{task} mem:1 revocable=cpus:0.5 agent={agent}"),
                9 => format!("reserve cpus:1;disk:100 role=a principal=p opid=o{task}"),
                10 => "unreserve cpus:1;disk:100 role=a principal=p".to_owned(),
                11 => format!(
                    "create volume=v{} role=a principal=p size=50{}",
                    random.below(3),
                    random.of(&["", " shared=1"])
                ),
                12 => format!(
                    "destroy volume=v{} role=a principal=p size=50 opid=o{task}{}",
                    random.below(3),
                    random.of(&["", " shared=1"])
                ),
                _ => format!(
                    "launch t{task},s{task} mem:1 volume=v{} size=50 role=a principal=p agent={agent}{}",
                    random.below(3),
                    random.of(&["", " shared=1"])
                ),
            };
            let _ = write!(rest, " | {operation}");
        }
        format!("accept {connection}{rest}")
    }

    fn update(&self, random: &mut Random) -> String {
        let tasks: Vec<_> = self.world.replica.tasks().collect();
        let state = random.of(&[
            "TASK_STARTING",
            "TASK_RUNNING",
            "TASK_RUNNING",
            "TASK_FINISHED",
            "TASK_FAILED",
            "TASK_GONE",
        ]);
        let latest = random.of(&["", "", "", " latest=TASK_KILLED"]);
        let uuid = random.below(200);
        if tasks.is_empty() || random.below(10) == 0 {
            return format!(
                "update a{} m1-0000/t{} {state}{latest} uuid={uuid}",
                random.below(6),
                random.below(9)
            );
        }
        let (framework, task, row) = tasks[random.below(tasks.len() as u64) as usize];
        let link = self
            .agents
            .iter()
            .find(|(_, id)| **id == row.agent_id)
            .map_or("a0", |(link, _)| link);
        format!("update {link} {framework}/{task} {state}{latest} uuid={uuid}")
    }

    fn acknowledge(&self, random: &mut Random) -> String {
        let tasks: Vec<_> = self
            .world
            .replica
            .tasks()
            .filter(|(_, _, row)| !row.forwarded_uuid.is_empty())
            .collect();
        if tasks.is_empty() {
            return self.scheduler(random, "acknowledge", " t1 agent=m1-S0 uuid=1");
        }
        let (framework, task, row) = tasks[random.below(tasks.len() as u64) as usize];
        let connection = self
            .schedulers
            .iter()
            .find(|(_, id)| id.as_str() == framework.as_str())
            .map_or("c0", |(connection, _)| connection);
        let uuid = row.forwarded_uuid[0];
        format!(
            "acknowledge {connection} {task} agent={} uuid={uuid} fw={framework}",
            row.agent_id
        )
    }

    fn call(&self, random: &mut Random) -> String {
        let task = random.below(self.tasks + 1);
        let (kind, rest) = match random.below(10) {
            0 => ("kill", format!(" t{task}")),
            1 => ("kill", format!(" t{task} grace=5")),
            2 => ("reconcile", String::new()),
            3 => ("reconcile", format!(" t{task} t{task}@m1-S0 x@nobody")),
            4 => ("suppress", random.of(&["", " roles=a"]).to_owned()),
            5 => ("revive", random.of(&["", " roles=zzz"]).to_owned()),
            6 => (
                "reconcile-operations",
                random.of(&["", " o1@m1-S0"]).to_owned(),
            ),
            7 => ("shutdown", " e0 agent=m1-S0".to_owned()),
            8 => ("teardown", String::new()),
            _ => (
                "acknowledge-operation",
                format!(" o{task} agent=m1-S0 uuid=1"),
            ),
        };
        self.scheduler(random, kind, &rest)
    }

    fn operator(&self, random: &mut Random) -> String {
        let agents: Vec<_> = self
            .world
            .replica
            .agents()
            .map(|(id, _)| id.to_string())
            .collect();
        let agent = match agents.is_empty() {
            true => "nobody".to_owned(),
            false => agents[random.below(agents.len() as u64) as usize].clone(),
        };
        match random.below(14) {
            0 if random.below(4) == 0 => format!("operator gone {agent}"),
            1 => format!("operator deactivate {agent}"),
            0 | 2..=4 => format!("operator reactivate {agent}"),
            5 => format!("operator drain {agent}{}", random.of(&["", " mark_gone=1"])),
            6 => "operator weights weight=a:3000000".to_owned(),
            7 => format!(
                "operator quota a{}",
                random.of(&["", " guarantees=cpus:1 limits=cpus:2"])
            ),
            8 => format!("operator reserve {agent} cpus:1 role=a principal=p"),
            9 => format!("operator unreserve {agent} cpus:1 role=a principal=p"),
            10 => format!("operator schedule host=h{}", random.below(4)),
            11 if random.below(3) == 0 => format!("operator down host=h{}", random.below(4)),
            11 | 12 => format!("operator up host=h{}", random.below(4)),
            _ => "operator schedule empty=1".to_owned(),
        }
    }

    fn garbage(&self, random: &mut Random) -> String {
        let link = random.below(8);
        match random.below(8) {
            0 => format!("agent a{link} garbage=x"),
            1 => format!("agent a{link} addr=nowhere"),
            2 => format!("unregister a{link}"),
            3 => format!("refused a{link}"),
            4 => format!("exited a{link} m1-0000 e0"),
            5 => format!("hello a{link} m1-0000 e0"),
            6 => format!("opupdate a{link} o1 OPERATION_FINISHED uuid=1"),
            _ => format!(
                "revive c{link} stream={}",
                random.of(&["none", "other", "none", "other", "inside"])
            ),
        }
    }
}

/// splitmix64: enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}
