//! Rows on their way from one master to another.
//!
//! The sender reads them from a snapshot of its store, in groups, on a thread of its own; the
//! receiver writes them into a new folder beside its rows. Count and checksum are compared
//! before they are worth anything. Neither side holds more than a group in memory, and
//! neither's raft thread waits.

use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use tepui_replication_node::Origin;

use crate::{
    rocks::{DiskFailure, Group, OpenFailure, RowsDb},
    store::{Row, RowsRecord, point_at_rows},
};

/// Bytes of rows in one group, about.
const GROUP_BYTES: usize = 256 << 10;

/// One part of a transfer, in this order: one `Begin`, any number of `Rows`, one `End`.
#[derive(Debug)]
pub enum RowsPart {
    /// What the rows stand for.
    Begin(Origin),
    /// Some rows, in order of their keys.
    Rows(Vec<Row>),
    /// There are no more.
    End {
        /// How many there were.
        count: u64,
        /// [`Checksum`] of all.
        checksum: Vec<u8>,
    },
    /// They cannot be had; why.
    Failed(String),
}

/// Takes the parts of a transfer, on a thread of its own; may wait. False ends it.
pub type RowsSink = Box<dyn FnMut(RowsPart) -> bool + Send>;

/// SHA-256 over every key and row with their lengths.
pub struct Checksum(Context, u64);

impl Checksum {
    /// Of nothing.
    pub fn new() -> Checksum {
        Checksum(Context::new(&SHA256), 0)
    }

    /// Adds rows.
    pub fn add(&mut self, rows: &[Row]) {
        for (key, row) in rows {
            for part in [key, row] {
                self.0.update(&(part.len() as u64).to_be_bytes());
                self.0.update(part);
            }
        }
        self.1 += rows.len() as u64;
    }

    /// How many rows, and the sum.
    pub fn finish(self) -> (u64, Vec<u8>) {
        (self.1, self.0.finish().as_ref().to_vec())
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checksum of {} rows", self.1)
    }
}

/// Reads all rows as of one moment into `sink`; `begun` is called when the moment has come.
pub(crate) fn send_rows(db: &RowsDb, begun: impl FnOnce(), mut sink: RowsSink) {
    let mut begun = Some(begun);
    let mut checksum = Checksum::new();
    let mut open = true;
    let result = db.read_groups(GROUP_BYTES, |group| {
        let part = match group {
            Group::Record(record) => {
                if let Some(begun) = begun.take() {
                    begun();
                }
                match record.and_then(|it| RowsRecord::decode(&it)) {
                    Some(RowsRecord::At { origin, .. }) => RowsPart::Begin(origin),
                    // What was flushed a moment ago is of the newer form.
                    _ => RowsPart::Failed("there are no rows yet".to_owned()),
                }
            }
            Group::Rows(rows) => {
                checksum.add(&rows);
                RowsPart::Rows(rows)
            }
        };
        let failed = matches!(part, RowsPart::Failed(_));
        open = sink(part) && !failed;
        open
    });
    if let Err(failure) = result {
        tracing::error!(
            %failure,
            "rows on this disk cannot be read: others get none from here; a restart of this \
             master fetches them anew"
        );
        sink(RowsPart::Failed(failure.to_string()));
    } else if open {
        let (count, checksum) = checksum.finish();
        sink(RowsPart::End { count, checksum });
    }
}

/// Why fetched rows are of no use.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// They cannot be written.
    #[error("rows of another master cannot be written: {0}")]
    Disk(String),
    /// They are not what was sent.
    #[error(
        "rows of another master arrived damaged: {count} of {expected} rows, and the checksum \
         differs"
    )]
    Damaged {
        /// How many came.
        count: u64,
        /// How many were sent.
        expected: u64,
    },
}

impl From<DiskFailure> for FetchError {
    fn from(failure: DiskFailure) -> FetchError {
        FetchError::Disk(failure.to_string())
    }
}

