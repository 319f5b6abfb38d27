//! `quota`: what quotas cost a cycle, against the same cycle without any.

use super::{
    bare,
    world::{self, AGENT_BYTES, FRAMEWORK_BYTES, World},
};
use crate::harness::{
    parameters::{choice, number},
    point::Measure,
    workload::{ANY, By, Goal, Workload},
};
use anyhow::Result;
use tepui_allocator::Quota;
use tepui_model::{Quantities, Role, Scalar};

const WITHOUT: &str = "first round without quota";
const WITH: &str = "first round with quota";
const AGAIN_WITHOUT: &str = "second round without quota";
const AGAIN_WITH: &str = "second round with quota";

pub(super) static WORKLOAD: Workload = Workload {
    name: "quota",
    about: "the same cluster with and without quotas, in turn; all of it is given away either way",
    parameters: &[
        world::agents(10_000),
        world::frameworks(1_000),
        world::roles(100),
        number(
            "quota_percent",
            50,
            0,
            100,
            "roles that have a quota, of a hundred",
        ),
        choice(
            "kind",
            &["both", "guarantees", "limits"],
            "what quotas say: guarantees of half of a fair share, limits of twice that share",
        ),
    ],
    size: Some("agents"),
    sizes: &[1_000, 10_000],
    repeats: 10,
    goals: &[
        Goal {
            metric: WITH,
            by: By::Ratio(WITHOUT),
            must: 1.5,
            aim: 1.1,
            sizes: ANY,
        },
        Goal {
            metric: AGAIN_WITH,
            by: By::Ratio(AGAIN_WITHOUT),
            must: 1.5,
            aim: 1.1,
            sizes: ANY,
        },
    ],
    memory: |values| {
        values.number("agents") * 2 * AGENT_BYTES
            + values.number("frameworks") * 2 * FRAMEWORK_BYTES
    },
    run,
};

/// An amount of cpus and memory, as large as so many agents.
fn amounts(agents: f64) -> Quantities {
    let mut all = Quantities::new();
    let millis = |each: f64| Scalar::from_millis((each * agents * 1000.0) as i64);
    all.insert("cpus", millis(16.0));
    all.insert("mem", millis(65_536.0));
    all
}

fn world(measure: &Measure, has_quota: bool) -> World {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let roles = measure.number("roles");
    let mut world = World::new(measure.seed);
    world.frameworks(frameworks, roles);
    world.agents(agents, &world::machine());
    let kind = measure.values.text("kind");
    let share = agents as f64 / roles as f64;
    let with_quota = roles * measure.number("quota_percent") / 100;
    for at in (0..with_quota).filter(|_| has_quota) {
        let role = match roles {
            1 => Role::star(),
            _ => Role::from(format!("role-{at}")),
        };
        let quota = Quota {
            guarantees: match kind {
                "limits" => Quantities::new(),
                _ => amounts(share / 2.0),
            },
            limits: match kind {
                "guarantees" => Quantities::new(),
                _ => amounts(share.max(1.0) * 2.0),
            },
        };
        world.allocator.set_quota(role, Some(quota));
    }
    world
}

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    bare::measure(measure, agents, frameworks);
    measure.begin("rounds in turn", measure.repeats);
    for repeat in 0..measure.repeats {
        let sides = [(false, WITHOUT, AGAIN_WITHOUT), (true, WITH, AGAIN_WITH)];
        for turn in 0..2 {
            let (has_quota, first, again) = sides[(turn + repeat as usize) % 2];
            let mut world = world(measure, has_quota);
            let cycle = world.cycle();
            cycle.measured(measure, first);
            let given = cycle.allotments.len();
            if !has_quota {
                world::expect(first, given, agents)?;
            }
            world.give_all_back(&cycle.allotments, None);
            drop(cycle);
            world.cycle().measured(measure, again);
        }
        if !measure.step() {
            break;
        }
    }
    Ok(())
}
