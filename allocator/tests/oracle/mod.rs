//! The slow and obvious allocator: it remembers what it was told, and computes everything else
//! from scratch whenever it is asked. It shares with the real one the algebra of resources and
//! the types of its calls, and nothing else.

use regex::Regex;
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tepui_allocator::{
    AgentOrder, AgentSpec, Allotment, FrameworkSpec, Options, Place, Progress, Quota,
};
use tepui_model::{
    AgentId, FrameworkId, Quantities, Resource, Resources, Role, Scalar,
    agent::Capability as AgentCan,
    attribute::AttributeValue,
    framework::Capability as Can,
    time::Instant,
    wire::scheduler::{
        AttributeConstraint,
        attribute_constraint::{
            predicate::Predicate,
            selector::{PseudoattributeType, Selector},
        },
    },
};

/// Resources by the framework that holds them, and the role.
type Held = BTreeMap<(FrameworkId, Role), Resources>;

#[derive(Clone)]
struct Agent {
    spec: AgentSpec,
    active: bool,
    held: Held,
    shared_given: u64,
    /// Kept for this client until then.
    claim: Option<(FrameworkId, Role, Instant)>,
}

#[derive(Clone)]
struct Filter {
    framework: FrameworkId,
    role: Role,
    agent: AgentId,
    refused: Resources,
    until: Instant,
}

/// A framework in a role.
type Client = (Role, FrameworkId);

/// A share: part, whole, weight in millionths, and allotments so far.
type Share = (i128, i128, i128, u64);

#[derive(Clone)]
pub struct Oracle {
    options: Options,
    seed: u64,
    round: u64,
    /// Whether a cycle serves guarantees, and how far it came.
    run: Option<(bool, Option<Place>)>,
    agents: BTreeMap<AgentId, Agent>,
    frameworks: BTreeMap<FrameworkId, FrameworkSpec>,
    paused: BTreeSet<FrameworkId>,
    dormant: BTreeSet<FrameworkId>,
    counts: BTreeMap<(FrameworkId, Role), u64>,
    filters: Vec<Filter>,
    weights: BTreeMap<Role, u64>,
    quotas: BTreeMap<Role, Quota>,
    whitelist: Option<BTreeSet<String>>,
}

impl Oracle {
    pub fn new(options: Options, seed: u64) -> Oracle {
        Oracle {
            options,
            seed,
            round: 0,
            run: None,
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            paused: BTreeSet::new(),
            dormant: BTreeSet::new(),
            counts: BTreeMap::new(),
            filters: Vec::new(),
            weights: BTreeMap::new(),
            quotas: BTreeMap::new(),
            whitelist: None,
        }
    }

    // ------------------------------------------------------------ what it is told

    pub fn set_framework(&mut self, id: &FrameworkId, spec: FrameworkSpec) {
        self.filters
            .retain(|it| it.framework != *id || spec.roles.contains(&it.role));
        self.frameworks.insert(id.clone(), spec);
        self.forget_idle();
    }

    pub fn remove_framework(&mut self, id: &FrameworkId) {
        self.frameworks.remove(id);
        self.paused.remove(id);
        self.dormant.remove(id);
        self.filters.retain(|it| it.framework != *id);
        for agent in self.agents.values_mut() {
            agent.held.retain(|(framework, _), _| framework != id);
        }
        self.forget_idle();
    }

    pub fn set_active(&mut self, id: &FrameworkId, active: bool) {
        if let Some(it) = self.frameworks.get_mut(id) {
            it.active = active;
            if !active {
                self.filters.retain(|it| it.framework != *id);
            }
        }
    }

    pub fn set_paused(&mut self, id: &FrameworkId, paused: bool) {
        self.paused.remove(id);
        if paused && self.frameworks.contains_key(id) {
            self.paused.insert(id.clone());
        }
    }

    pub fn set_dormant(&mut self, id: &FrameworkId, dormant: bool) {
        self.dormant.remove(id);
        if dormant && self.frameworks.contains_key(id) {
            self.dormant.insert(id.clone());
        }
    }

    pub fn claim(&mut self, agent: &AgentId, claim: Option<(FrameworkId, Role, Instant)>) {
        if let Some(it) = self.agents.get_mut(agent) {
            it.claim = claim;
        }
    }

