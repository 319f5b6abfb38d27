//! The allocator's state and the calls that change it.
//!
//! Agents, frameworks and clients (a framework in a role) are ordinals inside. Every call leaves
//! a mark on the agents for which somebody may now be given something; a cycle looks at no others.

use crate::{
    agents::{Agent, AgentSpec, Claim, Refusals, Stock},
    amounts::{Amounts, Dimensions},
    bits::Bits,
    classes::Classes,
    counts::Counts,
    cycle::{self, Run},
    decide::Lot,
    filters::{AgentFilters, Expiry},
    frameworks::{Framework, FrameworkSpec, Minimum, Rules, minimum},
    index::{self, Index},
    options::{Options, Quota},
    quota::{self, Quotas},
    share::UNIT_WEIGHT,
    tree::{Tree, Walk},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tepui_model::{
    AgentId, FrameworkId, Quantities, Resource, Resources, Role, time::Instant, wire,
};

/// How many agents [`Allocator::request_all`] looks at again.
const REVIEWED_PER_REQUEST: usize = 64;

/// How many totals are remembered for agents that have the same: kinds of machines at hand.
const RECENT_TOTALS: usize = 16;

/// The allocator; see the crate's documentation. A copy goes on independently.
#[derive(Clone, Debug)]
pub struct Allocator {
    pub(crate) options: Options,
    pub(crate) seed: u64,
    pub(crate) dimensions: Dimensions,
    pub(crate) minimum: Minimum,
    pub(crate) tree: Tree,
    pub(crate) quotas: Quotas,
    pub(crate) agents: Vec<Option<Agent>>,
    pub(crate) free_agents: Vec<u32>,
    /// Ordinals of agents that are gone, which may still stand in lists of agents.
    pub(crate) retired: Vec<u32>,
    recent_totals: VecDeque<(Arc<Resources>, Arc<Stock>)>,
    pub(crate) agent_by_id: Index,
    pub(crate) frameworks: Vec<Option<Framework>>,
    free_frameworks: Vec<u32>,
    framework_by_id: Index,
    /// By client ordinal.
    pub(crate) rules: Vec<Option<Rules>>,
    whitelist: Option<BTreeSet<String>>,
    pub(crate) expiry: Expiry,
    pub(crate) classes: Classes,
    /// Agents that are claimed.
    pub(crate) claims: usize,
    /// Agents that may be pending; a flag of each says whether it is.
    pub(crate) pending: Vec<u32>,
    /// Agents that became pending while a cycle was interrupted.
    pub(crate) late: Vec<u32>,
    /// Agents whose available resources are to be computed anew.
    pub(crate) stale: Vec<u32>,
    /// Agents on which a quota kept something from someone.
    pub(crate) held: Vec<u32>,
    /// [`Quotas::version`] when those were last made pending.
    pub(crate) held_at: u64,
    /// The same when the last cycle began.
    pub(crate) served_at: u64,
    pub(crate) round: u64,
    pub(crate) run: Option<Run>,
    /// Something became possible while the cycle under way was interrupted.
    pub(crate) disturbed: bool,
    reviewed: usize,
    pub(crate) counts: Counts,
    /// Kept from visit to visit for their memory.
    pub(crate) walk: Walk,
    pub(crate) few: Vec<u32>,
    /// Clients that some agent may remember as refusing, or has a filter of.
    pub(crate) refusers: Bits,
    /// Every agent that has something was made pending since the last cycle.
    pub(crate) all_pending: bool,
    pub(crate) lot: Lot,
    pub(crate) skip: Bits,
    /// An empty list, and what is counted of it: for all agents that have nothing left.
    pub(crate) nothing: Arc<Resources>,
    pub(crate) no_stock: Arc<Stock>,
}

impl Allocator {
    /// An allocator without agents and frameworks. The order in which agents are looked at
    /// is drawn from `seed`.
    pub fn new(options: Options, seed: u64) -> Allocator {
        let mut dimensions = Dimensions::default();
        let mut tree = Tree::new();
        for name in &options.fair_sharing_excluded {
            tree.exclude(dimensions.intern(&name.as_str().into()));
        }
        Allocator {
            minimum: minimum(&mut dimensions, &options.min_allocatable),
            options,
            seed,
            dimensions,
            tree,
            quotas: Quotas::default(),
            agents: Vec::new(),
            free_agents: Vec::new(),
            retired: Vec::new(),
            recent_totals: VecDeque::new(),
            agent_by_id: Index::default(),
            frameworks: Vec::new(),
            free_frameworks: Vec::new(),
            framework_by_id: Index::default(),
            rules: Vec::new(),
            whitelist: None,
            expiry: Expiry::default(),
            classes: Classes::default(),
            claims: 0,
            pending: Vec::new(),
            late: Vec::new(),
            stale: Vec::new(),
            held: Vec::new(),
            held_at: 0,
            served_at: 0,
            round: 0,
            run: None,
            disturbed: false,
            reviewed: 0,
            counts: Counts::default(),
            walk: Walk::default(),
            few: Vec::new(),
            refusers: Bits::default(),
            all_pending: false,
            lot: Lot::default(),
            skip: Bits::default(),
            nothing: Arc::default(),
            no_stock: Arc::new(Stock::empty()),
        }
    }

    pub(crate) fn agent(&self, agent: u32) -> &Agent {
        let slot = self.agents.get(agent as usize);
        slot.and_then(Option::as_ref).expect("a live agent")
    }

    pub(crate) fn agent_mut(&mut self, agent: u32) -> &mut Agent {
        let slot = self.agents.get_mut(agent as usize);
        slot.and_then(Option::as_mut).expect("a live agent")
    }

    pub(crate) fn framework(&self, framework: u32) -> &Framework {
        let slot = self.frameworks.get(framework as usize);
        slot.and_then(Option::as_ref).expect("a live framework")
    }

    fn framework_mut(&mut self, framework: u32) -> &mut Framework {
        let slot = self.frameworks.get_mut(framework as usize);
        slot.and_then(Option::as_mut).expect("a live framework")
    }

    pub(crate) fn find_agent(&self, id: &AgentId) -> Option<u32> {
        let is = |it: u32| self.agent(it).id == *id;
        self.agent_by_id.get(index::hash(id.as_str()), is)
    }

    pub(crate) fn find_framework(&self, id: &FrameworkId) -> Option<u32> {
        let is = |it: u32| self.framework(it).id == *id;
        self.framework_by_id.get(index::hash(id.as_str()), is)
    }

    pub(crate) fn find_client(&self, id: &FrameworkId, role: &Role) -> Option<u32> {
        let framework = self.framework(self.find_framework(id)?);
        framework.clients.get(role).copied()
    }

    // ------------------------------------------------------------ marks

    /// Someone may be given something of the agent.
    pub(crate) fn pend(&mut self, agent: u32) {
        let is_running = self.run.is_some();
        self.disturbed |= is_running;
        let it = self.agent_mut(agent);
        if it.pending || (it.available.is_empty() && !it.stale) {
            return;
        }
        it.pending = true;
        let in_list = std::mem::replace(&mut it.in_pending_list, true);
        if !in_list {
            self.pending.push(agent);
        }
        if is_running {
            self.late.push(agent);
        }
    }

    fn pend_all(&mut self) {
        if self.all_pending && self.run.is_none() {
            return;
        }
        self.all_pending = true;
        for agent in 0..self.agents.len() {
            if self.agents[agent].is_some() {
                self.pend(agent as u32);
            }
        }
    }

    /// What the agent has available is to be computed anew.
    pub(crate) fn mark_stale(&mut self, agent: u32) {
        let it = self.agent_mut(agent);
        if !std::mem::replace(&mut it.stale, true) {
            self.stale.push(agent);
        }
        self.pend(agent);
    }

    /// Asks for a look at every agent. Since every call marks the agents that it concerns, there
    /// is nothing to be found; so that a mark that was forgotten costs time and not resources,
    /// some agents are looked at again, others at each request.
    pub fn request_all(&mut self) {
        let slots = self.agents.len();
        for _ in 0..REVIEWED_PER_REQUEST.min(slots) {
            self.reviewed = (self.reviewed + 1) % slots;
            if let Some(it) = &mut self.agents[self.reviewed] {
                it.refusals.forget_all();
                self.pend(self.reviewed as u32);
            }
        }
    }

    // ------------------------------------------------------------ frameworks

    /// A framework comes, or comes back. What it uses is told by [`Allocator::add_allocation`],
    /// before or after.
    pub fn add_framework(&mut self, id: &FrameworkId, spec: FrameworkSpec) {
        let framework = self.ensure_framework(id);
        self.describe(framework, spec);
    }

    /// A framework changed; filters of roles that it left are dropped.
    pub fn update_framework(&mut self, id: &FrameworkId, spec: FrameworkSpec) {
        if let Some(framework) = self.find_framework(id) {
            self.describe(framework, spec);
        }
    }

    /// A framework is gone, and all that it held is free.
    pub fn remove_framework(&mut self, id: &FrameworkId) {
        let Some(framework) = self.find_framework(id) else {
            return;
        };
        let clients: Vec<u32> = self
            .framework(framework)
            .clients
            .values()
            .copied()
            .collect();
        for agent in 0..self.agents.len() {
            let Some(it) = &self.agents[agent] else {
                continue;
            };
            let of_framework =
                |client: &u32| it.allocated_to(*client).cloned().map(|r| (*client, r));
            let held: Vec<(u32, Arc<Resources>)> =
                clients.iter().filter_map(of_framework).collect();
            for (client, resources) in held {
                self.release(agent as u32, client, &resources);
            }
        }
        self.framework_mut(framework).spec = None;
        self.framework_mut(framework).paused = false;
        self.set_framework_dormant(framework, false);
        for client in &clients {
            self.tree.set_subscribed(*client, false);
        }
        self.drop_idle_clients(framework);
    }

    /// Offers are made to it.
    pub fn activate_framework(&mut self, id: &FrameworkId) {
        self.change_framework(id, |spec| spec.active = true);
        self.pend_all();
    }

    /// No offers are made to it; its filters are dropped.
    pub fn deactivate_framework(&mut self, id: &FrameworkId) {
        self.change_framework(id, |spec| spec.active = false);
        if let Some(framework) = self.find_framework(id) {
            let clients: Vec<u32> = self
                .framework(framework)
                .clients
                .values()
                .copied()
                .collect();
            self.drop_filters(&clients);
        }
    }

    /// No offers until [`Allocator::resume_framework`], whatever else happens to it; its filters
    /// stay.
    pub fn pause_framework(&mut self, id: &FrameworkId) {
        if let Some(framework) = self.find_framework(id)
            && self.framework(framework).spec.is_some()
        {
            self.framework_mut(framework).paused = true;
            self.relist(framework);
        }
    }

    /// Offers again after [`Allocator::pause_framework`].
    pub fn resume_framework(&mut self, id: &FrameworkId) {
        if let Some(framework) = self.find_framework(id) {
            self.framework_mut(framework).paused = false;
            self.relist(framework);
            self.pend_all();
        }
    }

    /// The framework lets offers lie that others could use, or does so no longer: it is given what
    /// is left when all others were asked.
    pub fn set_dormant(&mut self, id: &FrameworkId, dormant: bool) {
        if let Some(framework) = self.find_framework(id)
            && self.framework(framework).spec.is_some()
        {
            self.set_framework_dormant(framework, dormant);
        }
    }

    fn set_framework_dormant(&mut self, framework: u32, dormant: bool) {
        self.framework_mut(framework).dormant = dormant;
        for (_, client) in self.clients_of(framework) {
            match dormant {
                true => self.tree.dormant.set(client),
                false => self.tree.dormant.unset(client),
            }
        }
    }

    /// No offers for these roles, or for none of its roles when the list is empty. Offers that
    /// were made stay.
    pub fn suppress(&mut self, id: &FrameworkId, roles: &[Role]) {
        self.change_framework(id, |spec| {
            let all = spec.roles.iter().cloned();
            let named = roles.iter().filter(|it| spec.roles.contains(*it)).cloned();
            match roles.is_empty() {
                true => spec.suppressed = all.collect(),
                false => spec.suppressed.extend(named.collect::<Vec<_>>()),
            }
        });
    }

    /// Offers for these roles again, or for all of its roles when the list is empty; their
    /// filters are dropped.
    pub fn revive(&mut self, id: &FrameworkId, roles: &[Role]) {
        self.change_framework(id, |spec| {
            spec.suppressed
                .retain(|it| !roles.is_empty() && !roles.contains(it));
        });
        let Some(framework) = self.find_framework(id) else {
            return;
        };
        let all = self.framework(framework).clients.iter();
        let revived = all.filter(|(role, _)| roles.is_empty() || roles.contains(role));
        let clients: Vec<u32> = revived.map(|(_, client)| *client).collect();
        self.drop_filters(&clients);
        self.pend_all();
    }

    pub(crate) fn ensure_framework(&mut self, id: &FrameworkId) -> u32 {
        if let Some(framework) = self.find_framework(id) {
            return framework;
        }
        let framework = Framework {
            id: id.clone(),
            spec: None,
            paused: false,
            dormant: false,
            clients: BTreeMap::new(),
        };
        let at = match self.free_frameworks.pop() {
            Some(at) => {
                self.frameworks[at as usize] = Some(framework);
                at
            }
            None => {
                self.frameworks.push(Some(framework));
                self.frameworks.len() as u32 - 1
            }
        };
        self.framework_by_id.insert(index::hash(id.as_str()), at);
        at
    }

    pub(crate) fn ensure_client(&mut self, framework: u32, role: &Role) -> u32 {
        let it = self.framework(framework);
        if let Some(client) = it.clients.get(role) {
            return *client;
        }
        let id = it.id.clone();
        let dormant = it.dormant;
        let client = self.tree.add_client(framework, &id, role, &self.quotas);
        if dormant {
            self.tree.dormant.set(client);
        }
        if self.rules.len() <= client as usize {
            self.rules.resize_with(client as usize + 1, || None);
        }
        self.rules[client as usize] = None;
        let it = self.framework_mut(framework);
        it.clients.insert(role.clone(), client);
        client
    }

    /// Takes over a new description of the framework.
    fn describe(&mut self, framework: u32, spec: FrameworkSpec) {
        for role in &spec.roles {
            self.ensure_client(framework, role);
        }
        let clients: Vec<(Role, u32)> = self.clients_of(framework);
        let mut left = Vec::new();
        for (role, client) in &clients {
            let is_subscribed = spec.roles.contains(role);
            self.tree.set_subscribed(*client, is_subscribed);
            let rules = Rules::new(&mut self.dimensions, &spec, role, &self.minimum);
            self.classes.set(*client, rules.constraints.as_ref());
            self.rules[*client as usize] = Some(rules);
            if !is_subscribed {
                left.push(*client);
            }
        }
        self.framework_mut(framework).spec = Some(spec);
        self.relist(framework);
        self.drop_filters(&left);
        self.drop_idle_clients(framework);
        // Whatever it refused, it may take under its new description.
        let refusers = clients.iter().map(|it| it.1);
        let refusers: Vec<u32> = refusers.filter(|it| self.refusers.get(*it)).collect();
        if !refusers.is_empty() {
            for agent in self.agents.iter_mut().flatten() {
                for client in &refusers {
                    agent.refusals.forget(*client);
                }
            }
        }
        self.pend_all();
    }

    fn clients_of(&self, framework: u32) -> Vec<(Role, u32)> {
        let clients = self.framework(framework).clients.iter();
        clients
            .map(|(role, client)| (role.clone(), *client))
            .collect()
    }

    fn change_framework(&mut self, id: &FrameworkId, change: impl FnOnce(&mut FrameworkSpec)) {
        if let Some(framework) = self.find_framework(id)
            && let Some(spec) = &mut self.framework_mut(framework).spec
        {
            change(spec);
            self.relist(framework);
        }
    }

    /// Lists the clients that want offers, and no others.
    fn relist(&mut self, framework: u32) {
        for (role, client) in self.clients_of(framework) {
            let it = self.framework(framework);
            let wants = it.spec.as_ref().is_some_and(|it| it.wants(&role));
            match wants && !it.paused {
                true => self.tree.list(client),
                false => self.tree.unlist(client),
            }
        }
        if self.claims > 0 {
            // A claim binds while its client wants offers.
            for agent in 0..self.agents.len() {
                if let Some(it) = &self.agents[agent]
                    && it.claim.is_some()
                {
                    self.pend(agent as u32);
                }
            }
        }
    }

    /// Drops the clients' filters; what they refused for another reason is asked again.
    fn drop_filters(&mut self, clients: &[u32]) {
        let clients = clients.iter().copied();
        let clients: Vec<u32> = clients.filter(|it| self.refusers.get(*it)).collect();
        if clients.is_empty() {
            return;
        }
        for agent in self.agents.iter_mut().flatten() {
            for client in &clients {
                agent.refusals.forget(*client);
                agent.filters.remove(*client);
            }
        }
        for client in clients {
            self.refusers.unset(client);
        }
    }

    /// Drops clients that neither subscribe nor hold anything, and the framework if it is known
    /// for nothing else.
    pub(crate) fn drop_idle_clients(&mut self, framework: u32) {
        let mut clients = self.clients_of(framework);
        clients.retain(|(_, client)| {
            let it = self.tree.client(*client);
            !it.is_subscribed && it.agents == 0
        });
        let ordinals: Vec<u32> = clients.iter().map(|it| it.1).collect();
        self.drop_filters(&ordinals);
        for (role, client) in clients {
            self.tree.remove_client(client);
            self.classes.set(client, None);
            self.rules[client as usize] = None;
            self.framework_mut(framework).clients.remove(&role);
        }
        let it = self.framework(framework);
        if it.spec.is_none() && it.clients.is_empty() {
            let id = it.id.clone();
            self.framework_by_id
                .remove(index::hash(id.as_str()), framework);
            self.frameworks[framework as usize] = None;
            self.free_frameworks.push(framework);
        }
    }

    // ------------------------------------------------------------ agents

    /// An agent comes.
    pub fn add_agent(&mut self, id: &AgentId, spec: AgentSpec, active: bool) {
        if let Some(agent) = self.find_agent(id) {
            self.agent_mut(agent).active = active;
            self.update_agent(id, spec);
            return;
        }
        let agent = Agent {
            id: id.clone(),
            id_hash: index::hash(id.as_str()),
            total: self.nothing.clone(),
            total_stock: self.no_stock.clone(),
            class: None,
            active,
            whitelisted: self.is_whitelisted(&spec.hostname),
            unavailability: None,
            is_remote: self.is_remote(&spec),
            has_gpus: false,
            allocated: Vec::new(),
            given: None,
            available: self.nothing.clone(),
            stock: self.no_stock.clone(),
            stale: false,
            refusals: Refusals::new(&self.nothing),
            filters: AgentFilters::default(),
            pending: false,
            in_pending_list: false,
            held: false,
            in_held_list: false,
            cut_given: 0,
            shared_given: 0,
            claim: None,
            spec: Box::new(spec),
        };
        let mut agent = agent;
        let total = std::mem::take(&mut agent.spec.total);
        let at = match self.free_agents.pop() {
            Some(at) => {
                self.agents[at as usize] = Some(agent);
                at
            }
            None => {
                self.agents.push(Some(agent));
                self.agents.len() as u32 - 1
            }
        };
        self.agent_by_id.insert(index::hash(id.as_str()), at);
        self.set_total(at, total);
    }

    /// An agent changed; filters on it are dropped when its attributes did.
    pub fn update_agent(&mut self, id: &AgentId, mut spec: AgentSpec) {
        let Some(agent) = self.find_agent(id) else {
            return;
        };
        let (is_remote, total) = (self.is_remote(&spec), std::mem::take(&mut spec.total));
        let whitelisted = self.is_whitelisted(&spec.hostname);
        let it = self.agent_mut(agent);
        if it.spec.attributes != spec.attributes {
            it.filters.clear();
        }
        it.refusals.forget_all();
        it.class = None;
        it.is_remote = is_remote;
        it.whitelisted = whitelisted;
        *it.spec = spec;
        self.set_total(agent, total);
    }

    /// An agent is gone, and all that was held on it.
    pub fn remove_agent(&mut self, id: &AgentId) {
        let Some(agent) = self.find_agent(id) else {
            return;
        };
        self.set_total(agent, Resources::new());
        let mut frameworks = BTreeSet::new();
        for (client, resources) in self.agent(agent).allocated.clone() {
            self.release(agent, client, &resources);
            frameworks.insert(self.tree.client(client).framework);
        }
        self.refresh(agent);
        self.agent_by_id.remove(index::hash(id.as_str()), agent);
        self.claims -= usize::from(self.agent(agent).claim.is_some());
        self.agents[agent as usize] = None;
        // It may stand in lists, which pass by what is not there any more.
        self.retired.push(agent);
        for framework in frameworks {
            self.drop_idle_clients(framework);
        }
    }

    /// It is offered.
    pub fn activate_agent(&mut self, id: &AgentId) {
        self.set_active(id, true);
    }

    /// It is not offered. Filters stay.
    pub fn deactivate_agent(&mut self, id: &AgentId) {
        self.set_active(id, false);
    }

    /// Until then, nobody but the framework in this role is given anything of the agent, as long
    /// as it wants offers in the role. Replaces another claim on the agent.
    pub fn claim_agent(
        &mut self,
        id: &AgentId,
        framework: &FrameworkId,
        role: &Role,
        until: Instant,
    ) {
        if let Some(agent) = self.find_agent(id) {
            let claim = Claim {
                framework: framework.clone(),
                role: role.clone(),
                until,
            };
            let before = self.agent_mut(agent).claim.replace(Box::new(claim));
            self.claims += usize::from(before.is_none());
            self.expiry.add(until, agent);
            self.pend(agent);
        }
    }

    /// The agent is for everybody again.
    pub fn unclaim_agent(&mut self, id: &AgentId) {
        if let Some(agent) = self.find_agent(id)
            && self.agent_mut(agent).claim.take().is_some()
        {
            self.claims -= 1;
            self.pend(agent);
        }
    }

    fn set_active(&mut self, id: &AgentId, active: bool) {
        if let Some(agent) = self.find_agent(id) {
            self.agent_mut(agent).active = active;
            self.pend(agent);
        }
    }

    /// The agent's total changed: a reservation or a volume was made or destroyed, or what can be
    /// oversubscribed is another amount.
    pub fn set_agent_total(&mut self, id: &AgentId, total: &Resources) {
        if let Some(agent) = self.find_agent(id) {
            self.set_total(agent, total.clone());
        }
    }

    fn set_total(&mut self, agent: u32, total: Resources) {
        let before = self.agent(agent).total.clone();
        if *before != total {
            let old = self.agent(agent).total_stock.clone();
            let (total, stock) = self.same_total(total);
            self.tree.change_total(&old.amounts, &stock.amounts);
            self.quotas
                .count_reserved(&mut self.dimensions, &before, -1);
            self.quotas.count_reserved(&mut self.dimensions, &total, 1);
            let it = self.agent_mut(agent);
            let has_gpus = total.gpus().is_some_and(|it| !it.is_zero());
            if it.has_gpus != has_gpus {
                it.has_gpus = has_gpus;
                it.refusals.forget_all();
            }
            it.total = total;
            it.total_stock = stock;
            it.given = None;
        }
        self.mark_stale(agent);
        if self.agent(agent).is_known_available() {
            // Nothing to compute, and at hand.
            self.refresh(agent);
        }
    }

    /// One copy for agents that are alike.
    fn same_total(&mut self, total: Resources) -> (Arc<Resources>, Arc<Stock>) {
        if let Some(same) = self.recent_totals.iter().find(|it| *it.0 == total) {
            return same.clone();
        }
        let stock = self.stock(&total);
        let same = (Arc::new(total), stock);
        if self.recent_totals.len() == RECENT_TOTALS {
            self.recent_totals.pop_front();
        }
        self.recent_totals.push_back(same.clone());
        same
    }

    /// Counts what is available, or would be.
    pub(crate) fn stock(&mut self, available: &Resources) -> Arc<Stock> {
        if available.is_empty() {
            return self.no_stock.clone();
        }
        let amounts = self.dimensions.amounts(available, |_| true);
        let is_plain = available
            .iter()
            .all(|it| it.is_unreserved() && !it.shared && !it.revocable);
        let free = match is_plain {
            true => amounts.clone(),
            false => self.dimensions.amounts(available, quota::is_free),
        };
        Arc::new(Stock {
            amounts,
            free,
            is_plain,
        })
    }

    /// Maintenance of the agent is planned, or not any more. Its next offers say so; what may be
    /// offered to whom is the same.
    pub fn set_unavailability(&mut self, id: &AgentId, when: Option<wire::Unavailability>) {
        if let Some(agent) = self.find_agent(id) {
            let it = self.agent_mut(agent);
            if it.unavailability.as_deref() != when.as_ref() {
                it.unavailability = when.map(Box::new);
                self.pend(agent);
            }
        }
    }

    /// Host names that may be offered; `None` for all.
    pub fn set_whitelist(&mut self, hosts: Option<BTreeSet<String>>) {
        self.whitelist = hosts;
        for agent in 0..self.agents.len() {
            let Some(it) = &self.agents[agent] else {
                continue;
            };
            let whitelisted = self.is_whitelisted(&it.spec.hostname);
            self.agent_mut(agent as u32).whitelisted = whitelisted;
            self.pend(agent as u32);
        }
    }

    fn is_whitelisted(&self, hostname: &str) -> bool {
        self.whitelist
            .as_ref()
            .is_none_or(|it| it.contains(hostname))
    }

    fn is_remote(&self, spec: &AgentSpec) -> bool {
        match (&self.options.region, &spec.domain) {
            (Some(region), Some(domain)) => **region != *domain.region,
            _ => false,
        }
    }

    // ------------------------------------------------------------ settings

    /// Weight of a role among its siblings in millionths; a million is the default.
    pub fn set_weight(&mut self, role: Role, micro: u64) {
        self.tree.set_weight(role, micro.max(1));
    }

    /// The weight of a role in millionths.
    pub fn weight(&self, role: &Role) -> u64 {
        self.tree.weight(role).unwrap_or(UNIT_WEIGHT)
    }

    /// Quota of a role and the roles below it; `None` removes it. Quotas of roles within each
    /// other should fit: what the children of a role are guaranteed together is within what the
    /// role is guaranteed, and so are limits. When they do not, each limit binds all the same,
    /// and a guarantee is as good as the room there is.
    pub fn set_quota(&mut self, role: Role, quota: Option<Quota>) {
        match quota {
            None => self.quotas.remove(&role),
            Some(quota) => {
                if self.quotas.is_empty() {
                    for agent in 0..self.agents.len() as u32 {
                        self.refresh(agent);
                    }
                    let mut headroom = Amounts::default();
                    for agent in self.agents.iter().flatten() {
                        headroom.add(&agent.stock.free);
                    }
                    self.quotas.set_headroom(headroom);
                }
                let consumed = self.consumed(&role);
                self.quotas
                    .set(&mut self.dimensions, role, &quota, consumed);
            }
        }
        self.tree.quotas_changed(&self.quotas);
    }

    /// What counts against a role's quota, see [`Quota`].
    fn consumed(&mut self, top: &Role) -> Amounts {
        let mut consumed = Amounts::default();
        let is_reserved = |it: &Resource| {
            it.reservation_role()
                .is_some_and(|role| role.is_within(top))
        };
        for agent in self.agents.iter().flatten() {
            consumed.add(&self.dimensions.amounts(&agent.total, is_reserved));
            for (client, resources) in &agent.allocated {
                if self.tree.client(*client).role.is_within(top) {
                    consumed.add(&self.dimensions.amounts(resources, quota::is_free));
                }
            }
        }
        consumed
    }

    /// What a framework holds in a role over all agents; a shared volume counts once per agent.
    pub fn allocated(&self, framework: &FrameworkId, role: &Role) -> Quantities {
        let framework = self.find_framework(framework);
        let client = framework.and_then(|it| self.framework(it).clients.get(role));
        client.map_or_else(Quantities::new, |it| {
            cycle::quantities(&self.dimensions, &self.tree.client(*it).amounts)
        })
    }

    /// Clients that want offers, in the order in which the next agent is divided.
    pub fn order(&mut self) -> Vec<(Role, FrameworkId)> {
        self.tree.settle();
        let mut awake = Bits::default();
        awake.add_those_besides(&self.tree.listed, &self.tree.dormant);
        let mut walk = Walk::default();
        let mut order = Vec::new();
        for skip in [&self.tree.dormant, &awake] {
            walk.begin(false);
            while let Some(client) = walk.next(&self.tree, skip) {
                let it = self.tree.client(client);
                order.push((it.role.clone(), it.framework_id.clone()));
            }
        }
        order
    }

    /// What was done so far: units of work that no clock has a say in.
    pub fn counts(&self) -> Counts {
        Counts {
            moves: self.tree.moves,
            sorts: self.tree.sorts,
            evaluations: self.classes.evaluations,
            ..self.counts
        }
    }

    /// When there may be something to give without another call: when the next filter ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.expiry.next()
    }
}
