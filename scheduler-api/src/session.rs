//! One framework's life with the masters.
//!
//! [`Session::start`] spawns a task that owns the connection. It finds the leader among
//! the masters given, subscribes, forwards events to [`Events`] and calls from
//! [`Driver`], answers status updates, watches heartbeats, and after a break subscribes
//! again with the same framework id and reconciles. The task ends when the framework is
//! refused for good, torn down, or when both halves are dropped.

use crate::{
    backoff::Backoff,
    call,
    error::{Error, Result},
    event::{Event, Incoming},
    leader::{self, Masters},
    transport::{self, OpenError, OutgoingCall, Subscription, Transport},
};
use std::{collections::VecDeque, time::Duration};
use tepui_proto::mesos::v1::{self, scheduler};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Who answers status updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// The session, once the framework has taken the event from [`Events`].
    #[default]
    Automatic,
    /// The framework, by [`Driver::acknowledge`]: for those that store the state first.
    Explicit,
}

/// How a session is made; see the fields.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` of some or all masters; the leader is found from any of them.
    pub masters: Vec<String>,
    /// Who the framework is. With an id it takes over from an earlier instance.
    pub framework: v1::FrameworkInfo,
    /// Roles that start without offers.
    pub suppressed_roles: Vec<String>,
    /// The protocol.
    pub transport: Transport,
    /// Who acknowledges.
    pub acknowledge: Acknowledge,
    /// Whether to ask for the state of all tasks after every reconnection.
    pub reconcile: bool,
}

impl Options {
    /// Defaults: gRPC, automatic acknowledgement, reconciliation on reconnect.
    pub fn new<S: Into<String>>(
        masters: impl IntoIterator<Item = S>,
        framework: v1::FrameworkInfo,
    ) -> Self {
        Self {
            masters: masters.into_iter().map(Into::into).collect(),
            framework,
            suppressed_roles: Vec::new(),
            transport: Transport::default(),
            acknowledge: Acknowledge::default(),
            reconcile: true,
        }
    }

    /// Chooses the protocol.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Chooses who acknowledges.
    #[must_use]
    pub fn acknowledge(mut self, acknowledge: Acknowledge) -> Self {
        self.acknowledge = acknowledge;
        self
    }
}

/// The two halves of a running session.
#[derive(Debug)]
pub struct Session {
    /// Sends calls; cheap to clone.
    pub driver: Driver,
    /// Yields events.
    pub events: Events,
}

impl Session {
    /// Starts the session inside the current tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidMaster`] when the list of masters is empty or malformed. That no
    /// master answers is not an error: the session keeps trying.
    pub fn start(options: Options) -> Result<Session> {
        let masters = Masters::new(&options.masters)?;
        let (call_sender, calls) = mpsc::channel(transport::CALLS_IN_FLIGHT);
        let (event_sender, events) = mpsc::channel(EVENTS_WAITING);
        let task = Task {
            framework_id: options.framework.id.clone(),
            options,
            masters,
            calls,
            events: event_sender,
            subscribed_before: false,
            waiting: VecDeque::new(),
        };
        tokio::spawn(task.run());
        Ok(Session {
            driver: Driver { calls: call_sender },
            events: Events { events },
        })
    }
}

/// A subscription that ends sooner was none.
const QUICK: Duration = Duration::from_secs(1);

/// Events that may wait for the framework. Behind it the session stops reading the
/// socket, and a framework that never reads is disconnected by the master.
const EVENTS_WAITING: usize = 64;

/// Receives the events of a session.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Result<Delivery>>,
}

/// An event and, for automatic acknowledgement, whom to tell that it was taken.
#[derive(Debug)]
struct Delivery {
    event: Event,
    taken: Option<oneshot::Sender<()>>,
}

impl Events {
    /// The next event; `Err` once when the session ends for good, then `None`.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        let delivery = self.events.recv().await?;
        Some(delivery.map(|Delivery { event, taken }| {
            if let Some(taken) = taken {
                let _ = taken.send(());
            }
            event
        }))
    }
}

/// Sends the calls of a session.
///
/// Calls go out in the order in which they are made, and wait while the session is
/// between two masters. `Ok` means: over HTTP that the master accepted the call, over
/// gRPC that it was written to the stream. What became of it arrives as events.
#[derive(Debug, Clone)]
pub struct Driver {
    calls: mpsc::Sender<OutgoingCall>,
}