    pub fn suppress(&mut self, id: &FrameworkId, roles: &[Role]) {
        if let Some(it) = self.frameworks.get_mut(id) {
            for role in it.roles.clone() {
                if roles.is_empty() || roles.contains(&role) {
                    it.suppressed.insert(role);
                }
            }
        }
    }

    pub fn revive(&mut self, id: &FrameworkId, roles: &[Role]) {
        let named = |role: &Role| roles.is_empty() || roles.contains(role);
        if let Some(it) = self.frameworks.get_mut(id) {
            it.suppressed.retain(|role| !named(role));
            self.filters
                .retain(|it| it.framework != *id || !named(&it.role));
        }
    }

    pub fn set_agent(&mut self, id: &AgentId, spec: AgentSpec, active: bool) {
        match self.agents.get_mut(id) {
            Some(it) => {
                if it.spec.attributes != spec.attributes {
                    self.filters.retain(|it| it.agent != *id);
                }
                it.spec = spec;
                it.active = active;
            }
            None => {
                let agent = Agent {
                    spec,
                    active,
                    held: Held::new(),
                    shared_given: 0,
                    claim: None,
                };
                self.agents.insert(id.clone(), agent);
            }
        }
    }

    pub fn set_agent_active(&mut self, id: &AgentId, active: bool) {
        if let Some(it) = self.agents.get_mut(id) {
            it.active = active;
        }
    }

    pub fn set_total(&mut self, id: &AgentId, total: &Resources) {
        if let Some(it) = self.agents.get_mut(id) {
            it.spec.total = total.clone();
        }
    }

    pub fn remove_agent(&mut self, id: &AgentId) {
        self.agents.remove(id);
        self.filters.retain(|it| it.agent != *id);
        self.forget_idle();
    }

    pub fn hold(&mut self, framework: &FrameworkId, agent: &AgentId, resources: &Resources) {
        if let Some(it) = self.agents.get_mut(agent) {
            for (role, part) in resources.allocations() {
                let key = (framework.clone(), role);
                it.held.entry(key).or_default().add(&part);
            }
        }
    }

    pub fn recover(
        &mut self,
        now: Instant,
        framework: &FrameworkId,
        agent: &AgentId,
        resources: &Resources,
        refuse: Option<Duration>,
    ) {
        let Some(it) = self.agents.get_mut(agent) else {
            return;
        };
        for (role, part) in resources.allocations() {
            let key = (framework.clone(), role.clone());
            if let Some(held) = it.held.get_mut(&key) {
                held.saturating_sub(&part);
                if held.is_empty() {
                    it.held.remove(&key);
                }
            }
            let refuse = refuse.filter(|it| *it > Duration::ZERO);
            let spec = self.frameworks.get(framework);
            if let (Some(refuse), Some(spec)) = (refuse, spec)
                && spec.active
                && spec.roles.contains(&role)
            {
                self.filters.push(Filter {
                    framework: framework.clone(),
                    role,
                    agent: agent.clone(),
                    refused: part.unallocate(),
                    until: now + refuse.max(self.options.allocation_interval),
                });
            }
        }
        self.forget_idle();
    }

    pub fn convert(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        from: &Resources,
        to: &Resources,
    ) {
        self.hold(framework, agent, to);
        self.recover(Instant(0), framework, agent, from, None);
    }

    pub fn set_weight(&mut self, role: Role, weight: u64) {
        self.weights.insert(role, weight);
    }

    pub fn set_quota(&mut self, role: Role, quota: Option<Quota>) {
        match quota {
            Some(quota) => self.quotas.insert(role, quota),
            None => self.quotas.remove(&role),
        };
    }

    pub fn set_whitelist(&mut self, hosts: Option<BTreeSet<String>>) {
        self.whitelist = hosts;
    }

    /// Allotments count while a framework subscribes to the role or holds something in it.
    fn forget_idle(&mut self) {
        let (frameworks, agents) = (&self.frameworks, &self.agents);
        self.counts.retain(|key, _| {
            let spec = frameworks.get(&key.0);
            spec.is_some_and(|it| it.roles.contains(&key.1))
                || agents.values().any(|it| it.held.contains_key(key))
        });
    }

