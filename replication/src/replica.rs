//! A running replica: its owner's end and the machine's.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use tepui_replication_node::{MemberChange, Members, NodeId, Peer, Role};
use tokio::{
    runtime,
    sync::mpsc::{self, Sender, error::TrySendError},
};

use crate::{
    fatal::Fatal,
    listener::Listener,
    options::Options,
    priority::go_first,
    raft_thread::{Answer, Command, RaftThread},
    store::{OpenError, Store},
    transfer::{FetchedRows, RowsSink},
    writers::{self, Progress},
};

/// Commands waiting for the raft thread. Full means that it is busy for longer than a thousand
/// proposals take, so who proposes had better wait.
const COMMANDS: usize = 1024;

/// Batches waiting for the log's thread: as many as one fsync takes along. When they are full the
/// raft thread waits, which is what a disk that cannot keep up asks for.
const BATCHES: usize = 256;

/// One flush of rows is asked for at a time, since the next one coalesces what changes meanwhile;
/// the rest is for rows that go to other masters or come from them, which are few.
const ROWS_WORK: usize = 16;
/// The thread that nobody waits for.
const ROWS: &str = "raft-rows";

/// Names a proposal: [`crate::Committed`] has the same term and sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The term of the leadership.
    pub term: u64,
    /// 1 for the first proposal of the term, rising by one.
    pub sequence: u64,
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Too much is under way: try again when something has been committed.
    #[error("too much is waiting to be committed")]
    Full,
    /// This master does not lead the term named. [`Listener::on_follower`] has been or will be
    /// called.
    #[error("this master does not lead term {term}")]
    NotLeader {
        /// The term of the proposal.
        term: u64,
    },
    /// The replica has stopped.
    #[error("the replicated log has stopped")]
    Stopped,
}

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// The newest term seen.
    pub term: u64,
    /// Last entry applied.
    pub applied: u64,
    /// Last entry of the log.
    pub last_index: u64,
    /// Last entry that is not in the log any more.
    pub cut_index: u64,
    /// The members.
    pub members: Members,
    /// On a leader: everybody's progress.
    pub peers: Vec<Peer>,
    /// Leadership is being handed over.
    pub is_transferring: bool,
}

/// What the log's thread has written since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Writes, each with one fsync unless nothing in it had to be durable.
    pub writes: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of these entries.
    pub bytes: u64,
}

/// Where a change of the members stands in the log, as long as the leader of its term leads: another
/// leader's entry may take the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proposed {
    /// Index of the entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// Held while messages wait; see [`Handle::deliver`].
pub type Permit = Box<dyn std::any::Any + Send>;

/// Why a command was not taken: too many are waiting, or the replica has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many commands wait for the replicated log, or it has stopped")]
pub struct Full;

/// Who may propose, and as what.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    /// 0 when this master does not lead.
    pub(crate) term: u64,
    pub(crate) sequence: u64,
    /// The newest confirmation that was asked for and not looked at.
    pub(crate) asked: Option<u64>,
    /// Who proposes wants this leadership to end.
    pub(crate) given_up: bool,
    /// The replica is to stop, with whether to write the rows.
    pub(crate) stop: Option<bool>,
}

impl Leading {
    /// Nobody proposes, or somebody in a new term; what was asked for in the one before is void.
    pub(crate) fn begin(&mut self, term: u64) {
        *self = Leading {
            term,
            stop: self.stop,
            ..Leading::default()
        };
    }
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    leading: Mutex<Leading>,
    bytes_in_flight: AtomicUsize,
    pub(crate) written: writers::Counts,
}

impl Shared {
    pub(crate) fn leading(&self) -> MutexGuard<'_, Leading> {
        // Two numbers, which no panic can leave half-changed.
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn landed(&self, bytes: usize) {
        self.bytes_in_flight.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Tells, once, that the process must end.
#[derive(Clone)]
pub(crate) struct Fault {
    on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    told: Arc<AtomicBool>,
    wake: Sender<Command>,
}

impl Fault {
    pub(crate) fn report(&self, fatal: &Fatal) {
        if !self.told.swap(true, Ordering::AcqRel) {
            (self.on_fatal)(fatal);
            let _ = self.wake.try_send(Command::Wake);
        }
    }

    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }
}

/// The machine's end of a replica. Clones share it.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    max_bytes_in_flight: usize,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// What was written to the log so far.
    pub fn written(&self) -> Written {
        self.shared.written.get()
    }

