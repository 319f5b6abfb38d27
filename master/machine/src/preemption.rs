//! Preemption by priority: tasks of lower roles make room for what a higher role asked for.
//!
//! Off unless an operator says, role by role, who may preempt and who may be preempted
//! (`--preemption`, [`crate::config::Preemption`]). Demand is what a framework says with REQUEST:
//! so much, on one agent. Victims are told first: KILL with a grace period, and the freed agent is
//! kept for who asked until it was offered to it.
//!
//! Of the agents that a look gets to, that one is chosen whose most important victim is the least
//! important, and among those the one with the fewest victims; offers of preemptible roles are
//! rescinded before a task is killed. A role is never brought below what it or a role around it
//! is guaranteed. (`docs/decisions/0008-preemption.md`)

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use tepui_model::id::{AgentId, FrameworkId, TaskId};
use tepui_model::resources::{Quantities, Resources};
use tepui_model::role::Role;
use tepui_model::time::Instant;
use tepui_model::{log, wire};

use crate::counters::Counter;
use crate::machine::{Machine, holds_resources};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Agents considered in one look; the next one goes on behind them.
const AGENTS_PER_LOOK: usize = 512;

/// Tasks of one agent that are considered, the least important first.
const TASKS_PER_AGENT: usize = 128;

/// Up to so many tasks, the smallest set of victims is found by trying all sets, smaller ones
/// first; beyond, by taking what helps most and leaving out what was not needed.
const EXHAUSTIVE: usize = 10;

/// What one framework may ask for at once.
const MAX_REQUESTS: usize = 64;

/// How long a request stands.
const REQUEST_LASTS: Duration = Duration::from_secs(300);

/// How long an agent is kept beyond the victims' grace period.
const SLACK: Duration = Duration::from_secs(15);

/// The label of a task that says how important it is among those of its role: an integer, 0
/// when absent; lower ones are preempted first.
const PRIORITY_LABEL: &str = "priority";

/// What a framework asked for and was not offered yet.
#[derive(Clone, Debug)]
struct Demand {
    role: Role,
    agent_id: Option<AgentId>,
    amounts: Quantities,
    until: Instant,
    /// Tasks are being killed for it on this agent.
    claimed: Option<(AgentId, Instant)>,
}

/// Who asked for what.
#[derive(Debug)]
pub(crate) struct Preemption {
    demands: BTreeMap<FrameworkId, Vec<Demand>>,
    look_at: Instant,
    /// The agent behind which the next look goes on.
    cursor: Option<AgentId>,
}

impl Preemption {
    pub(crate) fn new(now: Instant) -> Preemption {
        Preemption {
            demands: BTreeMap::new(),
            look_at: now,
            cursor: None,
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        (!self.demands.is_empty()).then_some(self.look_at)
    }
}

/// A task that may be killed.
#[derive(Clone, Debug)]
struct Candidate {
    framework_id: FrameworkId,
    task_id: TaskId,
    role: Role,
    /// Of its role, then its own.
    priority: (i64, i64),
    /// What of it would be of use.
    frees: Quantities,
    /// What it uses of what guarantees are about.
    free_amounts: Quantities,
}

/// Whom to kill on one agent.
#[derive(Debug)]
struct Plan {
    agent_id: AgentId,
    /// Offers to rescind.
    offers: Vec<u64>,
    victims: Vec<Candidate>,
}

impl Plan {
    /// Smaller is better.
    fn cost(&self) -> (Option<(i64, i64)>, usize, usize, &AgentId) {
        let highest = self.victims.iter().map(|it| it.priority).max();
        (
            highest,
            self.victims.len(),
            self.offers.len(),
            &self.agent_id,
        )
    }
}

impl Machine {
    /// REQUEST: what the framework would like to be offered, each on one agent. Replaces what it
    /// asked for before. Only roles that may preempt get anything by it.
    pub(crate) fn request_resources(
        &mut self,
        framework_id: &FrameworkId,
        requests: &[wire::Request],
    ) {
        self.counters.add(Counter::MessagesResourceRequest);
        for demand in self
            .preemption
            .demands
            .remove(framework_id)
            .unwrap_or_default()
        {
            self.give_up(&demand);
        }
        let until = self.now + REQUEST_LASTS;
        let mut demands = Vec::new();
        for request in requests.iter().take(MAX_REQUESTS) {
            let Ok(resources) = Resources::from_wire(&request.resources) else {
                continue;
            };
            let named = resources.iter().find_map(|it| it.allocation_role.clone());
            let Some(role) = self.preempting_role(framework_id, named.as_ref()) else {
                continue;
            };
            let amounts = resources.quantities();
            if amounts.is_empty() {
                continue;
            }
            demands.push(Demand {
                role,
                agent_id: request
                    .agent_id
                    .as_ref()
                    .map(|it| AgentId::from(it.value.as_str())),
                amounts,
                until,
                claimed: None,
            });
        }
        if !demands.is_empty() {
            self.preemption
                .demands
                .insert(framework_id.clone(), demands);
            self.preemption.look_at = self.now;
            self.allocation.trigger(self.now);
        }
    }

