//! The two threads that write: the log's, which makes many batches durable by one fsync, and the
//! rows', which never makes the log wait.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc::{Receiver, SyncSender},
};

use tepui_replication_node::Persist;

use crate::{
    fatal::Fatal,
    listener::RowChanges,
    raft_thread::Command,
    replica::Fault,
    rocks::{LogDb, RowsDb},
    store::encode_record,
};

/// How far a writer has come, and how the raft thread learns of it.
#[derive(Clone)]
pub(crate) struct Progress {
    done: Arc<AtomicU64>,
    wake: SyncSender<Command>,
}

impl Progress {
    pub(crate) fn new(wake: SyncSender<Command>) -> Progress {
        Progress {
            done: Arc::default(),
            wake,
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    fn set(&self, done: u64) {
        self.done.store(done, Ordering::Release);
        // When the queue is full the raft thread is awake, and looks at `done` before it sleeps.
        let _ = self.wake.try_send(Command::Wake);
    }
}

/// Rows of one flush.
pub(crate) struct Flush {
    pub(crate) rows: RowChanges,
    pub(crate) applied: u64,
}

// Batches of one fsync, at most: what queues up while the one before is under way.
const MAX_GROUP: usize = 256;

/// Until the raft thread is gone.
pub(crate) fn write_log(db: &LogDb, work: &Receiver<Persist>, progress: &Progress, fault: &Fault) {
    let mut group = Vec::new();
    while let Ok(first) = work.recv() {
        group.push(first);
        while group.len() < MAX_GROUP
            && let Ok(next) = work.try_recv()
        {
            group.push(next);
        }
        if let Err(failure) = db.write(group.iter().map(|it| &it.batch)) {
            return fault.report(&Fatal::Disk(failure));
        }
        if let Some(last) = group.last() {
            progress.set(last.number);
        }
        group.clear();
    }
}

/// Until the raft thread is gone.
pub(crate) fn write_rows(db: &RowsDb, work: &Receiver<Flush>, progress: &Progress, fault: &Fault) {
    while let Ok(flush) = work.recv() {
        if let Err(failure) = db.write(&(flush.rows)(), &encode_record(flush.applied)) {
            return fault.report(&Fatal::Disk(failure));
        }
        progress.set(flush.applied);
    }
}
