//! An agent: the machine of production over a checkpoint log on a faulty disk, links to masters,
//! and simulated containers.
//!
//! What stands here is what `agent/src/shell` does: inputs that wait are stepped together, their
//! volumes are made, their records are synced, and only then anything leaves.

use crate::{
    clock::{Clock, MILLI, SECOND},
    containers::{Coming, Containers, Turn},
    core::{Core, Event as WorldEvent},
    network::{Conn, End, Frame, Hello, Host},
    trace::note,
};
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeMap;
use tepui_agent_machine::{
    Machine, Options,
    input::{Input, Intervals, LinkId},
    model::{link, link::master_message, resources::Resources, wire},
    output::{Output, ProcessCommand, VolumeCommand},
};

/// What an agent has; see [`RESOURCES`].
pub const CPUS: i64 = 8;
/// Megabytes of memory of an agent.
pub const MEM: i64 = 8192;
/// Megabytes of disk of an agent.
pub const DISK: i64 = 20_000;
/// The same as the flag says it.
pub const RESOURCES: &str = "cpus:8;mem:8192;disk:20000;ports:[31000-31019]";

/// First and longest wait between two tries to reach a master.
const FIRST_BACKOFF: u64 = 100 * MILLI;
const LAST_BACKOFF: u64 = 5 * SECOND;
/// A master has this long to take a link.
const CONNECT: u64 = 5 * SECOND;
/// Between two questions whether a quiet link is still there; a third of what production has.
const KEEP_ALIVE: u64 = 7 * SECOND;
/// ... and this long to say whether it leads.
const UNINVITED: u64 = SECOND;

/// What happens inside an agent.
#[derive(Debug)]
pub enum Event {
    /// It starts.
    Start,
    /// The containers of an earlier life have been looked for.
    Recover,
    /// The machine's deadline, of this generation.
    Wake(u64),
    /// What was written last is durable.
    Committed,
    /// A link to this master is tried, of this try.
    Try(usize, u64),
    /// A link that is being opened has had its time.
    Impatient(Conn),
    /// A master that has taken a link says nothing of itself.
    Uninvited(Conn),
    /// Is the other end of a link still there?
    KeepAlive(Conn),
    /// A container has a turn, in this boot of the machine.
    Container(u64, String, Turn),
    /// A disk that was full is tried again.
    DiskAgain,
}

impl Event {
    /// For the trace.
    pub fn kind(&self) -> u64 {
        match self {
            Event::Start => 1,
            Event::Recover => 2,
            Event::Wake(generation) => 3 ^ generation << 4,
            Event::Committed => 4,
            Event::Try(master, number) => 5 ^ (*master as u64) << 4 ^ number << 8,
            Event::Impatient(conn) => 6 ^ conn.0 << 4,
            Event::Container(boot, id, turn) => {
                7 ^ boot << 4 ^ crate::trace::bytes_hash(id.as_bytes()) ^ (*turn as u64) << 8
            }
            Event::DiskAgain => 8,
            Event::Uninvited(conn) => 9 ^ conn.0 << 4,
            Event::KeepAlive(conn) => 10 ^ conn.0 << 4,
        }
    }
}

/// How far the way to one master is open.
#[derive(Debug)]
struct Way {
    conn: Option<Conn>,
    open: bool,
    /// The master has said something.
    said: bool,
    /// When anything last came on the link.
    heard_at: u64,
    /// While the master leads: the machine's name for the link, and the term.
    session: Option<(LinkId, u64)>,
    backoff: u64,
    tries: u64,
}

#[derive(Debug)]
struct Process {
    machine: Machine,
    ways: Vec<Way>,
    masters: BTreeMap<Conn, usize>,
    links: BTreeMap<LinkId, Conn>,
    made: u64,
    waiting: Vec<Input>,
    held: Output,
    committing: bool,
    refused: bool,
    generation: u64,
    stopped: bool,
}

