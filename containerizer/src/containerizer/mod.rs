//! The face of the crate: the map of containers and a driver task for each.
//!
//! A driver owns its container from launch (or re-attach) to its end and is the only one that
//! emits its events. Others reach it through its [`Handle`]: a kill is a value that only gets
//! stricter, so repeating one is harmless and none can be lost.

mod recovery;

use crate::{
    cgroups::Group,
    checks,
    config::Config,
    docker::{self, Engine, Order, StartError},
    error::Error,
    event::{ContainerEvent, Exit, FailureClass, Limitation, Started, Termination},
    fetcher,
    process::{self, End, Failure, Launcher, Shim},
    runtime::{Folder, now_ms, validate_id, write_atomic},
    sandbox,
    spec::{ContainerSpec, Kind, Limit},
    users::{self, User},
};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tepui_model::wire;
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};

/// How long the engine gets at start to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs containers. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Containerizer {
    inner: Arc<Inner>,
}

/// What all containers share.
pub(crate) struct Inner {
    config: Config,
    events: mpsc::Sender<ContainerEvent>,
    containers: Mutex<BTreeMap<String, Arc<Handle>>>,
    docker: Option<Engine>,
    process: Option<Launcher>,
    unavailable: BTreeMap<&'static str, String>,
}

/// One container.
pub(crate) struct Handle {
    pub spec: ContainerSpec,
    pub folder: Folder,
    kill: watch::Sender<Option<Kill>>,
    phase: Mutex<Phase>,
    ended: watch::Sender<bool>,
    driver: Mutex<Option<AbortHandle>>,
}

/// That a container has to end.
#[derive(Clone, Debug)]
struct Kill {
    /// When SIGKILL is due.
    deadline: Instant,
    /// Somebody asked; otherwise a limit was passed.
    asked: bool,
    /// The limit that was passed first.
    limitation: Option<Limitation>,
}

#[derive(Clone, Debug)]
enum Phase {
    Launching,
    Running(Started),
    Ended,
}

