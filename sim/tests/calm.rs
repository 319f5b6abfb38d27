//! A cluster in which nothing goes wrong.

use tepui_sim::{
    core::Thoroughness,
    plan::{Plan, Shape},
    world::{Looking, Outcome, World},
};

fn run(seed: u64) -> Outcome {
    let plan = Plan {
        shape: Shape::calm(seed),
        parts: Vec::new(),
    };
    let looking = Looking {
        lines: false,
        thoroughness: Thoroughness::Every,
    };
    World::new(plan, looking).run()
}

#[test]
fn tasks_run_and_are_acknowledged() {
    let outcome = run(1);
    assert_eq!(outcome.violation, None);
    let numbers = outcome.numbers;
    assert!(numbers.lives > 50, "{numbers:?}");
    assert_eq!(numbers.terms, 1, "nothing gives cause for an election");
}

#[test]
fn a_seed_is_a_history() {
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!(first.hash, again.hash);
    assert_eq!(first.numbers, again.numbers);
    assert_ne!(first.hash, other.hash);
}
