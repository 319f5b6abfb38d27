//! The thread that owns the node and the listener.
//!
//! One loop: wait for a command, a writer's progress or the next tick; feed everything that has
//! come to the node; do what it asks for; write rows behind when it is time.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tepui_replication_node::{MemberChange, Node, NodeId, Persist, Ready, Role};

use crate::{
    fatal::Fatal,
    listener::Listener,
    marks::Marks,
    options::Options,
    replica::{Fault, Shared},
    rocks::LogDb,
    writers::{Flush, Progress},
};

/// What the raft thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// A writer has come further.
    Wake,
    Propose {
        term: u64,
        sequence: u64,
        entry: Bytes,
    },
    Confirm {
        ticket: u64,
    },
    Deliver {
        message: Bytes,
    },
    Unreachable {
        peer: NodeId,
    },
    Rows {
        peer: NodeId,
        arrived: bool,
    },
    Campaign,
    StepDown {
        to: Option<NodeId>,
    },
    ChangeMembers {
        changes: Vec<MemberChange>,
    },
    Stop {
        flush: bool,
    },
}

/// Commands taken before the node is asked what to do: enough for one batch, few enough that ticks
/// are not late.
const COMMANDS_AT_ONCE: usize = 256;

pub(crate) struct RaftThread {
    node: Node<LogDb>,
    listener: Box<dyn Listener>,
    shared: Arc<Shared>,
    log: (SyncSender<Persist>, Progress),
    rows: (SyncSender<Flush>, Progress),
    fault: Fault,
    marks: Marks,
    // Sequence and bytes of this term's proposals on their way.
    in_flight: VecDeque<(u64, usize)>,
    // Index and ticket of confirmations that wait for the listener to catch up.
    confirmations: VecDeque<(u64, u64)>,
    // Last entry that the listener has.
    applied: u64,
    // Applied index and log bytes of the last flush given out.
    flushing: u64,
    flushed_bytes: u64,
    flush_at: Instant,
    flush_interval: Duration,
    flush_bytes: u64,
    keep_log_bytes: u64,
    tick: Duration,
    next_tick: Instant,
    election_ticks: usize,
}

impl RaftThread {
    pub(crate) fn new(
        node: Node<LogDb>,
        listener: Box<dyn Listener>,
        options: &Options,
        shared: Arc<Shared>,
        log: (SyncSender<Persist>, Progress),
        rows: (SyncSender<Flush>, Progress),
        fault: Fault,
    ) -> RaftThread {
        let now = Instant::now();
        let applied = node.applied();
        RaftThread {
            marks: Marks::new(node.last_index()),
            node,
            listener,
            shared,
            log,
            rows,
            fault,
            in_flight: VecDeque::new(),
            confirmations: VecDeque::new(),
            applied,
            flushing: applied,
            flushed_bytes: 0,
            flush_at: now + options.flush_interval,
            flush_interval: options.flush_interval,
            flush_bytes: options.flush_bytes,
            keep_log_bytes: options.keep_log_bytes,
            tick: options.tick,
            next_tick: now + options.tick,
            election_ticks: options.election_ticks,
        }
    }

    /// Until told to stop, or until something fails.
    pub(crate) fn run(mut self, incoming: &Receiver<Command>) {
        let mut stop = None;
        // What the node wants before anything has happened: its first record, its campaign.
        let mut outcome = self.drain();
        while stop.is_none() && outcome.is_ok() {
            let wait = self.next_tick.saturating_duration_since(Instant::now());
            match incoming.recv_timeout(wait) {
                Ok(command) => stop = self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left who could say anything.
                Err(RecvTimeoutError::Disconnected) => stop = Some(false),
            }
            for _ in 1..COMMANDS_AT_ONCE {
                let Ok(command) = incoming.try_recv() else {
                    break;
                };
                stop = stop.or(self.take(command));
            }
            if self.fault.is_told() {
                break;
            }
            self.node.on_persisted(self.log.1.get());
            self.advance_time();
            outcome = self.drain();
            self.write_behind();
        }
        self.shared.leading().term = 0;
        match outcome {
            Err(fatal) => self.fault.report(&fatal),
            Ok(()) if stop == Some(true) => {
                // Waits for a flush under way; the writer ends when the queue is empty.
                self.flush_rows();
            }
            Ok(()) => {}
        }
    }

    // `Some` when told to stop, with whether to write the rows.
    fn take(&mut self, command: Command) -> Option<bool> {
        match command {
            Command::Wake => {}
            Command::Propose {
                term,
                sequence,
                entry,
            } => self.propose(term, sequence, entry),
            Command::Confirm { ticket } => {
                let context = Bytes::copy_from_slice(&ticket.to_be_bytes());
                self.node.read_index(context);
            }
            Command::Deliver { message } => {
                if let Err(error) = self.node.step(message) {
                    tracing::debug!(%error, "dropped a message of a peer");
                }
            }
            Command::Unreachable { peer } => self.node.report_unreachable(peer),
            Command::Rows { peer, arrived } => self.node.report_rows(peer, arrived),
            Command::Campaign => self.node.campaign(),
            Command::StepDown { to: Some(to) } => self.node.transfer_leadership(to),
            Command::StepDown { to: None } => self.node.step_down(),
            Command::ChangeMembers { changes } => {
                if let Err(error) = self.node.propose_members(&changes) {
                    tracing::warn!(%error, "members are not changed");
                }
            }
            Command::Stop { flush } => return Some(flush),
        }
        None
    }

