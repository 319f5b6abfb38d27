//! The replica of this master: bytes in and out of the log, and the committed state.
//!
//! `Committed` lives here, moved only by committed entries and never rolled back. A machine
//! is born from a clone of it; its dirty rows are written behind the log.

use crate::{
    config::Settings,
    shell::{
        core::{Replica as CoreReplica, ReplicaEvent},
        intake::{Control, Intake},
        peers::{Membership, Peers, fetch, note, queue::Item, service},
    },
};
use anyhow::{Result, ensure};
use bytes::Bytes;
use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tepui_master_machine::{model::log, outbox::Ticket};
use tepui_replication::{
    BoxError, Committed, Handle, Identity, Listener, Members, NodeId, Options, Origin, Outgoing,
    Prepared, Replica, RowChanges, Store,
};
use tepui_server::proto::tepui::raft::v1::Member;
use tepui_state::{ApplyError, ClusterState, decode_entry};

/// Bytes of disk without which a master does not begin: what opening a store writes, and a little.
const LEAST_ROOM: u64 = 2 << 20;

/// The committed state, shared by the raft thread, which moves it, and the machine's thread,
/// which clones it at a birth. Locked for one entry or one clone at a time.
#[derive(Debug, Clone)]
struct CommittedState(Arc<Mutex<Rows>>);

#[derive(Debug)]
struct Rows {
    state: ClusterState,
    /// Term and sequence number of the newest entry.
    applied: (u64, u64),
    /// The machine's state after the entry named, which was not committed yet when it was shared.
    shared: Option<(u64, u64, Box<ClusterState>)>,
}

