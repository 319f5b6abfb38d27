//! Who receives what the machine sends: open streams and requests that wait.
//!
//! The machine's thread delivers, so nothing here may wait: a stream whose reader is slow
//! is closed, and nobody else notices.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tepui_master_machine::{
    input::{ConnectionId, RequestId},
    output::{Destination, Message, Outgoing, Status},
};
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for a slow reader before it is disconnected: some 15 MB of
/// updates. A framework that answers a thousand offers one by one before it reads on is
/// behind by ten thousand updates, and must not be taken for one that has stopped.
pub(crate) const STREAM_QUEUE: usize = 32_768;

/// The answer of a request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    /// Empty when there is nothing to say.
    pub(crate) message: String,
}

#[derive(Debug, Default)]
struct Inner {
    streams: HashMap<ConnectionId, mpsc::Sender<Message>>,
    requests: HashMap<RequestId, oneshot::Sender<Answer>>,
}

/// The registry of receivers.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    inner: Mutex<Inner>,
    next: AtomicU64,
}

impl Destinations {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Whole entries only are in the maps, so a panic elsewhere leaves them intact.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// An id for a connection that sends inputs and receives nothing.
    pub(crate) fn connection(&self) -> ConnectionId {
        ConnectionId(self.fresh())
    }

    /// Opens a stream: its id and what will arrive on it.
    pub(crate) fn stream(self: &Arc<Self>) -> (ConnectionId, mpsc::Receiver<Message>) {
        let id = self.connection();
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        self.lock().streams.insert(id, sender);
        (id, receiver)
    }

    /// The stream's reader is gone.
    pub(crate) fn forget_stream(&self, id: ConnectionId) {
        self.lock().streams.remove(&id);
    }

    /// Whether the stream is open.
    #[cfg(test)]
    pub(crate) fn is_open(&self, id: ConnectionId) -> bool {
        self.lock().streams.contains_key(&id)
    }

    /// Registers a request: its id and where its answer will arrive. A request that is
    /// dropped unanswered (the leadership ended) reads as an error at the receiver.
    pub(crate) fn request(&self) -> (RequestId, oneshot::Receiver<Answer>) {
        let id = RequestId(self.fresh());
        let (sender, receiver) = oneshot::channel();
        self.lock().requests.insert(id, sender);
        (id, receiver)
    }

    /// Nobody waits for this answer any more; a receiver that is left gets an error.
    pub(crate) fn forget_request(&self, id: RequestId) {
        self.lock().requests.remove(&id);
    }

    /// Delivers messages in order; returns the streams that were closed because their
    /// reader is too slow.
    pub(crate) fn deliver(&self, messages: Vec<Outgoing>) -> Vec<Destination> {
        let mut slow = Vec::new();
        if messages.is_empty() {
            return slow;
        }
        let mut inner = self.lock();
        for Outgoing { to, message, .. } in messages {
            match to {
                Destination::Reply(id) => {
                    if let (Some(sender), Message::Answer { status, message }) =
                        (inner.requests.remove(&id), message)
                    {
                        // The client may have gone; the effect stays.
                        let _ = sender.send(Answer { status, message });
                    }
                }
                Destination::Scheduler(id) | Destination::Agent(id) => {
                    let closes = matches!(message, Message::Close { .. });
                    let Some(sender) = inner.streams.get(&id) else {
                        continue;
                    };
                    if let Err(error) = sender.try_send(message) {
                        if matches!(error, mpsc::error::TrySendError::Full(_)) {
                            slow.push(to);
                        }
                        inner.streams.remove(&id);
                    } else if closes {
                        inner.streams.remove(&id);
                    }
                }
            }
        }
        slow
    }

    /// Closes one stream at once.
    pub(crate) fn close(&self, id: ConnectionId) {
        self.lock().streams.remove(&id);
    }

    /// The leadership ended: every stream closes and every request fails.
    pub(crate) fn close_all(&self) {
        let mut inner = self.lock();
        inner.streams.clear();
        inner.requests.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_master_machine::output::Needs;

    fn event(to: ConnectionId) -> Outgoing {
        Outgoing {
            to: Destination::Agent(to),
            message: Message::ToAgent(Box::default()),
            needs: Needs::Committed,
        }
    }

    #[test]
    fn a_slow_reader_is_closed_and_others_are_not() {
        let destinations = Destinations::new();
        let (slow, mut slow_stream) = destinations.stream();
        let (quick, mut quick_stream) = destinations.stream();
        for _ in 0..STREAM_QUEUE {
            assert!(destinations.deliver(vec![event(slow)]).is_empty());
        }
        assert_eq!(
            destinations.deliver(vec![event(slow), event(quick)]),
            [Destination::Agent(slow)]
        );
        assert!(quick_stream.try_recv().is_ok());
        assert!(!destinations.is_open(slow));
        // What was queued can still be read, then the stream ends.
        for _ in 0..STREAM_QUEUE {
            assert!(slow_stream.try_recv().is_ok());
        }
        assert_eq!(
            slow_stream.try_recv().err(),
            Some(mpsc::error::TryRecvError::Disconnected)
        );
    }

    #[tokio::test]
    async fn a_request_is_answered_once() {
        let destinations = Destinations::new();
        let (id, answer) = destinations.request();
        let outgoing = Outgoing {
            to: Destination::Reply(id),
            message: Message::Answer {
                status: Status::Accepted,
                message: String::new(),
            },
            needs: Needs::Committed,
        };
        destinations.deliver(vec![outgoing.clone(), outgoing]);
        assert_eq!(answer.await.unwrap().status, Status::Accepted);
    }

    #[tokio::test]
    async fn the_end_of_a_leadership_fails_what_waits() {
        let destinations = Destinations::new();
        let (_, answer) = destinations.request();
        destinations.close_all();
        assert!(answer.await.is_err());
    }
}
