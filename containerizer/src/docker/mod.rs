//! Tasks as Docker containers, through the engine's API.

mod engine;
mod events;
mod logs;
pub mod mapping;
pub mod parameters;
mod pull;

pub(crate) use engine::EngineError;

use crate::{
    config::{DockerConfig, LogBounds},
    event::{Exit, FailureClass, Limitation, Started, Termination},
    process::Failure,
    runtime::{Folder, now_ms},
    spec::ContainerSpec,
};
use bollard::{
    models::{ContainerInspectResponse, ExecConfig},
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, KillContainerOptions,
        ListContainersOptions, RemoveContainerOptions, StartContainerOptions,
    },
};
use engine::Client;
use events::Hub;
use futures_util::StreamExt;
use mapping::{CONTAINER_LABEL, Machine, OWNER_LABEL};
use std::{collections::HashMap, path::Path, time::Duration};
use tepui_model::wire;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

/// How long the end of a container waits for the rest of its output. The engine's buffer is
/// bounded, so this is for an engine that stops answering.
const DRAIN: Duration = Duration::from_secs(60);
/// How long after a SIGKILL another one is tried.
const KILL_AGAIN: Duration = Duration::from_secs(10);
/// Between two looks for a container of which it is not known whether it was made.
const DOUBT_INTERVAL: Duration = Duration::from_secs(5);
/// Times that the engine has to say that there is none before it is believed.
const ABSENCES: u32 = 3;
/// How long after a failed look the engine is asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The Docker side.
pub(crate) struct Engine {
    client: Client,
    hub: Hub,
    config: DockerConfig,
    owner: String,
    machine: Machine,
    logs: LogBounds,
    stream: JoinHandle<()>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stream.abort();
    }
}

/// A container of ours on the engine.
pub(crate) struct Attached {
    wake: watch::Receiver<u64>,
    log: Option<JoinHandle<()>>,
    log_ended: watch::Sender<bool>,
    /// `None` when the engine has not told yet.
    pub started: Option<Started>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.abort();
        }
    }
}

/// What the driver of a container wants done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The stop signal.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// What the engine says of a container.
enum Look {
    Running(Box<ContainerInspectResponse>),
    /// Created, never started.
    Created,
    Ended {
        exit: Exit,
        out_of_memory: bool,
        memory_limit: u64,
    },
    Missing,
}

/// Why a container was not started.
pub(crate) enum StartError {
    /// The image is not here: pull it and try again.
    NoImage,
    /// For good.
    Failed(Failure),
}

/// What recovery found.
pub(crate) enum Found {
    Running(Attached),
    Ended(Termination),
    Nothing,
}

impl Engine {
    /// Gets ready; the engine need not be there yet.
    pub fn new(config: &DockerConfig, owner: &str, logs: LogBounds) -> Engine {
        let client = Client::new(config.socket.clone(), config.call_timeout);
        let hub = Hub::default();
        let stream = tokio::spawn(hub.clone().run(client.clone(), owner.to_owned()));
        // Unknown counts as none: every burstable task is then killed last but one.
        let memory = total_memory();
        Engine {
            client,
            hub,
            config: config.clone(),
            owner: owner.to_owned(),
            machine: Machine { memory },
            logs,
            stream,
        }
    }

    /// Whether the engine answers.
    pub async fn ping(&self) -> Result<(), EngineError> {
        self.client.call("ping", |docker| docker.ping()).await?;
        Ok(())
    }

    /// Refuses what is invalid, and pulls the image if the task insists on a fresh one. May
    /// take long, and may be dropped at any time.
    pub async fn prepare(&self, spec: &ContainerSpec) -> Result<(), Failure> {
        mapping::create_body(spec, &self.config, &self.owner, self.machine)
            .map_err(Failure::invalid)?;
        let docker = spec.container.as_ref().and_then(|it| it.docker.as_ref());
        if docker.is_some_and(|it| it.force_pull_image.unwrap_or(false)) {
            self.pull(spec).await?;
        }
        Ok(())
    }

