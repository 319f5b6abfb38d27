//! Links to the masters: one task and one stream for each.
//!
//! Every master of `--master` is tried; those that do not lead refuse and name the leader,
//! which is tried at once, also when it is none of the flag's.

use crate::shell::agent_loop::Inbox;
use rand::Rng;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tepui_agent_machine::{
    input::{Input, LinkId},
    model::link::{AgentMessage, MasterMessage, master_message},
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
/// Silence after which a link is dropped, until a master says another (`15 s * 5`).
const SILENCE: Duration = Duration::from_secs(75);
/// Leaders followed that are not in `--master`; the oldest is forgotten for a newer one.
const HINTED: usize = 8;

/// An open link.
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

#[derive(Default)]
struct State {
    open: BTreeMap<LinkId, Open>,
    next: u64,
    /// Tasks by address; to be woken when there is news.
    tasks: BTreeMap<String, (Arc<Notify>, tokio::task::AbortHandle)>,
    /// Addresses that came as hints, oldest first.
    hinted: VecDeque<String>,
    stopped: bool,
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

    /// Keeps a link to each of the masters.
    pub(crate) fn start(self: &Arc<Self>, masters: &[String]) {
        for address in masters {
            self.keep(&mut self.lock(), address);
        }
    }

    fn keep(self: &Arc<Self>, state: &mut State, address: &str) {
        if state.stopped || state.tasks.contains_key(address) {
            return;
        }
        let wake = Arc::new(Notify::new());
        let task = keep(self.clone(), address.to_owned(), wake.clone());
        let abort = self.runtime.spawn(task).abort_handle();
        state.tasks.insert(address.to_owned(), (wake, abort));
    }

    /// Tries the leader now.
    pub(crate) fn follow(self: &Arc<Self>, leader: &str) {
        let mut state = self.lock();
        if leader.is_empty() || state.stopped {
            return;
        }
        if let Some((wake, _)) = state.tasks.get(leader) {
            wake.notify_one();
            return;
        }
        if state.hinted.len() >= HINTED
            && let Some(oldest) = state.hinted.pop_front()
            && let Some((_, task)) = state.tasks.remove(&oldest)
        {
            task.abort();
        }
        tracing::info!(leader, "following the leader");
        self.keep(&mut state, leader);
        state.hinted.push_back(leader.to_owned());
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
        for (_, task) in state.tasks.values() {
            task.abort();
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
        for (wake, _) in self.lock().tasks.values() {
            wake.notify_one();
        }
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

/// Tells the machine that a link is gone, however its task ends.
struct Registered {
    links: Arc<Links>,
    link: LinkId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.links.lock().open.remove(&self.link);
        let (inbox, link) = (self.links.inbox.clone(), self.link);
        self.links
            .runtime
            .spawn(async move { inbox.input(Input::LinkDown { link }).await });
    }
}

/// How a try ended.
enum Ended {
    /// The wait before the next one is for the back-off to say.
    Failed,
    /// A link was up.
    Closed(Option<Duration>),
}

/// Keeps a link to one master until no more are to be opened.
async fn keep(links: Arc<Links>, address: String, wake: Arc<Notify>) {
    let mut backoff = FIRST_BACKOFF;
    let mut reported = false;
    while !links.lock().stopped {
        let wait = match attempt(&links, &address, &mut reported).await {
            Ended::Failed => {
                backoff = (backoff * 2).min(LAST_BACKOFF);
                backoff
            }
            Ended::Closed(after) => {
                reported = false;
                backoff = FIRST_BACKOFF;
                // Another master may lead now.
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
    let control = Arc::new(Control::default());
    let link = {
        let mut state = links.lock();
        if state.stopped {
            return Ended::Failed;
        }
        state.next += 1;
        let link = LinkId(state.next);
        let control = control.clone();
        state.open.insert(link, Open { frames, control });
        link
    };
    tracing::debug!(master = address, link = link.0, "linked");
    let registered = Registered {
        links: links.clone(),
        link,
    };
    links.inbox.input(Input::LinkUp { link }).await;
    let after = tokio::select! {
        () = read(links, link, address, stream) => None,
        after = control.closed() => Some(after),
    };
    drop(registered);
    Ended::Closed(after)
}

/// Hands the master's frames to the machine until the link ends or is silent.
async fn read(links: &Links, link: LinkId, address: &str, mut stream: Streaming<MasterMessage>) {
    let mut silence = SILENCE;
    loop {
        let message = match timeout(silence, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => {
                tracing::info!(master = address, "the master ended the link");
                return;
            }
            Ok(Err(status)) => {
                tracing::info!(
                    master = address,
                    problem = status.message(),
                    "the link broke"
                );
                return;
            }
            Err(_) => {
                tracing::warn!(
                    master = address,
                    ?silence,
                    "no word from the master: link dropped"
                );
                return;
            }
        };
        if let Some(master_message::Kind::Registered(it)) = &message.kind {
            tracing::info!(master = address, agent_id = it.agent_id, "registered");
            links.registered_on.send_replace(Some(address.to_owned()));
            if it.total_ping_timeout_ns > 0 {
                silence = Duration::from_nanos(it.total_ping_timeout_ns);
            }
        }
        if let Some(master_message::Kind::Refused(it)) = &message.kind {
            tracing::warn!(
                master = address,
                reason = it.message,
                "registration refused"
            );
        }
        let message = Box::new(message);
        links.inbox.input(Input::Master { link, message }).await;
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
