//! What a process finds on its disk.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tepui_replication_node::{Batch, Members, Node, NodeId, Origin, Stored};

use crate::{
    options::Options,
    rocks::{DiskFailure, LogDb, OpenFailure, RowsDb},
    transfer::FetchedRows,
};

/// Bytes of entries in one message to a peer: what a link sends before a heartbeat gets its turn.
const MAX_MESSAGE_BYTES: u64 = 512 << 10;
/// Messages with entries on their way to one peer: 32 MiB with the above, which fill a fast
/// network and do not fill the memory for a slow peer.
const MAX_INFLIGHT_MESSAGES: usize = 64;

/// A key and a row's bytes.
pub type Row = (Bytes, Bytes);

/// Which store this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when the store is made: a master with a wiped disk is another one.
    pub store_id: String,
    /// Drawn when the cluster is founded.
    pub cluster_id: String,
    /// Which member this is; not 0.
    pub node_id: NodeId,
    /// 1, and one more whenever the cluster is restored from a backup or recovered without its
    /// quorum: members of different incarnations do not speak to each other.
    pub incarnation: u64,
}

impl Identity {
    /// Of the first member of a new cluster.
    pub fn first(store_id: impl Into<String>, cluster_id: impl Into<String>) -> Identity {
        Identity {
            store_id: store_id.into(),
            cluster_id: cluster_id.into(),
            node_id: 1,
            incarnation: 1,
        }
    }
}

/// What is left of a store without its rows.
#[derive(Clone, Debug)]
pub struct Salvage {
    /// Which store it is.
    pub identity: Identity,
    /// The members, as of the last entry that was applied.
    pub members: Members,
    /// Last entry that is not in the log any more: rows from before do not go with it.
    pub cut_index: u64,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error(
        "store {} is in use by another process; end that one, or name another --work_dir",
        dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// RocksDB finds damage.
    #[error(
        "store {} is damaged: {source}. Restore it from a backup, or, when other masters hold \
         the data, move the folder away and let this master join anew",
        dir.display()
    )]
    Corrupted {
        /// The folder.
        dir: PathBuf,
        /// What RocksDB said.
        #[source]
        source: DiskFailure,
    },
    /// Its rows can be read and make no state, or only a part of them can be read.
    #[error(
        "the rows of store {} are damaged: {text}. Restore it from a backup, or, when other \
         masters hold the data, move the folder away and let this master join anew",
        dir.display()
    )]
    RowsDamaged {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// Its log is there and its rows are not.
    #[error("store {} cannot be used: its folder rows is missing or empty", dir.display())]
    RowsMissing {
        /// The folder.
        dir: PathBuf,
    },
    /// Its parts do not belong together, or contradict each other.
    #[error("store {} cannot be used: {text}", dir.display())]
    Inconsistent {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// It holds another cluster.
    #[error(
        "store {} belongs to cluster {found}, not to cluster {expected}; name the store of \
         this cluster, or another --work_dir for a new one",
        dir.display()
    )]
    OtherCluster {
        /// The folder.
        dir: PathBuf,
        /// The cluster of the store.
        found: String,
        /// The cluster asked for.
        expected: String,
    },
    /// The folder cannot be made, or a file cannot be read or written.
    #[error("store {} cannot be opened: {text}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        text: String,
    },
}

/// An opened store. Nobody else can open it until this and the replica made of it are gone.
pub struct Store {
    pub(crate) log: LogDb,
    pub(crate) rows: RowsDb,
    pub(crate) dir: PathBuf,
    identity: Identity,
    record: Option<RowsRecord>,
    fresh: bool,
}