    /// Pulls the image with the credentials of the task, else of the agent. May take long, and
    /// may be dropped at any time.
    pub async fn pull(&self, spec: &ContainerSpec) -> Result<(), Failure> {
        let docker = spec.container.as_ref().and_then(|it| it.docker.as_ref());
        let image = docker.map(|it| it.image.as_str()).unwrap_or_default();
        let failed = |cause: String| {
            Failure::new(
                FailureClass::Image,
                format!("Failed to pull image '{image}': {cause}"),
            )
        };
        let registry = pull::parse_reference(image).registry;
        let mut configs = Vec::new();
        let own = pull::task_config(spec.container.as_ref()).map_err(failed)?;
        configs.extend(own);
        configs.extend(sandbox_config(&spec.sandbox));
        configs.extend(self.config.registry_config.clone());
        let mut credentials = None;
        for config in &configs {
            credentials = pull::credentials(config, registry).map_err(failed)?;
            if credentials.is_some() {
                break;
            }
        }
        pull::pull(&self.client, image, credentials, self.config.pull_idle)
            .await
            .map_err(failed)
    }

    /// Creates and starts the container. Not to be dropped half-way.
    pub async fn start(
        &self,
        spec: &ContainerSpec,
        folder: &Folder,
    ) -> Result<Attached, StartError> {
        let body = mapping::create_body(spec, &self.config, &self.owner, self.machine)
            .map_err(|it| StartError::Failed(Failure::invalid(it)))?;
        let engine = |error: EngineError| {
            let message = format!("Failed to run the docker container: {error}");
            StartError::Failed(Failure::runtime(message))
        };
        // First, so that no event is missed.
        let wake = self.hub.register(&spec.container_id);
        let name = spec.docker_name();
        let create = || {
            let options = CreateContainerOptions {
                name: Some(name.clone()),
                ..CreateContainerOptions::default()
            };
            let body = body.clone();
            self.client.call("create", |docker| async move {
                docker.create_container(Some(options), body).await
            })
        };
        let mut created = create().await;
        let mut certain = !created.as_ref().is_err_and(EngineError::leaves_doubt);
        if created.as_ref().is_err_and(EngineError::is_conflict) {
            // Left by a launch that died with an earlier agent; its name is ours.
            self.remove(&spec.container_id).await.map_err(engine)?;
            created = create().await;
            certain &= !created.as_ref().is_err_and(EngineError::leaves_doubt);
        }
        let result = match created {
            Ok(_) => {
                let started = self.client.call("start", |docker| async {
                    docker
                        .start_container(&name, None::<StartContainerOptions>)
                        .await
                });
                started.await.map_err(engine)
            }
            Err(EngineError::Refused {
                status: 404,
                message,
            }) if message.to_lowercase().contains("no such image") => Err(StartError::NoImage),
            Err(error) => Err(engine(error)),
        };
        if let Err(failure) = result {
            // Nothing was made; asking the engine to remove it would only take time.
            if !matches!(failure, StartError::NoImage) {
                certain &= self.remove(&spec.container_id).await.is_ok();
            }
            if !certain {
                let id = spec.container_id.clone();
                tokio::spawn(remove_doubtful(self.client.clone(), id));
            }
            return Err(failure);
        }
        let started = match self.look(&name).await {
            Ok(Look::Running(inspect)) => Some(started(&inspect)),
            // It ended at once: it ran all the same.
            Ok(_) => Some(Started {
                pid: 0,
                ip_addresses: Vec::new(),
                inspect: self.inspect_text(&name).await,
                started_ms: now_ms(),
            }),
            Err(_) => None,
        };
        Ok(self.attach(spec, folder, wake, started))
    }

    fn attach(
        &self,
        spec: &ContainerSpec,
        folder: &Folder,
        wake: watch::Receiver<u64>,
        started: Option<Started>,
    ) -> Attached {
        let (log_ended, ended) = watch::channel(false);
        let log = tokio::spawn(logs::copy(
            self.client.clone(),
            spec.docker_name(),
            spec.sandbox.clone(),
            folder.file("cursor"),
            self.logs,
            ended,
        ));
        Attached {
            wake,
            log: Some(log),
            log_ended,
            started,
        }
    }

