//! `hoarders`: frameworks that neither accept nor decline, and one that would use what it gets.
//!
//! Offers are taken back by the rule of masters: when somebody who has none waits for what an
//! offer holds, that offer ends once it has lain for a while, and its framework is served last from
//! then on. Masters look up to fifty times in an allocation interval; what is counted is intervals.

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
use tepui_allocator::{Allotment, FrameworkSpec, LOOKS_PER_INTERVAL};
use tepui_model::{FrameworkId, time::Instant};

const WAIT: &str = "intervals until the newcomer is offered something";
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
        number(
            "patience",
            20,
            1,
            10_000,
            "allocation intervals that the newcomer waits",
        ),
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
        let mut held = Vec::new();
        let hold = |now: Instant, all: Vec<Allotment>, held: &mut Vec<(Instant, Allotment)>| {
            held.extend(all.into_iter().map(|it| (now, it)));
        };
        hold(world.now, cycle.allotments, &mut held);
        let newcomer = world::framework_id(frameworks);
        let spec = FrameworkSpec {
            roles: [world::role(frameworks, roles)].into(),
            active: true,
            ..FrameworkSpec::default()
        };
        world.allocator.add_framework(&newcomer, spec);
        let (mut looks, mut served) = (0, false);
        while !served && looks < patience * u64::from(LOOKS_PER_INTERVAL) {
            looks += 1;
            world.now = world.now + world::INTERVAL / LOOKS_PER_INTERVAL;
            let (took, taken) = take(|| take_back(&mut world, &mut held));
            measure.each(LOOK, took, 1);
            measure.count(LOOK, "offers taken back", taken as f64);
            let cycle = world.cycle_at_once();
            cycle.measured(measure, CYCLE);
            served = cycle.allotments.iter().any(|it| it.framework == newcomer);
            hold(world.now, cycle.allotments, &mut held);
        }
        // One more than it waited when it went away with nothing.
        let waited = looks as f64 / f64::from(LOOKS_PER_INTERVAL);
        measure.sample(WAIT, Unit::Count, waited + f64::from(u8::from(!served)));
        if !served && repeat == 0 {
            measure.note(format!(
                "the newcomer was offered nothing within {patience} intervals"
            ));
        }
        if !measure.step() {
            break;
        }
    }
    Ok(())
}

/// As a master does: how many offers were taken back.
fn take_back(world: &mut World, held: &mut Vec<(Instant, Allotment)>) -> usize {
    /// Clients that are asked in one look.
    const BUDGET: usize = 2_048;
    let offered: BTreeSet<&FrameworkId> = held.iter().map(|(_, it)| &it.framework).collect();
    let mut waiting = world.allocator.waiting(|it| !offered.contains(it));
    let patience = waiting.patience(world::INTERVAL, held.len());
    let (now, mut budget) = (world.now, BUDGET);
    let mut taken = Vec::new();
    for (at, (made_at, it)) in held.iter().enumerate() {
        if waiting.is_empty() || budget == 0 {
            break;
        }
        if now < *made_at + patience {
            continue;
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
        let (_, it) = held.swap_remove(*at);
        world.allocator.set_dormant(&it.framework, true);
        world.give_back(&it, None);
    }
    taken.len()
}
