//! The raft thread: drives the node, applies what is committed, writes log and rows.
//!
//! What stands here is what `replication/src/raft_thread.rs` does, on a simulated disk.

use super::{Body, ELECTION_TICKS, Event, Fatal, Process, TICK, machine::Control};
use crate::{
    clock::SECOND,
    core::{Core, Event as WorldEvent},
    disk::SharedLog,
    network::Host,
    trace::{bytes_hash, note},
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use tepui_model::{
    log::{LaunchTask, operation::Kind},
    time::Instant,
};
use tepui_replication_node::{
    Committed, Config, Node, NodeId, Origin, Outgoing, Persist, Ready, Role, StepError, Ticket,
};
use tepui_state::{ClusterState, decode_entry};

/// Batches of one sync, at most.
const MAX_GROUP: usize = 256;

/// What the raft thread owns.
pub(crate) struct Raft {
    pub(crate) node: Node<SharedLog>,
    /// The term that this master leads as its handle says; 0 when it does not.
    pub(crate) leading: u64,
    /// Of the newest proposal of the term.
    pub(crate) sequence: u64,
    /// Last entry whose effects are in the committed state.
    pub(super) applied: u64,
    confirmations: VecDeque<(u64, u64)>,
    // Batches that wait for the log's thread, and how many of them it is writing.
    log_queue: VecDeque<Persist>,
    writing: usize,
    next_tick: Instant,
    // Rows: what is being written, as of which entry; and when the next flush is due.
    pub(super) flushing: Option<(Origin, super::rows::Changes)>,
    pub(super) flush_at: Instant,
    // Index of an entry, and bytes of all entries up to it, both rising.
    marks: VecDeque<(u64, u64)>,
    logged: u64,
    // Proposals that wait for the end of an attempt to hand leadership over.
    held: VecDeque<(u64, u64, Bytes)>,
    // The newest confirmation asked for, and the one on its way: it stands for all before it.
    asked: Option<u64>,
    asking: Option<u64>,
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft")
            .field("node", &self.node)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

impl Process {
    pub(super) fn start(body: &mut Body, core: &mut Core) -> Result<Process, String> {
        let rows = body.rows.rows.iter();
        let committed =
            ClusterState::load_supporting(body.supported, rows).map_err(|it| it.to_string())?;
        let limits = core.shape.limits;
        let config = Config {
            applied: body.rows.applied,
            max_message_bytes: limits.message,
            // Small, so that disks are read.
            cache_bytes: limits.message * 4,
            ..Config::new(body.id, core.shape.seed, body.founders.clone())
        };
        let stored = body.log.stored(body.rows.origin());
        let mut node = Node::new(config, body.log.clone(), stored).map_err(|it| it.to_string())?;
        if node.members().is_sole_voter(body.id) {
            node.campaign();
        }
        let now = body.clock.now(core.now);
        core.checkers.history.start(body.number, body.rows.applied);
        core.checkers
            .durability
            .disk(body.id, &body.log, node.members());
        Ok(Process {
            raft: Raft {
                leading: 0,
                sequence: 0,
                applied: node.applied(),
                confirmations: VecDeque::new(),
                log_queue: VecDeque::new(),
                writing: 0,
                next_tick: now + core::time::Duration::from_nanos(TICK),
                flushing: None,
                flush_at: now,
                marks: VecDeque::from([(node.last_index(), 0)]),
                logged: 0,
                held: VecDeque::new(),
                asked: None,
                asking: None,
                node,
            },
            committed,
            thread: super::machine::Thread::default(),
            door: super::door::Door::default(),
            links: super::links::Links::default(),
            promises: BTreeMap::new(),
            fetch: None,
            fetched: None,
        })
    }

    /// The node's clock. After a long stall only some of the missed ticks count.
    pub(super) fn tick(&mut self, body: &mut Body, core: &mut Core) -> Result<(), Fatal> {
        let now = body.clock.now(core.now);
        let tick = core::time::Duration::from_nanos(TICK);
        let mut ticks = ELECTION_TICKS / 2;
        while now >= self.raft.next_tick {
            self.raft.next_tick = self.raft.next_tick + tick;
            if ticks > 0 {
                ticks -= 1;
                self.raft.node.tick();
            } else {
                self.raft.next_tick = now + tick;
            }
        }
        let due = body.clock.true_time(core.now, self.raft.next_tick);
        core.at(due, WorldEvent::Master(body.number, body.life, Event::Tick));
        self.drain_node(body, core)?;
        self.write_behind(body, core);
        self.pace(body, core);
        Ok(())
    }

    pub(super) fn raft_message(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        from: NodeId,
        message: Bytes,
        ticket: Option<Ticket>,
    ) -> Result<(), Fatal> {
        if let Some(ticket) = ticket {
            match self.fetch.is_some() {
                // One at a time: the sender promises them again.
                true => self.report_rows(body, core, from, false),
                false => self.fetch(body, core, from, message, ticket),
            }
            return Ok(());
        }
        match self.raft.node.step(message) {
            // A node that is no member any more may go on sending for a while.
            Ok(()) | Err(StepError::Stranger { .. }) => {}
            // Of a node that this host was before its disk was lost.
            Err(StepError::NotForMe { .. }) => {}
            Err(error) => core.violate("raft", format!("from node {from}: {error}")),
        }
        self.drain_node(body, core)
    }

    /// Does what the node asks for, until it asks for nothing.
    pub(super) fn drain_node(&mut self, body: &mut Body, core: &mut Core) -> Result<(), Fatal> {
        let role = self.raft.node.role();
        loop {
            self.propose_held(body, core);
            self.ask_peers();
            let Some(ready) = self.raft.node.ready() else {
                break;
            };
            self.handle_ready(ready, body, core)?;
        }
        if self.raft.node.role() != role {
            self.tend_links(body, core);
        }
        Ok(())
    }

    fn handle_ready(
        &mut self,
        ready: Ready,
        body: &mut Body,
        core: &mut Core,
    ) -> Result<(), Fatal> {
        if ready.deposed.is_some() {
            if self.raft.leading != 0 {
                note!(core, body.host(), "leads no more");
            }
            self.raft.leading = 0;
            self.raft.confirmations.clear();
            self.raft.held.clear();
            self.raft.asked = None;
            self.raft.asking = None;
            self.control(body, core, Control::Deposed);
        }
        for message in ready.messages {
            self.send_raft(body, core, message);
        }
        // Before the log that begins behind them.
        if ready.restore.is_some() {
            self.restore(body, core);
        }
        if let Some(persist) = ready.persist {
            if let Some((last, _)) = persist.batch.entries.last() {
                self.mark(*last, persist.batch.entry_bytes() as u64);
            }
            self.raft.log_queue.push_back(persist);
            self.write_log(body, core);
        }
        self.apply_all(body, core, ready.committed, ready.committed_to)?;
        if let Some(members) = ready.members {
            note!(core, body.host(), "members are {members:?}");
            core.checkers.durability.members(&members);
        }
        for read in ready.reads {
            if let (Role::Leader { .. }, Ok(ticket)) = (
                self.raft.node.role(),
                <[u8; 8]>::try_from(read.context.as_ref()),
            ) {
                let ticket = u64::from_be_bytes(ticket);
                self.raft.asking = self.raft.asking.filter(|it| *it > ticket);
                self.raft.confirmations.push_back((read.index, ticket));
            }
        }
        self.confirm_reads(body, core);
        if let Some(term) = ready.elected {
            self.raft.leading = term;
            self.raft.sequence = 0;
            note!(core, body.host(), "is elected in term {term}");
            let verdict = core.checkers.history.elected(core.now, body.number, term);
            core.judge("history", verdict);
            let state = Box::new(self.committed.clone());
            self.control(body, core, Control::Elected { term, state });
        }
        Ok(())
    }

    /// Applies what is committed.
    fn apply_all(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        committed: Vec<Committed>,
        committed_to: Option<u64>,
    ) -> Result<(), Fatal> {
        for entry in committed {
            self.apply(body, core, entry)?;
        }
        if let Some(index) = committed_to {
            self.raft.applied = self.raft.applied.max(index);
            self.raft.node.advance_applied(index);
        }
        Ok(())
    }

    pub(super) fn apply(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        entry: Committed,
    ) -> Result<(), Fatal> {
        // Rows that came from another master may be ahead of the log.
        if entry.index <= self.raft.applied {
            return Ok(());
        }
        let decoded = match decode_entry(&entry.data) {
            Ok(it) => it,
            Err(error) => {
                core.violate("apply", format!("entry {}: {error}", entry.index));
                return Err(Fatal(error.to_string()));
            }
        };
        if let Err(error) = self.committed.take_entry(decoded.clone()) {
            core.violate("apply", format!("entry {}: {error}", entry.index));
            return Err(Fatal(error.to_string()));
        }
        self.raft.applied = entry.index;
        if core.is_sample() {
            self.committed.check_invariants();
        }
        let hash = self.committed.hash();
        let decided = (entry.term, entry.sequence);
        if !core.checkers.history.is_known(entry.index) {
            core.checkers.history.begun(core.now, entry.term);
            for operation in &decoded.operations {
                if let Some(Kind::LaunchTask(LaunchTask {
                    task: Some(task), ..
                })) = &operation.kind
                {
                    let verdict = core.checkers.tasks.logged(&task.task_id);
                    core.judge("history", verdict);
                }
                if let Some(Kind::RemoveFramework(it)) = &operation.kind {
                    let (now, id) = (core.now, &it.framework_id);
                    core.checkers.tasks.framework_removed(now, id);
                }
            }
            let verdict = core
                .checkers
                .durability
                .committed(body.id, entry.index, decided);
            core.judge("durability", verdict);
        }
        let verdict = core.checkers.history.applied(
            body.number,
            entry.index,
            decided,
            bytes_hash(&entry.data),
            hash,
        );
        core.judge("history", verdict);
        if entry.term == self.raft.leading {
            let control = Control::Committed {
                term: entry.term,
                sequence: entry.sequence,
            };
            self.control(body, core, control);
        }
        Ok(())
    }

    fn confirm_reads(&mut self, body: &mut Body, core: &mut Core) {
        while let Some((index, ticket)) = self.raft.confirmations.front().copied()
            && index <= self.raft.applied
        {
            self.raft.confirmations.pop_front();
            let term = self.raft.leading;
            self.control(body, core, Control::Confirmed { term, ticket });
        }
    }

    fn send_raft(&mut self, body: &mut Body, core: &mut Core, message: Outgoing) {
        let (to, ticket) = (message.to, message.ticket);
        let verdict = core.checkers.durability.leaves(body.id, &message.bytes);
        core.judge("durability", verdict);
        let sent = core.send_raft(body.id, message);
        if ticket.is_some() {
            note!(core, body.host(), "promises rows to node {to}");
            match sent {
                true => self.promised(body, core, to),
                false => {
                    let event = Event::RowsReport {
                        peer: to,
                        arrived: false,
                    };
                    body.later(core, SECOND, event);
                }
            }
        }
    }

    /// Tells the sender of a ticket what became of its rows.
    pub(super) fn report_rows(&self, body: &Body, core: &mut Core, to: NodeId, arrived: bool) {
        let Some(host) = core.nodes.get(&to).copied() else {
            return;
        };
        let cut = core.net.is_cut(body.host(), Host::Master(host));
        let delay = core.net.delay() + if cut { 2 * SECOND } else { 0 };
        let event = Event::RowsReport {
            peer: body.id,
            arrived: arrived && !cut,
        };
        let life = core.life(host);
        core.after(delay, WorldEvent::Master(host, life, event));
    }

    // ------------------------------------------------------------ the log's thread

    /// Begins to write what waits, unless a write is under way or must wait for rows.
    pub(super) fn write_log(&mut self, body: &mut Body, core: &mut Core) {
        if self.raft.writing > 0 || self.raft.log_queue.is_empty() {
            return;
        }
        self.raft.writing = self.raft.log_queue.len().min(MAX_GROUP);
        let group = self.raft.log_queue.iter().take(self.raft.writing);
        let synced = group.clone().any(|it| it.batch.must_sync);
        for persist in group {
            for (index, bytes) in &persist.batch.entries {
                core.trace.word(*index);
                core.trace.bytes(bytes);
            }
        }
        let delay = match synced {
            true => body.sync(core),
            false => core.random.between(10_000, 60_000) * body.slow,
        };
        body.busy_until = core.now + delay;
        body.later(core, delay, Event::LogWritten);
    }

    pub(super) fn log_written(&mut self, body: &mut Body, core: &mut Core) -> Result<(), Fatal> {
        if body.full {
            return Err(Fatal("no space left on the log's disk".to_owned()));
        }
        let count = std::mem::take(&mut self.raft.writing);
        let group: Vec<Persist> = self.raft.log_queue.drain(..count).collect();
        let Some(number) = group.last().map(|it| it.number) else {
            return Ok(());
        };
        let synced = group.iter().any(|it| it.batch.must_sync);
        let batches = group.into_iter().map(|it| it.batch).collect();
        if synced && body.fail_sync.is_some() {
            // Nobody knows what is on the disk now.
            body.log.0.borrow_mut().write(batches, false);
            return Err(Fatal("a sync of the log failed".to_owned()));
        }
        body.log.0.borrow_mut().write(batches, synced);
        self.raft.node.on_persisted(number);
        self.drain_node(body, core)?;
        self.write_log(body, core);
        Ok(())
    }

    // ------------------------------------------------------------ how much of the log is kept

    fn mark(&mut self, last: u64, bytes: u64) {
        self.raft.logged += bytes;
        while self.raft.marks.back().is_some_and(|it| it.0 >= last) {
            self.raft.marks.pop_back();
        }
        self.raft.marks.push_back((last, self.raft.logged));
    }

    /// The last entry that may be cut when those after `flushed` and about `keep` bytes stay.
    pub(super) fn cut(&mut self, flushed: u64, keep: u64) -> Option<u64> {
        let mut cut = None;
        while let Some((index, bytes)) = self.raft.marks.front().copied()
            && index <= flushed
            && self.raft.logged - bytes >= keep
        {
            cut = Some(index);
            self.raft.marks.pop_front();
        }
        cut
    }

    // ------------------------------------------------------------ the machine's end

    /// Proposes an entry of the term; false when the leadership that decided it is over.
    pub(super) fn propose(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        term: u64,
        sequence: u64,
        entry: Bytes,
    ) -> Result<(), Fatal> {
        if self.raft.leading != term {
            self.control(body, core, Control::Deposed);
            return Ok(());
        }
        assert_eq!(
            sequence,
            self.raft.sequence + 1,
            "the log and the machine's thread count proposals alike"
        );
        self.raft.sequence = sequence;
        self.raft.held.push_back((term, sequence, entry));
        self.drain_node(body, core)
    }

    /// Proposes what waits, unless leadership is being handed over: the attempt may fail.
    fn propose_held(&mut self, body: &Body, core: &mut Core) {
        while !self.raft.node.is_transferring()
            && let Some((term, sequence, entry)) = self.raft.held.pop_front()
        {
            if let Err(error) = self.raft.node.propose(term, sequence, entry) {
                note!(core, body.host(), "a proposal was refused: {error}");
                // What this term's machine proposes later may rest on it.
                if self.raft.leading == term {
                    self.raft.node.step_down();
                }
            }
        }
    }

    /// One question to the peers at a time.
    fn ask_peers(&mut self) {
        if self.raft.asking.is_none()
            && let Some(ticket) = self.raft.asked.take()
            && matches!(self.raft.node.role(), Role::Leader { .. })
        {
            self.raft.asking = Some(ticket);
            let context = Bytes::copy_from_slice(&ticket.to_be_bytes());
            self.raft.node.read_index(context);
        }
    }

    /// Asks whether this master still leads.
    pub(super) fn confirm(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        ticket: u64,
    ) -> Result<(), Fatal> {
        self.raft.asked = self.raft.asked.max(Some(ticket));
        self.drain_node(body, core)
    }
}
