//! A few plans with faults of every kind, the named scenarios, and what the simulator promises
//! about itself. `make sim` runs many more.

use tepui_sim::{
    generate::Size,
    plan::{Fault, Part, Plan, Shape},
    scenarios,
    shrink::shrink,
    world::{Looking, run, run_checked},
};

fn seeds(range: std::ops::RangeInclusive<u64>) {
    let mut lives = 0;
    for seed in range {
        let outcome = run(Plan::draw(seed, Size::Small), Looking::FAST);
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}: {violation}\nto replay: tepui-sim replay {seed}");
        }
        lives += outcome.numbers.lives;
    }
    assert!(lives > 60, "only {lives} tasks ran");
}

#[test]
fn nothing_goes_wrong_under_the_first_seeds() {
    seeds(1..=4);
}

#[test]
fn nothing_goes_wrong_under_the_next_seeds() {
    seeds(5..=8);
}

fn scenarios(which: impl Fn(usize) -> bool) {
    let all = scenarios::ALL.iter().enumerate();
    for (_, scenario) in all.filter(|(number, _)| which(*number)) {
        let outcome = scenarios::run(scenario, 1, Looking::FAST);
        if let Some(violation) = outcome.violation {
            panic!(
                "{}: {}: {violation}\nto replay: tepui-sim scenarios {} 1 --trace",
                scenario.name, scenario.invariant, scenario.name
            );
        }
    }
}

#[test]
fn what_went_wrong_elsewhere_goes_right_here() {
    scenarios(|number| number % 2 == 0);
}

#[test]
fn what_else_went_wrong_elsewhere_goes_right_here() {
    scenarios(|number| number % 2 == 1);
}

#[test]
fn a_seed_is_a_history_with_all_its_faults() {
    let hash = |seed| run(Plan::draw(seed, Size::Small), Looking::FAST).hash;
    let read = Looking {
        lines: true,
        ..Looking::FAST
    };
    // Reading along changes nothing.
    let outcome = run(Plan::draw(3, Size::Small), read);
    assert_eq!(hash(3), outcome.hash);
    assert_ne!(hash(3), hash(4));
    let told = outcome
        .lines
        .iter()
        .any(|it| it.contains("is elected in term"));
    assert!(told, "the trace can be read");
}

#[test]
fn the_shortest_history_has_what_is_needed_and_nothing_else() {
    // Something that only a certain fault brings about: here, that a second term begins.
    let shape = Shape {
        agents: 1,
        frameworks: Vec::new(),
        length: 7_000_000_000,
        ..Shape::calm(5)
    };
    let quiet = |at: u64| (at, Part::Fault(Fault::Nonsense { agent: 0 }));
    let parts = vec![
        quiet(2_000_000_000),
        quiet(3_000_000_000),
        (4_000_000_000, Part::Fault(Fault::StepDown)),
        quiet(5_000_000_000),
        quiet(6_000_000_000),
    ];
    let plan = Plan { shape, parts };
    let terms = |plan: &Plan| {
        run_checked(plan.clone(), Looking::FAST, |world| {
            match world.core.checkers.history.terms() {
                1 => Ok(()),
                terms => Err(format!("{terms} terms")),
            }
        })
    };
    let violation = terms(&plan).violation.expect("another leader");
    let shortest = shrink(&plan, violation, 40, |plan| terms(plan).violation);
    assert_eq!(shortest.kept, [2], "{shortest:?}");
    assert!(shortest.length < plan.shape.length);
}