/// A container that runs, by either way.
enum Running {
    Docker(docker::Attached),
    Process(Box<Shim>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No critical section here can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Containerizer {
    /// Looks what is there (engine, cgroups, namespaces) and gets ready. Call
    /// [`recover`](Containerizer::recover) next, before any launch.
    ///
    /// A containerizer that is wanted and not there is no error; see
    /// [`unavailable`](Containerizer::unavailable).
    ///
    /// # Errors
    /// When the runtime directory cannot be made.
    pub async fn new(
        config: Config,
        events: mpsc::Sender<ContainerEvent>,
    ) -> Result<Containerizer, Error> {
        fs::create_dir_all(&config.runtime_dir)
            .map_err(Error::file("create", &config.runtime_dir))?;
        let mut unavailable = BTreeMap::new();
        let docker = config
            .docker
            .as_ref()
            .map(|it| Engine::new(it, &config.owner, config.logs));
        match &docker {
            None => {
                unavailable.insert("docker", "switched off by --containerizers".to_owned());
            }
            Some(engine) => match tokio::time::timeout(PING_TIMEOUT, engine.ping()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    unavailable.insert("docker", error.to_string());
                }
                Err(_) => {
                    unavailable.insert("docker", "the engine does not answer".to_owned());
                }
            },
        }
        let mut process = None;
        match &config.process {
            None => {
                unavailable.insert("process", "switched off by --containerizers".to_owned());
            }
            Some(settings) => match Launcher::new(settings, &config.owner, config.logs).await {
                Ok(launcher) => process = Some(launcher),
                Err(error) => {
                    unavailable.insert("process", error);
                }
            },
        }
        Ok(Containerizer {
            inner: Arc::new(Inner {
                config,
                events,
                containers: Mutex::default(),
                docker,
                process,
                unavailable,
            }),
        })
    }

    /// Reads the permanent name of an agent's work directory from `<dir>/owner`, or makes one.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn owner_of(dir: &Path) -> Result<String, Error> {
        fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let file = dir.join("owner");
        match fs::read_to_string(&file) {
            Ok(text) if validate_id(text.trim()).is_ok() => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("read", file)(error));
            }
            _ => {}
        }
        let owner = uuid::Uuid::new_v4().to_string();
        write_atomic(&file, owner.as_bytes()).map_err(Error::file("write", file))?;
        Ok(owner)
    }

    /// Why a containerizer is not there; `None` when it is.
    pub fn unavailable(&self, kind: Kind) -> Option<String> {
        self.inner.unavailable.get(name(kind)).cloned()
    }

    /// Starts to launch. The answer only says that the launch is on disk and under way;
    /// `Started` or `LaunchFailed` follows as an event.
    ///
    /// # Errors
    /// A bad or known id, a containerizer that is not there, or a full disk. No event follows.
    pub async fn launch(&self, spec: ContainerSpec) -> Result<(), Error> {
        validate_id(&spec.container_id)?;
        let there = match spec.kind {
            Kind::Docker => self.inner.docker.is_some(),
            Kind::Process => self.inner.process.is_some(),
        };
        if !there {
            let reason = self.unavailable(spec.kind).unwrap_or_default();
            return Err(Error::Unavailable(spec.kind, reason));
        }
        let id = spec.container_id.clone();
        let handle = Arc::new(Handle::new(&self.inner.config, spec));
        {
            let mut containers = lock(&self.inner.containers);
            if containers.contains_key(&id) {
                return Err(Error::Duplicate(id));
            }
            containers.insert(id.clone(), handle.clone());
        }
        if let Err(error) = handle.folder.create(&handle.spec) {
            // On a full disk the folder may be there without its record.
            let _ = handle.folder.remove();
            lock(&self.inner.containers).remove(&id);
            return Err(error);
        }
        let inner = self.inner.clone();
        let driver = tokio::spawn(inner.drive(handle.clone()));
        *lock(&handle.driver) = Some(driver.abort_handle());
        Ok(())
    }

    /// Sends SIGTERM to the whole process tree and SIGKILL after the grace (the spec's
    /// `kill_grace` when `None`). Repeated, it can only shorten a running grace. The end comes
    /// as an event, with `killed` set. No effect on a container that has ended.
    ///
    /// # Errors
    /// An unknown container.
    pub async fn kill(&self, id: &str, grace: Option<Duration>) -> Result<(), Error> {
        let handle = self.inner.handle(id)?;
        handle.kill(grace.unwrap_or(handle.spec.kill_grace), None);
        Ok(())
    }

    /// Kills at once, without grace.
    ///
    /// # Errors
    /// An unknown container.
    pub async fn destroy(&self, id: &str) -> Result<(), Error> {
        self.kill(id, Some(Duration::ZERO)).await
    }

    /// Forgets a container: kills it if it still runs, then deletes its Docker container, its
    /// cgroup and its runtime files; the sandbox stays. Call it once the end is durable at the
    /// agent. May be called twice and for unknown ids.
    ///
    /// # Errors
    /// When something could not be deleted; call again later.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let Ok(handle) = self.inner.handle(id) else {
            return Ok(());
        };
        let mut ended = handle.ended.subscribe();
        if !*ended.borrow_and_update() {
            handle.kill(Duration::ZERO, None);
            // The sender lives in the handle that we hold.
            let _ = ended.wait_for(|it| *it).await;
        }
        self.inner.discard(&handle).await?;
        lock(&self.inner.containers).remove(id);
        Ok(())
    }

    /// What a container uses now: processor, memory, processes and disk, read from its cgroup.
    ///
    /// # Errors
    /// Unknown or not running.
    pub async fn statistics(&self, id: &str) -> Result<wire::ResourceStatistics, Error> {
        let handle = self.inner.handle(id)?;
        let started = handle.running()?;
        let usage = match handle.spec.kind {
            Kind::Process => self
                .inner
                .process
                .as_ref()
                .map(|it| it.usage(id, started.pid as i32)),
            Kind::Docker => self.inner.docker_group(started.pid).map(|it| it.usage()),
        };
        let usage = usage.unwrap_or_default();
        let amounts = &handle.spec.amounts;
        let limit = match amounts.cpus_limit {
            Some(Limit::At(cpus)) => Some(cpus),
            Some(Limit::Infinite) => None,
            None => Some(amounts.cpus),
        };
        Ok(wire::ResourceStatistics {
            timestamp: now_ms() as f64 / 1000.0,
            processes: usage.processes,
            threads: usage.threads,
            cpus_user_time_secs: Some(usage.cpu_user.as_secs_f64()),
            cpus_system_time_secs: Some(usage.cpu_system.as_secs_f64()),
            cpus_limit: limit,
            cpus_soft_limit: amounts.cpus_limit.is_some().then_some(amounts.cpus),
            cpus_nr_periods: usage.periods.map(|it| it as u32),
            cpus_nr_throttled: usage.throttled_periods.map(|it| it as u32),
            cpus_throttled_time_secs: usage.throttled.map(|it| it.as_secs_f64()),
            mem_total_bytes: usage.memory_total,
            mem_total_memsw_bytes: usage.memory_swap_total,
            mem_limit_bytes: usage.memory_limit,
            mem_rss_bytes: usage.memory_rss,
            mem_anon_bytes: usage.memory_rss,
            mem_cache_bytes: usage.memory_cache,
            mem_file_bytes: usage.memory_cache,
            mem_mapped_file_bytes: usage.memory_mapped,
            mem_swap_bytes: usage.swap,
            mem_unevictable_bytes: usage.unevictable,
            disk_limit_bytes: (amounts.disk > 0.0)
                .then_some((amounts.disk * (1 << 20) as f64) as u64),
            ..Default::default()
        })
    }

    /// Process id and addresses of a container. A container on the host's network has no
    /// address of its own.
    ///
    /// # Errors
    /// Unknown or not running.
    pub async fn status(&self, id: &str) -> Result<wire::ContainerStatus, Error> {
        let handle = self.inner.handle(id)?;
        let started = handle.running()?;
        let declared = handle
            .spec
            .container
            .as_ref()
            .and_then(|it| it.network_infos.first().cloned());
        let addresses = started
            .ip_addresses
            .iter()
            .map(|ip| wire::network_info::IpAddress {
                protocol: None,
                ip_address: Some(ip.clone()),
            });
        let mut network = declared.unwrap_or_default();
        network.ip_addresses = addresses.collect();
        Ok(wire::ContainerStatus {
            container_id: Some(wire::ContainerId {
                value: id.to_owned(),
                parent: None,
            }),
            network_infos: vec![network],
            executor_pid: Some(started.pid),
            ..Default::default()
        })
    }

    /// Runs a command inside a running container, as its user and in its namespaces, and waits
    /// for it; it is killed when `timeout` passes.
    ///
    /// # Errors
    /// Unknown or not running, or the command cannot be started, or it took too long.
    pub async fn exec(
        &self,
        id: &str,
        command: &wire::CommandInfo,
        timeout: Option<Duration>,
    ) -> Result<Exit, Error> {
        let handle = self.inner.handle(id)?;
        handle.running()?;
        self.inner
            .exec(&handle, command, timeout)
            .await
            .map_err(|cause| Error::Exec(id.to_owned(), cause))
    }

    /// Ids of all containers that are known and not removed.
    pub fn containers(&self) -> Vec<String> {
        lock(&self.inner.containers).keys().cloned().collect()
    }

    /// Lets go of every container without touching it, as the death of the agent would: no
    /// more events come. [`recover`](Containerizer::recover) of another one finds them again.
    pub fn detach(&self) {
        let containers = std::mem::take(&mut *lock(&self.inner.containers));
        for handle in containers.values() {
            if let Some(driver) = lock(&handle.driver).take() {
                driver.abort();
            }
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Docker => "docker",
        Kind::Process => "process",
    }
}

