//! `decline`: everything is offered, and declined for ever, until nobody is left to offer to.

use super::{
    bare,
    world::{self, AGENT_BYTES, Cycle, FOR_EVER, FRAMEWORK_BYTES, World},
};
use crate::harness::{
    memory,
    parameters::{Values, number},
    point::Measure,
    random::Random,
    result::Unit,
    workload::{ANY, By, Goal, Workload},
};
use anyhow::Result;
use tepui_model::{Resource, Resources, resources::Ranges};

const FIRST: &str = "first round";
const MIDDLE: &str = "middle rounds";
const LAST: &str = "last rounds";
const NOTHING: &str = "offers nothing";
const DECLINE: &str = "decline";
const FILTER: &str = "bytes a filter";

/// Rounds that count as the middle, and as the last.
const WINDOW: u64 = 5;

/// Bytes of a filter, for the estimate; measured with some hundred of them an agent and rounded up.
const FILTER_BYTES: u64 = 32;

pub(super) static WORKLOAD: Workload = Workload {
    name: "decline",
    about: "agents of 24 cpus, of which 16 and 16 ranges of ports are in use, are offered round \
            after round, and declined for ever",
    parameters: &[
        world::agents(10_000),
        world::frameworks(1_000),
        world::roles(1),
        number(
            "rounds",
            0,
            0,
            world::MAX_FRAMEWORKS,
            "rounds of declines; 0 for one a framework, after which nothing can be offered",
        ),
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 10,
    goals: &[
        Goal {
            metric: FIRST,
            by: By::Ratio(bare::LOOP),
            must: 30.0,
            aim: 10.0,
            sizes: (0, 100_000),
        },
        Goal {
            metric: FIRST,
            by: By::Ratio(bare::LOOP),
            must: 50.0,
            aim: 50.0,
            sizes: (100_001, u64::MAX),
        },
        Goal {
            metric: LAST,
            by: By::Ratio(FIRST),
            must: 3.0,
            aim: 1.2,
            sizes: ANY,
        },
        Goal {
            metric: FILTER,
            by: By::Value,
            must: 64.0,
            aim: 16.0,
            sizes: ANY,
        },
    ],
    memory: |values| {
        let (agents, frameworks) = (values.number("agents"), values.number("frameworks"));
        // A filter, and two bits a client that say who need not be asked.
        agents * (AGENT_BYTES + rounds(values) * FILTER_BYTES + frameworks / 4)
            + frameworks * FRAMEWORK_BYTES
    },
    run,
};

fn rounds(values: &Values) -> u64 {
    match values.number("rounds") {
        0 => values.number("frameworks"),
        it => it,
    }
}

/// Sixteen ranges that do not touch, other ones on each agent.
fn used_ports(random: &mut Random) -> Resource {
    let range = |it: u64| {
        let begin = 31_000 + it * 62 + random.below(30);
        (begin, begin + random.below(30))
    };
    let ranges = Ranges::new("ports", (0..16).map(range)).expect("ranges in order");
    Resource::ranges("ports", ranges)
}

fn world(measure: &Measure) -> World {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let roles = measure.number("roles");
    let mut world = World::new(measure.seed);
    world.frameworks(frameworks, roles);
    let total = world::resources("cpus:24;mem:4096;disk:4096;ports:[31000-32000]");
    world.agents(agents, &total);
    let mut random = measure.random(2);
    for at in 0..agents {
        let framework = at % frameworks;
        let mut used: Resources = world::resources("cpus:16");
        used.push(used_ports(&mut random));
        let used = used.allocate(&world::role(framework, roles));
        let (framework, agent) = (world::framework_id(framework), world::agent_id(at));
        world.allocator.add_allocation(&framework, &agent, &used);
    }
    world
}

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    bare::measure(measure, agents, frameworks);
    measure.begin(FIRST, measure.repeats);
    for sample in 1..=measure.repeats {
        let mut world = world(measure);
        let cycle = world.cycle();
        world::expect(FIRST, cycle.allotments.len(), agents)?;
        cycle.measured(measure, FIRST);
        if !measure.step() {
            return Ok(());
        }
        if sample == measure.repeats {
            return pile_up(measure, world, cycle);
        }
    }
    Ok(())
}

/// Declines what was given, again and again.
fn pile_up(measure: &mut Measure, mut world: World, mut cycle: Cycle) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let rounds = rounds(&measure.values);
    let mut filters = 0;
    let mut first = (0, 0);
    measure.begin("declining", rounds);
    for round in 1..=rounds {
        let declined = cycle.allotments.len() as u64;
        let took = world.give_all_back(&cycle.allotments, Some(FOR_EVER));
        measure.each(DECLINE, took, declined);
        filters += declined;
        // What it gave is not a filter's.
        drop(cycle);
        let now = memory::counts().live;
        if round == 1 {
            // What each agent keeps for its first filter is not the others'.
            first = (now, filters);
        }
        if round == rounds && filters > first.1 {
            let bytes = (now - first.0) as f64 / (filters - first.1) as f64;
            measure.sample(FILTER, Unit::Bytes, bytes);
            measure.count(FILTER, "filters", filters as f64);
        }
        cycle = world.cycle();
        let next = round + 1;
        if round >= frameworks {
            world::expect(NOTHING, cycle.allotments.len(), 0)?;
            cycle.measured(measure, NOTHING);
            break;
        }
        world::expect("a round", cycle.allotments.len(), agents)?;
        let middle = rounds.div_ceil(2);
        if (middle.saturating_sub(2)..middle.saturating_sub(2) + WINDOW).contains(&next) {
            cycle.measured(measure, MIDDLE);
        }
        if next + WINDOW > rounds && next <= rounds {
            cycle.measured(measure, LAST);
            measure.count(LAST, "filters", filters as f64);
        }
        if !measure.step() {
            break;
        }
    }
    Ok(())
}
