//! Outstanding offers: single use, indexed by framework, agent and age (behaviour
//! section 3). They die with the term.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tepui_model::id::{AgentId, FrameworkId, OfferId};
use tepui_model::resources::Resources;
use tepui_model::role::Role;
use tepui_model::time::Instant;

/// One offer.
#[derive(Clone, Debug)]
pub(crate) struct Outstanding {
    /// `<master id>-O<number>`, except for offers that a machine before this one made.
    pub(crate) id: OfferId,
    pub(crate) framework_id: FrameworkId,
    pub(crate) agent_id: AgentId,
    pub(crate) role: Role,
    /// Without `role`, which they are allocated to.
    pub(crate) resources: Arc<Resources>,
    /// When it was made, or adopted from a machine before this one.
    pub(crate) made_at: Instant,
}

/// All outstanding offers.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_number: BTreeMap<u64, Outstanding>,
    by_framework: BTreeMap<FrameworkId, BTreeSet<u64>>,
    by_agent: BTreeMap<AgentId, BTreeSet<u64>>,
    // Oldest first; only with an offer time-out. Numbers rise with time.
    by_age: BTreeMap<u64, Instant>,
    // Of a machine before this one, whose ids have another prefix.
    adopted: BTreeMap<OfferId, u64>,
}

impl Offers {
    pub(crate) fn get(&self, number: u64) -> Option<&Outstanding> {
        self.by_number.get(&number)
    }

    pub(crate) fn insert(&mut self, number: u64, offer: Outstanding, expires: Option<Instant>) {
        self.by_framework
            .entry(offer.framework_id.clone())
            .or_default()
            .insert(number);
        self.by_agent
            .entry(offer.agent_id.clone())
            .or_default()
            .insert(number);
        if let Some(expires) = expires {
            self.by_age.insert(number, expires);
        }
        self.by_number.insert(number, offer);
    }

    /// An offer that a machine before this one made.
    pub(crate) fn insert_adopted(
        &mut self,
        number: u64,
        offer: Outstanding,
        expires: Option<Instant>,
    ) {
        self.adopted.insert(offer.id.clone(), number);
        self.insert(number, offer, expires);
    }

    /// The number of an adopted offer.
    pub(crate) fn number_of(&self, id: &OfferId) -> Option<u64> {
        self.adopted.get(id).copied()
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Outstanding> {
        let offer = self.by_number.remove(&number)?;
        remove_from(&mut self.by_framework, &offer.framework_id, number);
        remove_from(&mut self.by_agent, &offer.agent_id, number);
        self.by_age.remove(&number);
        if self.adopted.get(&offer.id) == Some(&number) {
            self.adopted.remove(&offer.id);
        }
        Some(offer)
    }

    /// Numbers of a framework's offers, oldest first.
    pub(crate) fn of_framework(&self, framework_id: &FrameworkId) -> Vec<u64> {
        numbers(self.by_framework.get(framework_id))
    }

    /// Numbers of an agent's offers, oldest first.
    pub(crate) fn of_agent(&self, agent_id: &AgentId) -> Vec<u64> {
        numbers(self.by_agent.get(agent_id))
    }

    /// Frameworks that hold an offer of the agent, in order.
    pub(crate) fn holders(&self, agent_id: &AgentId) -> BTreeSet<FrameworkId> {
        self.of_agent(agent_id)
            .into_iter()
            .filter_map(|number| Some(self.by_number.get(&number)?.framework_id.clone()))
            .collect()
    }

    /// The oldest offer whose time-out is over.
    pub(crate) fn expired(&self, now: Instant) -> Option<u64> {
        let (number, expires) = self.by_age.first_key_value()?;
        (*expires <= now).then_some(*number)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_age.first_key_value().map(|(_, expires)| *expires)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether an offer to the framework is outstanding.
    pub(crate) fn has_any(&self, framework_id: &FrameworkId) -> bool {
        self.by_framework.contains_key(framework_id)
    }

    /// The first numbers behind this one, oldest first.
    pub(crate) fn after(&self, number: u64, limit: usize) -> Vec<u64> {
        let behind = match number {
            0 => self.by_number.range(0..),
            _ => self.by_number.range(number + 1..),
        };
        behind.map(|(number, _)| *number).take(limit).collect()
    }

    /// Every offer, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Outstanding)> {
        self.by_number
            .iter()
            .map(|(number, offer)| (*number, offer))
    }

    pub(crate) fn check_invariants(&self) {
        let indexed: usize = self.by_framework.values().map(BTreeSet::len).sum();
        assert_eq!(indexed, self.by_number.len(), "offers: index by framework");
        let indexed: usize = self.by_agent.values().map(BTreeSet::len).sum();
        assert_eq!(indexed, self.by_number.len(), "offers: index by agent");
        for (number, offer) in &self.by_number {
            assert!(self.by_framework[&offer.framework_id].contains(number));
            assert!(self.by_agent[&offer.agent_id].contains(number));
            assert!(!offer.resources.is_empty(), "offer {number} is empty");
        }
        for (id, number) in &self.adopted {
            assert!(
                self.by_number
                    .get(number)
                    .is_some_and(|offer| offer.id == *id)
            );
        }
        let mut before = Instant::ZERO;
        for (number, expires) in &self.by_age {
            assert!(
                self.by_number.contains_key(number),
                "offer {number} has an age only"
            );
            assert!(*expires >= before, "offers: a younger one expires first");
            before = *expires;
        }
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<u64>>, key: &K, number: u64) {
    if let Some(set) = index.get_mut(key) {
        set.remove(&number);
        if set.is_empty() {
            index.remove(key);
        }
    }
}

fn numbers(set: Option<&BTreeSet<u64>>) -> Vec<u64> {
    set.map(|set| set.iter().copied().collect())
        .unwrap_or_default()
}

/// When an offer made now is rescinded.
pub(crate) fn expiry(now: Instant, timeout: Option<Duration>) -> Option<Instant> {
    timeout.map(|timeout| now + timeout)
}
