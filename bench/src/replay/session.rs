//! What a replay has come to: the allocator, and what it gave that was not answered yet.
//!
//! Every operation is checked against that first and done then, so that what is refused has
//! changed nothing.

use super::line::{Operation, Part};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tepui_allocator::{AgentOrder, AgentSpec, Allocator, Allotment, FrameworkSpec, Options, Quota};
use tepui_model::{
    AgentId, FrameworkId, Quantities, Resources, Role, agent::AgentCapabilities,
    attribute::Attributes, framework::FrameworkCapabilities, resources::Value, time::Instant,
};

/// More are refused before they fill the memory: some 4 KB each.
const MAX_AGENTS: usize = 2_000_000;
/// As many as the allocator is measured with, times ten.
const MAX_FRAMEWORKS: usize = 100_000;

/// What a cycle is answered by.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    cycle: u64,
    allotments: Vec<Given>,
}

#[derive(Debug, Serialize)]
struct Given {
    agent: String,
    framework: String,
    role: String,
    resources: Amounts,
}

/// Resources as the protocol writes them.
#[derive(Debug)]
struct Amounts(Arc<Resources>);

impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for it in self.0.iter() {
            let name = match it.reservation_role() {
                None => it.name.to_string(),
                Some(role) => format!("{}({})", it.name, role.as_str()),
            };
            match &it.value {
                Value::Scalar(it) if it.is_integral() => {
                    map.serialize_entry(&name, &(it.as_millis() / 1000))?;
                }
                Value::Scalar(it) => map.serialize_entry(&name, &it.as_f64())?,
                Value::Ranges(it) => {
                    let ends =
                        |it: tepui_model::resources::Range| format!("{}-{}", it.begin, it.end);
                    let all: Vec<String> = it.iter().map(ends).collect();
                    map.serialize_entry(&name, &format!("[{}]", all.join(",")))?;
                }
                Value::Set(it) => {
                    let all: Vec<&str> = it.iter().collect();
                    map.serialize_entry(&name, &format!("{{{}}}", all.join(",")))?;
                }
            }
        }
        map.end()
    }
}

/// Whether quotas of roles within each other fit: what those below a role are guaranteed together
/// is within what the role is guaranteed, and no limit is above that of a role around it.
fn check_quotas(quotas: &BTreeMap<Role, Quota>) -> Result<(), String> {
    let mut below: BTreeMap<Role, Quantities> = BTreeMap::new();
    for (role, quota) in quotas {
        let Some((parent, around)) = role.ancestors().find_map(|it| quotas.get_key_value(&it))
        else {
            continue;
        };
        let sum = below.entry(parent.clone()).or_default();
        sum.add(&quota.guarantees);
        for (name, limit) in quota.limits.iter() {
            if around.limits.0.get(name).is_some_and(|it| *it < limit) {
                return Err(format!(
                    "limits.{name} of role {:?} is above that of role {:?} around it",
                    role.as_str(),
                    parent.as_str()
                ));
            }
        }
    }
    for (role, sum) in below {
        let guaranteed = quotas.get(&role).map(|it| &it.guarantees);
        if !guaranteed.is_some_and(|it| it.contains(&sum)) {
            return Err(format!(
                "guarantees of roles below {:?} are {sum} together, more than its own",
                role.as_str()
            ));
        }
    }
    Ok(())
}

fn too_much(asked: &Resources, there: &Resources, what: &str) -> String {
    match there.is_empty() {
        true => format!("resources are {asked}, of which nothing {what}"),
        false => format!("resources are {asked}; only {} {what}", there.unallocate()),
    }
}

/// A replay under way.
pub(super) struct Session {
    allocator: Allocator,
    now: Instant,
    cycles: u64,
    /// What each agent has.
    agents: BTreeMap<AgentId, Resources>,
    /// The roles of each framework.
    frameworks: BTreeMap<FrameworkId, BTreeSet<Role>>,
    quotas: BTreeMap<Role, Quota>,
    /// What was given and not answered, allocated to the role.
    open: BTreeMap<Part, Resources>,
    /// What is used, allocated to the role.
    used: BTreeMap<Part, Resources>,
}

impl Session {
    pub(super) fn new(agent_order: AgentOrder, seed: u64) -> Session {
        let options = Options {
            agent_order,
            ..Options::default()
        };
        Session {
            allocator: Allocator::new(options, seed),
            now: Instant(0),
            cycles: 0,
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            quotas: BTreeMap::new(),
            open: BTreeMap::new(),
            used: BTreeMap::new(),
        }
    }

