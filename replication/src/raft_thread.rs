//! The loop that owns the node and the listener.
//!
//! It waits for a command, a writer's progress or the next tick; feeds everything that has come to
//! the node; does what it asks for; writes rows behind when it is time. It is a task of its owner's
//! runtime, whose one thread also reads and writes the links to the peers: a message of a peer and
//! the answer to it wake nobody else, and the two never work at the same time anyway.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tepui_replication_node::{MemberChange, Node, NodeId, Origin, Persist, Ready, Role, Ticket};
use tokio::{sync::mpsc::Receiver, time::timeout};

use crate::{
    fatal::Fatal,
    listener::Listener,
    marks::Marks,
    options::Options,
    replica::{Fault, Permit, Proposed, Shared, Status},
    rocks::LogDb,
    store::RowsRecord,
    transfer::{FetchedRows, RowsPart, RowsSink},
    writers::{Progress, RowsWork},
};

/// Called with what became of something, on the raft thread; must not wait.
pub(crate) type Answer<T> = Box<dyn FnOnce(T) + Send>;

/// What the raft thread is told.
pub(crate) enum Command {
    /// A writer has come further.
    Wake,
    Propose {
        term: u64,
        sequence: u64,
        entry: Bytes,
    },
    Deliver {
        messages: Vec<Bytes>,
        permit: Permit,
    },
    Restore {
        ticket: Bytes,
        rows: Box<FetchedRows>,
        answer: Answer<bool>,
    },
    SendRows {
        min_index: u64,
        sink: RowsSink,
    },
    LinkLost {
        peer: NodeId,
    },
    Status {
        answer: Answer<Status>,
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
        notes: BTreeMap<NodeId, Bytes>,
        answer: Answer<Result<Proposed, String>>,
    },
}

/// Commands taken before the node is asked what to do: enough for one batch, few enough that ticks
/// are not late.
const COMMANDS_AT_ONCE: usize = 256;

/// A write that takes longer than this hangs: longer than disks that work take, and shorter than
/// people wait. Handing over costs little when it was none after all.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// How much of what the node wanted was done.
enum Drained {
    Wholly,
    Partly,
}

pub(crate) struct RaftThread {
    node: Node<LogDb>,
    listener: Box<dyn Listener>,
    shared: Arc<Shared>,
    log: (SyncSender<Persist>, Progress),
    rows: (SyncSender<RowsWork>, Progress),
    fault: Fault,
    marks: Marks,
    // Sequence and bytes of this term's proposals on their way.
    in_flight: VecDeque<(u64, usize)>,
    // The last term in which a proposal was refused.
    refused_in: u64,
    // Proposals that wait for the end of an attempt to hand leadership over: as many bytes as
    // may be in flight.
    held: VecDeque<(u64, u64, Bytes)>,
    // The newest confirmation asked for, and the one on its way: one question at a time, which
    // stands for all before it.
    asked: Option<u64>,
    asking: Option<u64>,
    // Index and ticket of confirmations that wait for the listener to catch up.
    confirmations: VecDeque<(u64, u64)>,
    // Rows that a ticket waits for to be swapped in, and who wants to know.
    fetched: Option<(FetchedRows, Answer<bool>)>,
    // Entry as of which the newest such rows are: with nothing applied after it, the log may not be
    // durable yet.
    fetched_at: u64,
    // When the log's thread was seen to make progress, or had nothing to do.
    logged_at: Instant,
    logged: u64,
    // The last write given to it.
    given: u64,
    // Term as the listener knows it.
    term: u64,
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
        rows: (SyncSender<RowsWork>, Progress),
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
            refused_in: 0,
            held: VecDeque::new(),
            asked: None,
            asking: None,
            confirmations: VecDeque::new(),
            fetched: None,
            fetched_at: 0,
            logged_at: now,
            logged: 0,
            given: 0,
            term: 0,
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
    pub(crate) async fn run(mut self, mut incoming: Receiver<Command>) {
        let mut stop = None;
        let members = self.node.members().clone();
        self.listener.on_members(&members);
        // What the node wants before anything has happened: its first record, its campaign.
        let mut outcome = self.drain();
        while stop.is_none() && outcome.is_ok() {
            let wait = match outcome {
                Ok(Drained::Partly) => Duration::ZERO,
                _ => self.next_tick.saturating_duration_since(Instant::now()),
            };
            // What was sent leaves, and what has come is read, before more is taken in.
            tokio::task::yield_now().await;
            if let Ok(Some(command)) = timeout(wait, incoming.recv()).await {
                self.take(command);
            }
            for _ in 1..COMMANDS_AT_ONCE {
                let Ok(command) = incoming.try_recv() else {
                    break;
                };
                self.take(command);
            }
            if self.fault.is_told() {
                break;
            }
            stop = self.heed();
            self.node.on_persisted(self.log.1.get());
            self.advance_time();
            self.watch_disk();
            outcome = self.drain();
            self.write_behind();
        }
        self.shared.leading().begin(0);
        match outcome {
            Err(fatal) => self.fault.report(&fatal),
            Ok(_) if stop == Some(true) => {
                // Waits for a flush under way; the writer ends when the queue is empty.
                self.flush_rows(false);
            }
            Ok(_) => {}
        }
    }

