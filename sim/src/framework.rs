//! A framework's scheduler: finds the leader, subscribes, answers offers in its own way,
//! acknowledges, reconciles, fails over.
//!
//! It speaks as clients do over HTTP, one call after the other, each on a connection of its own,
//! or as they do over gRPC, on the stream of the subscription without an answer.

use crate::{
    checkers::tasks::Answer,
    choices,
    clock::{MILLI, SECOND},
    core::{Core, Event as WorldEvent},
    network::{Conn, End, Frame, Hello, Host},
    random::Random,
    trace::note,
    workload::{Kind, Style},
};
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tepui_model::wire::{
    self, TaskState,
    framework_info::capability::Type as Capability,
    scheduler::{self, call, event},
    task_status::Reason,
};

/// A master has this long to answer.
const PATIENCE: u64 = 5 * SECOND;
/// First and longest wait between two tries to subscribe.
const FIRST_BACKOFF: u64 = 50 * MILLI;
const LAST_BACKOFF: u64 = SECOND;

/// What happens inside a scheduler.
#[derive(Debug)]
pub enum Event {
    /// It starts.
    Start,
    /// It tries to subscribe, of this try.
    Subscribe(u64),
    /// What it waits for on this connection has had its time.
    Impatient(Conn),
    /// Its own clock.
    Beat,
    /// It acknowledges what it heard a while ago.
    Acknowledge(Box<call::Acknowledge>),
    /// The same of an operation.
    AcknowledgeOperation(Box<call::AcknowledgeOperationStatus>),
    /// It answers offers that it kept.
    Answer(Vec<wire::Offer>),
    /// It answers all that it has.
    AnswerAll,
    /// It reads its events again.
    ReadOn,
}

impl Event {
    /// For the trace.
    pub fn kind(&self) -> u64 {
        match self {
            Event::Start => 1,
            Event::Subscribe(number) => 2 ^ number << 4,
            Event::Impatient(conn) => 3 ^ conn.0 << 4,
            Event::Beat => 4,
            Event::Acknowledge(_) => 5,
            Event::Answer(offers) => 6 ^ (offers.len() as u64) << 4,
            Event::ReadOn => 7,
            Event::AnswerAll => 8,
            Event::AcknowledgeOperation(_) => 9,
        }
    }
}

/// What a framework remembers of a task, also when its scheduler dies.
#[derive(Clone, Debug)]
pub struct Known {
    /// The agent's id.
    pub agent: String,
    /// What was heard last.
    pub state: Option<TaskState>,
    /// It wants the task to end.
    pub kill: bool,
    /// The master took note of that.
    pub kill_taken: bool,
}

/// What a framework has on a disk of its own, which never fails.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// As the master named it.
    pub id: Option<String>,
    /// Tasks that have not ended as far as is known.
    pub tasks: BTreeMap<String, Known>,
    /// Tasks made so far.
    pub made: u64,
    /// Its volumes, and what they are used for.
    pub volumes: BTreeMap<String, choices::Volume>,
}

/// What a call is about, for when its answer comes.
#[derive(Clone, Debug)]
pub(crate) enum About {
    /// Offers are answered.
    Answer {
        /// Tasks that are launched.
        tasks: Vec<String>,
        /// Offers of its own.
        offers: Vec<String>,
    },
    /// This one is to end.
    Kill(String),
    /// This is refused for long.
    Refuse(Box<wire::Offer>),
    /// Nothing that needs an answer.
    Nothing,
}

#[derive(Debug)]
struct Stream {
    conn: Conn,
    master: usize,
    id: Option<String>,
    subscribed: bool,
    heard_at: u64,
}

#[derive(Debug)]
struct Calling {
    conn: Conn,
    about: About,
}

#[derive(Debug)]
struct Process {
    stream: Option<Stream>,
    calls: VecDeque<(Bytes, About)>,
    calling: Option<Calling>,
    target: usize,
    backoff: u64,
    tries: u64,
    unread: VecDeque<(Conn, Frame)>,
    reconcile_at: u64,
    /// Offers that it will answer together, in a while.
    kept: Vec<wire::Offer>,
    /// It said that it wants no offers.
    suppressed: bool,
    /// ... when it subscribed, and nothing else since.
    muted: bool,
    /// Roles that it has or may have had since it subscribed.
    roles: BTreeSet<String>,
}