    /// The named role of the framework, or its first, if it may preempt.
    fn preempting_role(&self, framework_id: &FrameworkId, named: Option<&Role>) -> Option<Role> {
        let info = self.framework_infos.get(framework_id)?;
        let may = |role: &&Role| {
            self.config
                .preemption
                .of(role)
                .is_some_and(|it| it.preempts)
                && named.is_none_or(|named| named == *role)
        };
        info.roles.iter().find(may).cloned()
    }

    fn give_up(&mut self, demand: &Demand) {
        if let Some((agent_id, _)) = &demand.claimed {
            self.allocator.unclaim_agent(agent_id);
            self.allocation.trigger(self.now);
        }
    }

    /// After a cycle: frees what was asked for and cannot be had otherwise. One plan a look, so
    /// that its work is bounded and each sees what the one before changed.
    pub(crate) fn preempt(&mut self) {
        if self.preemption.demands.is_empty() || self.now < self.preemption.look_at {
            return;
        }
        self.preemption.look_at = self.now + INTERVAL;
        self.settle_demands();
        let mut open: Vec<(i64, FrameworkId, usize)> = Vec::new();
        for (framework_id, demands) in &self.preemption.demands {
            let waiting = demands.iter().position(|it| it.claimed.is_none());
            if let Some(at) = waiting
                && let Some(setting) = self.config.preemption.of(&demands[at].role)
                && self.frameworks.is_connected(framework_id)
            {
                open.push((-setting.priority, framework_id.clone(), at));
            }
        }
        open.sort();
        let Some((priority, framework_id, at)) = open.into_iter().next() else {
            return;
        };
        let demand = self.preemption.demands[&framework_id][at].clone();
        if let Some(plan) = self.plan(&framework_id, &demand, -priority) {
            self.carry_out(&framework_id, at, &demand, plan);
        }
    }

    /// Drops demands that were met, are too old, or whose framework is gone.
    fn settle_demands(&mut self) {
        let mut all = std::mem::take(&mut self.preemption.demands);
        for (framework_id, demands) in &mut all {
            let lives = self.is_live(framework_id);
            demands.retain_mut(|demand| {
                let met = self.is_met(framework_id, demand);
                if !lives || met || demand.until <= self.now {
                    self.give_up(demand);
                    return false;
                }
                if demand
                    .claimed
                    .as_ref()
                    .is_some_and(|(_, until)| *until <= self.now)
                {
                    demand.claimed = None;
                }
                true
            });
        }
        all.retain(|_, demands| !demands.is_empty());
        self.preemption.demands = all;
    }

    /// Whether the framework is offered so much on one agent.
    fn is_met(&self, framework_id: &FrameworkId, demand: &Demand) -> bool {
        let mut by_agent: BTreeMap<&AgentId, Quantities> = BTreeMap::new();
        for number in self.offers.of_framework(framework_id) {
            if let Some(offer) = self.offers.get(number)
                && offer.role == demand.role
                && demand
                    .agent_id
                    .as_ref()
                    .is_none_or(|it| *it == offer.agent_id)
            {
                let sum = by_agent.entry(&offer.agent_id).or_default();
                sum.add(&offer.resources.quantities());
            }
        }
        by_agent.values().any(|it| it.contains(&demand.amounts))
    }

