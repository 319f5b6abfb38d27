//! The replica of this master: bytes in and out of the log, and the committed state.
//!
//! `Committed` lives here, moved only by committed entries and never rolled back. A machine
//! is born from a clone of it; its dirty rows are written behind the log.

use crate::shell::{
    core::{Replica as CoreReplica, ReplicaEvent},
    intake::{Control, Intake},
    leadership::Board,
};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tepui_master_machine::outbox::Ticket;
use tepui_replication::{
    BoxError, Committed, Handle, Identity, Listener, NodeId, Options, Replica, RowChanges, Store,
};
use tepui_state::{ClusterState, decode_entry};

/// The committed state, shared by the raft thread, which moves it, and the machine's thread,
/// which clones it at a birth. Locked for one entry or one clone at a time.
#[derive(Debug, Clone)]
struct CommittedState(Arc<Mutex<ClusterState>>);

impl CommittedState {
    fn lock(&self) -> MutexGuard<'_, ClusterState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy for a machine or a view, which write no rows.
    fn copy(&self) -> Box<ClusterState> {
        Box::new(self.lock().clone())
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
                self.intake.control(Control::Replica(ReplicaEvent::Deposed));
                // Refused only when the replica has stopped.
                let _ = self.handle.step_down(None);
            }
        }
    }

    fn confirm(&self, _term: u64, ticket: Ticket) {
        if let Err(error) = self.handle.confirm(ticket.0) {
            // The messages that wait for it stay; the next confirmation covers them.
            tracing::warn!(%error, "a confirmation of leadership could not be asked for");
        }
    }

    fn ask_state(&self, term: u64) {
        let state = self.committed.copy();
        let event = ReplicaEvent::State { term, state };
        self.intake.control(Control::Replica(event));
    }
}

/// What the raft thread calls.
struct Receiver {
    committed: CommittedState,
    intake: Arc<Intake<ReplicaEvent>>,
    leading: u64,
    board: Board,
    /// Where clients reach this master.
    client_address: String,
}

impl Listener for Receiver {
    fn on_committed(&mut self, entry: Committed) -> Result<(), BoxError> {
        let decoded = decode_entry(&entry.data)?;
        self.committed.lock().apply_entry(&decoded)?;
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
        let dirty = self.committed.lock().take_dirty();
        Box::new(move || dirty.encode())
    }

    fn on_leader(&mut self, term: u64) {
        self.leading = term;
        self.board.update(|it| {
            it.term = term;
            it.here = true;
            it.leader = Some(self.client_address.clone());
        });
        let state = self.committed.copy();
        self.intake
            .control(Control::Replica(ReplicaEvent::Elected { term, state }));
    }

    fn on_follower(&mut self, _leader: Option<NodeId>) {
        self.leading = 0;
        self.board.update(|it| {
            it.here = false;
            it.leader = None;
        });
        self.intake.control(Control::Replica(ReplicaEvent::Deposed));
    }

    fn on_confirmed(&mut self, ticket: u64) {
        self.intake
            .control(Control::Replica(ReplicaEvent::Confirmed {
                term: self.leading,
                ticket: Ticket(ticket),
            }));
    }
}

/// Opens the store below `folder` and starts the replica of a cluster with one master.
/// Returns it with the machine's end and the cluster's id.
///
/// # Errors
/// The store is in use, damaged, or another cluster's.
pub(crate) fn start(
    folder: PathBuf,
    intake: Arc<Intake<ReplicaEvent>>,
    board: Board,
    client_address: String,
) -> Result<(Replica, RaftHandle, String)> {
    let fresh = || uuid::Uuid::new_v4().to_string();
    let mut options = Options::new(
        folder,
        Identity {
            store_id: fresh(),
            cluster_id: fresh(),
        },
    );
    options.seed = rand::random();
    let store = Store::open(&options)?;
    let rows = store
        .rows()
        .collect::<Result<Vec<_>, _>>()
        .context("the rows of the store cannot be read")?;
    let count = rows.len();
    let state = ClusterState::load(rows).context("the rows of the store make no state")?;
    tracing::info!(rows = count, applied = store.applied(), "the store is open");
    let cluster_id = store.identity().cluster_id.clone();
    let committed = CommittedState(Arc::new(Mutex::new(state)));
    board.update(|it| it.masters = vec![client_address.clone()]);
    let receiver = Receiver {
        committed: committed.clone(),
        intake: intake.clone(),
        leading: 0,
        board,
        client_address,
    };
    let replica = Replica::start(store, &options, Box::new(receiver))?;
    let handle = RaftHandle {
        handle: replica.handle(),
        committed,
        intake,
    };
    Ok((replica, handle, cluster_id))
}
