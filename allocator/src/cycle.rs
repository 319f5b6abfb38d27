//! Cycles: agent by agent, each divided among the clients in the order of their shares.
//!
//! A cycle visits the pending agents in an order drawn from the seed, the round and the agent's
//! id; when some role has a guarantee, once for guarantees, then in another order for everything
//! else. It can be interrupted between two agents. An agent that becomes pending meanwhile is
//! visited in this cycle if its turn is yet to come, otherwise in the next one.

use crate::{
    agents::{Agent, Stock},
    allocator::Allocator,
    amounts::{Amounts, Dimensions},
    bits::{Besides, Bits},
    decide::{LONG, Lot, NoReport, Verdict},
    frameworks::Rules,
    holdings::Counted,
    index,
    options::AgentOrder,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};
use tepui_model::{AgentId, FrameworkId, Quantities, Resources, Role, Scalar, time::Instant};

/// Resources of one agent for one framework in one role; already counted as allocated.
#[derive(Clone, Debug, PartialEq)]
pub struct Allotment {
    /// Who gets it.
    pub framework: FrameworkId,
    /// In which role.
    pub role: Role,
    /// Of which agent.
    pub agent: AgentId,
    /// What, as it is without the role: the very list that was available when all of it was given.
    /// [`Allocator::recover_allotted`] knows it again.
    pub resources: Arc<Resources>,
}

impl Allotment {
    /// What was given, allocated to the role.
    pub fn allocated(&self) -> Resources {
        self.resources.allocate(&self.role)
    }
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
#[derive(Clone, Debug)]
pub(crate) struct Run {
    guarantees: bool,
    last: Option<Place>,
    queue: Queue,
}

/// The agents that are to be visited yet.
#[derive(Clone, Debug)]
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

/// Work that is counted for a visit beside the clients asked: about as long as that takes.
const VISIT_WORK: u32 = 4;
/// So many clients are put in order by themselves, rather than found among all.
const FEW: usize = 24;
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

/// Places with their agents, the last one first. Places are spread evenly over all numbers: about
/// one falls into each of as many parts.
fn sorted_backwards(places: Vec<(u64, u32)>) -> Vec<(u64, u32)> {
    if places.len() < 2 {
        return places;
    }
    let bits = places.len().ilog2();
    let bucket = |place: u64| (!place >> (64 - bits)) as usize;
    let mut ends = vec![0_u32; 1 << bits];
    for (place, _) in &places {
        ends[bucket(*place)] += 1;
    }
    let mut sum = 0;
    for it in &mut ends {
        sum += std::mem::replace(it, sum);
    }
    let mut sorted = vec![(0, 0); places.len()];
    for it in places {
        let next = &mut ends[bucket(it.0)];
        sorted[*next as usize] = it;
        *next += 1;
    }
    let mut from = 0;
    for end in ends {
        sorted[from..end as usize].sort_unstable_by(|one, other| other.cmp(one));
        from = end as usize;
    }
    sorted
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
        self.all_pending = false;
        self.expire_filters(now);
        self.refresh_stale();
        self.rouse_held();
        let mut run = match self.run.take() {
            Some(run) => self.resume(run),
            None => {
                self.round += 1;
                self.counts.cycles += 1;
                self.disturbed = false;
                self.begin(self.quotas.is_lacking())
            }
        };
        // Most agents are given to one.
        let most = self.pending.len().min((budget / VISIT_WORK) as usize);
        let mut allotments = Vec::with_capacity(most);
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
            if run.guarantees && !self.quotas.is_lacking() {
                // Nobody is left to be served first.
                run = self.begin(false);
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
                work += VISIT_WORK + self.visit(now, agent, guarantees, &mut allotments);
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
        let is_pending = |it: &u32| {
            self.agents[*it as usize]
                .as_ref()
                .is_some_and(|it| it.pending)
        };
        let agents = agents.filter(is_pending);
        let queue = match self.options.agent_order {
            AgentOrder::Hashed => {
                let place = |it: u32| (place_of(round_hash, self.agent(it).id_hash), it);
                let sorted = sorted_backwards(agents.map(place).collect());
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
            let Some(Some(it)) = self.agents.get(agent as usize) else {
                continue;
            };
            let place = self.place(it, run.guarantees);
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
            let Some(Some(agent)) = self.agents.get_mut(*at as usize) else {
                return false;
            };
            agent.in_pending_list = agent.pending;
            agent.pending
        });
        self.pending = pending;
        // The ordinals of agents that are gone stand in no list now, but perhaps in this one.
        if self.retired.len() > self.held.len() / 8 {
            let agents = &self.agents;
            self.held.retain(|it| agents[*it as usize].is_some());
            self.stale.retain(|it| agents[*it as usize].is_some());
            self.free_agents.append(&mut self.retired);
        }
    }

    /// Drops filters that ended; who had them is asked again. Claims that ended bind nobody.
    fn expire_filters(&mut self, now: Instant) {
        while let Some(agent) = self.expiry.pop(now) {
            let Some(Some(it)) = self.agents.get_mut(agent as usize) else {
                continue;
            };
            let mut is_due = it.claim.as_ref().is_some_and(|it| it.until <= now);
            if is_due {
                it.claim = None;
                self.claims -= 1;
            }
            if it.filters.first() <= now {
                let (clients, next) = it.filters.expire(now);
                is_due |= !clients.is_empty();
                for client in clients {
                    it.refusals.forget(client);
                }
                if let Some(next) = next {
                    self.expiry.add(next, agent);
                }
            }
            if is_due {
                self.pend(agent);
            }
        }
    }

    /// Quotas depend on what all agents have together. Without them an agent that is visited
    /// anyhow is looked at then, while it is at hand.
    fn refresh_stale(&mut self) {
        let at_visit = self.quotas.is_empty();
        for agent in std::mem::take(&mut self.stale) {
            if !at_visit || !self.is_to_be_visited(agent) {
                self.refresh(agent);
            }
        }
    }

    fn is_to_be_visited(&self, agent: u32) -> bool {
        let it = self.agents.get(agent as usize).and_then(Option::as_ref);
        it.is_some_and(|it| it.pending && it.is_eligible())
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
            let Some(Some(it)) = self.agents.get_mut(agent as usize) else {
                continue;
            };
            it.in_held_list = false;
            if std::mem::take(&mut it.held) {
                self.pend(agent);
            }
        }
    }