/// A framework.
#[derive(Debug)]
pub struct Framework {
    /// Its number.
    pub number: usize,
    /// Its ways.
    pub style: Style,
    /// Of its schedulers; rises.
    pub life: u64,
    /// What outlives a scheduler.
    pub store: Store,
    /// It does not read what comes.
    pub slow: bool,
    /// It wants no more.
    pub retired: bool,
    random: Random,
    process: Option<Process>,
}

impl Framework {
    /// A framework that was never there.
    pub fn new(core: &Core, number: usize, style: Style) -> Framework {
        Framework {
            number,
            style,
            life: 0,
            store: Store::default(),
            slow: false,
            retired: false,
            random: Random::new(core.shape.seed, &format!("framework {number}")),
            process: None,
        }
    }

    fn host(&self) -> Host {
        Host::Framework(self.number)
    }

    fn later(&self, core: &mut Core, delay: u64, event: Event) {
        core.after(delay, WorldEvent::Framework(self.number, self.life, event));
    }

    /// Whether a scheduler runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it is subscribed.
    pub fn is_subscribed(&self) -> bool {
        let stream = self.process.as_ref().and_then(|it| it.stream.as_ref());
        stream.is_some_and(|it| it.subscribed)
    }

    /// Calls that wait for an answer or for their turn.
    pub fn open_calls(&self) -> usize {
        let process = self.process.as_ref();
        process.map_or(0, |it| it.calls.len() + usize::from(it.calling.is_some()))
    }

    /// Starts a scheduler in a while.
    pub fn start_after(&mut self, core: &mut Core, delay: u64) {
        self.later(core, delay, Event::Start);
    }

    /// The scheduler dies.
    pub fn crash(&mut self, core: &mut Core) {
        if self.process.take().is_some() {
            self.life += 1;
            self.slow = false;
            note!(core, self.host(), "crashes");
            core.resume(self.host());
            core.hang_up(self.host());
        }
    }

    /// Another scheduler of the same framework subscribes while the first one is there: as a
    /// process it is the first one's successor, and the first one is forgotten here.
    pub fn take_over(&mut self, core: &mut Core) {
        if self.process.take().is_some() {
            self.life += 1;
            self.slow = false;
            note!(core, self.host(), "is taken over");
            self.start_after(core, MILLI);
        }
    }

    fn start(&mut self, core: &mut Core) {
        if self.process.is_some() || self.retired {
            return;
        }
        self.slow = false;
        let target = self.random.index(core.shape.masters);
        self.process = Some(Process {
            stream: None,
            calls: VecDeque::new(),
            calling: None,
            target,
            backoff: FIRST_BACKOFF,
            tries: 0,
            unread: VecDeque::new(),
            reconcile_at: 0,
            kept: Vec::new(),
            suppressed: false,
            muted: false,
            roles: BTreeSet::new(),
        });
        self.subscribe(core, 0);
        self.later(core, SECOND / 2, Event::Beat);
    }

    /// Something happens inside, in the life in which it was begun.
    pub fn handle(&mut self, core: &mut Core, event: Event) {
        if matches!(event, Event::Start) {
            self.start(core);
            return;
        }
        if self.process.is_none() {
            return;
        }
        match event {
            Event::Start => {}
            Event::Subscribe(number) => self.subscribe(core, number),
            Event::Impatient(conn) => self.impatient(core, conn),
            Event::Beat => self.beat(core),
            Event::Acknowledge(it) => self.acknowledge(core, *it),
            Event::AcknowledgeOperation(it) => self.acknowledge_operation(core, *it),
            Event::Answer(offers) => self.answer_offers(core, offers),
            Event::AnswerAll => self.answer_roughly(core),
            Event::ReadOn => {
                self.slow = false;
                let unread = self
                    .process
                    .as_mut()
                    .map(|it| std::mem::take(&mut it.unread));
                for (conn, frame) in unread.unwrap_or_default() {
                    self.frame(core, conn, frame);
                }
            }
        }
    }

