//! `tepui.agent.v1.AgentLink`: one stream per agent and master, frames in, commands out.
//!
//! A link outlives leaderships. While this master follows, its links are idle: all they carry
//! is who leads. When it comes to lead, every link gets a session with the machine and an
//! invitation to attach - so many at a time as come back with an answer, so that the return of a
//! whole cluster is taken at the pace that the leader bears, and nobody has to wait for a time-out.
//!
//! Frameworks come back at the same time, and few agents are enough to offer them something: so
//! the first invitations are few at a time, and followers name the leader a while later, to the
//! few agents that its own invitation did not reach. Idle links sleep until it is their turn:
//! were all of them woken by a change of leader, there would be nothing else for a while.

use crate::shell::{
    core::ReplicaEvent,
    destinations::{Destinations, Messages},
    door::App,
    grpc::admit,
    intake::{Class, Producer},
    leadership::Leadership,
};
use futures_util::{Stream, StreamExt};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tepui_master_machine::{
    input::{ConnectionId, Input},
    model::{Principal, link, link::master_message::Kind},
    output::Message,
};
use tepui_server::{
    auth::Realm,
    proto::tepui::agent::v1::{
        AgentMessage, Leader, MasterMessage, agent_link_server::AgentLink, agent_message,
    },
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Request, Response, Status, Streaming};

/// Invitations that wait for their answers. With a round trip of 10 ms that is room for
/// 100,000 agents a second, more than a machine steps through; with fewer the machine would
/// wait for the network.
const INVITATIONS: usize = 1024;

/// The same while frameworks come back.
const FIRST_INVITATIONS: usize = 64;

/// For so long after the birth of a machine.
const FRAMEWORKS_FIRST: Duration = Duration::from_millis(250);

/// A follower waits so long before it names another leader.
const NEWS: Duration = Duration::from_millis(500);

/// Links that are told at once; a hundredth of all if that is more.
const TOLD_AT_ONCE: usize = 64;

/// Until the next ones are told: half a second for all of them, at most.
const BETWEEN_TELLING: Duration = Duration::from_millis(5);

/// An invited agent that has not answered for so long gives its place to the next one. It may
/// still come.
const PATIENCE: Duration = Duration::from_secs(5);

/// The service.
#[derive(Debug)]
pub(crate) struct AgentLinks {
    app: Arc<App>,
    turns: Arc<Turns>,
}

impl AgentLinks {
    pub(crate) fn new(app: Arc<App>) -> AgentLinks {
        let turns = Arc::new(Turns {
            places: Arc::new(Semaphore::new(0)),
            news: Notify::new(),
            waiting: AtomicUsize::new(0),
        });
        tokio::spawn(open_places(turns.clone(), app.shared.born()));
        tokio::spawn(tell_news(turns.clone(), app.leadership.clone()));
        AgentLinks { app, turns }
    }
}

/// What idle links wait for: first come, first served.
#[derive(Debug)]
struct Turns {
    /// Places for invitations that wait for their answers; none while this master follows, but for
    /// one that comes back late from the leadership before, which its finder throws away.
    places: Arc<Semaphore>,
    /// Told once for each link.
    news: Notify,
    /// Links that wait.
    waiting: AtomicUsize,
}

impl Turns {
    /// Waits until the link is to look who leads.
    async fn news(&self) {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        self.news.notified().await;
    }
}

/// Few places at each birth, and the others when frameworks had their time.
async fn open_places(turns: Arc<Turns>, mut born: watch::Receiver<Option<link::Fence>>) {
    loop {
        let fence = match born.wait_for(Option::is_some).await {
            Ok(fence) => fence.clone(),
            Err(_) => return,
        };
        turns.places.add_permits(FIRST_INVITATIONS);
        let lasts = timeout(FRAMEWORKS_FIRST, born.wait_for(|it| *it != fence))
            .await
            .is_err();
        if lasts {
            let others = INVITATIONS - FIRST_INVITATIONS;
            turns.places.add_permits(others);
        }
        let over = born.wait_for(|it| *it != fence).await.is_err();
        turns.places.forget_permits(usize::MAX);
        if over {
            return;
        }
    }
}

