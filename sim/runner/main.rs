//! `tepui-sim`: runs seeds and says what went wrong.

use tepui_sim::{
    plan::{Plan, Shape},
    world::{Looking, World},
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = arguments
        .first()
        .and_then(|it| it.parse().ok())
        .unwrap_or(1);
    let lines = arguments.iter().any(|it| it == "--trace");
    let plan = Plan {
        shape: Shape::calm(seed),
        parts: Vec::new(),
    };
    let began = std::time::Instant::now();
    let outcome = World::new(
        plan,
        Looking {
            lines,
            ..Looking::FAST
        },
    )
    .run();
    for line in &outcome.lines {
        println!("{line}");
    }
    println!(
        "{:016x} {:?} {:?} {:?}",
        outcome.hash,
        outcome.violation,
        outcome.numbers,
        began.elapsed()
    );
}