    // ------------------------------------------------------------ order

    pub fn allocated(&self, framework: &FrameworkId, role: &Role) -> Quantities {
        self.amounts(|key| key.0 == *framework && key.1 == *role)
    }

    /// What those hold who satisfy the condition; a shared volume counts once per agent.
    fn amounts(&self, is_of: impl Fn(&(FrameworkId, Role)) -> bool) -> Quantities {
        let mut sum = Quantities::new();
        for agent in self.agents.values() {
            let mut held = Resources::new();
            for (_, resources) in agent.held.iter().filter(|(key, _)| is_of(key)) {
                held.add(&resources.unallocate());
            }
            sum.add(&held.quantities());
        }
        sum
    }

    fn total(&self) -> Quantities {
        let mut sum = Quantities::new();
        for agent in self.agents.values() {
            sum.add(&agent.spec.total.quantities());
        }
        sum
    }

    fn share(&self, is_of: impl Fn(&(FrameworkId, Role)) -> bool, weight: u64) -> Share {
        let total = self.total();
        let mut largest = (0, 1);
        for (name, part) in self.amounts(&is_of).iter() {
            let whole = i128::from(total.get(name).as_millis());
            let part = i128::from(part.as_millis());
            let counts = whole > 0 && !self.options.fair_sharing_excluded.contains(&**name);
            if counts && part * largest.1 > largest.0 * whole {
                largest = (part, whole);
            }
        }
        let counts = self.counts.iter().filter(|(key, _)| is_of(key));
        let count = counts.map(|(_, count)| count).sum();
        (largest.0, largest.1, i128::from(weight), count)
    }

    /// All clients that want offers, in order.
    pub fn order(&self) -> Vec<(Role, FrameworkId)> {
        let mut clients = Vec::new();
        for (id, spec) in &self.frameworks {
            for role in &spec.roles {
                if spec.active && !self.paused.contains(id) && !spec.suppressed.contains(role) {
                    clients.push((role.clone(), id.clone()));
                }
            }
        }
        let mut order = self.order_below(None, &clients);
        order.sort_by_key(|(_, framework)| self.dormant.contains(framework));
        order
    }

    /// The clients in the subtree of a role in order.
    fn order_below(
        &self,
        role: Option<&Role>,
        clients: &[(Role, FrameworkId)],
    ) -> Vec<(Role, FrameworkId)> {
        let mut own = Vec::new();
        let mut below: BTreeMap<Role, Vec<(Role, FrameworkId)>> = BTreeMap::new();
        for client in clients {
            if Some(&client.0) == role {
                own.push(client.clone());
                continue;
            }
            // The component behind `role`.
            let depth = role.map_or(0, |it| it.components().count());
            let name: Vec<&str> = client.0.components().take(depth + 1).collect();
            let child = Role::from(name.join("/"));
            below.entry(child).or_default().push(client.clone());
        }
        let share = |it: (Role, FrameworkId)| {
            let share = self.share(|key| key.1 == it.0 && key.0 == it.1, 1_000_000);
            (share, it)
        };
        let mut own: Vec<(Share, (Role, FrameworkId))> = own.into_iter().map(share).collect();
        own.sort_by(|one, other| compare(one.0, other.0).then_with(|| one.1.1.cmp(&other.1.1)));
        let own: Vec<_> = own.into_iter().map(|it| it.1).collect();
        let mut siblings: Vec<(Share, String, Vec<Client>)> = Vec::new();
        if let Some(role) = role
            && !own.is_empty()
        {
            let share = self.share(|key| key.1 == *role, 1_000_000);
            siblings.push((share, ".".to_owned(), own));
        }
        for (child, clients) in below {
            let weight = self.weights.get(&child).copied().unwrap_or(1_000_000);
            let share = self.share(|key| key.1.is_within(&child), weight);
            let name = child.components().last().unwrap().to_owned();
            siblings.push((share, name, self.order_below(Some(&child), &clients)));
        }
        siblings.sort_by(|one, other| compare(one.0, other.0).then_with(|| one.1.cmp(&other.1)));
        siblings.into_iter().flat_map(|it| it.2).collect()
    }

    // ------------------------------------------------------------ quota