/// Lets every idle link look who leads, a while after that has changed.
async fn tell_news(turns: Arc<Turns>, mut leadership: watch::Receiver<Leadership>) {
    while leadership.changed().await.is_ok() {
        sleep(NEWS).await;
        // What else has changed meanwhile is told with it. That nobody is known to lead helps no
        // agent, and a leader's own links are invited.
        if leadership.borrow_and_update().elsewhere().is_none() {
            continue;
        }
        let mut left = turns.waiting.load(Ordering::Relaxed);
        let at_once = (left / 100).max(TOLD_AT_ONCE);
        while left > 0 {
            for _ in 0..left.min(at_once) {
                turns.news.notify_one();
            }
            left = left.saturating_sub(at_once);
            sleep(BETWEEN_TELLING).await;
        }
    }
}

/// What a link is to the machine of one leadership; its end tells the machine.
#[derive(Debug)]
struct Session {
    connection: ConnectionId,
    producer: Producer<ReplicaEvent>,
    destinations: Arc<Destinations>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.destinations.forget_stream(self.connection);
        self.producer.send_last(Input::AgentDisconnected {
            connection: self.connection,
        });
    }
}

#[tonic::async_trait]
impl AgentLink for AgentLinks {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<MasterMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let app = &self.app;
        let principal = admit(app, Realm::Agents, &request)?;
        let ends = Arc::<Ends>::default();
        let alive = Alive(ends.clone());
        let frames = request.into_inner();
        let reader = tokio::spawn(async move { read(frames, principal, &alive).await });
        let outgoing = Outgoing {
            app: app.clone(),
            turns: self.turns.clone(),
            had_session: false,
            leadership: app.leadership.clone(),
            born: app.shared.born(),
            ends,
            current: None,
            place: None,
            told: None,
            _reader: Reader(reader),
        };
        let messages = futures_util::stream::unfold(outgoing, |mut outgoing| async move {
            let message = outgoing.next().await?;
            Some((Ok(message), outgoing))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

/// What the two halves of a link share.
#[derive(Debug, Default)]
struct Ends {
    session: Mutex<Option<Arc<Session>>>,
    /// Told when there is a session.
    begun: Notify,
    /// Told once, when the reading half has ended.
    gone: Notify,
}

impl Ends {
    /// The session is replaced as a whole, so a panic elsewhere leaves it intact.
    fn session(&self) -> Option<Arc<Session>> {
        let session = self.session.lock();
        session.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_session(&self, session: Option<Arc<Session>>) {
        let begun = session.is_some();
        let mut place = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *place, session);
        // Its end tells the machine: not with the lock.
        drop(place);
        drop(old);
        if begun {
            self.begun.notify_waiters();
        }
    }

    /// The session, once there is one.
    async fn some_session(&self) -> Arc<Session> {
        loop {
            let begun = self.begun.notified();
            if let Some(session) = self.session() {
                return session;
            }
            begun.await;
        }
    }
}

/// Held by the reading half.
struct Alive(Arc<Ends>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.gone.notify_one();
    }
}

/// Hands the agent's frames to the machine, while there is one. Ends with the agent's half of
/// the stream.
async fn read(
    mut frames: Streaming<AgentMessage>,
    principal: Option<Principal>,
    Alive(ends): &Alive,
) {
    // An error ends the link as its orderly end does. A frame is boxed before anything waits:
    // there is one of these tasks for every agent, and each is as large as what it may hold.
    while let Some(Ok(message)) = frames.next().await.map(|it| it.map(Box::new)) {
        // Who registers without having been invited waits for its turn. Every other frame
        // without a session belongs to a leadership that is over.
        let uninvited = matches!(
            &message.kind,
            Some(agent_message::Kind::Register(register)) if register.term == 0
        );
        let current = match uninvited {
            true => Some(ends.some_session().await),
            false => ends.session(),
        };
        if let Some(session) = current {
            let input = || Input::AgentMessage {
                connection: session.connection,
                principal: principal.clone(),
                message,
            };
            session.producer.send_with(input).await;
        }
    }
}

/// The writing half of a link.
struct Outgoing {
    app: Arc<App>,
    turns: Arc<Turns>,
    /// The agent may still think that it has one: it is told at once that this master does not
    /// lead.
    had_session: bool,
    leadership: watch::Receiver<Leadership>,
    born: watch::Receiver<Option<link::Fence>>,
    /// For the reading half.
    ends: Arc<Ends>,
    /// Messages of the machine and the term that it leads.
    current: Option<(Messages, u64)>,
    /// Held from the invitation to its answer, and not beyond the moment named.
    place: Option<(OwnedSemaphorePermit, Instant)>,
    /// What an idle link was told last.
    told: Option<Leader>,
    _reader: Reader,
}

/// What happened to a link that has a session.
enum Event {
    Message(Option<Message>),
    /// The invitation was not answered in time.
    Late,
    Gone,
}

impl Outgoing {
    /// The next message for the agent; `None` at the end of the link.
    async fn next(&mut self) -> Option<MasterMessage> {
        loop {
            let message = match self.current.is_some() {
                true => self.converse().await?,
                false => self.idle().await?,
            };
            if let Some(message) = message {
                return Some(message);
            }
        }
    }

    /// With a session: what the machine says. The outer `None` ends the link, the inner one
    /// stands for nothing to send.
    async fn converse(&mut self) -> Option<Option<MasterMessage>> {
        let (messages, term) = self.current.as_mut()?;
        let late = self.place.as_ref().map(|(_, at)| *at);
        let event = tokio::select! {
            biased;
            message = messages.recv() => Event::Message(message),
            () = self.ends.gone.notified() => Event::Gone,
            () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => Event::Late,
        };
        match event {
            Event::Message(Some(Message::ToAgent(message))) => {
                if matches!(message.kind, Some(Kind::Registered(_) | Kind::Refused(_))) {
                    self.place = None;
                }
                Some(Some(*message))
            }
            // The machine has done with this link, the agent may open another one.
            Event::Message(Some(_)) | Event::Gone => None,
            Event::Message(None) => {
                let over = self.born.borrow().as_ref().map(|it| it.term) != Some(*term);
                self.current = None;
                match self.place.take() {
                    // No place of the leadership that comes next.
                    Some((place, _)) if over => place.forget(),
                    _ => {}
                }
                self.ends.set_session(None);
                // Closed by the shell: the leadership is over, or the reader is too slow.
                over.then_some(None)
            }
            Event::Late => {
                self.place = None;
                Some(None)
            }
        }
    }

    /// Without a session: tells who leads, or begins a session when this master does.
    async fn idle(&mut self) -> Option<Option<MasterMessage>> {
        // The first word comes at once: an agent does not wait for one as it does with masters
        // of older releases.
        if self.told.is_none() || self.had_session {
            let leader = self.leader();
            return Some(Some(self.tell(leader)));
        }
        tokio::select! {
            place = self.turns.places.clone().acquire_owned() => {
                let (place, fence) = (place.ok()?, self.born.borrow().clone());
                if let Some(fence) = fence {
                    return Some(self.invite(fence, place));
                }
                // Of the leadership before. Another may lead by now.
                place.forget();
            }
            () = self.turns.news() => {}
            () = self.ends.gone.notified() => return None,
        }
        let leader = self.leader();
        // That nobody is known to lead helps no agent.
        let is_news = self.told.as_ref() != Some(&leader) && !leader.address.is_empty();
        Some(is_news.then(|| self.tell(leader)))
    }

    /// Who leads, if it is another master.
    fn leader(&self) -> Leader {
        let leadership = self.leadership.borrow();
        Leader {
            address: leadership.elsewhere().unwrap_or_default().to_owned(),
            here: false,
            masters: leadership.masters.clone(),
            own: self.app.settings.client_address(),
        }
    }

    fn tell(&mut self, leader: Leader) -> MasterMessage {
        self.had_session = false;
        self.told = Some(leader.clone());
        MasterMessage {
            fence: None,
            kind: Some(Kind::Leader(leader)),
        }
    }

    /// Begins a session; nothing when the leadership has ended meanwhile.
    fn invite(&mut self, fence: link::Fence, place: OwnedSemaphorePermit) -> Option<MasterMessage> {
        let (connection, messages) = self.app.destinations.stream();
        let session = Session {
            connection,
            producer: self.app.intake.connect(connection, Class::Agent),
            destinations: self.app.destinations.clone(),
        };
        // The end of a leadership closes the streams that there are: this one may have come
        // too late for it.
        if self.born.borrow().as_ref() != Some(&fence) {
            return None;
        }
        self.had_session = true;
        self.current = Some((messages, fence.term));
        self.place = Some((place, Instant::now() + PATIENCE));
        self.ends.set_session(Some(Arc::new(session)));
        let own = self.app.settings.client_address();
        let leader = Leader {
            address: own.clone(),
            here: true,
            masters: self.leadership.borrow().masters.clone(),
            own,
        };
        Some(MasterMessage {
            fence: Some(fence),
            kind: Some(Kind::Leader(leader)),
        })
    }
}

/// Ends the reading half with the writing half.
pub(crate) struct Reader(pub(crate) tokio::task::JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}
