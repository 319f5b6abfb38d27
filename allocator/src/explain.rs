//! Why a framework or a role is given what it is given now, and nothing else.
//!
//! When something is to be given now, a copy of the allocator runs the cycle; what is left is put
//! to [`Allocator::decide`], the function that cycles ask as well. So an explanation cannot
//! disagree with what happens next.

use crate::{
    agents::Agent,
    allocator::Allocator,
    amounts::Amounts,
    bits::Bits,
    cycle::{Allotment, quantities},
    decide::{Lot, Verdict},
    quota::Binding,
};
use std::collections::BTreeMap;
use tepui_model::{AgentId, FrameworkId, Quantities, Resources, Role, Scalar, time::Instant};

/// Why a client is given nothing of an agent; or that it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It is given something of it now: [`Explained::gets`] says what.
    Gets,
    /// It is given something in the cycle after this one, when nothing else changes.
    GetsNext,
    /// The agent is deactivated, drained or away.
    AgentInactive,
    /// The agent's host is not on the whitelist.
    NotWhitelisted,
    /// The agent is kept for another framework, for which tasks were preempted there.
    Claimed {
        /// For whom.
        framework: FrameworkId,
        /// In which role.
        role: Role,
    },
    /// The agent lacks this capability, which the framework or its role needs.
    AgentCannot(&'static str),
    /// The framework lacks this capability, which the agent needs: it has GPUs, or is in another
    /// region.
    FrameworkCannot(&'static str),
    /// The framework's constraints do not hold, in words.
    Constraints(String),
    /// Everything on the agent is used or offered; who holds the most of it.
    Used {
        /// In which role.
        role: Role,
        /// The framework.
        framework: FrameworkId,
    },
    /// The agent has nothing at all.
    Empty,
    /// What is left is reserved for other roles.
    Reserved(Vec<Role>),
    /// What is left needs this capability of the framework: shared, revocable or refined
    /// resources.
    Unseen(&'static str),
    /// What is left is below the smallest useful offer.
    TooSmall {
        /// What is left for it.
        left: Quantities,
        /// Alternatives, of which there is none.
        minimum: Vec<Quantities>,
    },
    /// It refused this, and [`AgentGroup::until`] says for how long.
    Filtered {
        /// What is left, and was refused.
        refused: Resources,
        /// Until when.
        until: Instant,
    },
    /// A limit of its role or of one around it is reached.
    Limit {
        /// Whose limit.
        role: Role,
        /// Of what.
        name: String,
        /// The limit.
        limit: Scalar,
        /// What is consumed of it.
        consumed: Scalar,
    },
    /// What is left is kept for guarantees that are not met.
    Headroom {
        /// Of what.
        name: String,
        /// Who lacks how much of it.
        lacks: Vec<(Role, Scalar)>,
        /// What is free of it in the whole cluster.
        free: Scalar,
    },
}

impl Reason {
    pub(crate) fn filtered(refused: &Resources, until: Instant) -> Reason {
        Reason::Filtered {
            refused: refused.clone(),
            until,
        }
    }

    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Reason::Gets => "GETS",
            Reason::GetsNext => "GETS_NEXT",
            Reason::AgentInactive => "AGENT_INACTIVE",
            Reason::NotWhitelisted => "NOT_WHITELISTED",
            Reason::Claimed { .. } => "CLAIMED",
            Reason::AgentCannot(_) => "AGENT_NOT_CAPABLE",
            Reason::FrameworkCannot(_) => "FRAMEWORK_NOT_CAPABLE",
            Reason::Constraints(_) => "CONSTRAINTS",
            Reason::Used { .. } => "USED",
            Reason::Empty => "EMPTY",
            Reason::Reserved(_) => "RESERVED",
            Reason::Unseen(_) => "FRAMEWORK_NOT_CAPABLE",
            Reason::TooSmall { .. } => "TOO_SMALL",
            Reason::Filtered { .. } => "FILTERED",
            Reason::Limit { .. } => "QUOTA_LIMIT",
            Reason::Headroom { .. } => "KEPT_FOR_GUARANTEES",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |all: Vec<String>| all.join(", ");
        match self {
            Reason::Gets => f.write_str("is given something of it now"),
            Reason::GetsNext => f.write_str("is given something of it in the next cycle"),
            Reason::AgentInactive => f.write_str("the agent is deactivated, draining or away"),
            Reason::NotWhitelisted => f.write_str("the agent's host is not on the whitelist"),
            Reason::Claimed { framework, role } => write!(
                f,
                "the agent is kept for {framework} in role {role}, for which tasks were preempted"
            ),
            Reason::AgentCannot(it) => write!(f, "the agent has no capability {it}"),
            Reason::FrameworkCannot("GPU_RESOURCES") => {
                f.write_str("the agent has GPUs, and the framework no capability GPU_RESOURCES")
            }
            Reason::FrameworkCannot(it) => write!(
                f,
                "the agent is in another region, and the framework has no capability {it}"
            ),
            Reason::Constraints(it) => {
                write!(f, "the framework's offer constraints do not hold: {it}")
            }
            Reason::Used { role, framework } => write!(
                f,
                "all is used or offered, most of it by {framework} in role {role}"
            ),
            Reason::Empty => f.write_str("the agent has no resources"),
            Reason::Reserved(roles) => {
                let roles = roles.iter().map(ToString::to_string).collect();
                write!(f, "what is left is reserved for {}", list(roles))
            }
            Reason::Unseen(it) => {
                write!(
                    f,
                    "what is left is only for frameworks with the capability {it}"
                )
            }
            Reason::TooSmall { left, minimum } => {
                let minimum = minimum.iter().map(ToString::to_string).collect::<Vec<_>>();
                write!(
                    f,
                    "{left} is left, the least useful is {}",
                    minimum.join(" or ")
                )
            }
            Reason::Filtered { refused, .. } => write!(f, "the framework refused {refused}"),
            Reason::Limit {
                role,
                name,
                limit,
                consumed,
            } => write!(
                f,
                "the limit of role {role} is {name}:{limit}, of which {consumed} is consumed"
            ),
            Reason::Headroom { name, lacks, free } => {
                let lacks = lacks
                    .iter()
                    .map(|(role, it)| format!("{role} ({name}:{it})"));
                write!(
                    f,
                    "{name}:{free} is free in the cluster, and kept for guarantees of {}",
                    list(lacks.collect())
                )
            }
        }
    }
}

/// Agents of which a client is given nothing for the same reason.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentGroup {
    /// The reason; the numbers in it are the same for all of them.
    pub reason: Reason,
    /// How many.
    pub count: usize,
    /// One of them.
    pub example: AgentId,
    /// When the first and the last of the filters end.
    pub until: Option<(Instant, Instant)>,
}