/// An agent with its machine.
#[derive(Debug)]
pub struct Agent {
    /// Its number.
    pub number: usize,
    /// Of its processes; rises.
    pub life: u64,
    /// Boots of the machine.
    pub boot: u64,
    /// Its clock.
    pub clock: Clock,
    /// Nothing can be written but the reserve.
    pub full: bool,
    /// Its containers.
    pub containers: Containers,
    // Durable records, encoded.
    records: Vec<Bytes>,
    executors: Executors,
    process: Option<Process>,
}

impl Agent {
    /// An agent that was never started.
    pub fn new(core: &mut Core, number: usize) -> Agent {
        let drift = core.shape.drift;
        let span = 2 * drift.unsigned_abs();
        let drift = core.random.below(span + 1) as i64 - drift;
        let local = core.random.below(1000 * SECOND);
        Agent {
            number,
            life: 0,
            boot: 0,
            clock: Clock::new(core.now, local, drift),
            full: false,
            containers: Containers::default(),
            records: Vec::new(),
            executors: Executors::default(),
            process: None,
        }
    }

    fn host(&self) -> Host {
        Host::Agent(self.number)
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// The id that a master gave it; empty when none did.
    pub fn id(&self) -> String {
        let process = self.process.as_ref();
        process.map_or_else(String::new, |it| it.machine.view().agent_id)
    }

    /// Totals of resources as the agent has them on its disk.
    pub fn total(&self) -> Vec<wire::Resource> {
        let process = self.process.as_ref();
        process.map_or_else(Vec::new, |it| it.machine.view().total)
    }

    /// Whether it runs nothing because it is to be emptied.
    pub fn drains(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|it| it.machine.view().drain.is_some())
    }

    /// What it has on its disk and waits to be told that it was heard, in words.
    pub fn waits_for(&self) -> Option<String> {
        use link::record::Kind;
        let machine = &self.process.as_ref()?.machine;
        machine.snapshot().into_iter().find_map(|it| match it.kind {
            Some(Kind::AppendUpdate(it)) => Some(format!("an update of task {}", it.task_id)),
            Some(Kind::Operation(it)) => {
                Some(format!("the end of operation {}", it.operation_uuid))
            }
            _ => None,
        })
    }

    /// Starts the process in a while.
    pub fn start_after(&mut self, core: &mut Core, delay: u64) {
        self.later(core, delay, Event::Start);
    }

    fn later(&self, core: &mut Core, delay: u64, event: Event) {
        core.after(delay, WorldEvent::Agent(self.number, self.life, event));
    }

    /// Says what no agent should, on every link to a leader.
    pub fn talk_nonsense(&mut self, core: &mut Core) {
        use link::agent_message::Kind;
        let Some(process) = &self.process else { return };
        let uuid: Bytes = core.random.next().to_le_bytes().repeat(2).into();
        let framework_id = "no framework".to_owned();
        let status = wire::TaskStatus {
            task_id: wire::TaskId {
                value: "no task".to_owned(),
            },
            state: core.random.below(20) as i32,
            uuid: Some(uuid.clone()),
            ..wire::TaskStatus::default()
        };
        let kinds = [
            Kind::CommandsDone(link::CommandsDone { up_to: u64::MAX }),
            Kind::CommandsDone(link::CommandsDone { up_to: 0 }),
            Kind::TaskUpdate(link::TaskUpdate {
                framework_id: framework_id.clone(),
                status_payload: status.encode_to_vec().into(),
                latest_state: 99,
            }),
            Kind::TaskUpdate(link::TaskUpdate {
                framework_id: framework_id.clone(),
                status_payload: uuid.clone(),
                latest_state: 1,
            }),
            Kind::OperationUpdate(link::OperationUpdate {
                framework_id: framework_id.clone(),
                operation_uuid: "no operation".to_owned(),
                status_payload: uuid.clone(),
                latest_state: 1,
            }),
            Kind::ExecutorExited(link::ExecutorExited {
                framework_id: framework_id.clone(),
                executor_id: String::new(),
                status: -1,
            }),
            Kind::ExecutorMessage(link::ExecutorMessage {
                framework_id,
                executor_id: String::new(),
                data: uuid,
            }),
            Kind::Pong(link::Pong { connected: false }),
            Kind::Attach(link::Attach::default()),
            Kind::Register(link::Register::default()),
        ];
        let conns: Vec<Conn> = process.links.values().copied().collect();
        for conn in conns {
            for kind in kinds.clone() {
                let message = link::AgentMessage { kind: Some(kind) };
                let frame = Frame::FromAgent(message.encode_to_vec().into());
                core.send(conn, End::Server, frame);
            }
        }
    }

