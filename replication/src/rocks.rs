//! Everything that knows RocksDB: two instances, one for the log and one for rows.
//!
//! Keys begin with a tag: `0x00` the store's identity, `0x01` the record beside the entries
//! or rows, `0x10` an entry (with its index as 64 bits, big-endian) or a row (with its key).

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use rocksdb::{
    DB, DBRecoveryMode, Direction, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};
use tepui_replication_node::{Batch, Disk, DiskError};

use crate::listener::RowChange;

const IDENTITY: &[u8] = &[0x00];
const RECORD: &[u8] = &[0x01];
const ITEM: u8 = 0x10;
const AFTER_ITEMS: [u8; 1] = [ITEM + 1];

/// What RocksDB said.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DiskFailure(String);

impl From<rocksdb::Error> for DiskFailure {
    fn from(error: rocksdb::Error) -> DiskFailure {
        DiskFailure(error.into_string())
    }
}

/// Why an instance cannot be opened.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    Locked,
    Corrupted(DiskFailure),
    Other(DiskFailure),
}

fn open(path: &Path, create: bool) -> Result<Arc<DB>, OpenFailure> {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.set_paranoid_checks(true);
    // A record that a crash cut short was never acknowledged; damage anywhere else is an error,
    // where other modes would silently drop everything after it.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // What a start has to replay.
    options.set_max_total_wal_size(64 << 20);
    options.set_write_buffer_size(16 << 20);
    options.set_max_background_jobs(2);
    // Its own text log, of which nothing is needed.
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_keep_log_file_num(2);
    let opened = DB::open(&options, path).map(Arc::new);
    opened.map_err(|error| {
        let kind = error.kind();
        let text = error.into_string();
        let locked = text.contains("lock");
        match kind {
            rocksdb::ErrorKind::IOError if locked => OpenFailure::Locked,
            rocksdb::ErrorKind::Corruption => OpenFailure::Corrupted(DiskFailure(text)),
            // A file that others name is gone.
            rocksdb::ErrorKind::IOError if text.contains("No such file") => {
                OpenFailure::Corrupted(DiskFailure(text))
            }
            _ => OpenFailure::Other(DiskFailure(text)),
        }
    })
}

fn synced(sync: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    options
}

fn put_identity(db: &DB, identity: &[u8]) -> Result<(), DiskFailure> {
    let mut batch = WriteBatch::default();
    batch.put(IDENTITY, identity);
    Ok(db.write_opt(batch, &synced(true))?)
}

fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [ITEM; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn entry_index(key: &[u8]) -> Option<u64> {
    let (&tag, index) = key.split_first()?;
    let index: [u8; 8] = index.try_into().ok()?;
    (tag == ITEM).then(|| u64::from_be_bytes(index))
}

/// The log's instance. Clones share it.
#[derive(Clone)]
pub(crate) struct LogDb(Arc<DB>);

impl LogDb {
    pub(crate) fn open(path: &Path, create: bool) -> Result<LogDb, OpenFailure> {
        open(path, create).map(LogDb)
    }

    pub(crate) fn identity(&self) -> Result<Option<Vec<u8>>, DiskFailure> {
        Ok(self.0.get(IDENTITY)?)
    }

    pub(crate) fn put_identity(&self, identity: &[u8]) -> Result<(), DiskFailure> {
        put_identity(&self.0, identity)
    }

    /// The record beside the entries.
    pub(crate) fn state(&self) -> Result<Option<Bytes>, DiskFailure> {
        Ok(self.0.get(RECORD)?.map(Bytes::from))
    }

    /// Reads everything, which finds damaged blocks.
    pub(crate) fn verify(&self) -> Result<(), DiskFailure> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for item in self.0.iterator_opt(IteratorMode::Start, options) {
            item?;
        }
        Ok(())
    }

    /// Index of the last entry; 0 when there is none.
    pub(crate) fn last_index(&self) -> Result<u64, DiskFailure> {
        let mode = IteratorMode::From(&AFTER_ITEMS, Direction::Reverse);
        match self.0.iterator(mode).next() {
            None => Ok(0),
            Some(item) => Ok(entry_index(&item?.0).unwrap_or(0)),
        }
    }

    /// Writes batches in order, as one, with one fsync when any of them asks for it.
    pub(crate) fn write<'a>(
        &self,
        batches: impl IntoIterator<Item = &'a Batch>,
    ) -> Result<(), DiskFailure> {
        let mut write = WriteBatch::default();
        let mut sync = false;
        for batch in batches {
            sync |= batch.must_sync;
            if let Some(to) = batch.delete_to {
                write.delete_range(entry_key(0), entry_key(to.saturating_add(1)));
            }
            if let Some(from) = batch.delete_from {
                write.delete_range(entry_key(from).as_slice(), AFTER_ITEMS.as_slice());
            }
            for (index, bytes) in &batch.entries {
                write.put(entry_key(*index), bytes);
            }
            if let Some(state) = &batch.state {
                write.put(RECORD, state);
            }
        }
        Ok(self.0.write_opt(write, &synced(sync))?)
    }
}

