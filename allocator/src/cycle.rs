//! One cycle: agent by agent, role by role, framework by framework.

use crate::{agents::Agent, allocator::Allocator, constraints, frameworks::Framework};
use std::collections::{BTreeMap, BTreeSet};
use tepui_model::{
    AgentId, FrameworkId, Quantities, Resource, Resources, Role, Scalar,
    time::Instant,
    wire::{agent_info::capability::Type as AgentCan, framework_info::capability::Type as Can},
};

/// Resources of one agent for one framework in one role; already counted as allocated.
#[derive(Clone, Debug, PartialEq)]
pub struct Allotment {
    /// Who gets it.
    pub framework: FrameworkId,
    /// In which role.
    pub role: Role,
    /// Of which agent.
    pub agent: AgentId,
    /// What, allocated to the role.
    pub resources: Resources,
}

/// What one slice of a cycle gave.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    /// In the order in which they were made.
    pub allotments: Vec<Allotment>,
    /// The budget was used up: call again.
    pub more: bool,
}

/// Amounts that quotas leave, by name; an absent name is without bound.
type Bounds = BTreeMap<std::sync::Arc<str>, Scalar>;

impl Allocator {
    /// Gives what is available to whoever has the smallest share. Looks at candidates
    /// only: agents on which something changed since the last cycle. `budget` bounds the
    /// agents and clients looked at.
    pub fn allocate(&mut self, now: Instant, budget: u32) -> Cycle {
        for agent in self.filters.expire(now) {
            self.candidates.insert(agent);
        }
        self.find_places();
        let mut cycle = Cycle::default();
        self.round = self.round.wrapping_add(1);
        let mut order: Vec<AgentId> = self.candidates.iter().cloned().collect();
        order.sort_by_cached_key(|id| (self.hash(id), id.clone()));
        let mut left = i64::from(budget);
        for id in order {
            if left <= 0 {
                cycle.more = true;
                break;
            }
            self.candidates.remove(&id);
            left -= self.allocate_agent(&id, &mut cycle.allotments);
        }
        cycle
    }

