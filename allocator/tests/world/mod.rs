//! A world in which the allocator and its oracle live side by side: commands in one line each,
//! answers in lines, and a comparison of the two after every command.

use crate::oracle::Oracle;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tepui_allocator::{
    AgentOrder, AgentSpec, Allocator, Allotment, FrameworkSpec, Options, Quota, Reason,
};
use tepui_model::{
    AgentId, FrameworkId, Quantities, Resource, Resources, Role,
    agent::{AgentCapabilities, FaultDomain},
    attribute::Attributes,
    framework::Capability,
    resources::{DiskInfo, DiskSource, Persistence, Reservation},
    time::Instant,
    wire,
};
use wire::scheduler::{
    AttributeConstraint, OfferConstraints,
    attribute_constraint::{
        Predicate, Selector,
        predicate::{self, Predicate as Kind},
        selector::{PseudoattributeType, Selector as From},
    },
    offer_constraints::role_constraints::Group,
};

/// What a framework holds: an offer, or what tasks use of one.
struct Holding {
    framework: FrameworkId,
    agent: AgentId,
    resources: Resources,
}

pub struct World {
    real: Allocator,
    oracle: Oracle,
    now: Instant,
    totals: BTreeMap<AgentId, Resources>,
    holdings: BTreeMap<String, Holding>,
    next: u64,
    /// Every framework and role that was ever named, to compare what they hold.
    known: Vec<(FrameworkId, Role)>,
}

impl World {
    /// A world with the options of a line such as `options min=cpus:1|mem:5 region=r1`.
    pub fn new(options: &str, seed: u64) -> World {
        let mut all = Options::default();
        for word in options.split_whitespace().skip(1) {
            match word.split_once('=').expect(word) {
                ("min", it) => all.min_allocatable = alternatives(it),
                ("order", it) => {
                    assert_eq!(it, "id", "the other order is the default");
                    all.agent_order = AgentOrder::Id;
                }
                ("region", it) => all.region = Some(it.to_owned()),
                ("gpu_filter", it) => all.filter_gpu_resources = it == "on",
                ("excluded", it) => {
                    all.fair_sharing_excluded = it.split(',').map(str::to_owned).collect();
                }
                other => panic!("no such option: {other:?}"),
            }
        }
        World {
            real: Allocator::new(all.clone(), seed),
            oracle: Oracle::new(all, seed),
            now: Instant(0),
            totals: BTreeMap::new(),
            holdings: BTreeMap::new(),
            next: 1,
            known: Vec::new(),
        }
    }

    /// The names of what frameworks hold.
    #[allow(dead_code)] // Scenarios say which they mean.
    pub fn holdings(&self) -> impl ExactSizeIterator<Item = &str> {
        self.holdings.keys().map(String::as_str)
    }

    /// Performs the command on both, compares them, and says what came of it.
    pub fn run(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (command, rest) = words.split_first().expect("a command");
        let answer = self.perform(command, rest);
        self.real.check_invariants();
        assert_eq!(self.real.order(), self.oracle.order(), "order of clients");
        for (framework, role) in &self.known {
            let real = self.real.allocated(framework, role);
            let oracle = self.oracle.allocated(framework, role);
            assert_eq!(real, oracle, "what {framework} holds in {role}");
        }
        answer
    }

