//! Agents and frameworks to measure with.

use crate::harness::{
    parameters::{Parameter, number},
    point::{Measure, Took, take},
};
use anyhow::{Result, bail};
use core::time::Duration;
use tepui_allocator::{AgentSpec, Allocator, Allotment, Counts, FrameworkSpec, Options};
use tepui_model::{
    AgentId, FrameworkId, Resources, Role, agent::AgentCapabilities, attribute::Attributes,
    time::Instant,
};

/// Most agents of a workload.
pub(crate) const MAX_AGENTS: u64 = 1_000_000;
/// Most frameworks of a workload.
pub(crate) const MAX_FRAMEWORKS: u64 = 10_000;

/// The parameter of most workloads.
pub(crate) const fn agents(default: u64) -> Parameter {
    number("agents", default, 1, MAX_AGENTS, "agents")
}

/// The other one.
pub(crate) const fn frameworks(default: u64) -> Parameter {
    number(
        "frameworks",
        default,
        1,
        MAX_FRAMEWORKS,
        "frameworks, all active",
    )
}

/// How many roles the frameworks are in.
pub(crate) const fn roles(default: u64) -> Parameter {
    number(
        "roles",
        default,
        1,
        MAX_FRAMEWORKS,
        "roles, next to each other, that frameworks are in by turns",
    )
}

/// Between two cycles.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// Longer than any run.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Bytes of an agent with what it says, what it holds and its part in a cycle's answer, about;
/// measured at 10,000 agents and rounded up.
pub(crate) const AGENT_BYTES: u64 = 4_000;

/// Bytes of a framework and its client, about.
pub(crate) const FRAMEWORK_BYTES: u64 = 3_000;

/// An allocator with a clock of its own.
pub(crate) struct World {
    pub(crate) allocator: Allocator,
    pub(crate) now: Instant,
}

/// What a cycle gave and took.
pub(crate) struct Cycle {
    pub(crate) took: Took,
    pub(crate) allotments: Vec<Allotment>,
    before: Counts,
    after: Counts,
}

impl World {
    /// An empty one.
    pub(crate) fn new(seed: u64) -> World {
        World {
            allocator: Allocator::new(Options::default(), seed),
            now: Instant(0),
        }
    }

    /// Adds frameworks `0..count`, by turns in roles `role-0..roles`, or all in `*` for one role.
    pub(crate) fn frameworks(&mut self, count: u64, roles: u64) {
        for at in 0..count {
            let spec = FrameworkSpec {
                roles: [role(at, roles)].into(),
                active: true,
                ..FrameworkSpec::default()
            };
            self.allocator.add_framework(&framework_id(at), spec);
        }
    }

    /// Adds agents `0..count`, all alike.
    pub(crate) fn agents(&mut self, count: u64, total: &Resources) {
        for at in 0..count {
            self.allocator
                .add_agent(&agent_id(at), agent(at, total), true);
        }
    }

    /// A cycle, one interval later.
    pub(crate) fn cycle(&mut self) -> Cycle {
        self.now = self.now + INTERVAL;
        self.cycle_at_once()
    }

    /// A cycle, now.
    pub(crate) fn cycle_at_once(&mut self) -> Cycle {
        let now = self.now;
        let before = self.allocator.counts();
        let (took, cycle) = take(|| self.allocator.allocate(now, u32::MAX));
        Cycle {
            took,
            allotments: cycle.allotments,
            before,
            after: self.allocator.counts(),
        }
    }

    /// Gives an allotment back.
    pub(crate) fn give_back(&mut self, it: &Allotment, refuse: Option<Duration>) {
        self.allocator.recover_allotted(
            self.now,
            &it.framework,
            &it.agent,
            (&it.role, &it.resources),
            refuse,
        );
    }

    /// Gives all of them back.
    pub(crate) fn give_all_back(&mut self, all: &[Allotment], refuse: Option<Duration>) -> Took {
        take(|| {
            for it in all {
                self.give_back(it, refuse);
            }
        })
        .0
    }
}

impl Cycle {
    /// Adds it to a metric.
    pub(crate) fn measured(&self, measure: &mut Measure, metric: &str) {
        measure.each(metric, self.took, 1);
        let (before, after) = (&self.before, &self.after);
        for (what, before, after) in [
            ("allotments", before.allotments, after.allotments),
            (
                "agents visited",
                before.agents_visited,
                after.agents_visited,
            ),
            ("clients asked", before.clients_asked, after.clients_asked),
            (
                "clients skipped",
                before.clients_skipped,
                after.clients_skipped,
            ),
            ("heap operations", before.moves, after.moves),
        ] {
            measure.count(metric, what, after.saturating_sub(before) as f64);
        }
    }
}

/// What Mesos' own agents look like in its benchmarks, larger.
pub(crate) fn machine() -> Resources {
    resources("cpus:16;mem:65536;disk:500000;ports:[31000-32000]")
}

/// Resources from a text of this file's callers.
pub(crate) fn resources(text: &str) -> Resources {
    Resources::parse(text, "*").expect("well-formed resources")
}

/// An agent that understands everything.
pub(crate) fn agent(at: u64, total: &Resources) -> AgentSpec {
    AgentSpec {
        hostname: format!("host-{at}").into(),
        attributes: Attributes::default(),
        domain: None,
        capabilities: AgentCapabilities::all(),
        total: total.clone(),
    }
}

/// Ids are as long as those that masters give.
pub(crate) fn agent_id(at: u64) -> AgentId {
    AgentId::from(format!("00000000-0000-0000-0000-000000000000-S{at}"))
}

/// As [`agent_id`].
pub(crate) fn framework_id(at: u64) -> FrameworkId {
    FrameworkId::from(format!("00000000-0000-0000-0000-000000000000-{at:04}"))
}

/// The role that a framework is in.
pub(crate) fn role(framework: u64, roles: u64) -> Role {
    match roles {
        1 => Role::star(),
        _ => Role::from(format!("role-{}", framework % roles)),
    }
}

/// The number in an id that this file made.
pub(crate) fn number_of(id: &str) -> u64 {
    let digits = id.rsplit('-').next().unwrap_or_default();
    let digits = digits.strip_prefix('S').unwrap_or(digits);
    digits.parse().unwrap_or(0)
}

/// A workload whose cycle gave another number of allotments than it must measures nothing.
///
/// # Errors
/// The numbers differ.
pub(crate) fn expect(what: &str, given: usize, expected: u64) -> Result<()> {
    if given as u64 != expected {
        bail!("{what}: {given} allotments, expected {expected}");
    }
    Ok(())
}
