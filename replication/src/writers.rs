//! The two threads that write: the log's, which makes many batches durable by one fsync, and the
//! rows', which never makes the log wait.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender},
    },
};

use tepui_replication_node::Persist;
use tokio::sync::mpsc::Sender;

use crate::{
    fatal::Fatal,
    listener::RowChanges,
    raft_thread::Command,
    replica::{Fault, Written},
    rocks::{LogDb, RowsDb},
    store::RowsRecord,
    transfer::{FetchedRows, RowsSink, send_rows},
};

/// How far a writer has come, and how the raft thread learns of it.
#[derive(Clone)]
pub(crate) struct Progress {
    done: Arc<AtomicU64>,
    wake: Sender<Command>,
}

impl Progress {
    /// Of a writer that has done everything up to `done` in an earlier life.
    pub(crate) fn new(done: u64, wake: Sender<Command>) -> Progress {
        Progress {
            done: Arc::new(AtomicU64::new(done)),
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

/// What was written to the log.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    writes: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn add(&self, group: &[Persist]) {
        let entries = group.iter().flat_map(|it| &it.batch.entries);
        let bytes: usize = entries.clone().map(|(_, entry)| entry.len()).sum();
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.entries
            .fetch_add(entries.count() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Written {
        Written {
            writes: self.writes.load(Ordering::Relaxed),
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// What the rows' thread is asked for, in order.
pub(crate) enum RowsWork {
    /// To write what changed.
    Flush {
        rows: RowChanges,
        record: RowsRecord,
    },
    /// To read everything, as of now, on a thread of its own.
    Send { sink: RowsSink },
    /// To go on with rows that came from another master; says when that is durable.
    Swap {
        rows: FetchedRows,
        done: SyncSender<()>,
    },
}

// Batches of one fsync, at most: what queues up while the one before is under way.
const MAX_GROUP: usize = 256;

/// Until the raft thread is gone.
pub(crate) fn write_log(
    db: &LogDb,
    work: &Receiver<Persist>,
    progress: &Progress,
    counts: &Counts,
    fault: &Fault,
) {
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
        counts.add(&group);
        if let Some(last) = group.last() {
            progress.set(last.number);
        }
        group.clear();
    }
}

/// Says in time that the disk fills up. The library that writes to it may end the process by an
/// assertion when a file that could not be written is written to again, and then says nothing
/// that an operator could use.
#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    told: bool,
}

// A write-ahead log and a flush of it, twice.
const LITTLE_ROOM: u64 = 128 << 20;

impl Room {
    pub(crate) fn new(dir: PathBuf) -> Room {
        Room { dir, told: false }
    }

    fn look(&mut self) {
        // A file system that does not say is one that does not fill up.
        let Ok(found) = rustix::fs::statvfs(&self.dir) else {
            return;
        };
        let left = found.f_bavail.saturating_mul(found.f_frsize);
        let little = left < LITTLE_ROOM;
        if little && !self.told {
            tracing::warn!(
                mebibytes_left = left >> 20,
                dir = %self.dir.display(),
                "the disk is nearly full: a master that cannot write ends; make room"
            );
        }
        self.told = little;
    }
}

/// Until the raft thread is gone.
pub(crate) fn write_rows(
    mut db: RowsDb,
    mut room: Room,
    work: &Receiver<RowsWork>,
    progress: &Progress,
    fault: &Fault,
) {
    // Rows before a swap, which may still be read.
    let mut replaced: Vec<RowsDb> = Vec::new();
    while let Ok(next) = work.recv() {
        replaced = replaced.into_iter().filter_map(RowsDb::remove).collect();
        match next {
            RowsWork::Flush { rows, record } => {
                room.look();
                if let Err(failure) = db.write(&rows(), &record.encode()) {
                    return fault.report(&Fatal::Disk(failure));
                }
                progress.set(record.applied());
            }
            RowsWork::Send { sink } => spawn_sender(db.clone(), sink),
            RowsWork::Swap { rows, done } => {
                let applied = rows.origin.index;
                match rows.swap_in() {
                    Ok(swapped) => replaced.push(std::mem::replace(&mut db, swapped)),
                    Err(error) => return fault.report(&Fatal::Swap(error)),
                }
                progress.set(applied);
                // Fails when the raft thread is gone.
                let _ = done.send(());
            }
        }
    }
}

// Returns when the moment as of which rows are sent has come.
fn spawn_sender(db: RowsDb, sink: RowsSink) {
    let (begun, when) = std::sync::mpsc::sync_channel::<()>(1);
    let body = move || {
        let begun = || {
            // Nobody listens when the thread is gone, which is as good.
            let _ = begun.send(());
        };
        send_rows(&db, begun, sink);
    };
    let spawned = std::thread::Builder::new()
        .name("raft-send-rows".to_owned())
        .spawn(body);
    match spawned {
        // Ends with an error when the thread ended before.
        Ok(_) => drop(when.recv()),
        Err(error) => tracing::warn!(%error, "no thread to send rows on"),
    }
}