    /// The process dies. What it was writing may be on the disk or not.
    pub fn crash(&mut self, core: &mut Core) {
        let Some(process) = self.process.take() else {
            return;
        };
        self.life += 1;
        if process.committing && !process.refused && core.random.chance(500) {
            self.append(core, &process.held.records);
        }
        note!(core, self.host(), "crashes");
        core.resume(self.host());
        core.hang_up(self.host());
    }

    /// The machine is booted: the containers are dead, the disk is as it was.
    pub fn reboot(&mut self, core: &mut Core) {
        self.crash(core);
        self.boot += 1;
        core.checkers.tasks.rebooted(self.number);
        self.containers.die(core, self.number);
    }

    /// Everything that it had is deleted.
    pub fn wipe(&mut self, core: &mut Core) {
        self.reboot(core);
        self.records.clear();
        self.executors = Executors::default();
        core.checkers.tasks.wiped(self.number);
        core.checkers.volumes.wiped(self.number);
    }

    fn append(&mut self, core: &mut Core, records: &[link::Record]) {
        for record in records {
            core.checkers.recorded(self.number, record);
            let bytes = Bytes::from(record.encode_to_vec());
            core.trace.bytes(&bytes);
            self.records.push(bytes);
        }
    }

    fn start(&mut self, core: &mut Core) {
        if self.process.is_some() {
            return;
        }
        let read = |it: &Bytes| link::Record::decode(it.clone());
        let records = self.records.iter().map(read).collect::<Result<Vec<_>, _>>();
        let records = match records {
            Ok(it) => it,
            Err(error) => return core.violate("wire", format!("a checkpoint: {error}")),
        };
        let (retry_min, retry_max) = core.shape.timing.retry;
        let span = core::time::Duration::from_nanos;
        let resources = Resources::parse(RESOURCES, "*").unwrap_or_default();
        let options = Options {
            info: wire::AgentInfo {
                hostname: format!("host{}", self.number),
                port: Some(5051),
                resources: resources.to_wire(),
                ..wire::AgentInfo::default()
            },
            address: format!("10.1.{}.{}:5051", self.number / 250, self.number % 250 + 1),
            version: "0.1.0".to_owned(),
            capabilities: [
                "MULTI_ROLE",
                "HIERARCHICAL_ROLE",
                "RESERVATION_REFINEMENT",
                "RESOURCE_PROVIDER",
                "RESIZE_VOLUME",
                "AGENT_OPERATION_FEEDBACK",
                // What stands for the containerizer runs them; see `Executors`.
                "TEPUI_CUSTOM_EXECUTOR",
            ]
            .map(str::to_owned)
            .to_vec(),
            boot_id: format!("boot{}", self.boot),
            intervals: Intervals {
                retry_min: span(retry_min),
                retry_max: span(retry_max),
                registration_backoff: span(SECOND / 2),
                registration_backoff_max: span(10 * SECOND),
            },
            reconfiguration_additive: false,
        };
        let (now, wall) = (self.clock.now(core.now), self.clock.wall(core.now));
        let seed = core.random.next();
        let (machine, birth) = match Machine::birth(records, options, now, wall, seed) {
            Ok(it) => it,
            Err(text) => return core.violate("start", format!("{}: {text}", self.host())),
        };
        note!(core, self.host(), "starts");
        let way = || Way {
            conn: None,
            open: false,
            said: false,
            heard_at: 0,
            session: None,
            backoff: FIRST_BACKOFF,
            tries: 0,
        };
        self.process = Some(Process {
            machine,
            ways: (0..core.shape.masters).map(|_| way()).collect(),
            masters: BTreeMap::new(),
            links: BTreeMap::new(),
            made: 0,
            waiting: Vec::new(),
            held: birth,
            committing: false,
            refused: false,
            generation: 0,
            stopped: false,
        });
        self.commit(core);
        let delay = core.random.between(MILLI, SECOND / 2);
        self.later(core, delay, Event::Recover);
    }

