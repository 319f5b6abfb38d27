//! `incremental`: a few agents of a full cluster become free; only they should cost anything.

use super::{
    bare,
    world::{self, AGENT_BYTES, FRAMEWORK_BYTES, World},
};
use crate::harness::{
    parameters::number,
    point::{Measure, take},
    workload::{ANY, By, Goal, Workload},
};
use anyhow::Result;
use tepui_model::{FrameworkId, Resources};

const CHANGE: &str = "change of k agents";
const CYCLE: &str = "its cycle";
const IDLE: &str = "nothing changed";

pub(super) static WORKLOAD: Workload = Workload {
    name: "incremental",
    about: "k agents of a cluster that is given away whole become free, and are given again",
    parameters: &[
        world::agents(10_000),
        world::frameworks(1_000),
        world::roles(10),
        number(
            "changed",
            100,
            1,
            world::MAX_AGENTS,
            "agents that change at a time: k",
        ),
    ],
    size: Some("agents"),
    sizes: &[1_000, 10_000, 100_000],
    repeats: 50,
    goals: &[Goal {
        metric: CHANGE,
        by: By::Exponent,
        must: 0.2,
        aim: 0.1,
        sizes: ANY,
    }],
    memory: |values| {
        values.number("agents") * AGENT_BYTES + values.number("frameworks") * FRAMEWORK_BYTES
    },
    run,
};

/// A cluster that is given away whole: who holds each agent.
pub(super) fn full(measure: &Measure) -> Result<(World, Vec<u32>)> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let mut world = World::new(measure.seed);
    world.frameworks(frameworks, measure.number("roles"));
    world.agents(agents, &world::machine());
    let given = world.cycle().allotments;
    world::expect("the first round", given.len(), agents)?;
    let mut holders = vec![0; agents as usize];
    for it in given {
        let agent = world::number_of(it.agent.as_str()) as usize;
        holders[agent] = world::number_of(it.framework.as_str()) as u32;
    }
    Ok((world, holders))
}

/// Ids and parts are made once: they are the caller's work.
pub(super) struct Names {
    frameworks: Vec<FrameworkId>,
    /// A whole agent, by role.
    parts: Vec<Resources>,
}

impl Names {
    pub(super) fn new(frameworks: u64, roles: u64) -> Names {
        let part = |it: u64| world::machine().allocate(&world::role(it, roles));
        Names {
            frameworks: (0..frameworks).map(world::framework_id).collect(),
            parts: (0..roles).map(part).collect(),
        }
    }

    /// A framework, and an agent that is given to it.
    pub(super) fn of(&self, framework: u32) -> (&FrameworkId, &Resources) {
        let at = framework as usize;
        (&self.frameworks[at], &self.parts[at % self.parts.len()])
    }
}

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let changed = measure.number("changed").min(agents);
    bare::measure(measure, changed, frameworks);
    let (mut world, mut holders) = full(measure)?;
    let names = Names::new(frameworks, measure.number("roles"));
    let mut random = measure.random(3);
    measure.begin(CHANGE, measure.repeats);
    for _ in 0..measure.repeats {
        let picked = random.distinct(changed, agents);
        let picked: Vec<_> = picked
            .iter()
            .map(|it| (*it, world::agent_id(*it)))
            .collect();
        let (freeing, ()) = take(|| {
            for (at, agent) in &picked {
                let (framework, part) = names.of(holders[*at as usize]);
                world
                    .allocator
                    .recover(world.now, framework, agent, part, None);
            }
        });
        let cycle = world.cycle();
        world::expect(CHANGE, cycle.allotments.len(), changed)?;
        let mut both = freeing;
        both.time += cycle.took.time;
        both.memory.bytes += cycle.took.memory.bytes;
        measure.each(CHANGE, both, 1);
        measure.count(CHANGE, "agents", changed as f64);
        cycle.measured(measure, CYCLE);
        for it in cycle.allotments {
            let agent = world::number_of(it.agent.as_str()) as usize;
            holders[agent] = world::number_of(it.framework.as_str()) as u32;
        }
        world.cycle().measured(measure, IDLE);
        if !measure.step() {
            break;
        }
    }
    Ok(())
}
