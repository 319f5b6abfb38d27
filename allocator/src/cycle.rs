//! Cycles: agent by agent, each divided among the clients in the order of their shares.
//!
//! A cycle visits the pending agents in an order drawn from the seed, the round and the agent's
//! id; when some role has a guarantee, once for guarantees, then in another order for everything
//! else. It can be interrupted between two agents. An agent that becomes pending meanwhile is
//! visited in this cycle if its turn is yet to come, otherwise in the next one.

use crate::{
    agents::Agent,
    allocator::Allocator,
    amounts::{Amounts, Dimensions},
    frameworks::Sees,
    index,
    options::AgentOrder,
    quota,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};
use tepui_model::{
    AgentId, FrameworkId, Quantities, Resources, Role, Scalar, agent::Capability as AgentCan,
    time::Instant,
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
    /// What, allocated to the role; shared with allotments that are alike.
    pub resources: Arc<Resources>,
}

/// What one slice of a cycle gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cycle {
    /// In the order in which they were made.
    pub allotments: Vec<Allotment>,
    /// The budget was used up: call again.
    pub more: bool,
    /// How far the cycle came; none when it is complete.
    pub progress: Option<Progress>,
}

/// How far an interrupted cycle came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether it still serves guarantees.
    pub guarantees: bool,
    /// The place of the last agent that was visited; none before the first.
    pub last: Option<Place>,
}

/// An agent's place in the order of a cycle's stage: agents are visited by rising place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Under [`AgentOrder::Hashed`], see [`place`].
    Hash(u64),
    /// Under [`AgentOrder::Id`].
    Id(AgentId),
}

/// A cycle under way.
#[derive(Debug)]
pub(crate) struct Run {
    guarantees: bool,
    last: Option<Place>,
    queue: Queue,
}

/// The agents that are to be visited yet.
#[derive(Debug)]
enum Queue {
    Hashed {
        /// Those of the beginning, the next one last.
        sorted: Vec<(u64, u32)>,
        /// Those that came while the cycle was interrupted.
        late: BinaryHeap<Reverse<(u64, u32)>>,
    },
    ById(BTreeMap<AgentId, u32>),
}

impl Queue {
    fn pop(&mut self) -> Option<(Place, u32)> {
        match self {
            Queue::Hashed { sorted, late } => {
                let next = match (sorted.last(), late.peek()) {
                    (Some(one), Some(Reverse(other))) if other < one => late.pop().map(|it| it.0),
                    (Some(_), _) => sorted.pop(),
                    (None, _) => late.pop().map(|it| it.0),
                };
                next.map(|(place, agent)| (Place::Hash(place), agent))
            }
            Queue::ById(agents) => {
                let (id, agent) = agents.pop_first()?;
                Some((Place::Id(id), agent))
            }
        }
    }

    fn push(&mut self, place: Place, agent: u32) {
        match (self, place) {
            (Queue::Hashed { late, .. }, Place::Hash(place)) => late.push(Reverse((place, agent))),
            (Queue::ById(agents), Place::Id(id)) => {
                agents.insert(id, agent);
            }
            (Queue::Hashed { .. }, Place::Id(_)) | (Queue::ById(_), Place::Hash(_)) => {}
        }
    }
}

/// What a client may be given of an agent, before quota.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// A role that something on the agent is reserved to, or one below it; none for all others.
    node: Option<u32>,
    sees: Sees,
    resources: Arc<Resources>,
    amounts: Amounts,
}

/// What a client says to what it would be given.
enum Verdict {
    Takes(Arc<Resources>),
    /// Nobody in its role would be given anything.
    NothingForRole,
    Refuses,
    /// It would take more than quotas leave.
    Held,
}

/// Work that is counted for a visit beside the clients asked: about as long as that takes.
const VISIT_WORK: u32 = 4;
/// Clients passed by because they are known to refuse, per unit of work.
const SKIPS_PER_WORK: u32 = 32;

