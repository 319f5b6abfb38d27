//! Rows: written behind the log, and copied to a peer that lags behind it.
//!
//! A ticket alone travels as a message of the log. Who gets one fetches rows first, and goes on as
//! before meanwhile; then the node hears of the ticket, and if it says so they take the place of
//! the rows that were there, before the log that begins behind them is written.

use super::{Body, Event, Fatal, Process};
use crate::{
    clock::{MILLI, SECOND},
    core::{Core, Event as WorldEvent},
    disk::RowStore,
    network::Host,
    trace::note,
};
use bytes::Bytes;
use tepui_replication_node::{NodeId, Origin, StepError, Ticket};
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

/// A ticket whose rows are fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    ticket: Ticket,
    message: Bytes,
    from: NodeId,
    tries: usize,
    /// Who was asked last, in which life and until when its answer is waited for.
    asked: Option<(usize, u64, u64)>,
}

/// A peer that was promised rows, as its sender knows it.
#[derive(Debug)]
pub(super) struct Promise {
    life: u64,
    /// It has asked for them: what was sent breaks off when it ends.
    asked: bool,
}

/// A ticket that nobody has asked rows for by then was lost.
const TICKET_PATIENCE: u64 = 2 * SECOND;

/// Tries until the sender of a ticket is told that nothing came of it.
const TRIES: usize = 8;

impl Process {
    /// Cuts the log behind what is flushed, and begins a flush when one is due.
    pub(super) fn write_behind(&mut self, body: &mut Body, core: &mut Core) {
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

    /// Everything that is committed, as a backup has it.
    pub(crate) fn back_up(&self) -> RowStore {
        RowStore {
            rows: self.committed.rows().collect(),
            applied: self.raft.applied,
            stamp: Some(Origin {
                index: self.raft.applied,
                term: self.raft.node.committed().term,
                members: self.raft.node.members().clone(),
            }),
            copied: true,
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

    /// A ticket was sent.
    pub(super) fn promised(&mut self, body: &Body, core: &mut Core, to: NodeId) {
        let host = core.nodes.get(&to).copied();
        let life = host.map_or(0, |it| core.life(it));
        let asked = false;
        self.promises.insert(to, Promise { life, asked });
        body.later(core, TICKET_PATIENCE, Event::Doubt(to));
    }

    /// Looks whether a peer may still get what it was promised, and tells the node when not.
    pub(super) fn doubt(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        peer: NodeId,
    ) -> Result<(), Fatal> {
        let Some(promise) = self.promises.get(&peer) else {
            return Ok(());
        };
        let host = core.nodes.get(&peer).copied();
        let lives = host.is_some_and(|it| core.life(it) == promise.life);
        if promise.asked && lives {
            body.later(core, TICKET_PATIENCE, Event::Doubt(peer));
            return Ok(());
        }
        self.promises.remove(&peer);
        self.raft.node.report_rows(peer, false);
        self.drain_node(body, core)
    }

    /// A ticket has come: its rows first.
    pub(super) fn fetch(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        from: NodeId,
        message: Bytes,
        ticket: Ticket,
    ) {
        note!(
            core,
            body.host(),
            "is to have rows as of entry {} and has {}",
            ticket.index,
            self.raft.applied
        );
        self.fetch = Some(Fetch {
            ticket,
            message,
            from,
            tries: 0,
            asked: None,
        });
        self.ask_for_rows(body, core);
    }

    fn ask_for_rows(&mut self, body: &mut Body, core: &mut Core) {
        let Some(fetch) = &mut self.fetch else {
            return;
        };
        fetch.tries += 1;
        let (from, ticket) = (fetch.from, fetch.ticket);
        let source = core.nodes.get(&from).copied();
        // Another member at its address says so at once.
        let is_there = |it: &usize| {
            let ids = core.nodes.iter().filter(|(_, host)| *host == it);
            ids.map(|(id, _)| *id).max() == Some(from)
        };
        let source = source.filter(is_there);
        let source = source.filter(|it| *it != body.number && fetch.tries <= TRIES);
        let Some(source) = source else {
            self.fetch = None;
            self.report_rows(body, core, from, false);
            return;
        };
        let host = Host::Master(source);
        if core.net.is_cut(body.host(), host) || core.is_dark(host) {
            body.later(core, SECOND / 4, Event::RowsCome(None));
            return;
        }
        let event = Event::RowsAsked {
            by: body.number,
            life: body.life,
            ticket,
        };
        let (delay, life) = (core.net.delay(), core.life(source));
        core.after(delay, WorldEvent::Master(source, life, event));
        fetch.asked = Some((source, life, core.now + 2 * SECOND));
        body.later(core, SECOND / 4, Event::RowsCome(None));
    }

    /// Whether rows may still come: the connection breaks with the process at its other end, unless
    /// that went with its machine.
    fn may_come(&self, core: &Core) -> bool {
        let asked = self.fetch.as_ref().and_then(|it| it.asked);
        asked.is_some_and(|(source, life, until)| {
            let lives = core.life(source) == life || core.is_dark(Host::Master(source));
            lives && core.now < until
        })
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
        let node = core.nodes.iter().find(|(_, it)| **it == by);
        if let Some(promise) = node.and_then(|(id, _)| self.promises.get_mut(id)) {
            promise.asked = true;
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
        if rows.is_none() && self.may_come(core) {
            body.later(core, SECOND / 4, Event::RowsCome(None));
            return Ok(());
        }
        let Some(fetch) = &self.fetch else {
            return Ok(());
        };
        let whole = rows.filter(|it| {
            let from = Host::Master(it.from);
            core.life(it.from) == it.life
                && !core.net.is_cut(from, body.host())
                && it.rows.applied >= fetch.ticket.index
        });
        let (Some(copied), false) = (whole, body.full) else {
            self.ask_for_rows(body, core);
            return Ok(());
        };
        let Some(fetch) = self.fetch.take() else {
            return Ok(());
        };
        let Some(origin) = copied.rows.stamp.clone() else {
            return Ok(());
        };
        self.fetched = Some(copied.rows);
        match self.raft.node.step_with_rows(fetch.message, &origin) {
            Ok(()) | Err(StepError::Stranger { .. } | StepError::NotForMe { .. }) => {}
            Err(error) => core.violate("raft", format!("a ticket: {error}")),
        }
        self.drain_node(body, core)?;
        if self.fetched.take().is_some() {
            note!(core, body.host(), "does not need the rows");
        }
        self.report_rows(body, core, fetch.from, true);
        Ok(())
    }

    /// The rows that were fetched take the place of those that are there.
    pub(super) fn restore(&mut self, body: &mut Body, core: &mut Core) {
        let Some(rows) = self.fetched.take() else {
            core.violate("raft", "a log begins anew without its rows".to_owned());
            return;
        };
        note!(
            core,
            body.host(),
            "takes over rows as of entry {}",
            rows.applied
        );
        // A flush under way would write over them.
        self.raft.flushing = None;
        body.rows = rows;
        core.checkers.durability.rows(body.id, body.rows.applied);
        match ClusterState::load_supporting(body.supported, body.rows.rows.iter()) {
            Ok(state) => self.committed = state,
            Err(error) => core.violate("rows", format!("rows of a peer: {error}")),
        }
        self.raft.applied = body.rows.applied;
        core.checkers.history.start(body.number, body.rows.applied);
    }
}