    /// A fresh order of the agents for each cycle, from the seed.
    fn hash(&self, id: &AgentId) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ self.seed ^ self.round.wrapping_mul(0x9e37_79b9);
        for byte in id.as_str().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash ^ (hash >> 29)
    }

    /// Returns how much work it was.
    fn allocate_agent(&mut self, id: &AgentId, allotments: &mut Vec<Allotment>) -> i64 {
        let Some(agent) = self.agents.get(id) else {
            return 1;
        };
        let listed = self
            .whitelist
            .as_ref()
            .is_none_or(|hosts| hosts.contains(agent.spec.hostname.as_ref()));
        if !agent.active || !listed || agent.available.is_empty() {
            return 1;
        }
        let mut work = 1;
        // Shared resources are offered once an agent and cycle.
        let mut shared_given = false;
        // Roles with unsatisfied guarantees first, then everybody.
        for guaranteed in [true, false] {
            if guaranteed && self.quotas.values().all(|it| it.guarantees.is_empty()) {
                continue;
            }
            let mut done: BTreeSet<(Role, FrameworkId)> = BTreeSet::new();
            loop {
                let Some(agent) = self.agents.get(id) else {
                    return work;
                };
                if agent.available.is_empty() {
                    return work;
                }
                // Shares move with every allotment: the order is found anew.
                let mut given = None;
                let roles = self.tree.order(&self.measure());
                'clients: for role in &roles {
                    for framework in self.tree.clients(role) {
                        let client = (role.clone(), framework.clone());
                        if done.contains(&client) {
                            continue;
                        }
                        work += 1;
                        if let Some(resources) =
                            self.offerable(id, role, framework, guaranteed, shared_given)
                        {
                            given = Some((role.clone(), framework.clone(), resources));
                            break 'clients;
                        }
                        done.insert(client);
                    }
                }
                let Some((role, framework, resources)) = given else {
                    break;
                };
                shared_given |= resources.iter().any(|it| it.shared);
                done.insert((role.clone(), framework.clone()));
                self.give(id, role, framework, resources, allotments);
            }
        }
        work
    }

    fn give(
        &mut self,
        agent: &AgentId,
        role: Role,
        framework: FrameworkId,
        resources: Resources,
        allotments: &mut Vec<Allotment>,
    ) {
        let resources = resources.allocate(&role);
        if let Some(it) = self.frameworks.get_mut(&framework) {
            *it.given.entry(role.clone()).or_default() += 1;
            self.tree.give(&role);
        }
        self.add_allocation(&framework, agent, &resources);
        allotments.push(Allotment {
            framework,
            role,
            agent: agent.clone(),
            resources,
        });
    }

    /// What of an agent the framework would be offered in the role; `None` for nothing.
    fn offerable(
        &self,
        agent_id: &AgentId,
        role: &Role,
        framework_id: &FrameworkId,
        guaranteed: bool,
        shared_given: bool,
    ) -> Option<Resources> {
        let agent = self.agents.get(agent_id)?;
        let framework = self.frameworks.get(framework_id)?;
        if !self.can_use(agent, framework, role) {
            return None;
        }
        let can = framework.spec.capabilities;
        let keep = |it: &Resource| {
            it.is_allocatable_to(role)
                && (!it.shared || (can.is(Can::SharedResources) && !shared_given))
                && (!it.revocable || can.is(Can::RevocableResources))
                && (!it.is_refined() || can.is(Can::ReservationRefinement))
                && it.name.as_ref() != "ephemeral_ports"
        };
        let mut offered = agent.available.filter(keep);
        if !self.quotas.is_empty() {
            offered = self.within_quota(&offered, role, guaranteed)?;
        }
        if offered.is_empty() || !self.is_enough(&offered, framework, role) {
            return None;
        }
        let key = (framework_id.clone(), role.clone(), agent_id.clone());
        (!self.filters.block(&key, &offered)).then_some(offered)
    }

    /// Capabilities, regions, GPUs and constraints.
    fn can_use(&self, agent: &Agent, framework: &Framework, role: &Role) -> bool {
        let (can, agent_can) = (framework.spec.capabilities, agent.spec.capabilities);
        if can.is(Can::MultiRole) && !agent_can.is(AgentCan::MultiRole) {
            return false;
        }
        if role.is_hierarchical() && !agent_can.is(AgentCan::HierarchicalRole) {
            return false;
        }
        let has_gpus = agent.spec.total.gpus().is_some_and(|it| !it.is_zero());
        if self.options.filter_gpu_resources && has_gpus && !can.is(Can::GpuResources) {
            return false;
        }
        let region = agent.spec.domain.as_ref().map(|it| it.region.as_ref());
        let remote = region.is_some_and(|it| self.options.region.as_deref() != Some(it));
        if remote && self.options.region.is_some() && !can.is(Can::RegionAware) {
            return false;
        }
        constraints::allow(&framework.spec.constraints, role, &agent.spec)
    }

    fn is_enough(&self, offered: &Resources, framework: &Framework, role: &Role) -> bool {
        let minimums = framework
            .spec
            .offer_filters
            .get(role)
            .unwrap_or(&self.options.min_allocatable);
        let amounts = offered.quantities();
        minimums.is_empty() || minimums.iter().any(|it| amounts.contains(it))
    }

    /// Cuts unreserved, non-revocable scalars to what quotas leave (behaviour of Mesos'
    /// two stages): first only what fills the role's own guarantee, then what neither a
    /// limit nor the head-room of others forbids.
    fn within_quota(
        &self,
        offered: &Resources,
        role: &Role,
        guaranteed: bool,
    ) -> Option<Resources> {
        let top = role.top_level();
        let quota = self.quotas.get(&top);
        let consumed = self.consumed(&top);
        let mut bounds: Bounds = Bounds::new();
        if let Some(quota) = quota {
            for (name, limit) in quota.limits.iter() {
                bounds.insert(
                    name.clone(),
                    limit.saturating_sub(consumed.get(name)).max(Scalar::ZERO),
                );
            }
        }
        if guaranteed {
            let unsatisfied = quota.is_some_and(|quota| {
                let mut all = quota.guarantees.iter();
                all.any(|(name, guarantee)| consumed.get(name) < guarantee)
            });
            if !unsatisfied {
                return None;
            }
        } else {
            for (name, room) in self.headroom(&top) {
                let bound = bounds.entry(name).or_insert(Scalar::MAX);
                *bound = (*bound).min(room);
            }
        }
        let is_cut = |it: &Resource| it.is_unreserved() && !it.revocable && it.amount().is_some();
        let mut kept = offered.filter(|it| !is_cut(it));
        let mut cut = offered.filter(is_cut);
        if !bounds.is_empty() {
            cut = cut.shrink_to_limits(&Quantities(bounds));
        }
        kept.add(&cut);
        Some(kept)
    }

    /// What counts against a role's quota: everything reserved for its subtree, used or
    /// not, and what of the unreserved is allocated to it.
    fn consumed(&self, top: &Role) -> Quantities {
        let mut consumed = Quantities::new();
        for agent in self.agents.values() {
            let reserved = agent.spec.total.filter(|it| {
                it.reservation_role()
                    .is_some_and(|role| role.is_within(top))
            });
            consumed.add(&reserved.quantities());
            for resources in agent.allocated.values() {
                let unreserved = resources.filter(|it| {
                    it.is_unreserved()
                        && !it.revocable
                        && it
                            .allocation_role
                            .as_ref()
                            .is_some_and(|role| role.is_within(top))
                });
                consumed.add(&unreserved.quantities());
            }
        }
        consumed
    }

    /// What may be given to `top` without touching what other roles are guaranteed and do
    /// not have yet.
    fn headroom(&self, top: &Role) -> Bounds {
        let mut required = Quantities::new();
        for (role, quota) in &self.quotas {
            if role == top {
                continue;
            }
            let consumed = self.consumed(role);
            for (name, guarantee) in quota.guarantees.iter() {
                let missing = guarantee
                    .saturating_sub(consumed.get(name))
                    .max(Scalar::ZERO);
                required.add_amount(name, missing);
            }
        }
        let mut available = Quantities::new();
        for agent in self.agents.values() {
            let free = agent
                .available
                .filter(|it| it.is_unreserved() && !it.revocable);
            available.add(&free.quantities());
        }
        let names = required.iter().map(|(name, _)| name.clone());
        names
            .map(|name| {
                let room = available.get(&name).saturating_sub(required.get(&name));
                (name, room.max(Scalar::ZERO))
            })
            .collect()
    }
}
