//! The allocator's state and what changes it.

use crate::{
    agents::{Agent, AgentSpec},
    filters::Filters,
    frameworks::{Framework, FrameworkSpec},
    tree::{Measure, Tree},
};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use tepui_model::{AgentId, FrameworkId, Quantities, Resources, Role, Scalar, time::Instant, wire};

/// Settings, after the Mesos flags of the same names.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--allocation_interval`: between two runs over all agents.
    pub allocation_interval: Duration,
    /// `--fair_sharing_excluded_resource_names`.
    pub fair_sharing_excluded: BTreeSet<String>,
    /// `--min_allocatable_resources`: alternatives; empty for no minimum.
    pub min_allocatable: Vec<Quantities>,
    /// `--filter_gpu_resources`: agents with GPUs only for those who ask for them.
    pub filter_gpu_resources: bool,
    /// The region of the master, when it has a domain.
    pub region: Option<String>,
}

impl Default for Options {
    /// Mesos' defaults: 1 s, 0.01 cpus or 32 MB.
    fn default() -> Options {
        let only = |name: &str, amount| {
            let mut quantities = Quantities::new();
            quantities.insert(name, amount);
            quantities
        };
        let cpus = only("cpus", Scalar::from_millis(10));
        let mem = only("mem", Scalar::from_units(32));
        Options {
            allocation_interval: Duration::from_secs(1),
            fair_sharing_excluded: BTreeSet::new(),
            min_allocatable: vec![cpus, mem],
            filter_gpu_resources: true,
            region: None,
        }
    }
}

/// Guarantees and limits of a top-level role; an absent limit is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Kept free for the role until it has them.
    pub guarantees: Quantities,
    /// Never exceeded by offers of unreserved resources.
    pub limits: Quantities,
}

/// The allocator; see the crate's documentation.
#[derive(Clone, Debug)]
pub struct Allocator {
    pub(crate) options: Options,
    pub(crate) seed: u64,
    pub(crate) round: u64,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) frameworks: BTreeMap<FrameworkId, Framework>,
    pub(crate) filters: Filters,
    pub(crate) weights: BTreeMap<Role, u64>,
    pub(crate) quotas: BTreeMap<Role, Quota>,
    pub(crate) whitelist: Option<BTreeSet<String>>,
    /// Sum of all agents' totals.
    pub(crate) total: Quantities,
    /// Agents on which something changed.
    pub(crate) candidates: BTreeSet<AgentId>,
    pub(crate) tree: Tree,
    /// Totals or weights changed: every client's place must be found anew.
    pub(crate) misplaced: bool,
}

impl Allocator {
    /// An allocator without agents and frameworks. The order in which agents are looked at
    /// is drawn from `seed`.
    pub fn new(options: Options, seed: u64) -> Allocator {
        Allocator {
            options,
            seed,
            round: 0,
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            filters: Filters::default(),
            weights: BTreeMap::new(),
            quotas: BTreeMap::new(),
            whitelist: None,
            total: Quantities::new(),
            candidates: BTreeSet::new(),
            tree: Tree::default(),
            misplaced: false,
        }
    }

    /// Every agent is looked at in the next cycle.
    pub fn request_all(&mut self) {
        self.candidates.extend(self.agents.keys().cloned());
    }

    // ------------------------------------------------------------ frameworks

    /// A framework comes. What it uses already is told by [`Allocator::add_allocation`].
    pub fn add_framework(&mut self, id: &FrameworkId, spec: FrameworkSpec) {
        self.frameworks.insert(id.clone(), Framework::new(spec));
        self.recount(id);
        self.place(id);
        self.request_all();
    }

    /// A framework changed; filters of roles that it left are dropped.
    pub fn update_framework(&mut self, id: &FrameworkId, spec: FrameworkSpec) {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let left: BTreeSet<Role> = framework
            .spec
            .roles
            .difference(&spec.roles)
            .cloned()
            .collect();
        framework.spec = spec;
        for role in &left {
            self.tree.displace(role, id);
        }
        self.place(id);
        self.filters
            .remove(|of, role, _| of == id && left.contains(role));
        self.request_all();
    }

    /// A framework is gone, and all that it used is free.
    pub fn remove_framework(&mut self, id: &FrameworkId) {
        if let Some(framework) = self.frameworks.remove(id) {
            for role in &framework.spec.roles {
                self.tree.displace(role, id);
            }
            for (role, amounts) in &framework.allocated {
                self.tree.subtract(role, amounts);
            }
        }
        self.filters.remove(|of, _, _| of == id);
        for (agent_id, agent) in &mut self.agents {
            if agent.allocated.remove(id).is_some() {
                agent.refresh();
                self.candidates.insert(agent_id.clone());
            }
        }
    }