    // What the owner and the machine's thread want besides commands, which waits in no queue.
    // `Some` when told to stop, with whether to write the rows.
    fn heed(&mut self) -> Option<bool> {
        let (asked, given_up, stop) = {
            let mut leading = self.shared.leading();
            let given_up = leading.given_up && leading.term != 0;
            (leading.asked.take(), given_up, leading.stop)
        };
        self.asked = self.asked.max(asked);
        if given_up && matches!(self.node.role(), Role::Leader { .. }) {
            self.node.step_down();
        }
        stop
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Wake => {}
            Command::Propose {
                term,
                sequence,
                entry,
            } => self.propose(term, sequence, entry),
            Command::Deliver { messages, permit } => {
                for message in messages {
                    if let Err(error) = self.node.step(message) {
                        tracing::debug!(%error, "dropped a message of a peer");
                    }
                }
                drop(permit);
            }
            Command::Restore {
                ticket,
                rows,
                answer,
            } => self.take_rows(ticket, *rows, answer),
            Command::SendRows { min_index, sink } => self.send_rows(min_index, sink),
            Command::LinkLost { peer } => self.node.leader_lost(peer),
            Command::Status { answer } => answer(self.status()),
            Command::Unreachable { peer } => self.node.report_unreachable(peer),
            Command::Rows { peer, arrived } => self.node.report_rows(peer, arrived),
            Command::Campaign => self.node.campaign(),
            Command::StepDown { to: Some(to) } => self.node.transfer_leadership(to),
            Command::StepDown { to: None } => self.node.step_down(),
            Command::ChangeMembers {
                changes,
                notes,
                answer,
            } => {
                let proposed = match self.node.is_changing_members() {
                    true => Err("a change of the masters is under way".to_owned()),
                    false => {
                        let proposed = self.node.propose_noted_members(&changes, &notes);
                        let term = self.node.term();
                        let proposed = proposed.map(|index| Proposed { index, term });
                        proposed.map_err(|it| it.to_string())
                    }
                };
                answer(proposed);
            }
        }
    }

    fn status(&self) -> Status {
        Status {
            role: self.node.role(),
            term: self.node.term(),
            applied: self.applied,
            last_index: self.node.last_index(),
            cut_index: self.node.cut_index(),
            members: self.node.members().clone(),
            peers: self.node.peers(),
            is_transferring: self.node.is_transferring(),
        }
    }

    // Rows as of now or later: what is dirty is written first.
    fn send_rows(&mut self, min_index: u64, mut sink: RowsSink) {
        if self.applied < min_index {
            let applied = self.applied;
            let text = format!("rows are as of entry {applied}, before entry {min_index}");
            sink(RowsPart::Failed(text));
            return;
        }
        self.flush_rows(true);
        // Fails when the rows' thread has ended, which has told why.
        let _ = self.rows.0.send(RowsWork::Send { sink });
    }

    fn take_rows(&mut self, ticket: Bytes, rows: FetchedRows, answer: Answer<bool>) {
        if self.fetched.is_some() {
            // Whoever fetches waits for the answer before it begins again.
            tracing::warn!("rows of another master came while others are put in place");
            return answer(false);
        }
        match self.node.step_with_rows(ticket, &rows.origin) {
            Ok(()) => self.fetched = Some((rows, answer)),
            Err(error) => {
                tracing::warn!(%error, "rows of another master are not needed");
                answer(false);
            }
        }
    }

    // Rows of another master take the place of ours. Its leader and we agree that the log begins
    // behind them.
    fn restore(&mut self, begins: Ticket) -> Result<(), Fatal> {
        let Some((mut rows, answer)) = self.fetched.take() else {
            return Err(Fatal::Restore("a ticket came without its rows".into()));
        };
        let origin = rows.origin.clone();
        if (origin.index, origin.term) != (begins.index, begins.term) {
            let text = format!("rows of {origin:?} for a log that begins behind {begins:?}");
            return Err(Fatal::Restore(text.into()));
        }
        let prepared = rows.prepared.take();
        let (done, when) = std::sync::mpsc::sync_channel(1);
        if self.rows.0.send(RowsWork::Swap { rows, done }).is_err() || when.recv().is_err() {
            // The rows' thread has told why.
            return Ok(());
        }
        let restored = self.listener.on_restored(&origin, prepared);
        restored.map_err(Fatal::Restore)?;
        self.applied = origin.index;
        self.fetched_at = origin.index;
        self.flushing = origin.index;
        self.marks = Marks::new(origin.index);
        self.flushed_bytes = 0;
        tracing::info!(
            index = origin.index,
            "rows of another master are in place of ours"
        );
        answer(true);
        Ok(())
    }

    fn propose(&mut self, term: u64, sequence: u64, entry: Bytes) {
        if self.node.is_transferring() || !self.held.is_empty() {
            self.held.push_back((term, sequence, entry));
            return;
        }
        self.propose_now(term, sequence, entry);
    }

    fn propose_held(&mut self) {
        while !self.node.is_transferring()
            && let Some((term, sequence, entry)) = self.held.pop_front()
        {
            self.propose_now(term, sequence, entry);
        }
    }

    // One question to the peers at a time; the next stands for all that came meanwhile.
    fn ask_peers(&mut self) {
        if self.asking.is_none()
            && let Some(ticket) = self.asked.take()
            && matches!(self.node.role(), Role::Leader { .. })
        {
            self.asking = Some(ticket);
            let context = Bytes::copy_from_slice(&ticket.to_be_bytes());
            self.node.read_index(context);
        }
    }

    fn propose_now(&mut self, term: u64, sequence: u64, entry: Bytes) {
        let bytes = entry.len();
        match self.node.propose(term, sequence, entry) {
            Ok(_) => self.in_flight.push_back((sequence, bytes)),
            Err(error) => {
                self.shared.landed(bytes);
                // What this term's machine proposes later may rest on what is lost here.
                if self.shared.leading().term == term
                    && std::mem::replace(&mut self.refused_in, term) != term
                {
                    tracing::info!(%error, term, "a proposal was refused; leadership ends");
                    self.node.step_down();
                }
            }
        }
    }

    fn advance_time(&mut self) {
        let now = Instant::now();
        let late = now.saturating_duration_since(self.next_tick);
        if late > self.tick * (self.election_ticks / 2) as u32 {
            tracing::warn!(
                late_ms = late.as_millis(),
                "the thread of the log did not run for most of an election time-out: this machine \
                 is overloaded, or its disk"
            );
        }
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

    // A leader whose disk hangs goes on with its heartbeats while nothing that it proposes is
    // ever handed out: others, whose disks work, are better leaders.
    fn watch_disk(&mut self) {
        let logged = self.log.1.get();
        let now = Instant::now();
        if logged != self.logged || logged >= self.given {
            self.logged = logged;
            self.logged_at = now;
            return;
        }
        let hangs = now - self.logged_at > DISK_PATIENCE;
        if !hangs || self.node.is_transferring() {
            return;
        }
        let own = self.node.id();
        let voters = &self.node.members().voters;
        let peers = self.node.peers().into_iter();
        let others = peers.filter(|it| it.id != own && voters.contains(&it.id));
        // On followers there are none.
        if let Some(next) = others.max_by_key(|it| it.matched) {
            tracing::error!(
                next = next.id,
                "the log's disk hangs: handing leadership to another master"
            );
            self.node.transfer_leadership(next.id);
        }
    }

    // Does what the node asks for, until it asks for nothing or others want to be heard.
    fn drain(&mut self) -> Result<Drained, Fatal> {
        let until = Instant::now() + self.tick;
        loop {
            if Instant::now() > until {
                return Ok(Drained::Partly);
            }
            self.propose_held();
            self.ask_peers();
            let Some(ready) = self.node.ready() else {
                break;
            };
            self.handle(ready)?;
        }
        if let Some((rows, answer)) = self.fetched.take() {
            let index = rows.origin.index;
            tracing::info!(index, "rows of another master were not needed");
            answer(false);
        }
        Ok(Drained::Wholly)
    }

    fn handle(&mut self, ready: Ready) -> Result<(), Fatal> {
        if self.node.term() != self.term {
            self.term = self.node.term();
            self.listener.on_term(self.term);
        }
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
        // Before the log that begins behind them.
        if let Some(begins) = ready.restore {
            self.restore(begins)?;
        }
        if let Some(persist) = ready.persist {
            if let Some((last, _)) = persist.batch.entries.last() {
                let bytes = persist.batch.entry_bytes() as u64;
                self.marks.grow(*last, bytes);
            }
            self.given = persist.number;
            // Fails when the log's thread has ended, which has told why.
            let _ = self.log.0.send(persist);
        }
        for committed in ready.committed {
            self.landed(committed.term, committed.sequence);
            let index = committed.index;
            self.listener
                .on_committed(committed)
                .map_err(|source| Fatal::Apply { index, source })?;
        }
        if let Some(index) = ready.committed_to {
            self.applied = self.applied.max(index);
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
                self.asking = self.asking.filter(|it| *it > ticket);
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
                self.shared.leading().begin(term);
            }
            self.listener.on_leader(term);
        }
        Ok(())
    }

    fn lose_leadership(&mut self) {
        self.shared.leading().begin(0);
        for (_, bytes) in self.in_flight.drain(..) {
            self.shared.landed(bytes);
        }
        for (_, _, entry) in self.held.drain(..) {
            self.shared.landed(entry.len());
        }
        self.asked = None;
        self.asking = None;
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
            self.flush_rows(false);
        }
    }

    // Unless nothing has changed, which `anyway` does not care for: the record must then be of the
    // form that others can go on from.
    fn flush_rows(&mut self, anyway: bool) {
        if self.applied == self.flushing && !anyway {
            return;
        }
        self.flushing = self.applied;
        self.flushed_bytes = self.marks.total();
        let newest = self.node.committed();
        let members = self.node.members().clone();
        let flush = RowsWork::Flush {
            rows: self.listener.take_dirty_rows(),
            record: RowsRecord::At {
                origin: Origin {
                    index: self.applied,
                    term: newest.term,
                    members,
                },
                fetched: self.applied == self.fetched_at,
            },
        };
        // Fails when the rows' thread has ended, which has told why.
        let _ = self.rows.0.send(flush);
    }
}