    /// Something happens inside, in the life in which it was begun.
    pub fn handle(&mut self, core: &mut Core, event: Event) {
        match event {
            Event::Start => self.start(core),
            // Containers live without the agent.
            Event::Container(boot, id, turn) => {
                if boot == self.boot {
                    let (event, coming) = self.containers.turn(core, self.number, &id, turn);
                    for it in coming {
                        self.expect(core, it);
                    }
                    if let Some(event) = event {
                        let container_id = id;
                        self.input(
                            core,
                            Input::Container {
                                container_id,
                                event,
                            },
                        );
                    }
                }
            }
            _ if self.process.is_none() => {}
            Event::Recover => self.recover(core),
            Event::Wake(generation) => {
                if self
                    .process
                    .as_ref()
                    .is_some_and(|it| it.generation == generation)
                {
                    self.input(core, Input::Tick);
                }
            }
            Event::Committed => self.committed(core),
            Event::Try(master, number) => self.try_master(core, master, number),
            Event::Impatient(conn) => self.impatient(core, conn),
            Event::Uninvited(conn) => self.uninvited(core, conn),
            Event::KeepAlive(conn) => self.keep_alive(core, conn),
            Event::DiskAgain => {
                if let Some(process) = &mut self.process {
                    process.refused = false;
                    process.committing = false;
                }
                if !self.full {
                    self.input(core, Input::Disk { writable: true });
                }
                self.commit(core);
            }
        }
    }

    fn expect(&self, core: &mut Core, coming: Coming) {
        let event = Event::Container(self.boot, coming.id, coming.turn);
        let life = match coming.by_agent {
            true => self.life,
            // In every life of the agent.
            false => ANY_LIFE,
        };
        core.after(coming.after, WorldEvent::Agent(self.number, life, event));
    }

    fn recover(&mut self, core: &mut Core) {
        let Some(process) = &self.process else { return };
        let expected = process.machine.expected_containers();
        let containers = self.containers.recover(core, self.number, &expected);
        self.input(core, Input::Recovered { containers });
        for master in 0..core.shape.masters {
            let delay = core.random.below(FIRST_BACKOFF);
            self.later(core, delay, Event::Try(master, 0));
        }
    }

    // ------------------------------------------------------------ the loop