    fn perform(&mut self, command: &str, rest: &[&str]) -> Vec<String> {
        let first = rest.first().copied().unwrap_or_default();
        let options = rest.get(1..).unwrap_or_default();
        let (framework, agent) = (FrameworkId::from(first), AgentId::from(first));
        let roles: Vec<Role> = options.iter().map(|it| Role::from(*it)).collect();
        let is_known = self.totals.contains_key(&agent);
        match command {
            "agent" => self.set_agent(agent, options, is_known),
            "total" => {
                if is_known {
                    self.set_total(&agent, resources(options[0]));
                }
            }
            "activate-agent" => {
                self.real.activate_agent(&agent);
                self.oracle.set_agent_active(&agent, true);
            }
            "deactivate-agent" => {
                self.real.deactivate_agent(&agent);
                self.oracle.set_agent_active(&agent, false);
            }
            "remove-agent" => {
                self.real.remove_agent(&agent);
                self.oracle.remove_agent(&agent);
                self.totals.remove(&agent);
                self.holdings.retain(|_, it| it.agent != agent);
            }
            "framework" => self.set_framework(framework, options),
            "remove-framework" => {
                self.real.remove_framework(&framework);
                self.oracle.remove_framework(&framework);
                self.holdings.retain(|_, it| it.framework != framework);
            }
            "activate" => {
                self.real.activate_framework(&framework);
                self.oracle.set_active(&framework, true);
            }
            "deactivate" => {
                self.real.deactivate_framework(&framework);
                self.oracle.set_active(&framework, false);
            }
            "pause" => {
                self.real.pause_framework(&framework);
                self.oracle.set_paused(&framework, true);
            }
            "resume" => {
                self.real.resume_framework(&framework);
                self.oracle.set_paused(&framework, false);
            }
            "dormant" | "awake" => {
                self.real.set_dormant(&framework, command == "dormant");
                self.oracle.set_dormant(&framework, command == "dormant");
            }
            // `claim S1 F1 role 5`: kept for F1 in the role for 5 s.
            "claim" => {
                let (framework, role) = (FrameworkId::from(options[0]), Role::from(options[1]));
                let until = self.now + seconds(options[2]);
                self.real.claim_agent(&agent, &framework, &role, until);
                self.oracle.claim(&agent, Some((framework, role, until)));
            }
            "unclaim" => {
                self.real.unclaim_agent(&agent);
                self.oracle.claim(&agent, None);
            }
            "explain" => return self.explain(first, options),
            "suppress" => {
                self.real.suppress(&framework, &roles);
                self.oracle.suppress(&framework, &roles);
            }
            "revive" => {
                self.real.revive(&framework, &roles);
                self.oracle.revive(&framework, &roles);
            }
            "hold" => self.hold(framework, options),
            "decline" => self.end(first, options.first().map(|it| seconds(it))),
            "return" => self.end(first, None),
            "use" => self.use_part(first, options),
            "reserve" => self.reserve(first, options),
            "weight" => {
                let micro = (options[0].parse::<f64>().unwrap() * 1e6) as u64;
                self.real.set_weight(first.into(), micro);
                self.oracle.set_weight(first.into(), micro);
            }
            "quota" => {
                let quota = quota(options);
                self.real.set_quota(first.into(), quota.clone());
                self.oracle.set_quota(first.into(), quota);
            }
            "whitelist" => {
                let hosts = (first != "off").then(|| first.split(',').map(str::to_owned).collect());
                self.real.set_whitelist(hosts.clone());
                self.oracle.set_whitelist(hosts);
            }
            "tick" => self.now = self.now + seconds(first),
            "request" => self.real.request_all(),
            "allocate" => return self.allocate(first),
            "order" => {
                let order = self.real.order().into_iter();
                return order
                    .map(|(role, framework)| format!("{role} {framework}"))
                    .collect();
            }
            other => panic!("no such command: {other}"),
        }
        Vec::new()
    }

    /// `explain F1` or `explain - role`.
    fn explain(&self, framework: &str, options: &[&str]) -> Vec<String> {
        let framework = (framework != "-").then(|| FrameworkId::from(framework));
        let role = options.first().map(|it| Role::from(*it));
        let answer = self
            .real
            .explain(self.now, framework.as_ref(), role.as_ref(), usize::MAX);
        let mut lines = Vec::new();
        for it in answer.clients {
            let place = it
                .place
                .map_or("no place".to_owned(), |it| format!("place {it}"));
            lines.push(format!("{} in {}: {place}", it.framework, it.role));
            lines.extend(it.silent.map(|it| format!("  {it}")));
            for allotment in it.gets {
                let text = allotment.resources.unallocate();
                lines.push(format!("  gets of {}: {text}", allotment.agent));
            }
            for group in it.groups {
                let until = group.until.map_or(String::new(), |(first, last)| {
                    let seconds = |it: Instant| it.saturating_since(self.now).as_secs_f64();
                    format!(" for {} to {} s", seconds(first), seconds(last))
                });
                lines.push(format!(
                    "  {} x {} such as {}: {}{until}",
                    group.count,
                    group.reason.name(),
                    group.example,
                    group.reason
                ));
            }
        }
        lines
    }

    /// What is explained to one framework must be what a whole cycle then gives it.
    fn foretell(&mut self) -> Option<(FrameworkId, Vec<Allotment>)> {
        let (framework, _) = self
            .known
            .get(self.next as usize % self.known.len().max(1))?;
        let answer = self
            .real
            .explain(self.now, Some(framework), None, usize::MAX);
        assert!(answer.is_complete);
        let mut gets = Vec::new();
        for client in answer.clients {
            let group = client.groups.iter().find(|it| it.reason == Reason::Gets);
            let agents: BTreeSet<&AgentId> = client.gets.iter().map(|it| &it.agent).collect();
            assert_eq!(
                group.map_or(0, |it| it.count),
                agents.len(),
                "who gets something"
            );
            assert!(client.silent.is_none() || client.gets.is_empty());
            gets.extend(client.gets);
        }
        Some((framework.clone(), gets))
    }

