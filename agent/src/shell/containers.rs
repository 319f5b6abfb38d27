//! Between the machine and the containerizer: orders one way, events the other.
//!
//! Each container has a queue and a task of its own, so that an engine that is slow with one
//! does not delay the others, and never the machine.

use crate::shell::{
    agent_loop::Inbox,
    gc::Collector,
    spec::{self, Context},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tepui_agent_machine::{
    input::{ContainerEvent, Ended, Input, Limit, RecoveredState},
    output::{ContainerCommand, Launch},
};
use tepui_containerizer::{
    self as containerizer, Containerizer, Error, FailureClass, Limitation, users,
};
use tokio::sync::mpsc;

/// Events of containers that wait for the machine, which waits for no container.
pub(crate) const EVENTS: usize = 1024;
/// Between two tries to remove what is left of a container.
const REMOVE_RETRY: Duration = Duration::from_secs(5);
/// Tries until what is left of a container is left to the next start of the agent.
const REMOVE_TRIES: usize = 60;

/// What the tasks of all containers share.
pub(crate) struct Containers {
    pub(crate) containerizer: Containerizer,
    pub(crate) context: Context,
    pub(crate) inbox: Inbox,
    pub(crate) collector: Arc<Collector>,
    /// How long a Docker container stays after its end.
    pub(crate) docker_remove_delay: Duration,
    marks: Mutex<Marks>,
    /// Not bounded by itself: each task has at most a launch, its kills and a removal in it.
    orders: mpsc::UnboundedSender<ContainerCommand>,
}

/// Orders that wait to be handed to the queues of their containers.
pub(crate) type Orders = mpsc::UnboundedReceiver<ContainerCommand>;

/// What is known of containers that are not removed.
#[derive(Debug, Default)]
struct Marks {
    /// They have to end.
    killed: BTreeSet<String>,
    /// They are the Docker engine's.
    docker: BTreeSet<String>,
    /// Nothing more is launched.
    stopped: bool,
}

impl Containers {
    /// With nothing launched yet.
    pub(crate) fn new(
        containerizer: Containerizer,
        context: Context,
        inbox: Inbox,
        collector: Arc<Collector>,
        docker_remove_delay: Duration,
    ) -> (Arc<Containers>, Orders) {
        let (orders, waiting) = mpsc::unbounded_channel();
        let containers = Arc::new(Containers {
            containerizer,
            context,
            inbox,
            collector,
            docker_remove_delay,
            marks: Mutex::default(),
            orders,
        });
        (containers, waiting)
    }

    /// Takes an order of the machine, without waiting.
    pub(crate) fn order(&self, command: ContainerCommand) {
        if let ContainerCommand::Kill { container_id, .. } = &command {
            // Before anybody can ask whether it has ended.
            self.marks().killed.insert(container_id.clone());
        }
        // An agent that ends obeys no more.
        let _ = self.orders.send(command);
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        // Nothing can panic half-way through a change.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of all containers: they live on, and no launch follows.
    pub(crate) fn detach(&self) {
        self.marks().stopped = true;
        self.containerizer.detach();
    }

    /// Carries out the orders of the machine, for ever.
    pub(crate) async fn obey(self: Arc<Self>, mut commands: Orders) {
        // Queues of containers that were not removed yet, as few as their tasks.
        let mut queues: BTreeMap<String, mpsc::UnboundedSender<ContainerCommand>> = BTreeMap::new();
        while let Some(command) = commands.recv().await {
            let (id, last) = match &command {
                ContainerCommand::Launch(launch) => (&launch.container_id, false),
                ContainerCommand::Kill { container_id, .. } => (container_id, false),
                ContainerCommand::Remove { container_id } => (container_id, true),
            };
            let id = id.clone();
            let queue = queues.entry(id.clone()).or_insert_with(|| {
                let (sender, receiver) = mpsc::unbounded_channel();
                tokio::spawn(self.clone().serve(id.clone(), receiver));
                sender
            });
            // The task ends with its queue, or behind the removal.
            let _ = queue.send(command);
            if last {
                queues.remove(&id);
            }
        }
    }

    /// The orders for one container, one after the other.
    async fn serve(
        self: Arc<Self>,
        id: String,
        mut commands: mpsc::UnboundedReceiver<ContainerCommand>,
    ) {
        while let Some(command) = commands.recv().await {
            match command {
                ContainerCommand::Launch(launch) => self.launch(*launch).await,
                ContainerCommand::Kill { grace, .. } => self.kill(&id, grace).await,
                ContainerCommand::Remove { .. } => return self.remove(&id).await,
            }
        }
    }

    async fn tell(&self, id: &str, event: ContainerEvent) {
        let container_id = id.to_owned();
        self.inbox
            .input(Input::Container {
                container_id,
                event,
            })
            .await;
    }

    async fn launch(&self, launch: Launch) {
        let id = launch.container_id.clone();
        match self.try_launch(launch).await {
            Ok(()) => {}
            Err((message, unknown_user)) => {
                tracing::info!(container = id, message, "not launched");
                let killed = self.marks().killed.contains(&id);
                self.tell(
                    &id,
                    ContainerEvent::LaunchFailed {
                        killed,
                        unknown_user,
                        message,
                    },
                )
                .await;
            }
        }
    }

    async fn try_launch(&self, launch: Launch) -> Result<(), (String, bool)> {
        let spec = spec::spec(&launch, &self.context).map_err(|it| (it, false))?;
        let mut owner = None;
        if let (Some(name), containerizer::Kind::Process) = (&spec.user, spec.kind) {
            let name = name.clone();
            // The user database may be a directory service.
            let found = tokio::task::spawn_blocking(move || (users::find(&name), name)).await;
            let (found, name) = found.map_err(|it| (it.to_string(), false))?;
            owner = match found {
                Ok(Some(user)) => Some(user),
                Ok(None) => {
                    return Err((format!("there is no user {name:?} on this machine"), true));
                }
                Err(error) => {
                    return Err((format!("user {name:?} cannot be looked up: {error}"), true));
                }
            };
        }
        for (folder, ..) in &spec.volumes {
            give_volume(folder, owner.as_ref()).map_err(|it| (it, false))?;
        }
        self.collector.keep(&spec.sandbox);
        let sandbox = spec.sandbox.clone();
        {
            let mut marks = self.marks();
            if marks.stopped {
                // As if this process had ended before: the next one sees that nothing runs.
                return Ok(());
            }
            if spec.kind == containerizer::Kind::Docker {
                marks.docker.insert(spec.container_id.clone());
            }
        }
        match self.containerizer.launch(spec).await {
            Ok(()) => {}
            // The machine may repeat itself.
            Err(Error::Duplicate(_)) => return Ok(()),
            Err(error) => {
                self.collector.release(&sandbox);
                return Err((describe(&error), false));
            }
        }
        Ok(())
    }

    async fn kill(&self, id: &str, grace: Option<Duration>) {
        if let Err(error) = self.containerizer.kill(id, grace).await {
            // It is not there, so it is over. When the machine knows that already, the first
            // word about the end counts.
            let event = ContainerEvent::LaunchFailed {
                killed: true,
                unknown_user: false,
                message: describe(&error),
            };
            self.marks().killed.remove(id);
            self.tell(id, event).await;
        }
    }

    async fn remove(&self, id: &str) {
        let docker = {
            let mut marks = self.marks();
            marks.killed.remove(id);
            marks.docker.remove(id)
        };
        let sandbox = self.collector.sandbox_of(id);
        if let Some(sandbox) = sandbox {
            self.collector.release(&sandbox);
        }
        if docker && !self.docker_remove_delay.is_zero() {
            // After a restart nobody expects it, and it is removed at once.
            tokio::time::sleep(self.docker_remove_delay).await;
        }
        for _ in 0..REMOVE_TRIES {
            match self.containerizer.remove(id).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(container = id, error = describe(&error), "not removed yet");
                }
            }
            tokio::time::sleep(REMOVE_RETRY).await;
        }
    }

    /// Tells the machine what the containerizer says.
    pub(crate) async fn listen(
        self: Arc<Self>,
        mut events: mpsc::Receiver<containerizer::ContainerEvent>,
    ) {
        while let Some(event) = events.recv().await {
            let id = event.container_id().to_owned();
            if ends(&event) {
                self.marks().killed.remove(&id);
            }
            self.tell(&id, translate(event)).await;
        }
    }

    /// Looks for the containers of an earlier life and tells the machine of each.
    ///
    /// # Errors
    /// The containerizer cannot say: it is better not to go on than to lose tasks.
    pub(crate) async fn recover(&self, expected: &[String]) -> Result<(), Error> {
        let found = self.containerizer.recover(expected).await?;
        for it in &found {
            if it
                .spec
                .as_ref()
                .is_some_and(|it| it.kind == containerizer::Kind::Docker)
            {
                self.marks().docker.insert(it.container_id.clone());
            }
        }
        let containers = found
            .into_iter()
            .filter_map(|it| Some((it.container_id, recovered(it.state)?)))
            .collect();
        self.inbox.input(Input::Recovered { containers }).await;
        Ok(())
    }

    /// Waits until every container that has to end has ended; at most this long.
    pub(crate) async fn await_killed(&self, patience: Duration) -> bool {
        let done = async {
            loop {
                let left = self.marks().killed.clone();
                let known = self.containerizer.containers();
                if !known.iter().any(|it| left.contains(it)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(patience, done).await.is_ok()
    }

    /// Ends every container that is left and removes it; at most this long.
    pub(crate) async fn destroy_all(&self, patience: Duration) {
        let removals = self
            .containerizer
            .containers()
            .into_iter()
            .map(|id| async move {
                // Kills what still runs, and waits for it.
                if let Err(error) = self.containerizer.remove(&id).await {
                    tracing::warn!(container = id, error = describe(&error), "left behind");
                }
            });
        let all = futures_util::future::join_all(removals);
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("some containers did not end in time");
        }
    }
}

/// Makes the folder of a persistent volume the user's of the task, as Mesos does; what is in
/// it stays as it is. A folder that is gone is not made again: its data are lost, and the
/// framework has to hear of that.
fn give_volume(folder: &Path, owner: Option<&users::User>) -> Result<(), String> {
    use std::os::unix::fs::{MetadataExt, chown};
    let path = folder.display();
    let metadata = std::fs::metadata(folder)
        .ok()
        .filter(|it| it.is_dir())
        .ok_or_else(|| format!("the persistent volume {path} is gone from this agent's disk"))?;
    match owner {
        Some(user) if users::is_root() && metadata.uid() != user.uid => {
            chown(folder, Some(user.uid), Some(user.gid))
                .map_err(|it| format!("the persistent volume {path} cannot be given away: {it}"))
        }
        _ => Ok(()),
    }
}

/// An error with its causes.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn ends(event: &containerizer::ContainerEvent) -> bool {
    use containerizer::ContainerEvent::{Exited, LaunchFailed};
    matches!(event, Exited { .. } | LaunchFailed { .. })
}

fn started(it: containerizer::Started) -> ContainerEvent {
    ContainerEvent::Started {
        pid: it.pid,
        ip_addresses: it.ip_addresses,
        data: it.inspect,
    }
}

fn exited(it: containerizer::Termination) -> ContainerEvent {
    ContainerEvent::Exited(Ended {
        success: it.exit.is_success(),
        killed: it.killed,
        limit: it.limitation.map(|limit| match limit {
            Limitation::Memory { limit_bytes: 0 } => Limit::Memory(None),
            Limitation::Memory { limit_bytes } => Limit::Memory(Some(limit_bytes >> 20)),
            Limitation::Disk { .. } => Limit::Disk,
            Limitation::CompletionTime => Limit::CompletionTime,
        }),
        message: it.message,
    })
}

fn translate(event: containerizer::ContainerEvent) -> ContainerEvent {
    use containerizer::ContainerEvent as From;
    match event {
        From::Started { started: it, .. } => started(it),
        From::LaunchFailed { class, message, .. } => ContainerEvent::LaunchFailed {
            killed: class == FailureClass::Killed,
            unknown_user: false,
            message,
        },
        From::Exited { termination, .. } => exited(termination),
        From::Health {
            healthy,
            kill,
            message,
            ..
        } => ContainerEvent::Health {
            healthy,
            kill,
            message,
        },
        From::Check { status, .. } => ContainerEvent::Check(status),
    }
}

/// Nothing for a container of which nothing was found.
fn recovered(state: containerizer::RecoveredState) -> Option<RecoveredState> {
    match state {
        containerizer::RecoveredState::Running(it) => Some(RecoveredState::Running(started(it))),
        containerizer::RecoveredState::Exited(it) => Some(RecoveredState::Over(exited(it))),
        containerizer::RecoveredState::Gone => None,
    }
}