    fn input(&mut self, core: &mut Core, input: Input) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.waiting.push(input);
        // A disk that refuses does not stop the machine: what it says is held.
        if !process.committing || process.refused {
            self.step_all(core);
        }
    }

    /// Steps everything that waits, then commits.
    fn step_all(&mut self, core: &mut Core) {
        let Some(process) = &mut self.process else {
            return;
        };
        for input in std::mem::take(&mut process.waiting) {
            let (now, wall) = (self.clock.now(core.now), self.clock.wall(core.now));
            let before = match &input {
                Input::Master { message, .. } => message.fence.clone(),
                _ => None,
            };
            let output = process.machine.step(now, wall, input);
            if core.is_sample() {
                process.machine.check_invariants();
            }
            let verdict = core.checkers.fences.obeyed(self.number, before, &output);
            core.judge("fences", verdict);
            process.held.records.extend(output.records);
            process.held.volumes.extend(output.volumes);
            process.held.send.extend(output.send);
            process.held.containers.extend(output.containers);
            process.held.process.extend(output.process);
        }
        if process.refused {
            // Answers to pings promise nothing.
            let (pongs, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut process.held.send)
                .into_iter()
                .partition(|(_, it)| matches!(it.kind, Some(link::agent_message::Kind::Pong(_))));
            process.held.send = rest;
            for (link, message) in pongs {
                let frame = Frame::FromAgent(message.encode_to_vec().into());
                if let Some(conn) = process.links.get(&link) {
                    core.send(*conn, End::Server, frame);
                }
            }
        }
        self.commit(core);
    }

    /// Makes volumes, and begins to write what is held; when nothing is to be written, it leaves.
    fn commit(&mut self, core: &mut Core) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.committing {
            return;
        }
        for command in std::mem::take(&mut process.held.volumes) {
            let (id, made) = match &command {
                VolumeCommand::Create(it) => (persistence(it), true),
                VolumeCommand::Destroy(it) => (persistence(it), false),
            };
            let verdict = match made {
                true => core.checkers.volumes.made(self.number, &id),
                false => {
                    let it = &mut core.checkers;
                    it.volumes.destroyed(self.number, &id, &it.tasks)
                }
            };
            core.judge("volumes", verdict);
        }
        if process.held.records.is_empty() {
            self.let_out(core);
            return;
        }
        process.committing = true;
        if self.full {
            process.refused = true;
            let told = Input::Disk { writable: false };
            process.waiting.push(told);
            self.later(core, SECOND, Event::DiskAgain);
            return;
        }
        let (low, high) = core.shape.sync;
        let delay = core.random.between(low, high);
        self.later(core, delay, Event::Committed);
    }

    fn committed(&mut self, core: &mut Core) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.committing = false;
        let records = std::mem::take(&mut process.held.records);
        self.append(core, &records);
        if self.records.len() > core.shape.limits.records {
            self.compact();
        }
        self.let_out(core);
    }

    /// The log is written anew with the shortest records of the same fold.
    fn compact(&mut self) {
        if let Some(process) = &self.process {
            let records = process.machine.snapshot();
            self.records = records.iter().map(|it| it.encode_to_vec().into()).collect();
        }
    }

    /// Everything that was held leaves; then what came meanwhile is stepped.
    fn let_out(&mut self, core: &mut Core) {
        let Some(process) = &mut self.process else {
            return;
        };
        let output = std::mem::take(&mut process.held);
        for (link, mut message) in output.send {
            self.executors.say(core, self.number, &mut message);
            if core.trace.is_read() {
                let text = brief(&message);
                note!(core, Host::Agent(self.number), "says {text}");
            }
            let frame = Frame::FromAgent(message.encode_to_vec().into());
            if let Some(conn) = process.links.get(&link) {
                core.send(*conn, End::Server, frame);
            }
        }
        let mut told = Vec::new();
        for command in output.containers {
            let (event, coming) = self.containers.obey(core, self.number, command);
            if let Some(coming) = coming {
                self.expect(core, coming);
            }
            told.extend(event);
        }
        self.tell_executors(core);
        for command in output.process {
            match command {
                ProcessCommand::Reconnect { link, after } => {
                    let process = self.process.as_ref();
                    if let Some(conn) = process.and_then(|it| it.links.get(&link).copied()) {
                        self.close(core, conn, after.as_nanos() as u64);
                    }
                }
                ProcessCommand::FollowLeader(address) => self.follow(core, &address),
                ProcessCommand::Exit(reason) => {
                    note!(core, self.host(), "ends: {reason}");
                    core.checkers.tasks.left(self.number);
                    if let Some(process) = &mut self.process {
                        process.stopped = true;
                    }
                    // Its supervisor starts it again; it is somebody new then.
                    self.crash(core);
                    self.containers.die(core, self.number);
                    self.start_after(core, 3 * SECOND);
                    return;
                }
            }
        }
        let Some(process) = &mut self.process else {
            return;
        };
        for (container_id, event) in told {
            process.waiting.push(Input::Container {
                container_id,
                event,
            });
        }
        if !process.waiting.is_empty() {
            self.step_all(core);
            return;
        }
        process.generation += 1;
        if let Some(at) = process.machine.next_deadline() {
            let due = self.clock.true_time(core.now, at).max(core.now + 1_000);
            let event = Event::Wake(process.generation);
            core.at(due, WorldEvent::Agent(self.number, self.life, event));
        }
    }

    // ------------------------------------------------------------ links

    fn try_master(&mut self, core: &mut Core, master: usize, number: u64) {
        let host = self.host();
        let Some(process) = &mut self.process else {
            return;
        };
        let way = &mut process.ways[master];
        if way.conn.is_some() || way.tries != number || process.stopped {
            return;
        }
        let conn = core.open(host, master, Hello::AgentLink);
        way.conn = Some(conn);
        way.open = false;
        way.said = false;
        process.masters.insert(conn, master);
        self.later(core, CONNECT, Event::Impatient(conn));
    }

    /// The way to a master is closed, and tried again after a while.
    fn again(&mut self, core: &mut Core, conn: Conn, delay: Option<u64>) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(master) = process.masters.remove(&conn) else {
            return;
        };
        let way = &mut process.ways[master];
        let was_open = std::mem::take(&mut way.open);
        let session = way.session.take();
        way.conn = None;
        way.tries += 1;
        let tries = way.tries;
        let bound = match (was_open, delay) {
            (true, delay) => {
                way.backoff = FIRST_BACKOFF;
                delay.unwrap_or(FIRST_BACKOFF).max(FIRST_BACKOFF)
            }
            (false, _) => {
                way.backoff = (way.backoff * 2).min(LAST_BACKOFF);
                way.backoff
            }
        };
        let wait = core.random.between(bound / 2, bound);
        self.later(core, wait, Event::Try(master, tries));
        if let Some((link, _)) = session {
            self.session_ended(core, link);
        }
        if was_open {
            self.wake_all(core);
        }
    }

    fn session_ended(&mut self, core: &mut Core, link: LinkId) {
        if let Some(process) = &mut self.process {
            process.links.remove(&link);
            self.input(core, Input::LinkDown { link });
        }
    }

    /// The machine hears of a link once its master leads.
    fn session_begins(&mut self, core: &mut Core, master: usize, conn: Conn, term: u64) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.made += 1;
        let link = LinkId(process.made);
        process.links.insert(link, conn);
        let older = process.ways[master].session.replace((link, term));
        if let Some((older, _)) = older {
            self.session_ended(core, older);
        }
        self.input(core, Input::LinkUp { link, term });
    }

    /// As a master of an older release, it leads, or it would have refused the link.
    fn uninvited(&mut self, core: &mut Core, conn: Conn) {
        let Some(process) = &self.process else { return };
        if let Some(master) = process.masters.get(&conn).copied()
            && process.ways[master].open
            && !process.ways[master].said
        {
            self.session_begins(core, master, conn, 0);
        }
    }

    /// Another master may lead now.
    fn wake_all(&mut self, core: &mut Core) {
        for master in 0..core.shape.masters {
            self.wake_way(core, master);
        }
    }

    fn wake_way(&mut self, core: &mut Core, master: usize) {
        let Some(way) = self.process.as_mut().map(|it| &mut it.ways[master]) else {
            return;
        };
        if way.conn.is_none() {
            way.tries += 1;
            let tries = way.tries;
            self.later(core, FIRST_BACKOFF / 4, Event::Try(master, tries));
        }
    }

    fn close(&mut self, core: &mut Core, conn: Conn, after: u64) {
        core.send(conn, End::Server, Frame::Closed);
        self.again(core, conn, Some(after));
    }

    /// A quiet link is asked whether it still is one, and closed when nothing comes back.
    fn keep_alive(&mut self, core: &mut Core, conn: Conn) {
        let Some(process) = &self.process else { return };
        let Some(master) = process.masters.get(&conn).copied() else {
            return;
        };
        if core.now - process.ways[master].heard_at >= 2 * KEEP_ALIVE {
            self.close(core, conn, 0);
            return;
        }
        core.send(conn, End::Server, Frame::Ping);
        self.later(core, KEEP_ALIVE, Event::KeepAlive(conn));
    }

    fn impatient(&mut self, core: &mut Core, conn: Conn) {
        let waits = self.process.as_ref().is_some_and(|process| {
            process
                .masters
                .get(&conn)
                .is_some_and(|master| !process.ways[*master].open)
        });
        if waits {
            core.send(conn, End::Server, Frame::Closed);
            self.again(core, conn, None);
        }
    }

    fn follow(&mut self, core: &mut Core, address: &str) {
        if let Some(master) = crate::world::master_at(address) {
            self.wake_way(core, master);
        }
    }

    /// A frame of a master.
    pub fn frame(&mut self, core: &mut Core, conn: Conn, frame: Frame) {
        core.net.read(conn, End::Client);
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(master) = process.masters.get(&conn).copied() else {
            return;
        };
        process.ways[master].heard_at = core.now;
        match frame {
            Frame::Accepted(_) => {
                self.later(core, KEEP_ALIVE, Event::KeepAlive(conn));
                let Some(process) = &mut self.process else {
                    return;
                };
                process.ways[master].open = true;
                process.ways[master].backoff = FIRST_BACKOFF;
                self.later(core, UNINVITED, Event::Uninvited(conn));
            }
            Frame::ToAgent(bytes) => match link::MasterMessage::decode(bytes) {
                Ok(message) => self.heard(core, master, conn, message),
                Err(error) => core.violate("wire", format!("frame of a master: {error}")),
            },
            Frame::Closed => self.again(core, conn, None),
            Frame::Open(_)
            | Frame::Ping
            | Frame::Pong
            | Frame::Refused(_)
            | Frame::FromAgent(_)
            | Frame::Call(_)
            | Frame::Event(_)
            | Frame::Kept(_)
            | Frame::Watched(_)
            | Frame::Answer(..) => {}
        }
    }
}

