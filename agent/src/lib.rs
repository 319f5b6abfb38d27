//! The agent: a thread with the pure machine, and around it links to masters, containers,
//! sandboxes and the HTTP endpoints.
//!
//! [`start`] runs one in this process; `tepui-agent` is a process with nothing but one.
//!
//! # Invariants
//!
//! - What the machine says leaves after its records are synced, never before.
//! - The machine's thread waits for nothing but its inputs and the disk: not for masters,
//!   not for the Docker engine, not for readers.
//! - Every channel is bounded, or holds no more than a few words for each task.
//! - The end of this process ends no task; what runs is found again at the next start.
//! - A work folder belongs to one agent at a time.

mod checkpoint;
mod config;
mod endpoints;
mod flags;
mod http;
mod resources;
mod shell;

use crate::{
    checkpoint::Log,
    config::Settings,
    http::{app::App, metrics::Counters},
    shell::{
        agent_loop::{self, Inbox, Outlets},
        clock::Clock,
        containers::{self, Containers},
        estimator,
        gc::Collector,
        master_links::Links,
        spec::Context,
        volumes::Volumes,
    },
};
use anyhow::{Context as _, Result, bail};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tepui_agent_machine::{Machine, input::Input};
use tepui_containerizer::{Containerizer, Kind};
use tepui_server::{
    files::Files,
    flags::Flags,
    listener::{Listener, Stop},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle},
};

