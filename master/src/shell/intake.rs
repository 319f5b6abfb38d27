//! Where inputs wait for the machine.
//!
//! One bounded queue per connection, served round robin with a quantum, so that a busy
//! client delays itself; what the cluster's safety hangs on (commits, elections) and agent
//! links come first. Producers are async tasks that wait for room in their own queue; the
//! one consumer is the machine's thread.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tepui_master_machine::input::{ConnectionId, Input};
use tokio::sync::Semaphore;

/// Inputs of one connection that may wait. A client that pipelines more waits at its
/// socket; agents send bursts of status updates, one ACCEPT's worth each.
const QUEUE: usize = 64;

/// Inputs taken from one connection before the next one has its turn.
const QUANTUM: usize = 16;

/// Every so manieth turn is a client's, if one waits.
const CLIENTS_TURN: u64 = 8;

/// What a connection is, in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Agents: their pongs and updates keep the cluster alive.
    Agent,
    /// Schedulers and operators.
    Client,
}

/// Told to the machine's thread by the rest of the shell, before any input.
#[derive(Debug)]
pub(crate) enum Control<C> {
    /// Of the replica: elections and commits.
    Replica(C),
    /// End the thread.
    Stop,
}

/// An input with the connection to blame for it.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) source: ConnectionId,
    pub(crate) input: Input,
}

#[derive(Debug)]
struct Queue {
    class: Class,
    inputs: VecDeque<Input>,
    /// Room for more; closed with the queue.
    room: Arc<Semaphore>,
    /// Whether it is in its class's ring.
    listed: bool,
    /// No producer is left: forget the queue when it is empty.
    closed: bool,
}

/// What the consumer waits for: waking it is a call to the kernel, and it mostly does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Nothing,
    Control,
    Anything,
}

#[derive(Debug)]
struct Inner<C> {
    waits: Waits,
    control: VecDeque<Control<C>>,
    queues: BTreeMap<ConnectionId, Queue>,
    rings: [VecDeque<ConnectionId>; 2],
    /// Turns taken, for those that clients have before agents.
    turns: u64,
}

/// The intake; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Intake<C> {
    inner: Mutex<Inner<C>>,
    wake: Condvar,
}

/// What the consumer got.
#[derive(Debug)]
pub(crate) enum Taken<C> {
    Control(Control<C>),
    /// Inputs of one connection's turn, in order.
    Inputs(Vec<Delivery>),
    /// Nothing until the deadline.
    Timeout,
}

impl<C> Intake<C> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                waits: Waits::Nothing,
                control: VecDeque::new(),
                queues: BTreeMap::new(),
                rings: [VecDeque::new(), VecDeque::new()],
                turns: 0,
            }),
            wake: Condvar::new(),
        })
    }

    /// The queues hold whole inputs only, so a panic elsewhere leaves them intact.
    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the consumer something that goes before every input.
    pub(crate) fn control(&self, control: Control<C>) {
        let mut inner = self.lock();
        inner.control.push_back(control);
        if std::mem::replace(&mut inner.waits, Waits::Nothing) != Waits::Nothing {
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// A producer for one connection.
    pub(crate) fn connect(self: &Arc<Self>, source: ConnectionId, class: Class) -> Producer<C> {
        let room = Arc::new(Semaphore::new(QUEUE));
        let queue = Queue {
            class,
            inputs: VecDeque::new(),
            room: room.clone(),
            listed: false,
            closed: false,
        };
        self.lock().queues.insert(source, queue);
        Producer {
            intake: self.clone(),
            source,
            room,
        }
    }

    fn push(&self, source: ConnectionId, input: Input) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(queue) = inner.queues.get_mut(&source) else {
            return;
        };
        queue.inputs.push_back(input);
        if !queue.listed {
            queue.listed = true;
            inner.rings[queue.class as usize].push_back(source);
        }
        if inner.waits == Waits::Anything {
            inner.waits = Waits::Nothing;
            drop(guard);
            self.wake.notify_one();
        }
    }

    /// Queues what the shell itself has to say about a connection that is still open,
    /// without waiting.
    pub(crate) fn interject(&self, source: ConnectionId, input: Input) {
        self.push(source, input);
    }

    fn close(&self, source: ConnectionId) {
        let mut inner = self.lock();
        if let Some(queue) = inner.queues.get_mut(&source) {
            queue.closed = true;
            if queue.inputs.is_empty() {
                inner.queues.remove(&source);
            }
        }
    }

    /// Takes out what a connection still wanted: it is to blame for a panic.
    pub(crate) fn discard(&self, source: ConnectionId) -> Vec<Input> {
        let mut inner = self.lock();
        let Some(queue) = inner.queues.get_mut(&source) else {
            return Vec::new();
        };
        queue.room.add_permits(queue.inputs.len());
        queue.inputs.drain(..).collect()
    }

    /// The next thing to do, waiting until `deadline` at most (for ever when `None`).
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Taken<C> {
        let mut inner = self.lock();
        loop {
            if let Some(control) = inner.control.pop_front() {
                return Taken::Control(control);
            }
            if let Some(turn) = inner.turn() {
                return Taken::Inputs(turn);
            }
            match self.wait(inner, Waits::Anything, deadline) {
                Some(woken) => inner = woken,
                None => return Taken::Timeout,
            }
        }
    }

    /// Waits until woken, by chance too; `None` when the deadline has come.
    fn wait<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner<C>>,
        waits: Waits,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, Inner<C>>> {
        inner.waits = waits;
        let mut woken = match deadline {
            None => self
                .wake
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    inner.waits = Waits::Nothing;
                    return None;
                }
                let woken = self.wake.wait_timeout(inner, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        woken.waits = Waits::Nothing;
        Some(woken)
    }

    /// As [`Intake::take`] without waiting.
    pub(crate) fn try_take(&self) -> Option<Taken<C>> {
        let mut inner = self.lock();
        if let Some(control) = inner.control.pop_front() {
            return Some(Taken::Control(control));
        }
        inner.turn().map(Taken::Inputs)
    }

    /// Inputs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().queues.values().map(|it| it.inputs.len()).sum()
    }

    /// Only what the replica has to say, until `deadline`: used while no step may run.
    pub(crate) fn take_control(&self, deadline: Option<Instant>) -> Option<Control<C>> {
        let mut inner = self.lock();
        loop {
            if let Some(control) = inner.control.pop_front() {
                return Some(control);
            }
            inner = self.wait(inner, Waits::Control, deadline)?;
        }
    }
}