    async fn look(&self, name: &str) -> Result<Look, EngineError> {
        let inspect = self
            .client
            .call("inspect", |docker| {
                docker.inspect_container(name, None::<InspectContainerOptions>)
            })
            .await;
        let inspect = match inspect {
            Ok(inspect) => inspect,
            Err(error) if error.is_not_found() => return Ok(Look::Missing),
            Err(error) => return Err(error),
        };
        let state = inspect.state.clone().unwrap_or_default();
        if state.running == Some(true) {
            return Ok(Look::Running(Box::new(inspect)));
        }
        use bollard::models::ContainerStateStatusEnum as Status;
        if state.status == Some(Status::CREATED) {
            return Ok(Look::Created);
        }
        Ok(Look::Ended {
            exit: state
                .exit_code
                .map_or(Exit::Unknown, |it| Exit::Code(it as i32)),
            out_of_memory: state.oom_killed == Some(true),
            memory_limit: inspect
                .host_config
                .and_then(|it| it.memory)
                .map_or(0, |it| it.max(0) as u64),
        })
    }

    async fn inspect_text(&self, name: &str) -> Option<String> {
        let inspect = self.client.call("inspect", |docker| {
            docker.inspect_container(name, None::<InspectContainerOptions>)
        });
        serde_json::to_string(&[inspect.await.ok()?]).ok()
    }