    /// Computes anew what the agent has available.
    pub(crate) fn refresh(&mut self, agent: u32) {
        let Some(Some(it)) = self.agents.get_mut(agent as usize) else {
            return;
        };
        if !std::mem::take(&mut it.stale) {
            return;
        }
        let (available, stock) = it.compute_available();
        self.available_is(agent, available, stock);
    }

    /// So much less is available than before, where that is known.
    pub(crate) fn no_longer_available(&mut self, agent: u32, resources: &Arc<Resources>) {
        let nothing = self.nothing.clone();
        let it = self.agent_mut(agent);
        if !it.stale && it.available.len().max(resources.len()) > LONG {
            // One by one costs more than all at once.
            self.mark_stale(agent);
        } else if !it.stale {
            let mut available = std::mem::replace(&mut it.available, nothing);
            let rest = Arc::make_mut(&mut available);
            match resources.iter().any(|it| it.shared) {
                true => rest.saturating_sub(&resources.non_shared()),
                false => rest.saturating_sub(resources),
            }
            self.agent_mut(agent).refusals.held_before(&available);
            self.available_is(agent, available, None);
        }
        self.pend(agent);
    }

    fn available_is(&mut self, agent: u32, available: Arc<Resources>, stock: Option<Arc<Stock>>) {
        let it = self.agent_mut(agent);
        // The same list again for the same resources: what is equal is compared by address then.
        let available = it.refusals.available_changed(available);
        let stock = match stock {
            Some(it) => it,
            None => self.stock(&available),
        };
        if !self.quotas.is_empty() {
            let before = self.agent(agent).stock.clone();
            self.quotas.free_changed(&before.free, &stock.free);
        }
        let it = self.agent_mut(agent);
        it.available = available;
        it.stock = stock;
    }

