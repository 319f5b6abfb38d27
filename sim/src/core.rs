//! What every part of the simulated world shares: the time, the queue of events, chance, the
//! network, the trace, and what the checkers know.

use crate::{
    checkers::Checkers,
    clock::SECOND,
    network::{Arrival, Conn, End, Frame, Host, Network},
    plan::Shape,
    random::Random,
    trace::{Trace, Witness, note},
};
use bytes::Bytes;
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    rc::Rc,
};
use tepui_replication_node::{NodeId, Outgoing, Ticket};

/// What may happen next.
#[derive(Debug)]
pub enum Event {
    /// A frame has come through the network.
    Frame {
        /// On which connection.
        conn: Conn,
        /// Towards which end.
        to: End,
        /// What.
        frame: Frame,
    },
    /// A frame reaches its process, which was paused.
    Handed {
        /// The process' host.
        host: Host,
        /// On which connection.
        conn: Conn,
        /// What.
        frame: Frame,
    },
    /// A connection that stalled has done so for long enough to break.
    StallOver(Conn),
    /// A message between masters has come through the network.
    Raft {
        /// From which node.
        from: NodeId,
        /// To which node.
        to: NodeId,
        /// What.
        message: Bytes,
        /// The rows that it promises.
        ticket: Option<Ticket>,
    },
    /// Something inside a master, in this life of it.
    Master(usize, u64, crate::master::Event),
    /// Something inside an agent.
    Agent(usize, u64, crate::agent::Event),
    /// Something inside a framework's scheduler.
    Framework(usize, u64, crate::framework::Event),
    /// Something that the operator waits for.
    Operator(crate::operator::Event),
    /// Something that a client of the state service waits for.
    Keeper(usize, crate::keeper::Event),
    /// The plan has something, by number.
    Planned(usize),
    /// A cut ends.
    Mend(u64),
    /// A paused process goes on.
    Resume(Host, u64),
    /// A fault of the plan passes.
    Pass(usize),
    /// The checkers look at everything.
    Look,
}

impl Event {
    /// For the trace.
    fn kind(&self) -> u64 {
        match self {
            Event::Frame { conn, frame, .. } | Event::Handed { conn, frame, .. } => {
                conn.0 ^ frame.digest()
            }
            Event::StallOver(conn) => conn.0 ^ 0x1000,
            Event::Raft {
                from, to, message, ..
            } => from << 8 ^ to << 4 ^ crate::trace::bytes_hash(message),
            Event::Master(number, life, event) => {
                0x2000 ^ (*number as u64) << 32 ^ life << 16 ^ event.kind()
            }
            Event::Agent(number, life, event) => {
                0x3000 ^ (*number as u64) << 32 ^ life << 16 ^ event.kind()
            }
            Event::Framework(number, life, event) => {
                0x4000 ^ (*number as u64) << 32 ^ life << 16 ^ event.kind()
            }
            Event::Operator(_) => 0x5000,
            Event::Keeper(number, event) => 0xb000 ^ (*number as u64) << 32 ^ event.kind(),
            Event::Planned(number) => 0x6000 ^ *number as u64,
            Event::Mend(number) => 0x7000 ^ number,
            Event::Resume(..) => 0x8000,
            Event::Pass(number) => 0x9000 ^ *number as u64,
            Event::Look => 0xa000,
        }
    }
}

#[derive(Debug)]
struct Queued {
    due: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    // The heap gives out its greatest: the earliest event, and of equals the one made first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

/// Something that must never happen, and did.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// When, in nanoseconds.
    pub at: u64,
    /// Which checker saw it.
    pub checker: &'static str,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.at as f64 / SECOND as f64;
        write!(f, "{} at {seconds:.3} s: {}", self.checker, self.text)
    }
}

/// How much of what is slow to look at is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// Invariants of the machines after a sample of steps.
    Sampled,
    /// After every step.
    Every,
}

/// What every part of the world shares.
#[derive(Debug)]
pub struct Core {
    /// True time in nanoseconds.
    pub now: u64,
    /// What is simulated.
    pub shape: Rc<Shape>,
    /// Of processes: delays inside of them, their own seeds.
    pub random: Random,
    /// The network.
    pub net: Network,
    /// What happened.
    pub trace: Trace,
    /// What they know.
    pub checkers: Checkers,
    /// How often the machines check themselves.
    pub thoroughness: Thoroughness,
    /// The host of each node of the replicated log, now and before.
    pub nodes: BTreeMap<NodeId, usize>,
    /// Faults are over: nothing new goes wrong.
    pub healed: bool,
    /// The workload is over: nothing new is begun.
    pub quiet: bool,
    /// What went wrong first.
    pub violation: Option<Violation>,
    queue: BinaryHeap<Queued>,
    sequence: u64,
    lives: BTreeMap<usize, u64>,
    paused: BTreeMap<Host, Vec<Event>>,
    dark: BTreeSet<Host>,
    samples: u64,
}

impl Core {
    /// Time zero.
    pub fn new(
        shape: Rc<Shape>,
        lines: bool,
        thoroughness: Thoroughness,
        witness: Rc<Witness>,
    ) -> Core {
        let seed = shape.seed;
        Core {
            now: 0,
            random: Random::new(seed, "processes"),
            net: Network::new(seed, shape.quality),
            trace: Trace::new(lines, witness),
            checkers: Checkers::new(&shape),
            thoroughness,
            nodes: BTreeMap::new(),
            healed: false,
            quiet: false,
            violation: None,
            queue: BinaryHeap::new(),
            sequence: 0,
            lives: BTreeMap::new(),
            paused: BTreeMap::new(),
            dark: BTreeSet::new(),
            samples: 0,
            shape,
        }
    }