    // ------------------------------------------------------------ the subscription

    fn info(&self, roles: Vec<String>) -> wire::FrameworkInfo {
        let mut capabilities = vec![
            Capability::MultiRole,
            Capability::ReservationRefinement,
            Capability::TaskKillingState,
            Capability::SharedResources,
        ];
        if self.style.partition_aware {
            capabilities.push(Capability::PartitionAware);
        }
        let capability = |it: Capability| wire::framework_info::Capability {
            r#type: Some(it as i32),
        };
        wire::FrameworkInfo {
            user: "nobody".to_owned(),
            name: format!("framework {}", self.number),
            id: self
                .store
                .id
                .clone()
                .map(|value| wire::FrameworkId { value }),
            failover_timeout: Some(self.style.failover as f64),
            roles,
            principal: Some(self.principal()),
            capabilities: capabilities.into_iter().map(capability).collect(),
            ..wire::FrameworkInfo::default()
        }
    }

    /// Who it is to the master.
    pub fn principal(&self) -> String {
        format!("principal{}", self.number)
    }

    /// Its role; one of rough manners has a second one below it now and then.
    fn draw_roles(&mut self) -> Vec<String> {
        let first = self.style.role.clone();
        match self.style.kind == Kind::Rough && self.random.chance(500) {
            true => vec![format!("{first}/more"), first],
            false => vec![first],
        }
    }

    fn subscribe(&mut self, core: &mut Core, number: u64) {
        let process = self.process.as_ref();
        if process.is_none_or(|it| it.stream.is_some() || it.tries != number) {
            return;
        }
        let roles = self.draw_roles();
        let muted = self.style.kind == Kind::Rough && self.random.chance(200);
        let suppressed_roles = if muted { roles.clone() } else { Vec::new() };
        let (host, info) = (self.host(), self.info(roles.clone()));
        let Some(process) = &mut self.process else {
            return;
        };
        process.roles = roles.into_iter().collect();
        (process.muted, process.suppressed) = (muted, muted);
        let call = scheduler::Call {
            framework_id: info.id.clone(),
            r#type: Some(call::Type::Subscribe as i32),
            subscribe: Some(call::Subscribe {
                framework_info: info,
                suppressed_roles,
                ..call::Subscribe::default()
            }),
            ..scheduler::Call::default()
        };
        let hello = Hello::Subscribe {
            call: call.encode_to_vec().into(),
            inside: self.style.inside,
        };
        let master = process.target;
        let conn = core.open(host, master, hello);
        process.stream = Some(Stream {
            conn,
            master,
            id: None,
            subscribed: false,
            heard_at: core.now,
        });
        self.later(core, PATIENCE, Event::Impatient(conn));
    }

    /// The subscription is over; the next try is at `leader` or at whoever comes next.
    fn unsubscribed(&mut self, core: &mut Core, leader: Option<usize>) {
        let masters = core.shape.masters;
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(stream) = process.stream.take() else {
            return;
        };
        process.unread.clear();
        process.kept.clear();
        if self.style.inside {
            // They were to ride on it.
            process.calls.clear();
        }
        process.tries += 1;
        let number = process.tries;
        let wait = match leader {
            Some(leader) => {
                process.target = leader;
                5 * MILLI
            }
            None => {
                process.target = (stream.master + 1) % masters;
                if stream.subscribed {
                    process.backoff = FIRST_BACKOFF;
                }
                process.backoff = (process.backoff * 2).min(LAST_BACKOFF);
                process.backoff
            }
        };
        let wait = self.random.between(wait / 2, wait);
        self.later(core, wait, Event::Subscribe(number));
    }

    fn hang_up(&mut self, core: &mut Core) {
        let stream = self.process.as_ref().and_then(|it| it.stream.as_ref());
        if let Some(conn) = stream.map(|it| it.conn) {
            core.send(conn, End::Server, Frame::Closed);
            self.unsubscribed(core, None);
        }
    }

