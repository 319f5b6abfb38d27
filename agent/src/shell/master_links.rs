//! Links to the masters: one task and one stream for each.
//!
//! There is a link to every master that the flags, a leader or another master named. Those to
//! followers are idle: they only tell who leads. A master that leads invites the agent on the
//! link that is there already; the machine knows of links with an invitation alone.

use crate::shell::agent_loop::Inbox;
use rand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tepui_agent_machine::{
    input::{Input, LinkId},
    model::link::{AgentMessage, Leader, MasterMessage, master_message},
};
use tepui_server::{body::MAX_BODY, proto::tepui::agent::v1::agent_link_client::AgentLinkClient};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, metadata::AsciiMetadataValue, transport::Endpoint};

/// Frames that wait for a link: a registration and the updates of all tasks of a large
/// machine. A link that has more is too slow, and is closed.
const FRAMES: usize = 16_384;
/// A master has this long to take a connection, and again to take the link.
const CONNECT: Duration = Duration::from_secs(5);
/// First bound of the wait between two tries; it doubles up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// Before a second way to a master that is linked is looked at again.
const DUPLICATE: Duration = Duration::from_secs(60);
/// Silence after which a registered link is dropped, until a master says another
/// (`15 s * 5`). Idle links are watched by pings of HTTP/2.
const SILENCE: Duration = Duration::from_secs(75);
/// A master of an older release says nothing before it is asked: it leads, or it would have
/// refused the link.
const UNINVITED: Duration = Duration::from_secs(1);
/// Leaders followed that nobody else named; the oldest is forgotten for a newer one.
const HINTED: usize = 8;

/// A link on which the agent is invited.
struct Open {
    frames: mpsc::Sender<AgentMessage>,
    control: Arc<Control>,
}

/// Orders for the task of a link.
#[derive(Default)]
struct Control {
    /// Close, and wait this long before the next try.
    close: Mutex<Option<Duration>>,
    notify: Notify,
}

/// What keeps a link to one address.
struct Task {
    /// To be woken when there is news.
    wake: Arc<Notify>,
    abort: tokio::task::AbortHandle,
    /// Of the link that is up.
    control: Option<Arc<Control>>,
}

#[derive(Default)]
struct State {
    open: BTreeMap<LinkId, Open>,
    next: u64,
    /// By address.
    tasks: BTreeMap<String, Task>,
    /// What the flags stand for.
    found: BTreeSet<String>,
    /// What the leader named last.
    learnt: BTreeSet<String>,
    /// Addresses that came as hints, oldest first.
    hinted: VecDeque<String>,
    /// Masters by the address that they give themselves, and the address of their link.
    linked: BTreeMap<String, String>,
    stopped: bool,
}

impl State {
    fn is_wanted(&self, address: &str) -> bool {
        !self.stopped
            && (self.found.contains(address)
                || self.learnt.contains(address)
                || self.hinted.iter().any(|it| it == address))
    }
}

/// All links. They need the runtime that they were made in.
pub(crate) struct Links {
    state: Mutex<State>,
    inbox: Inbox,
    authorization: Option<AsciiMetadataValue>,
    runtime: tokio::runtime::Handle,
    /// The master (`host:port`) on which the agent registered last.
    registered_on: watch::Sender<Option<String>>,
}

impl Links {
    /// No link yet. `authorization` is the header of that name.
    pub(crate) fn new(inbox: Inbox, authorization: Option<&str>) -> Arc<Links> {
        Arc::new(Links {
            state: Mutex::default(),
            inbox,
            // Base64 behind a word: always valid.
            authorization: authorization.and_then(|it| it.parse().ok()),
            runtime: tokio::runtime::Handle::current(),
            registered_on: watch::Sender::new(None),
        })
    }

