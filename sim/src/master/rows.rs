//! Rows: written behind the log, and copied to a peer that lags behind it.
//!
//! A ticket alone travels as a message of the log. Who gets one asks for rows, stores them in
//! place of its own by one rename, and goes on behind them; until then it writes no log and
//! applies nothing.

use super::{Body, Event, Fatal, Process};
use crate::{
    clock::{MILLI, SECOND},
    core::{Core, Event as WorldEvent},
    disk::RowStore,
    network::Host,
    trace::note,
};
use bytes::Bytes;
use std::collections::VecDeque;
use tepui_replication_node::{Committed, NodeId, Origin, Ticket};
use tepui_state::ClusterState;

/// Rows that changed, encoded.
pub(super) type Changes = Vec<(Bytes, Option<Bytes>)>;

/// Rows on their way to a peer.
#[derive(Debug)]
pub struct Copied {
    from: usize,
    life: u64,
    rows: RowStore,
}

/// A master that waits for rows.
#[derive(Debug)]
pub(super) struct Install {
    pub(super) ticket: Ticket,
    reporter: Option<NodeId>,
    tries: usize,
    committed: VecDeque<Committed>,
    committed_to: u64,
}

impl Install {
    /// Committed behind the rows, and to be applied when they are there.
    pub(super) fn keep(&mut self, committed: Vec<Committed>, committed_to: Option<u64>) {
        self.committed.extend(committed);
        self.committed_to = self.committed_to.max(committed_to.unwrap_or(0));
    }
}

impl Process {
    /// Cuts the log behind what is flushed, and begins a flush when one is due.
    pub(super) fn write_behind(&mut self, body: &mut Body, core: &mut Core) {
        if self.installing.is_some() {
            return;
        }
        let limits = core.shape.limits;
        if self.raft.flushing.is_none()
            && let Some(to) = self.cut(body.rows.applied, limits.keep_log)
        {
            self.raft.node.compact(to);
        }
        let now = body.clock.now(core.now);
        if self.raft.flushing.is_none()
            && self.raft.applied > body.rows.applied
            && now >= self.raft.flush_at
        {
            self.raft.flush_at = now + core::time::Duration::from_nanos(limits.flush);
            self.flush(body, core);
        }
    }

    fn flush(&mut self, body: &mut Body, core: &mut Core) {
        let changes = self.committed.take_dirty().encode();
        let stamp = Origin {
            index: self.raft.applied,
            term: self.raft.node.committed().term,
            members: self.raft.node.members().clone(),
        };
        self.raft.flushing = Some((stamp, changes));
        let delay = body.sync(core) * 2;
        body.later(core, delay, Event::RowsWritten);
    }

    pub(super) fn rows_written(&mut self, body: &mut Body, core: &mut Core) -> Result<(), Fatal> {
        let Some((stamp, changes)) = self.raft.flushing.take() else {
            return Ok(());
        };
        if body.full {
            return Err(Fatal("no space left on the rows' disk".to_owned()));
        }
        body.rows.write(changes, stamp);
        core.checkers.durability.rows(body.id, body.rows.applied);
        self.drain_node(body, core)
    }

    // ------------------------------------------------------------ copies

    /// The node's log begins anew behind a ticket.
    pub(super) fn need_rows(&mut self, body: &mut Body, core: &mut Core, ticket: Ticket) {
        note!(
            core,
            body.host(),
            "needs rows as of entry {} and has {}",
            ticket.index,
            self.raft.applied
        );
        let reporter = self.raft.promised_by;
        match &mut self.installing {
            Some(install) => {
                install.ticket = ticket;
                install.reporter = reporter;
                install.committed.clear();
                install.committed_to = ticket.index;
            }
            None => {
                // A flush under way would write over what is to come.
                self.raft.flushing = None;
                self.installing = Some(Install {
                    ticket,
                    reporter,
                    tries: 0,
                    committed: VecDeque::new(),
                    committed_to: ticket.index,
                });
                self.ask_for_rows(body, core);
            }
        }
    }

    fn ask_for_rows(&mut self, body: &mut Body, core: &mut Core) {
        let Some(install) = &mut self.installing else {
            return;
        };
        let promised = install.reporter.and_then(|it| core.nodes.get(&it).copied());
        let masters = core.shape.masters;
        // Whoever promised them, then anybody.
        let from = (promised.unwrap_or(0) + install.tries / 3) % masters;
        install.tries += 1;
        let cut = from == body.number || core.net.is_cut(body.host(), Host::Master(from));
        if cut || core.is_dark(Host::Master(from)) {
            body.later(core, SECOND / 4, Event::RowsCome(None));
            return;
        }
        let event = Event::RowsAsked {
            by: body.number,
            life: body.life,
            ticket: install.ticket,
        };
        let (delay, life) = (core.net.delay(), core.life(from));
        core.after(delay, WorldEvent::Master(from, life, event));
        // Who asks a process that is gone waits for nothing.
        body.later(core, 2 * SECOND, Event::RowsCome(None));
    }

    /// A peer asks for rows: they are sent as they lie in the store, once they are new enough.
    pub(super) fn rows_asked(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        by: usize,
        life: u64,
        ticket: Ticket,
    ) {
        if self.installing.is_some() {
            return;
        }
        if body.rows.applied < ticket.index {
            if self.raft.applied >= ticket.index {
                if self.raft.flushing.is_none() {
                    self.flush(body, core);
                }
                let again = Event::RowsAsked { by, life, ticket };
                body.later(core, 20 * MILLI, again);
            }
            return;
        }
        let rows = RowStore {
            copied: true,
            ..body.rows.clone()
        };
        // A hundred megabytes a second, and time enough for something to go wrong.
        let bytes: usize = rows.rows.values().map(Bytes::len).sum();
        let delay = core.net.delay() * 4 + bytes as u64 * 10 + core.random.below(SECOND / 5);
        let copied = Copied {
            from: body.number,
            life: body.life,
            rows,
        };
        let event = Event::RowsCome(Some(Box::new(copied)));
        core.after(delay, WorldEvent::Master(by, life, event));
    }

    pub(super) fn rows_come(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        rows: Option<Box<Copied>>,
    ) -> Result<(), Fatal> {
        let Some(install) = &self.installing else {
            return Ok(());
        };
        let whole = rows.filter(|it| {
            let from = Host::Master(it.from);
            core.life(it.from) == it.life
                && !core.net.is_cut(from, body.host())
                && it.rows.applied >= install.ticket.index
        });
        let Some(copied) = whole else {
            self.ask_for_rows(body, core);
            return Ok(());
        };
        note!(
            core,
            body.host(),
            "takes over rows as of entry {}",
            copied.rows.applied
        );
        let Some(install) = self.installing.take() else {
            return Ok(());
        };
        body.rows = copied.rows;
        core.checkers.durability.rows(body.id, body.rows.applied);
        match ClusterState::load_supporting(body.supported, body.rows.rows.iter()) {
            Ok(state) => self.committed = state,
            Err(error) => core.violate("rows", format!("rows of a peer: {error}")),
        }
        self.raft.applied = body.rows.applied;
        core.checkers.history.start(body.number, body.rows.applied);
        for entry in install.committed {
            self.apply(body, core, entry)?;
        }
        self.raft.applied = self.raft.applied.max(install.committed_to);
        self.raft.node.advance_applied(install.committed_to);
        if let Some(reporter) = install.reporter {
            self.report_rows(body, core, reporter, true);
        }
        self.drain_node(body, core)?;
        self.write_log(body, core);
        Ok(())
    }
}