impl Store {
    /// Opens the store in `options.dir`, or makes a new one there.
    ///
    /// # Errors
    /// It is in use, damaged, incomplete, or another cluster's; see [`OpenError`].
    pub fn open(options: &Options) -> Result<Store, OpenError> {
        let dir = options.dir.clone();
        let io = |text: String| {
            let dir = dir.clone();
            OpenError::Io { dir, text }
        };
        std::fs::create_dir_all(&dir).map_err(|it| io(it.to_string()))?;
        let failed = |failure: OpenFailure| {
            let dir = dir.clone();
            match failure {
                OpenFailure::Locked => OpenError::Locked { dir },
                OpenFailure::Corrupted(source) => OpenError::Corrupted { dir, source },
                OpenFailure::Other(source) => OpenError::Io {
                    dir,
                    text: source.to_string(),
                },
            }
        };
        let rows_folder = current_rows(&dir).map_err(|it| io(it.to_string()))?;
        // Rows are made first: a log without rows has lost them, rows of nothing without a log
        // are a store whose making was interrupted.
        let rows = RowsDb::open(&dir.join(&rows_folder), true).map_err(failed)?;
        let log = LogDb::open(&dir.join("log"), true).map_err(failed)?;
        // Blocks are checked when they are read: now, while nothing rests on them, and not when a
        // peer asks for old entries. The log is cut, so this is quick.
        log.verify().map_err(|source| OpenError::Corrupted {
            dir: dir.clone(),
            source,
        })?;
        // What interrupted transfers left, and what finished ones replaced.
        remove_other_rows(&dir, &rows_folder).map_err(|it| io(it.to_string()))?;
        let read = |it: DiskFailure| OpenError::Corrupted {
            dir: dir.clone(),
            source: it,
        };
        let inconsistent = |text: &str| OpenError::Inconsistent {
            dir: dir.clone(),
            text: text.to_owned(),
        };
        let record = match rows.record().map_err(read)? {
            None => None,
            Some(record) => {
                let record = RowsRecord::decode(&record);
                Some(record.ok_or_else(|| inconsistent("its applied index is none"))?)
            }
        };
        let applied = record.as_ref().map_or(0, RowsRecord::applied);
        let rows_identity = rows.identity().map_err(read)?;
        let log_identity = log.identity().map_err(read)?;
        let fresh = rows_identity.is_none() && log_identity.is_none();
        let bytes = match (rows_identity, log_identity) {
            (Some(rows_identity), Some(log_identity)) if rows_identity == log_identity => {
                rows_identity
            }
            (Some(rows_identity), Some(log_identity)) if seized(&rows_identity, &log_identity) => {
                let put = rows.put_identity(&log_identity);
                put.map_err(|it| io(it.to_string()))?;
                log_identity
            }
            (Some(_), Some(_)) => {
                return Err(inconsistent("its folders log and rows are of two stores"));
            }
            (None, Some(_)) => return Err(OpenError::RowsMissing { dir }),
            (Some(_), None) if applied > 0 => {
                return Err(inconsistent("its folder log is missing or empty"));
            }
            (Some(bytes), None) => {
                log.put_identity(&bytes).map_err(|it| io(it.to_string()))?;
                bytes
            }
            (None, None) => {
                let bytes = encode_identity(&options.identity);
                rows.put_identity(&bytes).map_err(|it| io(it.to_string()))?;
                log.put_identity(&bytes).map_err(|it| io(it.to_string()))?;
                sync_folders(&dir).map_err(|it| io(it.to_string()))?;
                bytes
            }
        };
        let identity =
            decode_identity(&bytes).ok_or_else(|| inconsistent("its identity is none"))?;
        if let Some(expected) = &options.expected_cluster
            && *expected != identity.cluster_id
        {
            return Err(OpenError::OtherCluster {
                dir,
                found: identity.cluster_id,
                expected: expected.clone(),
            });
        }
        Ok(Store {
            log,
            rows,
            dir,
            identity,
            record,
            fresh,
        })
    }

    /// Whether there is a store in the folder.
    pub fn exists(dir: &Path) -> bool {
        dir.join("log").exists() || dir.join("rows").exists()
    }

