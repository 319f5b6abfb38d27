//! What the handlers share.

use super::metrics::Counters;
use crate::{
    config::{CAPABILITIES, Identity, Settings},
    endpoints::{
        containers::{Container, Filter, running},
        state::About,
    },
    shell::{agent_loop::Inbox, gc::Collector},
};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tepui_agent_machine::{
    model::wire,
    output::{AgentView, TaskView},
};
use tepui_containerizer::Containerizer;
use tepui_server::{auth::Realm, body::Refusal, files::Files, respond, version};

/// Containers asked at the same time for what they use; more would only compete for the same
/// few processors.
const ASKED_AT_ONCE: usize = 8;
/// A container that does not say what it uses within this time is shown without.
const STATISTICS: Duration = Duration::from_secs(5);

/// Parts of the agent that its handlers share.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    /// As the agent registers.
    pub(crate) info: wire::AgentInfo,
    pub(crate) inbox: Inbox,
    pub(crate) containerizer: Containerizer,
    pub(crate) files: Files,
    pub(crate) collector: Arc<Collector>,
    pub(crate) counters: Arc<Counters>,
    /// Seconds since the epoch.
    pub(crate) start_time: f64,
    /// Host name of the master on which the agent is registered.
    master: Mutex<Option<String>>,
}

/// Why something was not done: the status of Mesos and a text.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn refusal(self) -> Refusal {
        Box::new(respond::text(self.status, self.message))
    }
}

impl App {
    /// What handlers need; the agent starts now.
    pub(crate) fn new(
        settings: Settings,
        identity: Identity,
        inbox: Inbox,
        containerizer: Containerizer,
        files: Files,
        collector: Arc<Collector>,
        counters: Arc<Counters>,
    ) -> App {
        let info = settings.options(&identity).info;
        App {
            settings,
            identity,
            info,
            inbox,
            containerizer,
            files,
            collector,
            counters,
            start_time: now(),
            master: Mutex::new(None),
        }
    }

    /// Tells which master the agent is registered on (`host:port`).
    pub(crate) fn set_master(&self, address: &str) {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = Some(host.to_owned());
    }

    fn master(&self) -> Option<String> {
        self.master
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Refuses those who are not admitted.
    ///
    /// # Errors
    /// 401 with a challenge.
    pub(crate) fn admit(&self, realm: Realm, headers: &HeaderMap) -> Result<(), Refusal> {
        let header = headers
            .get(header::AUTHORIZATION)
            .and_then(|it| it.to_str().ok());
        let Err(refused) = self.settings.authority.admit(realm, header) else {
            return Ok(());
        };
        let mut response = respond::text(StatusCode::UNAUTHORIZED, refused.reason);
        let name = match realm {
            Realm::ReadOnly => "mesos-agent-readonly",
            _ => "mesos-agent-readwrite",
        };
        if let Ok(challenge) = HeaderValue::from_str(&format!("Basic realm=\"{name}\"")) {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        Err(Box::new(response))
    }

    /// What the agent knows now.
    ///
    /// # Errors
    /// 503 while it ends.
    pub(crate) async fn view(&self) -> Result<AgentView, Failure> {
        self.inbox.view().await.ok_or_else(|| {
            Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent is about to end\n",
            )
        })
    }

    /// What of the agent is not in its view.
    pub(crate) fn about(&self) -> About<'_> {
        About {
            version: version::fields(),
            start_time: self.start_time,
            info: &self.info,
            address: self.identity.address.to_string(),
            capabilities: CAPABILITIES,
            master_hostname: self.master(),
            log_dir: self.settings.flags.text("log_dir").map(str::to_owned),
            flags: self.settings.flags.rendered(),
            work_dir: &self.settings.work_dir,
        }
    }

    /// The running containers with what they use.
    pub(crate) async fn containers(&self, view: &AgentView, filter: &Filter) -> Vec<Container> {
        let wanted: Vec<TaskView> = running(view)
            .filter(|it| filter.takes(it))
            .cloned()
            .collect();
        let asked = wanted
            .into_iter()
            .map(|it| container(self.containerizer.clone(), it));
        // In order, so that answers are comparable.
        stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
    }
}

/// What a container uses; nothing when it ended a moment ago, or its engine is silent.
pub(crate) async fn statistics(
    containerizer: &Containerizer,
    id: &str,
) -> Option<wire::ResourceStatistics> {
    let asked = tokio::time::timeout(STATISTICS, containerizer.statistics(id)).await;
    asked.ok().and_then(Result::ok)
}

async fn container(containerizer: Containerizer, task: TaskView) -> Container {
    let id = &task.task.container_id;
    let statistics = statistics(&containerizer, id).await;
    let asked = tokio::time::timeout(STATISTICS, containerizer.status(id)).await;
    let status = asked.ok().and_then(Result::ok);
    Container::new(&task, status, statistics)
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |it| it.as_secs_f64())
}

/// Runs what reads the disk where that delays nobody.
///
/// # Panics
/// When `work` does.
pub(crate) async fn disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