impl Agent {
    /// Tells leaders of executors that have ended.
    fn tell_executors(&mut self, core: &mut Core) {
        let Some(process) = &self.process else { return };
        let living = core.checkers.lives.executors_on(self.number);
        let expected = process.machine.expected_containers();
        for (framework_id, executor_id) in self.executors.ended(&living, &expected) {
            for conn in process.links.values() {
                let exited = link::ExecutorExited {
                    framework_id: framework_id.clone(),
                    executor_id: executor_id.clone(),
                    status: 0,
                };
                let kind = Some(link::agent_message::Kind::ExecutorExited(exited));
                let message = link::AgentMessage { kind };
                let frame = Frame::FromAgent(message.encode_to_vec().into());
                core.send(*conn, End::Server, frame);
            }
        }
    }

    fn heard(&mut self, core: &mut Core, master: usize, conn: Conn, message: link::MasterMessage) {
        let Some(process) = &mut self.process else {
            return;
        };
        let way = &mut process.ways[master];
        way.said = true;
        if let Some(master_message::Kind::Leader(leader)) = &message.kind {
            let term = message.fence.as_ref().map_or(0, |it| it.term);
            match way.session {
                // What it had of this link is void.
                session if !leader.here => {
                    let ended = session.map(|it| it.0);
                    way.session = None;
                    if let Some(link) = ended {
                        self.session_ended(core, link);
                    }
                    self.follow(core, &leader.address);
                }
                Some((_, current)) if current == term => {}
                _ => self.session_begins(core, master, conn, term),
            }
        }
        if core.trace.is_read() {
            let text = format!("{:?}", message.kind);
            let text: String = text.chars().take(160).collect();
            note!(core, self.host(), "hears of master {master}: {text}");
        }
        let mut message = message;
        self.executors.hear(&mut message);
        let process = self.process.as_ref();
        if let Some((link, _)) = process.and_then(|it| it.ways[master].session) {
            let message = Box::new(message);
            self.input(core, Input::Master { link, message });
        }
    }
}