    /// The best plan among the agents of this look; none when none of them can help.
    fn plan(&mut self, framework_id: &FrameworkId, demand: &Demand, priority: i64) -> Option<Plan> {
        if !self
            .allocator
            .is_within_limits(&demand.role, &demand.amounts)
        {
            return None;
        }
        let agents: Vec<AgentId> = match &demand.agent_id {
            Some(agent_id) => vec![agent_id.clone()],
            None => {
                let cursor = self.preemption.cursor.take();
                let ids = self.agents.iter().map(|(id, _)| id);
                let behind = ids.skip_while(|id| cursor.as_ref().is_some_and(|it| *id <= it));
                behind.take(AGENTS_PER_LOOK).cloned().collect()
            }
        };
        if agents.len() == AGENTS_PER_LOOK {
            self.preemption.cursor = agents.last().cloned();
        }
        let plans = agents
            .into_iter()
            .filter_map(|it| self.plan_on(it, framework_id, demand, priority));
        plans.min_by(|one, other| one.cost().cmp(&other.cost()))
    }

    fn plan_on(
        &self,
        agent_id: AgentId,
        framework_id: &FrameworkId,
        demand: &Demand,
        priority: i64,
    ) -> Option<Plan> {
        let left = self
            .allocator
            .left_for(self.now, &agent_id, framework_id, &demand.role)?;
        let mut lacking = demand.amounts.clone();
        lacking.saturating_sub(&left.quantities());
        let mut plan = Plan {
            agent_id,
            offers: Vec::new(),
            victims: Vec::new(),
        };
        let useful = |resources: &Resources| {
            let resources = resources.unallocate();
            resources
                .allocatable_to(&demand.role)
                .non_revocable()
                .quantities()
        };
        for number in self.offers.of_agent(&plan.agent_id) {
            if lacking.is_empty() {
                break;
            }
            let Some(offer) = self.offers.get(number) else {
                continue;
            };
            let frees = useful(&offer.resources);
            if offer.framework_id == *framework_id && offer.role == demand.role {
                // It has that already.
                lacking.saturating_sub(&frees);
            } else if self.is_below(&offer.role, priority) && helps(&frees, &lacking) {
                lacking.saturating_sub(&frees);
                plan.offers.push(number);
            }
        }
        if lacking.is_empty() {
            return (!plan.offers.is_empty()).then_some(plan);
        }
        let mut candidates = self.candidates(&plan.agent_id, priority, &lacking, useful);
        candidates.sort_by(|one, other| {
            let key = |it: &Candidate| (it.priority, it.task_id.clone(), it.framework_id.clone());
            key(one).cmp(&key(other))
        });
        candidates.truncate(TASKS_PER_AGENT);
        // The lowest priority up to which there is enough.
        let mut levels: Vec<(i64, i64)> = candidates.iter().map(|it| it.priority).collect();
        levels.dedup();
        for level in levels {
            let up_to: Vec<&Candidate> = candidates
                .iter()
                .filter(|it| it.priority <= level)
                .collect();
            if let Some(victims) = self.fewest(&up_to, &lacking) {
                plan.victims = victims;
                return Some(plan);
            }
        }
        None
    }

    /// Whether who is in the role may be preempted by somebody of this priority.
    fn is_below(&self, role: &Role, priority: i64) -> bool {
        let setting = self.config.preemption.of(role);
        setting.is_some_and(|it| it.preemptible && it.priority < priority)
    }

    fn candidates(
        &self,
        agent_id: &AgentId,
        priority: i64,
        lacking: &Quantities,
        useful: impl Fn(&Resources) -> Quantities,
    ) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (framework_id, task_id, task) in self.state.tasks_of_agent(agent_id) {
            let role = Role::from(task.role.as_str());
            if !holds_resources(task) || task.kill_intended || !self.is_below(&role, priority) {
                continue;
            }
            let Ok(resources) = Resources::from_wire(&task.resources) else {
                continue;
            };
            let frees = useful(&resources);
            if !helps(&frees, lacking) {
                continue;
            }
            let of_role = self.config.preemption.of(&role).map_or(0, |it| it.priority);
            candidates.push(Candidate {
                framework_id: framework_id.clone(),
                task_id: task_id.clone(),
                role,
                priority: (of_role, task_priority(task)),
                frees,
                free_amounts: resources.unreserved().non_revocable().quantities(),
            });
        }
        candidates
    }