impl<C> Inner<C> {
    /// One connection's turn; agents before clients, but for some turns: after a failover all
    /// agents of a large cluster come back, and frameworks need not wait for the last of them.
    fn turn(&mut self) -> Option<Vec<Delivery>> {
        self.turns = self.turns.wrapping_add(1);
        let clients_first = self.turns.is_multiple_of(CLIENTS_TURN);
        let (ring, source) = loop {
            let [agents, clients] = &mut self.rings;
            let ring = match (agents.is_empty(), clients.is_empty()) {
                (false, true) => agents,
                (true, false) => clients,
                (false, false) if clients_first => clients,
                (false, false) => agents,
                (true, true) => return None,
            };
            let source = ring.pop_front()?;
            // Discarded, and perhaps closed since: its turn is nobody's.
            match self.queues.get_mut(&source) {
                Some(queue) if !queue.inputs.is_empty() => break (ring, source),
                Some(queue) => queue.listed = false,
                None => {}
            }
        };
        let queue = self.queues.get_mut(&source)?;
        let count = queue.inputs.len().min(QUANTUM);
        let gone = queue.closed;
        // An empty queue keeps no room: there is one for every agent.
        let inputs = match count == queue.inputs.len() {
            true => std::mem::take(&mut queue.inputs),
            false => queue.inputs.drain(..count).collect(),
        };
        let turn = inputs
            .into_iter()
            // Whoever asked has gone meanwhile, perhaps to another connection, whose subscription
            // this one would end.
            .filter(|input| !(gone && matches!(input, Input::Subscribe(_))))
            .map(|input| Delivery { source, input })
            .collect();
        queue.room.add_permits(count);
        if queue.inputs.is_empty() {
            queue.listed = false;
            if queue.closed {
                self.queues.remove(&source);
            }
        } else {
            ring.push_back(source);
        }
        Some(turn)
    }
}

/// The producing end of one connection's queue.
#[derive(Debug)]
pub(crate) struct Producer<C> {
    intake: Arc<Intake<C>>,
    source: ConnectionId,
    room: Arc<Semaphore>,
}

impl<C> Producer<C> {
    /// The connection.
    pub(crate) fn source(&self) -> ConnectionId {
        self.source
    }

    /// Queues an input; waits while the queue is full.
    pub(crate) async fn send(&self, input: Input) {
        self.send_with(|| input).await;
    }

    /// As [`Producer::send`] for an input that is made when there is room: whoever waits holds
    /// less.
    pub(crate) async fn send_with(&self, input: impl FnOnce() -> Input) {
        // The semaphore is never closed.
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
            self.intake.push(self.source, input());
        }
    }

    /// Queues the last input of a connection, without waiting: there is one of them.
    pub(crate) fn send_last(&self, input: Input) {
        // The permit that its removal gives back is one too many, which does no harm to
        // a queue that gets nothing more.
        self.intake.push(self.source, input);
    }
}

