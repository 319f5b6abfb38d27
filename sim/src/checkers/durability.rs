//! What any master applies is durable on a quorum: looked up on the disks themselves.

use crate::disk::SharedLog;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use tepui_replication_node::{Members, NodeId};

/// Changes of the members that are remembered.
const CHANGES: usize = 4;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Durability {
    logs: BTreeMap<NodeId, SharedLog>,
    // As of which entry each node's durable rows are.
    rows: BTreeMap<NodeId, u64>,
    // Of the newest few changes: an entry may be older than a change that is known already.
    members: Vec<Members>,
    // Newest decision of each term that is durable on a quorum.
    durable: BTreeMap<u64, u64>,
}

impl Durability {
    /// A node has this disk. That of a node whose disk is lost stays: an entry was durable there
    /// when it was acknowledged, and losing one disk of a quorum loses nothing.
    pub fn disk(&mut self, node: NodeId, log: &SharedLog, members: &Members) {
        self.logs.insert(node, log.clone());
        self.members(members);
    }

    /// A node's rows are durable as of an entry.
    pub fn rows(&mut self, node: NodeId, applied: u64) {
        self.rows.insert(node, applied);
    }

    /// The members changed, as some node sees it.
    pub fn members(&mut self, members: &Members) {
        if !self.members.contains(members) {
            self.members.push(members.clone());
            if self.members.len() > CHANGES {
                self.members.remove(0);
            }
        }
    }

    /// A node applies an entry that nobody applied before.
    pub fn committed(
        &mut self,
        node: NodeId,
        index: u64,
        decided: (u64, u64),
    ) -> Result<(), String> {
        if !self.members.iter().any(|it| self.has_quorum(it, index)) {
            return Err(format!(
                "entry {index} is applied by node {node} and durable on no quorum of {:?}",
                self.members.last().map(|it| &it.voters)
            ));
        }
        let durable = self.durable.entry(decided.0).or_default();
        *durable = (*durable).max(decided.1);
        Ok(())
    }

    /// Whether everything that was decided up to this is durable.
    pub fn is_durable(&self, term: u64, sequence: u64) -> bool {
        sequence == 0 || self.durable.get(&term).is_some_and(|it| *it >= sequence)
    }

    /// A message leaves a node: a vote that it grants is on its disk.
    pub fn leaves(&self, node: NodeId, message: &[u8]) -> Result<(), String> {
        /// `MsgRequestVoteResponse`.
        const GRANTED: u32 = 6;
        let Some(message) = Said::decode(message).ok().filter(|it| it.kind == GRANTED) else {
            return Ok(());
        };
        let Some(log) = self.logs.get(&node).filter(|_| !message.reject) else {
            return Ok(());
        };
        let log = log.0.borrow();
        let state = log.durable_state().cloned().unwrap_or_default();
        let state = Kept::decode(state).unwrap_or_default();
        match state.term > message.term || (state.term, state.vote) == (message.term, message.to) {
            true => Ok(()),
            false => Err(format!(
                "node {node} votes for node {} in term {}, and its disk says {state:?}",
                message.to, message.term
            )),
        }
    }

    fn has_quorum(&self, members: &Members, index: u64) -> bool {
        let majority = |voters: &BTreeSet<NodeId>| {
            // Who has rows of it needs no entry any more.
            let in_rows = |it: &&NodeId| self.rows.get(*it).is_some_and(|rows| *rows >= index);
            let copies: Vec<_> = voters
                .iter()
                .filter(|it| !in_rows(it))
                .filter_map(|it| self.logs.get(it))
                .map(|it| it.0.borrow())
                .collect();
            let cut = voters.iter().filter(in_rows).count();
            let most = copies
                .iter()
                .filter_map(|it| it.durable_entry(index))
                .map(|entry| {
                    let same = |it: &&std::cell::Ref<'_, _>| holds(it, index, entry);
                    copies.iter().filter(same).count()
                })
                .max()
                .unwrap_or(0);
            2 * (most + cut) > voters.len()
        };
        !members.voters.is_empty()
            && majority(&members.voters)
            && (members.voters_outgoing.is_empty() || majority(&members.voters_outgoing))
    }
}

/// What matters here of a message between nodes, and of the record beside the log.
#[derive(Clone, PartialEq, prost::Message)]
struct Said {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint64, tag = "2")]
    to: u64,
    #[prost(uint64, tag = "4")]
    term: u64,
    #[prost(bool, tag = "12")]
    reject: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Kept {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    vote: u64,
}

fn holds(log: &crate::disk::LogStore, index: u64, entry: &bytes::Bytes) -> bool {
    log.durable_entry(index) == Some(entry)
}
