//! What readers see: the committed rows together with what dies with the term.
//!
//! The view thread owns one [`View`] and applies every entry's operations and view changes
//! in the order of the log; answers are made from clones, which share the rows, so that a
//! slow reader delays nobody. [`totals`] sums resources, which neither rows nor machine
//! keep for readers.

pub(crate) mod totals;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tepui_master_machine::{
    model::{
        Resources,
        id::{AgentId, FrameworkId, OfferId},
        log,
        offer::Offer,
        wire,
    },
    output::ViewChange,
};
use tepui_state::ClusterState;

/// Connection of a framework in this term.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FrameworkLink {
    pub(crate) connected: bool,
    pub(crate) active: bool,
}

/// Connection of an agent in this term.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AgentLink {
    pub(crate) connected: bool,
    pub(crate) active: bool,
}

/// An answer to an inverse offer, for `/maintenance/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InverseAnswer {
    Unknown,
    Accepted,
    Declined,
}

/// Everything that readers can ask about.
#[derive(Debug, Clone)]
pub(crate) struct View {
    state: ClusterState,
    agents: BTreeMap<AgentId, AgentLink>,
    frameworks: BTreeMap<FrameworkId, FrameworkLink>,
    offers: BTreeMap<OfferId, Arc<Offer>>,
    // Pairs and not sets in maps: there is an offer for nearly every agent of an idle cluster.
    offers_by_agent: BTreeSet<(AgentId, OfferId)>,
    offers_by_framework: BTreeSet<(FrameworkId, OfferId)>,
    /// What agents oversubscribe, beyond the totals of their rows.
    oversubscribed: BTreeMap<AgentId, Arc<Resources>>,
    inverse_offers: BTreeMap<OfferId, Arc<wire::InverseOffer>>,
    inverse_answers: BTreeMap<(AgentId, FrameworkId), InverseAnswer>,
}

impl View {
    /// The view at the birth of a machine: nobody is connected, nothing is offered.
    pub(crate) fn birth(mut state: ClusterState) -> View {
        // Committed is the one that is compared with other masters'.
        state.stop_books();
        View {
            state,
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            offers: BTreeMap::new(),
            offers_by_agent: BTreeSet::new(),
            offers_by_framework: BTreeSet::new(),
            oversubscribed: BTreeMap::new(),
            inverse_offers: BTreeMap::new(),
            inverse_answers: BTreeMap::new(),
        }
    }

    /// The view of a master that does not lead: who is connected, as far as the log tells.
    pub(crate) fn stale(state: ClusterState) -> View {
        let mut view = View::birth(state);
        let agents = view.admitted_agents();
        let connected = agents.filter(|(_, row)| row.disconnected_at_ns.is_none());
        view.agents = connected
            .map(|(id, row)| {
                let active = !row.deactivated && row.drain.is_none();
                let link = AgentLink {
                    connected: true,
                    active,
                };
                (id.clone(), link)
            })
            .collect();
        let frameworks = view.state.frameworks();
        view.frameworks = frameworks
            .map(|(id, row)| {
                let connected = row.disconnected_at_ns.is_none();
                let link = FrameworkLink {
                    connected,
                    active: connected,
                };
                (id.clone(), link)
            })
            .collect();
        view
    }

    /// The committed rows.
    pub(crate) fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Applies one committed entry.
    ///
    /// # Errors
    /// When the rows cannot take it: the replica must stop.
    pub(crate) fn apply_entry(
        &mut self,
        entry: &log::Entry,
    ) -> Result<(), tepui_state::ApplyError> {
        self.state.apply_entry(entry)
    }

    /// Holds the rows of `state`, which are the same, in place of its own.
    pub(crate) fn share(&mut self, mut state: ClusterState) {
        state.stop_books();
        self.state = state;
    }

