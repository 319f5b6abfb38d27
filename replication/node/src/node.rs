//! The node: what happens goes in, what must be done comes out.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use bytes::Bytes;
use raft::{
    RawNode, SnapshotStatus, StateRole,
    eraftpb::{self, EntryType, MessageType},
};

use crate::{
    NodeId,
    codec::{self, Decision, State},
    disk::{Batch, Disk, Origin, Stored},
    log::Log,
    members::{MemberChange, Members},
};

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; not 0.
    pub id: NodeId,
    /// Election time-outs are drawn from this, the node, the term and the leader.
    pub seed: u64,
    /// Ticks without a leader before an election, at least; at most twice as many.
    pub election_ticks: usize,
    /// Ticks between heartbeats; fewer than `election_ticks`.
    pub heartbeat_ticks: usize,
    /// Entries sent in one message, in bytes; one entry may be larger.
    pub max_message_bytes: u64,
    /// Messages with entries on their way to one peer.
    pub max_inflight_messages: usize,
    /// Newest entries kept in memory, in bytes; what is not durable or not committed stays anyway.
    pub cache_bytes: u64,
    /// The members of a new group, the same on every founder. What is stored wins.
    pub founders: Members,
    /// The last entry whose effects the owner has; the ones after are handed out.
    pub applied: u64,
    /// Take a ticket only with the rows it promises ([`Node::step_with_rows`]): so a node never
    /// acknowledges a log whose beginning it does not have.
    pub rows_first: bool,
}

impl Config {
    /// The settings of a group with ticks of 10 ms: elections after 150 to 300 ms.
    pub fn new(id: NodeId, seed: u64, founders: Members) -> Config {
        Config {
            id,
            seed,
            election_ticks: 15,
            heartbeat_ticks: 3,
            max_message_bytes: 1 << 20,
            max_inflight_messages: 256,
            cache_bytes: 32 << 20,
            founders,
            applied: 0,
            rows_first: false,
        }
    }
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The settings contradict each other.
    #[error("settings of the replicated log are not valid: {0}")]
    Config(String),
    /// The record beside the entries is damaged.
    #[error("stored state of the replicated log cannot be read: {0}")]
    State(String),
    /// The log lacks entries which its owner has seen committed.
    #[error(
        "the log ends at entry {last_index}, but effects of entry {applied} are stored: \
         the log has lost its end"
    )]
    LogTooShort {
        /// Last entry of the log.
        last_index: u64,
        /// Last entry whose effects are stored.
        applied: u64,
    },
    /// Entries whose effects the owner lacks are not in the log any more.
    #[error(
        "the log begins after entry {cut_index}, but effects are stored up to entry {applied} \
         only: the stored rows are too old for this log"
    )]
    RowsTooOld {
        /// Last entry that is not in the log any more.
        cut_index: u64,
        /// Last entry whose effects are stored.
        applied: u64,
    },
}

/// Why a message of a peer was dropped. The connection may stay.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Not a message of this protocol.
    #[error("message of a peer cannot be decoded: {0}")]
    Malformed(String),
    /// It is addressed to another node.
    #[error("message is for node {to}, this is node {id}")]
    NotForMe {
        /// The node it names.
        to: NodeId,
        /// This node.
        id: NodeId,
    },
    /// Only the leader's own machine proposes.
    #[error("node {from} forwarded a proposal; proposals are made by the leader alone")]
    Forwarded {
        /// The sender.
        from: NodeId,
    },
    /// A ticket without its rows.
    #[error("node {from} sent a ticket without the rows that it promises")]
    RowsMissing {
        /// The sender.
        from: NodeId,
    },
    /// The sender is no member (any more).
    #[error("message comes from node {from}, which is no member")]
    Stranger {
        /// The sender.
        from: NodeId,
    },
}

/// Why a proposal was refused. The leadership that decided it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead the term named, or its leadership is not announced yet.
    #[error("this master does not lead term {term}")]
    NotLeader {
        /// The term of the proposal.
        term: u64,
    },
    /// Leadership is being handed over.
    #[error("the proposal was dropped: leadership is being handed over")]
    Dropped,
}

/// What this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or none that it knows of.
    Follower {
        /// The newest term seen.
        term: u64,
        /// The leader of the term, when known.
        leader: Option<NodeId>,
    },
    /// Asks for votes, or was elected but has not committed anything yet.
    Candidate {
        /// The term it asks for.
        term: u64,
    },
    /// Leads, and everything committed before its term has been handed out: a machine may be
    /// born.
    Leader {
        /// The term it leads.
        term: u64,
    },
}

