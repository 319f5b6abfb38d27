//! Declined offers.

use std::collections::{BTreeMap, BTreeSet};
use tepui_model::{AgentId, FrameworkId, Resources, Role, time::Instant};

type Key = (FrameworkId, Role, AgentId);

/// What was refused, by whom, until when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters {
    by_key: BTreeMap<Key, Vec<(Resources, Instant)>>,
    expiry: BTreeSet<(Instant, Key)>,
}

impl Filters {
    pub(crate) fn add(&mut self, key: Key, refused: Resources, until: Instant) {
        self.expiry.insert((until, key.clone()));
        self.by_key.entry(key).or_default().push((refused, until));
    }

    /// Whether an offer of `resources` was refused, or one that had all of them.
    pub(crate) fn block(&self, key: &Key, resources: &Resources) -> bool {
        let refused = self.by_key.get(key).into_iter().flatten();
        refused
            .into_iter()
            .any(|(refused, _)| refused.contains(resources))
    }

    /// Drops what has expired; the agents concerned.
    pub(crate) fn expire(&mut self, now: Instant) -> BTreeSet<AgentId> {
        let mut agents = BTreeSet::new();
        while let Some((until, _)) = self.expiry.first() {
            if *until > now {
                break;
            }
            if let Some((_, key)) = self.expiry.pop_first() {
                agents.insert(key.2.clone());
                if let Some(refused) = self.by_key.get_mut(&key) {
                    refused.retain(|(_, until)| *until > now);
                    if refused.is_empty() {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
        agents
    }

    /// When the next one expires.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiry.first().map(|(until, _)| *until)
    }

    /// Drops those for which `gone` holds.
    pub(crate) fn remove(&mut self, gone: impl Fn(&FrameworkId, &Role, &AgentId) -> bool) {
        let gone = |(framework, role, agent): &Key| gone(framework, role, agent);
        self.by_key.retain(|key, _| !gone(key));
        self.expiry.retain(|(_, key)| !gone(key));
    }
}
