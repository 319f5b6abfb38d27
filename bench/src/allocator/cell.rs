//! `cell`: a whole cell with machines of several kinds and a mix of work like in public traces.

use super::{
    bare,
    world::{self, AGENT_BYTES, FRAMEWORK_BYTES, World},
};
use crate::harness::{
    parameters::number,
    point::{Measure, Took, take},
    random::Random,
    result::Unit,
    workload::Workload,
};
use anyhow::Result;
use core::time::Duration;
use std::{cmp::Reverse, collections::BinaryHeap};
use tepui_allocator::FrameworkSpec;
use tepui_model::{AgentId, FrameworkId, Resource, Resources, Role, Scalar};

const CYCLE: &str = "cycle";
const CALLS: &str = "calls between cycles, each";
const TASKS: &str = "tasks placed in a cycle";
const FILLING: &str = "cycle while filling";

/// A framework declines what it does not use for so long.
const REFUSE: Duration = Duration::from_secs(5);

/// Kinds of machines in parts of a thousand, with cpus and memory in GB: the mix of the public
/// trace of 2011 (53 % and 31 % of the machines are of two kinds), scaled to 64 cpus and 256 GB.
const MACHINES: [(u64, i64, i64); 6] = [
    (530, 32, 128),
    (310, 32, 64),
    (80, 32, 192),
    (60, 64, 256),
    (10, 16, 64),
    (10, 32, 32),
];

/// Tiers of work: role, weight in millionths, part of all cpus in percent, frameworks in percent,
/// typical cpus (thousandths), memory (MB) and seconds of a task.
const TIERS: [(&str, u64, u64, u64, f64, f64, f64); 3] = [
    ("production", 8_000_000, 50, 20, 1_500.0, 6_000.0, 20_000.0),
    ("batch", 2_000_000, 35, 50, 800.0, 2_000.0, 300.0),
    ("free", 1_000_000, 15, 30, 400.0, 1_000.0, 60.0),
];

pub(super) static WORKLOAD: Workload = Workload {
    name: "cell",
    about: "machines of six kinds, production before batch before free work; tasks end and come \
            anew while the cell is as full as it is told to be",
    parameters: &[
        world::agents(12_500),
        world::frameworks(200),
        number("full_percent", 80, 1, 95, "cpus that are wanted, of all"),
        number(
            "filling",
            20,
            1,
            1_000,
            "cycles to fill the cell, which are set apart",
        ),
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 60,
    goals: &[],
    memory: |values| {
        // About forty tasks a machine, each an entry of the harness.
        let agents = values.number("agents");
        agents * (AGENT_BYTES + 40 * 64 + values.number("frameworks") * 16)
            + values.number("frameworks") * FRAMEWORK_BYTES
    },
    run,
};

/// A task that runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Running {
    ends_at: u64,
    agent: u32,
    framework: u32,
    cpus: i64,
    mem: i64,
}

struct Framework {
    id: FrameworkId,
    role: Role,
    tier: usize,
    /// Thousandths of cpus that it wants and has not.
    wanted: i64,
}

struct Cell {
    world: World,
    random: Random,
    agents: Vec<AgentId>,
    frameworks: Vec<Framework>,
    running: BinaryHeap<Reverse<Running>>,
}

fn machine(at: u64) -> (i64, i64) {
    // Spread evenly, whatever the number of machines.
    let mut place = at * 389 % 1_000;
    for (part, cpus, mem) in MACHINES {
        match place.checked_sub(part) {
            Some(rest) => place = rest,
            None => return (cpus, mem),
        }
    }
    (32, 64)
}

fn amount(cpus: i64, mem: i64) -> Resources {
    let mut all = Resources::new();
    all.push(Resource::scalar("cpus", Scalar::from_millis(cpus)));
    all.push(Resource::scalar("mem", Scalar::from_units(mem)));
    all
}

