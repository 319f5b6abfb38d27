//! One stream to each peer, made again whenever it ends.

use super::{Membership, Peers, encode_note, note, queue::Item};
use anyhow::{Result, bail};
use futures_util::stream;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tepui_replication::NodeId;
use tepui_server::proto::tepui::raft::v1::{
    Founding, Frame, Messages, frame::Kind, peer_client::PeerClient,
};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

/// Between two attempts to reach a peer, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// The largest frame taken: an entry is whole, however large.
pub(crate) const MAX_FRAME: usize = 1 << 30;
/// A refusal's metadata for a member that has been removed.
pub(crate) const REMOVED: &str = "tepui-removed";
/// A refusal's metadata for a receiver without a store: the id of the store that it will make.
pub(crate) const NO_STORE: &str = "tepui-no-store";

/// A task per peer, as long as it is a member.
pub(crate) async fn run(peers: Arc<Peers>) {
    let Some(membership) = peers.membership.get() else {
        return;
    };
    let own = membership.identity.node_id;
    let mut members = peers.members.subscribe();
    let mut tasks: BTreeMap<NodeId, JoinHandle<()>> = BTreeMap::new();
    loop {
        let ids = members.borrow_and_update().ids();
        tasks.retain(|id, task| {
            let stays = ids.contains(id);
            if !stays {
                task.abort();
                peers.queue(*id).close();
                peers.queues.forget(*id);
            }
            stays
        });
        for id in ids.into_iter().filter(|id| *id != own) {
            let begin = || tokio::spawn(keep(peers.clone(), id));
            tasks.entry(id).or_insert_with(begin);
        }
        let changed = tokio::select! {
            changed = members.changed() => changed.is_ok(),
            () = peers.stop.stopped() => false,
        };
        if !changed {
            break;
        }
    }
    for (_, task) in tasks {
        task.abort();
    }
}

/// Keeps a link to one peer.
async fn keep(peers: Arc<Peers>, peer: NodeId) {
    let Some(membership) = peers.membership.get() else {
        return;
    };
    let mut pause = RETRY_MIN;
    let mut told = String::new();
    loop {
        let began = Instant::now();
        if let Err(error) = hold(&peers, membership, peer).await {
            let error = format!("{error:#}");
            // Once each, and not for every attempt.
            if error != told {
                tracing::warn!(peer, error, "no link to a master");
                told = error;
            }
        }
        if peers.queue(peer).close() {
            peers.report_rows(peer, false).await;
        }
        // Lost in a full queue, it is reported again with the next end of the link.
        let _ = membership.handle.report_unreachable(peer);
        if began.elapsed() > RETRY_MAX {
            (pause, told) = (RETRY_MIN, String::new());
        }
        let queue = peers.queue(peer);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // It came back: without it there may be no majority. Should it break off at once,
            // the pause is what it is.
            () = queue.heard() => {}
        }
        pause = RETRY_MAX.min(pause * 2);
    }
}

/// One link, until it ends.
async fn hold(peers: &Arc<Peers>, membership: &Membership, peer: NodeId) -> Result<()> {
    let Some(member) = peers.whereabouts(peer) else {
        bail!("its address is not known");
    };
    let channel = peers.security.connect(&member.raft_address).await?;
    let mut client = PeerClient::new(channel)
        .max_decoding_message_size(MAX_FRAME)
        .max_encoding_message_size(MAX_FRAME);
    let first = Frame {
        kind: Some(Kind::Ends(peers.ends(membership, peer))),
    };
    let queue = peers.queue(peer);
    let frames = stream::unfold((Some(first), queue.clone()), |(first, queue)| async move {
        let frame = match first {
            Some(first) => first,
            None => frame(queue.take().await),
        };
        Some((frame, (None, queue)))
    });
    let mut replies = match client.link(frames).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return refused(peers, membership, peer, &mut client, status).await,
    };
    if replies.message().await?.is_none() {
        bail!("it closed the link at once");
    }
    tracing::info!(peer, address = member.raft_address, "linked to a master");
    queue.open();
    // Nothing more comes: this waits for the end.
    while let Ok(Some(_)) = replies.message().await {}
    bail!("the link to {} has ended", member.raft_address)
}

fn frame(items: Vec<Item>) -> Frame {
    let mut messages = Messages::default();
    for item in items {
        match item.is_ticket {
            true => messages.tickets.push(item.bytes),
            false => messages.messages.push(item.bytes),
        }
    }
    Frame {
        kind: Some(Kind::Messages(messages)),
    }
}

async fn refused(
    peers: &Arc<Peers>,
    membership: &Membership,
    peer: NodeId,
    client: &mut PeerClient<tonic::transport::Channel>,
    status: Status,
) -> Result<()> {
    let about = |key: &str| status.metadata().get(key).and_then(|it| it.to_str().ok());
    if status.code() == Code::PermissionDenied && about(REMOVED).is_some() {
        peers.give_up(status.message().to_owned());
    }
    // A founder that was not told yet, or was down when it was to be told.
    if let Some(store_id) = about(NO_STORE) {
        let founding = founding(peers, membership);
        let known = founding.as_ref().and_then(|it| it.founders.get(&peer));
        if let Some(founding) = &founding
            && known.is_some_and(|it| it.store_id == store_id)
        {
            match client.found(founding.clone()).await {
                Ok(_) => bail!("it has just been told that it is a founder"),
                Err(status) => bail!("{}", status.message()),
            }
        }
    }
    bail!("{}", status.message())
}

/// What founders are told, as long as the members are those that founded the cluster: later, who
/// has no store joins.
fn founding(peers: &Peers, membership: &Membership) -> Option<Founding> {
    let members = peers.members.borrow();
    let count = members.voters.len() as u64;
    if members.last_id != count || membership.identity.incarnation != 1 {
        return None;
    }
    let founders = members.voters.iter();
    let founders = founders.map(|id| Some((*id, note(&members, *id)?)));
    Some(Founding {
        cluster_id: membership.identity.cluster_id.clone(),
        founders: founders.collect::<Option<_>>()?,
    })
}

/// The members that a founding makes.
pub(crate) fn founded(founding: &Founding) -> tepui_replication::Members {
    let mut members = tepui_replication::Members::voters(founding.founders.keys().copied());
    for (id, member) in &founding.founders {
        members.notes.insert(*id, encode_note(member));
    }
    members
}
