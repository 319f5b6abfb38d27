//! Who is published: the child with the lowest number, as in Mesos.

use super::{
    LABEL,
    keeper::Keeper,
    session::{Error, Session},
    url::Url,
};
use std::{net::IpAddr, time::Duration};
use tokio::{sync::watch, task::AbortHandle};

/// Between two looks when there is no news, and after a refusal.
const LOOK: Duration = Duration::from_secs(10);
/// After a problem with a server.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows who is published; ends when it is dropped.
#[derive(Debug)]
pub struct Detector {
    found: watch::Receiver<Option<String>>,
    task: AbortHandle,
}

impl Drop for Detector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Detector {
    /// Begins to look.
    pub fn start(url: Url, session_timeout: Duration) -> Detector {
        let (sender, found) = watch::channel(None);
        let task = tokio::spawn(follow(url, session_timeout, sender));
        Detector {
            found,
            task: task.abort_handle(),
        }
    }

    /// `host:port` of the leader, as last known: while ZooKeeper is away it stays what it was.
    pub fn leader(&self) -> Option<String> {
        self.found.borrow().clone()
    }

    /// Waits until it is another one, or none.
    pub async fn changed(&mut self) -> Option<String> {
        if self.found.changed().await.is_err() {
            // The task ends with this value alone.
            std::future::pending::<()>().await;
        }
        self.found.borrow_and_update().clone()
    }
}

async fn follow(url: Url, session_timeout: Duration, found: watch::Sender<Option<String>>) {
    let path = url.path.clone();
    let mut keeper = Keeper::new(url, session_timeout);
    loop {
        let mut session = keeper.connect().await;
        let error = loop {
            match leader(&session, &path).await {
                Ok(leader) => {
                    found.send_if_modified(|now| {
                        let changed = *now != leader;
                        if changed {
                            tracing::info!(leader, path, "ZooKeeper: the leader, as published");
                            *now = leader;
                        }
                        changed
                    });
                }
                Err(error) => break error,
            }
            let event = tokio::select! {
                event = session.event() => event,
                () = tokio::time::sleep(LOOK) => Ok(()),
            };
            if let Err(error) = event {
                break error;
            }
        };
        tracing::warn!(%error, path, "ZooKeeper: looking for the leader again");
        drop(session);
        tokio::time::sleep(match error {
            Error::Refused(_) | Error::Credentials => LOOK,
            _ => PAUSE,
        })
        .await;
    }
}

async fn leader(session: &Session, path: &str) -> Result<Option<String>, Error> {
    let Some(children) = session.children(path).await? else {
        // An event tells when it is made.
        session.exists(path, true).await?;
        return Ok(None);
    };
    let Some(child) = lowest(&children) else {
        return Ok(None);
    };
    let data = session.data(&format!("{path}/{child}")).await?;
    let leader = data.as_ref().and_then(|(data, _)| address(data));
    if data.is_some() && leader.is_none() {
        tracing::warn!(child, "ZooKeeper: no MasterInfo as JSON");
    }
    Ok(leader)
}

fn lowest(children: &[String]) -> Option<&String> {
    let number = |it: &&String| it.strip_prefix(LABEL)?.parse::<i64>().ok();
    let nodes = children.iter().filter(|it| number(it).is_some());
    nodes.min_by_key(number)
}

/// `host:port` out of MasterInfo as JSON.
fn address(data: &[u8]) -> Option<String> {
    let info: serde_json::Value = serde_json::from_slice(data).ok()?;
    let (address, outer) = (&info["address"], &info);
    let port = address["port"].as_u64().or(outer["port"].as_u64())?;
    let port = u16::try_from(port).ok()?;
    let host = address["ip"].as_str().or(outer["hostname"].as_str())?;
    Some(match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_number_leads() {
        let children =
            |names: &[&str]| -> Vec<String> { names.iter().map(|it| (*it).to_owned()).collect() };
        let some = children(&[
            "json.info_0000000010",
            "log_replicas",
            "json.info_0000000009",
            "info_0000000001",
            "json.info_x",
        ]);
        assert_eq!(lowest(&some).unwrap(), "json.info_0000000009");
        assert_eq!(lowest(&children(&["log_replicas"])), None);
    }

    #[test]
    fn addresses_of_masters() {
        let of = |text: &str| address(text.as_bytes());
        let mesos = r#"{"address":{"hostname":"h","ip":"10.0.0.1","port":5050},"port":5050}"#;
        assert_eq!(of(mesos).as_deref(), Some("10.0.0.1:5050"));
        assert_eq!(of(r#"{"hostname":"h","port":7}"#).as_deref(), Some("h:7"));
        let six = r#"{"address":{"ip":"::1","port":7}}"#;
        assert_eq!(of(six).as_deref(), Some("[::1]:7"));
        for bad in ["", "{}", r#"{"port":70000,"hostname":"h"}"#, "nonsense"] {
            assert_eq!(of(bad), None);
        }
    }
}
