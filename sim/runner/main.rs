//! `tepui-sim`: runs seeds and says what went wrong.

use tepui_sim::{
    core::Thoroughness,
    generate::Size,
    plan::Plan,
    world::{Looking, World},
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).and_then(|it| it.parse::<u64>().ok());
    let (first, last) = (
        number(0).unwrap_or(1),
        number(1).unwrap_or(number(0).unwrap_or(1)),
    );
    let lines = arguments.iter().any(|it| it == "--trace");
    let large = arguments.iter().any(|it| it == "--large");
    let size = if large { Size::Large } else { Size::Small };
    for seed in first..=last {
        let plan = Plan::draw(seed, size);
        let began = std::time::Instant::now();
        let result = std::panic::catch_unwind(|| {
            World::new(
                plan,
                Looking {
                    lines,
                    thoroughness: Thoroughness::Sampled,
                },
            )
            .run()
        });
        match result {
            Ok(outcome) => {
                for line in &outcome.lines {
                    println!("{line}");
                }
                let violation = outcome.violation.map(|it| it.to_string());
                println!(
                    "{seed} {:016x} {:?} {:?} {violation:?}",
                    outcome.hash,
                    outcome.numbers,
                    began.elapsed()
                );
            }
            Err(_) => println!("{seed} panicked"),
        }
    }
}