/// A message for a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The receiver.
    pub to: NodeId,
    /// For [`Node::step`] there.
    pub bytes: Bytes,
    /// The receiver lags behind the log and must be sent rows at least as new as this. The
    /// transport says how it went by [`Node::report_rows`], also when the message is lost; until
    /// then the receiver gets nothing else.
    pub ticket: Option<Ticket>,
}

/// Something to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Persist {
    /// For [`Node::on_persisted`]; rises.
    pub number: u64,
    /// What to write.
    pub batch: Batch,
}

/// A committed entry whose effects are to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its place in the log. There are gaps: the log also holds entries of consensus itself.
    pub index: u64,
    /// The term in which it was decided and proposed.
    pub term: u64,
    /// Which of the term's proposals it is, as given to [`Node::propose`].
    pub sequence: u64,
    /// What was proposed.
    pub data: Bytes,
}

/// The answer to [`Node::read_index`].
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// As given.
    pub context: Bytes,
    /// When entries up to this one are applied, reads are as new as the question.
    pub index: u64,
}

/// A place in the log that everything before is folded into. In [`Ready::restore`]: the log
/// begins anew behind this entry; rows must come from another master, at least as new as this,
/// before anything later is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Last entry whose effects the rows must hold.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// What must be done, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ready {
    /// The role, when it changed to anything but leader: before what follows.
    pub deposed: Option<Role>,
    /// To be sent at once. Losing them does no harm.
    pub messages: Vec<Outgoing>,
    /// To be written, after everything earlier; then [`Node::on_persisted`].
    pub persist: Option<Persist>,
    /// Rows to fetch from another master.
    pub restore: Option<Ticket>,
    /// To be applied.
    pub committed: Vec<Committed>,
    /// With this, everything up to the entry has been handed out: for [`Node::advance_applied`].
    pub committed_to: Option<u64>,
    /// The members, when they changed.
    pub members: Option<Members>,
    /// Answers to [`Node::read_index`].
    pub reads: Vec<Read>,
    /// The term, when this node became the leader that may propose: after everything above.
    pub elected: Option<u64>,
}

/// How far the leader has brought a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer, or the leader itself.
    pub id: NodeId,
    /// It has everything up to this entry on its disk.
    pub matched: u64,
    /// It was heard of within the last election time-out or so.
    pub is_active: bool,
    /// It waits for rows.
    pub needs_rows: bool,
}

// Of one Ready, until its write is confirmed.
struct Outstanding {
    // The write's number; several Readies may wait for one.
    write: u64,
    // The number that consensus knows.
    ready: u64,
    // What must not leave before.
    messages: Vec<Outgoing>,
}

/// One member of the group; see the crate's documentation.
pub struct Node<D: Disk> {
    raw: RawNode<Log<D>>,
    config: Config,
    role: Role,
    outstanding: VecDeque<Outstanding>,
    // The last write given out.
    writes: u64,
    // Entries up to this one are durable.
    durable: u64,
    // Members or cut changed since the record was written.
    state_changed: bool,
    clear_log: bool,
    cut_to: Option<u64>,
    // Messages that became free with a confirmed write.
    released: Vec<Outgoing>,
    // Last entry that the owner has applied.
    applied: u64,
    // Ticks until a campaign, after the leader's connection broke.
    hasten: Option<usize>,
}