impl From<std::io::Error> for FetchError {
    fn from(error: std::io::Error) -> FetchError {
        FetchError::Disk(error.to_string())
    }
}

/// Rows that arrive. Dropped before [`RowsWriter::finish`], it takes what it wrote along.
#[derive(Debug)]
pub struct RowsWriter {
    folder: NewFolder,
    db: RowsDb,
    origin: Origin,
    checksum: Checksum,
}

impl RowsWriter {
    /// Begins a new folder in that of a store.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(store: &Path, origin: Origin) -> Result<RowsWriter, FetchError> {
        std::fs::create_dir_all(store)?;
        let free = |number: &u32| {
            let name = format!("rows-{}-{number}", origin.index);
            !store.join(name).exists()
        };
        let number = (0..).find(free).unwrap_or_default();
        let folder = NewFolder {
            store: store.to_owned(),
            name: format!("rows-{}-{number}", origin.index),
            keep: false,
        };
        let db = RowsDb::open(&folder.path(), true).map_err(|it| match it {
            OpenFailure::Locked => FetchError::Disk("the folder is in use".to_owned()),
            OpenFailure::Corrupted(it) | OpenFailure::Other(it) => it.into(),
        })?;
        Ok(RowsWriter {
            folder,
            db,
            origin,
            checksum: Checksum::new(),
        })
    }

    /// Writes some.
    ///
    /// # Errors
    /// The disk refuses; the transfer is over.
    pub fn put(&mut self, rows: &[Row]) -> Result<(), FetchError> {
        self.checksum.add(rows);
        Ok(self.db.put_unsynced(rows)?)
    }

    /// Compares with what the sender says, and makes all durable, for the store with this
    /// identity.
    ///
    /// # Errors
    /// Rows are missing or damaged, or the disk refuses.
    pub fn finish(
        self,
        identity: &crate::Identity,
        expected: u64,
        checksum: &[u8],
    ) -> Result<FetchedRows, FetchError> {
        let (count, found) = self.checksum.finish();
        if count != expected || found != checksum {
            return Err(FetchError::Damaged { count, expected });
        }
        let record = RowsRecord::At {
            origin: self.origin.clone(),
            fetched: true,
        };
        let identity = crate::store::encode_identity(identity);
        self.db.seal(&identity, &record.encode())?;
        Ok(FetchedRows {
            folder: self.folder,
            db: self.db,
            origin: self.origin,
            prepared: None,
        })
    }
}

/// Whole and durable rows of another master, not in use yet. Dropped unused, they are removed.
#[derive(Debug)]
pub struct FetchedRows {
    folder: NewFolder,
    pub(crate) db: RowsDb,
    /// What they stand for.
    pub origin: Origin,
    /// What the owner has made of them already, for [`crate::Listener::on_restored`].
    pub prepared: Prepared,
}

/// See [`FetchedRows::prepared`].
pub type Prepared = Option<Box<dyn std::any::Any + Send>>;

impl FetchedRows {
    /// Every row, by key.
    ///
    /// # Errors
    /// Each item: the row cannot be read.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row, DiskFailure>> + use<'_> {
        self.db.rows()
    }

    // As a part of a store that is being made.
    pub(crate) fn adopt(mut self) -> String {
        self.folder.keep = true;
        self.folder.name.clone()
    }

    /// Puts them in place of the rows of the store that they lie in, which nobody uses: see
    /// [`crate::Store::salvage`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn replace(self) -> Result<(), FetchError> {
        Ok(self.swap_in().map(drop)?)
    }

    /// Makes them the rows of the store that they lie in.
    pub(crate) fn swap_in(mut self) -> std::io::Result<RowsDb> {
        point_at_rows(&self.folder.store, &self.folder.name)?;
        self.folder.keep = true;
        Ok(self.db.clone())
    }
}

/// A folder that vanishes unless it is kept.
#[derive(Debug)]
struct NewFolder {
    store: PathBuf,
    name: String,
    keep: bool,
}

