//! `suppress-revive`: frameworks that want nothing for a while, and then something again.

use super::{
    bare,
    world::{self, AGENT_BYTES, FOR_EVER, FRAMEWORK_BYTES, World},
};
use crate::harness::{
    parameters::{Values, number},
    point::{Measure, take},
    workload::{ANY, By, Goal, Workload},
};
use anyhow::Result;

const ALL: &str = "cycle, nobody suppressed";
const MOST: &str = "cycle, most suppressed";
const SUPPRESS: &str = "suppress";
const REVIVE: &str = "revive";
const REVIVE_DECLINED: &str = "revive after declining everything";
const AFTER: &str = "cycle after that revive";

pub(super) static WORKLOAD: Workload = Workload {
    name: "suppress-revive",
    about: "most frameworks suppress offers and revive them again, everything is free meanwhile",
    parameters: &[
        world::agents(10_000),
        world::frameworks(1_000),
        world::roles(10),
        number(
            "suppressed_percent",
            90,
            1,
            99,
            "frameworks that suppress, of a hundred",
        ),
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 10,
    goals: &[
        Goal {
            metric: ALL,
            by: By::Ratio(bare::LOOP),
            must: 30.0,
            aim: 10.0,
            sizes: ANY,
        },
        Goal {
            metric: MOST,
            by: By::Ratio(ALL),
            must: 1.5,
            aim: 1.1,
            sizes: ANY,
        },
    ],
    memory: |values: &Values| {
        values.number("agents") * (AGENT_BYTES + 128)
            + values.number("frameworks") * FRAMEWORK_BYTES
    },
    run,
};

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let suppressed = (frameworks * measure.number("suppressed_percent") / 100).min(frameworks - 1);
    bare::measure(measure, agents, frameworks);
    let mut world = World::new(measure.seed);
    world.frameworks(frameworks, measure.number("roles"));
    world.agents(agents, &world::machine());
    let ids: Vec<_> = (0..frameworks).map(world::framework_id).collect();
    let quiet = &ids[..suppressed as usize];
    // The last one is never among those.
    let last = &ids[frameworks as usize - 1];
    measure.begin("suppressing and reviving", measure.repeats);
    for _ in 0..measure.repeats {
        let cycle = world.cycle();
        world::expect(ALL, cycle.allotments.len(), agents)?;
        cycle.measured(measure, ALL);
        let (took, ()) = take(|| {
            quiet
                .iter()
                .for_each(|it| world.allocator.suppress(it, &[]))
        });
        measure.each(SUPPRESS, took, suppressed);
        world.give_all_back(&cycle.allotments, None);
        let cycle = world.cycle();
        world::expect(MOST, cycle.allotments.len(), agents)?;
        cycle.measured(measure, MOST);
        let (took, ()) = take(|| quiet.iter().for_each(|it| world.allocator.revive(it, &[])));
        measure.each(REVIVE, took, suppressed);
        world.give_all_back(&cycle.allotments, None);
        // One framework alone declines everything for ever, and changes its mind.
        for it in &ids[..frameworks as usize - 1] {
            world.allocator.suppress(it, &[]);
        }
        let cycle = world.cycle();
        world::expect("for one framework", cycle.allotments.len(), agents)?;
        world.give_all_back(&cycle.allotments, Some(FOR_EVER));
        world::expect("declined", world.cycle().allotments.len(), 0)?;
        let (took, ()) = take(|| world.allocator.revive(last, &[]));
        measure.each(REVIVE_DECLINED, took, 1);
        let cycle = world.cycle();
        world::expect(AFTER, cycle.allotments.len(), agents)?;
        cycle.measured(measure, AFTER);
        for it in &ids {
            world.allocator.revive(it, &[]);
        }
        world.give_all_back(&cycle.allotments, None);
        if !measure.step() {
            break;
        }
    }
    Ok(())
}
