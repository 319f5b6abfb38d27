//! An owner of committed state for tests: one row per entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use bytes::Bytes;
use tepui_replication::{
    BoxError, Committed, Handle, Identity, Listener, NodeId, OpenError, Options, Position, Replica,
    RowChanges, Store,
};
use tokio::runtime::{self, Runtime};

/// Long enough for any disk; nothing waits that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Data of an entry that removes the row of the one before.
pub const REMOVE: &[u8] = b"remove the row before";

#[derive(Debug, PartialEq)]
pub enum Event {
    Committed(Committed),
    Leader(u64),
    Follower(Option<NodeId>),
    Confirmed(u64),
    Fatal(String),
}

struct Owner {
    rows: BTreeMap<Bytes, Bytes>,
    dirty: BTreeSet<Bytes>,
    events: Sender<Event>,
}

impl Listener for Owner {
    fn on_committed(&mut self, entry: Committed) -> Result<(), BoxError> {
        if entry.data.as_ref() == b"poison" {
            return Err("unknown operation".into());
        }
        let key = Bytes::copy_from_slice(&entry.index.to_be_bytes());
        self.rows.insert(key.clone(), entry.data.clone());
        self.dirty.insert(key);
        if entry.data.as_ref() == REMOVE {
            let key = Bytes::copy_from_slice(&(entry.index - 1).to_be_bytes());
            self.rows.remove(&key);
            self.dirty.insert(key);
        }
        let _ = self.events.send(Event::Committed(entry));
        Ok(())
    }

    fn take_dirty_rows(&mut self) -> RowChanges {
        let dirty = std::mem::take(&mut self.dirty);
        let row = |key: Bytes| {
            let row = self.rows.get(&key).cloned();
            (key, row)
        };
        let rows: Vec<_> = dirty.into_iter().map(row).collect();
        Box::new(move || rows)
    }

    fn on_leader(&mut self, term: u64) {
        let _ = self.events.send(Event::Leader(term));
    }

    fn on_follower(&mut self, leader: Option<NodeId>) {
        let _ = self.events.send(Event::Follower(leader));
    }

    fn on_confirmed(&mut self, ticket: u64) {
        let _ = self.events.send(Event::Confirmed(ticket));
    }
}

/// As a master's: one thread.
pub fn runtime() -> Runtime {
    let mut runtime = runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_time();
    runtime.build().expect("a runtime")
}

pub fn identity() -> Identity {
    Identity::first("store", "cluster")
}

/// Rows are written only when a test ends well, unless it says otherwise.
pub fn options(dir: &Path) -> Options {
    Options {
        flush_interval: Duration::from_secs(3600),
        ..Options::new(dir, identity())
    }
}

pub struct Running {
    pub replica: Replica,
    pub handle: Handle,
    pub term: u64,
    events: Receiver<Event>,
    /// Data by index: rows found at the start, and everything committed since.
    pub seen: BTreeMap<u64, Bytes>,
    /// Committed in this life.
    pub replayed: usize,
    /// Applied index of the rows found.
    pub applied: u64,
    // Ends after the replica.
    _runtime: Runtime,
}

impl Running {
    /// Starts and waits until it leads. What would end the process is an event.
    pub fn start(options: &Options) -> Result<Running, OpenError> {
        let (sender, events) = channel();
        let to_fatal = sender.clone();
        let options = Options {
            on_fatal: Arc::new(move |fatal| {
                let _ = to_fatal.send(Event::Fatal(fatal.to_string()));
            }),
            ..options.clone()
        };
        Running::start_with(&options, sender, events)
    }

    /// The same, with a process that really ends.
    pub fn start_mortal(options: &Options) -> Result<Running, OpenError> {
        let (sender, events) = channel();
        Running::start_with(options, sender, events)
    }

    fn start_with(
        options: &Options,
        sender: Sender<Event>,
        events: Receiver<Event>,
    ) -> Result<Running, OpenError> {
        let store = Store::open(options)?;
        let mut rows = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for row in store.rows() {
            let (key, row) = row.expect("readable row");
            let index = u64::from_be_bytes(key.as_ref().try_into().expect("index"));
            seen.insert(index, row.clone());
            rows.insert(key, row);
        }
        let applied = store.applied();
        let owner = Owner {
            rows,
            dirty: BTreeSet::new(),
            events: sender,
        };
        let runtime = runtime();
        let replica = Replica::start(store, options, Box::new(owner), runtime.handle())?;
        let mut running = Running {
            handle: replica.handle(),
            replica,
            _runtime: runtime,
            term: 0,
            events,
            seen,
            replayed: 0,
            applied,
        };
        running.await_leadership();
        Ok(running)
    }

    pub fn event(&mut self) -> Event {
        let event = self.events.recv_timeout(PATIENCE).expect("an event");
        if let Event::Committed(entry) = &event {
            let last = self.seen.last_key_value().map_or(0, |it| *it.0);
            assert!(entry.index > last.max(self.applied), "out of order");
            self.seen.insert(entry.index, entry.data.clone());
            self.replayed += 1;
        }
        event
    }

    pub fn await_leadership(&mut self) {
        loop {
            if let Event::Leader(term) = self.event() {
                assert!(term > self.term, "terms rise");
                self.term = term;
                return;
            }
        }
    }

    pub fn propose(&self, data: &[u8]) -> Position {
        let data = Bytes::copy_from_slice(data);
        self.handle.propose(self.term, data).expect("leads")
    }

    /// Waits until the proposal has been committed.
    pub fn await_commit(&mut self, position: Position) {
        loop {
            if let Event::Committed(it) = self.event()
                && (it.term, it.sequence) == (position.term, position.sequence)
            {
                return;
            }
        }
    }

    pub fn commit(&mut self, data: &[u8]) {
        let position = self.propose(data);
        self.await_commit(position);
    }

    /// The datas in the order of the log.
    pub fn datas(&self) -> Vec<&[u8]> {
        self.seen.values().map(AsRef::as_ref).collect()
    }
}