impl Driver {
    /// Sends any call; the framework id is filled in.
    ///
    /// # Errors
    /// [`Error::Rejected`] with the master's words, [`Error::Disconnected`] when it is
    /// not known whether the call arrived, [`Error::Closed`] after the end.
    pub async fn call(&self, call: scheduler::Call) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.calls
            .send(OutgoingCall { call, reply })
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Launches `tasks` on the agent of `offer` and declines what is left of it.
    ///
    /// # Errors
    /// As [`Driver::call`].
    pub async fn launch(
        &self,
        offer: &v1::Offer,
        tasks: Vec<v1::TaskInfo>,
        filters: Option<v1::Filters>,
    ) -> Result<()> {
        let offers = vec![offer.id.clone()];
        self.call(call::accept(offers, vec![call::launch(tasks)], filters))
            .await
    }

    /// Declines an offer; `refuse` is how long not to be offered the same again
    /// (Mesos' default of 5 s when `None`).
    ///
    /// # Errors
    /// As [`Driver::call`].
    pub async fn decline(&self, offer: v1::OfferId, refuse: Option<Duration>) -> Result<()> {
        let filters = refuse.map(|time| v1::Filters {
            refuse_seconds: Some(time.as_secs_f64()),
        });
        self.call(call::decline(vec![offer], filters)).await
    }

    /// Kills a task by its own kill policy.
    ///
    /// # Errors
    /// As [`Driver::call`].
    pub async fn kill(&self, task_id: v1::TaskId) -> Result<()> {
        self.call(call::kill(task_id, None, None)).await
    }

    /// Acknowledges a status update. Statuses without uuid need no answer and get none.
    ///
    /// # Errors
    /// As [`Driver::call`].
    pub async fn acknowledge(&self, status: &v1::TaskStatus) -> Result<()> {
        match acknowledgement(status) {
            Some(call) => self.call(call).await,
            None => Ok(()),
        }
    }

    /// Asks for the state of all active tasks.
    ///
    /// # Errors
    /// As [`Driver::call`].
    pub async fn reconcile(&self) -> Result<()> {
        self.call(call::reconcile(Vec::new())).await
    }

    /// Ends the framework: its tasks are killed and its id is never taken again.
    ///
    /// # Errors
    /// As [`Driver::call`].
    pub async fn teardown(&self) -> Result<()> {
        self.call(call::teardown()).await
    }
}

fn acknowledgement(status: &v1::TaskStatus) -> Option<scheduler::Call> {
    Some(call::acknowledge(
        status.agent_id.clone()?,
        status.task_id.clone(),
        status.uuid.clone()?,
    ))
}

/// Why the connected part of the loop ended.
enum End {
    /// Try again, at this master if one is named.
    Reconnect(String),
    /// Nothing to try: tell the framework, if there is something to tell.
    Over(Option<Error>),
}

/// Hands over what waits, as the framework makes room for it; ends when it does not listen any more.
async fn forward(events: &mpsc::Sender<Result<Delivery>>, waiting: &mut VecDeque<Event>) {
    while !waiting.is_empty() {
        let Ok(slot) = events.reserve().await else {
            return;
        };
        if let Some(event) = waiting.pop_front() {
            slot.send(Ok(Delivery { event, taken: None }));
        }
    }
    events.closed().await;
}