/// Executors of frameworks, which the agents of today do not run: for this machine a task under one
/// is a command task, and what stands for the containerizer keeps the executor beside it, of one
/// task each. So the masters' half is under test before agents have theirs.
#[derive(Debug, Default)]
struct Executors {
    // By framework and executor: the number of the launch, the container, and what it is.
    known: BTreeMap<(String, String), Known>,
    /// Highest number of a command that the agent has confirmed.
    done: u64,
    agent_id: String,
}

#[derive(Debug)]
struct Known {
    sequence: u64,
    container: String,
    info: Bytes,
    resources: Vec<wire::Resource>,
    // Leaders were told of its end since they last took the agent in.
    told: bool,
}

impl Executors {
    /// A frame of a master: the machine is to see command tasks.
    fn hear(&mut self, message: &mut link::MasterMessage) {
        use tepui_agent_machine::model::log::command::Kind;
        match &mut message.kind {
            Some(master_message::Kind::Registered(it)) => {
                if self.agent_id != it.agent_id {
                    self.agent_id = it.agent_id.clone();
                    self.known.clear();
                    self.done = 0;
                }
                for known in self.known.values_mut() {
                    known.told = false;
                }
            }
            Some(master_message::Kind::Command(command)) => {
                let sequence = command.sequence;
                if let Some(Kind::RunTask(run)) = &mut command.kind
                    && !run.executor_info_payload.is_empty()
                {
                    let info = std::mem::take(&mut run.executor_info_payload);
                    let executor = wire::ExecutorInfo::decode(info.clone()).unwrap_or_default();
                    let key = (run.framework_id.clone(), executor.executor_id.value);
                    let known = Known {
                        sequence,
                        container: run.container_id.clone(),
                        info,
                        resources: std::mem::take(&mut run.executor_resources),
                        told: false,
                    };
                    self.known.entry(key).or_insert(known);
                }
            }
            _ => {}
        }
    }