fn cell(measure: &Measure) -> Cell {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let mut world = World::new(measure.seed);
    let mut cpus = 0;
    let mut ids = Vec::new();
    for at in 0..agents {
        let (of_this, mem) = machine(at);
        cpus += of_this * 1_000;
        let mut total = amount(of_this * 1_000, mem * 1_024);
        total.add(&world::resources("disk:1000000;ports:[31000-32000]"));
        let id = world::agent_id(at);
        world
            .allocator
            .add_agent(&id, world::agent(at, &total), true);
        ids.push(id);
    }
    let wanted = cpus / 100 * measure.number("full_percent") as i64;
    for (name, weight, ..) in TIERS {
        world.allocator.set_weight(Role::from(name), weight);
    }
    let mut all: Vec<Framework> = Vec::new();
    for at in 0..frameworks {
        // Of each hundred, as many as the tier has, at least one of the first.
        let place = at * 100 / frameworks;
        let first = TIERS[0].3;
        let tier = match place {
            it if it < first => 0,
            it if it < first + TIERS[1].3 => 1,
            _ => 2,
        };
        let role = Role::from(format!("{}/team-{}", TIERS[tier].0, at % 10));
        let id = world::framework_id(at);
        let spec = FrameworkSpec {
            roles: [role.clone()].into(),
            active: true,
            ..FrameworkSpec::default()
        };
        world.allocator.add_framework(&id, spec);
        all.push(Framework {
            id,
            role,
            tier,
            wanted: 0,
        });
    }
    for (tier, of_tier) in TIERS.iter().enumerate() {
        let count = all.iter().filter(|it| it.tier == tier).count().max(1) as i64;
        for it in all.iter_mut().filter(|it| it.tier == tier) {
            it.wanted = wanted / 100 * of_tier.2 as i64 / count;
        }
    }
    Cell {
        world,
        random: measure.random(5),
        agents: ids,
        frameworks: all,
        running: BinaryHeap::new(),
    }
}

impl Cell {
    /// Ends what is over: how many tasks.
    fn end_tasks(&mut self) -> u64 {
        let now = self.world.now.as_nanos();
        let mut ended = 0;
        while let Some(Reverse(it)) = self.running.peek().copied()
            && it.ends_at <= now
        {
            self.running.pop();
            let framework = &mut self.frameworks[it.framework as usize];
            framework.wanted += it.cpus;
            let part = amount(it.cpus, it.mem).allocate(&framework.role);
            let agent = &self.agents[it.agent as usize];
            self.world
                .allocator
                .recover(self.world.now, &framework.id, agent, &part, None);
            ended += 1;
        }
        ended
    }

    /// Fills an offer with tasks while the framework wants any: how many.
    fn fill(&mut self, offer: &tepui_allocator::Allotment) -> u64 {
        let at = world::number_of(offer.framework.as_str()) as usize;
        let framework = &mut self.frameworks[at];
        let (_, _, _, _, cpus, mem, seconds) = TIERS[framework.tier];
        let free = |it: Option<Scalar>| it.map_or(0, Scalar::as_millis);
        let (mut free_cpus, mut free_mem) = (
            free(offer.resources.cpus()),
            free(offer.resources.mem()) / 1_000,
        );
        let (mut used_cpus, mut used_mem, mut placed) = (0, 0, 0);
        while framework.wanted > 0 {
            let cpus = (self.random.log_normal(cpus, 0.8) as i64).clamp(10, 16_000);
            let mem = (self.random.log_normal(mem, 0.8) as i64).clamp(32, 60_000);
            if cpus > free_cpus || mem > free_mem {
                break;
            }
            free_cpus -= cpus;
            free_mem -= mem;
            used_cpus += cpus;
            used_mem += mem;
            framework.wanted -= cpus;
            placed += 1;
            let seconds = self.random.log_normal(seconds, 1.0);
            let lasts = Duration::from_secs_f64(seconds.clamp(1.0, 1e6));
            self.running.push(Reverse(Running {
                ends_at: (self.world.now + lasts).as_nanos(),
                agent: world::number_of(offer.agent.as_str()) as u32,
                framework: at as u32,
                cpus,
                mem,
            }));
        }
        let used = amount(used_cpus, used_mem).allocate(&framework.role);
        let rest = offer.allocated().difference(&used);
        let (allocator, now) = (&mut self.world.allocator, self.world.now);
        allocator.recover(now, &offer.framework, &offer.agent, &rest, Some(REFUSE));
        placed
    }
}

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    bare::measure(measure, agents, frameworks);
    let mut cell = cell(measure);
    let filling = measure.number("filling");
    measure.begin("cycles", filling + measure.repeats);
    for round in 0..filling + measure.repeats {
        let (ending, ended) = take(|| cell.end_tasks());
        let cycle = cell.world.cycle();
        let (using, placed) =
            take(|| -> u64 { cycle.allotments.iter().map(|it| cell.fill(it)).sum() });
        if round < filling {
            cycle.measured(measure, FILLING);
        } else {
            cycle.measured(measure, CYCLE);
            let mut both: Took = ending;
            both.time += using.time;
            both.memory.bytes += using.memory.bytes;
            measure.each(CALLS, both, ended + cycle.allotments.len() as u64);
            measure.sample(TASKS, Unit::Count, placed as f64);
        }
        if !measure.step() {
            break;
        }
    }
    let held: i64 = cell.running.iter().map(|it| it.0.cpus).sum();
    let all: i64 = (0..agents).map(|it| machine(it).0 * 1_000).sum();
    measure.note(format!(
        "at the end {} tasks hold {:.1} % of the cpus",
        cell.running.len(),
        held as f64 / all as f64 * 100.0
    ));
    Ok(())
}
