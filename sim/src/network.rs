//! The network between hosts: delays, cuts that stall or break, and connections whose bytes
//! arrive in order or not at all.
//!
//! A connection behaves as TCP does: first in, first out; a cut stalls it, and a cut that lasts
//! breaks it; a break loses what is under way, and each end learns of it in its own time. What
//! masters say to each other may be lost, doubled and overtaken one message at a time.

use crate::{
    clock::{MILLI, SECOND},
    random::Random,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};
use tepui_master_machine::{
    input::StateRequest,
    output::{StateAnswer, StateEvent},
};

/// Who sits on the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Host {
    /// A master, by number.
    Master(usize),
    /// An agent, by number.
    Agent(usize),
    /// A framework's scheduler, by number.
    Framework(usize),
    /// Who operates the cluster.
    Operator,
    /// A client of the state service, by number.
    Keeper(usize),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Master(it) => write!(f, "master {it}"),
            Host::Agent(it) => write!(f, "agent {it}"),
            Host::Framework(it) => write!(f, "fw {it}"),
            Host::Operator => f.write_str("operator"),
            Host::Keeper(it) => write!(f, "keeper {it}"),
        }
    }
}

/// Names a connection for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn(pub u64);

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// Who opened it.
    Client,
    /// The master.
    Server,
}

/// What a client wants of a master.
#[derive(Clone, Debug)]
pub enum Hello {
    /// An agent's link.
    AgentLink,
    /// A scheduler's subscription: the call, and whether further calls ride on the same stream.
    Subscribe {
        /// Encoded `mesos.v1.scheduler.Call`.
        call: Bytes,
        /// As gRPC does.
        inside: bool,
    },
    /// A scheduler's call on a connection of its own.
    Call {
        /// Encoded `mesos.v1.scheduler.Call`.
        call: Bytes,
        /// `Mesos-Stream-Id`.
        stream_id: String,
    },
    /// A write of the operator; which one is known by its number.
    Operate(usize),
    /// A request to the state service.
    State(Box<StateRequest>),
    /// A watch of the state service.
    Watch,
}

/// What travels on a connection.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The first one: what the client wants.
    Open(Hello),
    /// The master takes the link or the subscription; with a `Mesos-Stream-Id`.
    Accepted(String),
    /// The master does not lead; it names who does, when it knows.
    Refused(Option<usize>),
    /// Encoded `tepui.agent.v1.AgentMessage`.
    FromAgent(Bytes),
    /// Encoded `tepui.agent.v1.MasterMessage`.
    ToAgent(Bytes),
    /// Encoded `mesos.v1.scheduler.Call` on its subscription.
    Call(Bytes),
    /// Encoded `mesos.v1.scheduler.Event`.
    Event(Bytes),
    /// The answer of a call: HTTP status and text.
    Answer(u16, String),
    /// The answer of the state service.
    Kept(Box<StateAnswer>),
    /// To a watch of the state service.
    Watched(Box<StateEvent>),
    /// Is anybody there? As HTTP/2 asks on a quiet connection.
    Ping,
    /// Somebody is.
    Pong,
    /// The other end is gone.
    Closed,
}

impl Frame {
    /// For the trace.
    pub fn digest(&self) -> u64 {
        use crate::trace::bytes_hash;
        match self {
            Frame::Open(Hello::AgentLink) => 1,
            Frame::Open(Hello::Subscribe { call, .. } | Hello::Call { call, .. }) => {
                2 ^ bytes_hash(call)
            }
            Frame::Open(Hello::Operate(number)) => 3 ^ *number as u64,
            Frame::Open(Hello::State(it)) => 14 ^ bytes_hash(format!("{it:?}").as_bytes()),
            Frame::Open(Hello::Watch) => 15,
            Frame::Kept(it) => 16 ^ bytes_hash(format!("{it:?}").as_bytes()),
            Frame::Watched(it) => 17 ^ bytes_hash(format!("{it:?}").as_bytes()),
            Frame::Accepted(_) => 4,
            Frame::Refused(_) => 5,
            Frame::FromAgent(bytes) => 6 ^ bytes_hash(bytes),
            Frame::ToAgent(bytes) => 7 ^ bytes_hash(bytes),
            Frame::Call(bytes) => 8 ^ bytes_hash(bytes),
            Frame::Event(bytes) => 9 ^ bytes_hash(bytes),
            Frame::Answer(status, _) => 10 ^ u64::from(*status),
            Frame::Closed => 11,
            Frame::Ping => 12,
            Frame::Pong => 13,
        }
    }
}

