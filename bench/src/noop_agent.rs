//! An agent that runs nothing: it keeps a link to every master, attaches to the one that leads,
//! reports every task as running at once and, when told to, as finished once that was
//! acknowledged or once the time is over that its command would sleep.
//!
//! What is left is the cost of the masters, the links and the framework. Agents share
//! connections: each link is a stream of its own.

use anyhow::{Context, Result};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tepui_model::digest::{Digest, Head};
use tepui_proto::{
    mesos::v1,
    tepui::{
        agent::v1::{
            AcknowledgeUpdate, AgentMessage, AgentTask, Attach, CommandsDone, Fence, MasterMessage,
            Pong, Register, Registered, TaskUpdate, agent_link_client::AgentLinkClient,
            agent_message, master_message,
        },
        log::v1::{RunTask, command},
    },
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};

/// What all agents of a run count together.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Attachments that a leader has confirmed.
    pub(crate) attached: AtomicU64,
    /// Of those, the ones for which a digest was enough.
    pub(crate) unchanged: AtomicU64,
    /// Bytes of the frames by which agents attached.
    pub(crate) attach_bytes: AtomicU64,
    /// Tasks whose RUNNING the framework has acknowledged.
    pub(crate) running: AtomicU64,
    /// Tasks whose FINISHED the framework has acknowledged.
    pub(crate) finished: AtomicU64,
    /// Links that are open now.
    pub(crate) links: AtomicU64,
}

/// Frames that may wait for the socket; a burst is one ACCEPT's tasks, two frames each.
const FRAMES: usize = 4096;

/// Agents on one connection to a master.
const AGENTS_PER_CONNECTION: usize = 100;

/// Wait before a link that broke is opened again, doubled with each try and partly left to chance,
/// as agents do: thousands that try all the time would be all that a machine does.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// Connections to the masters, shared by agents.
#[derive(Debug)]
pub(crate) struct Connections {
    /// By master, then by group of agents.
    channels: Vec<Vec<Channel>>,
}

impl Connections {
    /// Connections for so many agents, made when they are first used.
    pub(crate) fn new(masters: &[SocketAddr], agents: usize) -> Result<Connections> {
        let groups = agents.div_ceil(AGENTS_PER_CONNECTION);
        let mut channels = Vec::new();
        for master in masters {
            let endpoint = Endpoint::from_shared(format!("http://{master}"))?
                .tcp_nodelay(true)
                .connect_timeout(Duration::from_secs(2));
            channels.push((0..groups).map(|_| endpoint.connect_lazy()).collect());
        }
        Ok(Connections { channels })
    }
}

/// When tasks of a no-op agent end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// They stay.
    Never,
    /// Once their RUNNING was acknowledged.
    AtOnce,
    /// After as many seconds as their command `sleep N` says.
    AfterSleep,
}

/// What a no-op agent is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// What it offers.
    pub(crate) cpus: f64,
    /// What it offers.
    pub(crate) mem_mb: f64,
    /// Of its tasks.
    pub(crate) ending: Ending,
}

impl Kind {
    /// One of the usual size.
    pub(crate) const fn ending(ending: Ending) -> Kind {
        Kind {
            cpus: 24.0,
            mem_mb: 65536.0,
            ending,
        }
    }

    fn resources(&self) -> Vec<v1::Resource> {
        use tepui_scheduler_api::task;
        vec![
            task::scalar("cpus", self.cpus),
            task::scalar("mem", self.mem_mb),
            task::scalar("disk", 65536.0),
            task::ports(31000, 32000),
        ]
    }
}

const VERSION: &str = "1.12.0";