    fn propose(&mut self, term: u64, sequence: u64, entry: Bytes) {
        let bytes = entry.len();
        match self.node.propose(term, sequence, entry) {
            Ok(_) => self.in_flight.push_back((sequence, bytes)),
            Err(error) => {
                self.shared.landed(bytes);
                // What this term's machine proposes later may rest on what is lost here.
                if self.shared.leading().term == term {
                    tracing::info!(%error, term, "a proposal was refused; leadership ends");
                    self.node.step_down();
                }
            }
        }
    }

    fn advance_time(&mut self) {
        let now = Instant::now();
        // After a long stall the leader has not been silent, we have been deaf: its messages
        // wait behind us, so the ticks missed must not add up to an election.
        let mut ticks = self.election_ticks / 2;
        while now >= self.next_tick {
            self.next_tick += self.tick;
            if ticks > 0 {
                ticks -= 1;
                self.node.tick();
            } else {
                self.next_tick = now + self.tick;
            }
        }
    }

    // Does what the node asks for, until it asks for nothing.
    fn drain(&mut self) -> Result<(), Fatal> {
        while let Some(ready) = self.node.ready() {
            self.handle(ready)?;
        }
        Ok(())
    }

    fn handle(&mut self, ready: Ready) -> Result<(), Fatal> {
        if let Some(role) = ready.deposed {
            self.lose_leadership();
            let leader = match role {
                Role::Follower { leader, .. } => leader,
                Role::Candidate { .. } | Role::Leader { .. } => None,
            };
            self.listener.on_follower(leader);
        }
        for message in ready.messages {
            self.listener.on_send(message);
        }
        if let Some(persist) = ready.persist {
            if let Some((last, _)) = persist.batch.entries.last() {
                let bytes = persist.batch.entry_bytes() as u64;
                self.marks.grow(*last, bytes);
            }
            // Fails when the log's thread has ended, which has told why.
            let _ = self.log.0.send(persist);
        }
        if let Some(ticket) = ready.restore {
            return Err(Fatal::RowsNeeded {
                index: ticket.index,
            });
        }
        for committed in ready.committed {
            self.landed(committed.term, committed.sequence);
            let index = committed.index;
            self.listener
                .on_committed(committed)
                .map_err(|source| Fatal::Apply { index, source })?;
        }
        if let Some(index) = ready.committed_to {
            self.applied = index;
            self.node.advance_applied(index);
        }
        if let Some(members) = ready.members {
            self.listener.on_members(&members);
        }
        for read in ready.reads {
            // Of a leadership that has ended meanwhile.
            if !matches!(self.node.role(), Role::Leader { .. }) {
                break;
            }
            if let Ok(ticket) = <[u8; 8]>::try_from(read.context.as_ref()) {
                let ticket = u64::from_be_bytes(ticket);
                self.confirmations.push_back((read.index, ticket));
            }
        }
        while let Some((index, ticket)) = self.confirmations.front().copied()
            && index <= self.applied
        {
            self.confirmations.pop_front();
            self.listener.on_confirmed(ticket);
        }
        if let Some(term) = ready.elected {
            {
                let mut leading = self.shared.leading();
                leading.term = term;
                leading.sequence = 0;
            }
            self.listener.on_leader(term);
        }
        Ok(())
    }

    fn lose_leadership(&mut self) {
        self.shared.leading().term = 0;
        for (_, bytes) in self.in_flight.drain(..) {
            self.shared.landed(bytes);
        }
        self.confirmations.clear();
    }

    fn landed(&mut self, term: u64, sequence: u64) {
        // Another term's sequences say nothing about this one's.
        if self.node.role() != (Role::Leader { term }) {
            return;
        }
        while let Some((first, bytes)) = self.in_flight.front().copied()
            && first <= sequence
        {
            self.in_flight.pop_front();
            self.shared.landed(bytes);
        }
    }

    fn write_behind(&mut self) {
        let flushed = self.rows.1.get();
        if let Some(cut) = self.marks.cut(flushed, self.keep_log_bytes) {
            self.node.compact(cut);
        }
        // One at a time: what changes meanwhile is coalesced.
        if flushed < self.flushing || self.applied == self.flushing {
            return;
        }
        let now = Instant::now();
        let bytes = self.marks.total() - self.flushed_bytes;
        if now >= self.flush_at || bytes >= self.flush_bytes {
            self.flush_at = now + self.flush_interval;
            self.flush_rows();
        }
    }

    fn flush_rows(&mut self) {
        if self.applied == self.flushing {
            return;
        }
        self.flushing = self.applied;
        self.flushed_bytes = self.marks.total();
        let flush = Flush {
            rows: self.listener.take_dirty_rows(),
            applied: self.applied,
        };
        // Fails when the rows' thread has ended, which has told why.
        let _ = self.rows.0.send(flush);
    }
}
