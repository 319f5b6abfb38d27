//! Settings of a replica.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tepui_replication_node::NodeId;

use crate::{fatal::Fatal, store::Identity};

/// What a replica is opened and started with.
#[derive(Clone)]
pub struct Options {
    /// Folder of the store; made when missing.
    pub dir: PathBuf,
    /// Voters of a new cluster, this one included. What is stored wins.
    pub founders: Vec<NodeId>,
    /// Ids for a new store, drawn by the caller. What is stored wins.
    pub identity: Identity,
    /// When given, a store of another cluster is refused.
    pub expected_cluster: Option<String>,
    /// Election time-outs are drawn from this.
    pub seed: u64,
    /// Length of a tick.
    pub tick: Duration,
    /// Ticks without a leader before an election, at least; at most twice as many.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Rows are written behind at least this often while entries are committed.
    pub flush_interval: Duration,
    /// ... or when this many bytes of entries have been committed since.
    pub flush_bytes: u64,
    /// Bytes of entries kept in the log behind the rows, for peers that lag.
    pub keep_log_bytes: u64,
    /// Bytes proposed and not yet committed; beyond, proposals are refused as [`crate::Full`].
    pub max_bytes_in_flight: usize,
    /// Called once, on the thread that failed, when the process must end; the default writes the
    /// error to the log and aborts. When it returns, the replica is dead.
    pub on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
}

impl Options {
    /// The settings of a cluster with one master; elections after 150 to 300 ms.
    pub fn new(dir: impl Into<PathBuf>, identity: Identity) -> Options {
        Options {
            dir: dir.into(),
            founders: vec![1],
            identity,
            expected_cluster: None,
            seed: 0,
            tick: Duration::from_millis(10),
            election_ticks: 15,
            heartbeat_ticks: 3,
            flush_interval: Duration::from_secs(1),
            flush_bytes: 64 << 20,
            keep_log_bytes: 16 << 20,
            max_bytes_in_flight: 64 << 20,
            on_fatal: Arc::new(crate::fatal::abort),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("node_id", &self.identity.node_id)
            .field("founders", &self.founders)
            .finish_non_exhaustive()
    }
}
