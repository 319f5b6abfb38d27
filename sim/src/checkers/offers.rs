//! What is offered and what is used on an agent never exceed what the agent has, and no role is
//! offered more than its quota: added up anew from the messages, resource by resource. Offers are of
//! agents that are there, to those who want some and have been told, and go away when their
//! framework answers them or is told.

use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tepui_master_machine::output::{Message, Output, ViewChange};
use tepui_model::{
    AgentId, FrameworkId, OfferId, event::Event, log::operation::Kind, offer::Offer, wire,
};
use tepui_state::ClusterState;

#[derive(Debug, Clone)]
struct Outstanding {
    agent: AgentId,
    framework: String,
    role: String,
    amounts: Amounts,
    offer: Arc<Offer>,
}

/// Thousandths by name, and ports.
#[derive(Debug, Clone, Default, PartialEq)]
struct Amounts {
    scalars: BTreeMap<String, i64>,
    unreserved: BTreeMap<String, i64>,
    ports: BTreeSet<u64>,
    twice: Option<u64>,
}

impl Amounts {
    fn add(&mut self, resources: &[wire::Resource]) {
        for it in resources.iter().filter(|it| it.shared.is_none()) {
            if let Some(scalar) = &it.scalar {
                let millis = (scalar.value * 1000.0).round() as i64;
                *self.scalars.entry(it.name.clone()).or_default() += millis;
                if it.reservations.is_empty() {
                    *self.unreserved.entry(it.name.clone()).or_default() += millis;
                }
            }
            for range in it.ranges.iter().flat_map(|it| &it.range) {
                for port in range.begin..=range.end {
                    if !self.ports.insert(port) {
                        self.twice = Some(port);
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: &Amounts) {
        for (name, millis) in &other.scalars {
            *self.scalars.entry(name.clone()).or_default() += millis;
        }
        for (name, millis) in &other.unreserved {
            *self.unreserved.entry(name.clone()).or_default() += millis;
        }
        for port in &other.ports {
            if !self.ports.insert(*port) {
                self.twice = Some(*port);
            }
        }
        self.twice = self.twice.or(other.twice);
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Offers {
    outstanding: BTreeMap<usize, BTreeMap<OfferId, Outstanding>>,
    // Ever: those that outlive a panic are added again.
    known: BTreeSet<OfferId>,
    // Named by their own frameworks in an answer.
    answered: BTreeSet<String>,
    // Of those, the ones in answers that a master took.
    taken: BTreeSet<String>,
    made: u64,
    /// Inverse offers made so far.
    pub inverse: u64,
}

/// A task in this state holds its resources.
fn holds(task: &tepui_model::log::Task) -> bool {
    let state = wire::TaskState::try_from(task.state);
    !task.completed && !task.unreachable && !state.is_ok_and(super::updates::ends)
}

impl Offers {
    /// A machine is born, or thrown away: nothing is offered.
    pub fn birth(&mut self, master: usize) {
        self.outstanding.remove(&master);
    }

    /// Offers made so far.
    pub fn len(&self) -> u64 {
        self.made
    }

    /// Whether none was made.
    pub fn is_empty(&self) -> bool {
        self.made == 0
    }

    /// A framework answers offers that it was made.
    pub fn answered(&mut self, ids: &[wire::OfferId]) {
        let ids = ids.iter().map(|it| it.value.clone());
        self.answered.extend(ids);
    }

    /// ... and is told that the answer was taken.
    pub fn taken(&mut self, ids: Vec<String>) {
        self.taken.extend(ids);
    }

    /// An offer that was made to somebody else, by whichever master leads.
    pub fn of_another(&self, framework: &str) -> Option<wire::OfferId> {
        let mut all = self.outstanding.values().flatten();
        let (id, _) = all.find(|(_, it)| it.framework != framework)?;
        Some(wire::OfferId {
            value: id.as_str().to_owned(),
        })
    }

    fn out(&self, master: usize) -> impl Iterator<Item = (&OfferId, &Outstanding)> {
        self.outstanding.get(&master).into_iter().flatten()
    }

    /// Offers that are out, as frameworks and agents.
    pub fn outstanding(&self, master: usize) -> impl Iterator<Item = (&str, &AgentId)> {
        self.out(master)
            .map(|(_, it)| it)
            .map(|it| (it.framework.as_str(), &it.agent))
    }

    /// Whether something of an agent is offered to a role.
    pub fn is_offered_to(&self, master: usize, agent: &AgentId, role: &str) -> bool {
        let mut all = self.out(master);
        all.any(|(_, it)| it.agent == *agent && it.role == role)
    }

    /// Thousandths of a resource of an agent that nobody uses, has reserved or is offered; ports
    /// one by one.
    pub fn idle(&self, master: usize, state: &ClusterState, agent: &AgentId, name: &str) -> i64 {
        let Some(row) = state.agent(agent) else {
            return 0;
        };
        let mut total = Amounts::default();
        total.add(&row.total);
        let used = self.used(master, state, agent);
        let of = |it: &Amounts| match name {
            "ports" => it.ports.len() as i64,
            _ => it.unreserved.get(name).copied().unwrap_or(0),
        };
        of(&total) - of(&used)
    }

    fn used(&self, master: usize, state: &ClusterState, agent: &AgentId) -> Amounts {
        let mut used = Amounts::default();
        for (_, _, task) in state.tasks_of_agent(agent) {
            if holds(task) {
                used.add(&task.resources);
            }
        }
        for (_, _, executor) in state.executors_of_agent(agent) {
            used.add(&executor.resources);
        }
        let offers = self.out(master);
        for (_, offer) in offers.filter(|(_, it)| it.agent == *agent) {
            used.merge(&offer.amounts);
        }
        used
    }

    /// A leader's machine has made a step.
    pub fn decided(
        &mut self,
        master: usize,
        state: &ClusterState,
        output: &Output,
    ) -> Result<(), String> {
        let mut touched = BTreeSet::new();
        let events = output.send.iter().filter_map(|it| match &it.message {
            Message::Event { event, .. } => Some(&**event),
            _ => None,
        });
        let (mut rescinded, mut subscribed) = (BTreeSet::new(), BTreeSet::new());
        for event in events {
            match event {
                Event::Rescind(id) => drop(rescinded.insert(id)),
                Event::Subscribed { framework_id, .. } => drop(subscribed.insert(framework_id)),
                _ => {}
            }
        }
        for change in &output.view {
            match change {
                ViewChange::OfferAdded(offer) => {
                    self.made += 1;
                    let mut amounts = Amounts::default();
                    amounts.add(&offer.allocated().to_wire());
                    let it = Outstanding {
                        agent: offer.agent_id.clone(),
                        framework: offer.framework_id.as_str().to_owned(),
                        role: offer.role.as_str().to_owned(),
                        amounts,
                        offer: offer.clone(),
                    };
                    touched.insert(it.agent.clone());
                    let (role, added) = (it.role.clone(), it.amounts.clone());
                    let all = self.outstanding.entry(master).or_default();
                    if all.insert(offer.id.clone(), it).is_some() {
                        return Err(format!("offer {} is made twice", offer.id));
                    }
                    if self.taken.contains(offer.id.as_str()) {
                        return Err(format!("offer {} was answered and is made again", offer.id));
                    }
                    self.check_quota(master, state, &role, &added)?;
                    check_offered(state, offer)?;
                    if self.known.insert(offer.id.clone()) {
                        check_wanted(state, offer)?;
                    }
                }
                ViewChange::OfferRemoved(id) => {
                    let all = self.outstanding.entry(master).or_default();
                    let Some(it) = all.remove(id) else {
                        return Err(format!("offer {id} is removed and was not there"));
                    };
                    let told = self.answered.contains(id.as_str())
                        || rescinded.contains(id)
                        || subscribed.contains(&it.offer.framework_id);
                    if !told && listens(state, &it.offer.framework_id) {
                        return Err(format!(
                            "offer {id} goes away, and framework {} neither answered it nor is told",
                            it.framework
                        ));
                    }
                }
                ViewChange::InverseOfferAdded(it) => {
                    let agent = it.agent_id.clone().unwrap_or_default();
                    self.check_inverse(master, state, &agent, &it.framework_id.value)?;
                    self.inverse += 1;
                }
                _ => {}
            }
        }
        self.check_told(master, output, &subscribed)?;
        for operation in &output.log {
            match &operation.kind {
                Some(Kind::PutFramework(it)) => self.check_roles(master, it)?,
                Some(Kind::SetQuotas(it)) => self.check_rescinded(master, output, it)?,
                _ => {}
            }
        }
        if output.log.iter().any(concerns_agents) {
            for it in self.out(master).map(|(_, it)| it) {
                check_offered(state, &it.offer)?;
            }
        }
        for agent in touched {
            self.check_agent(master, state, &agent)?;
        }
        Ok(())
    }

    /// A scheduler that has just subscribed knows of no offers that were made to another one.
    fn check_told(
        &self,
        master: usize,
        output: &Output,
        subscribed: &BTreeSet<&FrameworkId>,
    ) -> Result<(), String> {
        if subscribed.is_empty() {
            return Ok(());
        }
        let mut all = self.out(master);
        let unknown = |(id, it): &(&OfferId, &Outstanding)| {
            subscribed.contains(&it.offer.framework_id) && !is_added(output, id)
        };
        match all.find(unknown) {
            None => Ok(()),
            Some((id, it)) => Err(format!(
                "offer {id} was made to a scheduler of framework {} that is not there any more",
                it.framework
            )),
        }
    }

    /// What was offered before a quota was set cannot be accepted beyond it.
    fn check_rescinded(
        &self,
        master: usize,
        output: &Output,
        set: &tepui_model::log::SetQuotas,
    ) -> Result<(), String> {
        let limited = |role: &str| {
            let mut quotas = set.quotas.iter();
            quotas.any(|it| it.role == role && !it.limits.is_empty())
        };
        let mut all = self.out(master);
        match all.find(|(id, it)| limited(&it.role) && !is_added(output, id)) {
            None => Ok(()),
            Some((id, it)) => Err(format!(
                "offer {id} of role {} is older than its quota, and still out",
                it.role
            )),
        }
    }

    /// Nobody keeps offers of roles that it has left.
    fn check_roles(
        &self,
        master: usize,
        put: &tepui_model::log::PutFramework,
    ) -> Result<(), String> {
        let row = put.framework.clone().unwrap_or_default();
        let info = wire::FrameworkInfo::decode(row.info_payload).unwrap_or_default();
        let all = self.out(master);
        let mut own = all.filter(|(_, it)| it.framework == row.framework_id);
        match own.find(|(_, it)| !info.roles.contains(&it.role)) {
            None => Ok(()),
            Some((id, it)) => Err(format!(
                "framework {} keeps offer {id} of role {}, which it has left for {:?}",
                it.framework, it.role, info.roles
            )),
        }
    }

    /// Inverse offers are of agents that are to be maintained, deactivated or drained, to those who
    /// have something there.
    fn check_inverse(
        &self,
        master: usize,
        state: &ClusterState,
        agent: &wire::AgentId,
        framework: &str,
    ) -> Result<(), String> {
        let id = AgentId::from(agent.value.as_str());
        let scheduled = state.agent(&id).is_some_and(|row| {
            maintenance(state, row) == Some(false) || row.deactivated || row.drain.is_some()
        });
        let uses = state
            .tasks_of_agent(&id)
            .any(|(of, _, _)| of.as_str() == framework)
            || state
                .executors_of_agent(&id)
                .any(|(of, _, _)| of.as_str() == framework)
            || self
                .outstanding(master)
                .any(|(of, on)| of == framework && *on == id);
        match scheduled && uses {
            true => Ok(()),
            false => Err(format!(
                "framework {framework} gets an inverse offer of agent {id}; scheduled: \
                 {scheduled}, used: {uses}"
            )),
        }
    }

    fn check_agent(
        &self,
        master: usize,
        state: &ClusterState,
        agent: &AgentId,
    ) -> Result<(), String> {
        let Some(row) = state.agent(agent) else {
            return Err(format!("agent {agent} is offered and not known"));
        };
        let mut total = Amounts::default();
        total.add(&row.total);
        let used = self.used(master, state, agent);
        let over = used
            .scalars
            .iter()
            .find(|(name, millis)| **millis > total.scalars.get(*name).copied().unwrap_or(0));
        if let Some((name, millis)) = over {
            return Err(format!(
                "agent {agent} has {:?} thousandths of {name}, and {millis} are used or offered",
                total.scalars.get(name)
            ));
        }
        if let Some(port) = used.twice {
            return Err(format!(
                "port {port} of agent {agent} is used or offered twice"
            ));
        }
        Ok(())
    }

    fn check_quota(
        &self,
        master: usize,
        state: &ClusterState,
        role: &str,
        added: &Amounts,
    ) -> Result<(), String> {
        // Quotas are of top-level roles. What is below them counts, but is not bound, as in Mesos.
        let top = role;
        let Some(quota) = state.quota(top) else {
            return Ok(());
        };
        let of_top = |it: &str| is_within(it, top);
        let mut used = used_by_tasks(state, &of_top);
        let mut add = |amounts: &Amounts| {
            for (name, millis) in &amounts.unreserved {
                *used.entry(name.clone()).or_default() += millis;
            }
        };
        let offers = self.out(master);
        for (_, offer) in offers.filter(|(_, it)| of_top(&it.role)) {
            add(&offer.amounts);
        }
        for (name, limit) in &quota.limits {
            let limit = (limit.value * 1000.0).round() as i64;
            let used = used.get(name).copied().unwrap_or(0);
            // Only a new offer can pass it: what is there may be older than the limit.
            if used > limit && added.unreserved.get(name).copied().unwrap_or(0) > 0 {
                let offers: Vec<_> = self
                    .out(master)
                    .filter(|(_, it)| of_top(&it.role))
                    .map(|(id, it)| (id, &it.role, &it.amounts.unreserved))
                    .collect();
                return Err(format!(
                    "role {top} may have {limit} thousandths of {name}, and has or is offered \
                     {used}; offers: {offers:?}"
                ));
            }
        }
        Ok(())
    }
}

/// Thousandths that are not reserved and that tasks of some roles hold.
fn used_by_tasks(state: &ClusterState, of: &impl Fn(&str) -> bool) -> BTreeMap<String, i64> {
    let mut amounts = Amounts::default();
    for (_, _, task) in state.tasks() {
        if holds(task) && of(&task.role) {
            amounts.add(&task.resources);
        }
    }
    amounts.unreserved
}

/// Whether a role is another one or below it.
fn is_within(role: &str, other: &str) -> bool {
    let below = role.strip_prefix(other);
    below.is_some_and(|it| it.is_empty() || it.starts_with('/'))
}

/// Whether a step made an offer.
fn is_added(output: &Output, id: &OfferId) -> bool {
    let mut changes = output.view.iter();
    changes.any(|it| matches!(it, ViewChange::OfferAdded(offer) if offer.id == *id))
}

/// Whether an operation may change what is to be offered of an agent.
fn concerns_agents(operation: &tepui_model::log::Operation) -> bool {
    matches!(
        operation.kind,
        Some(
            Kind::PutAgent(_)
                | Kind::AgentDisconnected(_)
                | Kind::MarkUnreachable(_)
                | Kind::MarkGone(_)
                | Kind::RemoveAgent(_)
                | Kind::SetAgentActivation(_)
                | Kind::SetMaintenance(_)
        )
    )
}

/// Whether somebody hears what a framework is told.
fn listens(state: &ClusterState, framework: &FrameworkId) -> bool {
    let row = state.framework(framework);
    row.is_some_and(|it| it.disconnected_at_ns.is_none() && !it.completed)
}

/// Nobody is offered what it said it does not want.
fn check_wanted(state: &ClusterState, offer: &Offer) -> Result<(), String> {
    let row = state.framework(&offer.framework_id);
    let suppressed = row.is_some_and(|it| {
        it.suppressed_roles
            .iter()
            .any(|it| *it == offer.role.as_str())
    });
    match suppressed {
        false => Ok(()),
        true => Err(format!(
            "framework {} is offered something as {}, which it suppressed",
            offer.framework_id, offer.role
        )),
    }
}

/// Whether the machine of an agent is down, if it is to be maintained at all.
fn maintenance(state: &ClusterState, row: &tepui_model::log::Agent) -> Option<bool> {
    let info = wire::AgentInfo::decode(row.info_payload.clone()).unwrap_or_default();
    let machines = &state.maintenance()?.machines;
    let machine = machines.iter().find(|it| it.hostname == info.hostname)?;
    Some(machine.mode == wire::machine_info::Mode::Down as i32)
}

/// Only what is there and not to be left alone is offered, with what is planned for it.
fn check_offered(state: &ClusterState, offer: &Offer) -> Result<(), String> {
    let Some(row) = state.agent(&offer.agent_id) else {
        return Err(format!("agent {} is offered and not known", offer.agent_id));
    };
    let planned = maintenance(state, row);
    let resources = offer.allocated().to_wire();
    let owners = resources.iter().filter_map(|it| it.reservations.last());
    let mut owners = owners.filter_map(|it| it.role.as_deref());
    let role = offer.role.as_str();
    // What is reserved is for a role and those below it.
    if let Some(owner) = owners.find(|it| !is_within(role, it)) {
        return Err(format!(
            "role {role} is offered what is reserved for {owner} on agent {}",
            offer.agent_id
        ));
    }
    let wrong = if row.state() != tepui_model::log::AgentState::Admitted {
        "not admitted"
    } else if row.disconnected_at_ns.is_some() {
        "away"
    } else if row.drain.is_some() {
        "draining"
    } else if row.deactivated {
        "deactivated"
    } else if planned == Some(true) {
        "down"
    } else if planned.is_some() != offer.unavailability.is_some() {
        "not planned to be away as the offer says"
    } else {
        return Ok(());
    };
    Err(format!("agent {} is offered and {wrong}", offer.agent_id))
}
