//! Masters speaking to masters: `tepui.raft.v1.Peer`, on a port of its own.
//!
//! ```text
//!  raft thread ── on_send ──► Queue of a peer ──► link (one stream) ──► service of the peer
//!                                                                          │
//!  raft thread ◄── deliver ── service ◄── link of the peer                 ▼ deliver
//! ```
//!
//! `channel` makes connections and proves who may have one; `queue` is what waits for a peer;
//! `links` keeps one stream to each; `service` answers; `form` makes the first store of a
//! master, as a founder or by joining; `fetch` copies rows; `keeper` is what a leader does for
//! its members.
//!
//! # Invariants
//! - The raft thread never waits for a socket: what a peer does not take is dropped and
//!   reported, and consensus sends it again when the peer answers.
//! - Only members of the same cluster and incarnation, each with the store that it was admitted
//!   with, exchange messages.

pub(crate) mod channel;
pub(crate) mod fetch;
pub(crate) mod form;
pub(crate) mod keeper;
pub(crate) mod links;
pub(crate) mod queue;
pub(crate) mod service;

use crate::{config::Settings, shell::leadership::Board};
use bytes::Bytes;
use prost::Message as _;
use queue::{Queue, Queues};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tepui_replication::{Handle, Identity, Members, NodeId, go_first};
use tepui_server::{
    listener::Stop,
    proto::tepui::raft::v1::{Ends, Greeting, Member},
};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a question to another master may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// What is asked of a master without a store.
#[derive(Debug)]
pub(crate) enum Offer {
    /// To be a founder.
    Found(tepui_server::proto::tepui::raft::v1::Founding),
    /// To join through the member at this address.
    Invite(String),
}

/// An offer, and where the answer goes: why it is refused.
pub(crate) type Offered = (Offer, oneshot::Sender<Result<(), String>>);

/// This master, as a member.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) identity: Identity,
    pub(crate) handle: Handle,
}

/// What the parts of the peers' side share.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Who this master is, and where; its store id is that of the store to be while there is none.
    pub(crate) member: Mutex<Member>,
    /// As `--peers` has them, sorted; empty when it was not given.
    pub(crate) founders: Vec<String>,
    /// Folder of the store.
    pub(crate) store: PathBuf,
    pub(crate) security: channel::Security,
    pub(crate) queues: Queues,
    pub(crate) board: Board,
    /// Set once there is a store.
    pub(crate) membership: OnceLock<Membership>,
    /// The members as of the last entry applied here.
    pub(crate) members: watch::Sender<Members>,
    /// The leader as its members know it.
    pub(crate) leader: watch::Sender<Option<NodeId>>,
    /// Tickets sent and not asked about yet.
    pub(crate) tickets: Mutex<BTreeMap<NodeId, Instant>>,
    /// What members said of themselves, when they linked.
    pub(crate) heard: Mutex<BTreeMap<NodeId, Member>>,
    /// Tickets that were received.
    pub(crate) desk: Mutex<fetch::Desk>,
    /// One admission at a time: ids are drawn from the members as they are.
    pub(crate) admitting: tokio::sync::Mutex<()>,
    /// Links that members hold to this master.
    pub(crate) linked: Mutex<BTreeMap<NodeId, u32>>,
    /// Taken by whoever makes the store; nobody listens afterwards.
    pub(crate) offers: mpsc::Sender<Offered>,
    /// Why this master must end.
    pub(crate) fatal: watch::Sender<Option<String>>,
    pub(crate) stop: Stop,
    /// Runs everything between masters.
    pub(crate) runtime: Runtime,
}

/// A thread of its own for Raft and what masters say to each other: clients that keep all others
/// busy do not delay a heartbeat, and a message needs no second thread to be thought about.
#[derive(Debug)]
pub(crate) struct Runtime {
    handle: tokio::runtime::Handle,
    // Until it is dropped.
    owned: Option<tokio::runtime::Runtime>,
}

/// Polls of tasks until the thread looks what has come on its sockets, or from other threads: a
/// poll of Raft takes up to a tick.
const POLLS: u32 = 4;