    /// Offers are made to it.
    pub fn activate_framework(&mut self, id: &FrameworkId) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.spec.active = true;
            self.place(id);
            self.request_all();
        }
    }

    /// No offers are made to it; its filters are dropped.
    pub fn deactivate_framework(&mut self, id: &FrameworkId) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.spec.active = false;
            self.place(id);
            self.filters.remove(|of, _, _| of == id);
        }
    }

    /// No offers for these roles.
    pub fn suppress(&mut self, id: &FrameworkId, roles: &[Role]) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.spec.suppressed.extend(roles.iter().cloned());
            self.place(id);
        }
    }

    /// Offers for these roles again, and their filters are dropped.
    pub fn revive(&mut self, id: &FrameworkId, roles: &[Role]) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework
                .spec
                .suppressed
                .retain(|role| !roles.contains(role));
            self.place(id);
            self.filters
                .remove(|of, role, _| of == id && roles.contains(role));
            self.request_all();
        }
    }

    // ------------------------------------------------------------ agents

    /// An agent comes.
    pub fn add_agent(&mut self, id: &AgentId, spec: AgentSpec, active: bool) {
        self.total.add(&spec.total.quantities());
        self.misplaced = true;
        if let Some(old) = self.agents.insert(id.clone(), Agent::new(spec, active)) {
            self.total.saturating_sub(&old.spec.total.quantities());
        }
        self.candidates.insert(id.clone());
    }

    /// An agent changed; filters on it are dropped when its attributes did.
    pub fn update_agent(&mut self, id: &AgentId, spec: AgentSpec) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let other = agent.spec.attributes != spec.attributes;
        self.total.add(&spec.total.quantities());
        self.misplaced = true;
        self.total.saturating_sub(&agent.spec.total.quantities());
        agent.spec = spec;
        agent.refresh();
        if other {
            self.filters.remove(|_, _, of| of == id);
        }
        self.candidates.insert(id.clone());
    }

    /// An agent is gone, and all that was used on it.
    pub fn remove_agent(&mut self, id: &AgentId) {
        if let Some(agent) = self.agents.remove(id) {
            self.total.saturating_sub(&agent.spec.total.quantities());
            self.misplaced = true;
            for (framework, resources) in &agent.allocated {
                self.uncount(framework, resources);
            }
        }
        self.candidates.remove(id);
        self.filters.remove(|_, _, of| of == id);
    }

    /// It is offered.
    pub fn activate_agent(&mut self, id: &AgentId) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.active = true;
            self.candidates.insert(id.clone());
        }
    }

    /// It is not offered.
    pub fn deactivate_agent(&mut self, id: &AgentId) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.active = false;
        }
    }

    /// The agent's total changed: a reservation or a volume was made or destroyed.
    pub fn set_agent_total(&mut self, id: &AgentId, total: &Resources) {
        if let Some(agent) = self.agents.get_mut(id) {
            self.total.add(&total.quantities());
            self.total.saturating_sub(&agent.spec.total.quantities());
            self.misplaced = true;
            agent.spec.total = total.clone();
            agent.refresh();
            self.candidates.insert(id.clone());
        }
    }

    /// When maintenance of the agent is planned; its offers carry that.
    pub fn set_unavailability(&mut self, id: &AgentId, when: Option<wire::Unavailability>) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.unavailability = when;
            self.candidates.insert(id.clone());
        }
    }

    /// Host names that may be offered; `None` for all.
    pub fn set_whitelist(&mut self, hosts: Option<BTreeSet<String>>) {
        self.whitelist = hosts;
        self.request_all();
    }

    // ------------------------------------------------------------ allocations

    /// Resources (with their allocation roles) that a framework holds already.
    pub fn add_allocation(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        resources: &Resources,
    ) {
        if let Some(it) = self.agents.get_mut(agent) {
            let allocated = it.allocated.entry(framework.clone()).or_default();
            let counted = not_held(resources, allocated);
            allocated.add(resources);
            it.available
                .saturating_sub(&resources.unallocate().non_shared());
            self.count(framework, &counted);
        }
    }

    /// Resources come back: an unused offer, an ended task. With `refuse`, what came back
    /// is not offered again for that long.
    pub fn recover(
        &mut self,
        now: Instant,
        framework: &FrameworkId,
        agent: &AgentId,
        resources: &Resources,
        refuse: Option<Duration>,
    ) {
        if let Some(it) = self.agents.get_mut(agent) {
            let mut freed = Resources::new();
            if let Some(allocated) = it.allocated.get_mut(framework) {
                allocated.saturating_sub(resources);
                freed = not_held(resources, allocated);
                if allocated.is_empty() {
                    it.allocated.remove(framework);
                }
            }
            it.refresh();
            self.uncount(framework, &freed);
            self.candidates.insert(agent.clone());
            let known = self.frameworks.contains_key(framework);
            if let (Some(refuse), true) = (refuse, known) {
                for (role, refused) in resources.allocations() {
                    let key = (framework.clone(), role, agent.clone());
                    self.filters.add(key, refused.unallocate(), now + refuse);
                }
            }
        }
    }

    /// What a framework holds was converted (reserved, made a volume ...).
    pub fn update_allocation(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        from: &Resources,
        to: &Resources,
    ) {
        if let Some(it) = self.agents.get_mut(agent) {
            let allocated = it.allocated.entry(framework.clone()).or_default();
            allocated.saturating_sub(from);
            let freed = not_held(from, allocated);
            let counted = not_held(to, allocated);
            allocated.add(to);
            it.refresh();
            self.uncount(framework, &freed);
            self.count(framework, &counted);
        }
    }

    fn count(&mut self, framework: &FrameworkId, resources: &Resources) {
        if let Some(it) = self.frameworks.get_mut(framework) {
            for (role, part) in resources.allocations() {
                let amounts = part.quantities();
                self.tree.add(&role, &amounts);
                it.allocated.entry(role).or_default().add(&amounts);
            }
            self.place(framework);
        }
    }

    fn uncount(&mut self, framework: &FrameworkId, resources: &Resources) {
        if let Some(it) = self.frameworks.get_mut(framework) {
            for (role, part) in resources.allocations() {
                if let Some(amounts) = it.allocated.get_mut(&role) {
                    amounts.saturating_sub(&part.quantities());
                    self.tree.subtract(&role, &part.quantities());
                }
            }
            self.place(framework);
        }
    }

    // ------------------------------------------------------------ places

    pub(crate) fn measure(&self) -> Measure<'_> {
        Measure {
            total: &self.total,
            excluded: &self.options.fair_sharing_excluded,
            weights: &self.weights,
        }
    }

    /// Puts a framework to its place in each of its roles, or out of those for which it
    /// wants nothing.
    fn place(&mut self, id: &FrameworkId) {
        let none = Quantities::new();
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let measure = Measure {
            total: &self.total,
            excluded: &self.options.fair_sharing_excluded,
            weights: &self.weights,
        };
        for role in &framework.spec.roles {
            if framework.wants(role) {
                let allocated = framework.allocated.get(role).unwrap_or(&none);
                let given = framework.given.get(role).copied().unwrap_or(0);
                self.tree.place(role, id, allocated, given, &measure);
            } else {
                self.tree.displace(role, id);
            }
        }
    }

    /// Finds all places anew when the totals have changed.
    pub(crate) fn find_places(&mut self) {
        if std::mem::take(&mut self.misplaced) {
            self.tree.displace_all();
            let ids: Vec<FrameworkId> = self.frameworks.keys().cloned().collect();
            for id in ids {
                self.place(&id);
            }
        }
    }

    /// Counts what agents remember of a framework that came back.
    fn recount(&mut self, id: &FrameworkId) {
        let held: Vec<Resources> = self
            .agents
            .values()
            .filter_map(|agent| agent.allocated.get(id).cloned())
            .collect();
        for resources in held {
            self.count(id, &resources);
        }
    }

    // ------------------------------------------------------------ settings

    /// Weight of a role in millionths; a million is the default.
    pub fn set_weight(&mut self, role: Role, micro: u64) {
        self.weights.insert(role, micro);
        self.request_all();
    }

    /// Quota of a top-level role; `None` removes it.
    pub fn set_quota(&mut self, role: Role, quota: Option<Quota>) {
        match quota {
            Some(quota) => self.quotas.insert(role, quota),
            None => self.quotas.remove(&role),
        };
        self.request_all();
    }

    /// When a cycle has something to do again without another call: the next expiry.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.filters.next_expiry()
    }

    /// Panics when a table contradicts itself.
    pub fn check_invariants(&self) {
        let mut total = Quantities::new();
        for agent in self.agents.values() {
            total.add(&agent.spec.total.quantities());
        }
        assert_eq!(total, self.total, "the total is the sum of the agents'");
        for (id, agent) in &self.agents {
            let mut expected = agent.clone();
            expected.refresh();
            assert!(
                expected.available.is_equivalent(&agent.available),
                "{id}: {} available instead of {}",
                agent.available,
                expected.available
            );
        }
        for (id, framework) in &self.frameworks {
            let mut expected: BTreeMap<Role, Quantities> = BTreeMap::new();
            for agent in self.agents.values() {
                if let Some(resources) = agent.allocated.get(id) {
                    for (role, part) in resources.allocations() {
                        expected.entry(role).or_default().add(&part.quantities());
                    }
                }
            }
            for (role, amounts) in &framework.allocated {
                let counted = expected.remove(role).unwrap_or_default();
                assert_eq!(*amounts, counted, "{id} in {role}");
            }
            assert!(
                expected.values().all(Quantities::is_empty),
                "{id}: {expected:?}"
            );
            for role in &framework.spec.roles {
                let listed = self.tree.clients(role).any(|it| it == id);
                let wanted = framework.wants(role);
                assert!(
                    self.misplaced || listed == wanted,
                    "{id} in {role}: {listed}"
                );
            }
        }
        for (role, own) in self.tree.own() {
            let mut expected = Quantities::new();
            for framework in self.frameworks.values() {
                if let Some(amounts) = framework.allocated.get(role) {
                    expected.add(amounts);
                }
            }
            assert_eq!(expected, *own, "{role}");
        }
    }
}

/// Without the shared resources of which a copy is held besides: each counts once for a
/// framework and agent, however often it is used.
fn not_held(resources: &Resources, held: &Resources) -> Resources {
    resources.filter(|it| !it.shared || !held.contains_resource(it))
}