impl Disk for LogDb {
    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Bytes>, DiskError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(entry_key(high));
        let mode = IteratorMode::From(&entry_key(low), Direction::Forward);
        let mut bytes = 0;
        let mut entries: Vec<Bytes> = Vec::new();
        for item in self.0.iterator_opt(mode, options) {
            let (_, entry) = item.map_err(|it| DiskError(it.into_string()))?;
            bytes += entry.len() as u64;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.into());
        }
        Ok(entries)
    }
}

/// What [`RowsDb::read_groups`] hands out.
pub(crate) enum Group {
    Record(Option<Vec<u8>>),
    Rows(Vec<(Bytes, Bytes)>),
}

/// The rows' instance. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct RowsDb(Arc<DB>);

impl RowsDb {
    pub(crate) fn open(path: &Path, create: bool) -> Result<RowsDb, OpenFailure> {
        open(path, create).map(RowsDb)
    }

    /// Closes it and removes its folder, unless somebody else uses it, who is given back. What
    /// cannot be removed is tried again at the next start.
    pub(crate) fn remove(self) -> Option<RowsDb> {
        match Arc::try_unwrap(self.0) {
            Ok(db) => {
                let path = db.path().to_owned();
                drop(db);
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    tracing::warn!(%error, path = %path.display(), "old rows cannot be removed");
                }
                None
            }
            Err(used) => Some(RowsDb(used)),
        }
    }

    pub(crate) fn identity(&self) -> Result<Option<Vec<u8>>, DiskFailure> {
        Ok(self.0.get(IDENTITY)?)
    }

    pub(crate) fn put_identity(&self, identity: &[u8]) -> Result<(), DiskFailure> {
        put_identity(&self.0, identity)
    }

    /// The record beside the rows.
    pub(crate) fn record(&self) -> Result<Option<Vec<u8>>, DiskFailure> {
        Ok(self.0.get(RECORD)?)
    }

    /// Every row, by key.
    pub(crate) fn rows(
        &self,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), DiskFailure>> + use<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(AFTER_ITEMS);
        let mode = IteratorMode::From(&[ITEM], Direction::Forward);
        self.0.iterator_opt(mode, options).map(|item| {
            let (key, row) = item?;
            Ok((Bytes::from(key).slice(1..), Bytes::from(row)))
        })
    }

    /// Hands what is there to `take`, all as of one moment: the record first, then rows in groups
    /// of about `bytes`; until `take` returns false.
    pub(crate) fn read_groups(
        &self,
        bytes: usize,
        mut take: impl FnMut(Group) -> bool,
    ) -> Result<(), DiskFailure> {
        let snapshot = self.0.snapshot();
        if !take(Group::Record(snapshot.get(RECORD)?)) {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(AFTER_ITEMS);
        // Read once, by somebody who is in no hurry: others' blocks stay in the cache.
        options.fill_cache(false);
        let mode = IteratorMode::From(&[ITEM], Direction::Forward);
        let (mut group, mut size) = (Vec::new(), 0);
        for item in snapshot.iterator_opt(mode, options) {
            let (key, row) = item?;
            size += key.len() + row.len();
            group.push((Bytes::from(key).slice(1..), Bytes::from(row)));
            if size >= bytes {
                size = 0;
                if !take(Group::Rows(std::mem::take(&mut group))) {
                    return Ok(());
                }
            }
        }
        if !group.is_empty() {
            take(Group::Rows(group));
        }
        Ok(())
    }

    /// Puts rows that are worth nothing until [`RowsDb::seal`].
    pub(crate) fn put_unsynced(&self, rows: &[(Bytes, Bytes)]) -> Result<(), DiskFailure> {
        let mut write = WriteBatch::default();
        let mut key = Vec::new();
        for (name, row) in rows {
            key.clear();
            key.push(ITEM);
            key.extend_from_slice(name);
            write.put(&key, row);
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.0.write_opt(write, &options)?)
    }

    /// Writes the record and the identity beside rows that were put, and makes all durable.
    pub(crate) fn seal(&self, identity: &[u8], record: &[u8]) -> Result<(), DiskFailure> {
        let mut write = WriteBatch::default();
        write.put(RECORD, record);
        write.put(IDENTITY, identity);
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.0.write_opt(write, &options)?;
        Ok(self.0.flush()?)
    }

    /// Writes rows and their record as one and makes them durable.
    pub(crate) fn write(&self, rows: &[RowChange], record: &[u8]) -> Result<(), DiskFailure> {
        let mut write = WriteBatch::default();
        let mut key = Vec::new();
        for (name, row) in rows {
            key.clear();
            key.push(ITEM);
            key.extend_from_slice(name);
            match row {
                Some(row) => write.put(&key, row),
                None => write.delete(&key),
            }
        }
        write.put(RECORD, record);
        Ok(self.0.write_opt(write, &synced(true))?)
    }
}