    fn allocate(&mut self, budget: &str) -> Vec<String> {
        let foretold = match budget.is_empty() {
            true => self.foretell(),
            false => None,
        };
        let budget = budget
            .strip_prefix("budget=")
            .map_or(u32::MAX, |it| it.parse().unwrap());
        let cycle = self.real.allocate(self.now, budget);
        assert_eq!(cycle.more, cycle.progress.is_some());
        if let Some((framework, mut gets)) = foretold {
            let given = cycle
                .allotments
                .iter()
                .filter(|it| it.framework == framework);
            let key = |it: &Allotment| (it.role.clone(), it.agent.clone());
            let mut given: Vec<Allotment> = given.cloned().collect();
            given.sort_by_key(key);
            gets.sort_by_key(key);
            assert_eq!(gets, given, "what was explained to {framework}");
        }
        let expected = self.oracle.allocate(self.now, cycle.progress);
        assert_eq!(cycle.allotments, expected, "allotments");
        let mut lines = Vec::new();
        for it in cycle.allotments {
            let resources = it.allocated();
            let Allotment {
                framework,
                role,
                agent,
                ..
            } = it;
            let name = format!("O{}", self.next);
            self.next += 1;
            let text = resources.unallocate();
            lines.push(format!(
                "{name}: {framework} in {role} gets of {agent}: {text}"
            ));
            self.know(&framework, &role);
            self.holdings.insert(
                name,
                Holding {
                    framework,
                    agent,
                    resources,
                },
            );
        }
        if budget == u32::MAX {
            self.check_takers();
        }
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        if cycle.more {
            lines.push("more to come".to_owned());
        }
        lines
    }

    /// Whether somebody who holds nothing could use what is held: one holding is tried.
    fn check_takers(&mut self) {
        let count = self.holdings.len().max(1);
        let Some(it) = self.holdings.values().nth(self.next as usize % count) else {
            return;
        };
        let mut roles = it
            .resources
            .iter()
            .filter_map(|it| it.allocation_role.clone());
        let Some(role) = roles.next().filter(|role| roles.all(|it| it == *role)) else {
            return;
        };
        let has_none = |id: &FrameworkId| !self.holdings.values().any(|it| it.framework == *id);
        let mut waiting = self.real.waiting(has_none);
        let idle: Vec<FrameworkId> = (self.known.iter().map(|it| it.0.clone()))
            .filter(|it| has_none(it))
            .collect();
        let held = (&it.framework, &it.agent, &it.resources);
        let expected = self.oracle.would_be_taken(self.now, held, &idle);
        let mut budget = usize::MAX;
        let found = self.real.find_taker(
            self.now,
            &it.agent,
            (&it.framework, &role),
            &it.resources,
            &mut waiting,
            &mut budget,
        );
        assert_eq!(
            found.is_some(),
            expected,
            "who could use what {} holds",
            it.framework
        );
    }

    fn know(&mut self, framework: &FrameworkId, role: &Role) {
        let it = (framework.clone(), role.clone());
        if !self.known.contains(&it) {
            self.known.push(it);
        }
    }

    fn set_agent(&mut self, id: AgentId, options: &[&str], is_known: bool) {
        let mut spec = AgentSpec {
            hostname: id.as_str().into(),
            attributes: Attributes::default(),
            domain: None,
            capabilities: AgentCapabilities::all(),
            total: resources(options[0]),
        };
        let mut active = true;
        for option in &options[1..] {
            match option.split_once('=').unwrap_or((option, "")) {
                ("host", it) => spec.hostname = it.into(),
                ("attributes", it) => spec.attributes = Attributes::parse(it).unwrap(),
                ("domain", it) => {
                    let (region, zone) = it.split_once('/').unwrap();
                    spec.domain = Some(FaultDomain {
                        region: region.into(),
                        zone: zone.into(),
                    });
                }
                ("can", it) => spec.capabilities = AgentCapabilities::from_names(it.split(',')),
                ("inactive", "") => active = false,
                other => panic!("no such option: {other:?}"),
            }
        }
        self.totals.insert(id.clone(), spec.total.clone());
        self.oracle.set_agent(&id, spec.clone(), active);
        if is_known {
            self.real.update_agent(&id, spec);
            match active {
                true => self.real.activate_agent(&id),
                false => self.real.deactivate_agent(&id),
            }
        } else {
            self.real.add_agent(&id, spec, active);
        }
    }

