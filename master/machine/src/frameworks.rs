//! Subscriptions: which framework is connected how, and what is due for it. What is
//! known of a framework across terms is a row of the cluster state.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tepui_model::id::FrameworkId;
use tepui_model::offer::FrameworkFormat;
use tepui_model::time::Instant;

use crate::input::{ConnectionId, StreamRef, Transport};
use crate::reconcile::Reconciling;
use crate::timers::Timers;

/// One open subscription.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) connection: ConnectionId,
    pub(crate) stream_id: Arc<str>,
    pub(crate) transport: Transport,
    pub(crate) format: FrameworkFormat,
}

/// All open subscriptions and the clocks of frameworks.
#[derive(Debug)]
pub(crate) struct Frameworks {
    sessions: BTreeMap<FrameworkId, Session>,
    by_connection: BTreeMap<ConnectionId, FrameworkId>,
    // Of connected frameworks that asked.
    reconciling: BTreeMap<FrameworkId, Reconciling>,
    heartbeats: Timers<FrameworkId>,
    // Of disconnected frameworks: when `failover_timeout` is over.
    failovers: Timers<FrameworkId>,
}

impl Frameworks {
    pub(crate) fn new() -> Frameworks {
        Frameworks {
            sessions: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            reconciling: BTreeMap::new(),
            heartbeats: Timers::new(),
            failovers: Timers::new(),
        }
    }

    pub(crate) fn session(&self, framework_id: &FrameworkId) -> Option<&Session> {
        self.sessions.get(framework_id)
    }

    pub(crate) fn is_connected(&self, framework_id: &FrameworkId) -> bool {
        self.sessions.contains_key(framework_id)
    }

    pub(crate) fn of_connection(&self, connection: ConnectionId) -> Option<&FrameworkId> {
        self.by_connection.get(&connection)
    }

    /// Every connected framework, in order of its id.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &FrameworkId> {
        self.sessions.keys()
    }

    /// Opens a subscription and stops the failover clock; the one before, if any, is
    /// returned: its connection is to be closed.
    pub(crate) fn open(
        &mut self,
        framework_id: &FrameworkId,
        session: Session,
        now: Instant,
        heartbeat_interval: Duration,
    ) -> Option<Session> {
        self.failovers.clear(framework_id);
        self.heartbeats
            .set(framework_id.clone(), now + heartbeat_interval);
        self.by_connection
            .insert(session.connection, framework_id.clone());
        self.reconciling.remove(framework_id);
        let before = self.sessions.insert(framework_id.clone(), session);
        if let Some(before) = &before {
            self.by_connection.remove(&before.connection);
        }
        before
    }

    /// Changes what the framework understands (UPDATE_FRAMEWORK).
    pub(crate) fn set_format(&mut self, framework_id: &FrameworkId, format: FrameworkFormat) {
        if let Some(session) = self.sessions.get_mut(framework_id) {
            session.format = format;
        }
    }

    /// Closes the subscription.
    pub(crate) fn close(&mut self, framework_id: &FrameworkId) -> Option<Session> {
        let session = self.sessions.remove(framework_id)?;
        self.by_connection.remove(&session.connection);
        self.heartbeats.clear(framework_id);
        self.reconciling.remove(framework_id);
        Some(session)
    }

    /// What the subscription is still to be told because it asked; `None` when there is none.
    pub(crate) fn reconciling(&mut self, framework_id: &FrameworkId) -> Option<&mut Reconciling> {
        let connected = self.sessions.contains_key(framework_id);
        connected.then(|| self.reconciling.entry(framework_id.clone()).or_default())
    }

    /// Forgets the framework's clocks too.
    pub(crate) fn forget(&mut self, framework_id: &FrameworkId) {
        self.failovers.clear(framework_id);
        self.heartbeats.clear(framework_id);
    }

    pub(crate) fn set_failover(&mut self, framework_id: &FrameworkId, at: Instant) {
        self.failovers.set(framework_id.clone(), at);
    }

    /// Frameworks that may still come back.
    pub(crate) fn away(&self) -> impl Iterator<Item = &FrameworkId> {
        self.failovers.keys()
    }

    /// A framework whose failover time-out is over.
    pub(crate) fn pop_failover(&mut self, now: Instant) -> Option<FrameworkId> {
        self.failovers.pop_due(now)
    }

    /// A framework whose HEARTBEAT is due; the next one is set.
    pub(crate) fn pop_heartbeat(
        &mut self,
        now: Instant,
        interval: Duration,
    ) -> Option<FrameworkId> {
        let framework_id = self.heartbeats.pop_due(now)?;
        // Counted from now: after a stall one heartbeat is enough.
        self.heartbeats.set(framework_id.clone(), now + interval);
        Some(framework_id)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.heartbeats.next(), self.failovers.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Section 2.1 item 9, the last three checks: does the call ride on the current
    /// subscription?
    pub(crate) fn check_stream(&self, session: &Session, stream: &StreamRef) -> Result<(), String> {
        match stream {
            StreamRef::Header(None) => Err(
                "'Mesos-Stream-Id' header is missing: send the one that came with the answer to SUBSCRIBE"
                    .to_owned(),
            ),
            StreamRef::Header(Some(id)) if *id != session.stream_id => Err(format!(
                "'Mesos-Stream-Id' '{id}' is not that of the framework's current subscription"
            )),
            StreamRef::Connection(connection) if *connection != session.connection => {
                Err("the framework subscribed again on another stream".to_owned())
            }
            StreamRef::Header(Some(_)) | StreamRef::Connection(_) => Ok(()),
        }
    }

    pub(crate) fn check_invariants(&self) {
        self.heartbeats.check_invariants();
        self.failovers.check_invariants();
        assert_eq!(
            self.sessions.len(),
            self.by_connection.len(),
            "frameworks: indexes differ"
        );
        for framework_id in self.reconciling.keys() {
            assert!(
                self.is_connected(framework_id),
                "{framework_id} asked and is gone"
            );
        }
        for (framework_id, session) in &self.sessions {
            assert_eq!(
                self.by_connection.get(&session.connection),
                Some(framework_id)
            );
            assert!(
                self.heartbeats.get(framework_id).is_some(),
                "{framework_id} has no heartbeat"
            );
            assert!(
                self.failovers.get(framework_id).is_none(),
                "{framework_id} is connected and about to be removed"
            );
        }
        let timed: BTreeSet<_> = self.sessions.keys().collect();
        assert_eq!(timed.len(), self.sessions.len());
    }
}