    /// Waits for the end of a container, carrying out orders meanwhile. `None` when `orders`
    /// was closed: the containerizer goes away, the container stays.
    pub async fn wait(
        &self,
        spec: &ContainerSpec,
        attached: &mut Attached,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Option<(Exit, bool, u64)> {
        let name = spec.docker_name();
        let mut look_at: Option<Instant>;
        let mut killing = false;
        let found = loop {
            attached.wake.borrow_and_update();
            match self.look(&name).await {
                Ok(Look::Running(_)) => look_at = killing.then(|| Instant::now() + KILL_AGAIN),
                Ok(Look::Ended {
                    exit,
                    out_of_memory,
                    memory_limit,
                }) => break (exit, out_of_memory, memory_limit),
                Ok(Look::Created | Look::Missing) => break (Exit::Unknown, false, 0),
                // Not polling: the engine has just refused to say.
                Err(error) => {
                    tracing::warn!(container = name, %error, "docker inspect");
                    look_at = Some(Instant::now() + LOOK_AGAIN);
                }
            }
            loop {
                tokio::select! {
                    changed = attached.wake.changed() => match changed {
                        Ok(()) => break,
                        // Nobody keeps our registration: look without events, in time.
                        Err(_) => {
                            tokio::time::sleep(LOOK_AGAIN).await;
                            break;
                        }
                    },
                    order = orders.recv() => match order? {
                        Order::Terminate => self.signal(&name, None).await,
                        Order::Kill => {
                            killing = true;
                            self.signal(&name, Some("SIGKILL")).await;
                            // No event comes from an engine that was restarted meanwhile.
                            look_at = Some(Instant::now() + KILL_AGAIN);
                        }
                    },
                    () = until(look_at) => {
                        if killing {
                            self.signal(&name, Some("SIGKILL")).await;
                        }
                        break;
                    }
                }
            }
        };
        let _ = attached.log_ended.send(true);
        if let Some(log) = &mut attached.log {
            let _ = tokio::time::timeout(DRAIN, log).await;
        }
        attached.log = None;
        Some(found)
    }

    /// Sends a signal, the image's own stop signal by default.
    async fn signal(&self, name: &str, signal: Option<&str>) {
        let signal = match signal {
            Some(signal) => signal.to_owned(),
            None => {
                let inspect = self.client.call("inspect", |docker| {
                    docker.inspect_container(name, None::<InspectContainerOptions>)
                });
                let config = inspect.await.ok().and_then(|it| it.config);
                config
                    .and_then(|it| it.stop_signal)
                    .filter(|it| !it.is_empty())
                    .unwrap_or_else(|| "SIGTERM".into())
            }
        };
        let options = KillContainerOptions { signal };
        let sent = self
            .client
            .call("kill", |docker| docker.kill_container(name, Some(options)));
        match sent.await {
            Ok(()) => {}
            // Ended already.
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => tracing::warn!(container = name, %error, "docker kill"),
        }
    }

    /// Builds the one end of a container.
    pub fn termination(
        (exit, out_of_memory, memory_limit): (Exit, bool, u64),
        noticed: Option<Limitation>,
        killed: bool,
    ) -> Termination {
        let limitation = match noticed {
            Some(it) if !exit.is_success() => Some(it),
            _ if out_of_memory && !exit.is_success() => Some(Limitation::Memory {
                limit_bytes: memory_limit,
            }),
            _ => None,
        };
        Termination {
            exit,
            killed,
            message: Termination::describe("Container", exit, limitation.as_ref(), false),
            limitation,
            finished_ms: now_ms(),
        }
    }

    /// Finds a container of an earlier agent.
    pub async fn find(&self, spec: &ContainerSpec, folder: &Folder) -> Result<Found, EngineError> {
        let wake = self.hub.register(&spec.container_id);
        let progress = folder.progress();
        match self.look(&spec.docker_name()).await {
            Ok(Look::Running(inspect)) => {
                let mut started = started(&inspect);
                if progress.started_ms > 0 {
                    started.started_ms = progress.started_ms;
                }
                Ok(Found::Running(self.attach(
                    spec,
                    folder,
                    wake,
                    Some(started),
                )))
            }
            Ok(Look::Ended {
                exit,
                out_of_memory,
                memory_limit,
            }) => {
                // What it wrote after the agent's death goes to the sandbox first.
                let mut attached = self.attach(spec, folder, wake, None);
                let _ = attached.log_ended.send(true);
                if let Some(log) = &mut attached.log {
                    let _ = tokio::time::timeout(DRAIN, log).await;
                }
                Ok(Found::Ended(Engine::termination(
                    (exit, out_of_memory, memory_limit),
                    progress.limitation,
                    progress.killed,
                )))
            }
            Ok(Look::Created | Look::Missing) if progress.started_ms == 0 => {
                self.remove(&spec.container_id).await?;
                Ok(Found::Nothing)
            }
            Ok(Look::Created | Look::Missing) => Ok(Found::Ended(Engine::termination(
                (Exit::Unknown, false, 0),
                progress.limitation,
                progress.killed,
            ))),
            Err(error) => {
                tracing::warn!(container = spec.container_id, %error, "waiting for docker");
                Ok(Found::Running(self.attach(spec, folder, wake, None)))
            }
        }
    }

    /// Ids of all containers of ours on the engine.
    pub async fn list(&self) -> Result<Vec<String>, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([(
                "label".into(),
                vec![format!("{OWNER_LABEL}={}", self.owner)],
            )])),
            ..ListContainersOptions::default()
        };
        let all = self
            .client
            .call("list", |docker| docker.list_containers(Some(options)))
            .await?;
        Ok(all
            .into_iter()
            .filter_map(|it| it.labels?.remove(CONTAINER_LABEL))
            .collect())
    }

    /// Deletes a container, running or not; no error when it is gone.
    pub async fn remove(&self, id: &str) -> Result<(), EngineError> {
        match remove(&self.client, id).await {
            Ok(()) => Ok(()),
            // Gone, or going.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends the registration for events.
    pub fn forget(&self, id: &str) {
        self.hub.forget(id);
    }

    /// Runs a command inside a container.
    pub async fn exec(
        &self,
        spec: &ContainerSpec,
        command: &wire::CommandInfo,
        timeout: Option<Duration>,
    ) -> Result<Exit, String> {
        let name = spec.docker_name();
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(words_of(command)?),
            env: Some(
                crate::process::protocol_variables(command)
                    .map_err(|it| it.message)?
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            ),
            user: command.user.clone(),
            ..ExecConfig::default()
        };
        let exec = self
            .client
            .call("create exec", |docker| docker.create_exec(&name, config))
            .await
            .map_err(|it| it.to_string())?;
        let output = self
            .client
            .call("start exec", |docker| docker.start_exec(&exec.id, None))
            .await
            .map_err(|it| it.to_string())?;
        if let bollard::exec::StartExecResults::Attached { mut output, .. } = output {
            // Its end is the end of the command.
            let drained = async { while output.next().await.is_some() {} };
            let done = match timeout {
                Some(limit) => tokio::time::timeout(limit, drained).await.is_ok(),
                None => {
                    drained.await;
                    true
                }
            };
            if !done {
                self.kill_exec(&exec.id).await;
                let limit = timeout.unwrap_or_default().as_millis();
                return Err(format!("timed out after {limit} ms"));
            }
        }
        let state = self
            .client
            .call("inspect exec", |docker| docker.inspect_exec(&exec.id))
            .await
            .map_err(|it| it.to_string())?;
        Ok(state
            .exit_code
            .map_or(Exit::Unknown, |it| Exit::Code(it as i32)))
    }

    /// The engine cannot kill an exec, but it tells its process.
    async fn kill_exec(&self, id: &str) {
        let state = self
            .client
            .call("inspect exec", |docker| docker.inspect_exec(id))
            .await;
        if let Ok(state) = state
            && state.running == Some(true)
            && let Some(pid) = state.pid.and_then(|it| i32::try_from(it).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The words that a check's command comes to inside of a container.
fn words_of(command: &wire::CommandInfo) -> Result<Vec<String>, String> {
    let value = command.value.clone().ok_or("command.value is missing")?;
    if command.shell.unwrap_or(true) {
        return Ok(vec!["/bin/sh".into(), "-c".into(), value]);
    }
    // arguments[0] is argv[0], which the engine takes from the program.
    Ok([value]
        .into_iter()
        .chain(command.arguments.iter().skip(1).cloned())
        .collect())
}

/// Credentials that the task fetched into its sandbox, as `docker pull` with the sandbox as
/// home directory would find them.
fn sandbox_config(sandbox: &Path) -> Option<String> {
    [".docker/config.json", ".dockercfg"]
        .iter()
        .find_map(|it| std::fs::read_to_string(sandbox.join(it)).ok())
}

fn started(inspect: &ContainerInspectResponse) -> Started {
    let state = inspect.state.as_ref();
    let networks = inspect
        .network_settings
        .as_ref()
        .and_then(|it| it.networks.as_ref());
    let mut ip_addresses: Vec<String> = networks
        .into_iter()
        .flat_map(HashMap::values)
        .flat_map(|it| [it.ip_address.clone(), it.global_ipv6_address.clone()])
        .flatten()
        .filter(|it| !it.is_empty())
        .collect();
    ip_addresses.sort();
    Started {
        pid: state
            .and_then(|it| it.pid)
            .and_then(|it| u32::try_from(it).ok())
            .unwrap_or(0),
        ip_addresses,
        inspect: serde_json::to_string(&[inspect]).ok(),
        started_ms: now_ms(),
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// All memory of the machine in bytes.
fn total_memory() -> u64 {
    use procfs::Current;
    procfs::Meminfo::current().map_or(0, |it| it.mem_total)
}

async fn remove(client: &Client, id: &str) -> Result<(), EngineError> {
    let name = format!("mesos-{id}");
    let options = RemoveContainerOptions {
        v: true,
        force: true,
        link: false,
    };
    let removed = client.call("remove", |docker| async {
        docker.remove_container(&name, Some(options)).await
    });
    removed.await
}

/// Removes a container that the engine may still make: it did not answer, and carries out what
/// waited when it comes to life again. Should the agent end before, the container is an orphan
/// of its next start.
async fn remove_doubtful(client: Client, id: String) {
    let mut absences = 0;
    while absences < ABSENCES {
        tokio::time::sleep(DOUBT_INTERVAL).await;
        match remove(&client, &id).await {
            Ok(()) => return,
            Err(error) if error.is_not_found() => absences += 1,
            Err(error) => tracing::debug!(container = id, %error, "remove what may be there"),
        }
    }
}