    /// Does it, or refuses it.
    pub(super) fn apply(&mut self, operation: Operation) -> Result<Option<Answer>, String> {
        match operation {
            Operation::Agent {
                id,
                hostname,
                resources,
                attributes,
            } => self.put_agent(id, &hostname, resources, attributes)?,
            Operation::RemoveAgent(id) => {
                self.known_agent(&id)?;
                self.allocator.remove_agent(&id);
                self.agents.remove(&id);
                self.open.retain(|part, _| part.agent != id);
                self.used.retain(|part, _| part.agent != id);
            }
            Operation::Framework {
                id,
                roles,
                capabilities,
            } => self.put_framework(id, roles, capabilities)?,
            Operation::RemoveFramework(id) => {
                self.known_framework(&id, None)?;
                self.allocator.remove_framework(&id);
                self.frameworks.remove(&id);
                self.open.retain(|part, _| part.framework != id);
                self.used.retain(|part, _| part.framework != id);
            }
            Operation::Weight { role, micro } => self.allocator.set_weight(role, micro),
            Operation::Quota {
                role,
                guarantees,
                limits,
            } => self.put_quota(role, guarantees, limits)?,
            Operation::Suppress(id, role) => {
                self.known_framework(&id, role.as_ref())?;
                self.allocator.suppress(&id, role.as_slice());
            }
            Operation::Revive(id, role) => {
                self.known_framework(&id, role.as_ref())?;
                self.allocator.revive(&id, role.as_slice());
            }
            Operation::Use {
                part,
                resources,
                refuse,
            } => self.use_part(part, &resources, refuse)?,
            Operation::Decline {
                part,
                resources,
                refuse,
            } => self.decline(&part, resources.as_ref(), refuse)?,
            Operation::Release { part, resources } => self.release(&part, &resources)?,
            Operation::Cycle { advance } => return Ok(Some(self.cycle(advance))),
        }
        Ok(None)
    }

    fn known_agent(&self, id: &AgentId) -> Result<(), String> {
        match self.agents.contains_key(id) {
            true => Ok(()),
            false => Err(format!("there is no agent {:?}", id.as_str())),
        }
    }

    fn known_framework(&self, id: &FrameworkId, role: Option<&Role>) -> Result<(), String> {
        let Some(roles) = self.frameworks.get(id) else {
            return Err(format!("there is no framework {:?}", id.as_str()));
        };
        match role {
            Some(role) if !roles.contains(role) => Err(format!(
                "framework {:?} is not in role {:?}",
                id.as_str(),
                role.as_str()
            )),
            _ => Ok(()),
        }
    }

    fn put_agent(
        &mut self,
        id: AgentId,
        hostname: &str,
        total: Resources,
        attributes: Attributes,
    ) -> Result<(), String> {
        let is_new = !self.agents.contains_key(&id);
        if is_new && self.agents.len() == MAX_AGENTS {
            return Err(format!("there are {MAX_AGENTS} agents; expected no more"));
        }
        if !is_new {
            let mut held = Resources::new();
            let all = self.open.iter().chain(&self.used);
            for (_, part) in all.filter(|(part, _)| part.agent == id) {
                held.add(&part.unallocate());
            }
            if !total.contains(&held) {
                return Err(format!(
                    "resources are {total}, but {held} of it are given away"
                ));
            }
        }
        let spec = AgentSpec {
            hostname: hostname.into(),
            attributes,
            domain: None,
            capabilities: AgentCapabilities::all(),
            total: total.clone(),
        };
        match is_new {
            true => self.allocator.add_agent(&id, spec, true),
            false => self.allocator.update_agent(&id, spec),
        }
        self.agents.insert(id, total);
        Ok(())
    }

    fn put_framework(
        &mut self,
        id: FrameworkId,
        roles: Vec<Role>,
        capabilities: FrameworkCapabilities,
    ) -> Result<(), String> {
        let is_new = !self.frameworks.contains_key(&id);
        if is_new && self.frameworks.len() == MAX_FRAMEWORKS {
            return Err(format!(
                "there are {MAX_FRAMEWORKS} frameworks; expected no more"
            ));
        }
        let roles: BTreeSet<Role> = roles.into_iter().collect();
        let spec = FrameworkSpec {
            roles: roles.clone(),
            capabilities,
            active: true,
            ..FrameworkSpec::default()
        };
        match is_new {
            true => self.allocator.add_framework(&id, spec),
            false => self.allocator.update_framework(&id, spec),
        }
        self.frameworks.insert(id, roles);
        Ok(())
    }