impl CommittedState {
    fn new(state: ClusterState) -> CommittedState {
        CommittedState(Arc::new(Mutex::new(Rows {
            state,
            applied: (0, 0),
            shared: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy for a machine or a view, which write no rows.
    fn copy(&self) -> Box<ClusterState> {
        Box::new(self.lock().state.clone())
    }

    fn apply(&self, at: (u64, u64), entry: log::Entry) -> Result<(), ApplyError> {
        let mut rows = self.lock();
        rows.state.take_entry(entry)?;
        rows.applied = at;
        let old = rows.share();
        drop(rows);
        drop_elsewhere(old);
        Ok(())
    }

    /// Holds the rows of a leader's machine once the entry has been applied.
    fn share(&self, term: u64, sequence: u64, state: Box<ClusterState>) {
        let mut rows = self.lock();
        rows.shared = Some((term, sequence, state));
        let old = rows.share();
        drop(rows);
        drop_elsewhere(old);
    }

    /// The leadership is over: what its machine decided may never be committed.
    fn forget_shared(&self) {
        let old = self.lock().shared.take();
        drop_elsewhere(old.map(|(_, _, state)| *state));
    }
}

impl Rows {
    /// Shares the rows of the machine when both have come to the same entry. Returns what is to
    /// be dropped.
    fn share(&mut self) -> Option<ClusterState> {
        let (term, sequence, state) = self.shared.take()?;
        if (term, sequence) == self.applied {
            return Some(self.state.share(*state));
        }
        if (term, sequence) < self.applied {
            return Some(*state);
        }
        self.shared = Some((term, sequence, state));
        None
    }
}

/// A large state takes its time, which the raft thread and the machine's have not.
fn drop_elsewhere(old: Option<ClusterState>) {
    if let Some(old) = old {
        let thread = std::thread::Builder::new().name("drop".into());
        // Without a thread it is dropped here and now.
        let _ = thread.spawn(move || drop(old));
    }
}

/// The machine's end of the replica.
#[derive(Debug, Clone)]
pub(crate) struct RaftHandle {
    handle: Handle,
    committed: CommittedState,
    intake: Arc<Intake<ReplicaEvent>>,
}

impl RaftHandle {
    /// What this master has written to its log since it started.
    pub(crate) fn written(&self) -> tepui_replication::Written {
        self.handle.written()
    }

    /// The state as this master has it, leader or not.
    pub(crate) fn committed(&self) -> Box<ClusterState> {
        self.committed.copy()
    }
}

impl CoreReplica for RaftHandle {
    fn propose(&self, term: u64, sequence: u64, entry: Bytes) {
        match self.handle.propose(term, entry) {
            Ok(position) => assert_eq!(
                (position.term, position.sequence),
                (term, sequence),
                "the log and the machine's thread count proposals alike"
            ),
            Err(error) => {
                // What the machine decided is not in the log: the leadership is over, and
                // nothing of it has left.
                tracing::error!(%error, "a proposal was refused, this leadership ends");
                let deposed = ReplicaEvent::Deposed { term };
                self.intake.control(Control::Replica(deposed));
                self.handle.give_up(term);
            }
        }
    }

    fn confirm(&self, term: u64, ticket: Ticket) {
        self.handle.confirm(term, ticket.0);
    }

    fn committed(&self) -> Box<ClusterState> {
        self.committed.copy()
    }

    fn ask_state(&self, term: u64) {
        let state = self.committed.copy();
        let event = ReplicaEvent::State { term, state };
        self.intake.control(Control::Replica(event));
    }

    fn share(&self, term: u64, sequence: u64, state: Box<ClusterState>) {
        self.committed.share(term, sequence, state);
    }
}

/// What the raft thread calls.
struct Receiver {
    committed: CommittedState,
    intake: Arc<Intake<ReplicaEvent>>,
    leading: u64,
    peers: Arc<Peers>,
}

impl Listener for Receiver {
    fn on_committed(&mut self, entry: Committed) -> Result<(), BoxError> {
        let decoded = decode_entry(&entry.data)?;
        self.committed
            .apply((entry.term, entry.sequence), decoded)?;
        if entry.term == self.leading {
            self.intake
                .control(Control::Replica(ReplicaEvent::Committed {
                    term: entry.term,
                    sequence: entry.sequence,
                }));
        }
        Ok(())
    }

    fn take_dirty_rows(&mut self) -> RowChanges {
        let dirty = self.committed.lock().state.take_dirty();
        Box::new(move || dirty.encode())
    }

    fn on_leader(&mut self, term: u64) {
        self.leading = term;
        let own = self.peers.membership.get();
        self.peers
            .leader
            .send_replace(own.map(|it| it.identity.node_id));
        self.peers.show();
        self.peers.board.update(|it| {
            it.term = term;
            it.here = true;
        });
        self.intake
            .control(Control::Replica(ReplicaEvent::Elected { term }));
    }

    fn on_follower(&mut self, leader: Option<NodeId>) {
        let term = std::mem::take(&mut self.leading);
        self.peers.board.update(|it| it.here = false);
        self.peers.leader.send_replace(leader);
        self.peers.show();
        if term != 0 {
            self.committed.forget_shared();
            let deposed = ReplicaEvent::Deposed { term };
            self.intake.control(Control::Replica(deposed));
        }
    }

    fn on_term(&mut self, term: u64) {
        self.peers.board.update(|it| it.term = term);
    }

    fn on_restored(&mut self, _origin: &Origin, prepared: Prepared) -> Result<(), BoxError> {
        let prepared = prepared.and_then(|it| it.downcast::<ClusterState>().ok());
        let state = prepared.ok_or("the state of the rows was not prepared")?;
        let mut rows = self.committed.lock();
        let old = std::mem::replace(&mut rows.state, *state);
        // What a machine of before may still share is older than these rows.
        rows.applied = (0, 0);
        rows.shared = None;
        drop(rows);
        drop_elsewhere(Some(old));
        Ok(())
    }

    fn on_send(&mut self, message: Outgoing) {
        let peers = &self.peers;
        let (to, is_ticket) = (message.to, message.ticket.is_some());
        let item = Item {
            bytes: message.bytes,
            is_ticket,
        };
        let taken = peers.queue(to).push(item);
        if is_ticket {
            // One that was not taken is reported by who looks after tickets: until then the peer
            // gets nothing, so that must not be lost in a full queue.
            service::ticket_sent(peers, to);
        }
        if !taken && let Some(it) = peers.membership.get() {
            // Repeated with the end of the link.
            let _ = it.handle.report_unreachable(to);
        }
    }

    fn on_members(&mut self, members: &Members) {
        let names: Vec<String> = members
            .ids()
            .into_iter()
            .filter_map(|id| Some(format!("{id}={}", note(members, id)?.raft_address)))
            .collect();
        tracing::info!(
            voters = ?members.voters,
            learners = ?members.learners,
            members = names.join(","),
            "members"
        );
        self.peers.members.send_replace(members.clone());
        self.peers.show();
    }

    fn on_confirmed(&mut self, ticket: u64) {
        self.intake
            .control(Control::Replica(ReplicaEvent::Confirmed {
                term: self.leading,
                ticket: Ticket(ticket),
            }));
    }
}

/// `--peers` and `--join` mean nothing once there is state. Whoever names nobody that is in it is
/// likely to expect another cluster.
fn warn_of_other_members(settings: &Settings, identity: &Identity, members: &Members) {
    let known: Vec<String> = members
        .ids()
        .into_iter()
        .filter_map(|id| Some(note(members, id)?.raft_address))
        .collect();
    let (flag, named) = match &settings.join {
        Some(address) => ("--join", vec![address.clone()]),
        None => ("--peers", settings.peers.clone()),
    };
    let strangers: Vec<String> = named
        .into_iter()
        .filter(|it| it.contains(':') && !known.contains(it))
        .collect();
    if !strangers.is_empty() {
        tracing::warn!(
            cluster_id = identity.cluster_id,
            members = known.join(","),
            "{flag} is not used, since --work_dir holds the state of a cluster already, of which {} \
             is no member; `tepui master list` shows who is, `tepui master add` adds others",
            strangers.join(", ")
        );
    }
}

/// Refuses to begin on a full disk, where the library that writes to it ends the process without
/// a word.
pub(crate) fn check_room(work_dir: &Path) -> Result<()> {
    // A file system that does not say is one that does not fill up.
    let Ok(found) = rustix::fs::statvfs(work_dir) else {
        return Ok(());
    };
    let left = found.f_bavail.saturating_mul(found.f_frsize);
    ensure!(
        left >= LEAST_ROOM,
        "the disk of --work_dir={} has {} KiB left, and a master needs {} at least: make room",
        work_dir.display(),
        left >> 10,
        LEAST_ROOM >> 10
    );
    Ok(())
}

/// Opens the store and starts the replica. Returns it with the machine's end.
///
/// # Errors
/// The store is in use, damaged, or another cluster's.
pub(crate) fn start(
    settings: &Settings,
    intake: Arc<Intake<ReplicaEvent>>,
    peers: Arc<Peers>,
) -> Result<(Replica, RaftHandle)> {
    // What is stored wins; a store without it is made nowhere but in `peers::form`.
    let identity = Identity::first(uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let mut options = Options::new(&peers.store, identity);
    options.seed = rand::random();
    (options.tick, options.election_ticks) = settings.election_ticks();
    options.keep_log_bytes = settings.raft_log_keep();
    options.heartbeat_ticks = options.election_ticks / 5;
    check_room(&settings.work_dir)?;
    let store = Store::open(&options)?;
    let state = fetch::load(store.rows()).map_err(|it| it.of_store(&peers.store))?;
    let identity = store.identity().clone();
    tracing::info!(
        cluster_id = identity.cluster_id,
        node_id = identity.node_id,
        incarnation = identity.incarnation,
        applied = store.applied(),
        "the store is open"
    );
    if let Some(members) = store.members()? {
        warn_of_other_members(settings, &identity, &members);
        peers.members.send_replace(members);
    }
    let own = Member {
        store_id: identity.store_id.clone(),
        ..peers.own()
    };
    *peers.member.lock().unwrap_or_else(PoisonError::into_inner) = own;
    let committed = CommittedState::new(state);
    let receiver = Receiver {
        committed: committed.clone(),
        intake: intake.clone(),
        leading: 0,
        peers: peers.clone(),
    };
    let runtime = peers.runtime.handle();
    let replica = Replica::start(store, &options, Box::new(receiver), runtime)?;
    let handle = replica.handle();
    let membership = Membership {
        identity,
        handle: handle.clone(),
    };
    // Set once: a master is opened once.
    let _ = peers.membership.set(membership);
    peers.show();
    let handle = RaftHandle {
        handle,
        committed,
        intake,
    };
    Ok((replica, handle))
}