/// The place of an agent in the order of a round under [`AgentOrder::Hashed`]: agents are
/// visited by rising place.
pub fn place(seed: u64, round: u64, guarantees: bool, agent: &AgentId) -> u64 {
    place_of(
        round_hash(seed, round, guarantees),
        index::hash(agent.as_str()),
    )
}

/// Told apart from what else a caller draws from the same seed.
const ORDER: u64 = 18;

fn round_hash(seed: u64, round: u64, guarantees: bool) -> u64 {
    mix(mix(seed ^ ORDER) ^ (round << 1 | u64::from(guarantees)))
}

fn place_of(round_hash: u64, id_hash: u64) -> u64 {
    mix(round_hash ^ id_hash)
}

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
fn mix(mut it: u64) -> u64 {
    it = it.wrapping_add(0x9e37_79b9_7f4a_7c15);
    it = (it ^ it >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    it = (it ^ it >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    it ^ it >> 31
}

/// Amounts by name, without zeros; saturating.
pub(crate) fn quantities(dimensions: &Dimensions, amounts: &Amounts) -> Quantities {
    let millis = |it: i128| i64::try_from(it).unwrap_or(i64::MAX);
    let named = amounts
        .iter()
        .map(|(at, it)| (dimensions.name(at).clone(), Scalar::from_millis(millis(it))));
    named.collect()
}

impl Allocator {
    /// Begins a cycle, or goes on with one that was interrupted. A slice ends with the agent that
    /// exceeds the budget of work (a client asked is one), so that it always gets on.
    pub fn allocate(&mut self, now: Instant, budget: u32) -> Cycle {
        self.expire_filters(now);
        self.refresh_stale();
        self.rouse_held();
        let mut run = match self.run.take() {
            Some(run) => self.resume(run),
            None => {
                self.round += 1;
                self.counts.cycles += 1;
                self.disturbed = false;
                self.begin(self.quotas.has_guarantees())
            }
        };
        let mut allotments = Vec::new();
        let mut work = 0;
        loop {
            if work >= budget && work > 0 {
                let progress = Progress {
                    guarantees: run.guarantees,
                    last: run.last.clone(),
                };
                self.run = Some(run);
                return Cycle {
                    allotments,
                    more: true,
                    progress: Some(progress),
                };
            }
            let Some((place, agent)) = run.queue.pop() else {
                if run.guarantees {
                    run = self.begin(false);
                    continue;
                }
                break;
            };
            let guarantees = run.guarantees;
            let known = self.agents.get(agent as usize).and_then(Option::as_ref);
            // The ordinal may be another agent's by now, which has a place of its own.
            let is_due = known.is_some_and(|it| {
                it.pending && it.is_eligible() && self.is_place(it, guarantees, &place)
            });
            run.last = Some(place);
            if is_due {
                self.counts.agents_visited += 1;
                work += VISIT_WORK + self.visit(agent, guarantees, &mut allotments);
            }
        }
        self.end();
        Cycle {
            allotments,
            more: false,
            progress: None,
        }
    }

    fn place(&self, agent: &Agent, guarantees: bool) -> Place {
        match self.options.agent_order {
            AgentOrder::Hashed => {
                let round = round_hash(self.seed, self.round, guarantees);
                Place::Hash(place_of(round, agent.id_hash))
            }
            AgentOrder::Id => Place::Id(agent.id.clone()),
        }
    }

    fn is_place(&self, agent: &Agent, guarantees: bool, place: &Place) -> bool {
        match place {
            Place::Hash(place) => {
                let round = round_hash(self.seed, self.round, guarantees);
                place_of(round, agent.id_hash) == *place
            }
            Place::Id(id) => agent.id == *id,
        }
    }

    fn begin(&mut self, guarantees: bool) -> Run {
        self.late.clear();
        let round_hash = round_hash(self.seed, self.round, guarantees);
        let agents = self.pending.iter().copied();
        let agents = agents.filter(|it| self.agent(*it).pending);
        let queue = match self.options.agent_order {
            AgentOrder::Hashed => {
                let place = |it: u32| (place_of(round_hash, self.agent(it).id_hash), it);
                let mut sorted: Vec<(u64, u32)> = agents.map(place).collect();
                sorted.sort_unstable_by(|one, other| other.cmp(one));
                Queue::Hashed {
                    sorted,
                    late: BinaryHeap::new(),
                }
            }
            AgentOrder::Id => {
                Queue::ById(agents.map(|it| (self.agent(it).id.clone(), it)).collect())
            }
        };
        Run {
            guarantees,
            last: None,
            queue,
        }
    }

    fn resume(&mut self, mut run: Run) -> Run {
        for agent in std::mem::take(&mut self.late) {
            let place = self.place(self.agent(agent), run.guarantees);
            if run.last.as_ref().is_none_or(|last| place > *last) {
                run.queue.push(place, agent);
            }
        }
        run
    }

    fn end(&mut self) {
        self.late.clear();
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|at| {
            let agent = self.agent_mut(*at);
            agent.in_pending_list = agent.pending;
            agent.pending
        });
        self.pending = pending;
    }

    /// Drops filters that ended; who had them is asked again.
    fn expire_filters(&mut self, now: Instant) {
        while let Some((agent, client)) = self.expiry.pop(now) {
            let Some(Some(it)) = self.agents.get_mut(agent as usize) else {
                continue;
            };
            if it.filters.expire(client, now) {
                it.refusals.forget(client);
                self.pend(agent);
            }
        }
    }

    fn refresh_stale(&mut self) {
        for agent in std::mem::take(&mut self.stale) {
            self.refresh(agent);
        }
    }

    /// Agents on which a quota kept something from someone are looked at again when anything
    /// changed that quotas depend on. A change while a cycle was interrupted counts for the next
    /// one again, which may begin with guarantees.
    fn rouse_held(&mut self) {
        let is_first = self.run.is_none();
        let version = self.quotas.version;
        let since = match is_first {
            true => std::mem::replace(&mut self.served_at, version),
            false => self.held_at,
        };
        self.held_at = version;
        if since == version {
            return;
        }
        for agent in std::mem::take(&mut self.held) {
            self.agent_mut(agent).in_held_list = false;
            if std::mem::take(&mut self.agent_mut(agent).held) {
                self.pend(agent);
            }
        }
    }

    /// Computes anew what the agent has available.
    pub(crate) fn refresh(&mut self, agent: u32) {
        let it = self.agent_mut(agent);
        if !std::mem::take(&mut it.stale) {
            return;
        }
        let available = it.compute_available();
        let before = self.set_available(agent, available);
        let it = self.agent_mut(agent);
        let available = it.available.clone();
        it.refusals.available_changed(&available);
        let after = &self.agents[agent as usize]
            .as_ref()
            .expect("a live agent")
            .free;
        self.quotas.free_changed(&before, after);
    }

    /// Takes over what is available now: the free amounts before.
    fn set_available(&mut self, agent: u32, available: Arc<Resources>) -> Amounts {
        let amounts = self.dimensions.amounts(&available, |_| true);
        let is_plain = available
            .iter()
            .all(|it| it.is_unreserved() && !it.shared && !it.revocable);
        let free = match is_plain {
            true => amounts.clone(),
            false => self.dimensions.amounts(&available, quota::is_free),
        };
        let it = self.agent_mut(agent);
        it.amounts = amounts;
        it.is_plain = is_plain;
        it.available = available;
        std::mem::replace(&mut it.free, free)
    }

    // ------------------------------------------------------------ one agent

    /// Divides what the agent has: how many clients were asked.
    fn visit(&mut self, agent: u32, guarantees: bool, allotments: &mut Vec<Allotment>) -> u32 {
        self.tree.settle();
        self.views.clear();
        let work = match guarantees {
            true => self.serve_guarantees(agent, allotments),
            false => self.serve_all(agent, allotments),
        };
        let (round, disturbed) = (self.round, self.disturbed);
        let it = self.agent_mut(agent);
        if !guarantees {
            // Shared volumes were given to one; another may have them in the next cycle. What is
            // possible since this cycle was interrupted may be so for a guarantee.
            it.pending = it.shared_given == round || it.cut_given == round || it.held && disturbed;
        }
        if it.held && !std::mem::replace(&mut it.in_held_list, true) {
            self.held.push(agent);
        }
        work
    }

    /// Clients of the roles that lack something of their guarantee.
    fn serve_guarantees(&mut self, agent: u32, allotments: &mut Vec<Allotment>) -> u32 {
        let mut work = 0;
        let mut roles = 0;
        while let Some((node, role)) = self.tree.top_level(roles) {
            roles += 1;
            if self.quotas.missing(role).is_none() {
                continue;
            }
            let mut clients = 0;
            while let Some(client) = self.tree.clients_of(node).get(clients).copied() {
                clients += 1;
                if self.agent(agent).refusals.known.get(client) {
                    continue;
                }
                work += 1;
                match self.ask(agent, client, true) {
                    Verdict::Takes(resources) => self.give(agent, client, resources, allotments),
                    Verdict::NothingForRole => break,
                    Verdict::Refuses | Verdict::Held => {}
                }
                if self.agent(agent).available.is_empty() {
                    return work;
                }
            }
        }
        work
    }

    fn serve_all(&mut self, agent: u32, allotments: &mut Vec<Allotment>) -> u32 {
        let refusals = &self.agent(agent).refusals;
        if self.agent(agent).available.is_empty() || self.tree.listed.is_within(&refusals.known) {
            return 0;
        }
        if let Some(client) = self.tree.listed.only_one_besides(&refusals.known) {
            if let Verdict::Takes(resources) = self.ask(agent, client, false) {
                self.give(agent, client, resources, allotments);
            }
            return 1;
        }
        let mut work = 0;
        let mut walk = std::mem::take(&mut self.walk);
        walk.begin();
        while let Some(client) = walk.next(&self.tree, &self.agent(agent).refusals.known) {
            work += 1;
            match self.ask(agent, client, false) {
                Verdict::Takes(resources) => {
                    self.give(agent, client, resources, allotments);
                    if self.agent(agent).available.is_empty() {
                        break;
                    }
                }
                Verdict::NothingForRole => walk.leave_role(),
                Verdict::Refuses | Verdict::Held => {}
            }
        }
        work += walk.skipped / SKIPS_PER_WORK;
        self.counts.clients_skipped += u64::from(walk.skipped);
        self.walk = walk;
        work
    }

    /// Whether the client takes what the agent has for it.
    fn ask(&mut self, agent: u32, client: u32, guaranteed: bool) -> Verdict {
        self.counts.clients_asked += 1;
        if !self.can_use(agent, client) {
            self.refuses(agent, client, true);
            return Verdict::Refuses;
        }
        let it = self.agent(agent);
        let shared_withheld = it.shared_given == self.round;
        let (resources, is_enough) = match it.is_plain {
            true => (
                it.available.clone(),
                self.rules(client).is_enough(&it.amounts),
            ),
            false => {
                let at = self.view(agent, client);
                let view = &self.views[at];
                if view.resources.is_empty() && view.sees == Sees::EVERYTHING {
                    return Verdict::NothingForRole;
                }
                let is_enough = self.rules(client).is_enough(&view.amounts);
                (view.resources.clone(), is_enough)
            }
        };
        let refuses = resources.is_empty()
            || !is_enough
            || self.agent(agent).filters.block(client, &resources);
        if refuses {
            // With its shared volumes the client might not refuse.
            if !shared_withheld {
                let top_too = self.refuses_top(agent, client);
                self.refuses(agent, client, top_too);
            }
            return Verdict::Refuses;
        }
        if self.quotas.is_empty() {
            return Verdict::Takes(resources);
        }
        self.ask_within_quota(agent, client, resources, guaranteed)
    }

    fn rules(&self, client: u32) -> &crate::frameworks::Rules {
        let slot = self.rules.get(client as usize);
        slot.and_then(Option::as_ref).expect("a subscribed client")
    }

    fn refuses(&mut self, agent: u32, client: u32, top_too: bool) {
        let it = self.agent_mut(agent);
        let available = it.available.clone();
        it.refusals.add(client, &available, top_too);
    }

    /// Whether the client would also refuse the most that was available lately.
    fn refuses_top(&mut self, agent: u32, client: u32) -> bool {
        let it = self.agent(agent);
        let top = it.refusals.top().clone();
        if Arc::ptr_eq(&top, &it.available) {
            return true;
        }
        let (rules, role) = (self.rules(client), &self.tree.client(client).role);
        let seen = top.filter(|it| rules.sees.sees(it, role));
        // Every name in a minimum has a dimension already.
        let mut amounts = Amounts::default();
        for it in seen.iter() {
            if let (Some(amount), Some(at)) = (it.amount(), self.dimensions.find(&it.name)) {
                amounts.add_to(at, amount.as_millis().into());
            }
        }
        seen.is_empty()
            || !rules.is_enough(&amounts)
            || self.agent(agent).filters.block(client, &Arc::new(seen))
    }

    /// Capabilities, GPUs, region and constraints.
    fn can_use(&mut self, agent: u32, client: u32) -> bool {
        let (it, rules) = (self.agent(agent), self.rules(client));
        let can = it.spec.capabilities;
        if rules.needs_multi_role && !can.is(AgentCan::MultiRole)
            || rules.needs_hierarchical_role && !can.is(AgentCan::HierarchicalRole)
            || it.has_gpus && self.options.filter_gpu_resources && !rules.takes_gpus
            || it.is_remote && !rules.takes_remote
        {
            return false;
        }
        match &rules.constraints {
            None => true,
            Some(constraints) if constraints.by_host => constraints.allow(&it.spec),
            Some(_) => self.class_can_use(agent, client),
        }
    }

    /// Constraints that do not look at the host's name are evaluated once per class of agents.
    fn class_can_use(&mut self, agent: u32, client: u32) -> bool {
        let class = self.class(agent);
        let it = self.agents[agent as usize].as_ref().expect("a live agent");
        let rules = self.rules[client as usize].as_mut();
        let Some(constraints) = rules.and_then(|it| it.constraints.as_mut()) else {
            return true;
        };
        if constraints.by_class.len() <= class {
            constraints.by_class.resize(class + 1, None);
        }
        match constraints.by_class[class] {
            Some(known) => known,
            None => {
                let allows = constraints.allow(&it.spec);
                constraints.by_class[class] = Some(allows);
                allows
            }
        }
    }

    fn class(&mut self, agent: u32) -> usize {
        let it = self.agent(agent);
        if let Some(class) = it.class {
            return class;
        }
        let text = format!("{:?} {:?}", it.spec.attributes, it.spec.domain);
        // Agents that come and go with ever new attributes leave classes behind.
        if self.classes.len() > 2 * self.agents.len() + 64 {
            self.classes.clear();
            for it in self.agents.iter_mut().flatten() {
                it.class = None;
            }
            for it in self.rules.iter_mut().flatten() {
                if let Some(constraints) = &mut it.constraints {
                    constraints.by_class.clear();
                }
            }
        }
        let next = self.classes.len();
        let class = *self.classes.entry(text).or_insert(next);
        self.agent_mut(agent).class = Some(class);
        class
    }

    /// What the client sees of the agent, shared volumes at most once per cycle. Clients that see
    /// the same share a view.
    fn view(&mut self, agent: u32, client: u32) -> usize {
        let it = self.agents[agent as usize].as_ref().expect("a live agent");
        let of_client = self.tree.client(client);
        let mut sees = self.rules(client).sees;
        let node = Some(of_client.node);
        let found = |views: &[View], node| {
            let mut views = views.iter();
            views.position(|it| it.node == node && it.sees == sees)
        };
        if let Some(at) = found(&self.views, node) {
            return at;
        }
        let mut reserved = it.available.iter().filter_map(|it| it.reservation_role());
        let is_reserved = reserved.any(|role| of_client.role.is_within(role));
        let node = node.filter(|_| is_reserved);
        if let Some(at) = found(&self.views, node) {
            return at;
        }
        let wanted = sees;
        sees.shared &= it.shared_given != self.round;
        let resources = it.available.filter(|it| sees.sees(it, &of_client.role));
        let amounts = self.dimensions.amounts(&resources, |_| true);
        self.views.push(View {
            node,
            sees: wanted,
            resources: Arc::new(resources),
            amounts,
        });
        self.views.len() - 1
    }

    /// Cuts what quotas have a say in to what they leave.
    fn ask_within_quota(
        &mut self,
        agent: u32,
        client: u32,
        resources: Arc<Resources>,
        guaranteed: bool,
    ) -> Verdict {
        let role = &self.tree.client(client).role;
        let free = self.dimensions.amounts(&resources, quota::is_free);
        if guaranteed {
            let missing = self.quotas.missing(role).unwrap_or_default();
            let missing = quantities(&self.dimensions, &missing);
            if resources
                .filter(quota::is_free)
                .shrink_to(&missing)
                .is_empty()
            {
                // Not for the guarantee; the other stage may give it all the same.
                return Verdict::Refuses;
            }
        }
        let bounds = self.quotas.bounds(role, guaranteed);
        let bound = |at: usize| bounds.get(at).copied().flatten();
        if free
            .iter()
            .all(|(at, amount)| bound(at).is_none_or(|bound| amount <= bound))
        {
            return Verdict::Takes(resources);
        }
        self.agent_mut(agent).held = true;
        let mut limits = Quantities::new();
        for (at, bound) in bounds.iter().enumerate() {
            if let Some(bound) = bound {
                let millis = i64::try_from(*bound).unwrap_or(i64::MAX);
                limits.insert(self.dimensions.name(at), Scalar::from_millis(millis));
            }
        }
        let mut cut = resources.filter(|it| !quota::is_free(it));
        cut.add(&resources.filter(quota::is_free).shrink_to_limits(&limits));
        let amounts = self.dimensions.amounts(&cut, |_| true);
        let cut = Arc::new(cut);
        let refuses = cut.is_empty()
            || !self.rules(client).is_enough(&amounts)
            || self.agent(agent).filters.block(client, &cut);
        if refuses {
            return Verdict::Held;
        }
        let round = self.round;
        self.agent_mut(agent).cut_given = round;
        Verdict::Takes(cut)
    }

    fn give(
        &mut self,
        agent: u32,
        client: u32,
        resources: Arc<Resources>,
        allotments: &mut Vec<Allotment>,
    ) {
        let of_client = self.tree.client(client);
        let (framework, role) = (of_client.framework_id.clone(), of_client.role.clone());
        let allotted = Arc::new(resources.allocate(&role));
        let has_shared = !self.agent(agent).is_plain && resources.iter().any(|it| it.shared);
        self.hold(agent, client, &resources);
        self.tree.count(client);
        let it = self.agent(agent);
        let available = if has_shared {
            Arc::new(it.available.difference(&resources.non_shared()))
        } else if Arc::ptr_eq(&resources, &it.available) {
            self.nothing.clone()
        } else {
            Arc::new(it.available.difference(&resources))
        };
        let before = self.set_available(agent, available);
        let it = self.agents[agent as usize].as_mut().expect("a live agent");
        self.quotas.free_taken(&before, &it.free);
        if has_shared {
            it.shared_given = self.round;
        }
        self.views.clear();
        let agent = it.id.clone();
        self.counts.allotments += 1;
        allotments.push(Allotment {
            framework,
            role,
            agent,
            resources: allotted,
        });
    }
}
