//! Who receives what the machine sends: open streams and requests that wait.
//!
//! The machine's thread delivers, so nothing here may wait: a stream whose reader is slow
//! is closed, and nobody else notices.

use crate::shell::mailbox::{Receiver, Refused, Sender, mailbox};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tepui_master_machine::{
    input::{ConnectionId, RequestId},
    model::operator::Explanation,
    output::{Destination, Message, Outgoing, StateAnswer, StateEvent, Status},
};
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for a slow reader before it is disconnected: some 15 MB of
/// updates. A framework that answers a thousand offers one by one before it reads on is
/// behind by ten thousand updates, and must not be taken for one that has stopped. It gets no
/// offers meanwhile, or it would fall behind ever further.
pub(crate) const STREAM_QUEUE: usize = 32_768;

/// The answer of a request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    /// Empty when there is nothing to say.
    pub(crate) message: String,
}

/// The answer to EXPLAIN, or the refusal.
pub(crate) type Explained = Result<Box<Explanation>, Answer>;

/// Messages waiting for a scheduler at which it counts as behind: more than the answers to a
/// large ACCEPT, and little memory.
const BEHIND: usize = 1024;

/// Messages waiting at which it has caught up.
const CAUGHT_UP: usize = BEHIND / 4;

/// The writing end of a stream.
#[derive(Debug)]
struct Stream {
    sender: Sender<Message>,
    /// Whether the machine was told that the reader is behind. Written with the registry
    /// locked.
    behind: Arc<AtomicBool>,
}

/// The reading end of a stream.
#[derive(Debug)]
pub(crate) struct Messages {
    receiver: Receiver<Message>,
    connection: ConnectionId,
    behind: Arc<AtomicBool>,
    destinations: Arc<Destinations>,
}

impl Messages {
    /// The next message, in order; `None` when the stream was closed.
    pub(crate) async fn recv(&mut self) -> Option<Message> {
        loop {
            let message = self.receiver.recv().await;
            if self.behind.load(Ordering::Acquire) && self.receiver.len() <= CAUGHT_UP {
                let _registry = self.destinations.lock();
                self.behind.store(false, Ordering::Release);
                (self.destinations.pace)(self.connection, Pace::CaughtUp);
            }
            match message {
                Some(Message::Turn) => (self.destinations.pace)(self.connection, Pace::Turn),
                message => return message,
            }
        }
    }
}

/// Events that may wait for a slow watch of the state service, and what they may hold back in
/// bytes, one event excepted; beyond it the watch ends and its client begins anew.
pub(crate) const WATCH_QUEUE: usize = 4096;
const WATCH_BYTES: usize = 8 << 20;

/// What both ends of a watch know.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// The reader was too slow.
    slow: AtomicBool,
}

#[derive(Debug)]
struct Watch {
    sender: mpsc::Sender<WatchItem>,
    backlog: Arc<Backlog>,
}

impl Watch {
    /// False when there is no room.
    fn send(&self, event: StateEvent) -> bool {
        let (weight, waiting) = (event.weight(), self.backlog.bytes.load(Ordering::Acquire));
        if waiting > 0 && waiting + weight > WATCH_BYTES {
            self.backlog.slow.store(true, Ordering::Release);
            return false;
        }
        self.backlog.bytes.fetch_add(weight, Ordering::AcqRel);
        match self.sender.try_send(WatchItem::Event(event)) {
            Ok(()) => true,
            Err(error) => {
                let full = matches!(error, mpsc::error::TrySendError::Full(_));
                self.backlog.slow.store(full, Ordering::Release);
                false
            }
        }
    }
}

/// What arrives on a watch.
#[derive(Debug)]
pub(crate) enum WatchItem {
    Event(StateEvent),
    /// The last one: why.
    Close(Status, Arc<str>),
}

/// The reading end of a watch.
#[derive(Debug)]
pub(crate) struct WatchEvents {
    receiver: mpsc::Receiver<WatchItem>,
    backlog: Arc<Backlog>,
}

impl WatchEvents {
    /// The next one, in order; at the end whether the reader was too slow.
    pub(crate) async fn recv(&mut self) -> Result<WatchItem, bool> {
        match self.receiver.recv().await {
            Some(item) => {
                if let WatchItem::Event(event) = &item {
                    self.backlog
                        .bytes
                        .fetch_sub(event.weight(), Ordering::AcqRel);
                }
                Ok(item)
            }
            None => Err(self.backlog.slow.load(Ordering::Acquire)),
        }
    }
}

