//! An agent does nothing that a leader of before tells it.

use std::collections::BTreeMap;
use tepui_agent_machine::output::Output;
use tepui_model::link;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Fences {
    // Highest incarnation and term on each agent's disk.
    seen: BTreeMap<usize, (u64, u64)>,
}

impl Fences {
    /// A record is durable.
    pub fn recorded(&mut self, agent: usize, record: &link::Record) {
        if let Some(link::record::Kind::Fence(it)) = &record.kind {
            let seen = self.seen.entry(agent).or_default();
            *seen = (*seen).max((it.incarnation, it.term));
        }
    }

    /// The agent's disk is empty.
    pub fn wiped(&mut self, agent: usize) {
        self.seen.remove(&agent);
    }

    /// An agent has taken a frame of a master with this fence.
    pub fn obeyed(
        &self,
        agent: usize,
        fence: Option<link::Fence>,
        output: &Output,
    ) -> Result<(), String> {
        let (Some(fence), Some(seen)) = (fence, self.seen.get(&agent)) else {
            return Ok(());
        };
        let rank = (fence.incarnation, fence.term);
        let acts = !output.records.is_empty()
            || !output.containers.is_empty()
            || !output.volumes.is_empty();
        if rank < *seen && acts {
            return Err(format!(
                "agent {agent} obeys the leader of {rank:?} and has seen {seen:?}"
            ));
        }
        Ok(())
    }
}
