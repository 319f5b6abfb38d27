//! Agents: what they have, what of it is given away, and who need not be asked about the rest.

use crate::{amounts::Amounts, bits::Bits, decide::LONG, filters::AgentFilters};
use std::sync::Arc;
use tepui_model::{
    AgentId, FrameworkId, Resource, Resources, Role,
    agent::{AgentCapabilities, FaultDomain},
    attribute::Attributes,
    time::Instant,
    wire,
};

/// What an agent is and has.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    /// For `--whitelist` and the HOSTNAME constraint.
    pub hostname: Arc<str>,
    /// For offer constraints.
    pub attributes: Attributes,
    /// For region awareness and the REGION and ZONE constraints.
    pub domain: Option<FaultDomain>,
    /// Which frameworks and roles it can serve.
    pub capabilities: AgentCapabilities,
    /// Everything that it has, reservations and volumes included, allocated to nobody.
    pub total: Resources,
}

/// Clients that refuse everything within a ceiling: they cannot use the agent, have a filter, or
/// it is too little for them. Who refuses something refuses all that is contained in it.
///
/// There are two ceilings: what was available at the last visit, and the most that was available
/// lately. While a part of the agent is on offer the lower one tells who refuses the rest; when
/// the offer comes back the higher one still knows who refused it all.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    ceiling: Arc<Resources>,
    top: Arc<Resources>,
    at_top: Bits,
    /// Those who refuse at the lower ceiling, and so all who do at the higher one.
    pub(crate) known: Bits,
}

impl Refusals {
    /// Nobody refuses anything; `nothing` is an empty list.
    pub(crate) fn new(nothing: &Arc<Resources>) -> Refusals {
        Refusals {
            ceiling: nothing.clone(),
            top: nothing.clone(),
            at_top: Bits::default(),
            known: Bits::default(),
        }
    }

    /// What is available changed between visits. Returns it, or what was available before and is
    /// equal to it.
    pub(crate) fn available_changed(&mut self, available: Arc<Resources>) -> Arc<Resources> {
        if Arc::ptr_eq(&available, &self.ceiling) {
            return available;
        }
        let is_top = Arc::ptr_eq(&available, &self.top) || available == self.top;
        // The lower ceiling is within the higher one.
        if !is_top && is_within(&available, &self.ceiling) {
            return available;
        }
        if is_top || is_within(&available, &self.top) {
            if !Arc::ptr_eq(&self.ceiling, &self.top) {
                self.ceiling = self.top.clone();
                self.known.copy_from(&self.at_top);
            }
        } else {
            self.ceiling = available.clone();
            self.top = available.clone();
            self.forget_all();
        }
        match is_top {
            true => self.top.clone(),
            false => available,
        }
    }

    /// Somebody holds more of the agent than was known. As long as nobody refused anything, what
    /// is available now is the most that there is: as for an agent that comes with its tasks.
    pub(crate) fn held_before(&mut self, available: &Arc<Resources>) {
        if self.known.is_empty() && self.at_top.is_empty() {
            self.ceiling = available.clone();
            self.top = available.clone();
        }
    }

    /// The most that was available lately.
    pub(crate) fn top(&self) -> &Arc<Resources> {
        &self.top
    }

    /// These clients refuse what is available, and some of them `top` too.
    pub(crate) fn add(&mut self, clients: &[(u32, bool)], available: &Arc<Resources>) {
        if clients.is_empty() {
            return;
        }
        // The lower ceiling follows what is available down.
        if !Arc::ptr_eq(&self.ceiling, available) {
            self.ceiling = available.clone();
        }
        for (client, top_too) in clients {
            self.known.set(*client);
            if *top_too {
                self.at_top.set(*client);
            }
        }
    }

    /// The client refused this for a while: no need to ask it when that is the most there was.
    pub(crate) fn filtered(&mut self, client: u32, refused: &Arc<Resources>) {
        if Arc::ptr_eq(refused, &self.top) {
            self.known.set(client);
            self.at_top.set(client);
        }
    }

    /// Who would refuse even the most that was available lately.
    pub(crate) fn at_top(&self) -> &Bits {
        &self.at_top
    }

    pub(crate) fn forget(&mut self, client: u32) {
        self.known.unset(client);
        self.at_top.unset(client);
    }

    pub(crate) fn forget_all(&mut self) {
        self.known.clear();
        self.at_top.clear();
    }
}