    /// What counts against the quota of a role.
    fn consumed(&self, role: &Role) -> Quantities {
        let mut consumed = Quantities::new();
        for agent in self.agents.values() {
            let reserved = |it: &Resource| {
                it.reservation_role()
                    .is_some_and(|owner| owner.is_within(role))
            };
            consumed.add(&agent.spec.total.filter(reserved).quantities());
            for ((_, holder), resources) in &agent.held {
                if holder.is_within(role) {
                    consumed.add(&resources.filter(is_free).quantities());
                }
            }
        }
        consumed
    }

    fn missing(&self, role: &Role) -> Quantities {
        let mut missing = self.quotas[role].guarantees.clone();
        missing.saturating_sub(&self.consumed(role));
        missing
    }

    /// What the guarantees right below a role require together; of all roots for none.
    fn required_below(&self, role: Option<&Role>) -> Quantities {
        let below = |it: &&Role| role.is_none_or(|role| it.is_strict_subrole_of(role));
        let below: Vec<&Role> = self.quotas.keys().filter(below).collect();
        let is_child = |it: &&&Role| !below.iter().any(|other| it.is_strict_subrole_of(other));
        let mut sum = Quantities::new();
        for child in below.iter().filter(is_child) {
            // What it lacks itself, or what those below it require if that is more.
            let (own, mut required) = (self.missing(child), self.required_below(Some(child)));
            for (name, amount) in own.iter() {
                required.insert(name, required.get(name).max(amount));
            }
            sum.add(&required);
        }
        sum
    }

    /// What of that a client in the role may take: what each role around it lacks beyond what the
    /// guarantees below that one require.
    fn claims(&self, role: &Role) -> Quantities {
        let mut claims = Quantities::new();
        for around in self.quotas.keys().filter(|it| role.is_within(it)) {
            let mut own = self.missing(around);
            own.saturating_sub(&self.required_below(Some(around)));
            claims.add(&own);
        }
        claims
    }

    /// What of `resources` quotas leave to the role; nothing when it is of no use for a guarantee
    /// in the stage of guarantees.
    fn within_quota(&self, resources: Resources, role: &Role, guarantees: bool) -> Resources {
        let free = resources.filter(is_free);
        let claims = self.claims(role);
        if guarantees && free.shrink_to(&claims).is_empty() {
            return Resources::new();
        }
        let mut headroom = Quantities::new();
        for agent in self.agents.values() {
            headroom.add(&agent.available().filter(is_free).quantities());
        }
        let mut bounds = Quantities::new();
        for (name, required) in self.required_below(None).iter() {
            let surplus = headroom.get(name).saturating_sub(required);
            let for_guarantee = match guarantees {
                true => claims.get(name),
                false => Scalar::ZERO,
            };
            bounds.insert(name, surplus + for_guarantee);
        }
        for (around, quota) in self.quotas.iter().filter(|(it, _)| role.is_within(it)) {
            let consumed = self.consumed(around);
            for (name, limit) in quota.limits.iter() {
                let room = limit.saturating_sub(consumed.get(name));
                let bound = bounds.0.get(name).copied().unwrap_or(Scalar::MAX);
                bounds.insert(name, bound.min(room));
            }
        }
        let cut = free.shrink_to_limits(&bounds);
        if cut == free {
            return resources;
        }
        let mut rest = resources.filter(|it| !is_free(it));
        rest.add(&cut);
        rest
    }

    // ------------------------------------------------------------ cycles

    /// A cycle, or the part of one that came as far as `progress`.
    pub fn allocate(&mut self, now: Instant, progress: Option<Progress>) -> Vec<Allotment> {
        self.filters.retain(|it| it.until > now);
        let mut run = self.run.take().unwrap_or_else(|| {
            self.round += 1;
            (!self.required_below(None).is_empty(), None)
        });
        let mut allotments = Vec::new();
        loop {
            let (guarantees, from) = run;
            let end = progress.as_ref().filter(|it| it.guarantees == guarantees);
            let mut order: Vec<(Place, AgentId)> = self
                .agents
                .keys()
                .map(|id| (self.place(guarantees, id), id.clone()))
                .filter(|(place, _)| from.as_ref().is_none_or(|from| place > from))
                .filter(|(place, _)| end.is_none_or(|end| Some(place) <= end.last.as_ref()))
                .collect();
            order.sort();
            for (_, agent) in order {
                self.divide(now, &agent, guarantees, &mut allotments);
            }
            if let Some(end) = end {
                self.run = Some((guarantees, end.last.clone().max(from)));
                return allotments;
            }
            if !guarantees {
                return allotments;
            }
            run = (false, None);
        }
    }