    /// Makes the store of a member that knows its group before it has heard of it: a founder, or,
    /// with `rows` that it has fetched into the folder of [`Store::nursery`], one who joins. The
    /// whole of it is there or nothing.
    ///
    /// # Errors
    /// There is a store already, or the disk refuses.
    pub fn create(
        dir: &Path,
        identity: &Identity,
        members: &Members,
        rows: Option<FetchedRows>,
    ) -> Result<(), OpenError> {
        let io = |text: String| OpenError::Io {
            dir: dir.to_owned(),
            text,
        };
        if Store::exists(dir) {
            return Err(io("there is a store already".to_owned()));
        }
        let nursery = Store::nursery(dir);
        if rows.is_none() && nursery.exists() {
            std::fs::remove_dir_all(&nursery).map_err(|it| io(it.to_string()))?;
        }
        std::fs::create_dir_all(&nursery).map_err(|it| io(it.to_string()))?;
        let refused = |it: OpenFailure| match it {
            OpenFailure::Locked => io("it is in use".to_owned()),
            OpenFailure::Corrupted(it) | OpenFailure::Other(it) => io(it.to_string()),
        };
        let bytes = encode_identity(identity);
        match rows {
            Some(rows) => {
                let folder = rows.adopt();
                point_at_rows(&nursery, &folder).map_err(|it| io(it.to_string()))?;
            }
            None => {
                let rows = RowsDb::open(&nursery.join("rows"), true).map_err(refused)?;
                rows.put_identity(&bytes).map_err(|it| io(it.to_string()))?;
            }
        }
        let log = LogDb::open(&nursery.join("log"), true).map_err(refused)?;
        log.put_identity(&bytes).map_err(|it| io(it.to_string()))?;
        let batch = Batch {
            state: Some(tepui_replication_node::first_state(members)),
            must_sync: true,
            ..Batch::default()
        };
        log.write([&batch]).map_err(|it| io(it.to_string()))?;
        drop(log);
        sync_folders(&nursery).map_err(|it| io(it.to_string()))?;
        // An empty folder may be in the way, and is no store.
        match std::fs::remove_dir(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io(error.to_string()));
            }
            _ => {}
        }
        std::fs::rename(&nursery, dir).map_err(|it| io(it.to_string()))?;
        sync_folders(dir).map_err(|it| io(it.to_string()))
    }

    /// Where the store of `dir` grows before it is whole.
    pub fn nursery(dir: &Path) -> PathBuf {
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        dir.with_file_name(name)
    }

    /// What a store whose rows are damaged or missing still says, as long as its log is whole: with
    /// rows of another master ([`FetchedRows::replace`]) it is as good as before, and it has
    /// forgotten neither votes nor entries.
    ///
    /// # Errors
    /// The log is damaged too, in use, or of nothing.
    pub fn salvage(dir: &Path) -> Result<Salvage, OpenError> {
        let inconsistent = |text: String| OpenError::Inconsistent {
            dir: dir.to_owned(),
            text,
        };
        let log = LogDb::open(&dir.join("log"), false).map_err(|it| match it {
            OpenFailure::Locked => OpenError::Locked {
                dir: dir.to_owned(),
            },
            OpenFailure::Corrupted(source) | OpenFailure::Other(source) => OpenError::Corrupted {
                dir: dir.to_owned(),
                source,
            },
        })?;
        let read = |it: DiskFailure| inconsistent(it.to_string());
        let identity = log.identity().map_err(read)?;
        let identity = identity.and_then(|it| decode_identity(&it));
        let state = log.state().map_err(read)?;
        let (Some(identity), Some(state)) = (identity, state) else {
            return Err(inconsistent("its log is of nothing".to_owned()));
        };
        // Every entry must be readable: the log is what the rest rests on.
        log.verify().map_err(read)?;
        let members = tepui_replication_node::members_of_state(&state)
            .map_err(|it| inconsistent(it.to_string()))?;
        let cut_index = tepui_replication_node::cut_of_state(&state)
            .map_err(|it| inconsistent(it.to_string()))?;
        Ok(Salvage {
            identity,
            members,
            cut_index,
        })
    }

    /// Makes this member the only voter, of an `incarnation` larger than its own: the way back for a cluster that
    /// has lost its quorum for good. The log stays whole, committed or not: what is uncertain is
    /// kept. `note` is what the members will know of this one.
    ///
    /// # Errors
    /// The record of the log is damaged, or the disk refuses.
    pub fn seize(&mut self, note: Bytes, incarnation: u64) -> Result<(), OpenError> {
        let io = |text: String| OpenError::Io {
            dir: self.dir.clone(),
            text,
        };
        let text = |it: DiskFailure| io(it.to_string());
        let state = self.log.state().map_err(text)?;
        let state = state.ok_or_else(|| io("it has no members".to_owned()))?;
        let last_index = self.log.last_index().map_err(text)?;
        let id = self.identity.node_id;
        let state = tepui_replication_node::seize_state(&state, id, note, last_index)
            .map_err(|it| io(it.to_string()))?;
        let identity = Identity {
            incarnation,
            ..self.identity.clone()
        };
        let bytes = encode_identity(&identity);
        self.log.put_identity(&bytes).map_err(text)?;
        self.rows.put_identity(&bytes).map_err(text)?;
        // Last: interrupted before, the old members are there and refuse the new incarnation.
        let batch = Batch {
            state: Some(state),
            must_sync: true,
            ..Batch::default()
        };
        self.log.write([&batch]).map_err(text)?;
        self.identity = identity;
        Ok(())
    }

    /// The ids it was made with.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether this process made it.
    pub fn is_new(&self) -> bool {
        self.fresh
    }

    /// The entry as of which the rows are; later ones come as committed.
    pub fn applied(&self) -> u64 {
        self.record.as_ref().map_or(0, RowsRecord::applied)
    }

    /// The members that the log's record names; `None` before there is one.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn members(&self) -> Result<Option<Members>, OpenError> {
        let refused = |text: String| OpenError::Inconsistent {
            dir: self.dir.clone(),
            text,
        };
        let state = self.log.state().map_err(|it| refused(it.to_string()))?;
        state
            .map(|it| tepui_replication_node::members_of_state(&it))
            .transpose()
            .map_err(|it| refused(it.to_string()))
    }

    /// Every row, by key.
    ///
    /// # Errors
    /// Each item: the row cannot be read.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row, DiskFailure>> + use<'_> {
        self.rows.rows()
    }

    /// Starts the node over the log.
    pub(crate) fn node(&self, options: &Options) -> Result<Node<LogDb>, OpenError> {
        let dir = || self.dir.clone();
        let read = |source| OpenError::Corrupted { dir: dir(), source };
        let stored = Stored {
            state: self.log.state().map_err(read)?,
            last_index: self.log.last_index().map_err(read)?,
            origin: match &self.record {
                Some(RowsRecord::At {
                    origin,
                    fetched: true,
                }) => Some(origin.clone()),
                _ => None,
            },
        };
        let founders = Members::voters(options.founders.iter().copied());
        let config = tepui_replication_node::Config {
            election_ticks: options.election_ticks,
            heartbeat_ticks: options.heartbeat_ticks,
            applied: self.applied(),
            rows_first: true,
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_inflight_messages: MAX_INFLIGHT_MESSAGES,
            ..tepui_replication_node::Config::new(self.identity.node_id, options.seed, founders)
        };
        Node::new(config, self.log.clone(), stored).map_err(|it| OpenError::Inconsistent {
            dir: dir(),
            text: it.to_string(),
        })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.dir)
            .field("identity", &self.identity)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