impl<C> Drop for Producer<C> {
    fn drop(&mut self) {
        self.intake.close(self.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::Future, task::Poll, time::Duration};
    use tepui_master_machine::{
        input::{SubscribeInput, Transport},
        model::{call::Call, wire},
    };

    fn sources(taken: Taken<u32>) -> Vec<u64> {
        match taken {
            Taken::Inputs(turn) => turn.iter().map(|it| it.source.0).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_busy_connection_does_not_hold_up_the_others() {
        let intake = Intake::<u32>::new();
        let busy = intake.connect(ConnectionId(1), Class::Client);
        let quiet = intake.connect(ConnectionId(2), Class::Client);
        let agent = intake.connect(ConnectionId(3), Class::Agent);
        for _ in 0..40 {
            busy.send(Input::Tick).await;
        }
        quiet.send(Input::Tick).await;
        agent.send(Input::Tick).await;
        intake.control(Control::Replica(7));
        assert!(matches!(
            intake.take(None),
            Taken::Control(Control::Replica(7))
        ));
        assert_eq!(sources(intake.take(None)), [3]);
        assert_eq!(sources(intake.take(None)), [1; QUANTUM]);
        assert_eq!(sources(intake.take(None)), [2]);
        assert_eq!(sources(intake.take(None)), [1; QUANTUM]);
        assert_eq!(sources(intake.take(None)), [1; 8]);
        let soon = Instant::now() + Duration::from_millis(1);
        assert!(matches!(intake.take(Some(soon)), Taken::Timeout));
    }

    fn subscribe(connection: u64) -> Input {
        let call = wire::scheduler::Call {
            r#type: Some(wire::scheduler::call::Type::Subscribe as i32),
            subscribe: Some(wire::scheduler::call::Subscribe::default()),
            ..Default::default()
        };
        let Ok((_, Call::Subscribe(subscribe))) = Call::from_wire(call, None) else {
            panic!("it is a SUBSCRIBE")
        };
        Input::Subscribe(SubscribeInput {
            connection: ConnectionId(connection),
            stream_id: "stream".into(),
            transport: Transport::Grpc,
            principal: None,
            subscribe,
        })
    }

    #[tokio::test]
    async fn who_has_gone_does_not_subscribe() {
        let intake = Intake::<u32>::new();
        let gone = intake.connect(ConnectionId(1), Class::Client);
        let here = intake.connect(ConnectionId(2), Class::Client);
        gone.send(subscribe(1)).await;
        gone.send(Input::Tick).await;
        here.send(subscribe(2)).await;
        drop(gone);
        // What else it has sent counts.
        assert!(matches!(
            intake.take(None),
            Taken::Inputs(turn) if matches!(turn[..], [Delivery { input: Input::Tick, .. }])
        ));
        assert_eq!(sources(intake.take(None)), [2]);
    }

    #[tokio::test]
    async fn a_client_need_not_wait_for_the_last_of_many_agents() {
        let intake = Intake::<u32>::new();
        let agents: Vec<_> = (2..22)
            .map(|id| intake.connect(ConnectionId(id), Class::Agent))
            .collect();
        let client = intake.connect(ConnectionId(1), Class::Client);
        for agent in &agents {
            agent.send(Input::Tick).await;
        }
        client.send(Input::Tick).await;
        let turns: Vec<_> = (0..21).map(|_| sources(intake.take(None))[0]).collect();
        assert_eq!(turns.iter().position(|it| *it == 1), Some(7));
        assert_eq!(turns[6..10], [8, 1, 9, 10]);
    }

    #[tokio::test]
    async fn a_full_queue_makes_its_own_producer_wait() {
        let intake = Intake::<u32>::new();
        let producer = intake.connect(ConnectionId(1), Class::Client);
        for _ in 0..QUEUE {
            producer.send(Input::Tick).await;
        }
        let mut more = std::pin::pin!(producer.send(Input::Tick));
        let polled = std::future::poll_fn(|context| Poll::Ready(more.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        assert_eq!(sources(intake.take(None)).len(), QUANTUM);
        more.await;
    }

    #[tokio::test]
    async fn what_was_queued_before_the_end_is_still_served() {
        let intake = Intake::<u32>::new();
        let producer = intake.connect(ConnectionId(1), Class::Client);
        producer.send_last(Input::Tick);
        drop(producer);
        assert_eq!(sources(intake.take(None)), [1]);
        assert!(intake.try_take().is_none());
        assert!(intake.lock().queues.is_empty());
    }
}