    /// Something must never happen, and did. The first word counts.
    pub fn violate(&mut self, checker: &'static str, text: String) {
        if self.violation.is_none() {
            note!(self, "CHECKER", "{checker}: {text}");
            self.violation = Some(Violation {
                at: self.now,
                checker,
                text,
            });
        }
    }

    /// Takes over what a checker says.
    pub fn judge(&mut self, checker: &'static str, verdict: Result<(), String>) {
        if let Err(text) = verdict {
            self.violate(checker, text);
        }
    }

    /// Whether a machine is to check itself after this step.
    pub fn is_sample(&mut self) -> bool {
        self.samples += 1;
        // What a machine checks of itself grows with the cluster.
        let every = 61 * (self.shape.agents as u64).div_ceil(4);
        self.thoroughness == Thoroughness::Every || self.samples.is_multiple_of(every)
    }

    // ------------------------------------------------------------ events

    /// Something will happen at a time.
    pub fn at(&mut self, due: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Queued {
            due: due.max(self.now),
            sequence: self.sequence,
            event,
        });
    }

    /// Something will happen after a while.
    pub fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// The next event up to `end`, and its time becomes now.
    pub fn next(&mut self, end: u64) -> Option<Event> {
        if self.queue.peek()?.due > end {
            return None;
        }
        let queued = self.queue.pop()?;
        self.now = queued.due;
        self.trace.event(queued.due, queued.event.kind());
        Some(queued.event)
    }

    // ------------------------------------------------------------ hosts

    /// Which process of a master is the one of now.
    pub fn life(&self, master: usize) -> u64 {
        self.lives.get(&master).copied().unwrap_or(0)
    }

    /// A process of a master has ended.
    pub fn set_life(&mut self, master: usize, life: u64) {
        self.lives.insert(master, life);
    }

    /// A process stops where it is.
    pub fn pause(&mut self, host: Host) {
        self.paused.entry(host).or_default();
    }

    /// A paused process goes on with what has come meanwhile.
    pub fn resume(&mut self, host: Host) {
        for event in self.paused.remove(&host).unwrap_or_default() {
            self.at(self.now, event);
        }
    }

    /// Every process goes on.
    pub fn resume_all(&mut self) {
        while let Some(host) = self.paused.keys().next().copied() {
            self.resume(host);
        }
    }

    /// Whether a process stands still.
    pub fn is_paused(&self, host: Host) -> bool {
        self.paused.contains_key(&host)
    }

    /// Keeps an event for a process that stands still; gives it back when it does not.
    pub fn unless_paused(&mut self, host: Host, event: Event) -> Option<Event> {
        match self.paused.get_mut(&host) {
            Some(backlog) => {
                backlog.push(event);
                None
            }
            None => Some(event),
        }
    }

    /// A host without power answers nothing, not even with a refusal.
    pub fn set_dark(&mut self, host: Host, dark: bool) {
        match dark {
            true => self.dark.insert(host),
            false => self.dark.remove(&host),
        };
    }

    /// Whether a host is without power.
    pub fn is_dark(&self, host: Host) -> bool {
        self.dark.contains(&host)
    }

    // ------------------------------------------------------------ the network

    /// Opens a connection to a master and says what is wanted.
    pub fn open(&mut self, client: Host, master: usize, hello: crate::network::Hello) -> Conn {
        let conn = self.net.open(client, master);
        self.send(conn, End::Server, Frame::Open(hello));
        conn
    }

    /// Sends a frame; on a connection that is over it is lost.
    pub fn send(&mut self, conn: Conn, to: End, frame: Frame) {
        if let Some(arrival) = self.net.send(self.now, conn, to, frame) {
            self.schedule(arrival);
        }
    }

    fn schedule(&mut self, arrival: Arrival) {
        let Arrival {
            due,
            conn,
            to,
            frame,
        } = arrival;
        self.at(due, Event::Frame { conn, to, frame });
    }

    /// A cut ends; what it held up arrives.
    pub fn mend(&mut self, number: u64) {
        for arrival in self.net.mend(number, self.now) {
            self.schedule(arrival);
        }
    }

    /// All cuts end.
    pub fn mend_all(&mut self) {
        for arrival in self.net.mend_all(self.now) {
            self.schedule(arrival);
        }
    }

    /// Breaks a connection: each end learns of it in its own time.
    pub fn break_off(&mut self, conn: Conn) {
        if let Some((client, server)) = self.net.break_off(conn) {
            for host in [client, server] {
                let delay = self.net.delay();
                let frame = Frame::Closed;
                self.after(delay, Event::Handed { host, conn, frame });
            }
        }
    }

    /// Every connection of a host ends, as when its process is killed.
    pub fn hang_up(&mut self, host: Host) {
        for (conn, other) in self.net.of(host) {
            self.send(conn, other, Frame::Closed);
        }
    }

    /// A message between masters. Says whether it was sent on its way at all.
    pub fn send_raft(&mut self, from: NodeId, outgoing: Outgoing) -> bool {
        let quality = self.net.quality;
        let copies = match (
            self.net.draw().chance(quality.loss),
            self.net.draw().chance(quality.doubled),
        ) {
            (true, _) => 0,
            (false, true) if outgoing.ticket.is_none() => 2,
            (false, _) => 1,
        };
        for _ in 0..copies {
            let delay = self.net.delay();
            let event = Event::Raft {
                from,
                to: outgoing.to,
                message: outgoing.bytes.clone(),
                ticket: outgoing.ticket,
            };
            self.after(delay, event);
        }
        copies > 0
    }
}
