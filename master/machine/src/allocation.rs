//! The allocator's clock, and what becomes of its allotments: offers, and how they end
//! without being accepted (behaviour section 3).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message as _;
use std::sync::Arc;
use tepui_allocator::{AgentSpec, Allotment, FrameworkSpec, Parts};
use tepui_model::event::Event;
use tepui_model::id::{AgentId, FrameworkId, OfferId};
use tepui_model::offer::Offer;
use tepui_model::resources::Resources;
use tepui_model::role::Role;
use tepui_model::time::Instant;
use tepui_model::wire;

use crate::counters::Counter;
use crate::machine::{Machine, holds_resources};
use crate::offers::{self, Outstanding};
use crate::output::ViewChange;

/// Between an event that frees resources and the run that offers them: long enough to
/// gather a burst, short against a scheduler's round trip.
const COALESCE: Duration = Duration::from_millis(1);

/// Between two looks at every agent. The allocator looks by itself at whatever changed:
/// this only bounds how long a mistake in that could last.
const FULL_INTERVAL: Duration = Duration::from_secs(60);

/// Agents of which the allocator is told in one step after a birth: under a millisecond.
const READ_AT_ONCE: usize = 32;

/// When to allocate: every interval, and soon after events.
#[derive(Debug)]
pub(crate) struct Allocation {
    interval: Duration,
    next_batch: Instant,
    next_full: Instant,
    triggered: Option<Instant>,
    // Agents that the allocator was told of.
    agents: BTreeSet<AgentId>,
    // Agents of the log, last one first, of which it may not have been told since the birth.
    unread: Vec<AgentId>,
    // When to go on with them: at once.
    read_at: Instant,
    // What tasks of late were found to use.
    used: Lately<Parts>,
}

/// The last few lists of resources that were read: rows that follow each other are alike.
#[derive(Debug)]
pub(crate) struct Lately<T> {
    last: VecDeque<(Vec<wire::Resource>, T)>,
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Lately {
            last: VecDeque::new(),
        }
    }
}

impl<T> Lately<T> {
    /// More kinds at once are rare, and looking for one costs.
    const KINDS: usize = 8;

    pub(crate) fn read(
        &mut self,
        resources: &[wire::Resource],
        read: impl FnOnce(&[wire::Resource]) -> T,
    ) -> &T {
        let known = self.last.iter().position(|(it, _)| *it == resources);
        let at = match known {
            Some(at) => at,
            None => {
                if self.last.len() == Self::KINDS {
                    self.last.pop_back();
                }
                self.last.push_front((resources.to_vec(), read(resources)));
                0
            }
        };
        &self.last[at].1
    }
}

impl Allocation {
    pub(crate) fn new(now: Instant, interval: Duration) -> Allocation {
        Allocation {
            interval,
            next_batch: now + interval,
            next_full: now + FULL_INTERVAL,
            triggered: None,
            agents: BTreeSet::new(),
            unread: Vec::new(),
            read_at: now,
            used: Lately::default(),
        }
    }

    /// At birth: agents of which the allocator is to be told soon, in order.
    pub(crate) fn read_later(&mut self, mut agents: Vec<AgentId>, now: Instant) {
        agents.reverse();
        self.unread = agents;
        self.read_at = now;
    }