/// How well the network works.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// Shortest way of a message.
    pub delay_min: u64,
    /// Longest way of a message, most of the time.
    pub delay_max: u64,
    /// Messages between masters that are lost, in a thousand.
    pub loss: u64,
    /// Messages between masters that come twice, in a thousand.
    pub doubled: u64,
    /// Messages that take ten times as long, in a thousand.
    pub late: u64,
}

impl Quality {
    /// A quiet network in one room.
    pub const CALM: Quality = Quality {
        delay_min: MILLI / 20,
        delay_max: MILLI / 2,
        loss: 0,
        doubled: 0,
        late: 0,
    };
}

/// A cut between two groups of hosts.
#[derive(Clone, Debug)]
struct Cut {
    number: u64,
    from: BTreeSet<Host>,
    to: BTreeSet<Host>,
    both_ways: bool,
}

#[derive(Debug, Default)]
struct Way {
    // Nothing overtakes what was sent before.
    last_due: u64,
    // Waits for a cut to end.
    stalled: VecDeque<Frame>,
    // Sent and not read.
    unread: usize,
}

#[derive(Debug)]
struct Line {
    client: Host,
    server: Host,
    to_server: Way,
    to_client: Way,
}

impl Line {
    fn way(&mut self, to: End) -> &mut Way {
        match to {
            End::Client => &mut self.to_client,
            End::Server => &mut self.to_server,
        }
    }

    fn hosts(&self, to: End) -> (Host, Host) {
        match to {
            End::Client => (self.server, self.client),
            End::Server => (self.client, self.server),
        }
    }
}

/// A frame that is to arrive later, or an end that is to hear of a break.
#[derive(Debug)]
pub struct Arrival {
    /// When.
    pub due: u64,
    /// On which connection.
    pub conn: Conn,
    /// At which end.
    pub to: End,
    /// What.
    pub frame: Frame,
}

/// What happens to a frame at its arrival.
#[derive(Debug)]
pub enum Fate {
    /// The host there gets it.
    Deliver(Host, Frame),
    /// A cut holds it up; the first of a connection begins its time-out.
    Stalled {
        /// Whether a time-out is to be begun.
        first: bool,
    },
    /// It is lost.
    Lost,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    random: Random,
    /// As it is now.
    pub quality: Quality,
    cuts: Vec<Cut>,
    lines: BTreeMap<Conn, Line>,
    next: u64,
    next_cut: u64,
}

/// A connection that is cut off breaks after this long, at the earliest.
pub const STALL_MIN: u64 = 15 * SECOND;
/// ... and at the latest.
pub const STALL_MAX: u64 = 40 * SECOND;

impl Network {
    /// A whole network.
    pub fn new(seed: u64, quality: Quality) -> Network {
        Network {
            random: Random::new(seed, "network"),
            quality,
            cuts: Vec::new(),
            lines: BTreeMap::new(),
            next: 0,
            next_cut: 0,
        }
    }

    /// How long a message is under way.
    pub fn delay(&mut self) -> u64 {
        let quality = self.quality;
        let delay = self.random.between(quality.delay_min, quality.delay_max);
        match self.random.chance(quality.late) {
            true => delay * 10,
            false => delay,
        }
    }

    /// A draw of the network's own.
    pub fn draw(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Whether nothing gets from one host to the other.
    pub fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cuts.iter().any(|cut| {
            (cut.from.contains(&from) && cut.to.contains(&to))
                || (cut.both_ways && cut.from.contains(&to) && cut.to.contains(&from))
        })
    }

    /// Cuts one group off from another; returns the cut's number.
    pub fn cut(&mut self, from: BTreeSet<Host>, to: BTreeSet<Host>, both_ways: bool) -> u64 {
        self.next_cut += 1;
        self.cuts.push(Cut {
            number: self.next_cut,
            from,
            to,
            both_ways,
        });
        self.next_cut
    }

    /// Ends a cut; what it held up arrives.
    pub fn mend(&mut self, number: u64, now: u64) -> Vec<Arrival> {
        self.cuts.retain(|cut| cut.number != number);
        self.resume(now)
    }