    fn set_total(&mut self, id: &AgentId, total: Resources) {
        self.real.set_agent_total(id, &total);
        self.oracle.set_total(id, &total);
        self.totals.insert(id.clone(), total);
    }

    fn set_framework(&mut self, id: FrameworkId, options: &[&str]) {
        let mut spec = FrameworkSpec {
            active: true,
            ..FrameworkSpec::default()
        };
        for option in options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("roles", it) => spec.roles = it.split(',').map(Role::from).collect(),
                ("suppressed", it) => spec.suppressed = it.split(',').map(Role::from).collect(),
                ("can", it) => {
                    let known = |it| Capability::from_str_name(it).expect("a capability");
                    spec.capabilities = it.split(',').map(known).collect();
                }
                ("min", it) => {
                    let (role, all) = it.split_once(':').unwrap();
                    let all = if all == "none" {
                        Vec::new()
                    } else {
                        alternatives(all)
                    };
                    spec.offer_filters.insert(role.into(), all);
                }
                ("constraint", it) => add_constraint(&mut spec.constraints, it),
                ("inactive", "") => spec.active = false,
                other => panic!("no such option: {other:?}"),
            }
        }
        for role in &spec.roles {
            self.know(&id, role);
        }
        self.real.add_framework(&id, spec.clone());
        self.oracle.set_framework(&id, spec);
    }

    /// `hold F1 S1 role cpus:1`: a framework, known or not, uses this already.
    fn hold(&mut self, framework: FrameworkId, options: &[&str]) {
        let (agent, role) = (AgentId::from(options[0]), Role::from(options[1]));
        if !self.totals.contains_key(&agent) {
            return;
        }
        let resources = resources(options[2]).allocate(&role);
        self.real.add_allocation(&framework, &agent, &resources);
        self.oracle.hold(&framework, &agent, &resources);
        self.know(&framework, &role);
        let name = format!("T{}", self.next);
        self.next += 1;
        self.holdings.insert(
            name,
            Holding {
                framework,
                agent,
                resources,
            },
        );
    }

    fn end(&mut self, name: &str, refuse: Option<Duration>) {
        if let Some(it) = self.holdings.remove(name) {
            self.recover(&it.framework, &it.agent, &it.resources, refuse);
        }
    }

    fn recover(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        resources: &Resources,
        refuse: Option<Duration>,
    ) {
        self.real
            .recover(self.now, framework, agent, resources, refuse);
        self.oracle
            .recover(self.now, framework, agent, resources, refuse);
    }

    /// `use O1 cpus:1 5`: tasks use this much of what is held, the rest is declined for 5 s.
    fn use_part(&mut self, name: &str, options: &[&str]) {
        let Some(it) = self.holdings.get_mut(name) else {
            return;
        };
        let amounts = quantities(options[0]);
        let used = it.resources.non_shared().shrink_to(&amounts).scalars();
        let rest = it.resources.difference(&used);
        it.resources = used;
        let (framework, agent) = (it.framework.clone(), it.agent.clone());
        if it.resources.is_empty() {
            self.holdings.remove(name);
        }
        self.recover(
            &framework,
            &agent,
            &rest,
            options.get(1).map(|it| seconds(it)),
        );
    }

    /// `reserve O1 cpus:1 role`: so much of what is unreserved in an offer becomes reserved.
    fn reserve(&mut self, name: &str, options: &[&str]) {
        let Some(it) = self.holdings.get_mut(name) else {
            return;
        };
        let reservation = Reservation::dynamic(options[1].into(), None);
        let plain = it
            .resources
            .filter(|it| it.is_unreserved() && !it.revocable);
        let from = plain.shrink_to(&quantities(options[0])).scalars();
        let to = from.push_reservation(&reservation);
        let mut total = self.totals[&it.agent].clone();
        if !total.try_sub(&from.unallocate()) {
            return;
        }
        total.add(&to.unallocate());
        it.resources.saturating_sub(&from);
        it.resources.add(&to);
        let (framework, agent) = (it.framework.clone(), it.agent.clone());
        self.set_total(&agent, total);
        self.real.update_allocation(&framework, &agent, &from, &to);
        self.oracle.convert(&framework, &agent, &from, &to);
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().unwrap())
}