    // ------------------------------------------------------------ one agent

    /// Divides what the agent has: how many clients were asked.
    fn visit(
        &mut self,
        now: Instant,
        agent: u32,
        guarantees: bool,
        allotments: &mut Vec<Allotment>,
    ) -> u32 {
        self.refresh(agent);
        self.tree.settle();
        let mut lot = std::mem::take(&mut self.lot);
        let it = self.agents[agent as usize].as_ref().expect("a live agent");
        lot.begin(it, self.round);
        let work = match lot.is_empty() {
            true => 0,
            false => self.divide(now, agent, guarantees, &mut lot, allotments),
        };
        if lot.is_touched() {
            let (rest, shared_given) = lot.rest(&self.nothing);
            let stock = self.stock(&rest);
            let it = self.agent_mut(agent);
            it.available = rest;
            it.stock = stock;
            if shared_given {
                let round = self.round;
                self.agent_mut(agent).shared_given = round;
            }
        }
        let (round, disturbed) = (self.round, self.disturbed);
        let it = self.agents[agent as usize].as_mut().expect("a live agent");
        it.refusals.add(&lot.refusals, &it.available);
        for (client, _) in &lot.refusals {
            self.refusers.set(*client);
        }
        if it.available.is_empty() {
            it.pending = false;
        } else if !guarantees {
            // Shared volumes were given to one; another may have them in the next cycle. What is
            // possible since this cycle was interrupted may be so for a guarantee.
            it.pending = it.shared_given == round || it.cut_given == round || it.held && disturbed;
        }
        if it.held && !std::mem::replace(&mut it.in_held_list, true) {
            self.held.push(agent);
        }
        lot.end();
        self.lot = lot;
        work
    }

    /// Asks whoever may take something: those who let offers lie after all others.
    fn divide(
        &mut self,
        now: Instant,
        agent: u32,
        guarantees: bool,
        lot: &mut Lot,
        allotments: &mut Vec<Allotment>,
    ) -> u32 {
        if let Some(client) = self.claimant(agent, now) {
            self.ask(agent, client, guarantees, lot, allotments);
            return 1;
        }
        let mut skip = std::mem::take(&mut self.skip);
        self.find_skipped(agent, guarantees, &mut skip);
        let mut work = 0;
        if self.tree.dormant.is_empty() {
            work += self.ask_all(agent, guarantees, &skip, lot, allotments);
        } else {
            let mut others = skip.clone();
            others.add_all(&self.tree.dormant);
            work += self.ask_all(agent, guarantees, &others, lot, allotments);
            if !lot.is_empty() {
                skip.add_those_besides(&self.tree.listed, &self.tree.dormant);
                work += self.ask_all(agent, guarantees, &skip, lot, allotments);
            }
        }
        self.skip = skip;
        work
    }

    /// Who need not be asked: who is known to refuse, is not suited by the agent's class, or has
    /// no guarantee in the stage of guarantees.
    fn find_skipped(&mut self, agent: u32, guarantees: bool, skip: &mut Bits) {
        skip.copy_from(&self.agent(agent).refusals.known);
        self.add_unsuited(agent, skip);
        if guarantees {
            skip.add_those_besides(&self.tree.listed, &self.tree.guaranteed);
        }
    }

