//! `churn`: agents come to a full cluster and go.

use super::{
    bare, incremental,
    world::{self, AGENT_BYTES, FRAMEWORK_BYTES},
};
use crate::harness::{
    parameters::number,
    point::{Measure, take},
    workload::{ANY, By, Goal, Workload},
};
use anyhow::Result;

const ADD: &str = "add";
const REMOVE: &str = "remove";
const ADD_GIVEN: &str = "remove, given away";
const CYCLE: &str = "cycle after adding";

pub(super) static WORKLOAD: Workload = Workload {
    name: "churn",
    about: "agents come to a cluster that is given away whole, are given away, and go",
    parameters: &[
        world::agents(10_000),
        world::frameworks(1_000),
        world::roles(10),
        number("batch", 100, 1, 100_000, "agents that come together"),
    ],
    size: Some("agents"),
    sizes: &[1_000, 10_000, 100_000],
    repeats: 30,
    goals: &[
        Goal {
            metric: ADD,
            by: By::Value,
            must: 20e-6,
            aim: 2e-6,
            sizes: ANY,
        },
        Goal {
            metric: REMOVE,
            by: By::Value,
            must: 20e-6,
            aim: 2e-6,
            sizes: ANY,
        },
        Goal {
            metric: ADD_GIVEN,
            by: By::Value,
            must: 20e-6,
            aim: 2e-6,
            sizes: ANY,
        },
        Goal {
            metric: REMOVE,
            by: By::Exponent,
            must: 0.2,
            aim: 0.1,
            sizes: ANY,
        },
    ],
    memory: |values| {
        let agents = values.number("agents") + values.number("batch");
        agents * AGENT_BYTES + values.number("frameworks") * FRAMEWORK_BYTES
    },
    run,
};

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let batch = measure.number("batch");
    bare::measure(measure, batch, frameworks);
    let (mut world, _) = incremental::full(measure)?;
    let total = world::machine();
    measure.begin("coming and going", measure.repeats);
    let mut next = agents;
    for _ in 0..measure.repeats {
        let come = |first: u64| -> Vec<_> {
            let of = |at| (world::agent_id(at), world::agent(at, &total));
            (first..first + batch).map(of).collect()
        };
        // Once without anything being given away.
        let coming = come(next);
        let ids: Vec<_> = coming.iter().map(|it| it.0.clone()).collect();
        let (took, ()) = take(|| {
            for (id, spec) in coming {
                world.allocator.add_agent(&id, spec, true);
            }
        });
        measure.each(ADD, took, batch);
        let (took, ()) = take(|| ids.iter().for_each(|it| world.allocator.remove_agent(it)));
        measure.each(REMOVE, took, batch);
        next += batch;
        // Once with a cycle in between.
        let coming = come(next);
        let ids: Vec<_> = coming.iter().map(|it| it.0.clone()).collect();
        for (id, spec) in coming {
            world.allocator.add_agent(&id, spec, true);
        }
        let cycle = world.cycle();
        world::expect(CYCLE, cycle.allotments.len(), batch)?;
        cycle.measured(measure, CYCLE);
        let (took, ()) = take(|| ids.iter().for_each(|it| world.allocator.remove_agent(it)));
        measure.each(ADD_GIVEN, took, batch);
        next += batch;
        if !measure.step() {
            break;
        }
    }
    Ok(())
}
