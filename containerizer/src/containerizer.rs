//! The face of the crate: the map of containers and a driver task for each.

use crate::{
    config::Config,
    error::Error,
    event::{ContainerEvent, Exit, Recovered},
    spec::{ContainerSpec, Kind},
};
use std::{path::Path, sync::Arc, time::Duration};
use tepui_model::wire;
use tokio::sync::mpsc;

/// Runs containers. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Containerizer {
    inner: Arc<Inner>,
}

struct Inner {
    _config: Config,
    _events: mpsc::Sender<ContainerEvent>,
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
        Ok(Containerizer {
            inner: Arc::new(Inner {
                _config: config,
                _events: events,
            }),
        })
    }

    /// Reads the permanent name of an agent's work directory from `<dir>/owner`, or makes one.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn owner_of(_dir: &Path) -> Result<String, Error> {
        Ok(String::new())
    }

    /// Why a containerizer is not there; `None` when it is.
    pub fn unavailable(&self, kind: Kind) -> Option<String> {
        Some(format!("{kind:?}"))
    }

    /// Starts to launch. The answer only says that the launch is on disk and under way;
    /// `Started` or `LaunchFailed` follows as an event.
    ///
    /// # Errors
    /// A bad or known id, a containerizer that is not there, or a full disk. No event follows.
    pub async fn launch(&self, spec: ContainerSpec) -> Result<(), Error> {
        Err(Error::NotFound(spec.container_id))
    }

    /// Sends SIGTERM to the whole process tree and SIGKILL after the grace (the spec's
    /// `kill_grace` when `None`). Repeated, it can only shorten a running grace. The end comes
    /// as an event, with `killed` set. No effect on a container that has ended.
    ///
    /// # Errors
    /// An unknown container.
    pub async fn kill(&self, id: &str, _grace: Option<Duration>) -> Result<(), Error> {
        Err(Error::NotFound(id.into()))
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
    pub async fn remove(&self, _id: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Finds the containers of an earlier life of this agent: attaches to those expected and
    /// kills and removes everything else that carries our `owner`.
    ///
    /// # Errors
    /// When the runtime directory cannot be read. An engine that does not answer is waited
    /// for in the background; its containers count as running until it says otherwise.
    pub async fn recover(&self, _expected: &[String]) -> Result<Vec<Recovered>, Error> {
        Ok(Vec::new())
    }

    /// What a container uses now: processor, memory, processes and disk, read from its cgroup.
    ///
    /// # Errors
    /// Unknown or not running.
    pub async fn statistics(&self, id: &str) -> Result<wire::ResourceStatistics, Error> {
        Err(Error::NotFound(id.into()))
    }

    /// Process id and addresses of a container.
    ///
    /// # Errors
    /// Unknown or not running.
    pub async fn status(&self, id: &str) -> Result<wire::ContainerStatus, Error> {
        Err(Error::NotFound(id.into()))
    }

    /// Runs a command inside a running container, as its user and in its namespaces, and waits
    /// for it; it is killed when `timeout` passes.
    ///
    /// # Errors
    /// Unknown or not running, or the command cannot be started, or it took too long.
    pub async fn exec(
        &self,
        id: &str,
        _command: &wire::CommandInfo,
        _timeout: Option<Duration>,
    ) -> Result<Exit, Error> {
        Err(Error::NotFound(id.into()))
    }

    /// Ids of all containers that are known and not removed.
    pub fn containers(&self) -> Vec<String> {
        Vec::new()
    }
}
