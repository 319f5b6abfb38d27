//! A master as a process: its disk, its clock, and what runs while it is up.
//!
//! The parts are those of production, composed as there: the node of the replicated log behind a
//! raft thread (`raft`), the machine behind a thread with an intake and an [`Outbox`] (`machine`),
//! connections that become inputs and messages that become frames (`door`). Only what does the
//! I/O is simulated.
//!
//! [`Outbox`]: tepui_master_machine::outbox::Outbox

mod door;
mod intake;
mod links;
mod machine;
mod raft;
mod rows;

use crate::{
    clock::{Clock, MILLI, SECOND},
    core::{Core, Event as WorldEvent},
    disk::{RowStore, SharedLog},
    network::{Conn, Frame, Host},
    trace::note,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use tepui_replication_node::{Batch, MemberChange, Members, NodeId, Origin, Role, Ticket};
use tepui_state::ClusterState;

pub use machine::Leadership;
pub(crate) use raft::Raft;
pub use rows::Copied;

/// Length of a tick of the replicated log.
pub const TICK: u64 = 10 * MILLI;
/// Ticks without a leader before an election, at least; at most twice as many.
pub const ELECTION_TICKS: u64 = 15;
/// The longest election time-out.
pub const ELECTION: u64 = 2 * ELECTION_TICKS * TICK;

/// What happens inside a master.
#[derive(Debug)]
pub enum Event {
    /// It starts.
    Start,
    /// The raft thread's clock.
    Tick,
    /// The machine's thread has something to do.
    Run,
    /// The machine's deadline, of this generation.
    Wake(u64),
    /// The log has written what it was given.
    LogWritten,
    /// The rows have been written.
    RowsWritten,
    /// A peer asks for rows.
    RowsAsked {
        /// Which master.
        by: usize,
        /// In which life.
        life: u64,
        /// At least this new.
        ticket: Ticket,
    },
    /// Rows have come; `None` when they did not.
    RowsCome(Option<Box<Copied>>),
    /// The link to a peer broke.
    LinkLost(NodeId),
    /// An invitation of an agent has had its time.
    InvitationLate(u64),
    /// What became of the rows that a peer was promised.
    RowsReport {
        /// The peer.
        peer: NodeId,
        /// Whether it got them.
        arrived: bool,
    },
    /// Is the peer that was promised rows still there?
    Doubt(NodeId),
}

impl Event {
    /// For the trace.
    pub fn kind(&self) -> u64 {
        match self {
            Event::Start => 1,
            Event::Tick => 2,
            Event::Run => 3,
            Event::Wake(generation) => 4 ^ generation << 4,
            Event::LogWritten => 5,
            Event::RowsWritten => 6,
            Event::RowsAsked { .. } => 7,
            Event::RowsCome(_) => 8,
            Event::RowsReport { .. } => 9,
            Event::LinkLost(peer) => 11 ^ peer << 4,
            Event::InvitationLate(session) => 10 ^ session << 4,
            Event::Doubt(peer) => 12 ^ peer << 4,
        }
    }
}

/// What a master keeps while its process is down, and what its processes share.
#[derive(Debug)]
pub struct Body {
    /// Its number among the masters.
    pub number: usize,
    /// Its node's id; another one after its disk was lost.
    pub id: NodeId,
    /// Of its processes; rises.
    pub life: u64,
    /// Its clock.
    pub clock: Clock,
    /// The log's store.
    pub log: SharedLog,
    /// The rows' store.
    pub rows: RowStore,
    /// Times as slow as other disks.
    pub slow: u64,
    /// When the write that was begun last is done.
    pub busy_until: u64,
    /// The next sync fails; how long the master is down then.
    pub fail_sync: Option<u64>,
    /// Nothing can be written.
    pub full: bool,
    /// The newest version of the log that its release knows.
    pub supported: u64,
    /// Of the cluster that it is a member of; rises when a backup is restored.
    pub incarnation: u64,
    // The members of a cluster that is founded with it, or that it joins.
    founders: Members,
}

impl Body {
    fn host(&self) -> Host {
        Host::Master(self.number)
    }

    fn later(&self, core: &mut Core, delay: u64, event: Event) {
        core.after(delay, WorldEvent::Master(self.number, self.life, event));
    }

    /// How long a sync takes now.
    fn sync(&self, core: &mut Core) -> u64 {
        let (low, high) = core.shape.sync;
        core.random.between(low, high) * self.slow
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// The raft thread.
    pub(crate) raft: Raft,
    /// The state moved by committed entries alone.
    pub committed: ClusterState,
    /// The machine's thread.
    pub(crate) thread: machine::Thread,
    door: door::Door,
    links: links::Links,
    /// Peers that were promised rows, and nothing was heard of it since.
    promises: BTreeMap<NodeId, rows::Promise>,
    /// A ticket whose rows are on their way.
    fetch: Option<rows::Fetch>,
    /// Rows that have come, until the node says whether they are needed.
    fetched: Option<RowStore>,
}

/// A master.
#[derive(Debug)]
pub struct Master {
    /// What outlives its process.
    pub body: Body,
    /// What runs.
    pub process: Option<Process>,
}

/// Why a process cannot go on.
#[derive(Debug)]
pub(crate) struct Fatal(pub(crate) String);

impl Master {
    /// A master that was never started.
    pub fn new(core: &mut Core, number: usize, founders: Members) -> Master {
        let id = number as u64 + 1;
        core.nodes.insert(id, number);
        let drift = core.shape.drift;
        let span = 2 * drift.unsigned_abs();
        let drift = core.random.below(span + 1) as i64 - drift;
        // Processes were booted at different times.
        let local = core.random.below(1000 * SECOND);
        Master {
            body: Body {
                number,
                id,
                life: 0,
                clock: Clock::new(core.now, local, drift),
                log: SharedLog::default(),
                rows: RowStore::default(),
                slow: 1,
                busy_until: 0,
                fail_sync: None,
                full: false,
                supported: tepui_state::VERSION,
                incarnation: 1,
                founders,
            },
            process: None,
        }
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether this master has a machine.
    pub fn leads(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|it| it.thread.leadership.is_some())
    }

    /// Whether its node leads, and in which term.
    pub fn leading_term(&self) -> Option<u64> {
        match self.process.as_ref()?.raft.node.role() {
            Role::Leader { term } => Some(term),
            Role::Follower { .. } | Role::Candidate { .. } => None,
        }
    }

    /// Starts the process in a while.
    pub fn start_after(&mut self, core: &mut Core, delay: u64) {
        self.body.later(core, delay, Event::Start);
    }

    /// The process dies; without `power` its peers hear nothing of it.
    pub fn crash(&mut self, core: &mut Core, power: bool) {
        let host = self.body.host();
        if self.process.take().is_none() {
            return;
        }
        self.body.life += 1;
        core.set_life(self.body.number, self.body.life);
        let mut log = self.body.log.0.borrow_mut();
        let keep = core.random.index(log.unsynced() + 1);
        log.crash(keep);
        drop(log);
        note!(core, host, "crashes{}", if power { " (power)" } else { "" });
        core.resume(host);
        match power {
            true => core.set_dark(host, true),
            false => {
                core.hang_up(host);
                for other in (0..core.shape.masters).filter(|it| *it != self.body.number) {
                    if !core.net.is_cut(host, Host::Master(other)) {
                        let (delay, life) = (core.net.delay(), core.life(other));
                        let event = Event::LinkLost(self.body.id);
                        core.after(delay, WorldEvent::Master(other, life, event));
                    }
                }
            }
        }
    }

    /// A new disk gets the rows of a backup: it is the only member of the cluster's next
    /// incarnation.
    pub fn restore(&mut self, core: &mut Core, id: NodeId, backup: &RowStore, incarnation: u64) {
        let members = Members::voters([id]);
        self.lose_disk(core, id, members.clone());
        self.body.incarnation = incarnation;
        let stamp = backup.stamp.clone().map(|it| Origin {
            members: members.clone(),
            ..it
        });
        self.body.rows = RowStore {
            stamp,
            copied: true,
            ..backup.clone()
        };
        let batch = Batch {
            state: Some(tepui_replication_node::first_state(&members)),
            must_sync: true,
            ..Batch::default()
        };
        self.body.log.0.borrow_mut().write(vec![batch], true);
    }

    /// The disk is gone; what comes up is another node that nobody knows.
    pub fn lose_disk(&mut self, core: &mut Core, id: NodeId, members: Members) {
        debug_assert!(self.process.is_none(), "the process is down");
        note!(
            core,
            self.body.host(),
            "has lost its disk and is node {id} from now on"
        );
        self.body.log = SharedLog::default();
        self.body.rows = RowStore::default();
        self.body.id = id;
        self.body.founders = members;
        core.nodes.insert(id, self.body.number);
        core.checkers.history.forget(self.body.number);
    }

    fn start(&mut self, core: &mut Core) {
        if self.process.is_some() {
            return;
        }
        let host = self.body.host();
        core.set_dark(host, false);
        if self.body.full {
            // It says so and ends; its supervisor tries again.
            self.start_after(core, SECOND);
            return;
        }
        match Process::start(&mut self.body, core) {
            Ok(process) => {
                note!(core, host, "starts as node {}", self.body.id);
                let process = self.process.insert(process);
                let outcome = process.drain_node(&mut self.body, core);
                self.outcome(core, outcome);
                if self.process.is_some() {
                    self.body.later(core, TICK, Event::Tick);
                }
            }
            // No fault of ours leaves a store that cannot be opened.
            Err(text) => core.violate("start", format!("{host} cannot start: {text}")),
        }
    }

    fn outcome(&mut self, core: &mut Core, outcome: Result<(), Fatal>) {
        if let Err(Fatal(text)) = outcome {
            let host = self.body.host();
            note!(core, host, "ends: {text}");
            let lasts = self.body.fail_sync.take();
            self.crash(core, false);
            self.start_after(core, lasts.unwrap_or(SECOND));
        }
    }

    /// Something happens inside, in the life in which it was begun.
    pub fn handle(&mut self, core: &mut Core, event: Event) {
        if matches!(event, Event::Start) {
            self.start(core);
            return;
        }
        let Some(process) = &mut self.process else {
            return;
        };
        let body = &mut self.body;
        let outcome = match event {
            Event::Start => Ok(()),
            Event::Tick => process.tick(body, core),
            Event::Run => process.run(body, core),
            Event::Wake(generation) => process.wake(generation, body, core),
            Event::LogWritten => process.log_written(body, core),
            Event::RowsWritten => process.rows_written(body, core),
            Event::RowsAsked { by, life, ticket } => {
                process.rows_asked(body, core, by, life, ticket);
                Ok(())
            }
            Event::RowsCome(rows) => process.rows_come(body, core, rows),
            Event::InvitationLate(session) => {
                process.invitation_late(body, core, session);
                Ok(())
            }
            Event::LinkLost(peer) => {
                process.raft.node.leader_lost(peer);
                process.drain_node(body, core)
            }
            Event::RowsReport { peer, arrived } => {
                process.promises.remove(&peer);
                process.raft.node.report_rows(peer, arrived);
                process.drain_node(body, core)
            }
            Event::Doubt(peer) => process.doubt(body, core, peer),
        };
        self.outcome(core, outcome);
    }

    /// A message of another master.
    pub fn raft_message(
        &mut self,
        core: &mut Core,
        from: NodeId,
        message: Bytes,
        ticket: Option<Ticket>,
    ) {
        if let Some(process) = &mut self.process {
            let outcome = process.raft_message(&mut self.body, core, from, message, ticket);
            self.outcome(core, outcome);
        }
    }

    /// A frame of a client; without a process the host says that nobody listens.
    pub fn frame(&mut self, core: &mut Core, conn: Conn, frame: Frame) {
        match &mut self.process {
            Some(process) => process.frame(&mut self.body, core, conn, frame),
            None if matches!(frame, Frame::Closed) => {}
            None => core.send(conn, crate::network::End::Client, Frame::Closed),
        }
    }

    /// The operator asks the leader to change the members.
    pub fn change_members(&mut self, core: &mut Core, changes: &[MemberChange]) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        let proposed = process.raft.node.propose_members(changes).is_ok();
        let outcome = process.drain_node(&mut self.body, core);
        self.outcome(core, outcome);
        proposed
    }

    /// The operator asks the leader to hand over, or to give up.
    pub fn step_down(&mut self, core: &mut Core, to: Option<NodeId>) {
        let Some(process) = &mut self.process else {
            return;
        };
        match to {
            Some(to) => process.raft.node.transfer_leadership(to),
            None => process.raft.node.step_down(),
        }
        let outcome = process.drain_node(&mut self.body, core);
        self.outcome(core, outcome);
    }
}