/// The task behind a session.
struct Task {
    options: Options,
    framework_id: Option<v1::FrameworkId>,
    masters: Masters,
    calls: mpsc::Receiver<OutgoingCall>,
    events: mpsc::Sender<Result<Delivery>>,
    subscribed_before: bool,
    /// Events that the framework has not made room for yet.
    waiting: VecDeque<Event>,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            if self.events.is_closed() && self.calls.is_closed() {
                return;
            }
            let master = self.masters.current().to_owned();
            let dead = self.masters.dead().map(str::to_owned);
            let asked = Instant::now();
            let subscribe = self.subscribe();
            let opened = transport::open(self.options.transport, &master, dead, subscribe);
            let opened = tokio::select! {
                opened = opened => opened,
                () = forward(&self.events, &mut self.waiting) => return,
            };
            let dead = match opened {
                Ok(subscription) => {
                    self.masters.learn(&subscription.masters);
                    match self.serve(subscription, &mut backoff).await {
                        End::Reconnect(cause) => self.disconnected(cause),
                        End::Over(error) => {
                            if let Some(error) = error {
                                let _ = self.events.send(Err(error)).await;
                            }
                            return;
                        }
                    }
                    // The others wait for the next leader with us.
                    self.masters.next(true);
                    if asked.elapsed() >= QUICK {
                        continue;
                    }
                    // Subscriptions that end again and again are not worth a hurry.
                    self.pause(&mut backoff).await;
                    continue;
                }
                Err(OpenError::NotLeader(Some(leader))) if self.masters.follow(&leader) => {
                    continue;
                }
                Err(OpenError::NotLeader(_)) => {
                    tracing::debug!(master, "no leader is known there");
                    false
                }
                Err(OpenError::Unavailable(cause)) => {
                    tracing::debug!(master, cause, "cannot subscribe");
                    true
                }
                Err(OpenError::Refused(error)) => {
                    let _ = self.events.send(Err(error)).await;
                    return;
                }
            };
            self.masters.next(dead);
            if asked.elapsed() >= leader::WAIT {
                // It has waited with us.
                continue;
            }
            self.pause(&mut backoff).await;
        }
    }

    /// Does not wait for the framework: one that waits for a call to be sent does not read, and
    /// calls are sent after the next subscription. It is told as soon as it makes room.
    fn disconnected(&mut self, cause: String) {
        let master = self.masters.current();
        tracing::info!(master, cause, "the subscription ended, reconnecting");
        self.waiting.clear();
        self.waiting.push_back(Event::Disconnected { cause });
    }

    async fn pause(&mut self, backoff: &mut Backoff) {
        tokio::select! {
            () = tokio::time::sleep(backoff.next(rand::random())) => {}
            () = forward(&self.events, &mut self.waiting) => {}
        }
    }

    fn subscribe(&self) -> scheduler::Call {
        let mut framework = self.options.framework.clone();
        framework.id.clone_from(&self.framework_id);
        call::subscribe(framework, self.options.suppressed_roles.clone())
    }

    /// Serves one subscription until it ends. Never waits for the framework while calls
    /// wait, so that a framework may make calls from the loop that reads its events.
    async fn serve(&mut self, mut subscription: Subscription, backoff: &mut Backoff) -> End {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut acknowledgements = Acknowledgements::default();
        // Until the first event says otherwise: Mesos' interval.
        let mut heartbeat = Duration::from_secs(15);
        let mut silent_since = Instant::now();
        loop {
            // Three missed heartbeats and a little: a master that is only slow keeps us.
            let deadline = silent_since + heartbeat * 3 + Duration::from_secs(1);
            tokio::select! {
                incoming = subscription.events.recv(), if waiting.len() < EVENTS_WAITING => {
                    silent_since = Instant::now();
                    let incoming = match incoming {
                        None => return End::Reconnect("the stream ended".into()),
                        Some(Err(Error::Disconnected(cause))) => return End::Reconnect(cause),
                        Some(Err(error)) => return End::Over(Some(error)),
                        Some(Ok(event)) => Incoming::from(event),
                    };
                    match incoming {
                        Incoming::Heartbeat | Incoming::Unknown => {}
                        Incoming::Error(message) => {
                            return End::Over(Some(Error::Refused(message)));
                        }
                        Incoming::Subscribed(subscribed) => {
                            backoff.reset();
                            if let Some(seconds) = subscribed.heartbeat_interval_seconds {
                                heartbeat = Duration::try_from_secs_f64(seconds)
                                    .unwrap_or(heartbeat)
                                    .max(Duration::from_millis(100));
                            }
                            self.framework_id = Some(subscribed.framework_id.clone());
                            let again = std::mem::replace(&mut self.subscribed_before, true);
                            if again && self.options.reconcile {
                                acknowledgements.push(call::reconcile(Vec::new()));
                            }
                            waiting.push_back(Event::Subscribed {
                                framework_id: subscribed.framework_id,
                                master: subscribed.master_info,
                                again,
                            });
                        }
                        Incoming::Event(event) => waiting.push_back(event),
                    }
                }
                slot = self.events.reserve(), if !waiting.is_empty() => {
                    let Ok(slot) = slot else {
                        return End::Over(None);
                    };
                    if let Some(event) = waiting.pop_front() {
                        let taken = self.options.acknowledge == Acknowledge::Automatic;
                        let taken = match &event {
                            Event::Update(status) if taken => acknowledgements.expect(status),
                            _ => None,
                        };
                        slot.send(Ok(Delivery { event, taken }));
                    }
                }
                Some(outgoing) = self.calls.recv() => {
                    let teardown = outgoing.call.r#type
                        == Some(scheduler::call::Type::Teardown as i32);
                    if let Err(end) = self.forward(&subscription, outgoing, teardown).await {
                        return end;
                    }
                }
                Some(call) = acknowledgements.next() => {
                    let (reply, _) = oneshot::channel();
                    let outgoing = OutgoingCall { call, reply };
                    if let Err(end) = self.forward(&subscription, outgoing, false).await {
                        return end;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    return End::Reconnect("the master has been silent for too long".into());
                }
                () = self.events.closed() => return End::Over(None),
            }
        }
    }

    /// Hands a call to the connection. A teardown that the master took ends the session.
    async fn forward(
        &self,
        subscription: &Subscription,
        mut outgoing: OutgoingCall,
        teardown: bool,
    ) -> Result<(), End> {
        outgoing.call.framework_id.clone_from(&self.framework_id);
        if !teardown {
            return match subscription.calls.send(outgoing).await {
                Ok(()) => Ok(()),
                Err(refused) => {
                    let cause = Error::Disconnected("the connection broke".into());
                    let _ = refused.0.reply.send(Err(cause));
                    Ok(())
                }
            };
        }
        let (reply, answer) = oneshot::channel();
        let caller = std::mem::replace(&mut outgoing.reply, reply);
        let result = match subscription.calls.send(outgoing).await {
            Ok(()) => answer.await.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Disconnected("the connection broke".into())),
        };
        let over = result.is_ok();
        let _ = caller.send(result);
        if over { Err(End::Over(None)) } else { Ok(()) }
    }
}