    /// On which master (`host:port`) the agent registered last.
    pub(crate) fn registered_on(&self) -> watch::Receiver<Option<String>> {
        self.registered_on.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that a detector knows of now: `host:port` each.
    pub(crate) fn found(self: &Arc<Self>, masters: BTreeSet<String>) {
        let mut state = self.lock();
        state.found = masters;
        self.keep_wanted(&mut state);
    }

    /// All masters that the leader knows of. A leader names itself at least.
    pub(crate) fn learn(self: &Arc<Self>, masters: &[String]) {
        let mut state = self.lock();
        if !masters.is_empty() && !masters.iter().eq(&state.learnt) {
            state.learnt = masters.iter().cloned().collect();
            self.keep_wanted(&mut state);
        }
    }

    /// Starts what is missing and ends what nobody names any more.
    fn keep_wanted(self: &Arc<Self>, state: &mut State) {
        let State {
            found,
            learnt,
            hinted,
            ..
        } = &*state;
        let wanted: BTreeSet<String> = found.iter().chain(learnt).chain(hinted).cloned().collect();
        for (address, task) in &state.tasks {
            if !wanted.contains(address) {
                task.wake.notify_one();
                if let Some(control) = &task.control {
                    control.close(Duration::ZERO);
                }
            }
        }
        for address in wanted {
            self.keep(state, &address);
        }
    }

    fn keep(self: &Arc<Self>, state: &mut State, address: &str) {
        if state.stopped || state.tasks.contains_key(address) {
            return;
        }
        let wake = Arc::new(Notify::new());
        let task = keep(self.clone(), address.to_owned(), wake.clone());
        let task = Task {
            wake,
            abort: self.runtime.spawn(task).abort_handle(),
            control: None,
        };
        state.tasks.insert(address.to_owned(), task);
    }

    /// Tries the leader now, unless there is a link to it.
    pub(crate) fn follow(self: &Arc<Self>, leader: &str) {
        let mut state = self.lock();
        if leader.is_empty() || state.stopped || state.linked.contains_key(leader) {
            return;
        }
        if let Some(task) = state.tasks.get(leader) {
            task.wake.notify_one();
            return;
        }
        if state.hinted.len() >= HINTED {
            state.hinted.pop_front();
        }
        tracing::info!(leader, "following the leader");
        state.hinted.push_back(leader.to_owned());
        self.keep_wanted(&mut state);
    }

    /// Queues a frame. A link that is closed loses it: the machine hears of that anyway.
    pub(crate) fn send(&self, link: LinkId, frame: AgentMessage) {
        let state = self.lock();
        let Some(open) = state.open.get(&link) else {
            return;
        };
        if open.frames.try_send(frame).is_err() {
            open.control.close(Duration::ZERO);
        }
    }

    /// Closes a link; its master is tried again after a while.
    pub(crate) fn close(&self, link: LinkId, after: Duration) {
        if let Some(open) = self.lock().open.get(&link) {
            open.control.close(after);
        }
    }

    /// Opens no more links; those that are open stay until they end.
    pub(crate) fn open_no_more(&self) {
        self.lock().stopped = true;
    }

    /// Closes everything for good.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for task in state.tasks.values() {
            task.abort.abort();
        }
        state.open.clear();
    }

    /// Whether everything queued for masters has been taken.
    pub(crate) fn is_flushed(&self) -> bool {
        let state = self.lock();
        state
            .open
            .values()
            .all(|it| it.frames.capacity() == it.frames.max_capacity())
    }

    fn wake_all(&self) {
        for task in self.lock().tasks.values() {
            task.wake.notify_one();
        }
    }

    /// Another address leads to the same master.
    fn is_duplicate(&self, own: &str, address: &str) -> bool {
        if own.is_empty() {
            return false;
        }
        let mut state = self.lock();
        let linked = state.linked.entry(own.to_owned());
        *linked.or_insert_with(|| address.to_owned()) != address
    }
}

impl Control {
    fn close(&self, after: Duration) {
        *self.close.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
        self.notify.notify_one();
    }

    async fn closed(&self) -> Duration {
        loop {
            let ordered = self
                .close
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(after) = ordered {
                return after;
            }
            self.notify.notified().await;
        }
    }
}

/// The time of a link during which its master leads. Its end is told to the machine, however
/// it comes.
struct Session {
    links: Arc<Links>,
    link: LinkId,
    term: u64,
}

impl Session {
    async fn begin(links: &Arc<Links>, up: &Up, term: u64) -> Session {
        let link = {
            let mut state = links.lock();
            state.next += 1;
            let link = LinkId(state.next);
            let open = Open {
                frames: up.frames.clone(),
                control: up.control.clone(),
            };
            state.open.insert(link, open);
            link
        };
        let session = Session {
            links: links.clone(),
            link,
            term,
        };
        links.inbox.input(Input::LinkUp { link, term }).await;
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.links.lock().open.remove(&self.link);
        let (inbox, link) = (self.links.inbox.clone(), self.link);
        self.links
            .runtime
            .spawn(async move { inbox.input(Input::LinkDown { link }).await });
    }
}

/// A link that is up, and its place in the tables.
struct Up {
    links: Arc<Links>,
    address: String,
    frames: mpsc::Sender<AgentMessage>,
    control: Arc<Control>,
}

impl Drop for Up {
    fn drop(&mut self) {
        let mut state = self.links.lock();
        if let Some(task) = state.tasks.get_mut(&self.address) {
            task.control = None;
        }
        state.linked.retain(|_, linked| *linked != self.address);
    }
}

/// How a try ended.
enum Ended {
    /// The wait before the next one is for the back-off to say.
    Failed,
    /// There is another way to the same master.
    Duplicate,
    /// A link was up.
    Closed(Option<Duration>),
}