    /// Proposes one entry, decided in `term`; never waits. It comes back through
    /// [`Listener::on_committed`] with the same term and sequence, or the leadership ends.
    ///
    /// # Errors
    /// It was not taken, and will not be committed; see [`ProposeError`].
    pub fn propose(&self, term: u64, entry: Bytes) -> Result<Position, ProposeError> {
        // Held while the command is queued, so that sequences are queued in order. Nobody waits
        // for anything while holding it.
        let mut leading = self.shared.leading();
        if term == 0 || leading.term != term || leading.given_up {
            return Err(ProposeError::NotLeader { term });
        }
        let bytes = entry.len();
        // One entry alone may be larger than the limit, or it could never be proposed.
        let in_flight = self.shared.bytes_in_flight.load(Ordering::Acquire);
        if in_flight > 0 && in_flight.saturating_add(bytes) > self.max_bytes_in_flight {
            return Err(ProposeError::Full);
        }
        let sequence = leading.sequence + 1;
        let in_flight = &self.shared.bytes_in_flight;
        in_flight.fetch_add(bytes, Ordering::AcqRel);
        let command = Command::Propose {
            term,
            sequence,
            entry,
        };
        if let Err(refused) = self.commands.try_send(command) {
            in_flight.fetch_sub(bytes, Ordering::AcqRel);
            return Err(match refused {
                TrySendError::Full(_) => ProposeError::Full,
                TrySendError::Closed(_) => ProposeError::Stopped,
            });
        }
        leading.sequence = sequence;
        Ok(Position { term, sequence })
    }

    /// Bytes proposed and not yet committed.
    pub fn bytes_in_flight(&self) -> usize {
        self.shared.bytes_in_flight.load(Ordering::Acquire)
    }

    /// The term that this master leads, if it does.
    pub fn leading_term(&self) -> Option<u64> {
        let term = self.shared.leading().term;
        (term != 0).then_some(term)
    }

    /// Asks whether this master still leads `term`; [`Listener::on_confirmed`] answers with
    /// `ticket` or a later one, or never when it does not. Cannot be lost.
    pub fn confirm(&self, term: u64, ticket: u64) {
        let mut leading = self.shared.leading();
        if term != 0 && leading.term == term {
            leading.asked = leading.asked.max(Some(ticket));
        }
        drop(leading);
        // When the queue is full the raft thread is awake, and looks before it sleeps.
        let _ = self.commands.try_send(Command::Wake);
    }

    /// Ends the leadership of `term`: what was decided in it cannot be proposed. Cannot be lost.
    pub fn give_up(&self, term: u64) {
        let mut leading = self.shared.leading();
        if term != 0 && leading.term == term {
            leading.given_up = true;
        }
        drop(leading);
        // As above.
        let _ = self.commands.try_send(Command::Wake);
    }

    /// Messages of a peer, as its [`Listener::on_send`] gave them out, but for tickets. `permit` is
    /// dropped when they have been taken in: who limits permits limits what waits here.
    ///
    /// # Errors
    /// Not taken: given back, unless the replica has stopped.
    pub fn deliver(
        &self,
        messages: Vec<Bytes>,
        permit: Permit,
    ) -> Result<(), Option<(Vec<Bytes>, Permit)>> {
        let command = Command::Deliver { messages, permit };
        self.commands.try_send(command).map_err(|it| match it {
            TrySendError::Full(Command::Deliver { messages, permit }) => Some((messages, permit)),
            _ => None,
        })
    }

    /// A peer's ticket, with rows of committed state: they take the place of this master's, unless
    /// they turn out not to be needed. [`Listener::on_restored`] tells, and then `answer` whether
    /// they are in place; on the raft thread, where it must not wait.
    ///
    /// # Errors
    /// Not taken: both are given back, unless the replica has stopped.
    pub fn restore(
        &self,
        ticket: Bytes,
        rows: FetchedRows,
        answer: impl FnOnce(bool) + Send + 'static,
    ) -> Result<(), Option<Box<(Bytes, FetchedRows)>>> {
        let command = Command::Restore {
            ticket,
            rows: Box::new(rows),
            answer: Box::new(answer),
        };
        self.commands.try_send(command).map_err(|it| match it {
            TrySendError::Full(Command::Restore { ticket, rows, .. }) => {
                Some(Box::new((ticket, *rows)))
            }
            _ => None,
        })
    }

    /// Reads all rows, as of now and at least of `min_index`, into `sink`, which is called on a
    /// thread of its own.
    ///
    /// # Errors
    /// Not taken.
    pub fn send_rows(&self, min_index: u64, sink: RowsSink) -> Result<(), Full> {
        self.send(Command::SendRows { min_index, sink })
    }

    /// The connection on which a peer sends has broken: if it leads, others may.
    ///
    /// # Errors
    /// Not taken.
    pub fn link_lost(&self, peer: NodeId) -> Result<(), Full> {
        self.send(Command::LinkLost { peer })
    }

    /// How it stands; `answer` is called on the raft thread and must not wait.
    ///
    /// # Errors
    /// Not taken.
    pub fn status(&self, answer: impl FnOnce(Status) + Send + 'static) -> Result<(), Full> {
        let answer: Answer<Status> = Box::new(answer);
        self.send(Command::Status { answer })
    }

    /// A peer could not be reached.
    ///
    /// # Errors
    /// Not taken; report it again.
    pub fn report_unreachable(&self, peer: NodeId) -> Result<(), Full> {
        self.send(Command::Unreachable { peer })
    }

    /// A peer has got, or failed to get, the rows that a ticket promised.
    ///
    /// # Errors
    /// Not taken; report it again, or the peer gets nothing any more.
    pub fn report_rows(&self, peer: NodeId, arrived: bool) -> Result<(), Full> {
        self.send(Command::Rows { peer, arrived })
    }

