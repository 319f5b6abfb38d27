//! Who leads, as this master knows it: what followers tell clients, agents and ZooKeeper.
//!
//! One [`Board`] is written by the replica and by the peers' links; everybody else holds a
//! `watch::Receiver` of [`Leadership`].

use std::sync::Arc;
use tokio::sync::watch;

/// Who leads, as this master knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// The newest Raft term seen.
    pub(crate) term: u64,
    /// This master leads (its machine may not be born yet).
    pub(crate) here: bool,
    /// Client address (host:port of the 5050 port) of the leader, when known; also when `here`.
    pub(crate) leader: Option<String>,
    /// Client addresses of every member, this one included, in order of member id.
    pub(crate) masters: Vec<String>,
}

impl Leadership {
    /// The leader, when it is another master.
    pub(crate) fn elsewhere(&self) -> Option<&str> {
        self.leader.as_deref().filter(|_| !self.here)
    }
}

/// Where it is written.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<watch::Sender<Leadership>>);

impl Board {
    /// Nobody leads yet.
    pub(crate) fn new() -> Board {
        Board(Arc::new(watch::Sender::new(Leadership::default())))
    }

    /// For a reader.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Leadership> {
        self.0.subscribe()
    }

    /// Changes it; readers wake only when something did change.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Leadership)) {
        self.0.send_if_modified(|now| {
            let before = now.clone();
            change(now);
            *now != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_wake_only_for_changes() {
        let board = Board::new();
        let mut reader = board.subscribe();
        board.update(|it| it.term = 0);
        assert!(!reader.has_changed().unwrap());
        board.update(|it| it.here = true);
        assert!(reader.has_changed().unwrap());
        assert!(reader.borrow_and_update().here);
    }
}