    /// Nothing guaranteed and nothing limited is no quota.
    fn put_quota(
        &mut self,
        role: Role,
        guarantees: Quantities,
        limits: Quantities,
    ) -> Result<(), String> {
        if role.is_star() {
            return Err("role is '*', which cannot have a quota".to_owned());
        }
        let is_none =
            guarantees.iter().all(|(_, it)| it.is_zero()) && limits.iter().next().is_none();
        let quota = (!is_none).then_some(Quota { guarantees, limits });
        let mut quotas = self.quotas.clone();
        match &quota {
            Some(quota) => quotas.insert(role.clone(), quota.clone()),
            None => quotas.remove(&role),
        };
        check_quotas(&quotas)?;
        self.quotas = quotas;
        self.allocator.set_quota(role, quota);
        Ok(())
    }

    /// What the part has been given and did not answer.
    fn open(&self, part: &Part) -> Result<&Resources, String> {
        self.known_agent(&part.agent)?;
        self.known_framework(&part.framework, None)?;
        self.open.get(part).ok_or_else(|| {
            format!(
                "nothing of agent {:?} is given to framework {:?} in role {:?} without an answer",
                part.agent.as_str(),
                part.framework.as_str(),
                part.role.as_str()
            )
        })
    }

    fn use_part(
        &mut self,
        part: Part,
        resources: &Resources,
        refuse: Option<Duration>,
    ) -> Result<(), String> {
        let used = resources.allocate(&part.role);
        let mut rest = self.open(&part)?.clone();
        if !rest.try_sub(&used) {
            return Err(too_much(resources, &rest, "was given"));
        }
        self.open.remove(&part);
        let (framework, agent) = (&part.framework, &part.agent);
        if !rest.is_empty() {
            self.allocator
                .recover(self.now, framework, agent, &rest, refuse);
        }
        if !used.is_empty() {
            self.used.entry(part).or_default().add(&used);
        }
        Ok(())
    }

    fn decline(
        &mut self,
        part: &Part,
        resources: Option<&Resources>,
        refuse: Option<Duration>,
    ) -> Result<(), String> {
        let given = self.open(part)?;
        if let Some(resources) = resources
            && !given.contains(&resources.allocate(&part.role))
        {
            return Err(too_much(resources, given, "was given"));
        }
        let given = self.open.remove(part).unwrap_or_default();
        let (framework, agent) = (&part.framework, &part.agent);
        self.allocator
            .recover(self.now, framework, agent, &given, refuse);
        Ok(())
    }

    fn release(&mut self, part: &Part, resources: &Resources) -> Result<(), String> {
        self.known_agent(&part.agent)?;
        self.known_framework(&part.framework, None)?;
        let released = resources.allocate(&part.role);
        let mut rest = self.used.get(part).cloned().unwrap_or_default();
        if !rest.try_sub(&released) {
            return Err(too_much(resources, &rest, "is used"));
        }
        match rest.is_empty() {
            true => self.used.remove(part),
            false => self.used.insert(part.clone(), rest),
        };
        let (framework, agent) = (&part.framework, &part.agent);
        self.allocator
            .recover(self.now, framework, agent, &released, None);
        Ok(())
    }

    fn cycle(&mut self, advance: Duration) -> Answer {
        self.now = self.now + advance;
        self.cycles += 1;
        let mut allotments = Vec::new();
        loop {
            let slice = self.allocator.allocate(self.now, u32::MAX);
            allotments.extend(slice.allotments.into_iter().map(|it| self.given(it)));
            if !slice.more {
                break;
            }
        }
        Answer {
            cycle: self.cycles,
            allotments,
        }
    }

    fn given(&mut self, it: Allotment) -> Given {
        let allocated = it.allocated();
        let given = Given {
            agent: it.agent.as_str().to_owned(),
            framework: it.framework.as_str().to_owned(),
            role: it.role.as_str().to_owned(),
            resources: Amounts(it.resources.clone()),
        };
        let part = Part {
            agent: it.agent,
            framework: it.framework,
            role: it.role,
        };
        self.open.entry(part).or_default().add(&allocated);
        given
    }
}
