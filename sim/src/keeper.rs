//! Clients of the state service: variables with compare-and-swap, leases, and a watch.
//!
//! All of them share one account, so that they meet. One call after the other, each on a
//! connection of its own; one without an answer is given up, or sent again under its mark.

use crate::{
    checkers::registers::{Ask, Said},
    clock::{MILLI, SECOND},
    core::{Core, Event as WorldEvent},
    network::{Conn, End, Frame, Hello, Host},
    random::Random,
    trace::note,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use tepui_master_machine::{
    input::{Expected, StateRequest, WriteMark},
    output::{StateAnswer, StateEvent, StateRefusal},
};

/// Who they authenticate as.
pub const ACCOUNT: &str = "keepers";
/// Variables that they meet at.
const NAMES: u64 = 4;
/// A master has this long to answer.
const PATIENCE: u64 = 3 * SECOND;
/// Between two questions whether a watch is still there.
const KEEP_ALIVE: u64 = 5 * SECOND;

/// What a client waits for.
#[derive(Debug)]
pub enum Event {
    /// Its next call.
    Next,
    /// The same call elsewhere, or again.
    Again,
    /// The answer has had its time.
    Impatient(Conn),
    /// It begins to watch, of this try.
    Watch(u64),
    /// Is the other end of this watch still there?
    KeepAlive(Conn),
}

impl Event {
    /// For the trace.
    pub fn kind(&self) -> u64 {
        match self {
            Event::Next => 1,
            Event::Again => 2,
            Event::Impatient(conn) => 3 ^ conn.0 << 4,
            Event::Watch(number) => 4 ^ number << 4,
            Event::KeepAlive(conn) => 5 ^ conn.0 << 4,
        }
    }
}

#[derive(Debug)]
struct Calling {
    number: usize,
    conn: Option<Conn>,
    repeated: bool,
}

/// A client.
#[derive(Debug)]
pub struct Keeper {
    number: usize,
    random: Random,
    calling: Option<Calling>,
    target: usize,
    revision: u64,
    // The newest version of each variable that it saw.
    versions: BTreeMap<String, u64>,
    lease: u64,
    made: u64,
    watch: Option<Conn>,
    watches: u64,
    watched: u64,
    heard_at: u64,
    /// What it knows by watching.
    pub mirror: BTreeMap<String, u64>,
}

impl Keeper {
    /// A client that was never there.
    pub fn new(core: &Core, number: usize) -> Keeper {
        Keeper {
            number,
            random: Random::new(core.shape.seed, &format!("keeper {number}")),
            calling: None,
            target: 0,
            revision: 0,
            versions: BTreeMap::new(),
            lease: 0,
            made: 0,
            watch: None,
            watches: 0,
            watched: 0,
            heard_at: 0,
            mirror: BTreeMap::new(),
        }
    }

    fn host(&self) -> Host {
        Host::Keeper(self.number)
    }

    fn later(&self, core: &mut Core, delay: u64, event: Event) {
        core.after(delay, WorldEvent::Keeper(self.number, event));
    }

    /// It begins in a while.
    pub fn start_after(&mut self, core: &mut Core, delay: u64) {
        self.later(core, delay, Event::Next);
        self.later(core, delay, Event::Watch(0));
    }

    /// Whether it waits for an answer.
    pub fn is_calling(&self) -> bool {
        self.calling.is_some()
    }

    /// Whether it watches.
    pub fn is_watching(&self) -> bool {
        self.watch.is_some() && self.watched > 0
    }

    /// Something that it waited for.
    pub fn handle(&mut self, core: &mut Core, event: Event) {
        match event {
            Event::Next => self.next(core),
            Event::Again => self.send(core),
            Event::Impatient(conn) => {
                if self
                    .calling
                    .as_ref()
                    .is_some_and(|it| it.conn == Some(conn))
                {
                    core.send(conn, End::Server, Frame::Closed);
                    self.unanswered(core);
                } else if self.watch == Some(conn) && self.watched == 0 {
                    core.send(conn, End::Server, Frame::Closed);
                    self.watch_again(core);
                }
            }
            Event::KeepAlive(conn) => {
                if self.watch != Some(conn) {
                    return;
                }
                if core.now - self.heard_at >= 2 * KEEP_ALIVE {
                    core.send(conn, End::Server, Frame::Closed);
                    self.watch_again(core);
                    return;
                }
                core.send(conn, End::Server, Frame::Ping);
                self.later(core, KEEP_ALIVE, Event::KeepAlive(conn));
            }
            Event::Watch(number) => {
                if self.watches == number && self.watch.is_none() {
                    let hello = Hello::Watch;
                    let conn = core.open(self.host(), self.target, hello);
                    self.watch = Some(conn);
                    self.watched = 0;
                    self.heard_at = core.now;
                    self.later(core, KEEP_ALIVE, Event::KeepAlive(conn));
                    self.later(core, PATIENCE, Event::Impatient(conn));
                }
            }
        }
    }

    fn watch_again(&mut self, core: &mut Core) {
        self.watch = None;
        self.watches += 1;
        let number = self.watches;
        self.target = (self.target + 1) % core.shape.masters;
        let wait = self.random.between(50 * MILLI, SECOND / 2);
        self.later(core, wait, Event::Watch(number));
    }

    // ------------------------------------------------------------ calls

    fn draw(&mut self) -> Ask {
        let name = format!("x{}", self.random.below(NAMES));
        let known = self.versions.get(&name).copied();
        let expected = match self.random.below(3) {
            0 => None,
            _ => Some(known.unwrap_or(0)),
        };
        match self.random.below(12) {
            0..=3 => Ask::Get { name },
            4..=7 => {
                self.made += 1;
                let lease = match self.random.chance(300) {
                    true => self.lease,
                    false => 0,
                };
                Ask::Set {
                    name,
                    value: (self.number as u64 + 1) << 32 | self.made,
                    expected,
                    lease,
                }
            }
            8 => Ask::Expunge { name, expected },
            9 if self.lease == 0 || self.random.chance(200) => Ask::Grant {
                ttl: self.random.between(2 * SECOND, 8 * SECOND),
            },
            9 | 10 if self.lease != 0 => Ask::Renew { lease: self.lease },
            11 if self.lease != 0 && self.random.chance(300) => Ask::Revoke {
                lease: std::mem::take(&mut self.lease),
            },
            _ => Ask::Get { name },
        }
    }

    fn next(&mut self, core: &mut Core) {
        let wait = self.random.between(50 * MILLI, SECOND / 2);
        self.later(core, wait, Event::Next);
        if self.calling.is_some() || core.quiet {
            return;
        }
        // Clients do not agree on who leads.
        if self.random.chance(250) {
            self.target = self.random.index(core.shape.masters);
        }
        let ask = self.draw();
        note!(core, self.host(), "asks for {ask:?}");
        let number = core.checkers.registers.ask(core.now, ask);
        self.calling = Some(Calling {
            number,
            conn: None,
            repeated: false,
        });
        self.send(core);
    }

    fn send(&mut self, core: &mut Core) {
        let host = self.host();
        let Some(calling) = self.calling.as_mut().filter(|it| it.conn.is_none()) else {
            return;
        };
        let Some(ask) = core.checkers.registers.asked(calling.number).cloned() else {
            return;
        };
        let mark = WriteMark {
            id: Bytes::copy_from_slice(&(calling.number as u64 + 1).to_be_bytes()),
            repeated: calling.repeated,
            seen_revision: self.revision,
        };
        let hello = Hello::State(Box::new(request(ask, mark)));
        let conn = core.open(host, self.target, hello);
        calling.conn = Some(conn);
        self.later(core, PATIENCE, Event::Impatient(conn));
    }

    /// It may have taken effect.
    fn unanswered(&mut self, core: &mut Core) {
        self.target = (self.target + 1) % core.shape.masters;
        let again = self.random.chance(700) || core.quiet;
        match &mut self.calling {
            Some(calling) if again => {
                calling.conn = None;
                calling.repeated = true;
                let wait = self.random.between(20 * MILLI, SECOND / 2);
                self.later(core, wait, Event::Again);
            }
            _ => self.calling = None,
        }
    }

    fn answered(&mut self, core: &mut Core, answer: StateAnswer) {
        let Some(calling) = self.calling.take() else {
            return;
        };
        let pair = |it: &tepui_model::log::Variable| (it.version, value_of(&it.value));
        let said = match &answer {
            StateAnswer::Variable { variable, revision } => Said::Found {
                variable: variable.as_deref().map(pair),
                revision: *revision,
            },
            StateAnswer::Written { revision } => Said::Written {
                revision: *revision,
            },
            StateAnswer::Conflict { current, revision } => Said::Conflict {
                variable: current.as_deref().map(pair),
                revision: *revision,
            },
            StateAnswer::Renewed { revision, .. } => Said::Renewed {
                revision: *revision,
            },
            StateAnswer::Refused {
                why: StateRefusal::Unknown,
                ..
            } => return,
            StateAnswer::Refused { .. } | StateAnswer::Variables { .. } => Said::Refused,
        };
        note!(core, self.host(), "is told {said:?}");
        let ask = core.checkers.registers.asked(calling.number).cloned();
        self.learn(ask.as_ref(), &said);
        core.checkers.registers.said(core.now, calling.number, said);
    }

    fn learn(&mut self, ask: Option<&Ask>, said: &Said) {
        match (ask, said) {
            (
                Some(Ask::Get { name } | Ask::Set { name, .. } | Ask::Expunge { name, .. }),
                Said::Found { variable, revision } | Said::Conflict { variable, revision },
            ) => {
                self.revision = self.revision.max(*revision);
                let version = variable.map_or(0, |it| it.0);
                self.versions.insert(name.clone(), version);
            }
            (Some(Ask::Set { name, .. }), Said::Written { revision }) => {
                self.revision = self.revision.max(*revision);
                self.versions.insert(name.clone(), *revision);
            }
            (Some(Ask::Expunge { name, .. }), Said::Written { .. }) => {
                self.versions.insert(name.clone(), 0);
            }
            (Some(Ask::Grant { .. }), Said::Written { revision }) => self.lease = *revision,
            (Some(Ask::Renew { .. }), Said::Refused) => self.lease = 0,
            _ => {}
        }
    }

    // ------------------------------------------------------------ frames

    /// A frame of a master.
    pub fn frame(&mut self, core: &mut Core, conn: Conn, frame: Frame) {
        core.net.read(conn, End::Client);
        if self.watch == Some(conn) {
            self.heard_at = core.now;
            match frame {
                Frame::Watched(event) => self.watched(core, *event),
                Frame::Refused(_) | Frame::Closed => self.watch_again(core),
                _ => {}
            }
            return;
        }
        let Some(calling) = self.calling.as_mut().filter(|it| it.conn == Some(conn)) else {
            return;
        };
        match frame {
            Frame::Kept(answer) => self.answered(core, *answer),
            Frame::Refused(leader) => {
                // It was not taken: the same again, elsewhere.
                calling.conn = None;
                let masters = core.shape.masters;
                self.target = leader.unwrap_or((self.target + 1) % masters);
                self.later(core, 50 * MILLI, Event::Again);
            }
            Frame::Closed => self.unanswered(core),
            _ => {}
        }
    }

    /// What is watched comes in order, each change once.
    fn watched(&mut self, core: &mut Core, event: StateEvent) {
        let (at, is_first) = match &event {
            StateEvent::Snapshot { revision, .. } => (*revision, true),
            StateEvent::Set(variable) => (variable.version, false),
            StateEvent::Expunged { revision, .. } => (*revision, false),
        };
        // The snapshot of an account that is empty is as of 0.
        if is_first != (self.watched == 0) || !is_first && at < self.watched {
            let text = format!(
                "keeper {} watches, is at {} and is told {event:?}",
                self.number,
                self.watched.saturating_sub(1)
            );
            core.violate("registers", text);
        }
        self.watched = at + 1;
        match event {
            StateEvent::Snapshot { variables, .. } => {
                let known = variables.iter().map(|it| (it.name.clone(), it.version));
                self.mirror = known.collect();
            }
            StateEvent::Set(it) => {
                self.mirror.insert(it.name.clone(), it.version);
            }
            StateEvent::Expunged { names, .. } => {
                for name in names {
                    self.mirror.remove(name.as_ref());
                }
            }
        }
    }
}

fn value_of(bytes: &Bytes) -> u64 {
    <[u8; 8]>::try_from(bytes.as_ref()).map_or(0, u64::from_be_bytes)
}

fn request(ask: Ask, mark: WriteMark) -> StateRequest {
    let condition = |it: Option<u64>| it.map_or(Expected::Any, Expected::Version);
    match ask {
        Ask::Get { name } => StateRequest::Get { name: name.into() },
        Ask::Set {
            name,
            value,
            expected,
            lease,
        } => StateRequest::Set {
            name: name.into(),
            value: Bytes::copy_from_slice(&value.to_be_bytes()),
            expected: condition(expected),
            lease_id: lease,
            mark,
        },
        Ask::Expunge { name, expected } => StateRequest::Expunge {
            name: name.into(),
            expected: condition(expected),
            mark,
        },
        Ask::Grant { ttl } => StateRequest::GrantLease {
            ttl: core::time::Duration::from_nanos(ttl),
            mark,
        },
        Ask::Renew { lease } => StateRequest::RenewLease { lease_id: lease },
        Ask::Revoke { lease } => StateRequest::RevokeLease {
            lease_id: lease,
            mark,
        },
    }
}