fn quantities(text: &str) -> Quantities {
    let mut all = Quantities::new();
    for part in text.split(';') {
        let (name, amount) = part.split_once(':').expect(part);
        let amount = tepui_model::Scalar::from_f64(name, amount.parse().unwrap()).unwrap();
        all.insert(name, amount);
    }
    all
}

fn alternatives(text: &str) -> Vec<Quantities> {
    text.split('|').map(quantities).collect()
}

fn quota(options: &[&str]) -> Option<Quota> {
    let mut quota = Quota::default();
    for option in options {
        match option.split_once('=') {
            None => return None,
            Some(("guarantees", it)) => quota.guarantees = quantities(it),
            Some(("limits", it)) => quota.limits = quantities(it),
            Some(other) => panic!("no such option: {other:?}"),
        }
    }
    Some(quota)
}

/// `cpus:4;mem(a):10;cpus(a>a/b):1;cpus!revocable:2;disk(a)!shared=v1:5;disk!mount=/m:100`.
fn resources(text: &str) -> Resources {
    let mut all = Resources::new();
    for part in text.split(';') {
        let (head, value) = part.split_once(':').expect(part);
        let (head, flag) = head.split_once('!').unwrap_or((head, ""));
        let (name, stack) = head.split_once('(').unwrap_or((head, ""));
        let plain = Resources::parse(&format!("{name}:{value}"), "*").unwrap();
        let mut resource: Resource = plain.iter().next().expect(part).clone();
        let stack = stack.trim_end_matches(')').split('>');
        for (at, role) in stack.filter(|it| !it.is_empty()).enumerate() {
            resource.reservations.push(match at {
                0 => Reservation::fixed(role.into()),
                _ => Reservation::dynamic(role.into(), None),
            });
        }
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("", _) => {}
            ("revocable", _) => resource.revocable = true,
            (kind @ ("shared" | "volume"), id) => {
                resource.shared = kind == "shared";
                resource = resource.with_disk(DiskInfo {
                    persistence: Some(Persistence {
                        id: id.into(),
                        principal: None,
                    }),
                    ..DiskInfo::default()
                });
            }
            ("mount", root) => {
                let source = wire::resource::disk_info::Source {
                    r#type: wire::resource::disk_info::source::Type::Mount.into(),
                    mount: Some(wire::resource::disk_info::source::Mount {
                        root: Some(root.to_owned()),
                    }),
                    ..Default::default()
                };
                resource = resource.with_disk(DiskInfo {
                    source: Some(DiskSource::from_wire(&source)),
                    ..DiskInfo::default()
                });
            }
            other => panic!("no such flag: {other:?}"),
        }
        all.push(resource);
    }
    all
}

/// `role|selector:predicate:value&selector:predicate:value`; each one is another group.
fn add_constraint(constraints: &mut OfferConstraints, text: &str) {
    let (role, text) = text.split_once('|').expect("role|constraints");
    let attribute_constraints = text.split('&').map(|it| {
        let mut parts = it.splitn(3, ':');
        let (selector, kind) = (parts.next().unwrap(), parts.next().unwrap());
        let value = parts.next().unwrap_or_default().to_owned();
        let selector = match selector {
            "HOSTNAME" | "REGION" | "ZONE" => {
                let kind = PseudoattributeType::from_str_name(selector).unwrap();
                From::PseudoattributeType(kind.into())
            }
            name => From::AttributeName(name.to_owned()),
        };
        let kind = match kind {
            "exists" => Kind::Exists(predicate::Exists {}),
            "not-exists" => Kind::NotExists(predicate::NotExists {}),
            "is" => Kind::TextEquals(predicate::TextEquals { value }),
            "is-not" => Kind::TextNotEquals(predicate::TextNotEquals { value }),
            "matches" => Kind::TextMatches(predicate::TextMatches { regex: value }),
            "matches-not" => Kind::TextNotMatches(predicate::TextNotMatches { regex: value }),
            other => panic!("no such predicate: {other}"),
        };
        AttributeConstraint {
            selector: Selector {
                selector: Some(selector),
            },
            predicate: Predicate {
                predicate: Some(kind),
            },
        }
    });
    let group = Group {
        attribute_constraints: attribute_constraints.collect(),
    };
    let of_role = constraints.role_constraints.entry(role.to_owned());
    of_role.or_default().groups.push(group);
}
