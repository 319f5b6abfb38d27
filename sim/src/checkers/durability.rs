//! What any master applies is durable on a quorum: looked up on the disks themselves.

use crate::disk::SharedLog;
use std::collections::{BTreeMap, BTreeSet};
use tepui_replication_node::{Members, NodeId};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Durability {
    logs: BTreeMap<NodeId, SharedLog>,
    // As of which entry each node's durable rows are.
    rows: BTreeMap<NodeId, u64>,
    // As each node last said, and before that.
    members: BTreeMap<NodeId, (Members, Members)>,
    // Newest decision of each term that is durable on a quorum.
    durable: BTreeMap<u64, u64>,
}

impl Durability {
    /// A node has this disk. That of a node whose disk is lost stays: an entry was durable there
    /// when it was acknowledged, and losing one disk of a quorum loses nothing.
    pub fn disk(&mut self, node: NodeId, log: &SharedLog, members: &Members) {
        self.logs.insert(node, log.clone());
        self.members
            .entry(node)
            .or_insert_with(|| (members.clone(), members.clone()));
    }

    /// A node's rows are durable as of an entry.
    pub fn rows(&mut self, node: NodeId, applied: u64) {
        self.rows.insert(node, applied);
    }

    /// The members changed, as a node sees it.
    pub fn members(&mut self, node: NodeId, members: &Members) {
        let known = self.members.entry(node).or_default();
        known.1 = std::mem::replace(&mut known.0, members.clone());
    }

    /// A node applies an entry that nobody applied before.
    pub fn committed(
        &mut self,
        node: NodeId,
        index: u64,
        decided: (u64, u64),
    ) -> Result<(), String> {
        let (now, before) = self.members.get(&node).cloned().unwrap_or_default();
        if !self.has_quorum(&now, index) && !self.has_quorum(&before, index) {
            return Err(format!(
                "entry {index} is applied by node {node} and durable on no quorum of {:?}",
                now.voters
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

fn holds(log: &crate::disk::LogStore, index: u64, entry: &bytes::Bytes) -> bool {
    log.durable_entry(index) == Some(entry)
}