    /// Adds those to whom the agent is of no use because of their constraints, as far as an index
    /// tells.
    pub(crate) fn add_unsuited(&mut self, agent: u32, skip: &mut Bits) {
        if !self.classes.is_empty() {
            let class = self.class(agent);
            let it = self.agents[agent as usize].as_ref().expect("a live agent");
            let rules = &self.rules;
            let constraints = |client: u32| {
                let rules = rules.get(client as usize).and_then(Option::as_ref);
                rules.and_then(|it| it.constraints.as_ref())
            };
            self.classes
                .add_unsuited(skip, class, &it.spec, constraints);
        }
    }

    /// Who alone may be given something, if that is promised to somebody who wants it.
    pub(crate) fn claimant(&self, agent: u32, now: Instant) -> Option<u32> {
        let claim = self
            .agent(agent)
            .claim
            .as_ref()
            .filter(|it| it.until > now)?;
        let client = self.find_client(&claim.framework, &claim.role)?;
        self.tree.listed.get(client).then_some(client)
    }

    fn ask_all(
        &mut self,
        agent: u32,
        guarantees: bool,
        skip: &Bits,
        lot: &mut Lot,
        allotments: &mut Vec<Allotment>,
    ) -> u32 {
        match self.tree.listed.besides(skip) {
            Besides::None => return 0,
            Besides::One(client) => {
                self.ask(agent, client, guarantees, lot, allotments);
                return 1;
            }
            Besides::Several => {}
        }
        let mut few = std::mem::take(&mut self.few);
        if self.tree.listed.few_besides(skip, FEW, &mut few) {
            let work = self.ask_few(agent, guarantees, &mut few, lot, allotments);
            self.few = few;
            return work;
        }
        self.few = few;
        let mut work = 0;
        let mut walk = std::mem::take(&mut self.walk);
        walk.begin(guarantees);
        while let Some(client) = walk.next(&self.tree, skip) {
            work += 1;
            let nothing_for_role = self.ask(agent, client, guarantees, lot, allotments);
            if lot.is_empty() {
                break;
            }
            if nothing_for_role {
                walk.leave_role();
            }
        }
        work += walk.skipped / SKIPS_PER_WORK;
        self.counts.clients_skipped += u64::from(walk.skipped);
        self.walk = walk;
        work
    }

    /// Asks these clients alone, in the order of their shares.
    fn ask_few(
        &mut self,
        agent: u32,
        guarantees: bool,
        few: &mut [u32],
        lot: &mut Lot,
        allotments: &mut Vec<Allotment>,
    ) -> u32 {
        let tree = &self.tree;
        let first = (0..few.len()).min_by(|one, other| tree.compare(few[*one], few[*other]));
        // The first takes everything, as a rule: then the others need no order.
        if let Some(first) = first {
            few.swap(0, first);
        }
        let (mut work, mut left) = (0, None);
        for at in 0..few.len() {
            if at == 1 {
                few[1..].sort_unstable_by(|one, other| self.tree.compare(*one, *other));
            }
            let client = few[at];
            let node = self.tree.client(client).node;
            if left == Some(node) {
                continue;
            }
            work += 1;
            if self.ask(agent, client, guarantees, lot, allotments) {
                left = Some(node);
            }
            if lot.is_empty() {
                break;
            }
        }
        work
    }

    /// Asks one client, and gives it what it takes: whether the others of its role need not be
    /// asked.
    fn ask(
        &mut self,
        agent: u32,
        client: u32,
        guarantees: bool,
        lot: &mut Lot,
        allotments: &mut Vec<Allotment>,
    ) -> bool {
        self.counts.clients_asked += 1;
        let of_agent = self.agents[agent as usize].as_ref().expect("a live agent");
        match self.decide(of_agent, client, guarantees, lot, &mut NoReport) {
            Verdict::Takes { view, cut } => {
                if cut.is_some() {
                    let round = self.round;
                    let it = self.agent_mut(agent);
                    it.held = true;
                    it.cut_given = round;
                }
                self.give(agent, client, lot, view, cut, allotments);
                false
            }
            Verdict::NothingForRole => true,
            Verdict::CannotUse => {
                lot.refusals.push((client, true));
                false
            }
            Verdict::Refuses => {
                // With its shared volumes the client might not refuse.
                if !lot.shared_withheld {
                    let top_too = self.refuses_top(agent, client, lot);
                    lot.refusals.push((client, top_too));
                }
                false
            }
            Verdict::NotForGuarantee { role } => role,
            Verdict::Held => {
                self.agent_mut(agent).held = true;
                false
            }
        }
    }

