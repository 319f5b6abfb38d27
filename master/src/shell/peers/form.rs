//! A master without a store: how it gets one.
//!
//! Founders wait until every one of them answers and says that it has nothing, with the same
//! `--peers`; the first of the list then draws the cluster's id and makes its store, and its
//! links tell the others ([`super::links`]). Whoever finds a cluster instead, because its own
//! disk was wiped, joins it as everybody else does: as a learner, with the rows of the leader,
//! and under an id that nobody had before.

use super::{
    Offer, Offered, Peers,
    channel::Security,
    encode_note, fetch,
    links::{MAX_FRAME, founded},
    note,
};
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::join_all;
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tepui_replication::{Identity, Members, Salvage, Store};
use tepui_server::proto::tepui::raft::v1::{
    Admission, Candidate, Ends, Founding, Greeting, Member, peer_client::PeerClient,
};
use tokio::sync::mpsc;

/// Between two looks at the others.
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts between two lines of the log about the same.
const QUIET: u32 = 50;
/// Leaders that are followed for one attempt to join.
const HOPS: usize = 5;

/// The id of the store to be, drawn once: a founder that restarts before the cluster is formed is
/// still the same. It lies in the folder that becomes the store, so that it goes when that does.
///
/// # Errors
/// The disk refuses.
pub(crate) fn draw_store_id(store: &Path) -> Result<String> {
    let nursery = Store::nursery(store);
    let path = nursery.join("STORE_ID");
    if let Ok(text) = std::fs::read_to_string(&path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let drawn = uuid::Uuid::new_v4().to_string();
    std::fs::create_dir_all(&nursery)
        .and_then(|()| std::fs::write(&path, format!("{drawn}\n")))
        .and_then(|()| std::fs::File::open(&path)?.sync_all())
        .and_then(|()| std::fs::File::open(&nursery)?.sync_all())
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(drawn)
}

/// Which of `--peers` this master is: the one with its port on an address of this machine.
///
/// # Errors
/// None of them is, or several are.
pub(crate) async fn find_own(peers: &[String], port: u16) -> Result<String> {
    let mut own = Vec::new();
    for peer in peers {
        let Some((_, its_port)) = peer.rsplit_once(':') else {
            bail!("--peers: {peer:?} is not of the form HOST:RAFT_PORT");
        };
        if its_port != port.to_string() {
            continue;
        }
        // Names of machines that do not run yet may not resolve yet; the own one does.
        let Ok(addresses) = tokio::net::lookup_host(peer.as_str()).await else {
            continue;
        };
        if addresses.map(|it| it.ip()).any(is_local) {
            own.push(peer.clone());
        }
    }
    match own.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!(
            "--peers={}: none of them is this master, which has --raft_port={port}; name every \
             master, this one included (or say which one it is with --raft_advertise)",
            peers.join(",")
        ),
        _ => bail!(
            "--peers: {} are all this master; name every master once",
            own.join(" and ")
        ),
    }
}

/// Whether the address is one of this machine: then, and only then, it can be bound.
fn is_local(ip: IpAddr) -> bool {
    !ip.is_unspecified() && UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// Returns when there is a store.
///
/// # Errors
/// There will be none: what the flags say cannot be.
pub(crate) async fn form(
    peers: &Arc<Peers>,
    join: Option<&str>,
    mut offers: mpsc::Receiver<Offered>,
) -> Result<()> {
    let mut rounds = 0_u32;
    let mut told = String::new();
    loop {
        let outcome = match join {
            Some("wait") => Err(anyhow::anyhow!(
                "waiting to be invited: `tepui master add {}`",
                peers.own().raft_address
            )),
            Some(address) => join_through(peers, address).await.map(|()| true),
            None => look_around(peers).await,
        };
        match outcome {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                let error = format!("{error:#}");
                if error != told || rounds.is_multiple_of(QUIET) {
                    tracing::info!("no store yet: {error}");
                    told = error;
                }
            }
        }
        rounds += 1;
        let offered = tokio::select! {
            offered = offers.recv() => offered,
            () = tokio::time::sleep(PAUSE) => None,
        };
        if let Some((offer, answer)) = offered {
            let outcome = match offer {
                Offer::Found(founding) => accept_founding(peers, founding).await,
                Offer::Invite(address) => join_through(peers, &address).await,
            };
            let taken = outcome.is_ok();
            // Whoever asked may be gone.
            let _ = answer.send(outcome.map_err(|error| format!("{error:#}")));
            if taken {
                return Ok(());
            }
        }
    }
}