/// What is to be said of one framework in one role.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The framework.
    pub framework: FrameworkId,
    /// The role.
    pub role: Role,
    /// Why it gets nothing at all, whatever there is: suppressed, inactive, behind with reading.
    pub silent: Option<&'static str>,
    /// It lets offers lie, and is served after all others.
    pub dormant: bool,
    /// Its place in the order of those who want offers, from 1.
    pub place: Option<usize>,
    /// What the next cycle gives it.
    pub gets: Vec<Allotment>,
    /// The agents that were looked at, by reason, the largest group first.
    pub groups: Vec<AgentGroup>,
}

/// The answer to [`Allocator::explain`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// Agents in the cluster.
    pub agents: usize,
    /// How many of them were looked at for each client, evenly spread.
    pub looked_at: usize,
    /// Clients of the role that there was no room for.
    pub more_clients: usize,
    /// Whether `gets` says what the next cycle gives; not when a cycle is due and the cluster is
    /// too large to run it on a copy.
    pub is_complete: bool,
    /// Framework by framework, role by role.
    pub clients: Vec<Explained>,
}

/// Groups that are told apart; further ones are counted with the last.
const MAX_GROUPS: usize = 64;

/// Clients that are explained at once.
const MAX_CLIENTS: usize = 64;

impl Allocator {
    /// Why a framework, or the frameworks in a role and below it, get what they get now. At most
    /// about `work` pairs of clients and agents are looked at, and a copy is made of at most so
    /// many agents; 20,000 take some milliseconds.
    pub fn explain(
        &self,
        now: Instant,
        framework: Option<&FrameworkId>,
        role: Option<&Role>,
        work: usize,
    ) -> Explanation {
        let mut clients = self.clients_in_question(framework, role);
        let more_clients = clients.len().saturating_sub(MAX_CLIENTS);
        clients.truncate(MAX_CLIENTS);
        let agents: Vec<u32> = (0..self.agents.len() as u32)
            .filter(|it| self.agents[*it as usize].is_some())
            .collect();
        let is_due = self.is_due(now);
        let mut copy = None;
        let mut given = Vec::new();
        if is_due && agents.len() <= work {
            let mut next = self.clone();
            loop {
                let cycle = next.allocate(now, u32::MAX);
                given.extend(cycle.allotments);
                if !cycle.more {
                    break;
                }
            }
            copy = Some(next);
        }
        let is_complete = !is_due || copy.is_some();
        let after = copy.as_ref().unwrap_or(self);
        let places = after.places();
        let stride = (agents.len() * clients.len()).div_ceil(work.max(1)).max(1);
        let agents_looked_at: Vec<u32> = agents.iter().copied().step_by(stride).collect();
        let explained = clients
            .into_iter()
            .map(|client| after.explain_client(now, client, &given, &agents_looked_at, &places));
        Explanation {
            agents: agents.len(),
            looked_at: agents_looked_at.len(),
            more_clients,
            is_complete,
            clients: explained.collect(),
        }
    }