impl Handle {
    fn new(config: &Config, spec: ContainerSpec) -> Handle {
        Handle {
            folder: Folder::of(&config.runtime_dir, &spec.container_id),
            spec,
            kill: watch::channel(None).0,
            phase: Mutex::new(Phase::Launching),
            ended: watch::channel(false).0,
            driver: Mutex::default(),
        }
    }

    fn running(&self) -> Result<Started, Error> {
        match &*lock(&self.phase) {
            Phase::Running(started) => Ok(started.clone()),
            _ => Err(Error::NotRunning(self.spec.container_id.clone())),
        }
    }

    /// Asks for the end. Only what makes it stricter has an effect.
    fn kill(&self, grace: Duration, limitation: Option<Limitation>) {
        if *self.ended.borrow() {
            return;
        }
        let deadline = Instant::now() + grace;
        self.kill.send_modify(|kill| match kill {
            Some(kill) => {
                kill.deadline = kill.deadline.min(deadline);
                // What came first stays the reason; a later request still was one.
                kill.asked |= limitation.is_none();
            }
            None => {
                *kill = Some(Kill {
                    deadline,
                    asked: limitation.is_none(),
                    limitation,
                });
            }
        });
        let kill = self.kill.borrow().clone();
        if let Some(kill) = kill {
            self.keep(|it| {
                it.killed = kill.asked;
                it.limitation = kill.limitation;
            });
        }
    }