/// A promise: nobody but this client is given anything of the agent before a time, as long as the
/// client wants offers at all.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) framework: FrameworkId,
    pub(crate) role: Role,
    pub(crate) until: Instant,
}

/// What is counted of resources that are available; agents that have the same often share it.
#[derive(Clone, Debug)]
pub(crate) struct Stock {
    /// Of all of them.
    pub(crate) amounts: Amounts,
    /// Of those that are unreserved and neither revocable nor shared.
    pub(crate) free: Amounts,
    /// None is reserved, shared or revocable: everybody sees all of it.
    pub(crate) is_plain: bool,
}

impl Stock {
    /// Of nothing.
    pub(crate) fn empty() -> Stock {
        Stock {
            amounts: Amounts::default(),
            free: Amounts::default(),
            is_plain: true,
        }
    }
}

/// All that was available, given to one client that held nothing before: when the client gives it
/// back, as who declines an offer does, the same is available again.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    client: u32,
    resources: Arc<Resources>,
    stock: Arc<Stock>,
    is_back: bool,
}

fn is_within(less: &Arc<Resources>, more: &Arc<Resources>) -> bool {
    Arc::ptr_eq(less, more) || more.contains(less)
}

/// One agent. Small, since a cycle looks at agents all over memory; what few need is elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    /// Hash of the id, the agent's part of the random order.
    pub(crate) id_hash: u64,
    /// Its total is moved to `total`.
    pub(crate) spec: Box<AgentSpec>,
    /// Everything it has, shared with what is often equal to it.
    pub(crate) total: Arc<Resources>,
    pub(crate) total_stock: Arc<Stock>,
    /// See [`crate::classes`]. Found when first needed.
    pub(crate) class: Option<u32>,
    pub(crate) active: bool,
    pub(crate) whitelisted: bool,
    pub(crate) unavailability: Option<Box<wire::Unavailability>>,
    /// In another region than the master.
    pub(crate) is_remote: bool,
    pub(crate) has_gpus: bool,
    /// By client ordinal, rising; never empty. The client says the role they are allocated to.
    pub(crate) allocated: Vec<(u32, Arc<Resources>)>,
    /// What was given whole in the last visit, if nothing happened since.
    pub(crate) given: Option<Given>,
    /// Total without what is allocated, in the order of the total. Shared volumes stay in it.
    /// Stale while `stale` is set.
    pub(crate) available: Arc<Resources>,
    /// Of `available`.
    pub(crate) stock: Arc<Stock>,
    pub(crate) stale: bool,
    /// Who need not be asked, at what is available now.
    pub(crate) refusals: Refusals,
    pub(crate) filters: AgentFilters,
    /// Someone may be given something.
    pub(crate) pending: bool,
    /// In the list of agents that may be pending.
    pub(crate) in_pending_list: bool,
    /// A quota kept something from someone in the last visit.
    pub(crate) held: bool,
    pub(crate) in_held_list: bool,
    /// The round in which it last gave what a quota had cut; 0 for never. What is given to a role
    /// fills its guarantee, and so may leave room for more.
    pub(crate) cut_given: u64,
    /// The round in which its shared volumes were last given; 0 for never.
    pub(crate) shared_given: u64,
    pub(crate) claim: Option<Box<Claim>>,
}

impl Agent {
    pub(crate) fn is_eligible(&self) -> bool {
        self.active && self.whitelisted
    }

    /// The total without what is allocated. More may be allocated than there is when a total
    /// shrank, or something twice when an agent's word is bad: then nothing is left of it. What is
    /// counted of it comes along where that is known.
    pub(crate) fn compute_available(&self) -> (Arc<Resources>, Option<Arc<Stock>>) {
        if self.allocated.is_empty() {
            return (self.total.clone(), Some(self.total_stock.clone()));
        }
        match self.given.as_ref().filter(|it| it.is_back) {
            Some(it) => (it.resources.clone(), Some(it.stock.clone())),
            None => (self.total_without_allocated(), None),
        }
    }

    fn total_without_allocated(&self) -> Arc<Resources> {
        let mut available = Resources::clone(&self.total);
        if available.len() > LONG {
            // All at once: one by one would go through the whole list for each.
            let held = self
                .allocated
                .iter()
                .flat_map(|(_, held)| held.iter_counted());
            let held = held.filter(|(it, _)| !it.shared);
            let all = held.flat_map(|(it, copies)| (0..copies).map(|_| it.clone()));
            available.saturating_sub(&all.collect());
            return Arc::new(available);
        }
        for (_, held) in &self.allocated {
            match held.iter().any(|it| it.shared) {
                true => available.saturating_sub(&held.non_shared()),
                false => available.saturating_sub(held),
            }
        }
        Arc::new(available)
    }

