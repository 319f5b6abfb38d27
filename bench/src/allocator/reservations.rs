//! `reservations`: one agent with thousands of reservations that are all different.

use super::{
    bare,
    world::{self, World},
};
use crate::harness::{
    parameters::number,
    point::{Measure, take},
    workload::{By, Goal, Workload},
};
use anyhow::Result;
use tepui_allocator::FrameworkSpec;
use tepui_model::{
    FrameworkId, Resource, Resources, Role, Scalar,
    framework::Capability,
    label::Labels,
    resources::{Reservation, ReservationKind},
    wire,
};

const TOTAL: &str = "update of the total";
const CYCLE: &str = "cycle after the update";
const CONVERT: &str = "conversion of what a framework holds";
const FIRST: &str = "first cycle";

pub(super) static WORKLOAD: Workload = Workload {
    name: "reservations",
    about: "one agent with thousands of distinct dynamic reservations for hundreds of frameworks; \
            one of the reservations changes",
    parameters: &[
        number(
            "reservations",
            6_400,
            1,
            100_000,
            "distinct reservations on the agent",
        ),
        number(
            "frameworks",
            1_600,
            1,
            world::MAX_FRAMEWORKS,
            "frameworks, each in a role of its own",
        ),
    ],
    size: Some("reservations"),
    sizes: &[],
    repeats: 10,
    goals: &[
        Goal {
            metric: TOTAL,
            by: By::Value,
            must: 10e-3,
            aim: 1e-3,
            sizes: (0, 6_400),
        },
        Goal {
            metric: CONVERT,
            by: By::Value,
            must: 10e-3,
            aim: 1e-3,
            sizes: (0, 6_400),
        },
    ],
    memory: |values| {
        // Each is in the total, in what is available, in an allotment and in views of both.
        values.number("reservations") * 6_000
            + values.number("frameworks") * world::FRAMEWORK_BYTES
            + (64 << 20)
    },
    run,
};

fn role_of(framework: u64) -> Role {
    Role::from(format!("role-{framework}"))
}

/// A tenth of a cpu, reserved to a framework's role under a label of its own.
fn reserved(at: u64, frameworks: u64, generation: u64) -> Resource {
    let label = wire::Label {
        key: "slot".into(),
        value: Some(format!("{at}-{generation}")),
    };
    let labels = Labels::from_wire(&wire::Labels {
        labels: vec![label],
    });
    let reservation = Reservation {
        kind: ReservationKind::Dynamic,
        role: role_of(at % frameworks),
        principal: None,
        labels: Some(labels),
    };
    Resource::scalar("cpus", Scalar::from_millis(100)).with_reservation(reservation)
}

fn run(measure: &mut Measure) -> Result<()> {
    let (reservations, frameworks) = (measure.number("reservations"), measure.number("frameworks"));
    bare::measure(measure, reservations, frameworks);
    let mut world = World::new(measure.seed);
    let ids: Vec<FrameworkId> = (0..frameworks).map(world::framework_id).collect();
    for (at, id) in ids.iter().enumerate() {
        let spec = FrameworkSpec {
            roles: [role_of(at as u64)].into(),
            capabilities: [Capability::ReservationRefinement].into_iter().collect(),
            active: true,
            // What is reserved is small, and still wanted.
            offer_filters: [(role_of(at as u64), Vec::new())].into(),
            ..FrameworkSpec::default()
        };
        world.allocator.add_framework(id, spec);
    }
    let mut generations = vec![0_u64; reservations as usize];
    let total = |generations: &[u64]| -> Resources {
        let mut all = world::resources("cpus:16;mem:65536");
        let each = generations.iter().zip(0..);
        for (generation, at) in each {
            all.push(reserved(at, frameworks, *generation));
        }
        all
    };
    let agent = world::agent_id(0);
    world
        .allocator
        .add_agent(&agent, world::agent(0, &total(&generations)), true);
    let mut held = world.cycle();
    held.measured(measure, FIRST);
    let mut random = measure.random(4);
    measure.begin(TOTAL, measure.repeats);
    for _ in 0..measure.repeats {
        // An operator's change: one reservation of those that nobody holds.
        let at = random.below(reservations);
        let holder = &ids[(at % frameworks) as usize];
        let holds = held
            .allotments
            .iter()
            .position(|it| it.framework == *holder);
        if let Some(place) = holds {
            let allotment = held.allotments.swap_remove(place);
            world.give_back(&allotment, None);
        }
        generations[at as usize] += 1;
        let changed = total(&generations);
        let (took, ()) = take(|| world.allocator.set_agent_total(&agent, &changed));
        measure.each(TOTAL, took, 1);
        let cycle = world.cycle();
        cycle.measured(measure, CYCLE);
        held.allotments.extend(cycle.allotments);
        // A framework's change: it makes a new reservation of what it holds.
        let Some(allotment) = held
            .allotments
            .iter_mut()
            .find(|it| it.framework == *holder)
        else {
            continue;
        };
        let before = allotment.resources.clone();
        let old = reserved(at, frameworks, generations[at as usize]);
        generations[at as usize] += 1;
        let new = reserved(at, frameworks, generations[at as usize]);
        let mut after = (*before).clone();
        let (from, to): (Resources, Resources) = (one(old), one(new));
        if !after.try_sub(&from) {
            continue;
        }
        after.add(&to);
        let (from, to) = (from.allocate(&allotment.role), to.allocate(&allotment.role));
        let changed = total(&generations);
        let (took, ()) = take(|| {
            let allocator = &mut world.allocator;
            allocator.update_allocation(&allotment.framework, &agent, &from, &to);
            allocator.set_agent_total(&agent, &changed);
        });
        measure.each(CONVERT, took, 1);
        allotment.resources = after.into();
        if !measure.step() {
            break;
        }
    }
    Ok(())
}

fn one(resource: Resource) -> Resources {
    let mut all = Resources::new();
    all.push(resource);
    all
}
