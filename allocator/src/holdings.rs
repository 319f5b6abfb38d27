//! What frameworks hold of agents: told by the caller, given by a cycle, given back.

use crate::{allocator::Allocator, amounts::Amounts, index, quota};
use core::time::Duration;
use std::{collections::BTreeMap, sync::Arc};
use tepui_model::{AgentId, FrameworkId, Resource, Resources, Role, time::Instant};

impl Allocator {
    /// Resources (with their allocation roles) that a framework holds already, known to the
    /// allocator or not. What is allocated to no role counts as allocated to `*`.
    pub fn add_allocation(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        resources: &Resources,
    ) {
        let Some(agent) = self.find_agent(agent) else {
            return;
        };
        if resources.is_empty() {
            return;
        }
        let framework = self.ensure_framework(framework);
        for (role, part) in by_role(resources).iter() {
            let client = self.ensure_client(framework, role);
            self.hold(agent, client, &Arc::new(part.unallocate()));
        }
    }

    /// As [`Allocator::add_allocation`], for resources in [`parts`] that many hold alike, on the
    /// agent with this id.
    pub fn add_parts(&mut self, framework: &FrameworkId, agent: &str, parts: &Parts) {
        let is = |it: u32| self.agent(it).id.as_str() == agent;
        let Some(agent) = self.agent_by_id.get(index::hash(agent), is) else {
            return;
        };
        if parts.0.is_empty() {
            return;
        }
        let framework = self.ensure_framework(framework);
        for (role, part) in &parts.0 {
            let client = self.ensure_client(framework, role);
            self.hold(agent, client, part);
        }
    }

    /// Resources come back: an unused offer, an ended task. With `refuse`, what came back is not
    /// offered again to who refused it for that long, or for the allocation interval if that is
    /// longer; a refusal for no time at all is none.
    pub fn recover(
        &mut self,
        now: Instant,
        framework: &FrameworkId,
        agent: &AgentId,
        resources: &Resources,
        refuse: Option<Duration>,
    ) {
        let Some((framework, agent, until)) = self.who(now, framework, agent, refuse) else {
            return;
        };
        for (role, part) in by_role(resources).iter() {
            if let Some(client) = self.framework(framework).clients.get(role).copied() {
                let part = self.agent(agent).unallocated(client, part);
                self.take_back(agent, client, &part, until);
            }
        }
        self.drop_idle_clients_of(framework);
    }

    /// As [`Allocator::recover`], for resources that are told without the role that they are
    /// allocated to; quickest with the list of an [`crate::Allotment`].
    pub fn recover_allotted(
        &mut self,
        now: Instant,
        framework: &FrameworkId,
        agent: &AgentId,
        (role, resources): (&Role, &Arc<Resources>),
        refuse: Option<Duration>,
    ) {
        let Some((framework, agent, until)) = self.who(now, framework, agent, refuse) else {
            return;
        };
        if let Some(client) = self.framework(framework).clients.get(role).copied() {
            self.take_back(agent, client, resources, until);
        }
        self.drop_idle_clients_of(framework);
    }

    /// The ordinals of who gives back, and of which agent, and until when it refuses that; none
    /// when either is not known.
    fn who(
        &self,
        now: Instant,
        framework: &FrameworkId,
        agent: &AgentId,
        refuse: Option<Duration>,
    ) -> Option<(u32, u32, Option<Instant>)> {
        let (framework, agent) = (self.find_framework(framework)?, self.find_agent(agent)?);
        let spec = self.framework(framework).spec.as_ref();
        let is_active = spec.is_some_and(|it| it.active);
        let refuse = refuse.filter(|it| !it.is_zero() && is_active);
        let until = refuse.map(|it| now + it.max(self.options.allocation_interval));
        Some((framework, agent, until))
    }

    fn take_back(
        &mut self,
        agent: u32,
        client: u32,
        resources: &Arc<Resources>,
        until: Option<Instant>,
    ) {
        if let Some(until) = until
            && self.tree.client(client).is_subscribed
        {
            self.add_filter(agent, client, resources, until);
        }
        self.release(agent, client, resources);
    }

    fn drop_idle_clients_of(&mut self, framework: u32) {
        let idle = |client: &u32| {
            let it = self.tree.client(*client);
            !it.is_subscribed && it.agents == 0
        };
        if self.framework(framework).clients.values().any(idle) {
            self.drop_idle_clients(framework);
        }
    }

    /// What a framework holds was converted (reserved, made a volume ...). The agent's total
    /// changes alike, see [`Allocator::set_agent_total`].
    pub fn update_allocation(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        from: &Resources,
        to: &Resources,
    ) {
        let known = self.find_framework(framework);
        let (Some(at), Some(agent_at)) = (known, self.find_agent(agent)) else {
            return;
        };
        // Added first, so that a client that holds nothing in between is not dropped.
        self.add_allocation(framework, agent, to);
        for (role, part) in by_role(from).iter() {
            if let Some(client) = self.framework(at).clients.get(role).copied() {
                self.release(agent_at, client, &Arc::new(part.unallocate()));
            }
        }
        self.drop_idle_clients_of(at);
    }

    fn add_filter(&mut self, agent: u32, client: u32, refused: &Arc<Resources>, until: Instant) {
        self.refusers.set(client);
        let it = self.agent_mut(agent);
        it.refusals.filtered(client, refused);
        let (added, earlier) = it.filters.add(client, refused, until);
        self.counts.filters_added += u64::from(added);
        if let Some(earlier) = earlier {
            self.expiry.add(earlier, agent);
        }
    }