    /// The fewest of the candidates that free what is lacking and bring no role below its
    /// guarantee.
    fn fewest(&self, candidates: &[&Candidate], lacking: &Quantities) -> Option<Vec<Candidate>> {
        let is_enough = |chosen: &[&Candidate]| {
            let mut rest = lacking.clone();
            for it in chosen {
                rest.saturating_sub(&it.frees);
            }
            rest.is_empty()
        };
        let owned = |chosen: &[&Candidate]| chosen.iter().map(|it| (*it).clone()).collect();
        if candidates.len() <= EXHAUSTIVE {
            let mut sets: Vec<u32> = (1..1_u32 << candidates.len()).collect();
            sets.sort_by_key(|it| it.count_ones());
            for set in sets {
                let members = candidates.iter().enumerate();
                let chosen: Vec<&Candidate> = members
                    .filter(|(at, _)| set >> at & 1 == 1)
                    .map(|(_, it)| *it)
                    .collect();
                if is_enough(&chosen) && self.keeps_guarantees(&chosen) {
                    return Some(owned(&chosen));
                }
            }
            return None;
        }
        let (mut rest, mut chosen) = (lacking.clone(), Vec::new());
        let mut open: Vec<&Candidate> = candidates.to_vec();
        while !rest.is_empty() {
            let best = open
                .iter()
                .enumerate()
                .max_by_key(|(at, it)| (help(&it.frees, &rest), core::cmp::Reverse(*at)))
                .map(|(at, _)| at)?;
            let it = open.remove(best);
            if !helps(&it.frees, &rest) {
                return None;
            }
            chosen.push(it);
            match self.keeps_guarantees(&chosen) {
                true => rest.saturating_sub(&it.frees),
                false => {
                    chosen.pop();
                }
            }
        }
        for at in (0..chosen.len()).rev() {
            let mut fewer = chosen.clone();
            fewer.remove(at);
            if is_enough(&fewer) {
                chosen = fewer;
            }
        }
        Some(owned(&chosen))
    }

    fn keeps_guarantees(&self, chosen: &[&Candidate]) -> bool {
        let mut beyond: BTreeMap<Role, Quantities> = BTreeMap::new();
        for it in chosen {
            for (role, amounts) in self.allocator.beyond_guarantees(&it.role) {
                let left = beyond.entry(role).or_insert(amounts);
                for (name, amount) in it.free_amounts.iter() {
                    let Some(left) = left.0.get_mut(name) else {
                        continue;
                    };
                    if *left < amount {
                        return false;
                    }
                    *left = left.saturating_sub(amount);
                }
            }
        }
        true
    }

    fn carry_out(&mut self, framework_id: &FrameworkId, at: usize, demand: &Demand, plan: Plan) {
        let grace = self.config.preemption.grace;
        let until = self.now + grace + SLACK;
        self.allocator
            .claim_agent(&plan.agent_id, framework_id, &demand.role, until);
        for number in plan.offers {
            self.rescind(number);
        }
        let nanoseconds = i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX);
        let policy = wire::KillPolicy {
            grace_period: Some(wire::DurationInfo { nanoseconds }),
        };
        let policy = Bytes::from(policy.encode_to_vec());
        for it in plan.victims {
            self.counters.add(Counter::TasksPreempted);
            self.order_kill(
                &it.framework_id,
                &it.task_id,
                &plan.agent_id,
                policy.clone(),
            );
        }
        if let Some(demands) = self.preemption.demands.get_mut(framework_id)
            && let Some(demand) = demands.get_mut(at)
        {
            demand.claimed = Some((plan.agent_id, until));
        }
        self.allocation.trigger(self.now);
    }
}

fn task_priority(task: &log::Task) -> i64 {
    let info = wire::TaskInfo::decode(task.task_info_payload.clone()).unwrap_or_default();
    let labels = info.labels.map(|it| it.labels).unwrap_or_default();
    let mut named = labels.iter().filter(|it| it.key == PRIORITY_LABEL);
    let value = named.next().and_then(|it| it.value.as_deref());
    value.and_then(|it| it.trim().parse().ok()).unwrap_or(0)
}

fn helps(frees: &Quantities, lacking: &Quantities) -> bool {
    lacking
        .iter()
        .any(|(name, it)| !it.is_zero() && !frees.get(name).is_zero())
}

/// How much of what is lacking would be there, in millionths of each, summed up.
fn help(frees: &Quantities, lacking: &Quantities) -> u128 {
    let part = |(name, it): (&std::sync::Arc<str>, tepui_model::Scalar)| {
        let it = u128::from(it.as_millis().unsigned_abs()).max(1);
        let freed = u128::from(frees.get(name).as_millis().unsigned_abs()).min(it);
        freed * 1_000_000 / it
    };
    lacking.iter().map(part).sum()
}