    fn impatient(&mut self, core: &mut Core, conn: Conn) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process
            .stream
            .as_ref()
            .is_some_and(|it| it.conn == conn && !it.subscribed)
        {
            self.hang_up(core);
        } else if process.calling.as_ref().is_some_and(|it| it.conn == conn) {
            core.send(conn, End::Server, Frame::Closed);
            process.calling = None;
            self.next_call(core);
        }
    }

    // ------------------------------------------------------------ calls

    /// Sends a call, now or when those before it are answered.
    pub(crate) fn call(&mut self, core: &mut Core, mut call: scheduler::Call, about: About) {
        let Some(id) = self.store.id.clone() else {
            return;
        };
        call.framework_id = Some(wire::FrameworkId { value: id });
        let bytes = Bytes::from(call.encode_to_vec());
        let Some(process) = &mut self.process else {
            return;
        };
        if self.style.inside {
            if let Some(stream) = process.stream.as_ref().filter(|it| it.subscribed) {
                core.send(stream.conn, End::Server, Frame::Call(bytes));
            }
            return;
        }
        process.calls.push_back((bytes, about));
        self.next_call(core);
    }

    fn next_call(&mut self, core: &mut Core) {
        let host = self.host();
        let Some(process) = &mut self.process else {
            return;
        };
        if process.calling.is_some() {
            return;
        }
        let Some(stream) = process.stream.as_ref().filter(|it| it.subscribed) else {
            // What was decided for another subscription has lost its sense.
            process.calls.clear();
            return;
        };
        let Some(stream_id) = stream.id.clone() else {
            return;
        };
        let master = stream.master;
        let Some((call, about)) = process.calls.pop_front() else {
            return;
        };
        let conn = core.open(host, master, Hello::Call { call, stream_id });
        process.calling = Some(Calling { conn, about });
        self.later(core, PATIENCE, Event::Impatient(conn));
    }

    fn answered(&mut self, core: &mut Core, status: Option<u16>) {
        let Some(calling) = self.process.as_mut().and_then(|it| it.calling.take()) else {
            return;
        };
        let taken = status.is_some_and(|it| it < 300);
        match calling.about {
            About::Answer { tasks, offers } => {
                if taken {
                    core.checkers.offers.taken(offers);
                }
                let answer = match status {
                    None => Answer::None,
                    Some(_) if taken => Answer::Accepted,
                    Some(_) => Answer::Refused,
                };
                for task in tasks {
                    core.checkers.tasks.answer(&task, answer);
                    if answer == Answer::Refused {
                        self.store.tasks.remove(&task);
                    }
                }
            }
            About::Kill(task) if taken => {
                // One that is away was not told.
                let is_there = |it: &&mut Known| it.state != Some(TaskState::TaskUnreachable);
                if let Some(known) = self.store.tasks.get_mut(&task).filter(is_there) {
                    known.kill_taken = true;
                    core.checkers.tasks.kill_taken(&task);
                }
            }
            About::Refuse(offer) if taken => {
                core.checkers
                    .frameworks
                    .refused(core.now, self.number, &offer);
            }
            About::Kill(_) | About::Refuse(_) | About::Nothing => {}
        }
        self.next_call(core);
    }

    // ------------------------------------------------------------ its own clock

    fn beat(&mut self, core: &mut Core) {
        let wait = self.random.between(SECOND / 2, SECOND);
        self.later(core, wait, Event::Beat);
        let silence = 5 * core.shape.timing.heartbeat;
        let stream = self.process.as_ref().and_then(|it| it.stream.as_ref());
        let Some(stream) = stream.filter(|it| it.subscribed) else {
            return;
        };
        if core.now - stream.heard_at > silence && !self.slow {
            self.hang_up(core);
            return;
        }
        if self
            .process
            .as_ref()
            .is_some_and(|it| core.now >= it.reconcile_at)
        {
            self.reconcile(core);
        }
        self.kill_some(core);
        if self.style.kind == Kind::Hostile && !core.quiet {
            let call = choices::nonsense(&mut self.random, &self.store);
            self.call(core, call, About::Nothing);
        }
        if self.style.kind == Kind::Rough {
            self.change_its_mind(core);
        }
    }

    /// It wants no offers for a while, or some again.
    fn change_its_mind(&mut self, core: &mut Core) {
        let Some(process) = &mut self.process else {
            return;
        };
        if !core.quiet && self.random.chance(50) {
            self.change_roles(core);
            return;
        }
        let changes = match process.suppressed {
            true => self.random.chance(400),
            false => !core.quiet && self.random.chance(100),
        };
        if !changes {
            return;
        }
        process.suppressed = !process.suppressed;
        process.muted = false;
        let call = match process.suppressed {
            true => scheduler::Call {
                r#type: Some(call::Type::Suppress as i32),
                suppress: Some(call::Suppress::default()),
                ..scheduler::Call::default()
            },
            false => scheduler::Call {
                r#type: Some(call::Type::Revive as i32),
                revive: Some(call::Revive::default()),
                ..scheduler::Call::default()
            },
        };
        note!(core, self.host(), "sends {}", call.r#type().as_str_name());
        self.call(core, call, About::Nothing);
    }

    fn change_roles(&mut self, core: &mut Core) {
        let roles = self.draw_roles();
        let info = self.info(roles.clone());
        if let Some(process) = &mut self.process {
            process.roles.extend(roles);
            (process.muted, process.suppressed) = (false, false);
        }
        note!(core, self.host(), "changes its roles to {:?}", info.roles);
        let call = scheduler::Call {
            r#type: Some(call::Type::UpdateFramework as i32),
            update_framework: Some(call::UpdateFramework {
                framework_info: info,
                ..call::UpdateFramework::default()
            }),
            ..scheduler::Call::default()
        };
        self.call(core, call, About::Nothing);
    }

    /// Asks what became of everything that has not ended.
    fn reconcile(&mut self, core: &mut Core) {
        let wait = match core.quiet {
            true => 3 * SECOND,
            false => self.random.between(8 * SECOND, 20 * SECOND),
        };
        if let Some(process) = &mut self.process {
            process.reconcile_at = core.now + wait;
        }
        let tasks = self
            .store
            .tasks
            .iter()
            .map(|(id, known)| call::reconcile::Task {
                task_id: wire::TaskId { value: id.clone() },
                agent_id: Some(wire::AgentId {
                    value: known.agent.clone(),
                }),
            });
        // An empty one asks for everything: also for what was taken for lost.
        let tasks: Vec<_> = match self.random.chance(500) {
            true => Vec::new(),
            false => tasks.collect(),
        };
        let call = scheduler::Call {
            r#type: Some(call::Type::Reconcile as i32),
            reconcile: Some(call::Reconcile { tasks }),
            ..scheduler::Call::default()
        };
        self.call(core, call, About::Nothing);
    }

    fn kill_some(&mut self, core: &mut Core) {
        if matches!(self.style.kind, Kind::Service(_) | Kind::Rough)
            && !core.quiet
            && self.random.chance(150)
        {
            let running: Vec<String> = self
                .store
                .tasks
                .iter()
                .filter(|(_, it)| it.state == Some(TaskState::TaskRunning) && !it.kill)
                .map(|(id, _)| id.clone())
                .collect();
            if !running.is_empty() {
                let id = self.random.pick(&running).clone();
                self.kill(core, &id);
                if self.style.kind == Kind::Rough {
                    self.kill(core, &id);
                }
            }
        }
        // Only what the master took note of is never asked for again.
        let again: Vec<String> = self
            .store
            .tasks
            .iter()
            .filter(|(_, it)| it.kill && !it.kill_taken)
            .map(|(id, _)| id.clone())
            .collect();
        if self.open_calls() == 0 && self.random.chance(300) {
            for id in again {
                self.kill(core, &id);
            }
        }
    }

    /// Asks for the end of a task.
    pub fn kill(&mut self, core: &mut Core, task: &str) {
        let Some(known) = self.store.tasks.get_mut(task) else {
            return;
        };
        known.kill = true;
        core.checkers.tasks.kill(task);
        note!(core, self.host(), "kills {task}");
        let call = scheduler::Call {
            r#type: Some(call::Type::Kill as i32),
            kill: Some(call::Kill {
                task_id: wire::TaskId {
                    value: task.to_owned(),
                },
                ..call::Kill::default()
            }),
            ..scheduler::Call::default()
        };
        self.call(core, call, About::Kill(task.to_owned()));
    }

    // ------------------------------------------------------------ frames

    /// A frame of a master.
    pub fn frame(&mut self, core: &mut Core, conn: Conn, frame: Frame) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.calling.as_ref().is_some_and(|it| it.conn == conn) {
            core.net.read(conn, End::Client);
            match frame {
                Frame::Answer(status, text) => {
                    if status >= 400 {
                        note!(core, self.host(), "is answered {status}: {text}");
                    }
                    self.answered(core, Some(status));
                }
                Frame::Refused(_) => self.answered(core, Some(503)),
                Frame::Closed => self.answered(core, None),
                _ => {}
            }
            return;
        }
        if process.stream.as_ref().is_none_or(|it| it.conn != conn) {
            return;
        }
        if self.slow {
            process.unread.push_back((conn, frame));
            return;
        }
        core.net.read(conn, End::Client);
        match frame {
            Frame::Accepted(id) => {
                if let Some(stream) = &mut process.stream {
                    stream.id = Some(id);
                }
            }
            Frame::Refused(leader) => self.unsubscribed(core, leader),
            Frame::Closed => self.unsubscribed(core, None),
            Frame::Event(bytes) => {
                if let Some(stream) = &mut process.stream {
                    stream.heard_at = core.now;
                }
                match scheduler::Event::decode(bytes) {
                    Ok(event) => self.event(core, event),
                    Err(error) => core.violate("wire", format!("an event: {error}")),
                }
            }
            _ => {}
        }
    }

    fn event(&mut self, core: &mut Core, event: scheduler::Event) {
        if event.r#type() != event::Type::Error {
            core.checkers.frameworks.heard(core.now, self.number);
        }
        match event.r#type() {
            event::Type::Subscribed => {
                if let Some(it) = event.subscribed {
                    self.subscribed(core, it.framework_id.value);
                }
            }
            event::Type::Offers => {
                let offers = event.offers.map(|it| it.offers).unwrap_or_default();
                self.offered(core, offers);
            }
            event::Type::Rescind => {
                let id = event.rescind.map(|it| it.offer_id);
                if let Some(process) = &mut self.process {
                    process.kept.retain(|it| Some(&it.id) != id.as_ref());
                }
            }
            event::Type::Update => {
                if let Some(it) = event.update {
                    self.updated(core, it.status);
                }
            }
            event::Type::UpdateOperationStatus => {
                if let Some(it) = event.update_operation_status {
                    self.operation_updated(core, it.status);
                }
            }
            event::Type::InverseOffers => {
                let offers = event.inverse_offers.map(|it| it.inverse_offers);
                self.answer_inverse(core, offers.unwrap_or_default());
            }
            event::Type::Error => {
                let text = event.error.map(|it| it.message).unwrap_or_default();
                note!(core, self.host(), "is told an error: {text}");
                self.refused(core, &text);
            }
            _ => {}
        }
    }

    fn subscribed(&mut self, core: &mut Core, id: String) {
        if let Some(known) = &self.store.id
            && *known != id
        {
            let text = format!("framework {known} subscribes and is called {id}");
            core.violate("frameworks", text);
        }
        note!(core, self.host(), "is subscribed as {id}");
        core.checkers
            .frameworks
            .subscribed(core.now, self.number, &id);
        self.store.id = Some(id);
        if let Some(process) = &mut self.process {
            process.backoff = FIRST_BACKOFF;
            if let Some(stream) = &mut process.stream {
                stream.subscribed = true;
            }
        }
        self.reconcile(core);
    }

    /// An ERROR is the last event of its stream.
    fn refused(&mut self, core: &mut Core, text: &str) {
        if text.contains("has been removed") {
            let id = self.store.id.take().unwrap_or_default();
            let verdict = core.checkers.frameworks.removed(core.now, self.number, &id);
            core.judge("frameworks", verdict);
            core.checkers.tasks.framework_removed(core.now, &id);
            self.store.tasks.clear();
            self.store.volumes.clear();
        }
    }

    fn updated(&mut self, core: &mut Core, status: wire::TaskStatus) {
        let task = status.task_id.value.clone();
        let state = status.state();
        let reason = status.reason.and_then(|it| Reason::try_from(it).ok());
        note!(
            core,
            self.host(),
            "hears that {task} is {} {reason:?}",
            state.as_str_name()
        );
        let verdict = core.checkers.told(core.now, self.number, &status);
        core.judge("updates", verdict);
        let asked = core.checkers.tasks.get(&task);
        if asked.is_some_and(|it| it.twice) && state == TaskState::TaskError {
            // The second of that name. The first is not touched by it.
            return;
        }
        // One that nobody knows was never launched, or ended long ago.
        let over = crate::checkers::updates::ends(state) || state == TaskState::TaskUnknown;
        if let Some(known) = self.store.tasks.get_mut(&task) {
            known.state = Some(state);
            if matches!(state, TaskState::TaskUnreachable | TaskState::TaskLost) {
                known.kill_taken = false;
                core.checkers.tasks.kill_void(&task);
            }
        } else if !over {
            // It was lost and is found.
            let agent = status.agent_id.clone().unwrap_or_default().value;
            self.store.tasks.insert(
                task.clone(),
                Known {
                    agent,
                    state: Some(state),
                    kill: false,
                    kill_taken: false,
                },
            );
        }
        let uuid = status.uuid.filter(|it| !it.is_empty());
        if over {
            self.store.tasks.remove(&task);
        }
        let Some(uuid) = uuid else { return };
        let acknowledge = call::Acknowledge {
            agent_id: status.agent_id.unwrap_or_default(),
            task_id: wire::TaskId { value: task },
            uuid,
        };
        match self.random.below(self.style.slow_ack + 1) {
            0 => self.acknowledge(core, acknowledge),
            wait => self.later(core, wait, Event::Acknowledge(Box::new(acknowledge))),
        }
    }

    fn acknowledge(&mut self, core: &mut Core, acknowledge: call::Acknowledge) {
        core.checkers.updates.acknowledge(&acknowledge.uuid);
        let call = scheduler::Call {
            r#type: Some(call::Type::Acknowledge as i32),
            acknowledge: Some(acknowledge),
            ..scheduler::Call::default()
        };
        self.call(core, call, About::Nothing);
    }

    fn operation_updated(&mut self, core: &mut Core, status: wire::OperationStatus) {
        let state = status.state();
        let id = status
            .operation_id
            .clone()
            .map(|it| it.value)
            .unwrap_or_default();
        note!(
            core,
            self.host(),
            "hears that operation {id} is {} {:?}",
            state.as_str_name(),
            status.message
        );
        let (Some(uuid), Some(operation_id)) = (status.uuid, status.operation_id) else {
            return;
        };
        let acknowledge = call::AcknowledgeOperationStatus {
            agent_id: status.agent_id,
            resource_provider_id: None,
            uuid: uuid.value,
            operation_id,
        };
        match self.random.below(self.style.slow_ack + 1) {
            0 => self.acknowledge_operation(core, acknowledge),
            wait => self.later(
                core,
                wait,
                Event::AcknowledgeOperation(Box::new(acknowledge)),
            ),
        }
    }

    fn acknowledge_operation(
        &mut self,
        core: &mut Core,
        acknowledge: call::AcknowledgeOperationStatus,
    ) {
        let call = scheduler::Call {
            r#type: Some(call::Type::AcknowledgeOperationStatus as i32),
            acknowledge_operation_status: Some(acknowledge),
            ..scheduler::Call::default()
        };
        self.call(core, call, About::Nothing);
    }

    /// Agrees to leave an agent, or does not.
    fn answer_inverse(&mut self, core: &mut Core, offers: Vec<wire::InverseOffer>) {
        for offer in offers {
            let inverse_offer_ids = vec![offer.id];
            let filters = Some(wire::Filters {
                refuse_seconds: Some(*self.random.pick(&[0.0, 1.0, 5.0])),
            });
            let call = match self.random.chance(500) {
                true => scheduler::Call {
                    r#type: Some(call::Type::AcceptInverseOffers as i32),
                    accept_inverse_offers: Some(call::AcceptInverseOffers {
                        inverse_offer_ids,
                        filters,
                    }),
                    ..scheduler::Call::default()
                },
                false => scheduler::Call {
                    r#type: Some(call::Type::DeclineInverseOffers as i32),
                    decline_inverse_offers: Some(call::DeclineInverseOffers {
                        inverse_offer_ids,
                        filters,
                    }),
                    ..scheduler::Call::default()
                },
            };
            self.call(core, call, About::Nothing);
        }
    }

    // ------------------------------------------------------------ offers

    fn offered(&mut self, core: &mut Core, offers: Vec<wire::Offer>) {
        if let Some(process) = &self.process {
            let roles = offers.iter().map(choices::role_of);
            let mut roles = roles.filter(|it| process.muted || !process.roles.contains(it));
            if let Some(role) = roles.next() {
                let text = format!(
                    "framework {} is offered something as {role}; it subscribed as {:?} and \
                     suppressed all: {}",
                    self.number, process.roles, process.muted
                );
                core.violate("frameworks", text);
            }
        }
        core.checkers
            .frameworks
            .offered(core.now, self.number, offers.len());
        match self.style.kind {
            Kind::Silent => {}
            Kind::Rough => {
                let Some(process) = &mut self.process else {
                    return;
                };
                if process.kept.is_empty() {
                    let wait = self.random.below(2 * SECOND);
                    core.after(
                        wait,
                        WorldEvent::Framework(self.number, self.life, Event::AnswerAll),
                    );
                }
                process.kept.extend(offers);
            }
            Kind::Hoarder => {
                let wait = self.random.between(3 * SECOND, 15 * SECOND);
                self.later(core, wait, Event::Answer(offers));
            }
            _ => self.answer_offers(core, offers),
        }
    }

    /// Several offers in one call, of several agents now and then.
    fn answer_roughly(&mut self, core: &mut Core) {
        let Some(process) = &mut self.process else {
            return;
        };
        let mut kept = std::mem::take(&mut process.kept);
        kept.sort_by_key(choices::place_of);
        let together = self.random.chance(100);
        let same = |left: &wire::Offer, right: &wire::Offer| {
            choices::place_of(left) == choices::place_of(right)
        };
        let groups = kept.chunk_by(|left, right| together || same(left, right));
        for offers in groups {
            let (style, random) = (&self.style, &mut self.random);
            let answer =
                choices::answer_roughly(core, style, self.number, &mut self.store, random, offers);
            let about = About::Answer {
                tasks: answer.tasks,
                offers: offers.iter().map(|it| it.id.value.clone()).collect(),
            };
            self.call(core, answer.call, about);
        }
    }

    fn answer_offers(&mut self, core: &mut Core, offers: Vec<wire::Offer>) {
        for offer in offers {
            let verdict = core
                .checkers
                .frameworks
                .may_offer(core.now, self.number, &offer);
            core.judge("frameworks", verdict);
            let answer = choices::answer(
                core,
                &self.style,
                self.number,
                &self.principal(),
                &mut self.store,
                &mut self.random,
                &offer,
            );
            let tasks = answer.tasks.clone();
            if !tasks.is_empty() {
                note!(
                    core,
                    self.host(),
                    "launches {tasks:?} on {}",
                    offer.agent_id.value
                );
            }
            let about = match self.style.kind {
                Kind::Picky => About::Refuse(Box::new(offer)),
                _ => About::Answer {
                    tasks,
                    offers: vec![offer.id.value],
                },
            };
            self.call(core, answer.call, about);
        }
    }
}