    fn clients_in_question(
        &self,
        framework: Option<&FrameworkId>,
        role: Option<&Role>,
    ) -> Vec<u32> {
        let in_role = |it: &Role| role.is_none_or(|role| it.is_within(role));
        let clients = |at: u32| {
            let of_framework = self.framework(at).clients.iter();
            of_framework
                .filter(|(role, _)| in_role(role))
                .map(|(_, client)| *client)
        };
        match framework {
            Some(id) => self
                .find_framework(id)
                .into_iter()
                .flat_map(clients)
                .collect(),
            None if role.is_none() => Vec::new(),
            None => {
                let all = (0..self.frameworks.len() as u32)
                    .filter(|it| self.frameworks[*it as usize].is_some());
                all.flat_map(clients).collect()
            }
        }
    }

    /// Whether a cycle now might give something.
    fn is_due(&self, now: Instant) -> bool {
        let is_pending = |it: &u32| {
            self.agents[*it as usize]
                .as_ref()
                .is_some_and(|it| it.pending)
        };
        self.run.is_some()
            || !self.stale.is_empty()
            || self.expiry.next().is_some_and(|it| it <= now)
            || !self.held.is_empty() && self.served_at != self.quotas.version
            || self.pending.iter().any(is_pending)
    }

    /// By client, its place among those who want offers.
    fn places(&self) -> BTreeMap<u32, usize> {
        let mut tree = self.tree.clone();
        tree.settle();
        let mut places = BTreeMap::new();
        let mut awake = Bits::default();
        awake.add_those_besides(&tree.listed, &tree.dormant);
        for skip in [&tree.dormant, &awake] {
            let mut walk = crate::tree::Walk::default();
            walk.begin(false);
            while let Some(client) = walk.next(&tree, skip) {
                places.insert(client, places.len() + 1);
            }
        }
        places
    }

    fn explain_client(
        &self,
        now: Instant,
        client: u32,
        given: &[Allotment],
        agents: &[u32],
        places: &BTreeMap<u32, usize>,
    ) -> Explained {
        let it = self.tree.client(client);
        let mine = |a: &&Allotment| a.framework == it.framework_id && a.role == it.role;
        let gets: Vec<Allotment> = given.iter().filter(mine).cloned().collect();
        let silent = self.silent(client);
        let mut groups: BTreeMap<String, AgentGroup> = BTreeMap::new();
        if silent.is_none() {
            let mut lot = Lot::default();
            for at in agents {
                let agent = self.agent(*at);
                let reason = match gets.iter().any(|it| it.agent == agent.id) {
                    true => Reason::Gets,
                    false => self.why(now, *at, client, &mut lot),
                };
                add(&mut groups, reason, &agent.id);
            }
        }
        let mut groups: Vec<AgentGroup> = groups.into_values().collect();
        groups.sort_by_key(|it| core::cmp::Reverse(it.count));
        Explained {
            framework: it.framework_id.clone(),
            role: it.role.clone(),
            silent,
            dormant: self.tree.dormant.get(client),
            place: places.get(&client).copied(),
            gets,
            groups,
        }
    }