impl<D: Disk> fmt::Debug for Node<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.config.id)
            .field("role", &self.role)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Node<D> {
    /// Starts over what `disk` holds.
    ///
    /// # Errors
    /// The settings, the stored record, or log and applied index do not go together.
    pub fn new(config: Config, disk: D, stored: Stored) -> Result<Node<D>, NewError> {
        let fresh = stored.state.is_none();
        let mut state = match &stored.state {
            None => State {
                members: config.founders.clone(),
                ..State::default()
            },
            Some(bytes) => State::decode(bytes).map_err(|it| NewError::State(it.to_string()))?,
        };
        if state.members.voters.is_empty() {
            let text = "no voters: name the founding masters".to_owned();
            return Err(NewError::Config(text));
        }
        if config.id == 0 {
            return Err(NewError::Config("a node's id must not be 0".to_owned()));
        }
        let applied = config.applied;
        let mut last_index = stored.last_index.max(state.cut_index);
        // Rows that were fetched before the log behind them was durable: the log that is here ends
        // before them, or holds another leader's entry in their place.
        let mut members_changed = false;
        let mut origin = stored.origin.filter(|it| it.index >= state.cut_index);
        if let Some(rows) = &origin
            && rows.index <= last_index
        {
            let found = Log::new(&disk, state.clone(), last_index);
            let term = raft::Storage::term(&found, rows.index)
                .map_err(|it| NewError::State(it.to_string()))?;
            // The log goes on behind them. Changes of members up to there have been applied by whom
            // the rows come from, and are not handed out again.
            if term == rows.term && rows.index > state.members_index {
                state.members = rows.members.clone();
                state.members_index = rows.index;
                members_changed = true;
            }
            origin = origin.filter(|rows| term != rows.term);
        }
        let anew = origin.is_some();
        if let Some(origin) = origin {
            last_index = origin.index;
            state.cut_index = origin.index;
            state.cut_term = origin.term;
            state.members = origin.members;
            state.members_index = origin.index;
            if state.term < origin.term {
                state.term = origin.term;
                state.vote = 0;
            }
        }
        if applied > last_index {
            return Err(NewError::LogTooShort {
                last_index,
                applied,
            });
        }
        if applied < state.cut_index {
            return Err(NewError::RowsTooOld {
                cut_index: state.cut_index,
                applied,
            });
        }
        // The record is not rewritten for a commit alone; what was applied was committed.
        state.commit = state.commit.max(applied).min(last_index);
        let settings = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            min_election_tick: config.election_ticks,
            max_election_tick: 2 * config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: config.max_message_bytes,
            max_inflight_msgs: config.max_inflight_messages,
            // One step of applying is short: who applies hears nobody meanwhile.
            max_committed_size_per_ready: 1 << 20,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            // Followers learn what is committed from the next entries, or from a heartbeat: a
            // message of its own for that, and its answer, would double what one writer costs.
            // Changes of members are told at once all the same.
            skip_bcast_commit: true,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut log = Log::new(disk, state, last_index);
        if applied > 0 {
            let term =
                raft::Storage::term(&log, applied).map_err(|it| NewError::State(it.to_string()))?;
            log.handed = (applied, term);
        }
        let raw =
            RawNode::new(&settings, log, &logger).map_err(|it| NewError::Config(it.to_string()))?;
        let mut node = Node {
            role: Role::Follower {
                term: raw.raft.term,
                leader: None,
            },
            raw,
            applied,
            config,
            outstanding: VecDeque::new(),
            writes: 0,
            durable: last_index,
            state_changed: fresh || anew || members_changed,
            clear_log: anew,
            cut_to: None,
            released: Vec::new(),
            hasten: None,
        };
        node.settle();
        Ok(node)
    }

    // Replaces the election time-out that the crate drew from the thread's randomness; after
    // everything that may have drawn one, and without looking first, or chance would leak.
    fn settle(&mut self) {
        let raft = &mut self.raw.raft;
        let mut hash = self.config.seed ^ 0x9e37_79b9_7f4a_7c15;
        for part in [self.config.id, raft.term, raft.leader_id] {
            hash ^= part.wrapping_mul(0xd6e8_feb8_6659_fd93);
            hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            hash = (hash ^ (hash >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        let span = self.config.election_ticks as u64;
        let draw = usize::try_from(hash % span).unwrap_or(0);
        raft.set_randomized_election_timeout(self.config.election_ticks + draw);
    }

    fn is_sole_voter(&self) -> bool {
        let members = &self.raw.store().state.members;
        members.is_sole_voter(self.config.id)
    }

    // A sole voter wins its election in the instant it begins it, and consensus does not expect
    // entries of its earlier leadership to be on their way to the disk then.
    // Nor does it expect a node to campaign that has a ticket and not yet the log behind it: what
    // lies between its applied index and the ticket is nowhere to be read.
    fn must_wait(&self) -> bool {
        let sole = self.raw.raft.state != StateRole::Leader
            && !self.outstanding.is_empty()
            && self.is_sole_voter();
        sole || self.is_restoring()
    }

    fn is_restoring(&self) -> bool {
        self.raw.raft.raft_log.applied < self.raw.store().state.cut_index
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        if self.must_wait() {
            return;
        }
        self.raw.tick();
        self.settle();
        match self.hasten {
            Some(0) => self.campaign(),
            Some(ticks) => self.hasten = Some(ticks - 1),
            None => {}
        }
    }

    /// Asks for votes at once: a sole voter at its start, or one whose leader's connection broke.
    /// Nothing happens on a leader or on a node without a vote.
    pub fn campaign(&mut self) {
        self.hasten = None;
        if self.must_wait() {
            return;
        }
        // Refused by nodes that may not campaign, which is no mistake.
        let _ = self.raw.campaign();
        self.settle();
    }

    /// The connection on which `peer` sends has broken. If it leads, this node forgets it, which
    /// lets it vote for others at once, and asks for votes itself in a few ticks, others in
    /// others. A leader that lives nevertheless stays: unless a majority has lost it too,
    /// nobody is elected, and its next heartbeat makes it known again.
    pub fn leader_lost(&mut self, peer: NodeId) {
        let raft = &mut self.raw.raft;
        if raft.state != StateRole::Follower || raft.leader_id != peer {
            return;
        }
        let term = raft.term;
        raft.become_follower(term, 0);
        self.settle();
        // Two ticks between any two, so that the first is elected before the second asks.
        let voters = self.raw.store().state.members.voters.clone();
        let voters = voters.into_iter().filter(|it| *it != peer);
        let place = voters.take_while(|it| *it != self.config.id).count();
        self.hasten = Some(2 * place);
    }

    /// Gives up leadership, if this node leads. What was proposed may still be committed.
    pub fn step_down(&mut self) {
        if self.raw.raft.state == StateRole::Leader {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, 0);
            self.settle();
        }
    }

    /// Asks another voter to lead. Proposals are refused until it does or the attempt times out.
    pub fn transfer_leadership(&mut self, to: NodeId) {
        self.raw.transfer_leader(to);
        self.settle();
    }

    /// A message of a peer has arrived.
    ///
    /// # Errors
    /// It was dropped; see [`StepError`].
    pub fn step(&mut self, bytes: Bytes) -> Result<(), StepError> {
        let message =
            codec::decode_message(bytes).map_err(|it| StepError::Malformed(it.to_string()))?;
        let (id, to) = (self.config.id, message.to);
        if to != id {
            return Err(StepError::NotForMe { to, id });
        }
        if message.msg_type == MessageType::MsgPropose {
            let from = message.from;
            return Err(StepError::Forwarded { from });
        }
        if message.msg_type == MessageType::MsgTimeoutNow && self.is_restoring() {
            // Leadership is offered to a node that cannot take it; the attempt times out.
            return Ok(());
        }
        if message.msg_type == MessageType::MsgSnapshot && self.config.rows_first {
            let from = message.from;
            return Err(StepError::RowsMissing { from });
        }
        self.step_message(message)
    }

    /// A ticket of a peer has arrived, and so have rows of committed state: the log is to begin
    /// behind them. Those that are older than what the ticket promised, as rows of an earlier
    /// leader may be, are as good as far as they go: the leader hears how far that is, and goes on
    /// from there once it is told that the transfer is over ([`Node::report_rows`]). When nothing
    /// comes of it, [`Ready::restore`] stays away and the rows are not needed.
    ///
    /// # Errors
    /// It was dropped; see [`StepError`].
    pub fn step_with_rows(&mut self, bytes: Bytes, origin: &Origin) -> Result<(), StepError> {
        let mut message =
            codec::decode_message(bytes).map_err(|it| StepError::Malformed(it.to_string()))?;
        let (id, to) = (self.config.id, message.to);
        if to != id {
            return Err(StepError::NotForMe { to, id });
        }
        if message.msg_type != MessageType::MsgSnapshot {
            let text = "rows came with a message that is no ticket".to_owned();
            return Err(StepError::Malformed(text));
        }
        let snapshot = codec::snapshot(origin.index, origin.term, &origin.members);
        message.set_snapshot(snapshot);
        self.step_message(message)
    }

    fn step_message(&mut self, message: eraftpb::Message) -> Result<(), StepError> {
        let from = message.from;
        let outcome = self.raw.step(message);
        self.settle();
        if self.raw.raft.leader_id != 0 {
            self.hasten = None;
        }
        match outcome {
            Err(raft::Error::StepPeerNotFound) => Err(StepError::Stranger { from }),
            // Consensus drops what it cannot use; senders repeat what matters.
            _ => Ok(()),
        }
    }

    /// Proposes what was decided in `term` as the term's `sequence`th proposal; returns its
    /// index.
    ///
    /// # Errors
    /// The leadership that decided it is over.
    pub fn propose(&mut self, term: u64, sequence: u64, data: Bytes) -> Result<u64, ProposeError> {
        let leads = self.raw.raft.state == StateRole::Leader && self.raw.raft.term == term;
        if !leads || self.role != (Role::Leader { term }) {
            return Err(ProposeError::NotLeader { term });
        }
        self.propose_entry(eraftpb::Entry {
            data,
            context: Decision { term, sequence }.encode(),
            ..eraftpb::Entry::default()
        })
    }

    /// Proposes a change of the members.
    ///
    /// # Errors
    /// This node does not lead, or leadership is being handed over. A change proposed before the
    /// last one is done has no effect.
    pub fn propose_members(&mut self, changes: &[MemberChange]) -> Result<u64, ProposeError> {
        self.propose_noted_members(changes, &BTreeMap::new())
    }

    /// The same, with [`Members::notes`] of some members, who may be members already: adding one
    /// again as what it is changes its note alone.
    ///
    /// # Errors
    /// As [`Node::propose_members`].
    pub fn propose_noted_members(
        &mut self,
        changes: &[MemberChange],
        notes: &BTreeMap<NodeId, Bytes>,
    ) -> Result<u64, ProposeError> {
        let Role::Leader { term } = self.role else {
            let term = self.raw.raft.term;
            return Err(ProposeError::NotLeader { term });
        };
        if self.raw.raft.state != StateRole::Leader || self.raw.raft.term != term {
            return Err(ProposeError::NotLeader { term });
        }
        self.propose_entry(eraftpb::Entry {
            entry_type: EntryType::EntryConfChangeV2,
            data: codec::encode_change(changes, notes),
            ..eraftpb::Entry::default()
        })
    }

    fn propose_entry(&mut self, entry: eraftpb::Entry) -> Result<u64, ProposeError> {
        let message = eraftpb::Message {
            msg_type: MessageType::MsgPropose,
            from: self.config.id,
            entries: vec![entry].into(),
            ..eraftpb::Message::default()
        };
        let outcome = self.raw.raft.step(message);
        self.settle();
        match outcome {
            Ok(()) => Ok(self.raw.raft.raft_log.last_index()),
            Err(_) => Err(ProposeError::Dropped),
        }
    }

    /// Asks whether this node still leads, and for the index that a read must have seen. The
    /// answer, if any, is in a later [`Ready::reads`]; none comes when it does not lead.
    pub fn read_index(&mut self, context: Bytes) {
        // A follower's question would travel to the leader, and come back as if it led.
        if self.raw.raft.state == StateRole::Leader {
            self.raw.read_index(context.to_vec());
            self.settle();
        }
    }

    /// The owner has applied everything up to the entry.
    pub fn advance_applied(&mut self, index: u64) {
        self.applied = self.applied.max(index);
        self.tell_applied();
    }

    // Behind a ticket, rows are there before the log that begins behind them is durable; only
    // then consensus may hear of it.
    fn tell_applied(&mut self) {
        let log = &self.raw.raft.raft_log;
        let to = self.applied.min(log.persisted).min(log.committed);
        if to > log.applied {
            self.raw.advance_apply_to(to);
            self.settle();
        }
    }

    /// Entries up to and including the one named are not needed any more: their effects are
    /// durable. Beyond what is applied nothing is cut.
    pub fn compact(&mut self, index: u64) {
        let index = index.min(self.applied).min(self.durable);
        let log = self.raw.mut_store();
        if index <= log.state.cut_index {
            return;
        }
        let term = raft::Storage::term(log, index).expect("an entry inside the log");
        log.cut(index, term);
        self.cut_to = Some(index);
        self.state_changed = true;
    }

    /// A peer could not be reached: what was sent last may be lost.
    pub fn report_unreachable(&mut self, peer: NodeId) {
        self.raw.report_unreachable(peer);
        self.settle();
    }

    /// A peer has got, or failed to get, the rows that a ticket promised.
    pub fn report_rows(&mut self, peer: NodeId, arrived: bool) {
        let status = match arrived {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.raw.report_snapshot(peer, status);
        self.settle();
    }

    /// Everything up to the write has been written and, where asked for, is durable. What it
    /// releases is in the next [`Ready`].
    pub fn on_persisted(&mut self, number: u64) {
        let mut ready = None;
        while let Some(first) = self.outstanding.front()
            && first.write <= number
            && let Some(first) = self.outstanding.pop_front()
        {
            ready = Some(first.ready);
            self.released.extend(first.messages);
        }
        if let Some(ready) = ready {
            self.raw.on_persist_ready(ready);
            self.durable = self.raw.raft.raft_log.persisted;
            self.settle();
            self.tell_applied();
        }
    }

    /// What must be done now; `None` when nothing. To be called again until then.
    pub fn ready(&mut self) -> Option<Ready> {
        let work = self.raw.has_ready()
            || !self.released.is_empty()
            || self.state_changed
            || self.current_role() != self.role;
        if !work {
            return None;
        }
        let mut ready = Ready {
            messages: std::mem::take(&mut self.released),
            ..Ready::default()
        };
        let mut raw = self.raw.ready();
        let outgoing = |messages: Vec<eraftpb::Message>| {
            messages.into_iter().map(|it| Outgoing {
                to: it.to,
                bytes: codec::encode_message(&it),
                ticket: it.snapshot.as_ref().map(|snapshot| Ticket {
                    index: snapshot.get_metadata().index,
                    term: snapshot.get_metadata().term,
                }),
            })
        };
        ready.messages.extend(outgoing(raw.take_messages()));
        // On a follower everything waits for the disk, but these promise nothing that a crash could
        // break: a leader must not lose its office because the disks of others are slow.
        let (now, later): (Vec<_>, Vec<_>) = raw
            .take_persisted_messages()
            .into_iter()
            .partition(|it| promises_nothing(it.get_msg_type()));
        ready.messages.extend(outgoing(now));
        let mut after: Vec<_> = outgoing(later).collect();
        ready
            .reads
            .extend(raw.take_read_states().into_iter().map(|it| Read {
                context: it.request_ctx.into(),
                index: it.index,
            }));

        let mut batch = Batch::default();
        if std::mem::take(&mut self.clear_log) {
            batch.delete_from = Some(0);
            batch.must_sync = true;
        }
        let snapshot = raw.snapshot();
        if !snapshot.is_empty() {
            let metadata = snapshot.get_metadata();
            let (index, term) = (metadata.index, metadata.term);
            let members = codec::ticket_members(snapshot);
            let log = self.raw.mut_store();
            log.restart(index, term);
            log.state.members = members.clone();
            log.state.members_index = index;
            // All of the old log goes; the new one's entries come in the same batch or later.
            batch.delete_from = Some(0);
            self.cut_to = None;
            self.state_changed = true;
            batch.must_sync = true;
            ready.members = Some(members);
            ready.restore = Some(Ticket { index, term });
            ready.committed_to = Some(index);
        }
        let entries = raw.take_entries();
        if !entries.is_empty() {
            let dropped = self.raw.mut_store().append(&entries);
            batch.delete_from = batch.delete_from.or(dropped);
            batch.entries = entries
                .iter()
                .map(|it| (it.index, codec::encode_entry(it)))
                .collect();
            batch.must_sync = true;
        }
        if let Some(hard) = raw.hs() {
            let state = &mut self.raw.mut_store().state;
            if (state.term, state.vote) != (hard.term, hard.vote) {
                self.state_changed = true;
                batch.must_sync = true;
            }
            state.term = hard.term;
            state.vote = hard.vote;
            state.commit = hard.commit;
        }
        let committed = raw.take_committed_entries();
        let number = raw.number();
        self.raw.advance_append_async(raw);

        for entry in committed {
            self.hand_out(entry, &mut ready, &mut batch);
        }
        if let Some(index) = self.cut_to.take() {
            batch.delete_to = Some(index);
        }
        if std::mem::take(&mut self.state_changed) || !batch.is_empty() {
            batch.state = Some(self.raw.store().state.encode());
        }
        self.write(number, batch, &mut after, &mut ready);
        ready.messages.append(&mut after);

        let keep_from = self.durable.min(self.raw.store().handed.0) + 1;
        let cache_bytes = self.config.cache_bytes;
        self.raw.mut_store().trim(keep_from, cache_bytes);

        let role = self.current_role();
        if role != self.role {
            self.role = role;
            match role {
                Role::Leader { term } => ready.elected = Some(term),
                _ => ready.deposed = Some(role),
            }
        }
        self.settle();
        Some(ready)
    }

    fn hand_out(&mut self, entry: eraftpb::Entry, ready: &mut Ready, batch: &mut Batch) {
        self.raw.mut_store().handed = (entry.index, entry.term);
        ready.committed_to = Some(entry.index);
        match entry.entry_type {
            EntryType::EntryNormal => {
                // Empty ones are consensus' own; others without a decision are nobody's.
                let decision = Decision::decode(&entry.context);
                if let Some(decision) = decision.filter(|it| it.term == entry.term) {
                    ready.committed.push(Committed {
                        index: entry.index,
                        term: entry.term,
                        sequence: decision.sequence,
                        data: entry.data,
                    });
                }
            }
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                // Done before the last stop; the stored members are ahead of the applied index.
                if entry.index <= self.raw.store().state.members_index {
                    return;
                }
                // What cannot be decoded or applied is so on every node, and changes nothing.
                let Ok((change, notes)) = codec::decode_change(&entry.data) else {
                    return;
                };
                let Ok(conf_state) = self.raw.apply_conf_change(&change) else {
                    return;
                };
                let mut members = codec::from_conf_state(&conf_state);
                let state = &mut self.raw.mut_store().state;
                members.inherit(&state.members, notes);
                state.members = members.clone();
                state.members_index = entry.index;
                self.state_changed = true;
                batch.must_sync = true;
                ready.members = Some(members);
            }
        }
    }

    // Gives the batch out as a write, or lets the Ready wait for the last one when it has none.
    fn write(&mut self, number: u64, batch: Batch, after: &mut Vec<Outgoing>, ready: &mut Ready) {
        let write = match (batch.is_empty(), self.outstanding.back()) {
            (true, None) => {
                self.raw.on_persist_ready(number);
                return;
            }
            (true, Some(last)) => last.write,
            (false, _) => {
                self.writes += 1;
                let number = self.writes;
                ready.persist = Some(Persist { number, batch });
                number
            }
        };
        self.outstanding.push_back(Outstanding {
            write,
            ready: number,
            messages: std::mem::take(after),
        });
    }

    fn current_role(&self) -> Role {
        let raft = &self.raw.raft;
        let term = raft.term;
        match raft.state {
            StateRole::Leader if self.raw.store().handed.1 == term => Role::Leader { term },
            StateRole::Leader | StateRole::Candidate | StateRole::PreCandidate => {
                Role::Candidate { term }
            }
            StateRole::Follower => Role::Follower {
                term,
                leader: (raft.leader_id != 0).then_some(raft.leader_id),
            },
        }
    }

    /// What this node was when [`Node::ready`] was called last.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Leadership is being handed over; proposals are refused meanwhile.
    pub fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// A change of members that consensus has not finished.
    pub fn is_changing_members(&self) -> bool {
        let raft = &self.raw.raft;
        raft.pending_conf_index > self.raw.store().handed.0
            || !self.raw.store().state.members.voters_outgoing.is_empty()
    }

    /// Everybody's progress, in order of id, as the leader knows it; nothing on others.
    pub fn peers(&self) -> Vec<Peer> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Vec::new();
        }
        let peer = |(id, progress): (&NodeId, &raft::Progress)| Peer {
            id: *id,
            matched: progress.matched,
            is_active: progress.recent_active || *id == self.config.id,
            needs_rows: progress.state == raft::ProgressState::Snapshot,
        };
        let mut peers: Vec<Peer> = raft.prs().iter().map(peer).collect();
        peers.sort_by_key(|it| it.id);
        peers
    }

    /// The newest term seen.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The newest entry handed out as committed: what rows stand for once it is applied.
    pub fn committed(&self) -> Ticket {
        let (index, term) = self.raw.store().handed;
        Ticket { index, term }
    }

    /// The members, as of what was handed out.
    pub fn members(&self) -> &Members {
        &self.raw.store().state.members
    }

    /// Index of the last entry of the log.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Last entry that is not in the log any more.
    pub fn cut_index(&self) -> u64 {
        self.raw.store().state.cut_index
    }

    /// Last entry that the owner has applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }
}
/// Whether an answer says only what was heard, and nothing of what is on the disk or will be: that a
/// leader is known, and that somebody would be voted for if he stood.
fn promises_nothing(answer: MessageType) -> bool {
    matches!(
        answer,
        MessageType::MsgHeartbeatResponse | MessageType::MsgRequestPreVoteResponse
    )
}
