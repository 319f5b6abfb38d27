//! Who belongs to the group.

use std::collections::BTreeSet;

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
}

impl Members {
    /// A group of voters, as a cluster is founded.
    pub fn voters(voters: impl IntoIterator<Item = NodeId>) -> Members {
        Members {
            voters: voters.into_iter().collect(),
            ..Members::default()
        }
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