fn capabilities() -> Vec<String> {
    [
        "MULTI_ROLE",
        "HIERARCHICAL_ROLE",
        "RESERVATION_REFINEMENT",
        "AGENT_OPERATION_FEEDBACK",
        "TASK_RESOURCE_LIMITS",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A task that has not both ended and been acknowledged.
#[derive(Debug)]
struct Task {
    run: RunTask,
    state: v1::TaskState,
    /// The update that the framework has not acknowledged.
    update: Option<v1::TaskStatus>,
    /// When it came.
    since: Instant,
}

/// A framework's id and a task's.
type Key = (String, String);

/// What the agent would keep on its disk.
#[derive(Debug, Default)]
struct State {
    agent_id: String,
    fence: Fence,
    total: Vec<v1::Resource>,
    commands_done: u64,
    tasks: BTreeMap<Key, Task>,
    /// Tasks whose RUNNING was acknowledged, by when they end.
    ends: BTreeSet<(Instant, Key)>,
}

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    index: usize,
    info: Vec<u8>,
    kind: Kind,
    state: Mutex<State>,
    counters: Arc<Counters>,
}

impl Agent {
    /// A new agent.
    pub(crate) fn new(index: usize, kind: Kind, counters: Arc<Counters>) -> Arc<Agent> {
        let info = v1::AgentInfo {
            hostname: format!("noop-{index}"),
            port: Some(5051),
            resources: kind.resources(),
            ..Default::default()
        };
        Arc::new(Agent {
            index,
            info: info.encode_to_vec(),
            kind,
            state: Mutex::default(),
            counters,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Distinct addresses: agents at the same one replace each other.
    fn address(&self) -> String {
        let it = self.index;
        format!(
            "127.{}.{}.{}:5051",
            1 + it / 62500,
            it / 250 % 250,
            1 + it % 250
        )
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.index)
    }

    /// Keeps a link to one master, for ever.
    pub(crate) async fn keep_link(self: Arc<Self>, connections: Arc<Connections>, master: usize) {
        let group = self.index / AGENTS_PER_CONNECTION;
        let mut client = AgentLinkClient::new(connections.channels[master][group].clone());
        let mut backoff = FIRST_BACKOFF;
        loop {
            let mut was_open = false;
            // The end of a link is a master's end, which is what some runs are about.
            let _ = self.link(&mut client, &mut was_open).await;
            if was_open {
                self.counters.links.fetch_sub(1, Ordering::Relaxed);
                backoff = FIRST_BACKOFF;
            }
            tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }

    async fn link(&self, client: &mut AgentLinkClient<Channel>, was_open: &mut bool) -> Result<()> {
        let (sender, frames) = mpsc::channel(FRAMES);
        let mut messages = client
            .attach(ReceiverStream::new(frames))
            .await?
            .into_inner();
        *was_open = true;
        self.counters.links.fetch_add(1, Ordering::Relaxed);
        // Only the leader is told what ends.
        let mut leads = false;
        loop {
            let end = match leads {
                true => self.next_end(),
                false => None,
            };
            let ended = async {
                match end {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let answers = tokio::select! {
                message = messages.next() => {
                    let Some(message) = message.transpose()? else {
                        return Ok(());
                    };
                    if let Some(master_message::Kind::Leader(leader)) = &message.kind {
                        leads = leader.here;
                    }
                    self.answer(message)
                }
                () = ended => self.end_tasks(),
            };
            for kind in answers {
                let frame = AgentMessage { kind: Some(kind) };
                sender.send(frame).await.context("the link ended")?;
            }
        }
    }

    /// When the next task ends.
    fn next_end(&self) -> Option<Instant> {
        self.lock().ends.first().map(|it| it.0)
    }

    /// Ends the tasks whose time is over.
    fn end_tasks(&self) -> Vec<agent_message::Kind> {
        let mut state = self.lock();
        let now = Instant::now();
        let mut updates = Vec::new();
        while state.ends.first().is_some_and(|it| it.0 <= now)
            && let Some((_, key)) = state.ends.pop_first()
        {
            updates.extend(state.finish(&key));
        }
        updates
    }

    fn answer(&self, message: MasterMessage) -> Vec<agent_message::Kind> {
        use master_message::Kind;
        if let Some(fence) = message.fence {
            self.lock().fence = fence;
        }
        match message.kind {
            Some(Kind::Leader(leader)) if leader.here => {
                let state = self.lock();
                if state.agent_id.is_empty() {
                    drop(state);
                    return self.register();
                }
                let attach = agent_message::Kind::Attach(self.attach(&state));
                self.count_attach(&attach);
                self.counters.unchanged.fetch_add(1, Ordering::Relaxed);
                vec![attach]
            }
            Some(Kind::RegisterAgain(_)) => {
                self.counters.unchanged.fetch_sub(1, Ordering::Relaxed);
                self.register()
            }
            Some(Kind::Registered(registered)) => self.registered(registered),
            Some(Kind::Ping(_)) => vec![agent_message::Kind::Pong(Pong { connected: true })],
            Some(Kind::Command(command)) => {
                let mut state = self.lock();
                state.commands_done = state.commands_done.max(command.sequence);
                let up_to = state.commands_done;
                let mut answers = vec![agent_message::Kind::CommandsDone(CommandsDone { up_to })];
                if let Some(command::Kind::RunTask(run)) = command.kind {
                    let key = (run.framework_id.clone(), run.task_id.clone());
                    // Sent again after a change of leader.
                    if !state.tasks.contains_key(&key) {
                        let status = status(&state, &run, v1::TaskState::TaskRunning);
                        answers.push(update(&run.framework_id, &status));
                        let task = Task {
                            run,
                            state: v1::TaskState::TaskRunning,
                            update: Some(status),
                            since: Instant::now(),
                        };
                        state.tasks.insert(key, task);
                    }
                }
                answers
            }
            Some(Kind::AcknowledgeUpdate(it)) => self.acknowledged(it),
            _ => Vec::new(),
        }
    }

    fn count_attach(&self, kind: &agent_message::Kind) {
        let bytes = AgentMessage {
            kind: Some(kind.clone()),
        }
        .encoded_len();
        self.counters
            .attach_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn attach(&self, state: &State) -> Attach {
        let mut digest = Digest::new(Head {
            cluster_id: &state.fence.cluster_id,
            incarnation: state.fence.incarnation,
            info_payload: &self.info,
            address: &self.address(),
            version: VERSION,
            capabilities: &capabilities(),
            boot_id: &self.boot_id(),
            total: &state.total,
        });
        for ((framework, id), task) in &state.tasks {
            let ended = task.state == v1::TaskState::TaskFinished;
            digest.task(framework, id, &task.run.container_id, ended);
        }
        Attach {
            agent_id: state.agent_id.clone(),
            digest: digest.finish(),
            commands_done: state.commands_done,
            term: state.fence.term,
        }
    }

    fn register(&self) -> Vec<agent_message::Kind> {
        let state = self.lock();
        let tasks = state.tasks.iter().map(|((framework_id, task_id), task)| {
            let update = task.update.as_ref();
            AgentTask {
                framework_id: framework_id.clone(),
                task_id: task_id.clone(),
                container_id: task.run.container_id.clone(),
                state: task.state as i32,
                executor_id: String::new(),
                update_uuid: update.and_then(|it| it.uuid.clone()).unwrap_or_default(),
                update_state: update.map_or(0, |it| it.state),
                task_info_payload: task.run.task_info_payload.clone(),
                resources: task.run.resources.clone(),
            }
        });
        let total = match state.total.is_empty() {
            true => self.kind.resources(),
            false => state.total.clone(),
        };
        let register = agent_message::Kind::Register(Register {
            agent_id: state.agent_id.clone(),
            info_payload: self.info.clone().into(),
            address: self.address(),
            version: VERSION.to_owned(),
            capabilities: capabilities(),
            boot_id: self.boot_id(),
            total,
            commands_done: state.commands_done,
            fence: (!state.agent_id.is_empty()).then(|| state.fence.clone()),
            tasks: tasks.collect(),
            term: state.fence.term,
            ..Default::default()
        });
        self.count_attach(&register);
        vec![register]
    }

    fn registered(&self, registered: Registered) -> Vec<agent_message::Kind> {
        let mut state = self.lock();
        state.agent_id = registered.agent_id;
        if !registered.total.is_empty() {
            state.total = registered.total;
        }
        self.counters.attached.fetch_add(1, Ordering::Relaxed);
        // What was not acknowledged is told to the new leader.
        let tasks = state.tasks.values();
        tasks
            .filter_map(|it| Some(update(&it.run.framework_id, it.update.as_ref()?)))
            .collect()
    }

    fn acknowledged(&self, it: AcknowledgeUpdate) -> Vec<agent_message::Kind> {
        let mut state = self.lock();
        let key = (it.framework_id, it.task_id);
        let Some(task) = state.tasks.get_mut(&key) else {
            return Vec::new();
        };
        let uuid = task.update.as_ref().and_then(|it| it.uuid.clone());
        if uuid != Some(it.uuid) {
            return Vec::new();
        }
        task.update = None;
        if task.state == v1::TaskState::TaskFinished {
            state.tasks.remove(&key);
            self.counters.finished.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        self.counters.running.fetch_add(1, Ordering::Relaxed);
        let end = match self.kind.ending {
            Ending::Never => return Vec::new(),
            Ending::AtOnce => return state.finish(&key).into_iter().collect(),
            Ending::AfterSleep => task.since + slept(&task.run),
        };
        state.ends.insert((end, key));
        Vec::new()
    }
}

impl State {
    /// Ends a task that nothing is unacknowledged of.
    fn finish(&mut self, key: &Key) -> Option<agent_message::Kind> {
        let run = self.tasks.get(key)?.run.clone();
        let status = status(self, &run, v1::TaskState::TaskFinished);
        let update = update(&run.framework_id, &status);
        let task = self.tasks.get_mut(key)?;
        task.state = v1::TaskState::TaskFinished;
        task.update = Some(status);
        Some(update)
    }
}

/// How long the command of a task sleeps; no time for another command.
fn slept(run: &RunTask) -> Duration {
    let info = v1::TaskInfo::decode(run.task_info_payload.clone()).ok();
    let line = info.and_then(|it| it.command?.value).unwrap_or_default();
    let seconds = line.strip_prefix("sleep ").and_then(|it| it.parse().ok());
    seconds
        .and_then(|it| Duration::try_from_secs_f64(it).ok())
        .unwrap_or_default()
}

fn status(state: &State, run: &RunTask, task_state: v1::TaskState) -> v1::TaskStatus {
    v1::TaskStatus {
        task_id: v1::TaskId {
            value: run.task_id.clone(),
        },
        state: task_state as i32,
        source: Some(v1::task_status::Source::Executor as i32),
        agent_id: Some(v1::AgentId {
            value: state.agent_id.clone(),
        }),
        executor_id: Some(v1::ExecutorId {
            value: run.task_id.clone(),
        }),
        timestamp: Some(0.0),
        uuid: Some(uuid::Uuid::new_v4().as_bytes().to_vec().into()),
        ..Default::default()
    }
}

fn update(framework_id: &str, status: &v1::TaskStatus) -> agent_message::Kind {
    agent_message::Kind::TaskUpdate(TaskUpdate {
        framework_id: framework_id.to_owned(),
        status_payload: status.encode_to_vec().into(),
        latest_state: status.state,
    })
}
