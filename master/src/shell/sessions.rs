//! Which queue a call waits in: that of its subscription, whatever connection it came on.
//!
//! So a scheduler that sends calls on many connections at once delays itself alone, and
//! is itself what is closed when one of its calls makes the machine panic. Calls that name
//! no open subscription share one queue: the machine will refuse them.

use crate::shell::{core::ReplicaEvent, intake::Producer};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Producers by `Mesos-Stream-Id`.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<Arc<str>, Arc<Producer<ReplicaEvent>>>>,
    strangers: Arc<Producer<ReplicaEvent>>,
}

impl Sessions {
    /// Nobody is subscribed. `strangers` is the queue of those who never were.
    pub(crate) fn new(strangers: Producer<ReplicaEvent>) -> Sessions {
        Sessions {
            open: Mutex::default(),
            strangers: Arc::new(strangers),
        }
    }

    /// Whole entries only are in the map, so a panic elsewhere leaves it intact.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Producer<ReplicaEvent>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subscription begins.
    pub(crate) fn open(&self, stream_id: Arc<str>, producer: Arc<Producer<ReplicaEvent>>) {
        self.lock().insert(stream_id, producer);
    }

    /// A subscription ended.
    pub(crate) fn close(&self, stream_id: &str) {
        self.lock().remove(stream_id);
    }

    /// The queue for a call that names this subscription.
    pub(crate) fn of(&self, stream_id: Option<&str>) -> Arc<Producer<ReplicaEvent>> {
        let known = stream_id.and_then(|it| self.lock().get(it).cloned());
        known.unwrap_or_else(|| self.strangers.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::intake::{Class, Intake};
    use tepui_master_machine::input::ConnectionId;

    #[test]
    fn calls_wait_with_their_subscription() {
        let intake = Intake::new();
        let connect = |id| intake.connect(ConnectionId(id), Class::Client);
        let sessions = Sessions::new(connect(0));
        sessions.open("one".into(), Arc::new(connect(1)));
        let source = |stream_id| sessions.of(stream_id).source();
        assert_eq!(source(Some("one")), ConnectionId(1));
        assert_eq!(source(Some("two")), ConnectionId(0));
        assert_eq!(source(None), ConnectionId(0));
        sessions.close("one");
        assert_eq!(source(Some("one")), ConnectionId(0));
    }
}
