//! What a leader does for its members: admits learners, lets them vote when they have caught up,
//! keeps what is noted of everybody as they say it, and changes the members for operators.

use super::{Peers, encode_note, lock, note};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tepui_replication::{Handle, MemberChange, NodeId, Proposed, Role, Status};
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

/// What became of a change of the members.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Not known yet.
    Open,
    /// The members are as asked, as of this entry, which is committed.
    Done(u64),
    /// The entry is committed and changed nothing: another change was under way.
    Void,
    /// Another master leads, or nobody: its entry may have taken the place of ours.
    Unknown,
}

/// What the members say about a change that stands where `proposed` says.
fn verdict(
    proposed: Proposed,
    changes: &[MemberChange],
    notes: &BTreeMap<NodeId, bytes::Bytes>,
    status: &Status,
) -> Verdict {
    let members = &status.members;
    let is_joint = !members.voters_outgoing.is_empty();
    let changed = changes.iter().all(|change| match change {
        MemberChange::AddVoter(id) => members.voters.contains(id),
        // Who has caught up may have a vote by now.
        MemberChange::AddLearner(id) => members.ids().contains(id),
        MemberChange::Remove(id) => !members.ids().contains(id),
    });
    let noted = notes
        .iter()
        .all(|(id, note)| members.notes.get(id) == Some(note));
    if changed && noted && !is_joint {
        // Whoever did it.
        return Verdict::Done(status.applied);
    }
    // An entry stays where its leader put it as long as that leads.
    let term = proposed.term;
    match status.role == (Role::Leader { term }) {
        false => Verdict::Unknown,
        true if status.applied >= proposed.index && !is_joint => Verdict::Void,
        true => Verdict::Open,
    }
}

/// Changes the members and waits until that is seen; an index as of which it is. Doing it again is
/// harmless, and done when the change met another one.
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
    loop {
        let proposed = propose(handle, &changes, &notes, began).await?;
        loop {
            let status = status(handle).await.ok_or("the replica has stopped")?;
            match verdict(proposed, &changes, &notes, &status) {
                Verdict::Done(index) => return Ok(index),
                Verdict::Void => break,
                Verdict::Unknown => {
                    return Err(
                        "this master stopped leading before the change was known to be \
                                done: it is not known whether it took place, ask `tepui master \
                                list`"
                            .to_owned(),
                    );
                }
                Verdict::Open => {}
            }
            if began.elapsed() > CHANGE_PATIENCE {
                return Err(
                    "the change is proposed but not committed yet, and may still be: too few \
                     masters answer; ask `tepui master list`"
                        .to_owned(),
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if began.elapsed() > CHANGE_PATIENCE {
            return Err("other changes of the masters came first; try again".to_owned());
        }
    }
}

/// Waits until no other change is under way.
async fn propose(
    handle: &Handle,
    changes: &[MemberChange],
    notes: &BTreeMap<NodeId, bytes::Bytes>,
    began: Instant,
) -> Result<Proposed, String> {
    loop {
        let (sender, proposed) = oneshot::channel();
        let answer = move |it| drop(sender.send(it));
        let taken = handle.change_members(changes.to_vec(), notes.clone(), answer);
        let answer = match taken {
            Ok(()) => proposed.await.map_err(|_| "the replica has stopped")?,
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(proposed) => return Ok(proposed),
            // Another one is under way, or this master does not lead: the text says which.
            Err(text) if began.elapsed() > CHANGE_PATIENCE => return Err(text),
            Err(text) if handle.leading_term().is_none() => return Err(text),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_replication::Members;

    fn status(role: Role, applied: u64, members: Members) -> Status {
        Status {
            role,
            term: 2,
            applied,
            last_index: applied,
            cut_index: 0,
            members,
            peers: Vec::new(),
            is_transferring: false,
        }
    }

    #[test]
    fn a_change_is_acknowledged_when_it_is_seen() {
        let proposed = Proposed { index: 9, term: 2 };
        let leads = Role::Leader { term: 2 };
        let remove = [MemberChange::Remove(3)];
        let all = Members::voters([1, 2, 3]);
        let seen = |role, applied, members: &Members| {
            let status = status(role, applied, members.clone());
            verdict(proposed, &remove, &BTreeMap::new(), &status)
        };
        assert_eq!(seen(leads, 8, &all), Verdict::Open);
        assert_eq!(seen(leads, 9, &Members::voters([1, 2])), Verdict::Done(9));
        // What met another change is void.
        assert_eq!(seen(leads, 9, &all), Verdict::Void);
        // Another leader's entry has the index, and perhaps this master leads again.
        let follows = Role::Follower {
            term: 3,
            leader: Some(2),
        };
        for role in [follows, Role::Leader { term: 4 }] {
            assert_eq!(seen(role, 12, &all), Verdict::Unknown);
            assert_eq!(seen(role, 12, &Members::voters([1, 2])), Verdict::Done(12));
        }
        let mut joint = Members::voters([1, 2]);
        joint.voters_outgoing = [1, 2, 3].into();
        assert_eq!(seen(leads, 9, &joint), Verdict::Open);
    }

    #[test]
    fn an_id_that_another_leader_gave_to_somebody_else_is_not_taken() {
        let proposed = Proposed { index: 9, term: 2 };
        let admit = [MemberChange::AddLearner(4)];
        let note = |store: &str| {
            let member = Member {
                store_id: store.to_owned(),
                ..Member::default()
            };
            BTreeMap::from([(4, encode_note(&member))])
        };
        let mut members = Members::voters([1, 2, 3]);
        members.learners = [4].into();
        members.notes = note("theirs");
        let follows = Role::Follower {
            term: 3,
            leader: Some(2),
        };
        let now = status(follows, 12, members.clone());
        let ours = verdict(proposed, &admit, &note("ours"), &now);
        assert_eq!(ours, Verdict::Unknown);
        let theirs = verdict(proposed, &admit, &note("theirs"), &now);
        assert_eq!(theirs, Verdict::Done(12));
    }
}
