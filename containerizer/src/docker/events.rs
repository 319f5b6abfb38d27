//! The engine's event stream: one for the agent, kept alive.
//!
//! An event is only a reason to look: whoever waits for a container registers here, inspects,
//! and inspects again after each bump. So nothing depends on the content or the order of
//! events, and after a broken connection everybody is bumped once.

use super::{
    engine::Client,
    mapping::{CONTAINER_LABEL, OWNER_LABEL},
};
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;
use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// First pause before a new connection; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a new connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Who waits for which container.
#[derive(Clone, Default)]
pub(crate) struct Hub {
    waiting: Arc<Mutex<HashMap<String, watch::Sender<u64>>>>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<u64>>> {
        // Nothing in a critical section here can panic half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers for a container; the receiver changes whenever it may have changed.
    pub fn register(&self, id: &str) -> watch::Receiver<u64> {
        self.lock()
            .entry(id.to_owned())
            .or_insert_with(|| watch::channel(0).0)
            .subscribe()
    }

    /// Ends a registration.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn bump(&self, id: &str) {
        if let Some(sender) = self.lock().get(id) {
            sender.send_modify(|it| *it += 1);
        }
    }

    fn bump_all(&self) {
        for sender in self.lock().values() {
            sender.send_modify(|it| *it += 1);
        }
    }

    /// Reads events for ever.
    pub async fn run(self, client: Client, owner: String) {
        let mut pause = FIRST_PAUSE;
        loop {
            match client.docker().await {
                Ok(docker) => {
                    // The engine repeats what happened since a time, so nothing is missed
                    // between the look that a bump causes and the first event read.
                    let since = crate::runtime::now_ms() / 1000;
                    let stream = docker.events(Some(EventsOptions {
                        since: Some(since.to_string()),
                        until: None,
                        filters: Some(HashMap::from([
                            ("type".into(), vec!["container".into()]),
                            (
                                "event".into(),
                                vec!["die".into(), "destroy".into(), "oom".into()],
                            ),
                            ("label".into(), vec![format!("{OWNER_LABEL}={owner}")]),
                        ])),
                    }));
                    let mut stream = pin!(stream);
                    self.bump_all();
                    while let Some(event) = stream.next().await {
                        match event {
                            Ok(event) => {
                                pause = FIRST_PAUSE;
                                let id = event
                                    .actor
                                    .and_then(|it| it.attributes)
                                    .and_then(|mut it| it.remove(CONTAINER_LABEL));
                                if let Some(id) = id {
                                    self.bump(&id);
                                }
                            }
                            Err(error) => {
                                tracing::warn!(%error, "docker event stream broke");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "docker engine does not answer"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
