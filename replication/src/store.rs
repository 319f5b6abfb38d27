//! What a process finds on its disk.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tepui_replication_node::{Members, Node, Stored};

use crate::{
    options::Options,
    rocks::{DiskFailure, LogDb, OpenFailure, RowsDb},
};

/// A key and a row's bytes.
pub type Row = (Bytes, Bytes);

/// Which store this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when the store is made: a master with a wiped disk is another one.
    pub store_id: String,
    /// Drawn when the cluster is founded.
    pub cluster_id: String,
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
    applied: u64,
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
        // Rows are made first: a log without rows has lost them, rows of nothing without a log
        // are a store whose making was interrupted.
        let rows = RowsDb::open(&dir.join("rows"), true).map_err(failed)?;
        let log = LogDb::open(&dir.join("log"), true).map_err(failed)?;
        let read = |it: DiskFailure| OpenError::Corrupted {
            dir: dir.clone(),
            source: it,
        };
        let inconsistent = |text: &str| OpenError::Inconsistent {
            dir: dir.clone(),
            text: text.to_owned(),
        };
        let applied = match rows.record().map_err(read)? {
            None => 0,
            Some(record) => {
                decode_record(&record).ok_or_else(|| inconsistent("its applied index is none"))?
            }
        };
        let rows_identity = rows.identity().map_err(read)?;
        let log_identity = log.identity().map_err(read)?;
        let fresh = rows_identity.is_none() && log_identity.is_none();
        let bytes = match (rows_identity, log_identity) {
            (Some(rows_identity), Some(log_identity)) if rows_identity == log_identity => {
                rows_identity
            }
            (Some(_), Some(_)) => {
                return Err(inconsistent("its folders log and rows are of two stores"));
            }
            (None, Some(_)) => return Err(inconsistent("its folder rows is missing or empty")),
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
            applied,
            fresh,
        })
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
        self.applied
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
            origin: None,
        };
        let founders = Members::voters(options.founders.iter().copied());
        let config = tepui_replication_node::Config {
            election_ticks: options.election_ticks,
            heartbeat_ticks: options.heartbeat_ticks,
            applied: self.applied,
            ..tepui_replication_node::Config::new(options.node_id, options.seed, founders)
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
            .field("applied", &self.applied)
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
pub(crate) fn encode_record(applied: u64) -> [u8; 8] {
    applied.to_be_bytes()
}

fn decode_record(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

// Two lines: ids have no line breaks, or they would not be read back the same.
fn encode_identity(identity: &Identity) -> Vec<u8> {
    format!("{}\n{}\n", identity.store_id, identity.cluster_id).into_bytes()
}

fn decode_identity(bytes: &[u8]) -> Option<Identity> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    let identity = Identity {
        store_id: lines.next()?.to_owned(),
        cluster_id: lines.next()?.to_owned(),
    };
    lines.next().is_none().then_some(identity)
}