/// Tasks that were told to end have this long, their own grace included.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// The last words to the masters have this long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Reads the flags of `tepui-agent`: `arguments` without the program's name.
///
/// # Errors
/// The first thing that is wrong; also `--help`, whose text is to be printed.
pub fn read_flags(
    arguments: impl IntoIterator<Item = String>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Flags, tepui_server::flags::Error> {
    flags::TABLE.read(arguments, environment, None)
}

/// Starts an agent with these flags, as on the command line; the environment is not read.
///
/// # Errors
/// A flag, the work folder, the port or the containerizers cannot be used; the text says
/// what would be right.
pub async fn start(flags: &[String]) -> Result<Handle> {
    let flags = read_flags(flags.iter().cloned(), [])?;
    start_with(flags)
        .await?
        .context("--recover=cleanup ends the tasks of an earlier life and starts no agent")
}

/// Starts an agent with flags that were read before; with `--recover=cleanup` it only ends
/// what an earlier life left, and there is no agent.
///
/// # Errors
/// As [`start`].
pub async fn start_with(flags: Flags) -> Result<Option<Handle>> {
    let settings = Settings::read(flags)?;
    let clock = Clock::start();
    let (mut log, records) = Log::open(&settings.work_dir)?;
    let listener = Listener::bind(settings.listen)
        .await
        .context("--ip and --port")?;
    let (events, container_events) = mpsc::channel(containers::EVENTS);
    let containerizer = containerizer(&settings, events).await?;
    if settings.cleanup {
        containerizer
            .recover(&[])
            .await
            .context("ending the containers of an earlier life")?;
        return Ok(None);
    }
    let identity = settings.at(listener.address());
    let options = settings.options(&identity);
    let (machine, mut birth) =
        Machine::birth(records, options, clock.now(), clock.wall(), rand::random())
            .map_err(anyhow::Error::msg)?;
    if !birth.records.is_empty() {
        // What was forgotten at birth must not come back with the records before.
        log.compact(&machine.snapshot())
            .context("writing the checkpoints")?;
        birth.records.clear();
    }
    let expected = machine.expected_containers();
    let learnt = machine.masters().to_vec();

    let files = Files::new();
    let collector = Arc::new(Collector::new(&settings, files.clone()));
    let (scanned, live) = (collector.clone(), expected.clone());
    tokio::task::spawn_blocking(move || scanned.scan(&live)).await?;

    let (inbox, outbox) = agent_loop::channel();
    let links = Links::new(inbox.clone(), settings.authorization.as_deref());
    let (exit, exited) = watch::channel(None);
    let (containers, orders) = Containers::new(
        containerizer.clone(),
        Context::new(&settings, identity.address),
        inbox.clone(),
        collector.clone(),
        settings.docker_remove_delay,
    );
    let counters = Arc::new(Counters::default());
    let outlets = Outlets {
        links: links.clone(),
        containers: containers.clone(),
        exit,
        volumes: Volumes::new(&settings.work_dir),
        counters: counters.clone(),
    };
    let thread = agent_loop::start(machine, log, clock, outbox, outlets, birth)?;

    let mut tasks = vec![
        tokio::spawn(containers.clone().obey(orders)).abort_handle(),
        tokio::spawn(containers.clone().listen(container_events)).abort_handle(),
        tokio::spawn(collector.clone().run(settings.disk_watch)).abort_handle(),
    ];
    let recovery = std::time::Instant::now();
    let stop = Stop::new();
    let address = listener.address();
    let masters = settings.masters.clone();
    if let Some(estimator) = settings.estimator.clone() {
        let (every, to) = (settings.estimate_interval, inbox.clone());
        let estimating = estimator::run(estimator, every, to, containerizer.clone());
        tasks.push(tokio::spawn(estimating).abort_handle());
    }
    let app = Arc::new(App::new(
        settings,
        identity,
        inbox.clone(),
        containerizer,
        files,
        collector,
        counters.clone(),
    ));
    tasks.push(tokio::spawn(note_master(links.clone(), app.clone())).abort_handle());
    let server = tokio::spawn(listener.serve(http::router(app), stop.clone()));
    if let Err(error) = containers.recover(&expected).await {
        stop.stop();
        for task in &tasks {
            task.abort();
        }
        inbox.stop().await;
        containers.detach();
        return Err(error).context("looking for the containers of an earlier life");
    }
    let took = u64::try_from(recovery.elapsed().as_micros()).unwrap_or(u64::MAX);
    counters.recovery_us.store(took, Ordering::Relaxed);
    links.learn(&learnt);
    tasks.push(tokio::spawn(masters.run(links.clone())).abort_handle());
    Ok(Some(Handle {
        address,
        inbox,
        links,
        containers,
        exited,
        thread,
        tasks,
        server,
        stop,
    }))
}

/// Lets the endpoints name the master.
async fn note_master(links: Arc<Links>, app: Arc<App>) {
    let mut master = links.registered_on();
    while master.changed().await.is_ok() {
        if let Some(address) = &*master.borrow_and_update() {
            app.set_master(address);
        }
    }
}

async fn containerizer(
    settings: &Settings,
    events: mpsc::Sender<tepui_containerizer::ContainerEvent>,
) -> Result<Containerizer> {
    let containerizer = Containerizer::new(settings.containerizer()?, events).await?;
    let docker = containerizer.unavailable(Kind::Docker);
    let process = containerizer.unavailable(Kind::Process);
    let wanted = settings.wanted;
    match (&docker, &process) {
        (Some(docker), Some(process)) => {
            bail!("tasks can run neither with Docker ({docker}) nor as processes ({process})")
        }
        (Some(docker), _) if wanted.docker && !wanted.docker_optional => {
            bail!("--containerizers names docker, but {docker}")
        }
        (_, Some(process)) if wanted.process && !wanted.docker_optional => {
            bail!("--containerizers names process, but {process}")
        }
        _ => {}
    }
    let wanted = [
        ("docker", wanted.docker, docker),
        ("process", wanted.process, process),
    ];
    for (name, wanted, problem) in wanted {
        if let Some(problem) = problem
            && wanted
        {
            tracing::info!(containerizer = name, problem, "not used");
        }
    }
    Ok(containerizer)
}

/// A running agent.
pub struct Handle {
    address: SocketAddr,
    inbox: Inbox,
    links: Arc<Links>,
    containers: Arc<Containers>,
    exited: watch::Receiver<Option<String>>,
    thread: std::thread::JoinHandle<()>,
    tasks: Vec<AbortHandle>,
    server: JoinHandle<()>,
    stop: Stop,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leaves the cluster: all tasks are told to end, and [`exited`](Handle::exited) follows.
    pub async fn unregister(&self) {
        self.inbox.input(Input::Unregister).await;
    }

    /// Waits until the agent has a reason to end, and gives it: a master removed it, or it
    /// was told to leave. [`finish`](Handle::finish) is to follow.
    pub async fn exited(&self) -> String {
        let mut exited = self.exited.clone();
        let reason = exited.wait_for(Option::is_some).await;
        let reason = reason.ok().and_then(|it| it.clone());
        reason.unwrap_or_else(|| "the agent's thread has ended, which is a fault of it".to_owned())
    }

    /// Ends the agent after [`exited`](Handle::exited): tasks that were told to end get the
    /// time for it, the last words to the masters leave.
    pub async fn finish(self) {
        if !self.containers.await_killed(END_PATIENCE).await {
            tracing::warn!(
                "some tasks did not end in time: the next start of this agent ends them"
            );
        }
        self.last_words().await;
        self.shutdown().await;
    }

    async fn last_words(&self) {
        let flushed = async {
            while !self.links.is_flushed() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // From the queue to the socket.
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let _ = tokio::time::timeout(LAST_WORDS, flushed).await;
    }

    /// Ends the agent. Its tasks live on and are found again by the next one with the same
    /// work folder.
    pub async fn shutdown(self) {
        self.links.stop();
        self.inbox.stop().await;
        let thread = self.thread;
        // The log is closed and the folder free only with the end of the thread.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        for task in &self.tasks {
            task.abort();
        }
        self.containers.detach();
        self.stop.stop();
        let _ = self.server.await;
    }

    /// Ends the agent and everything that runs on it, within a bounded time.
    pub async fn shutdown_and_kill_tasks(self) {
        self.unregister().await;
        let _ = tokio::time::timeout(END_PATIENCE, self.exited()).await;
        self.containers.await_killed(END_PATIENCE).await;
        self.containers.destroy_all(END_PATIENCE).await;
        self.last_words().await;
        self.shutdown().await;
    }
}