    /// Ends all cuts.
    pub fn mend_all(&mut self, now: u64) -> Vec<Arrival> {
        self.cuts.clear();
        self.resume(now)
    }

    fn resume(&mut self, now: u64) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        let conns: Vec<Conn> = self.lines.keys().copied().collect();
        for conn in conns {
            for to in [End::Client, End::Server] {
                let Some(line) = self.lines.get_mut(&conn) else {
                    continue;
                };
                let (from, host) = line.hosts(to);
                if line.way(to).stalled.is_empty() || self.is_cut(from, host) {
                    continue;
                }
                let Some(line) = self.lines.get_mut(&conn) else {
                    continue;
                };
                // They are at the door: what is still on its way does not overtake them.
                for frame in std::mem::take(&mut line.way(to).stalled) {
                    arrivals.push(Arrival {
                        due: now,
                        conn,
                        to,
                        frame,
                    });
                }
            }
        }
        arrivals
    }

    /// Opens a connection. Whether anybody is there, the first frame finds out.
    pub fn open(&mut self, client: Host, server: usize) -> Conn {
        self.next += 1;
        let conn = Conn(self.next);
        self.lines.insert(
            conn,
            Line {
                client,
                server: Host::Master(server),
                to_server: Way::default(),
                to_client: Way::default(),
            },
        );
        conn
    }

    /// Sends a frame towards one end; nothing when the connection is over.
    pub fn send(&mut self, now: u64, conn: Conn, to: End, frame: Frame) -> Option<Arrival> {
        let delay = self.delay();
        let line = self.lines.get_mut(&conn)?;
        let way = line.way(to);
        way.unread += 1;
        way.last_due = way.last_due.max(now + delay);
        Some(Arrival {
            due: way.last_due,
            conn,
            to,
            frame,
        })
    }

    /// Who opened a connection.
    pub fn client(&self, conn: Conn) -> Option<Host> {
        self.lines.get(&conn).map(|it| it.client)
    }

    /// Frames sent towards an end and not read there.
    pub fn unread(&mut self, conn: Conn, to: End) -> usize {
        self.lines.get_mut(&conn).map_or(0, |it| it.way(to).unread)
    }

    /// An end has read a frame.
    pub fn read(&mut self, conn: Conn, to: End) {
        if let Some(line) = self.lines.get_mut(&conn) {
            let way = line.way(to);
            way.unread = way.unread.saturating_sub(1);
        }
    }

    /// A frame has come as far as the other side's door.
    pub fn arrive(&mut self, conn: Conn, to: End, frame: Frame) -> Fate {
        let Some(line) = self.lines.get_mut(&conn) else {
            return Fate::Lost;
        };
        let (from, host) = line.hosts(to);
        let idle = line.to_client.stalled.is_empty() && line.to_server.stalled.is_empty();
        let waits = !line.way(to).stalled.is_empty();
        if waits || self.is_cut(from, host) {
            if let Some(line) = self.lines.get_mut(&conn) {
                line.way(to).stalled.push_back(frame);
            }
            return Fate::Stalled { first: idle };
        }
        if matches!(frame, Frame::Closed) {
            self.lines.remove(&conn);
        }
        Fate::Deliver(host, frame)
    }

    /// A connection that was stalled when the time-out began: whether it still is.
    pub fn is_stalled(&self, conn: Conn) -> bool {
        self.lines
            .get(&conn)
            .is_some_and(|it| !it.to_client.stalled.is_empty() || !it.to_server.stalled.is_empty())
    }

    /// Breaks a connection: what is under way is lost; both hosts, which learn of it by
    /// themselves, are returned.
    pub fn break_off(&mut self, conn: Conn) -> Option<(Host, Host)> {
        let line = self.lines.remove(&conn)?;
        Some((line.client, line.server))
    }

    /// Connections of a host, oldest first, with the end that is not the host's.
    pub fn of(&self, host: Host) -> Vec<(Conn, End)> {
        let other = |(conn, line): (&Conn, &Line)| {
            if line.client == host {
                Some((*conn, End::Server))
            } else if line.server == host {
                Some((*conn, End::Client))
            } else {
                None
            }
        };
        self.lines.iter().filter_map(other).collect()
    }
}
