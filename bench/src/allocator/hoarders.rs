//! `hoarders`: frameworks that neither accept nor decline, and one that would use what it gets.
//!
//! Offers are taken back by the rule of masters: when somebody who has none waits for what an
//! offer holds, that offer ends, and its framework is served last from then on.

use super::{
    bare,
    world::{self, AGENT_BYTES, FRAMEWORK_BYTES, World},
};
use crate::harness::{
    parameters::number,
    point::{Measure, take},
    result::Unit,
    workload::{ANY, By, Goal, Workload},
};
use anyhow::Result;
use std::collections::BTreeSet;
use tepui_allocator::{Allotment, FrameworkSpec};
use tepui_model::FrameworkId;

const WAIT: &str = "cycles until the newcomer is offered something";
const CYCLE: &str = "cycle while it waits";
const LOOK: &str = "look for offers to take back";
const HOARD: &str = "cycle that gives everything to hoarders";

pub(super) static WORKLOAD: Workload = Workload {
    name: "hoarders",
    about: "a thousand frameworks keep every offer and answer none; then one comes that wants \
            something, and offers that it waits for are taken back",
    parameters: &[
        world::agents(1_000),
        world::frameworks(1_000),
        world::roles(10),
        number("patience", 20, 1, 10_000, "cycles that the newcomer waits"),
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 10,
    goals: &[Goal {
        metric: WAIT,
        by: By::Value,
        must: 2.0,
        aim: 1.0,
        sizes: ANY,
    }],
    memory: |values| {
        values.number("agents") * (AGENT_BYTES + values.number("frameworks") / 4)
            + values.number("frameworks") * FRAMEWORK_BYTES
    },
    run,
};

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let (roles, patience) = (measure.number("roles"), measure.number("patience"));
    bare::measure(measure, agents, frameworks);
    measure.begin("waiting", measure.repeats);
    for repeat in 0..measure.repeats {
        let mut world = World::new(measure.seed + repeat);
        world.frameworks(frameworks, roles);
        world.agents(agents, &world::machine());
        let cycle = world.cycle();
        world::expect(HOARD, cycle.allotments.len(), agents)?;
        cycle.measured(measure, HOARD);
        let mut held = cycle.allotments;
        let newcomer = world::framework_id(frameworks);
        let spec = FrameworkSpec {
            roles: [world::role(frameworks, roles)].into(),
            active: true,
            ..FrameworkSpec::default()
        };
        world.allocator.add_framework(&newcomer, spec);
        let mut waited = 0;
        let mut served = false;
        while !served && waited < patience {
            waited += 1;
            let (took, taken) = take(|| take_back(&mut world, &mut held));
            measure.each(LOOK, took, 1);
            measure.count(LOOK, "offers taken back", taken as f64);
            let cycle = world.cycle();
            cycle.measured(measure, CYCLE);
            served = cycle.allotments.iter().any(|it| it.framework == newcomer);
            held.extend(cycle.allotments);
        }
        // One more than it waited when it went away with nothing.
        measure.sample(WAIT, Unit::Count, (waited + u64::from(!served)) as f64);
        if !served && repeat == 0 {
            measure.note(format!(
                "the newcomer was offered nothing within {patience} cycles"
            ));
        }
        if !measure.step() {
            break;
        }
    }
    Ok(())
}

/// As a master does before a cycle: how many offers were taken back.
fn take_back(world: &mut World, held: &mut Vec<Allotment>) -> usize {
    /// Clients that are asked in one look.
    const BUDGET: usize = 10_000;
    let offered: BTreeSet<&FrameworkId> = held.iter().map(|it| &it.framework).collect();
    let mut waiting = world.allocator.waiting(|it| !offered.contains(it));
    let (now, mut budget) = (world.now, BUDGET);
    let mut taken = Vec::new();
    for (at, it) in held.iter().enumerate() {
        if waiting.is_empty() || budget == 0 {
            break;
        }
        let taker = world.allocator.find_taker(
            now,
            &it.agent,
            (&it.framework, &it.role),
            &it.resources,
            &mut waiting,
            &mut budget,
        );
        if taker.is_some() {
            taken.push(at);
        }
    }
    for at in taken.iter().rev() {
        let it = held.swap_remove(*at);
        world.allocator.set_dormant(&it.framework, true);
        world.give_back(&it, None);
    }
    taken.len()
}