    /// A frame of the agent: executors that live belong into a registration.
    fn say(&mut self, core: &Core, agent: usize, message: &mut link::AgentMessage) {
        match &mut message.kind {
            Some(link::agent_message::Kind::CommandsDone(it)) => {
                self.done = self.done.max(it.up_to);
            }
            Some(link::agent_message::Kind::Register(register)) => {
                let living = core.checkers.lives.executors_on(agent);
                let known = self
                    .known
                    .iter()
                    .filter(|(key, _)| living.contains_key(&key.1));
                register.executors = known
                    .map(|(key, it)| link::AgentExecutor {
                        framework_id: key.0.clone(),
                        executor_info_payload: it.info.clone(),
                        resources: it.resources.clone(),
                    })
                    .collect();
            }
            _ => {}
        }
    }

    /// Those that will never live again, as framework and executor, each once.
    fn ended(
        &mut self,
        living: &BTreeMap<String, String>,
        expected: &[String],
    ) -> Vec<(String, String)> {
        let done = self.done;
        let over = self.known.iter_mut().filter(|(key, it)| {
            !it.told
                && it.sequence <= done
                && !living.contains_key(&key.1)
                && !expected.contains(&it.container)
        });
        let mut ended = Vec::new();
        for (key, it) in over {
            it.told = true;
            ended.push(key.clone());
        }
        ended
    }
}

/// Containers outlive the agent's processes.
pub const ANY_LIFE: u64 = u64::MAX;

fn persistence(resource: &wire::Resource) -> String {
    let disk = resource.disk.as_ref();
    let persistence = disk.and_then(|it| it.persistence.as_ref());
    persistence.map_or_else(String::new, |it| it.id.clone())
}

/// A frame of an agent in a line.
fn brief(message: &link::AgentMessage) -> String {
    match &message.kind {
        Some(link::agent_message::Kind::TaskUpdate(it)) => {
            let status = wire::TaskStatus::decode(it.status_payload.clone()).unwrap_or_default();
            format!(
                "{} is {}",
                status.task_id.value,
                status.state().as_str_name()
            )
        }
        Some(link::agent_message::Kind::Register(it)) => {
            format!("Register {} with {} tasks", it.agent_id, it.tasks.len())
        }
        kind => {
            let text = format!("{kind:?}");
            text.chars().take(160).collect()
        }
    }
}