    /// Something changed that may make an offer possible.
    pub(crate) fn trigger(&mut self, now: Instant) {
        let at = now + COALESCE;
        self.triggered = Some(self.triggered.map_or(at, |before| before.min(at)));
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let unread = Some(self.read_at).filter(|_| !self.unread.is_empty());
        [Some(self.next_batch), self.triggered, unread]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Machine {
    // ------------------------------------------------------------ what the allocator knows

    /// A framework as the allocator sees it, from its row and description.
    pub(crate) fn framework_spec(&self, framework_id: &FrameworkId, active: bool) -> FrameworkSpec {
        let row = self.state.framework(framework_id);
        let info = self.framework_infos.get(framework_id);
        let suppressed = row
            .map(|row| {
                row.suppressed_roles
                    .iter()
                    .map(|role| Role::from(role.as_str()))
                    .collect()
            })
            .unwrap_or_default();
        let constraints = row
            .filter(|row| !row.offer_constraints_payload.is_empty())
            .and_then(|row| {
                wire::scheduler::OfferConstraints::decode(row.offer_constraints_payload.clone())
                    .ok()
            })
            .unwrap_or_default();
        FrameworkSpec {
            roles: info.map(|info| info.roles.clone()).unwrap_or_default(),
            suppressed,
            capabilities: info.map(|info| info.capabilities).unwrap_or_default(),
            offer_filters: info
                .map(|info| info.offer_filters.clone())
                .unwrap_or_default(),
            constraints,
            active,
        }
    }

    /// Tells the allocator of an admitted agent, or of what changed about it; it is
    /// offered while it is attached and not deactivated.
    pub(crate) fn offer_agent(&mut self, agent_id: &AgentId) {
        let Some(link) = self.agents.get(agent_id) else {
            return;
        };
        let spec = AgentSpec {
            hostname: link.host.hostname.clone(),
            attributes: link.host.attributes.clone(),
            domain: link.host.domain.clone(),
            capabilities: link.capabilities.mesos,
            total: link.offerable(),
        };
        let active = link.connection.is_some() && !self.is_deactivated(agent_id);
        let unavailability = self.unavailability(&link.host.hostname, &link.address.ip);
        if self.allocation.agents.insert(agent_id.clone()) {
            self.allocator.add_agent(agent_id, spec, active);
            self.add_usage(agent_id);
        } else {
            self.allocator.update_agent(agent_id, spec);
            if active {
                self.allocator.activate_agent(agent_id);
            } else {
                self.allocator.deactivate_agent(agent_id);
            }
        }
        self.allocator.set_unavailability(agent_id, unavailability);
        self.allocation.trigger(self.now);
    }

    /// An agent that is as the allocator knows it is back.
    pub(crate) fn offer_again(&mut self, agent_id: &AgentId) {
        if !self.allocation.agents.contains(agent_id) {
            self.offer_agent(agent_id);
        } else if !self.is_deactivated(agent_id) {
            self.allocator.activate_agent(agent_id);
            self.allocation.trigger(self.now);
        }
    }

    /// Tells the allocator what tasks and executors use on an agent that is new to it.
    fn add_usage(&mut self, agent_id: &AgentId) {
        let by_role = |resources: &[wire::Resource]| {
            tepui_allocator::parts(&Resources::from_wire(resources).unwrap_or_default())
        };
        for (framework_id, _, task) in self.state.tasks_of_agent(agent_id) {
            if holds_resources(task) {
                let parts = self.allocation.used.read(&task.resources, by_role);
                self.allocator
                    .add_parts(framework_id, agent_id.as_str(), parts);
            }
        }
        for (framework_id, _, executor) in self.state.executors_of_agent(agent_id) {
            let parts = self.allocation.used.read(&executor.resources, by_role);
            self.allocator
                .add_parts(framework_id, agent_id.as_str(), parts);
        }
    }

    /// Goes on telling the allocator of agents that were there at birth.
    fn read_agents(&mut self) {
        for _ in 0..READ_AT_ONCE {
            let Some(agent_id) = self.allocation.unread.pop() else {
                return;
            };
            // It may be back, or gone, meanwhile.
            if !self.allocation.agents.contains(&agent_id) {
                self.offer_agent(&agent_id);
            }
        }
    }

    /// The agent left: what was allocated on it is gone with it.
    pub(crate) fn forget_agent(&mut self, agent_id: &AgentId) {
        if self.allocation.agents.remove(agent_id) {
            self.allocator.remove_agent(agent_id);
        }
        self.allocation.trigger(self.now);
    }

    /// An operator took it out of the offers, or it drains.
    pub(crate) fn is_deactivated(&self, agent_id: &AgentId) -> bool {
        self.state
            .agent(agent_id)
            .is_some_and(|row| row.deactivated || row.drain.is_some())
    }

    /// Resources that nobody uses any more.
    pub(crate) fn release(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        resources: &Resources,
    ) {
        self.recover(framework_id, agent_id, resources, None);
    }

    /// Resources come back to the allocator, with a filter when they were refused.
    pub(crate) fn recover(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        resources: &Resources,
        refuse: Option<Duration>,
    ) {
        if resources.is_empty() {
            return;
        }
        self.allocator
            .recover(self.now, framework_id, agent_id, resources, refuse);
        self.allocation.trigger(self.now);
    }

    /// An offer ended unused.
    pub(crate) fn recover_offer(&mut self, offer: &Outstanding, refuse: Option<Duration>) {
        self.allocator.recover_allotted(
            self.now,
            &offer.framework_id,
            &offer.agent_id,
            (&offer.role, &offer.resources),
            refuse,
        );
        self.allocation.trigger(self.now);
    }

    /// Host names that may be offered; `None` = all.
    pub(crate) fn set_whitelist(&mut self, hosts: Option<Vec<String>>) {
        self.allocator
            .set_whitelist(hosts.map(|hosts| hosts.into_iter().collect()));
        self.allocation.trigger(self.now);
    }

    // ------------------------------------------------------------ runs

    /// One slice of a cycle, when one is due; the rest follows in the next steps, so that
    /// inputs run between slices.
    pub(crate) fn run_allocation(&mut self) {
        self.read_agents();
        if !self.allocation.unread.is_empty() && self.state.quotas().len() > 0 {
            // A quota could be passed while it is not known what is used of it. (Mesos waits for
            // four agents out of five.)
            return;
        }
        let batch = self.allocation.next_batch <= self.now;
        let triggered = self.allocation.triggered.is_some_and(|at| at <= self.now);
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= self.now);
        let unfiltered = is_due(self.allocator.next_deadline());
        let watching =
            is_due(self.hoarding.next_deadline()) || is_due(self.preemption.next_deadline());
        if !batch && !triggered && !unfiltered && !watching {
            return;
        }
        if batch {
            self.allocation.next_batch = self.now + self.allocation.interval;
            // With quotas, what is given back on one agent makes room on the others.
            let full = self.allocation.next_full <= self.now;
            if full || self.state.quotas().len() > 0 {
                self.allocation.next_full = self.now + FULL_INTERVAL;
                self.allocator.request_all();
            }
        }
        self.allocation.triggered = None;
        self.counters.add(Counter::AllocationRuns);
        let cycle = self
            .allocator
            .allocate(self.now, self.config.allocation_budget);
        let more = cycle.more;
        if more {
            self.allocation.triggered = Some(self.now);
        }
        self.make_offers(cycle.allotments);
        self.make_inverse_offers();
        if !more {
            self.preempt();
            self.rescind_hoarded();
        }
    }

    fn make_offers(&mut self, allotments: Vec<Allotment>) {
        let mut events: BTreeMap<FrameworkId, Vec<Arc<Offer>>> = BTreeMap::new();
        for allotment in allotments {
            let Allotment {
                framework,
                role,
                agent,
                resources,
            } = allotment;
            if !self.frameworks.is_connected(&framework) || !self.agents.is_attached(&agent) {
                // The allocator was told before; nothing may leak all the same.
                self.allocator.recover_allotted(
                    self.now,
                    &framework,
                    &agent,
                    (&role, &resources),
                    None,
                );
                continue;
            }
            if let Some(offer) = self.make_offer(&framework, &role, &agent, resources) {
                events.entry(framework).or_default().push(offer);
            }
        }
        for (framework_id, offers) in events {
            self.event(&framework_id, Event::Offers(offers));
        }
    }

    fn make_offer(
        &mut self,
        framework_id: &FrameworkId,
        role: &Role,
        agent_id: &AgentId,
        resources: Arc<Resources>,
    ) -> Option<Arc<Offer>> {
        let number = self.ids.offer_number();
        let link = self.agents.get(agent_id)?;
        let executor_ids = self
            .state
            .executors_of_agent(agent_id)
            .filter(|(owner, _, _)| *owner == framework_id)
            .map(|(_, executor_id, _)| executor_id.clone())
            .collect();
        let offer = Arc::new(Offer {
            id: self.ids.offer_id(number),
            framework_id: framework_id.clone(),
            agent_id: agent_id.clone(),
            hostname: link.host.hostname.clone(),
            ip: link.address.ip.clone(),
            port: link.address.port,
            resources: match resources.iter().any(is_hidden) {
                true => Arc::new(resources.filter(|it| !is_hidden(it))),
                false => resources.clone(),
            },
            attributes: link.host.attributes.clone(),
            executor_ids,
            role: role.clone(),
            domain: link.host.domain.clone(),
            unavailability: self.unavailability(&link.host.hostname, &link.address.ip),
        });
        let outstanding = Outstanding {
            id: offer.id.clone(),
            framework_id: framework_id.clone(),
            agent_id: agent_id.clone(),
            role: role.clone(),
            resources,
            made_at: self.now,
        };
        let expires = offers::expiry(self.now, self.config.offer_timeout);
        self.offers.insert(number, outstanding, expires);
        self.counters.add(Counter::OffersMade);
        self.out.view.push(ViewChange::OfferAdded(offer.clone()));
        Some(offer)
    }

    // ------------------------------------------------------------ ends of offers

    /// Takes an offer off the table; its resources stay allocated to the framework.
    pub(crate) fn take_offer(&mut self, number: u64) -> Option<Outstanding> {
        let offer = self.offers.remove(number)?;
        self.out
            .view
            .push(ViewChange::OfferRemoved(offer.id.clone()));
        Some(offer)
    }

    /// RESCIND: the framework is told, the resources come back without a filter.
    pub(crate) fn rescind(&mut self, number: u64) {
        self.rescind_filtered(number, None);
    }

    /// RESCIND with a filter against offering the same again at once.
    pub(crate) fn rescind_filtered(&mut self, number: u64, refuse: Option<Duration>) {
        let Some(offer) = self.take_offer(number) else {
            return;
        };
        self.counters.add(Counter::OffersRescinded);
        self.recover_offer(&offer, refuse);
        self.event(&offer.framework_id, Event::Rescind(offer.id));
    }

    /// Every offer of an agent is rescinded.
    pub(crate) fn rescind_agent(&mut self, agent_id: &AgentId) {
        for number in self.offers.of_agent(agent_id) {
            self.rescind(number);
        }
    }

    /// The framework's offers come back silently (failover, disconnection, removal).
    pub(crate) fn take_back_offers(&mut self, framework_id: &FrameworkId) {
        for number in self.offers.of_framework(framework_id) {
            if let Some(offer) = self.take_offer(number) {
                self.recover_offer(&offer, None);
            }
        }
    }

    /// Offers older than `--offer_timeout`.
    pub(crate) fn expire_offers(&mut self) {
        while let Some(number) = self.offers.expired(self.now) {
            self.rescind(number);
        }
    }

    /// DECLINE: ids that are not the framework's are ignored one by one.
    pub(crate) fn decline(
        &mut self,
        framework_id: &FrameworkId,
        offer_ids: &[OfferId],
        refuse: Option<Duration>,
    ) {
        self.counters.add(Counter::MessagesDeclineOffers);
        self.offer_answered(framework_id);
        for offer_id in offer_ids {
            let Some(number) = self.own_offer(framework_id, offer_id) else {
                continue;
            };
            if let Some(offer) = self.take_offer(number) {
                self.recover_offer(&offer, refuse);
            }
        }
    }

    /// The number of an outstanding offer that was made to this framework.
    pub(crate) fn own_offer(&self, framework_id: &FrameworkId, offer_id: &OfferId) -> Option<u64> {
        let number = self.offer_number(offer_id)?;
        let offer = self.offers.get(number)?;
        (offer.framework_id == *framework_id).then_some(number)
    }

    /// The number of an offer id that may be outstanding.
    pub(crate) fn offer_number(&self, offer_id: &OfferId) -> Option<u64> {
        self.ids
            .parse_offer(offer_id.as_str())
            .or_else(|| self.offers.number_of(offer_id))
    }
}

/// Whether frameworks are not told of it: Mesos' agents use it among themselves.
fn is_hidden(resource: &tepui_model::Resource) -> bool {
    &*resource.name == "ephemeral_ports"
}