    /// Whether [`Agent::compute_available`] has nothing to compute.
    pub(crate) fn is_known_available(&self) -> bool {
        self.allocated.is_empty() || self.given.as_ref().is_some_and(|it| it.is_back)
    }

    /// What would be available if the client did not hold this part of what it holds.
    pub(crate) fn available_without(
        &self,
        client: Option<u32>,
        part: &Resources,
    ) -> Arc<Resources> {
        let mut available = Resources::clone(&self.total);
        for (holder, held) in &self.allocated {
            let held = held.non_shared();
            match Some(*holder) == client {
                true => available.saturating_sub(&held.difference(part)),
                false => available.saturating_sub(&held),
            }
        }
        Arc::new(available)
    }

    pub(crate) fn allocated_to(&self, client: u32) -> Option<&Arc<Resources>> {
        let at = self.allocated.binary_search_by_key(&client, |it| it.0);
        Some(&self.allocated[at.ok()?].1)
    }

    /// Adds to what the client holds; whether it held nothing before.
    pub(crate) fn hold(&mut self, client: u32, resources: &Arc<Resources>) -> bool {
        self.given = None;
        match self.allocated.binary_search_by_key(&client, |it| it.0) {
            Ok(at) => {
                Arc::make_mut(&mut self.allocated[at].1).add(resources);
                false
            }
            Err(at) => {
                self.allocated.insert(at, (client, resources.clone()));
                true
            }
        }
    }

    /// Takes from what the client holds whatever is there of `resources`: what was taken, and
    /// whether the client holds nothing now.
    pub(crate) fn release(
        &mut self,
        client: u32,
        resources: &Arc<Resources>,
    ) -> (Arc<Resources>, bool) {
        let Ok(at) = self.allocated.binary_search_by_key(&client, |it| it.0) else {
            return (Arc::default(), false);
        };
        let held = &mut self.allocated[at].1;
        let is_given = |it: &Given| it.client == client && Arc::ptr_eq(&it.resources, held);
        if Arc::ptr_eq(held, resources) {
            match self.given.as_mut().filter(|it| is_given(it)) {
                Some(given) => given.is_back = true,
                None => self.given = None,
            }
            return (self.allocated.remove(at).1, true);
        }
        self.given = None;
        let held = Arc::make_mut(held);
        let taken = match held.try_sub(resources) {
            true => resources.clone(),
            false => {
                let before = held.clone();
                held.saturating_sub(resources);
                Arc::new(before.difference(held))
            }
        };
        let nothing = held.is_empty();
        if nothing {
            self.allocated.remove(at);
        }
        (taken, nothing)
    }

    /// All that was available, which is in `resources` and still counted in `stock`, was given to
    /// the client, and counted by [`Agent::hold`].
    pub(crate) fn gave_all(&mut self, client: u32, resources: &Arc<Resources>) {
        let is_all_of_it = self
            .allocated_to(client)
            .is_some_and(|held| Arc::ptr_eq(held, resources));
        self.given = is_all_of_it.then(|| Given {
            client,
            resources: resources.clone(),
            stock: self.stock.clone(),
            is_back: false,
        });
    }

    /// What comes back, allocated to nobody. What the client holds is at hand when it is all of
    /// that, as for an offer that is declined.
    pub(crate) fn unallocated(&self, client: u32, resources: &Resources) -> Arc<Resources> {
        match self.allocated_to(client) {
            Some(held) if differ_in_role_only(held, resources) => held.clone(),
            _ => Arc::new(resources.unallocate()),
        }
    }
}

fn differ_in_role_only(one: &Resources, other: &Resources) -> bool {
    let same = |((one, copies), (other, other_copies)): ((&Resource, u32), (&Resource, u32))| {
        copies == other_copies
            && one.name == other.name
            && one.value == other.value
            && one.reservations == other.reservations
            && one.disk == other.disk
            && one.shared == other.shared
            && one.revocable == other.revocable
            && one.provider_id == other.provider_id
    };
    one.len() == other.len() && one.iter_counted().zip(other.iter_counted()).all(same)
}
