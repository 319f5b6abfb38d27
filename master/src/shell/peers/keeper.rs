//! What a leader does for its members: admits learners, lets them vote when they have caught up,
//! keeps what is noted of everybody as they say it, and changes the members for operators.

use super::{Peers, encode_note, lock, note};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tepui_replication::{Handle, MemberChange, NodeId, Role, Status};
use tepui_server::proto::tepui::raft::v1::{Admission, Member};
use tokio::sync::oneshot;

/// Between two looks at the members.
const INTERVAL: Duration = Duration::from_millis(200);
/// A learner this close to the leader's log may vote: it catches up before it is asked to.
const CLOSE: u64 = 1000;
/// A ticket that nobody has asked rows for by then was lost.
const TICKET_PATIENCE: Duration = Duration::from_secs(2);
/// How long a change of the members may take.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// Until told to stop.
pub(crate) async fn run(peers: Arc<Peers>) {
    let Some(membership) = peers.membership.get() else {
        return;
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = peers.stop.stopped() => return,
        }
        for peer in expired(&peers) {
            peers.report_rows(peer, false).await;
        }
        if membership.handle.leading_term().is_none() {
            continue;
        }
        let Some(status) = status(&membership.handle).await else {
            continue;
        };
        if let Some((changes, notes)) = due(&peers, membership.identity.node_id, &status) {
            tracing::info!(?changes, "the members change");
            if let Err(error) = change(&peers, changes, notes).await {
                tracing::warn!(error, "the members could not be changed");
            }
        }
    }
}

fn expired(peers: &Peers) -> Vec<NodeId> {
    let mut tickets = lock(&peers.tickets);
    let old = tickets
        .iter()
        .filter(|(_, sent)| sent.elapsed() > TICKET_PATIENCE);
    let old: Vec<NodeId> = old.map(|(peer, _)| *peer).collect();
    tickets.retain(|peer, _| !old.contains(peer));
    old
}

/// How the replica stands; nothing when it has stopped.
pub(crate) async fn status(handle: &Handle) -> Option<Status> {
    let (sender, status) = oneshot::channel();
    // Nobody waits for the answer any more: as good as given.
    handle.status(move |it| drop(sender.send(it))).ok()?;
    status.await.ok()
}

type Change = (Vec<MemberChange>, BTreeMap<NodeId, bytes::Bytes>);

/// The next change that the leader makes by itself.
fn due(peers: &Peers, own: NodeId, status: &Status) -> Option<Change> {
    if !matches!(status.role, Role::Leader { .. }) || !status.members.voters_outgoing.is_empty() {
        return None;
    }
    let members = &status.members;
    let as_it_is = |id: NodeId| match members.voters.contains(&id) {
        true => MemberChange::AddVoter(id),
        false => MemberChange::AddLearner(id),
    };
    let mut said = lock(&peers.heard).clone();
    said.insert(own, peers.own());
    for (id, member) in said {
        let known = note(members, id);
        // A store is never exchanged for another.
        let same = known
            .as_ref()
            .is_none_or(|it| it.store_id == member.store_id);
        if members.ids().contains(&id) && same && known.as_ref() != Some(&member) {
            let notes = [(id, encode_note(&member))].into();
            return Some((vec![as_it_is(id)], notes));
        }
    }
    let linked = lock(&peers.linked);
    let ready = status.peers.iter().find(|peer| {
        members.learners.contains(&peer.id)
            && linked.contains_key(&peer.id)
            && !peer.needs_rows
            && peer.matched > 0
            && peer.matched + CLOSE >= status.applied
    });
    let ready = ready?;
    Some((vec![MemberChange::AddVoter(ready.id)], BTreeMap::new()))
}

/// Changes the members and waits until that is done; the index of the entry.
///
/// # Errors
/// Why it is not done, or not known to be.
pub(crate) async fn change(
    peers: &Peers,
    changes: Vec<MemberChange>,
    notes: BTreeMap<NodeId, bytes::Bytes>,
) -> Result<u64, String> {
    let membership = peers.membership.get().ok_or("this master has no store")?;
    let handle = &membership.handle;
    let began = Instant::now();
    let index = loop {
        let (sender, proposed) = oneshot::channel();
        let (changes, notes) = (changes.clone(), notes.clone());
        let taken = handle.change_members(changes, notes, move |it| drop(sender.send(it)));
        let answer = match taken {
            Ok(()) => proposed.await.map_err(|_| "the replica has stopped")?,
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(index) => break index,
            // Another one is under way, or this master does not lead: the text says which.
            Err(text) if began.elapsed() > CHANGE_PATIENCE => return Err(text),
            Err(text) if handle.leading_term().is_none() => return Err(text),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    loop {
        let status = status(handle).await.ok_or("the replica has stopped")?;
        let joint = !status.members.voters_outgoing.is_empty();
        if status.applied >= index && !joint {
            return Ok(index);
        }
        if !matches!(status.role, Role::Leader { .. }) {
            return Err(
                "this master stopped leading before the change was known to be done".into(),
            );
        }
        if began.elapsed() > CHANGE_PATIENCE {
            return Err(
                "the change is proposed but not committed yet: too few masters answer".into(),
            );
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Admits a master without a store as a learner, under a new id unless it has one already. Who
/// comes from the address of a member, with another store, has lost that member's disk: the old
/// one is removed in the same change.
///
/// # Errors
/// Why not now.
pub(crate) async fn admit(peers: &Arc<Peers>, candidate: Member) -> Result<Admission, String> {
    let membership = peers
        .membership
        .get()
        .ok_or("it has no store itself and cannot admit anybody")?;
    let identity = &membership.identity;
    if membership.handle.leading_term().is_none() {
        return match peers.leader_raft_address() {
            Some(leader) if leader != peers.own().raft_address => Ok(Admission {
                leader,
                ..Admission::default()
            }),
            _ => Err("it does not lead, and knows nobody who does".to_owned()),
        };
    }
    if candidate.store_id.is_empty() || !candidate.raft_address.contains(':') {
        return Err("who joins says which store it will have, and where it listens".to_owned());
    }
    let _alone = peers.admitting.lock().await;
    let status = status(&membership.handle)
        .await
        .ok_or("the replica has stopped")?;
    let members = status.members;
    let all: Vec<(NodeId, Member)> = members
        .ids()
        .into_iter()
        .filter_map(|id| Some((id, note(&members, id)?)))
        .collect();
    let admission = |node_id, min_index| Admission {
        cluster_id: identity.cluster_id.clone(),
        incarnation: identity.incarnation,
        node_id,
        min_index,
        leader: String::new(),
    };
    let known = all.iter().find(|(_, it)| it.store_id == candidate.store_id);
    if let Some((id, _)) = known {
        // Asked before, and did not get the answer or the rows.
        return Ok(admission(*id, status.applied));
    }
    let id = members.last_id + 1;
    let mut changes = vec![MemberChange::AddLearner(id)];
    let lost = all
        .iter()
        .find(|(_, it)| it.raft_address == candidate.raft_address);
    if let Some((lost, _)) = lost {
        if *lost == identity.node_id {
            return Err("it has the address of the leader itself".to_owned());
        }
        changes.push(MemberChange::Remove(*lost));
        tracing::warn!(
            lost,
            new = id,
            address = candidate.raft_address,
            "a member comes back without its disk: a new one takes its place"
        );
    }
    let notes = [(id, encode_note(&candidate))].into();
    let index = change(peers, changes, notes).await?;
    Ok(admission(id, index))
}