    fn silent(&self, client: u32) -> Option<&'static str> {
        if self.tree.listed.get(client) {
            return None;
        }
        let it = self.tree.client(client);
        let framework = self.framework(it.framework);
        Some(match &framework.spec {
            None => "the framework is not subscribed",
            Some(spec) if !spec.roles.contains(&it.role) => {
                "the framework left the role, and only holds something in it"
            }
            Some(spec) if !spec.active => "the framework is not connected or not active",
            Some(spec) if spec.suppressed.contains(&it.role) => {
                "the framework has suppressed offers for the role"
            }
            Some(_) => "the framework is behind with reading its events",
        })
    }

    /// Why the client is given nothing of the agent.
    fn why(&self, now: Instant, at: u32, client: u32, lot: &mut Lot) -> Reason {
        let agent = self.agent(at);
        if !agent.active {
            return Reason::AgentInactive;
        }
        if !agent.whitelisted {
            return Reason::NotWhitelisted;
        }
        if let Some(claim) = &agent.claim
            && let Some(claimant) = self.claimant(at, now)
            && claimant != client
        {
            return Reason::Claimed {
                framework: claim.framework.clone(),
                role: claim.role.clone(),
            };
        }
        lot.begin(agent, self.round);
        let mut reason = None;
        match self.decide(agent, client, false, lot, &mut reason) {
            Verdict::Takes { .. } => Reason::GetsNext,
            _ if agent.available.is_empty()
                && !matches!(
                    reason,
                    Some(
                        Reason::AgentCannot(_)
                            | Reason::FrameworkCannot(_)
                            | Reason::Constraints(_)
                    )
                ) =>
            {
                self.why_used(agent)
            }
            _ => reason.unwrap_or(Reason::Empty),
        }
    }

    fn why_used(&self, agent: &Agent) -> Reason {
        let amounts = |it: &Resources| self.dimensions.amounts_of_known(it, |_| true);
        let size = |held: &Amounts| {
            let share = |(at, amount): (usize, i128)| {
                let whole = self.tree.total().get(at).max(1);
                amount.saturating_mul(1 << 40) / whole
            };
            held.iter().map(share).max().unwrap_or(0)
        };
        let most = agent
            .allocated
            .iter()
            .max_by_key(|(_, held)| size(&amounts(held)));
        most.map_or(Reason::Empty, |(client, _)| {
            let it = self.tree.client(*client);
            Reason::Used {
                role: it.role.clone(),
                framework: it.framework_id.clone(),
            }
        })
    }

    /// Why the client sees nothing of what is left.
    pub(crate) fn why_nothing(&self, client: u32, lot: &Lot) -> Reason {
        let role = &self.tree.client(client).role;
        let left = lot.left();
        let sees = self.rules(client).sees;
        let mut allocatable = left
            .iter()
            .filter(|it| it.is_allocatable_to(role))
            .peekable();
        if allocatable.peek().is_none() {
            let roles = lot.reserved_roles().cloned().collect();
            return Reason::Reserved(roles);
        }
        let unseen = allocatable.find_map(|it| {
            if it.revocable && !sees.revocable {
                Some("REVOCABLE_RESOURCES")
            } else if it.shared && !sees.shared {
                Some("SHARED_RESOURCES")
            } else if it.is_refined() && !sees.refined {
                Some("RESERVATION_REFINEMENT")
            } else {
                None
            }
        });
        unseen.map_or(Reason::GetsNext, Reason::Unseen)
    }

    pub(crate) fn too_small(&self, client: u32, left: &Amounts) -> Reason {
        let minimum = self.rules(client).minimum.iter();
        Reason::TooSmall {
            left: quantities(&self.dimensions, left),
            minimum: minimum.map(|it| quantities(&self.dimensions, it)).collect(),
        }
    }

    /// What keeps a role with this quota from getting more of a dimension.
    pub(crate) fn why_held(&self, quota: Option<u32>, dimension: usize) -> Reason {
        let scalar = |it: i128| Scalar::from_millis(i64::try_from(it).unwrap_or(i64::MAX));
        let name = self.dimensions.name(dimension).to_string();
        match self.quotas.binding(quota, dimension) {
            Some(Binding::Limit {
                role,
                limit,
                consumed,
            }) => Reason::Limit {
                role,
                name,
                limit: scalar(limit),
                consumed: scalar(consumed),
            },
            Some(Binding::Headroom { lacks, free }) => Reason::Headroom {
                name,
                lacks: lacks
                    .into_iter()
                    .map(|(role, it)| (role, scalar(it)))
                    .collect(),
                free: scalar(free),
            },
            None => Reason::Empty,
        }
    }
}

/// Counts an agent with those of the same reason.
fn add(groups: &mut BTreeMap<String, AgentGroup>, reason: Reason, agent: &AgentId) {
    let until = match &reason {
        Reason::Filtered { until, .. } => Some(*until),
        _ => None,
    };
    let mut key = format!("{} {reason}", reason.name());
    if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
        // Too many numbers: by kind alone, under one of them.
        key = format!("{} ...", reason.name());
    }
    let group = groups.entry(key).or_insert_with(|| AgentGroup {
        reason,
        count: 0,
        example: agent.clone(),
        until: until.map(|it| (it, it)),
    });
    group.count += 1;
    if let (Some((first, last)), Some(until)) = (&mut group.until, until) {
        *first = (*first).min(until);
        *last = (*last).max(until);
    }
}