    pub(crate) fn rules(&self, client: u32) -> &Rules {
        let slot = self.rules.get(client as usize);
        slot.and_then(Option::as_ref).expect("a subscribed client")
    }

    /// Whether the client would also refuse the most that was available lately.
    fn refuses_top(&self, agent: u32, client: u32, lot: &Lot) -> bool {
        let it = self.agent(agent);
        let top = it.refusals.top();
        if !lot.is_touched() && Arc::ptr_eq(top, &it.available) {
            return true;
        }
        if top.len() > LONG {
            // Not worth a look at each of so many.
            return false;
        }
        let (rules, role) = (self.rules(client), &self.tree.client(client).role);
        let seen = top.filter(|it| rules.sees.sees(it, role));
        let amounts = self.dimensions.amounts_of_known(&seen, |_| true);
        seen.is_empty()
            || !rules.is_enough(&amounts)
            || self
                .agent(agent)
                .filters
                .block(client, &Arc::new(seen))
                .is_some()
    }

    fn class(&mut self, agent: u32) -> u32 {
        let it = self.agent(agent);
        if let Some(class) = it.class {
            return class;
        }
        // Agents that come and go with ever new attributes leave classes behind.
        if self.classes.is_crowded(self.agents.len()) {
            self.classes.clear();
            for it in self.agents.iter_mut().flatten() {
                it.class = None;
            }
        }
        let it = self.agents[agent as usize].as_mut().expect("a live agent");
        let class = self.classes.of(&it.spec);
        it.class = Some(class);
        class
    }

    /// Counts what the client takes as held, and tells whom it was given.
    fn give(
        &mut self,
        agent: u32,
        client: u32,
        lot: &mut Lot,
        view: usize,
        cut: Option<Arc<Resources>>,
        allotments: &mut Vec<Allotment>,
    ) {
        let resources = match &cut {
            Some(cut) => cut.clone(),
            None => lot.view(view).resources.clone(),
        };
        let of_client = self.tree.client(client);
        let (framework, role) = (of_client.framework_id.clone(), of_client.role.clone());
        let amounts = match &cut {
            Some(_) => None,
            None => Some(lot.view(view).amounts.clone()),
        };
        // All of a plain lot counts for quotas.
        let is_free = lot.is_plain() && amounts.is_some();
        let counted = Counted { amounts, is_free };
        self.hold_given(agent, client, &resources, counted);
        let it = self.agent_mut(agent);
        if it.stock.is_plain && Arc::ptr_eq(&resources, &it.available) {
            it.gave_all(client, &resources);
        }
        match cut {
            Some(cut) => lot.take_part(&cut),
            None => lot.take_view(view),
        }
        let agent = self.agent(agent).id.clone();
        self.counts.allotments += 1;
        allotments.push(Allotment {
            framework,
            role,
            agent,
            resources,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_sorted_however_they_are_spread() {
        let spread = |it: u64| mix(it);
        let ends = |it: u64| {
            if it.is_multiple_of(2) {
                it
            } else {
                u64::MAX - it
            }
        };
        let few = |it: u64| it % 3;
        for place in [spread, ends, few] {
            for count in (0..70).chain([1_000]) {
                let places: Vec<(u64, u32)> = (0..count).map(place).zip(0..).collect();
                let mut expected = places.clone();
                expected.sort_unstable_by(|one, other| other.cmp(one));
                assert_eq!(sorted_backwards(places), expected);
            }
        }
    }
}