    /// FNV-1a of the id, mixed with seed, round and stage by SplitMix64.
    fn place(&self, guarantees: bool, agent: &AgentId) -> Place {
        if self.options.agent_order == AgentOrder::Id {
            return Place::Id(agent.clone());
        }
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in agent.as_str().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mix = |it: u64| {
            let mut it = it.wrapping_add(0x9e37_79b9_7f4a_7c15);
            it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            it ^ (it >> 31)
        };
        let round = self.round * 2 + u64::from(guarantees);
        Place::Hash(mix(mix(mix(self.seed ^ 18) ^ round) ^ hash))
    }

    fn divide(
        &mut self,
        now: Instant,
        id: &AgentId,
        guarantees: bool,
        allotments: &mut Vec<Allotment>,
    ) {
        let agent = &self.agents[id];
        let hosts = self.whitelist.as_ref();
        if !agent.active || hosts.is_some_and(|it| !it.contains(&*agent.spec.hostname)) {
            return;
        }
        let order = self.order();
        let claim = agent.claim.clone().filter(|it| it.2 > now);
        let claimant = claim.map(|it| (it.1, it.0));
        let claimant = claimant.filter(|it| order.contains(it));
        for (role, framework) in order {
            if claimant
                .as_ref()
                .is_some_and(|it| it.0 != role || it.1 != framework)
            {
                continue;
            }
            let Some(resources) = self.offer(id, &role, &framework, guarantees) else {
                continue;
            };
            self.hold(&framework, id, &resources.allocate(&role));
            let count = self
                .counts
                .entry((framework.clone(), role.clone()))
                .or_default();
            *count += 1;
            let agent = self.agents.get_mut(id).unwrap();
            if resources.iter().any(|it| it.shared) {
                agent.shared_given = self.round;
            }
            allotments.push(Allotment {
                framework,
                role,
                agent: id.clone(),
                resources: resources.into(),
            });
        }
    }

    /// Whether one of these frameworks, awake and wanting offers, would take something if what
    /// another holds of an agent were free.
    pub fn would_be_taken(
        &self,
        now: Instant,
        (holder, agent, held): (&FrameworkId, &AgentId, &Resources),
        waiting: &[FrameworkId],
    ) -> bool {
        let mut then = self.clone();
        then.filters.retain(|it| it.until > now);
        then.recover(now, holder, agent, &held.non_shared(), None);
        let it = &then.agents[agent];
        let hosts = then.whitelist.as_ref();
        if !it.active || hosts.is_some_and(|all| !all.contains(&*it.spec.hostname)) {
            return false;
        }
        let order = then.order();
        let claim = it.claim.clone().filter(|it| it.2 > now);
        let claimant = claim.map(|it| (it.1, it.0)).filter(|it| order.contains(it));
        let mut awake = order
            .into_iter()
            .filter(|(_, it)| !then.dormant.contains(it));
        awake.any(|(role, framework)| {
            let is_open = claimant
                .as_ref()
                .is_none_or(|it| it.0 == role && it.1 == framework);
            is_open
                && waiting.contains(&framework)
                && then.offer(agent, &role, &framework, false).is_some()
        })
    }

    /// What the framework takes of the agent in the role.
    fn offer(
        &self,
        id: &AgentId,
        role: &Role,
        framework: &FrameworkId,
        guarantees: bool,
    ) -> Option<Resources> {
        let (agent, spec) = (&self.agents[id], &self.frameworks[framework]);
        if !self.can_use(agent, spec, role) {
            return None;
        }
        let can = |it| spec.capabilities.is(it);
        let shared = can(Can::SharedResources) && agent.shared_given != self.round;
        let seen = agent.available().filter(|it| {
            it.is_allocatable_to(role)
                && (shared || !it.shared)
                && (can(Can::RevocableResources) || !it.revocable)
                && (can(Can::ReservationRefinement) || !it.is_refined())
        });
        let offer = self.within_quota(seen, role, guarantees);
        let minimum = spec.offer_filters.get(role);
        let minimum = minimum.unwrap_or(&self.options.min_allocatable);
        let amounts = offer.quantities();
        let is_enough = minimum.is_empty() || minimum.iter().any(|it| amounts.contains(it));
        let is_refused = self.filters.iter().any(|it| {
            it.framework == *framework
                && it.role == *role
                && it.agent == *id
                && it.refused.contains(&offer)
        });
        (!offer.is_empty() && is_enough && !is_refused).then_some(offer)
    }