    /// Asks for votes at once: the leader's connection broke.
    ///
    /// # Errors
    /// Not taken.
    pub fn campaign(&self) -> Result<(), Full> {
        self.send(Command::Campaign)
    }

    /// Gives up the leadership, or hands it to a voter.
    ///
    /// # Errors
    /// Not taken.
    pub fn step_down(&self, to: Option<NodeId>) -> Result<(), Full> {
        self.send(Command::StepDown { to })
    }

    /// Changes the members, and notes what is to be known of some; `answer` has the place of the
    /// entry, or why there is none, and is called on the raft thread, where it must not wait.
    /// [`Listener::on_members`] tells when it is done.
    ///
    /// # Errors
    /// Not taken.
    pub fn change_members(
        &self,
        changes: Vec<MemberChange>,
        notes: BTreeMap<NodeId, Bytes>,
        answer: impl FnOnce(Result<Proposed, String>) + Send + 'static,
    ) -> Result<(), Full> {
        let answer: Answer<Result<Proposed, String>> = Box::new(answer);
        self.send(Command::ChangeMembers {
            changes,
            notes,
            answer,
        })
    }

    fn send(&self, command: Command) -> Result<(), Full> {
        self.commands.try_send(command).map_err(|_| Full)
    }
}

/// A running replica. Dropping it stops it at once, as a crash would, without writing rows: the log
/// holds everything. Not to be dropped on the runtime's own thread, which then waits for itself.
#[derive(Debug)]
pub struct Replica {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Replica {
    /// Starts it: its loop on `runtime`, which reads and writes the links to the peers as well and
    /// has one thread, and the threads that write. A group of one has a leader as soon as its log
    /// is written.
    ///
    /// # Errors
    /// The store's parts contradict each other, or no thread could be made.
    pub fn start(
        store: Store,
        options: &Options,
        listener: Box<dyn Listener>,
        runtime: &runtime::Handle,
    ) -> Result<Replica, OpenError> {
        let mut node = store.node(options)?;
        if node.members().is_sole_voter(node.id()) {
            node.campaign();
        }
        let (commands, incoming) = mpsc::channel(COMMANDS);
        let (log_work, log_queue) = sync_channel(BATCHES);
        let (rows_work, rows_queue) = sync_channel(ROWS_WORK);
        let shared = Arc::new(Shared::default());
        let fault = Fault {
            on_fatal: Arc::clone(&options.on_fatal),
            told: Arc::default(),
            wake: commands.clone(),
        };
        let logged = Progress::new(0, commands.clone());
        let flushed = Progress::new(node.applied(), commands.clone());
        let raft = RaftThread::new(
            node,
            listener,
            options,
            Arc::clone(&shared),
            (log_work, logged.clone()),
            (rows_work, flushed.clone()),
            fault.clone(),
        );
        let dir = store.dir.clone();
        let Store { log, rows, .. } = store;
        let mut replica = Replica {
            handle: Handle {
                commands,
                shared,
                max_bytes_in_flight: options.max_bytes_in_flight,
            },
            threads: Vec::new(),
        };
        let mut spawn = |name, body: Box<dyn FnOnce() + Send>| {
            let fault = fault.clone();
            let guarded = move || {
                if name != ROWS {
                    go_first();
                }
                if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                    fault.report(&Fatal::panicked(name, &*panic));
                }
            };
            let builder = std::thread::Builder::new().name(name.to_owned());
            let thread = builder.spawn(guarded).map_err(|it| OpenError::Io {
                dir: dir.clone(),
                text: format!("thread {name} cannot be made: {it}"),
            })?;
            replica.threads.push(thread);
            Ok(())
        };
        let of_log = fault.clone();
        let counted = Arc::clone(&replica.handle.shared);
        let of_rows = fault.clone();
        let room = writers::Room::new(dir.clone());
        spawn(
            "raft-log",
            Box::new(move || {
                writers::write_log(&log, &log_queue, &logged, &counted.written, &of_log);
            }),
        )?;
        spawn(
            ROWS,
            Box::new(move || writers::write_rows(rows, room, &rows_queue, &flushed, &of_rows)),
        )?;
        let raft = runtime.spawn(raft.run(incoming));
        runtime.spawn(async move {
            if let Err(ended) = raft.await
                && let Ok(panic) = ended.try_into_panic()
            {
                fault.report(&Fatal::panicked("raft", &*panic));
            }
        });
        Ok(replica)
    }

    /// The machine's end.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops after writing the rows, so that the next start has little to do.
    pub fn stop(mut self) {
        self.end(true);
    }

    fn end(&mut self, flush: bool) {
        self.handle.shared.leading().stop = Some(flush);
        // When the queue is full the raft thread is awake, and looks before it sleeps; when it is
        // gone there is nothing to stop. The writers end after it.
        let _ = self.handle.commands.try_send(Command::Wake);
        for thread in self.threads.drain(..) {
            // Panics are caught inside.
            let _ = thread.join();
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.end(false);
    }
}
