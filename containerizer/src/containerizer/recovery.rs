//! After a restart of the agent: what still runs is attached to, what nobody expects is removed.

use super::{Containerizer, Handle, Inner, Phase, Running, lock};
use crate::{
    docker,
    error::Error,
    event::{Recovered, RecoveredState, Started},
    process::{self, End},
    runtime::{Folder, validate_id},
    spec::Kind,
};
use futures_util::{StreamExt, stream};
use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

/// Containers that are looked for at the same time; more would only queue at the engine.
const RECOVER_AT_ONCE: usize = 16;

impl Containerizer {
    /// Finds the containers of an earlier life of this agent: attaches to those expected and
    /// kills and removes everything else that carries our `owner`.
    ///
    /// # Errors
    /// When the runtime directory cannot be read. An engine that does not answer is waited
    /// for in the background; its containers count as running until it says otherwise.
    pub async fn recover(&self, expected: &[String]) -> Result<Vec<Recovered>, Error> {
        let inner = &self.inner;
        let wanted: BTreeSet<&String> = expected.iter().collect();
        let recovered = stream::iter(expected)
            .map(|id| inner.clone().recover_one(id.clone()))
            .buffered(RECOVER_AT_ONCE)
            .collect()
            .await;
        let entries = fs::read_dir(&inner.config.runtime_dir)
            .map_err(Error::file("read", &inner.config.runtime_dir))?;
        for entry in entries.flatten() {
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            let is_folder = entry.file_type().is_ok_and(|it| it.is_dir());
            if is_folder && validate_id(&id).is_ok() && !wanted.contains(&id) {
                inner.clone().remove_orphan(id).await;
            }
        }
        if let Some(process) = &inner.process {
            for id in process.groups() {
                if !wanted.contains(&id) {
                    let _ = process.cleanup(&id).await;
                }
            }
        }
        if inner.removes_orphans(Kind::Docker) {
            let kept: BTreeSet<String> = expected.iter().cloned().collect();
            let inner = inner.clone();
            // An engine that is away must not hold up the processes.
            tokio::spawn(async move { inner.remove_docker_orphans(kept).await });
        }
        Ok(recovered)
    }
}

impl Inner {
    async fn recover_one(self: Arc<Self>, id: String) -> Recovered {
        let gone = |spec| Recovered {
            container_id: id.clone(),
            spec,
            state: RecoveredState::Gone,
        };
        if validate_id(&id).is_err() {
            return gone(None);
        }
        let folder = Folder::of(&self.config.runtime_dir, &id);
        let spec = match folder.spec() {
            Ok(Some(spec)) => spec,
            other => {
                if let Err(error) = other {
                    tracing::warn!(container = id, %error, "read the launch record");
                }
                // Without it nothing can be attached; what runs under this id is an orphan.
                if let Some(engine) = &self.docker {
                    let _ = engine.remove(&id).await;
                }
                if let Some(launcher) = &self.process {
                    let _ = launcher.cleanup(&id).await;
                }
                let _ = folder.remove();
                return gone(None);
            }
        };
        let handle = Arc::new(Handle::new(&self.config, spec));
        let progress = folder.progress();
        let found = match (handle.spec.kind, &self.docker, &self.process) {
            (Kind::Docker, Some(engine), _) => match engine.find(&handle.spec, &folder).await {
                Ok(docker::Found::Running(attached)) => {
                    let started = attached.started.clone().unwrap_or_else(|| Started {
                        pid: 0,
                        ip_addresses: Vec::new(),
                        inspect: None,
                        started_ms: progress.started_ms,
                    });
                    Some(Ok((started, Running::Docker(attached))))
                }
                Ok(docker::Found::Ended(termination)) => Some(Err(termination)),
                Ok(docker::Found::Nothing) => None,
                Err(error) => {
                    tracing::warn!(container = id, %error, "look for a docker container");
                    None
                }
            },
            (Kind::Process, _, Some(launcher)) => match launcher.find(&handle.spec, &folder) {
                Ok(process::Found::Running(shim)) => Some(Ok((
                    process::started(&shim),
                    Running::Process(Box::new(shim)),
                ))),
                Ok(process::Found::Ended(end)) => {
                    Some(Err(self.process_termination(&handle, &end)))
                }
                Ok(process::Found::Nothing) => None,
                Err(error) => {
                    tracing::warn!(container = id, %error, "read the shim's files");
                    Some(Err(self.process_termination(&handle, &End::Lost)))
                }
            },
            // Nobody here could attach to it; an agent that can will find its files.
            (kind, _, _) => {
                tracing::error!(container = id, ?kind, "its containerizer is not there");
                return gone(Some(handle.spec.clone()));
            }
        };
        let state = match found {
            None => {
                let _ = self.discard(&handle).await;
                return gone(Some(handle.spec.clone()));
            }
            Some(Err(termination)) => {
                *lock(&handle.phase) = Phase::Ended;
                let _ = handle.ended.send_replace(true);
                lock(&self.containers).insert(id.clone(), handle.clone());
                RecoveredState::Exited(termination)
            }
            Some(Ok((started, running))) => {
                *lock(&handle.phase) = Phase::Running(started.clone());
                lock(&self.containers).insert(id.clone(), handle.clone());
                // A grace that was running starts anew: when it began is not known.
                if progress.killed || progress.limitation.is_some() {
                    handle.kill(handle.spec.kill_grace, progress.limitation.clone());
                }
                let driver = tokio::spawn(self.clone().watch(handle.clone(), running));
                *lock(&handle.driver) = Some(driver.abort_handle());
                RecoveredState::Running(started)
            }
        };
        Recovered {
            container_id: id.clone(),
            spec: Some(handle.spec.clone()),
            state,
        }
    }

    /// Whether containers of this kind that nobody expects are ours to remove.
    fn removes_orphans(&self, kind: Kind) -> bool {
        match kind {
            Kind::Docker => {
                let wanted = self
                    .config
                    .docker
                    .as_ref()
                    .is_some_and(|it| it.kill_orphans);
                wanted && self.docker.is_some()
            }
            Kind::Process => self.process.is_some(),
        }
    }

    /// Kills and removes a container that nobody expects.
    async fn remove_orphan(self: Arc<Self>, id: String) {
        tracing::info!(container = id, "removing an orphan");
        let folder = Folder::of(&self.config.runtime_dir, &id);
        if let Ok(Some(spec)) = folder.spec() {
            let handle = Handle::new(&self.config, spec);
            if !self.removes_orphans(handle.spec.kind) {
                return;
            }
            if let (Kind::Process, Some(launcher)) = (handle.spec.kind, &self.process)
                && let Ok(process::Found::Running(mut shim)) = launcher.find(&handle.spec, &folder)
            {
                let _ = shim.kill(Duration::ZERO);
                shim.ended().await;
            }
            if let Err(error) = self.discard(&handle).await {
                // The next start tries again.
                tracing::warn!(container = id, %error, "remove an orphan");
            }
        } else {
            let _ = folder.remove();
        }
    }

    async fn remove_docker_orphans(&self, expected: BTreeSet<String>) {
        let Some(engine) = &self.docker else { return };
        let found = loop {
            match engine.list().await {
                Ok(found) => break found,
                Err(error) => tracing::debug!(%error, "list containers"),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        };
        for id in found {
            // Launched meanwhile is no orphan.
            if expected.contains(&id) || lock(&self.containers).contains_key(&id) {
                continue;
            }
            tracing::info!(container = id, "removing an orphan from docker");
            if let Err(error) = engine.remove(&id).await {
                tracing::warn!(container = id, %error, "remove an orphan");
            }
        }
    }
}