impl NewFolder {
    fn path(&self) -> PathBuf {
        self.store.join(&self.name)
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.keep {
            // What stays is removed at the next start.
            let _ = std::fs::remove_dir_all(self.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;
    use bytes::Bytes;
    use tepui_replication_node::Members;

    fn origin() -> Origin {
        Origin {
            index: 7,
            term: 2,
            members: Members::voters([1, 2, 3]),
        }
    }

    fn rows() -> Vec<Row> {
        let row = |n: u32| {
            (
                Bytes::from(format!("key-{n:05}")),
                Bytes::from(vec![7; 100]),
            )
        };
        (0..5000).map(row).collect()
    }

    fn written(store: &Path, rows: &[Row]) -> RowsWriter {
        let mut writer = RowsWriter::begin(store, origin()).expect("begin");
        for group in rows.chunks(1000) {
            writer.put(group).expect("put");
        }
        writer
    }

    fn folders(store: &Path) -> usize {
        std::fs::read_dir(store).expect("folder").count()
    }

    #[test]
    fn rows_arrive_in_groups_and_whole() {
        let dir = tempfile::tempdir().expect("folder");
        let identity = Identity::first("store", "cluster");
        let all = rows();
        let mut sum = Checksum::new();
        sum.add(&all);
        let (count, sum) = sum.finish();
        let fetched = written(dir.path(), &all).finish(&identity, count, &sum);
        let fetched = fetched.expect("whole");

        // And go on from there, to the next master.
        let (sender, parts) = std::sync::mpsc::channel();
        let mut begun = false;
        let sink: RowsSink = Box::new(move |part| sender.send(part).is_ok());
        send_rows(&fetched.db, || begun = true, sink);
        assert!(begun);
        let mut parts = parts.into_iter();
        assert!(matches!(parts.next(), Some(RowsPart::Begin(it)) if it == origin()));
        let (mut groups, mut found, mut end) = (0, Vec::new(), None);
        for part in parts {
            match part {
                RowsPart::Rows(rows) => {
                    groups += 1;
                    found.extend(rows);
                }
                RowsPart::End { count, checksum } => end = Some((count, checksum)),
                other => panic!("{other:?}"),
            }
        }
        assert!(groups > 1, "one group holds everything");
        assert_eq!(found, all);
        assert_eq!(end, Some((count, sum)));
    }

    #[test]
    fn damaged_and_interrupted_rows_leave_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        let identity = Identity::first("store", "cluster");
        let all = rows();
        drop(written(dir.path(), &all));
        assert_eq!(folders(dir.path()), 0, "an interrupted transfer stays");
        let mut sum = Checksum::new();
        sum.add(&all);
        let (count, sum) = sum.finish();
        let short = written(dir.path(), &all[1..]);
        let error = short
            .finish(&identity, count, &sum)
            .expect_err("a row lacks");
        assert!(error.to_string().contains("4999 of 5000"), "{error}");
        let mut changed = all.clone();
        changed[17].1 = Bytes::from_static(b"another");
        let changed = written(dir.path(), &changed);
        assert!(changed.finish(&identity, count, &sum).is_err());
        assert_eq!(folders(dir.path()), 0);
        let whole = written(dir.path(), &all).finish(&identity, count, &sum);
        drop(whole.expect("whole"));
        assert_eq!(folders(dir.path()), 0, "unused rows stay");
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_transfer() {
        let dir = tempfile::tempdir().expect("folder");
        let all = rows();
        let writer = written(dir.path(), &all);
        let (sender, parts) = std::sync::mpsc::channel();
        let mut taken = 0;
        let sink: RowsSink = Box::new(move |part| {
            taken += 1;
            let _ = sender.send(part);
            taken < 2
        });
        let record = RowsRecord::At {
            origin: origin(),
            fetched: false,
        };
        writer.db.seal(b"identity", &record.encode()).expect("seal");
        send_rows(&writer.db, || {}, sink);
        assert_eq!(parts.into_iter().count(), 2);
    }
}