// New folders are durable once those that name them are.
fn sync_folders(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// The record beside the rows: the entry as of which they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowsRecord {
    /// Of a release that wrote nothing else.
    Index(u64),
    /// With what a log that begins behind them needs.
    At {
        origin: Origin,
        // They came from another master, and nothing later is stored.
        fetched: bool,
    },
}

impl RowsRecord {
    pub(crate) fn applied(&self) -> u64 {
        match self {
            RowsRecord::Index(index) => *index,
            RowsRecord::At { origin, .. } => origin.index,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            RowsRecord::Index(index) => index.to_be_bytes().to_vec(),
            RowsRecord::At { origin, fetched } => {
                // No index begins with this byte.
                let mut bytes = vec![0xa0 | u8::from(*fetched)];
                bytes.extend_from_slice(&origin.encode());
                bytes
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<RowsRecord> {
        match bytes.split_first()? {
            (&tag @ (0xa0 | 0xa1), rest) => Some(RowsRecord::At {
                origin: Origin::decode(rest).ok()?,
                fetched: tag == 0xa1,
            }),
            _ => Some(RowsRecord::Index(u64::from_be_bytes(
                bytes.try_into().ok()?,
            ))),
        }
    }
}

// Names the folder of the rows; without it they are in `rows`.
const CURRENT: &str = "ROWS";

fn current_rows(dir: &Path) -> std::io::Result<String> {
    match std::fs::read_to_string(dir.join(CURRENT)) {
        Ok(name) => Ok(name.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok("rows".to_owned()),
        Err(error) => Err(error),
    }
}

/// From here on the rows are those in `folder`: one rename, durable when this returns.
pub(crate) fn point_at_rows(dir: &Path, folder: &str) -> std::io::Result<()> {
    use std::io::Write;
    let new = dir.join("ROWS.new");
    let mut file = std::fs::File::create(&new)?;
    writeln!(file, "{folder}")?;
    file.sync_all()?;
    std::fs::rename(&new, dir.join(CURRENT))?;
    std::fs::File::open(dir)?.sync_all()
}

fn remove_other_rows(dir: &Path, current: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != current && (name == "rows" || name.starts_with("rows-")) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

// A line each: ids have no line breaks, or they would not be read back the same. The last two
// are missing in stores of the first release, which had one member.
pub(crate) fn encode_identity(identity: &Identity) -> Vec<u8> {
    let Identity {
        store_id,
        cluster_id,
        node_id,
        incarnation,
    } = identity;
    format!("{store_id}\n{cluster_id}\n{node_id}\n{incarnation}\n").into_bytes()
}

fn decode_identity(bytes: &[u8]) -> Option<Identity> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    let mut identity = Identity::first(lines.next()?, lines.next()?);
    if let Some(node_id) = lines.next() {
        identity.node_id = node_id.parse().ok().filter(|it| *it != 0)?;
        identity.incarnation = lines.next()?.parse().ok()?;
    }
    lines.next().is_none().then_some(identity)
}

// Whether the log has got its next incarnation and the rows have not.
fn seized(rows: &[u8], log: &[u8]) -> bool {
    match (decode_identity(rows), decode_identity(log)) {
        (Some(rows), Some(log)) => {
            rows.incarnation < log.incarnation && {
                let incarnation = log.incarnation;
                Identity {
                    incarnation,
                    ..rows
                } == log
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_both_forms_are_read() {
        let old = RowsRecord::Index(77);
        assert_eq!(RowsRecord::decode(&old.encode()), Some(old));
        for fetched in [false, true] {
            let origin = Origin {
                index: 5,
                term: 2,
                members: Members::voters([1, 2]),
            };
            let new = RowsRecord::At { origin, fetched };
            assert_eq!(RowsRecord::decode(&new.encode()), Some(new));
        }
        assert_eq!(RowsRecord::decode(b""), None);
        assert_eq!(RowsRecord::decode(b"short"), None);
    }

    #[test]
    fn identities_of_both_forms_are_read() {
        let old = decode_identity(b"store\ncluster\n");
        assert_eq!(old, Some(Identity::first("store", "cluster")));
        let new = Identity {
            node_id: 4,
            incarnation: 2,
            ..Identity::first("store", "cluster")
        };
        assert_eq!(decode_identity(&encode_identity(&new)), Some(new));
        for damaged in ["store\n", "a\nb\n0\n1\n", "a\nb\n1\n", "a\nb\n1\n1\nc\n"] {
            assert_eq!(decode_identity(damaged.as_bytes()), None, "{damaged:?}");
        }
    }

    #[test]
    fn what_is_not_current_is_removed() {
        let dir = tempfile::tempdir().expect("folder");
        for name in ["rows", "rows-5", "rows-7", "log"] {
            std::fs::create_dir(dir.path().join(name)).expect("make");
        }
        point_at_rows(dir.path(), "rows-7").expect("point");
        let current = current_rows(dir.path()).expect("read");
        assert_eq!(current, "rows-7");
        remove_other_rows(dir.path(), &current).expect("remove");
        let left = |name: &str| dir.path().join(name).exists();
        assert!(left("log") && left("rows-7") && !left("rows") && !left("rows-5"));
    }
}