/// Who waits for an answer.
#[derive(Debug)]
enum Waiting {
    Plain(oneshot::Sender<Answer>),
    State(oneshot::Sender<StateAnswer>),
    Explanation(oneshot::Sender<Explained>),
}

#[derive(Debug, Default)]
struct Inner {
    streams: HashMap<ConnectionId, Stream>,
    watches: HashMap<ConnectionId, Watch>,
    requests: HashMap<RequestId, Waiting>,
}

/// How the reader of a scheduler's stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Behind,
    CaughtUp,
    /// It came to a [`Message::Turn`].
    Turn,
}

/// Told of it.
type Told = Box<dyn Fn(ConnectionId, Pace) + Send + Sync>;

/// The registry of receivers.
pub(crate) struct Destinations {
    inner: Mutex<Inner>,
    next: AtomicU64,
    /// Called with the registry locked, so that what it says of one stream is in order.
    pace: Told,
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destinations").finish_non_exhaustive()
    }
}

impl Destinations {
    /// An empty registry; `pace` is called when the reader of a scheduler's stream falls
    /// behind and when it has caught up, and must neither wait nor use the registry.
    pub(crate) fn new(pace: impl Fn(ConnectionId, Pace) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            next: AtomicU64::default(),
            pace: Box::new(pace),
        })
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
    pub(crate) fn stream(self: &Arc<Self>) -> (ConnectionId, Messages) {
        let id = self.connection();
        let (sender, receiver) = mailbox(STREAM_QUEUE);
        let behind = Arc::new(AtomicBool::new(false));
        let stream = Stream {
            sender,
            behind: behind.clone(),
        };
        self.lock().streams.insert(id, stream);
        let messages = Messages {
            receiver,
            connection: id,
            behind,
            destinations: self.clone(),
        };
        (id, messages)
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
        self.lock().requests.insert(id, Waiting::Plain(sender));
        (id, receiver)
    }

    /// As [`Destinations::request`], for the state service.
    pub(crate) fn state_request(&self) -> (RequestId, oneshot::Receiver<StateAnswer>) {
        let id = RequestId(self.fresh());
        let (sender, receiver) = oneshot::channel();
        self.lock().requests.insert(id, Waiting::State(sender));
        (id, receiver)
    }

    /// As [`Destinations::request`], for EXPLAIN.
    pub(crate) fn explain_request(&self) -> (RequestId, oneshot::Receiver<Explained>) {
        let id = RequestId(self.fresh());
        let (sender, receiver) = oneshot::channel();
        let waiting = Waiting::Explanation(sender);
        self.lock().requests.insert(id, waiting);
        (id, receiver)
    }

    /// Opens a watch of the state service: its id and what will arrive on it.
    pub(crate) fn watch(&self) -> (ConnectionId, WatchEvents) {
        let id = self.connection();
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
        let backlog = Arc::<Backlog>::default();
        let watch = Watch {
            sender,
            backlog: backlog.clone(),
        };
        self.lock().watches.insert(id, watch);
        (id, WatchEvents { receiver, backlog })
    }

    /// The watch's reader is gone.
    pub(crate) fn forget_watch(&self, id: ConnectionId) {
        self.lock().watches.remove(&id);
    }

    /// Closes every watch: the machine that knew of them is gone.
    pub(crate) fn close_watches(&self) {
        self.lock().watches.clear();
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
                    // The client may have gone; the effect stays.
                    match (inner.requests.remove(&id), message) {
                        (Some(Waiting::Plain(sender)), Message::Answer { status, message }) => {
                            let _ = sender.send(Answer { status, message });
                        }
                        (Some(Waiting::Explanation(sender)), Message::Explanation(it)) => {
                            let _ = sender.send(Ok(it));
                        }
                        (
                            Some(Waiting::Explanation(sender)),
                            Message::Answer { status, message },
                        ) => {
                            let _ = sender.send(Err(Answer { status, message }));
                        }
                        (Some(Waiting::State(sender)), Message::State(answer)) => {
                            let _ = sender.send(*answer);
                        }
                        _ => {}
                    }
                }
                Destination::Watch(id) => match message {
                    Message::StateEvent(event) => {
                        let watch = inner.watches.get(&id);
                        let kept = watch.is_none_or(|it| it.send(event));
                        if !kept {
                            inner.watches.remove(&id);
                            slow.push(to);
                        }
                    }
                    Message::Close { status, reason } => {
                        if let Some(watch) = inner.watches.remove(&id) {
                            // Without room its reader finds the end, if not the reason.
                            let _ = watch.sender.try_send(WatchItem::Close(status, reason));
                        }
                    }
                    _ => {}
                },
                Destination::Scheduler(id) | Destination::Agent(id) => {
                    let closes = matches!(message, Message::Close { .. });
                    let Some(stream) = inner.streams.get(&id) else {
                        continue;
                    };
                    if matches!(to, Destination::Scheduler(_))
                        && stream.sender.len() >= BEHIND
                        && !stream.behind.swap(true, Ordering::AcqRel)
                    {
                        (self.pace)(id, Pace::Behind);
                    }
                    if let Err(refused) = stream.sender.try_send(message) {
                        if refused == Refused::Full {
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
        let mut inner = self.lock();
        inner.streams.remove(&id);
        inner.watches.remove(&id);
    }

    /// The leadership ended: every stream closes and every request fails.
    pub(crate) fn close_all(&self) {
        let mut inner = self.lock();
        inner.streams.clear();
        inner.watches.clear();
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

    #[tokio::test]
    async fn a_slow_reader_is_closed_and_others_are_not() {
        let destinations = Destinations::new(|_, _| {});
        let (slow, mut slow_stream) = destinations.stream();
        let (quick, mut quick_stream) = destinations.stream();
        for _ in 0..STREAM_QUEUE {
            assert!(destinations.deliver(vec![event(slow)]).is_empty());
        }
        assert_eq!(
            destinations.deliver(vec![event(slow), event(quick)]),
            [Destination::Agent(slow)]
        );
        assert!(quick_stream.receiver.recv().await.is_some());
        assert!(!destinations.is_open(slow));
        // What was queued can still be read, then the stream ends.
        for _ in 0..STREAM_QUEUE {
            assert!(slow_stream.receiver.recv().await.is_some());
        }
        assert!(slow_stream.receiver.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_scheduler_that_falls_behind_is_told_of_once_and_so_is_its_catching_up() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let pace = told.clone();
        let destinations = Destinations::new(move |id, behind| {
            pace.lock().unwrap().push((id, behind));
        });
        let (scheduler, mut messages) = destinations.stream();
        let (agent, _agent_messages) = destinations.stream();
        for _ in 0..2 * BEHIND {
            let mut message = event(scheduler);
            message.to = Destination::Scheduler(scheduler);
            destinations.deliver(vec![message, event(agent)]);
        }
        assert_eq!(*told.lock().unwrap(), [(scheduler, Pace::Behind)]);
        while messages.receiver.len() > CAUGHT_UP + 1 {
            messages.recv().await.unwrap();
        }
        assert_eq!(told.lock().unwrap().len(), 1);
        messages.recv().await.unwrap();
        assert_eq!(
            *told.lock().unwrap(),
            [(scheduler, Pace::Behind), (scheduler, Pace::CaughtUp)]
        );
    }

    #[tokio::test]
    async fn a_turn_is_told_when_everything_before_it_was_read() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let turns = told.clone();
        let destinations = Destinations::new(move |id, its| {
            turns.lock().unwrap().push((id, its));
        });
        let (scheduler, mut messages) = destinations.stream();
        let to_scheduler = |message| Outgoing {
            to: Destination::Scheduler(scheduler),
            message,
            needs: Needs::Committed,
        };
        let sent = [
            event(scheduler).message,
            Message::Turn,
            event(scheduler).message,
        ];
        destinations.deliver(sent.map(to_scheduler).into());
        messages.recv().await.unwrap();
        assert!(told.lock().unwrap().is_empty());
        assert!(matches!(messages.recv().await, Some(Message::ToAgent(_))));
        assert_eq!(*told.lock().unwrap(), [(scheduler, Pace::Turn)]);
    }

    #[tokio::test]
    async fn a_request_is_answered_once() {
        let destinations = Destinations::new(|_, _| {});
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
        let destinations = Destinations::new(|_, _| {});
        let (_, answer) = destinations.request();
        destinations.close_all();
        assert!(answer.await.is_err());
    }
}
