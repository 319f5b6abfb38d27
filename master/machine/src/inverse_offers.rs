//! Outstanding inverse offers (behaviour section 14): at most one per framework and
//! agent; what was answered; when one may be made again. They die with the term.

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::id::{AgentId, FrameworkId};
use tepui_model::time::Instant;
use tepui_model::wire;

/// All inverse offers. Their ids are numbered together with the offers'.
#[derive(Debug, Default)]
pub(crate) struct InverseOffers {
    by_number: BTreeMap<u64, (AgentId, FrameworkId)>,
    by_pair: BTreeMap<(AgentId, FrameworkId), u64>,
    // After an answer: not before. Dropped by REVIVE and with the agent.
    filters: BTreeMap<(AgentId, FrameworkId), Instant>,
    /// Agents that an operator deactivated or drains, and since when.
    pub(crate) withdrawn: BTreeMap<AgentId, wire::TimeInfo>,
}

impl InverseOffers {
    pub(crate) fn get(&self, number: u64) -> Option<&(AgentId, FrameworkId)> {
        self.by_number.get(&number)
    }

    /// True when none is outstanding for the pair and no answer holds it back.
    pub(crate) fn may_offer(
        &self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        now: Instant,
    ) -> bool {
        let pair = (agent_id.clone(), framework_id.clone());
        !self.by_pair.contains_key(&pair)
            && self.filters.get(&pair).is_none_or(|until| *until <= now)
    }

    pub(crate) fn insert(&mut self, number: u64, agent_id: AgentId, framework_id: FrameworkId) {
        let pair = (agent_id, framework_id);
        self.filters.remove(&pair);
        self.by_pair.insert(pair.clone(), number);
        self.by_number.insert(number, pair);
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<(AgentId, FrameworkId)> {
        let pair = self.by_number.remove(&number)?;
        self.by_pair.remove(&pair);
        Some(pair)
    }

    /// The pair was answered: none is made again before `until`.
    pub(crate) fn filter(&mut self, agent_id: AgentId, framework_id: FrameworkId, until: Instant) {
        self.filters.insert((agent_id, framework_id), until);
    }

    /// REVIVE and disconnection drop a framework's filters.
    pub(crate) fn drop_filters_of(&mut self, framework_id: &FrameworkId) {
        self.filters
            .retain(|(_, framework), _| framework != framework_id);
    }

    /// Numbers of the agent's inverse offers; its filters are dropped.
    pub(crate) fn take_agent(&mut self, agent_id: &AgentId) -> BTreeSet<u64> {
        self.filters.retain(|(agent, _), _| agent != agent_id);
        self.by_number
            .iter()
            .filter(|(_, (agent, _))| agent == agent_id)
            .map(|(number, _)| *number)
            .collect()
    }

    /// Numbers of the framework's inverse offers.
    pub(crate) fn of_framework(&self, framework_id: &FrameworkId) -> BTreeSet<u64> {
        self.by_number
            .iter()
            .filter(|(_, (_, framework))| framework == framework_id)
            .map(|(number, _)| *number)
            .collect()
    }

    /// The first moment at which a filter ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.filters.values().min().copied()
    }

    /// Forgets filters that are over.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let before = self.filters.len();
        self.filters.retain(|_, until| *until > now);
        before != self.filters.len()
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(
            self.by_number.len(),
            self.by_pair.len(),
            "inverse offers: indexes differ"
        );
        for (number, pair) in &self.by_number {
            assert_eq!(self.by_pair.get(pair), Some(number));
            assert!(
                !self.filters.contains_key(pair),
                "an outstanding inverse offer is filtered"
            );
        }
    }
}