    /// Applies a change of what dies with the term.
    pub(crate) fn apply_change(&mut self, change: &ViewChange) {
        match change {
            ViewChange::OfferAdded(offer) => {
                self.offers_by_agent
                    .insert((offer.agent_id.clone(), offer.id.clone()));
                self.offers_by_framework
                    .insert((offer.framework_id.clone(), offer.id.clone()));
                self.offers.insert(offer.id.clone(), offer.clone());
            }
            ViewChange::OfferRemoved(id) => {
                if let Some(offer) = self.offers.remove(id) {
                    let (agent, framework) = (&offer.agent_id, &offer.framework_id);
                    self.offers_by_agent.remove(&(agent.clone(), id.clone()));
                    self.offers_by_framework
                        .remove(&(framework.clone(), id.clone()));
                }
            }
            ViewChange::Framework {
                framework_id,
                connected,
                active,
                ..
            } => {
                let link = FrameworkLink {
                    connected: *connected,
                    active: *active,
                };
                self.frameworks.insert(framework_id.clone(), link);
            }
            ViewChange::FrameworkRemoved(id) => {
                self.frameworks.remove(id);
                self.inverse_answers
                    .retain(|(_, framework), _| framework != id);
            }
            ViewChange::Agent {
                agent_id,
                connected,
                active,
            } => {
                let link = AgentLink {
                    connected: *connected,
                    active: *active,
                };
                self.agents.insert(agent_id.clone(), link);
            }
            ViewChange::AgentRemoved(id) => {
                self.agents.remove(id);
                self.oversubscribed.remove(id);
                self.inverse_answers.retain(|(agent, _), _| agent != id);
            }
            ViewChange::Oversubscribed {
                agent_id,
                resources,
            } => {
                if resources.is_empty() {
                    self.oversubscribed.remove(agent_id);
                } else {
                    let resources = resources.clone();
                    self.oversubscribed.insert(agent_id.clone(), resources);
                }
            }
            ViewChange::InverseOfferAdded(offer) => {
                let id = OfferId::from_wire(&offer.id);
                self.inverse_offers.insert(id, offer.clone());
                if let Some(agent) = &offer.agent_id {
                    let key = (
                        AgentId::from_wire(agent),
                        FrameworkId::from_wire(&offer.framework_id),
                    );
                    self.inverse_answers
                        .entry(key)
                        .or_insert(InverseAnswer::Unknown);
                }
            }
            ViewChange::InverseOfferRemoved(id) => {
                self.inverse_offers.remove(id);
            }
            ViewChange::InverseOfferAnswered {
                agent_id,
                framework_id,
                accepted,
            } => {
                let answer = match accepted {
                    true => InverseAnswer::Accepted,
                    false => InverseAnswer::Declined,
                };
                self.inverse_answers
                    .insert((agent_id.clone(), framework_id.clone()), answer);
            }
        }
    }

    /// Connection of an agent; `None` when it was not connected in this term.
    pub(crate) fn agent_link(&self, id: &AgentId) -> Option<AgentLink> {
        self.agents.get(id).copied()
    }

    /// All that may be offered of an agent: the total of its row, and what it oversubscribes.
    pub(crate) fn total(&self, id: &AgentId, row: &log::Agent) -> Resources {
        let mut total = totals::resources(&row.total);
        if let Some(more) = self.oversubscribed.get(id) {
            total.add(more);
        }
        total
    }

    /// Connection of a framework.
    pub(crate) fn framework_link(&self, id: &FrameworkId) -> FrameworkLink {
        self.frameworks.get(id).copied().unwrap_or_default()
    }

    /// Whether the framework is known from an earlier term and has not come back.
    pub(crate) fn is_recovered(&self, id: &FrameworkId) -> bool {
        !self.frameworks.contains_key(id)
    }

    /// Outstanding offers of an agent.
    pub(crate) fn offers_of_agent(
        &self,
        id: &AgentId,
    ) -> impl Iterator<Item = &Arc<Offer>> + use<'_> {
        self.named(&self.offers_by_agent, id)
    }

    /// Outstanding offers of a framework.
    pub(crate) fn offers_of_framework(
        &self,
        id: &FrameworkId,
    ) -> impl Iterator<Item = &Arc<Offer>> + use<'_> {
        self.named(&self.offers_by_framework, id)
    }

    fn named<'a, K: Ord + Clone>(
        &'a self,
        index: &'a BTreeSet<(K, OfferId)>,
        key: &K,
    ) -> impl Iterator<Item = &'a Arc<Offer>> + use<'a, K> {
        let key = key.clone();
        index
            .range((key.clone(), OfferId::from(""))..)
            .take_while(move |(it, _)| *it == key)
            .filter_map(|(_, id)| self.offers.get(id))
    }

    /// All outstanding offers.
    pub(crate) fn offers(&self) -> impl ExactSizeIterator<Item = &Arc<Offer>> {
        self.offers.values()
    }

    /// What frameworks answered about an agent.
    pub(crate) fn inverse_answers<'a>(
        &'a self,
        id: &'a AgentId,
    ) -> impl Iterator<Item = (&'a FrameworkId, InverseAnswer)> {
        self.inverse_answers
            .iter()
            .filter(move |((agent, _), _)| agent == id)
            .map(|((_, framework), answer)| (framework, *answer))
    }

    /// Admitted agents that were connected in this term.
    pub(crate) fn registered_agents(
        &self,
    ) -> impl Iterator<Item = (&AgentId, &Arc<log::Agent>, AgentLink)> {
        self.admitted_agents()
            .filter_map(|(id, row)| Some((id, row, self.agent_link(id)?)))
    }

    /// Admitted agents that have not come back in this term.
    pub(crate) fn recovered_agents(&self) -> impl Iterator<Item = (&AgentId, &Arc<log::Agent>)> {
        self.admitted_agents()
            .filter(|(id, _)| !self.agents.contains_key(*id))
    }

    fn admitted_agents(&self) -> impl Iterator<Item = (&AgentId, &Arc<log::Agent>)> {
        self.state
            .agents()
            .filter(|(_, row)| row.state == log::AgentState::Admitted as i32)
    }
}
