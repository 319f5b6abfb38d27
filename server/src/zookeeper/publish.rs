//! The leader's node.
//!
//! Old clients take the child with the lowest number for the leader, and in Mesos every master
//! has one. Here Raft decides, so the leader alone has a node. A fence says for which leadership and on whose session the node is: who takes over
//! changes the fence, removes the old node and makes its own in one transaction, and who has
//! been replaced without knowing cannot touch the fence any more, since only a later
//! leadership may.

use super::{
    LABEL,
    keeper::Keeper,
    session::{Access, Code, Error, Mode, Session, Step},
    url::Url,
};
use bytes::Bytes;
use std::time::Duration;
use tokio::{sync::watch, time::sleep};

/// Mesos' masters keep this beside their nodes, so every old client skips it; some would take
/// anything else for a master.
const SKIPPED: &str = "log_replicas";
/// Name of the fence in there: without a number at its end it is no replica of Mesos.
const FENCE: &str = "tepui_fence";
/// Between two looks when there is no news.
const LOOK: Duration = Duration::from_secs(10);
/// After a transaction that others disturbed.
const AGAIN: Duration = Duration::from_millis(100);

/// What the leader of a cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Whose leader it is.
    pub cluster_id: String,
    /// Rises when the cluster is restored from a backup.
    pub incarnation: u64,
    /// Rises with every leadership.
    pub term: u64,
    /// MasterInfo as JSON.
    pub info: Bytes,
}

/// What the fence says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fence {
    cluster_id: String,
    incarnation: u64,
    term: u64,
    /// On which the leader's node is.
    session: i64,
}

impl Fence {
    fn encode(&self) -> Bytes {
        let value = serde_json::json!({
            "cluster_id": self.cluster_id,
            "incarnation": self.incarnation,
            "term": self.term,
            "session": self.session,
        });
        value.to_string().into()
    }

    fn decode(bytes: &[u8]) -> Option<Fence> {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        Some(Fence {
            cluster_id: value["cluster_id"].as_str()?.to_owned(),
            incarnation: value["incarnation"].as_u64()?,
            term: value["term"].as_u64()?,
            session: value["session"].as_i64()?,
        })
    }
}

/// Publishes whoever `leader` names, as long as it names somebody: through lost connections and
/// sessions. Returns when `leader` is closed, and takes the node away then.
pub async fn publish(
    url: Url,
    session_timeout: Duration,
    mut leader: watch::Receiver<Option<Leader>>,
) {
    let mut publisher = Publisher {
        access: match url.credentials {
            Some(_) => Access::Creator,
            None => Access::Open,
        },
        path: url.path.clone(),
        own: None,
        complained: None,
    };
    let mut keeper = Keeper::new(url, session_timeout);
    loop {
        let mut session = tokio::select! {
            session = keeper.connect() => session,
            () = closed(&mut leader) => return,
        };
        let ended = publisher.serve(&mut session, &mut leader).await;
        match ended {
            Ok(()) => {
                session.close().await;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "ZooKeeper: the leader is published again when it can be");
                // Refusals that stay must not make a busy loop.
                sleep(AGAIN).await;
            }
        }
    }
}

async fn closed(leader: &mut watch::Receiver<Option<Leader>>) {
    while leader.changed().await.is_ok() {}
}

struct Publisher {
    path: String,
    access: Access,
    /// The node that was made last, and what for.
    own: Option<(String, Leader)>,
    /// What was last complained about.
    complained: Option<String>,
}

impl Publisher {
    /// Until `leader` is closed.
    async fn serve(
        &mut self,
        session: &mut Session,
        leader: &mut watch::Receiver<Option<Leader>>,
    ) -> Result<(), Error> {
        loop {
            let wanted = leader.borrow_and_update().clone();
            let wait = match wanted {
                Some(wanted) => self.stand(session, &wanted).await?,
                None => {
                    self.stand_down(session).await?;
                    LOOK
                }
            };
            tokio::select! {
                changed = leader.changed() => {
                    if changed.is_err() {
                        return self.stand_down(session).await;
                    }
                }
                event = session.event() => event?,
                () = sleep(wait) => {}
            }
        }
    }

    async fn stand_down(&mut self, session: &Session) -> Result<(), Error> {
        if let Some((node, _)) = &self.own {
            session.delete(node).await?;
            tracing::info!(node, "ZooKeeper: this master is not published any more");
            self.own = None;
        }
        Ok(())
    }