/// Answers that the session owes, in the order in which the framework took the events.
#[derive(Default)]
struct Acknowledgements {
    ready: VecDeque<scheduler::Call>,
    expected: VecDeque<(oneshot::Receiver<()>, scheduler::Call)>,
}

impl Acknowledgements {
    /// Something to send at once.
    fn push(&mut self, call: scheduler::Call) {
        self.ready.push_back(call);
    }

    /// Answers `status` once the returned sender is used.
    fn expect(&mut self, status: &v1::TaskStatus) -> Option<oneshot::Sender<()>> {
        let call = acknowledgement(status)?;
        let (taken, receiver) = oneshot::channel();
        self.expected.push_back((receiver, call));
        Some(taken)
    }

    /// The next answer to send. `None` when nothing is expected, which disables the
    /// branch of the `select!` that polls it. Cancel safe: an entry leaves the queue
    /// only when it is returned.
    async fn next(&mut self) -> Option<scheduler::Call> {
        if let Some(call) = self.ready.pop_front() {
            return Some(call);
        }
        let (taken, _) = self.expected.front_mut()?;
        // An event that was dropped without being read is not acknowledged: the master
        // sends it again to whoever subscribes next.
        let taken = taken.await.is_ok();
        let (_, call) = self.expected.pop_front()?;
        taken.then_some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_framework_that_does_not_read_does_not_keep_the_session_from_its_master() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let options = Options::new([address], v1::FrameworkInfo::default());
        let (_driver, calls) = mpsc::channel(1);
        let (events, mut read) = mpsc::channel(1);
        let full = Event::Rescind(v1::OfferId::default());
        let full = Delivery {
            event: full,
            taken: None,
        };
        events.try_send(Ok(full)).unwrap();
        let mut task = Task {
            framework_id: None,
            masters: Masters::new(&options.masters).unwrap(),
            options,
            calls,
            events,
            subscribed_before: true,
            waiting: VecDeque::new(),
        };
        // A subscription that ends.
        let (_, ended) = mpsc::channel(1);
        let (sender, _sent) = mpsc::channel(1);
        let subscription = Subscription {
            events: ended,
            calls: sender,
            masters: Vec::new(),
        };
        match task.serve(subscription, &mut Backoff::new()).await {
            End::Reconnect(cause) => task.disconnected(cause),
            End::Over(_) => panic!("the session is over"),
        }
        let running = tokio::spawn(task.run());
        listener.accept().await.unwrap();
        assert!(matches!(
            read.recv().await.unwrap().unwrap().event,
            Event::Rescind(_)
        ));
        assert!(matches!(
            read.recv().await.unwrap().unwrap().event,
            Event::Disconnected { .. }
        ));
        drop(read);
        running.await.unwrap();
    }
}