    fn can_use(&self, agent: &Agent, spec: &FrameworkSpec, role: &Role) -> bool {
        let can = |it| spec.capabilities.is(it);
        let agent_can = |it| agent.spec.capabilities.is(it);
        let has_gpus = agent.spec.total.gpus().is_some_and(|it| !it.is_zero());
        let region = agent.spec.domain.as_ref().map(|it| it.region.to_string());
        let is_remote =
            self.options.region.is_some() && region.is_some() && region != self.options.region;
        let constraints = spec.constraints.role_constraints.get(role.as_str());
        (!can(Can::MultiRole) || agent_can(AgentCan::MultiRole))
            && (!role.is_hierarchical() || agent_can(AgentCan::HierarchicalRole))
            && (!has_gpus || !self.options.filter_gpu_resources || can(Can::GpuResources))
            && (!is_remote || can(Can::RegionAware))
            && constraints.is_none_or(|it| {
                let mut groups = it.groups.iter();
                groups.any(|it| {
                    it.attribute_constraints
                        .iter()
                        .all(|it| holds(it, &agent.spec))
                })
            })
    }
}

impl Agent {
    fn available(&self) -> Resources {
        let mut available = self.spec.total.clone();
        for resources in self.held.values() {
            available.saturating_sub(&resources.unallocate().non_shared());
        }
        available
    }
}

fn is_free(it: &Resource) -> bool {
    it.is_unreserved() && !it.revocable && !it.shared && it.amount().is_some()
}

fn compare(one: Share, other: Share) -> Ordering {
    // Worlds in tests are small: 128 bits hold the products.
    let left = one.0 * other.1 * other.2;
    let right = other.0 * one.1 * one.2;
    left.cmp(&right).then(one.3.cmp(&other.3))
}

fn holds(constraint: &AttributeConstraint, agent: &AgentSpec) -> bool {
    let domain = agent.domain.as_ref();
    // The text that the selector finds; an inner none for what is not text.
    let found: Option<Option<String>> = match constraint.selector.selector.as_ref().unwrap() {
        Selector::AttributeName(name) => agent.attributes.get(name).map(|it| match &it.value {
            AttributeValue::Text(it) => Some(it.to_string()),
            _ => None,
        }),
        Selector::PseudoattributeType(it) => match PseudoattributeType::try_from(*it).unwrap() {
            PseudoattributeType::Hostname => Some(Some(agent.hostname.to_string())),
            PseudoattributeType::Region => domain.map(|it| Some(it.region.to_string())),
            PseudoattributeType::Zone => domain.map(|it| Some(it.zone.to_string())),
            PseudoattributeType::Unknown => None,
        },
    };
    let matches = |regex: &str, text: &str| {
        let regex = Regex::new(&format!("^(?:{regex})$"));
        regex.is_ok_and(|it| it.is_match(text))
    };
    let predicate = constraint.predicate.predicate.as_ref().unwrap();
    let text = match (predicate, found) {
        (Predicate::Exists(_), found) => return found.is_some(),
        (Predicate::NotExists(_), found) => return found.is_none(),
        (Predicate::TextEquals(_) | Predicate::TextMatches(_), None) => return false,
        (_, None | Some(None)) => return true,
        (_, Some(Some(text))) => text,
    };
    match predicate {
        Predicate::TextEquals(it) => it.value == text,
        Predicate::TextNotEquals(it) => it.value != text,
        Predicate::TextMatches(it) => matches(&it.regex, &text),
        Predicate::TextNotMatches(it) => !matches(&it.regex, &text),
        Predicate::Exists(_) | Predicate::NotExists(_) => unreachable!(),
    }
}
