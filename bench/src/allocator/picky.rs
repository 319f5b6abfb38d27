//! `picky`: frameworks that can use few of the agents, and say so by offer constraints.

use super::{
    bare,
    world::{self, AGENT_BYTES, FRAMEWORK_BYTES, World},
};
use crate::harness::{
    parameters::{choice, number},
    point::Measure,
    workload::{By, Goal, Workload},
};
use anyhow::Result;
use tepui_allocator::FrameworkSpec;
use tepui_model::{
    attribute::Attributes,
    wire::scheduler::{
        AttributeConstraint, OfferConstraints,
        attribute_constraint::{
            Predicate, Selector,
            predicate::{self, Predicate as Kind},
            selector::{PseudoattributeType, Selector as From},
        },
        offer_constraints::{RoleConstraints, role_constraints::Group},
    },
};

const WITHOUT: &str = "first round without constraints";
const WITH: &str = "first round with constraints";
const AGAIN: &str = "second round with constraints";

pub(super) static WORKLOAD: Workload = Workload {
    name: "picky",
    about: "each framework can use one class of agents only, by a constraint on an attribute or on \
            the host's name; beside the same cluster without constraints",
    parameters: &[
        world::agents(10_000),
        world::frameworks(1_000),
        world::roles(10),
        number(
            "classes",
            100,
            1,
            10_000,
            "classes of agents; a framework can use one of them",
        ),
        choice(
            "constraint",
            &["equals", "regex", "host", "nobody"],
            "an attribute's text, an expression on it, an expression on the host's name, or what \
             no agent has for all frameworks but one",
        ),
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 5,
    goals: &[Goal {
        metric: WITH,
        by: By::Ratio(WITHOUT),
        must: 3.0,
        aim: 1.5,
        sizes: (0, 100_000),
    }],
    memory: |values| {
        let (agents, frameworks) = (values.number("agents"), values.number("frameworks"));
        // Two bits an agent and client say who need not be asked; an expression takes some
        // thousands of bytes, and so does what each class is known to satisfy.
        agents * (AGENT_BYTES + frameworks / 4)
            + frameworks * (FRAMEWORK_BYTES + 40_000 + values.number("classes"))
    },
    run,
};

fn constraint(kind: &str, framework: u64, classes: u64) -> AttributeConstraint {
    let class = framework % classes;
    let attribute = From::AttributeName("class".into());
    let (selector, predicate) = match kind {
        "regex" => {
            let regex = format!("(c|class)-0*{class}");
            (
                attribute,
                Kind::TextMatches(predicate::TextMatches { regex }),
            )
        }
        "host" => {
            let host = From::PseudoattributeType(PseudoattributeType::Hostname.into());
            let regex = format!("host-[0-9]*{}", framework % 10);
            (host, Kind::TextMatches(predicate::TextMatches { regex }))
        }
        "nobody" if framework > 0 => {
            let value = "none".into();
            (attribute, Kind::TextEquals(predicate::TextEquals { value }))
        }
        "nobody" => (attribute, Kind::Exists(predicate::Exists {})),
        _ => {
            let value = format!("c-{class}");
            (attribute, Kind::TextEquals(predicate::TextEquals { value }))
        }
    };
    AttributeConstraint {
        selector: Selector {
            selector: Some(selector),
        },
        predicate: Predicate {
            predicate: Some(predicate),
        },
    }
}

fn world(measure: &Measure, constrained: bool) -> World {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    let (roles, classes) = (measure.number("roles"), measure.number("classes"));
    let mut world = World::new(measure.seed);
    for at in 0..frameworks {
        let role = world::role(at, roles);
        let mut constraints = OfferConstraints::default();
        if constrained {
            let constraint = constraint(measure.values.text("constraint"), at, classes);
            let group = Group {
                attribute_constraints: vec![constraint],
            };
            let groups = RoleConstraints {
                groups: vec![group],
            };
            let of_roles = &mut constraints.role_constraints;
            of_roles.insert(role.as_str().to_owned(), groups);
        }
        let spec = FrameworkSpec {
            roles: [role].into(),
            constraints,
            active: true,
            ..FrameworkSpec::default()
        };
        world
            .allocator
            .add_framework(&world::framework_id(at), spec);
    }
    let total = world::machine();
    for at in 0..agents {
        let mut spec = world::agent(at, &total);
        let class = format!("class:c-{}", at % classes);
        spec.attributes = Attributes::parse(&class).unwrap_or_default();
        world.allocator.add_agent(&world::agent_id(at), spec, true);
    }
    world
}

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, frameworks) = (measure.number("agents"), measure.number("frameworks"));
    bare::measure(measure, agents, frameworks);
    measure.begin("rounds in turn", measure.repeats);
    for _ in 0..measure.repeats {
        let cycle = world(measure, false).cycle();
        world::expect(WITHOUT, cycle.allotments.len(), agents)?;
        cycle.measured(measure, WITHOUT);
        let mut world = world(measure, true);
        let cycle = world.cycle();
        cycle.measured(measure, WITH);
        world.give_all_back(&cycle.allotments, None);
        drop(cycle);
        world.cycle().measured(measure, AGAIN);
        if !measure.step() {
            break;
        }
    }
    Ok(())
}
