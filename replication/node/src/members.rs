//! Who belongs to the group.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::NodeId;

/// The members of the group; joint while a change of several is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those whose majority decides.
    pub voters: BTreeSet<NodeId>,
    /// Those who receive everything and decide nothing.
    pub learners: BTreeSet<NodeId>,
    /// While joint: the voters before, whose majority must agree too.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// While joint: voters before who will be learners.
    pub learners_next: BTreeSet<NodeId>,
    /// While joint: the leader ends it without being asked.
    pub auto_leave: bool,
    /// What is known of each member, its addresses say: bytes of the owner, who hands them in
    /// with the change that adds a member.
    pub notes: BTreeMap<NodeId, Bytes>,
    /// The largest id that any member ever had. Ids are never given twice, or what a member
    /// said before its removal could be taken for its successor's.
    pub last_id: NodeId,
}

impl Members {
    /// A group of voters, as a cluster is founded.
    pub fn voters(voters: impl IntoIterator<Item = NodeId>) -> Members {
        let voters: BTreeSet<NodeId> = voters.into_iter().collect();
        Members {
            last_id: voters.last().copied().unwrap_or_default(),
            voters,
            ..Members::default()
        }
    }

    /// Everybody, in order.
    pub fn ids(&self) -> BTreeSet<NodeId> {
        let mut ids = self.voters.clone();
        ids.extend(&self.learners);
        ids.extend(&self.voters_outgoing);
        ids.extend(&self.learners_next);
        ids
    }

    /// Whether this node votes now or when the change under way is done.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    /// Takes over what consensus does not know: notes, without those of members that are gone.
    pub(crate) fn inherit(&mut self, before: &Members, notes: BTreeMap<NodeId, Bytes>) {
        self.notes = before.notes.clone();
        self.notes.extend(notes);
        let ids = self.ids();
        self.notes.retain(|id, _| ids.contains(id));
        self.last_id = before.last_id.max(ids.last().copied().unwrap_or_default());
    }

    /// Whether this node alone decides.
    pub fn is_sole_voter(&self, id: NodeId) -> bool {
        self.voters_outgoing.is_empty() && self.voters.len() == 1 && self.voters.contains(&id)
    }
}

/// One part of a change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a voter, or lets a learner vote.
    AddVoter(NodeId),
    /// Adds a learner, or takes a voter's vote.
    AddLearner(NodeId),
    /// Removes a voter or learner.
    Remove(NodeId),
}