    /// Sees to it that the leader has the one node; how long to wait until the next look.
    async fn stand(&mut self, session: &Session, leader: &Leader) -> Result<Duration, Error> {
        let fence_path = format!("{}/{SKIPPED}/{FENCE}", self.path);
        let Some(children) = session.children(&self.path).await? else {
            self.make_path(session).await?;
            return Ok(Duration::ZERO);
        };
        let Some((data, stat)) = session.data(&fence_path).await? else {
            self.make(session, &format!("{}/{SKIPPED}", self.path), b"")
                .await?;
            self.make(session, &fence_path, b"{}").await?;
            return Ok(Duration::ZERO);
        };
        let fence = Fence::decode(&data);
        let mine = Fence {
            cluster_id: leader.cluster_id.clone(),
            incarnation: leader.incarnation,
            term: leader.term,
            session: session.ticket.id,
        };
        let before = fence.as_ref().map(|it| it.session);
        let (mut published, mut steps, mut strangers) = (None, Vec::new(), Vec::new());
        for child in children.iter().filter(|it| it.starts_with(LABEL)) {
            let path = format!("{}/{child}", self.path);
            let Some(stat) = session.exists(&path, false).await? else {
                continue;
            };
            let is_own = self.own.as_ref().is_some_and(|(own, what)| {
                *own == path && stat.owner == mine.session && what == leader
            });
            if is_own {
                published = Some(path);
            } else if stat.owner == mine.session || Some(stat.owner) == before {
                steps.push(Step::Delete { path });
            } else {
                strangers.push(child.clone());
            }
        }
        if let Some(fence) = fence {
            let foreign = fence.cluster_id != mine.cluster_id;
            if foreign && !steps.is_empty() {
                let other = fence.cluster_id;
                self.complain(format!(
                    "the path is used by the leader of another cluster, {other}: give each \
                     cluster a path of its own"
                ));
                return Ok(LOOK);
            }
            if !foreign && (fence.incarnation, fence.term) > (mine.incarnation, mine.term) {
                // This master will hear of it soon.
                return Ok(LOOK);
            }
        }
        if !strangers.is_empty() {
            let strangers = strangers.join(", ");
            self.complain(format!(
                "masters that are not of this cluster are published, too: {strangers}; clients \
                 that take the lowest number may go there"
            ));
        }
        if published.is_some() && steps.is_empty() {
            return Ok(LOOK);
        }
        steps.insert(
            0,
            Step::SetData {
                path: fence_path,
                data: mine.encode(),
                version: stat.version,
            },
        );
        if published.is_none() {
            steps.push(Step::Create {
                path: format!("{}/{LABEL}", self.path),
                data: leader.info.clone(),
                access: self.access,
                mode: Mode::EphemeralSequential,
            });
        }
        match session.multi(&steps).await {
            Ok(made) => {
                if let Some(node) = made.into_iter().next() {
                    tracing::info!(
                        node,
                        term = leader.term,
                        "ZooKeeper: the leader is published"
                    );
                    self.own = Some((node, leader.clone()));
                }
                self.complained = None;
                Ok(Duration::ZERO)
            }
            // Another one changed it meanwhile, or a node ended with its session.
            Err(Error::Refused(Code::BadVersion | Code::NoNode)) => Ok(AGAIN),
            Err(error) => Err(error),
        }
    }

    async fn make_path(&self, session: &Session) -> Result<(), Error> {
        let mut path = String::new();
        for part in self.path.split('/').filter(|it| !it.is_empty()) {
            path = format!("{path}/{part}");
            self.make(session, &path, b"").await?;
        }
        Ok(())
    }

    /// Makes a node that stays, unless it is there.
    async fn make(&self, session: &Session, path: &str, data: &[u8]) -> Result<(), Error> {
        match session.create(path, data, self.access).await {
            Ok(()) | Err(Error::Refused(Code::NodeExists)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn complain(&mut self, problem: String) {
        if self.complained.as_ref() != Some(&problem) {
            tracing::error!(path = self.path, problem, "ZooKeeper");
            self.complained = Some(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_are_read_as_they_are_written() {
        let fence = Fence {
            cluster_id: "c".to_owned(),
            incarnation: 2,
            term: 7,
            session: i64::MIN,
        };
        assert_eq!(Fence::decode(&fence.encode()), Some(fence));
        for other in ["", "{}", "[1]", "{\"term\":1}"] {
            assert_eq!(Fence::decode(other.as_bytes()), None);
        }
    }
}