/// A founder looks at the others; true when there is a store.
async fn look_around(peers: &Arc<Peers>) -> Result<bool> {
    let own = peers.own();
    let others = peers.founders.iter().filter(|it| **it != own.raft_address);
    let others: Vec<&String> = others.collect();
    let greetings = others.iter().map(|address| greet(peers, address));
    let greetings = join_all(greetings).await;
    let found = greetings
        .iter()
        .flatten()
        .find(|it| !it.cluster_id.is_empty());
    if let Some(found) = found {
        let member = found.member.clone().unwrap_or_default();
        // One of its members tells founders; others join.
        join_through(peers, &member.raft_address).await?;
        return Ok(true);
    }
    let mut founders = vec![own.clone()];
    for (address, greeting) in others.iter().zip(greetings) {
        let greeting = greeting.with_context(|| {
            format!("all of --peers must answer before the cluster is founded; {address} does not")
        })?;
        ensure!(
            greeting.founders == peers.founders,
            "master {address} was started with --peers={}, this one with --peers={}: they must \
             name the same masters",
            greeting.founders.join(","),
            peers.founders.join(",")
        );
        let member = greeting.member.unwrap_or_default();
        ensure!(
            member.raft_address == **address,
            "at {address} answers a master that calls itself {}",
            member.raft_address
        );
        founders.push(member);
    }
    if peers.founders.first() != Some(&own.raft_address) {
        bail!("waiting for {} to found the cluster", peers.founders[0]);
    }
    founders.sort_by(|one, other| one.raft_address.cmp(&other.raft_address));
    let founding = Founding {
        cluster_id: uuid::Uuid::new_v4().to_string(),
        founders: (1..).zip(founders).collect(),
    };
    accept_founding(peers, founding).await?;
    Ok(true)
}

async fn greet(peers: &Peers, address: &str) -> Result<Greeting> {
    let ask = async {
        let channel = peers.security.connect(address).await?;
        let mut client = PeerClient::new(channel);
        let answer = client.greet(peers.greeting()).await;
        let answer = answer.map_err(|status| refusal(peers, address, &status))?;
        Ok(answer.into_inner())
    };
    tokio::time::timeout(super::PATIENCE, ask)
        .await
        .with_context(|| format!("master {address} does not answer"))?
}

async fn accept_founding(peers: &Arc<Peers>, founding: Founding) -> Result<()> {
    let own = peers.own();
    let mine = founding
        .founders
        .iter()
        .find(|(_, it)| it.store_id == own.store_id);
    let Some((node_id, _)) = mine else {
        bail!(
            "cluster {} was founded with another store of master {}: this one has to join",
            founding.cluster_id,
            own.raft_address
        );
    };
    let identity = Identity {
        store_id: own.store_id.clone(),
        cluster_id: founding.cluster_id.clone(),
        node_id: *node_id,
        incarnation: 1,
    };
    let members = founded(&founding);
    tracing::info!(
        cluster_id = identity.cluster_id,
        node_id,
        "this master is a founder"
    );
    make(peers, identity, members, None).await
}

async fn make(
    peers: &Peers,
    identity: Identity,
    members: Members,
    rows: Option<tepui_replication::FetchedRows>,
) -> Result<()> {
    let store = peers.store.clone();
    crate::shell::raft::check_room(&store)?;
    let made =
        tokio::task::spawn_blocking(move || Store::create(&store, &identity, &members, rows));
    Ok(made.await??)
}

/// Asks a member, and the leader that it names, to be admitted; fetches the leader's rows and
/// makes a store of them.
async fn join_through(peers: &Arc<Peers>, address: &str) -> Result<()> {
    let mut address = address.to_owned();
    for _ in 0..HOPS {
        let channel = peers.security.connect(&address).await?;
        let mut client = PeerClient::new(channel).max_decoding_message_size(MAX_FRAME);
        let candidate = Candidate {
            member: Some(peers.own()),
        };
        let asked = tokio::time::timeout(Duration::from_secs(30), client.join(candidate)).await;
        let admission = asked
            .with_context(|| format!("master {address} does not answer"))?
            .map_err(|status| refusal(peers, &address, &status))?
            .into_inner();
        if !admission.leader.is_empty() {
            address = admission.leader;
            continue;
        }
        return take_part(peers, &address, admission).await;
    }
    bail!("master {address} does not lead: nobody does at the moment")
}