/// Keeps a link to one master as long as somebody names it.
async fn keep(links: Arc<Links>, address: String, wake: Arc<Notify>) {
    let mut backoff = FIRST_BACKOFF;
    let mut reported = false;
    loop {
        {
            let mut state = links.lock();
            if !state.is_wanted(&address) {
                state.tasks.remove(&address);
                return;
            }
        }
        let wait = match attempt(&links, &address, &mut reported).await {
            Ended::Failed => {
                backoff = (backoff * 2).min(LAST_BACKOFF);
                backoff
            }
            Ended::Duplicate => DUPLICATE,
            Ended::Closed(after) => {
                reported = false;
                backoff = FIRST_BACKOFF;
                // Another way to the same master may be open, another master may lead now.
                links.wake_all();
                after.unwrap_or(FIRST_BACKOFF).max(FIRST_BACKOFF)
            }
        };
        // Half of it is left to chance: the agents of a cluster shall not come at once.
        let wait = wait.mul_f64(rand::rng().random_range(0.5..1.0));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // News about leaders comes in bursts.
            () = wake.notified() => tokio::time::sleep(FIRST_BACKOFF / 4).await,
        }
    }
}

async fn attempt(links: &Arc<Links>, address: &str, reported: &mut bool) -> Ended {
    let mut report = |problem: String| {
        // Once in a row is enough for the log.
        if !std::mem::replace(reported, true) {
            tracing::info!(master = address, problem, "no link to this master yet");
        }
        Ended::Failed
    };
    let endpoint = match Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => endpoint,
        Err(error) => return report(format!("{address:?} is no address: {error}")),
    };
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    let channel = match timeout(CONNECT, endpoint.connect()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return report(chain(&error)),
        Err(_) => return report("it does not take connections".to_owned()),
    };
    let mut client = AgentLinkClient::new(channel).max_decoding_message_size(MAX_BODY);
    let (frames, queue) = mpsc::channel(FRAMES);
    let mut request = Request::new(ReceiverStream::new(queue));
    if let Some(value) = &links.authorization {
        request
            .metadata_mut()
            .insert("authorization", value.clone());
    }
    let stream = match timeout(CONNECT, client.attach(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            // As older releases refuse it where they do not lead.
            let leader = status
                .metadata()
                .get("tepui-leader")
                .and_then(|it| it.to_str().ok());
            if let Some(leader) = leader
                && leader != address
            {
                links.follow(leader);
            }
            return report(status.message().to_owned());
        }
        Err(_) => return report("it does not answer".to_owned()),
    };
    let up = Up {
        links: links.clone(),
        address: address.to_owned(),
        frames,
        control: Arc::default(),
    };
    match links.lock().tasks.get_mut(address) {
        Some(task) => task.control = Some(up.control.clone()),
        None => return Ended::Failed,
    }
    tracing::debug!(master = address, "linked");
    tokio::select! {
        duplicate = serve(links, &up, stream) => match duplicate {
            true => Ended::Duplicate,
            false => Ended::Closed(None),
        },
        after = up.control.closed() => Ended::Closed(Some(after)),
    }
}

/// Hands the frames of a leader to the machine, until the link ends or is silent. True when
/// there is another way to the same master.
async fn serve(links: &Arc<Links>, up: &Up, mut stream: Streaming<MasterMessage>) -> bool {
    let master = up.address.as_str();
    let mut session: Option<Session> = None;
    let mut silence = SILENCE;
    let mut said = false;
    loop {
        let message = match (&session, said) {
            (Some(_), _) => timeout(silence, stream.message()).await,
            (None, true) => Ok(stream.message().await),
            (None, false) => timeout(UNINVITED, stream.message()).await,
        };
        let message = match message {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => {
                tracing::info!(master, "the master ended the link");
                return false;
            }
            Ok(Err(status)) => {
                let problem = status.message();
                tracing::info!(master, problem, "the link broke");
                return false;
            }
            Err(_) if session.is_none() => {
                said = true;
                session = Some(Session::begin(links, up, 0).await);
                continue;
            }
            Err(_) => {
                tracing::warn!(master, ?silence, "no word from the master: link dropped");
                return false;
            }
        };
        said = true;
        match &message.kind {
            Some(master_message::Kind::Leader(leader)) => {
                if links.is_duplicate(&leader.own, master) {
                    return true;
                }
                let term = message.fence.as_ref().map_or(0, |it| it.term);
                session = hear(links, up, session, leader, term).await;
            }
            Some(master_message::Kind::Registered(it)) => {
                tracing::info!(master, agent_id = it.agent_id, "registered");
                links.registered_on.send_replace(Some(master.to_owned()));
                if it.total_ping_timeout_ns > 0 {
                    silence = Duration::from_nanos(it.total_ping_timeout_ns);
                }
            }
            Some(master_message::Kind::Refused(it)) => {
                tracing::warn!(master, reason = it.message, "registration refused");
            }
            _ => {}
        }
        if let Some(session) = &session {
            let (link, message) = (session.link, Box::new(message));
            links.inbox.input(Input::Master { link, message }).await;
        }
    }
}

/// A master says who leads: the session that is to be from now on.
async fn hear(
    links: &Arc<Links>,
    up: &Up,
    session: Option<Session>,
    leader: &Leader,
    term: u64,
) -> Option<Session> {
    if !leader.here {
        // What it had of this link is void.
        drop(session);
        links.follow(&leader.address);
        return None;
    }
    links.learn(&leader.masters);
    match session {
        Some(session) if session.term == term => Some(session),
        older => {
            drop(older);
            Some(Session::begin(links, up, term).await)
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