    /// Counts `resources`, allocated to nobody, as held by the client.
    fn hold(&mut self, agent: u32, client: u32, resources: &Arc<Resources>) {
        self.hold_as(agent, client, resources, Change::Told, Counted::default());
        self.no_longer_available(agent, resources);
    }

    /// The same for what a cycle gives.
    pub(crate) fn hold_given(
        &mut self,
        agent: u32,
        client: u32,
        resources: &Arc<Resources>,
        counted: Counted,
    ) {
        self.hold_as(agent, client, resources, Change::Given, counted);
    }

    fn hold_as(
        &mut self,
        agent: u32,
        client: u32,
        resources: &Arc<Resources>,
        change: Change,
        mut counted: Counted,
    ) {
        let has_shared = resources.iter().any(|it| it.shared);
        if has_shared {
            // They are charged otherwise.
            counted = Counted::default();
        }
        let shared_before = match has_shared {
            true => self.shared_volumes(agent, client),
            false => Vec::new(),
        };
        if self.agent_mut(agent).hold(client, resources) {
            self.tree.count_agents(client, 1);
        }
        self.charge(client, resources, change, counted);
        if has_shared {
            self.charge_shared(agent, client, &shared_before);
        }
    }

    /// Takes back what the client holds of `resources`, which are allocated to nobody.
    pub(crate) fn release(&mut self, agent: u32, client: u32, resources: &Arc<Resources>) {
        let has_shared = resources.iter().any(|it| it.shared);
        let shared_before = match has_shared {
            true => self.shared_volumes(agent, client),
            false => Vec::new(),
        };
        let (taken, nothing) = self.agent_mut(agent).release(client, resources);
        if nothing {
            self.tree.count_agents(client, -1);
        }
        self.charge(client, &taken, Change::Back, Counted::default());
        if has_shared {
            self.charge_shared(agent, client, &shared_before);
        }
        self.mark_stale(agent);
        if self.agent(agent).is_known_available() {
            // Nothing to compute, and at hand.
            self.refresh(agent);
        }
    }

    /// Charges what is not shared to the client and to its role's quota.
    fn charge(&mut self, client: u32, resources: &Resources, change: Change, counted: Counted) {
        let amounts = match counted.amounts {
            Some(all) => all,
            None => self.dimensions.amounts(resources, |it| !it.shared),
        };
        let (sign, allotments) = match change {
            Change::Told => (1, 0),
            Change::Given => (1, 1),
            Change::Back => (-1, 0),
        };
        self.tree.charge(client, &amounts, sign, allotments);
        if self.quotas.is_empty() {
            return;
        }
        let free = match counted.is_free {
            true => amounts,
            false => self.dimensions.amounts(resources, quota::is_free),
        };
        if change == Change::Given {
            self.quotas.free_taken(&free, &Amounts::default());
        }
        let quota = self.tree.quota_of(client);
        self.quotas.consume(quota, &free, change);
    }

    /// The shared volumes that the client uses on the agent.
    fn shared_volumes(&self, agent: u32, client: u32) -> Vec<Resource> {
        let held = self.agent(agent).allocated_to(client);
        let shared = held.map(|it| it.shared()).unwrap_or_default();
        shared.iter().cloned().collect()
    }

    fn charge_shared(&mut self, agent: u32, client: u32, before: &[Resource]) {
        let after = self.shared_volumes(agent, client);
        let is_in = |it: &Resource, all: &[Resource]| {
            all.iter()
                .any(|other| other.is_same_kind(it) && other.value == it.value)
        };
        for it in after.iter().filter(|it| !is_in(it, before)) {
            let dimension = self.dimensions.intern(&it.name);
            self.tree.share_volume(client, agent, it, dimension);
        }
        for it in before.iter().filter(|it| !is_in(it, &after)) {
            let dimension = self.dimensions.intern(&it.name);
            self.tree.unshare_volume(client, agent, it, dimension);
        }
    }
}

/// What is known already of resources that are charged.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// The amounts of all of them, none of which is shared.
    pub(crate) amounts: Option<Amounts>,
    /// Quotas have a say in all of them.
    pub(crate) is_free: bool,
}

/// Why what a client holds changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is said to hold more.
    Told,
    /// A cycle gives it more, of what was free.
    Given,
    /// It gives something back.
    Back,
}

/// Resources that are all allocated to one role, as mostly, or parts by role.
enum ByRole<'a> {
    One(&'a Role, &'a Resources),
    Several(BTreeMap<Role, Resources>),
}

impl ByRole<'_> {
    fn iter(&self) -> impl Iterator<Item = (&Role, &Resources)> {
        let (one, several) = match self {
            ByRole::One(role, resources) => (Some((*role, *resources)), None),
            ByRole::Several(parts) => (None, Some(parts.iter())),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

/// Resources by the role that they are allocated to; see [`parts`].
#[derive(Clone, Debug, Default)]
pub struct Parts(Vec<(Role, Arc<Resources>)>);

/// Divides resources for [`Allocator::add_parts`].
pub fn parts(resources: &Resources) -> Parts {
    if resources.is_empty() {
        return Parts::default();
    }
    let divided = by_role(resources);
    let part = |(role, part): (&Role, &Resources)| (role.clone(), Arc::new(part.unallocate()));
    Parts(divided.iter().map(part).collect())
}

/// Parts by allocation role; what has none counts as allocated to `*`.
fn by_role(resources: &Resources) -> ByRole<'_> {
    let mut roles = resources.iter().map(|it| it.allocation_role.as_ref());
    if let Some(Some(first)) = roles.next()
        && roles.all(|it| it == Some(first))
    {
        return ByRole::One(first, resources);
    }
    let named = resources.map(|mut it| {
        it.allocation_role.get_or_insert_with(Role::star);
        it
    });
    ByRole::Several(named.allocations())
}