    fn keep(&self, change: impl FnOnce(&mut crate::runtime::Progress)) {
        let mut progress = self.folder.progress();
        change(&mut progress);
        // Lost on a full disk: then only a restart before the end would not know of the kill.
        if let Err(error) = self.folder.set_progress(&progress) {
            tracing::warn!(container = self.spec.container_id, %error, "keep progress");
        }
    }

    /// Waits until the container has to end.
    pub(crate) async fn doomed(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.kill.subscribe().wait_for(Option::is_some).await;
    }

    fn reason(&self) -> (bool, Option<Limitation>) {
        match &*self.kill.borrow() {
            Some(kill) => (kill.asked, kill.limitation.clone()),
            None => (false, None),
        }
    }
}

impl Inner {
    fn handle(&self, id: &str) -> Result<Arc<Handle>, Error> {
        lock(&self.containers)
            .get(id)
            .cloned()
            .ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    pub(crate) async fn emit(&self, event: ContainerEvent) {
        // The receiver goes away with the agent only.
        let _ = self.events.send(event).await;
    }

    pub(crate) async fn exec(
        &self,
        handle: &Handle,
        command: &wire::CommandInfo,
        timeout: Option<Duration>,
    ) -> Result<Exit, String> {
        let pid = handle.running().map_err(|it| it.to_string())?.pid;
        match (handle.spec.kind, &self.docker, &self.process) {
            (Kind::Docker, Some(engine), _) => engine.exec(&handle.spec, command, timeout).await,
            (Kind::Process, _, Some(launcher)) => {
                launcher
                    .exec(&handle.spec, pid as i32, command, timeout)
                    .await
            }
            _ => Err("its containerizer is not there".into()),
        }
    }

    fn docker_group(&self, pid: u32) -> Option<Group> {
        let hierarchy = self
            .config
            .process
            .as_ref()
            .and_then(|it| it.cgroups_hierarchy.as_deref())
            .unwrap_or(Path::new("/sys/fs/cgroup"));
        Group::of_process(hierarchy, pid)
    }

    /// A container from its launch to its end.
    async fn drive(self: Arc<Self>, handle: Arc<Handle>) {
        let id = handle.spec.container_id.clone();
        match self.launch(&handle).await {
            Ok(running) => {
                let started = match &running {
                    Running::Docker(attached) => attached.started.clone(),
                    Running::Process(shim) => Some(process::started(shim)),
                };
                // An engine that started it and then fell silent has told nothing.
                let started = started.unwrap_or_else(|| Started {
                    pid: 0,
                    ip_addresses: Vec::new(),
                    inspect: None,
                    started_ms: now_ms(),
                });
                handle.keep(|it| it.started_ms = started.started_ms);
                *lock(&handle.phase) = Phase::Running(started.clone());
                self.emit(ContainerEvent::Started {
                    container_id: id,
                    started,
                })
                .await;
                self.watch(handle, running).await;
            }
            Err(failure) => {
                if let Err(error) = self.discard(&handle).await {
                    tracing::warn!(container = id, %error, "clean up after a failed launch");
                }
                *lock(&handle.phase) = Phase::Ended;
                lock(&self.containers).remove(&id);
                let _ = handle.ended.send_replace(true);
                self.emit(ContainerEvent::LaunchFailed {
                    container_id: id,
                    class: failure.class,
                    message: failure.message,
                })
                .await;
            }
        }
    }

    async fn launch(&self, handle: &Arc<Handle>) -> Result<Running, Failure> {
        let spec = &handle.spec;
        let mut kill = handle.kill.subscribe();
        let killed = || Failure::new(FailureClass::Killed, "Killed before the task was launched");
        // Fetching and pulling may take long and may be given up at any point.
        let user = tokio::select! {
            prepared = self.prepare(handle) => prepared?,
            _ = kill.wait_for(Option::is_some) => return Err(killed()),
        };
        if kill.borrow().is_some() {
            return Err(killed());
        }
        match (spec.kind, &self.docker, &self.process) {
            (Kind::Docker, Some(engine), _) => {
                // Asking for the image first would cost every launch a call.
                let mut result = engine.start(spec, &handle.folder).await;
                if matches!(result, Err(StartError::NoImage)) {
                    tokio::select! {
                        pulled = engine.pull(spec) => pulled?,
                        _ = kill.wait_for(Option::is_some) => return Err(killed()),
                    }
                    result = engine.start(spec, &handle.folder).await;
                }
                match result {
                    Ok(attached) => Ok(Running::Docker(attached)),
                    Err(StartError::Failed(failure)) => Err(failure),
                    Err(StartError::NoImage) => Err(Failure::new(
                        FailureClass::Image,
                        "the image was pulled and is gone again",
                    )),
                }
            }
            (Kind::Process, _, Some(launcher)) => {
                let shim = launcher.start(spec, &handle.folder, user.as_ref()).await?;
                Ok(Running::Process(Box::new(shim)))
            }
            _ => Err(Failure::runtime("its containerizer is not there")),
        }
    }

    /// User, sandbox, URIs and image.
    async fn prepare(&self, handle: &Arc<Handle>) -> Result<Option<User>, Failure> {
        let spec = &handle.spec;
        let user = match (spec.kind, &self.process) {
            (Kind::Process, Some(launcher)) => launcher.user(spec)?,
            _ => self.host_user(spec)?,
        };
        sandbox::create(&spec.sandbox, user.as_ref()).map_err(|error| {
            Failure::runtime(format!(
                "Failed to create the sandbox {}: {error}",
                spec.sandbox.display()
            ))
        })?;
        if !spec.command.uris.is_empty() {
            fetcher::fetch(
                &spec.command.uris,
                &spec.sandbox,
                user.as_ref(),
                self.config.frameworks_home.as_deref(),
                &self.config.fetch,
            )
            .await
            .map_err(|message| Failure::new(FailureClass::Fetch, message))?;
        }
        if let (Kind::Docker, Some(engine)) = (spec.kind, &self.docker) {
            engine.prepare(spec).await?;
        }
        Ok(user)
    }

    /// The host's user who owns the sandbox of a Docker task and fetches its URIs. The user in
    /// the container may be known to the image alone; then the framework's counts. Without
    /// either nothing may be read from the agent's own disk.
    fn host_user(&self, spec: &ContainerSpec) -> Result<Option<User>, Failure> {
        let switch = self.config.process.as_ref().is_none_or(|it| it.switch_user);
        if !switch || !users::is_root() {
            return Ok(None);
        }
        let names = [spec.command.user.as_deref(), spec.user.as_deref()];
        let mut names = names
            .into_iter()
            .flatten()
            .filter(|it| !it.is_empty())
            .peekable();
        let named = names.peek().is_some();
        for name in names {
            match users::find(name) {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(error) => {
                    return Err(Failure::runtime(format!("look up user '{name}': {error}")));
                }
            }
        }
        let local = |it: &wire::command_info::Uri| {
            !it.value.starts_with("http://") && !it.value.starts_with("https://")
        };
        match spec.command.uris.iter().find(|it| named && local(it)) {
            Some(uri) => Err(Failure::new(
                FailureClass::Fetch,
                format!(
                    "Failed to fetch URI '{}': the task's user does not exist on this agent, and \
                     only a user may read its files",
                    uri.value
                ),
            )),
            None => Ok(None),
        }
    }

    /// Watches a running container to its end and tells it.
    async fn watch(self: Arc<Self>, handle: Arc<Handle>, running: Running) {
        let id = handle.spec.container_id.clone();
        let started = handle.running().ok();
        let checks = match started.clone() {
            Some(started) if handle.spec.health_check.is_some() || handle.spec.check.is_some() => {
                let checks = checks::run(self.clone(), handle.clone(), started);
                Some(AbortOnDrop(tokio::spawn(checks).abort_handle()))
            }
            _ => None,
        };
        let disk = self
            .config
            .disk_watch
            .filter(|_| handle.spec.amounts.disk > 0.0);
        let ended = async {
            match running {
                Running::Docker(attached) => self.watch_docker(&handle, attached, started).await,
                Running::Process(shim) => Some(self.watch_process(&handle, *shim).await),
            }
        };
        let termination = tokio::select! {
            ended = ended => ended,
            () = watch_disk(&handle, disk) => None,
        };
        drop(checks);
        let Some(termination) = termination else {
            return;
        };
        *lock(&handle.phase) = Phase::Ended;
        let _ = handle.ended.send_replace(true);
        self.emit(ContainerEvent::Exited {
            container_id: id,
            termination,
        })
        .await;
    }

    async fn watch_process(&self, handle: &Handle, mut shim: Shim) -> Termination {
        let mut kill = handle.kill.subscribe();
        // A kill from before we subscribed counts as a change.
        kill.mark_changed();
        let mut memory = shim
            .group
            .as_ref()
            .and_then(|it| it.oom_events().ok())
            .and_then(|it| crate::wake::on_readable(it).ok());
        // While no agent was there nobody listened.
        if shim.group.as_ref().is_some_and(|it| it.oom_kills() > 0) {
            let limit = process::memory_limitation(shim.group.as_ref());
            handle.kill(Duration::ZERO, Some(limit));
        }
        let end = loop {
            tokio::select! {
                end = shim.ended() => break end,
                Ok(()) = kill.changed() => {
                    let order = kill.borrow_and_update().clone();
                    if let Some(order) = order {
                        let grace = order.deadline.saturating_duration_since(Instant::now());
                        if let Err(error) = shim.kill(grace) {
                            tracing::warn!(container = handle.spec.container_id, %error, "kill");
                        }
                    }
                }
                () = readable(memory.as_ref()) => {
                    // One is enough: the container ends of it.
                    memory = None;
                    if shim.group.as_ref().is_some_and(Group::is_out_of_memory) {
                        let limit = process::memory_limitation(shim.group.as_ref());
                        handle.kill(Duration::ZERO, Some(limit));
                    }
                }
            }
        };
        self.process_termination(handle, &end)
    }

    fn process_termination(&self, handle: &Handle, end: &End) -> Termination {
        let (mut killed, mut limitation) = handle.reason();
        let kept = handle.folder.progress();
        killed |= kept.killed;
        limitation = limitation.or(kept.limitation);
        match &self.process {
            Some(launcher) => launcher.termination(&handle.spec, end, limitation, killed),
            None => docker::Engine::termination((Exit::Unknown, false, 0), limitation, killed),
        }
    }

    async fn watch_docker(
        &self,
        handle: &Handle,
        mut attached: docker::Attached,
        started: Option<Started>,
    ) -> Option<Termination> {
        let engine = self.docker.as_ref()?;
        // Two orders are all there are.
        let (sender, mut orders) = mpsc::channel(2);
        let started_ms = started.map_or_else(now_ms, |it| it.started_ms);
        let end = tokio::select! {
            end = engine.wait(&handle.spec, &mut attached, &mut orders) => end?,
            () = direct(handle, started_ms, sender) => return None,
        };
        let (mut killed, mut limitation) = handle.reason();
        let kept = handle.folder.progress();
        killed |= kept.killed;
        limitation = limitation.or(kept.limitation);
        Some(Engine::termination(end, limitation, killed))
    }

    /// Deletes what is left of a container that does not run.
    async fn discard(&self, handle: &Handle) -> Result<(), Error> {
        let id = &handle.spec.container_id;
        match (handle.spec.kind, &self.docker, &self.process) {
            (Kind::Docker, Some(engine), _) => {
                engine
                    .remove(id)
                    .await
                    .map_err(|error| Error::Engine(error.to_string()))?;
                engine.forget(id);
            }
            (Kind::Process, _, Some(launcher)) => {
                launcher.cleanup(id).await.map_err(Error::Engine)?;
            }
            _ => {}
        }
        handle
            .folder
            .remove()
            .map_err(Error::file("remove", handle.folder.path()))
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn readable(fd: Option<&AsyncFd<std::os::fd::OwnedFd>>) {
    match fd {
        Some(fd) => {
            let _ = fd.readable().await;
        }
        None => std::future::pending().await,
    }
}

/// Turns kills and the completion deadline into orders for the engine. Never ends.
async fn direct(handle: &Handle, started_ms: u64, orders: mpsc::Sender<Order>) {
    let mut kill = handle.kill.subscribe();
    let complete = async {
        match handle.spec.max_completion_time {
            Some(limit) => {
                let at = started_ms.saturating_add(limit.as_millis() as u64);
                tokio::time::sleep(Duration::from_millis(at.saturating_sub(now_ms()))).await;
                handle.kill(Duration::ZERO, Some(Limitation::CompletionTime));
            }
            None => std::future::pending().await,
        }
    };
    let carry_out = async {
        let _ = kill.wait_for(Option::is_some).await;
        let mut terminated = false;
        loop {
            let deadline = kill.borrow_and_update().as_ref().map(|it| it.deadline);
            let Some(deadline) = deadline else { continue };
            if deadline <= Instant::now() {
                let _ = orders.send(Order::Kill).await;
                // The engine's side repeats it from here on.
                return std::future::pending::<()>().await;
            }
            if !terminated {
                terminated = true;
                let _ = orders.send(Order::Terminate).await;
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {}
                _ = kill.changed() => {}
            }
        }
    };
    tokio::join!(complete, carry_out);
    std::future::pending().await
}

/// Looks at the sandbox's size every period. Never ends.
async fn watch_disk(handle: &Handle, period: Option<Duration>) {
    let Some(period) = period else {
        return std::future::pending().await;
    };
    let limit_bytes = (handle.spec.amounts.disk * (1 << 20) as f64) as u64;
    loop {
        tokio::time::sleep(period).await;
        let sandbox = handle.spec.sandbox.clone();
        let used = tokio::task::spawn_blocking(move || sandbox::usage(&sandbox)).await;
        if let Ok(used_bytes) = used
            && used_bytes > limit_bytes
        {
            let limitation = Limitation::Disk {
                limit_bytes,
                used_bytes,
            };
            handle.kill(Duration::ZERO, Some(limitation));
        }
    }
}