impl Runtime {
    fn new() -> std::io::Result<Runtime> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .event_interval(POLLS)
            .global_queue_interval(POLLS)
            .thread_name("raft")
            .on_thread_start(go_first)
            .enable_all()
            .build()?;
        Ok(Runtime {
            handle: runtime.handle().clone(),
            owned: Some(runtime),
        })
    }

    /// To run something there.
    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        &self.handle
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.owned.take() {
            // May be dropped by a task, which must not wait.
            runtime.shutdown_background();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    /// Of a master that has no store open yet.
    pub(crate) fn new(
        member: Member,
        settings: &Settings,
        store: PathBuf,
        board: Board,
        offers: mpsc::Sender<Offered>,
        stop: Stop,
    ) -> std::io::Result<Peers> {
        Ok(Peers {
            runtime: Runtime::new()?,
            member: Mutex::new(member),
            founders: settings.peers.clone(),
            store,
            security: settings.security.clone(),
            queues: Queues::default(),
            board,
            membership: OnceLock::new(),
            members: watch::Sender::default(),
            leader: watch::Sender::default(),
            tickets: Mutex::default(),
            heard: Mutex::default(),
            desk: Mutex::default(),
            admitting: tokio::sync::Mutex::default(),
            linked: Mutex::default(),
            offers,
            fatal: watch::Sender::default(),
            stop,
        })
    }

    /// Who this master is.
    pub(crate) fn own(&self) -> Member {
        lock(&self.member).clone()
    }

    /// What it says when it is greeted.
    pub(crate) fn greeting(&self) -> Greeting {
        let mut greeting = Greeting {
            member: Some(self.own()),
            ..Greeting::default()
        };
        match self.membership.get() {
            Some(it) => {
                greeting.cluster_id = it.identity.cluster_id.clone();
                greeting.incarnation = it.identity.incarnation;
                greeting.node_id = it.identity.node_id;
                greeting.leader = self.leader_raft_address().unwrap_or_default();
            }
            None => greeting.founders = self.founders.clone(),
        }
        greeting
    }

    /// What the members know of one of them.
    pub(crate) fn note(&self, id: NodeId) -> Option<Member> {
        note(&self.members.borrow(), id)
    }

    /// Where a member is: as it says itself, which the log may not have yet, or as is noted.
    pub(crate) fn whereabouts(&self, id: NodeId) -> Option<Member> {
        let heard = lock(&self.heard).get(&id).cloned();
        heard.or_else(|| self.note(id))
    }

    /// Where the leader's service is, when known.
    pub(crate) fn leader_raft_address(&self) -> Option<String> {
        let leader = (*self.leader.borrow())?;
        self.whereabouts(leader).map(|it| it.raft_address)
    }

    /// The first frame of a link to a member.
    pub(crate) fn ends(&self, membership: &Membership, to: NodeId) -> Ends {
        Ends {
            cluster_id: membership.identity.cluster_id.clone(),
            incarnation: membership.identity.incarnation,
            from: membership.identity.node_id,
            to,
            member: Some(self.own()),
        }
    }

    /// Writes down who leads and who there is, for clients.
    pub(crate) fn show(&self) {
        let members = self.members.borrow();
        let leader = *self.leader.borrow();
        let address = |id: NodeId| match self.membership.get() {
            Some(it) if it.identity.node_id == id => Some(self.own().client_address),
            _ => note(&members, id).map(|it| it.client_address),
        };
        self.board.update(|it| {
            it.leader = leader.and_then(address);
            it.masters = members.ids().into_iter().filter_map(address).collect();
        });
    }

    /// The queue of a peer.
    pub(crate) fn queue(&self, peer: NodeId) -> Arc<Queue> {
        self.queues.of(peer)
    }

    /// Ends the process, or the master in it, with a text.
    pub(crate) fn give_up(&self, text: String) {
        tracing::error!("{text}");
        self.fatal.send_if_modified(|it| {
            let first = it.is_none();
            it.get_or_insert(text);
            first
        });
    }

    /// Tells the raft thread what became of a ticket, however busy it is.
    pub(crate) async fn report_rows(&self, peer: NodeId, arrived: bool) {
        let Some(membership) = self.membership.get() else {
            return;
        };
        while membership.handle.report_rows(peer, arrived).is_err() {
            tokio::select! {
                () = tokio::time::sleep(BUSY) => {}
                () = self.stop.stopped() => return,
            }
        }
    }
}

/// Between two attempts to hand the raft thread something while its queue is full.
pub(crate) const BUSY: Duration = Duration::from_millis(1);

/// What is noted of a member.
pub(crate) fn note(members: &Members, id: NodeId) -> Option<Member> {
    let bytes = members.notes.get(&id)?;
    Member::decode(bytes.clone()).ok()
}

/// What is noted of a member, as the log has it.
pub(crate) fn encode_note(member: &Member) -> Bytes {
    member.encode_to_vec().into()
}
