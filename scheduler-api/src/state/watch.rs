//! Watches that go on over a change of leader.

use super::{State, Variable, wire};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

/// Changes that may wait for the framework. Behind it the socket's flow control is the queue;
/// a master that cannot get rid of some MiB ends the watch, which then begins anew.
const WAITING: usize = 64;

/// At most so long is the pause after a watch that ended before it had begun.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(2);

/// What a watch shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// This variable is there now.
    Set(Variable),
    /// The variable of this name is not there any more.
    Expunged(String),
    /// What was shown until now is everything that there was at this revision. Comes once at
    /// the beginning and again whenever the watch had to begin anew.
    Current(u64),
}

/// The variables under a prefix and their changes. Ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::Receiver<Result<Change>>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    pub(super) fn start(state: State, prefix: String) -> Watch {
        let (sender, changes) = mpsc::channel(WAITING);
        let follower = Follower {
            state,
            prefix,
            known: BTreeMap::new(),
            changes: sender,
        };
        let task = tokio::spawn(follower.run()).abort_handle();
        Watch { changes, task }
    }

    /// The next change, in the order of their revisions. What changed more than once while the
    /// watch was interrupted is shown as it is in the end.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the masters refuse the watch for good: nothing comes after it.
    pub async fn next(&mut self) -> Result<Change> {
        self.changes.recv().await.unwrap_or(Err(Error::Closed))
    }
}

struct Follower {
    state: State,
    prefix: String,
    /// Versions of what was shown, by name.
    known: BTreeMap<String, u64>,
    changes: mpsc::Sender<Result<Change>>,
}

/// Nobody listens any more.
struct Gone;

impl Follower {
    async fn run(mut self) {
        loop {
            let request = wire::WatchRequest {
                prefix: self.prefix.clone(),
            };
            // For as long as it takes.
            let until = Instant::now() + std::time::Duration::from_secs(3600);
            match self.state.call_until(request, until).await {
                Ok(events) => {
                    let Ok(complete) = self.follow(events).await else {
                        return;
                    };
                    if !complete {
                        // Too many watches, perhaps: not again at once.
                        tokio::time::sleep(PAUSE.mul_f64(rand::random())).await;
                    }
                }
                Err(Error::Disconnected(cause)) => {
                    tracing::info!(cause, "a watch of variables is not open");
                }
                Err(error) => {
                    // The receiver may be gone, too.
                    let _ = self.changes.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// Whether the snapshot was complete when the stream ended.
    async fn follow(
        &mut self,
        mut events: tonic::Streaming<wire::WatchEvent>,
    ) -> Result<bool, Gone> {
        use wire::watch_event::Kind;
        let mut complete = false;
        let mut listed = BTreeMap::new();
        loop {
            let event = match events.message().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(complete),
                Err(status) => {
                    tracing::debug!(status = status.message(), "a watch begins anew");
                    return Ok(complete);
                }
            };
            match event.kind {
                Some(Kind::Snapshot(part)) => {
                    for variable in part.variables {
                        listed.insert(variable.name.clone(), variable.version);
                        self.set(variable).await?;
                    }
                    if part.last {
                        let gone = self.known.keys().filter(|it| !listed.contains_key(*it));
                        for name in gone.cloned().collect::<Vec<_>>() {
                            self.expunged(name).await?;
                        }
                        listed = BTreeMap::new();
                        complete = true;
                        self.state.saw(part.revision);
                        self.tell(Change::Current(part.revision)).await?;
                    }
                }
                Some(Kind::Change(change)) => {
                    self.state.saw(change.revision);
                    if let Some(variable) = change.set {
                        self.set(variable).await?;
                    }
                    for name in change.expunged {
                        self.expunged(name).await?;
                    }
                }
                None => {}
            }
        }
    }

    async fn set(&mut self, variable: wire::Variable) -> Result<(), Gone> {
        let (name, version) = (variable.name.clone(), variable.version);
        match self.known.insert(name, version) {
            Some(known) if known == version => Ok(()),
            _ => self.tell(Change::Set(variable.into())).await,
        }
    }

    async fn expunged(&mut self, name: String) -> Result<(), Gone> {
        match self.known.remove(&name) {
            Some(_) => self.tell(Change::Expunged(name)).await,
            None => Ok(()),
        }
    }

    async fn tell(&self, change: Change) -> Result<(), Gone> {
        self.changes.send(Ok(change)).await.map_err(|_| Gone)
    }
}