async fn take_part(peers: &Arc<Peers>, leader: &str, admission: Admission) -> Result<()> {
    let own = peers.own();
    let identity = Identity {
        store_id: own.store_id.clone(),
        cluster_id: admission.cluster_id,
        node_id: admission.node_id,
        incarnation: admission.incarnation,
    };
    tracing::info!(
        cluster_id = identity.cluster_id,
        node_id = identity.node_id,
        leader,
        "admitted as a learner; fetching the rows"
    );
    let ends = Ends {
        cluster_id: identity.cluster_id.clone(),
        incarnation: identity.incarnation,
        from: identity.node_id,
        // The leader is asked whoever it is by now.
        to: greet(peers, leader).await?.node_id,
        member: Some(own),
    };
    let nursery = Store::nursery(&peers.store);
    let transfer = fetch::copy(
        &peers.security,
        leader,
        ends,
        admission.min_index,
        nursery,
        identity.clone(),
    )
    .await?;
    let rows = transfer.rows;
    let members = rows.origin.members.clone();
    ensure!(
        members.ids().contains(&identity.node_id),
        "master {leader} sent rows of before this one was admitted"
    );
    make(peers, identity, members, Some(rows)).await
}

/// Why a question was not answered. A server that asks for a proof closes the connection of a
/// client that has none, without a word that the client could read.
fn refusal(peers: &Peers, address: &str, status: &tonic::Status) -> anyhow::Error {
    let silent = std::error::Error::source(status).is_some();
    match &peers.security {
        Security::Open if silent => anyhow::anyhow!(
            "master {address} closed the connection: does it ask for a --cluster_key_file or for \
             certificates, which this one lacks?"
        ),
        Security::Tls { .. } if silent => anyhow::anyhow!(
            "master {address} closed the connection: is this one's certificate of its authority?"
        ),
        _ => anyhow::anyhow!("master {address}: {}", status.message()),
    }
}

/// Gets the rows of another master for a store that has lost its own; returns when they are in
/// place.
///
/// # Errors
/// The disk refuses: nobody else's rows will help.
pub(crate) async fn fetch_again(peers: &Arc<Peers>, salvage: &Salvage) -> Result<()> {
    let identity = &salvage.identity;
    let own = Member {
        store_id: identity.store_id.clone(),
        ..peers.own()
    };
    let mut told = String::new();
    loop {
        for id in salvage.members.ids() {
            let Some(member) = note(&salvage.members, id).filter(|_| id != identity.node_id) else {
                continue;
            };
            let ends = Ends {
                cluster_id: identity.cluster_id.clone(),
                incarnation: identity.incarnation,
                from: identity.node_id,
                to: id,
                member: Some(own.clone()),
            };
            let rows = fetch::copy(
                &peers.security,
                &member.raft_address,
                ends,
                salvage.cut_index,
                peers.store.clone(),
                identity.clone(),
            );
            match rows.await {
                Ok(fetch::Transfer { rows, .. }) => {
                    tracing::info!(
                        from = member.raft_address,
                        index = rows.origin.index,
                        "the rows of another master take the place of those that were lost"
                    );
                    return Ok(tokio::task::spawn_blocking(|| rows.replace()).await??);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if error != told {
                        tracing::warn!("no rows yet: {error}");
                        told = error;
                    }
                }
            }
        }
        tokio::time::sleep(10 * PAUSE).await;
    }
}

/// The members of a cluster with one master.
pub(crate) fn alone(own: &Member) -> Members {
    let mut members = Members::voters([1]);
    members.notes.insert(1, encode_note(own));
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_master_finds_itself_by_port_and_address() {
        let peers = |text: &str| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
        let several = peers("127.0.0.1:7,127.0.0.1:8,127.0.0.2:9");
        assert_eq!(find_own(&several, 8).await.unwrap(), "127.0.0.1:8");
        // Documentation addresses are nobody's.
        let elsewhere = peers("203.0.113.1:7,203.0.113.2:7");
        let error = find_own(&elsewhere, 7).await.unwrap_err().to_string();
        assert!(error.contains("none of them"), "{error}");
        let twice = peers("127.0.0.1:7,localhost:7");
        let error = find_own(&twice, 7).await.unwrap_err().to_string();
        assert!(error.contains("once"), "{error}");
    }

    #[test]
    fn the_store_to_be_keeps_its_id_until_the_store_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("replica");
        let first = draw_store_id(&store).unwrap();
        assert_eq!(draw_store_id(&store).unwrap(), first);
        let identity = Identity::first(first.as_str(), "cluster");
        Store::create(&store, &identity, &Members::voters([1]), None).unwrap();
        assert!(Store::exists(&store));
        std::fs::remove_dir_all(&store).unwrap();
        assert_ne!(draw_store_id(&store).unwrap(), first);
    }
}
