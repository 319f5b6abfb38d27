//! A cluster in which nothing goes wrong.

use tepui_sim::{
    core::Thoroughness,
    plan::{Plan, Shape},
    world::{Looking, Outcome, World},
};

fn run(seed: u64, thoroughness: Thoroughness) -> Outcome {
    let plan = Plan {
        shape: Shape {
            agents: 2,
            length: 12_000_000_000,
            ..Shape::calm(seed)
        },
        parts: Vec::new(),
    };
    let looking = Looking {
        lines: false,
        thoroughness,
    };
    World::new(plan, looking).run()
}

#[test]
fn tasks_run_and_are_acknowledged() {
    let outcome = run(1, Thoroughness::Every);
    assert_eq!(outcome.violation, None);
    let numbers = outcome.numbers;
    assert!(numbers.lives > 25, "{numbers:?}");
    assert_eq!(numbers.terms, 1, "nothing gives cause for an election");
}
