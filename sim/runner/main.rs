//! `tepui-sim`: runs seeds of the simulator, looks for the shortest history of those that fail,
//! and plays histories again.

mod arguments;
mod mutations;

use arguments::{Arguments, Command, USAGE};
use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tepui_sim::{
    core::Thoroughness,
    plan::Plan,
    scenarios,
    shrink::shrink,
    world::{Looking, Outcome, run},
};

/// Runs that the search for a shortest history may take.
const SHRINK_RUNS: usize = 250;

fn main() -> ExitCode {
    // Panics are violations here, and reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(it) => it,
        Err(text) => {
            eprintln!("{text}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let failed = match &arguments.command {
        Command::Run => run_seeds(&arguments),
        Command::Replay => replay(&arguments),
        Command::Scenarios => run_scenarios(&arguments),
        Command::Mutations => mutations::run(arguments.name.as_deref(), arguments.tree.as_deref()),
        Command::Help => {
            println!("{USAGE}");
            false
        }
    };
    match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: u64,
    simulated: Duration,
    computed: Duration,
    lives: usize,
    events: u64,
}

fn run_seeds(arguments: &Arguments) -> bool {
    let first = arguments.seeds.clone().next().unwrap_or_else(random_seed);
    let last = arguments.seeds.clone().next_back();
    let next = AtomicU64::new(first);
    let totals = Mutex::new(Totals::default());
    let until = arguments.minutes.map(|it| Instant::now() + it);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let failed = || totals.lock().unwrap_or_else(PoisonError::into_inner).failed;
                    let over = until.is_some_and(|it| Instant::now() >= it)
                        || arguments.first && failed() > 0;
                    if over || last.is_some_and(|it| seed > it) {
                        return;
                    }
                    one_seed(arguments, seed, &totals);
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let computed = totals.computed.as_secs_f64().max(1e-9);
    println!(
        "{} seeds from {first}: {} failed; {:.0} s simulated in {computed:.0} s of computing \
         ({:.0} times as fast), {:.0} seeds a CPU minute, {} tasks lived, {} events",
        totals.seeds,
        totals.failed,
        totals.simulated.as_secs_f64(),
        totals.simulated.as_secs_f64() / computed,
        totals.seeds as f64 * 60.0 / computed,
        totals.lives,
        totals.events,
    );
    totals.failed > 0
}

fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Short enough to be typed.
    now.map_or(1, |it| it.as_nanos() as u64 % 1_000_000_007)
}

fn one_seed(arguments: &Arguments, seed: u64, totals: &Mutex<Totals>) {
    let plan = Plan::draw(seed, arguments.size);
    let began = Instant::now();
    let outcome = run(plan.clone(), Looking::FAST);
    let took = began.elapsed();
    {
        let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.seeds += 1;
        totals.failed += u64::from(outcome.violation.is_some());
        totals.simulated += Duration::from_nanos(outcome.numbers.simulated);
        totals.computed += took;
        totals.lives += outcome.numbers.lives;
        totals.events += outcome.numbers.events;
    }
    if arguments.verbose {
        println!(
            "seed {seed}: {:016x} {:?} in {took:?}",
            outcome.hash, outcome.numbers
        );
    }
    let Some(violation) = outcome.violation else {
        return;
    };
    println!("seed {seed} FAILED: {violation}");
    if arguments.no_shrink {
        return;
    }
    let fails = |plan: &Plan| run(plan.clone(), Looking::FAST).violation;
    let shortest = shrink(&plan, violation, SHRINK_RUNS, fails);
    let mut text = format!(
        "  shortest history of seed {seed} ({} of {} parts, {} runs): {}\n",
        shortest.kept.len(),
        plan.parts.len(),
        shortest.runs,
        shortest.violation
    );
    for number in &shortest.kept {
        if let Some((at, part)) = plan.parts.get(*number) {
            text += &format!("    {:8.3} s  {part:?}\n", *at as f64 / 1e9);
        }
    }
    let kept: Vec<String> = shortest.kept.iter().map(usize::to_string).collect();
    text += &format!(
        "  to replay: tepui-sim replay {seed}{} --keep {} --length {}ns{}",
        arguments.size_flag(),
        match kept.is_empty() {
            true => "none".to_owned(),
            false => kept.join(","),
        },
        shortest.length,
        if shortest.calm { " --calm" } else { "" },
    );
    println!("{text}");
}

fn replay(arguments: &Arguments) -> bool {
    let Some(seed) = arguments.seeds.clone().next() else {
        eprintln!("replay needs a seed");
        return true;
    };
    let mut plan = Plan::draw(seed, arguments.size);
    if let Some(kept) = &arguments.keep {
        plan = plan.keep(kept);
    }
    if let Some(length) = arguments.length {
        plan = plan.until(length);
    }
    if arguments.calm {
        plan = plan.calm();
    }
    let looking = Looking {
        lines: !arguments.quiet,
        thoroughness: match arguments.thorough {
            true => Thoroughness::Every,
            false => Thoroughness::Sampled,
        },
    };
    report(&format!("seed {seed}"), &run(plan, looking))
}

fn run_scenarios(arguments: &Arguments) -> bool {
    let mut failed = false;
    for scenario in scenarios::ALL {
        if arguments
            .name
            .as_deref()
            .is_some_and(|it| it != scenario.name)
        {
            continue;
        }
        let seeds = arguments.seeds.clone();
        let seeds = if seeds.is_empty() { 1..=1 } else { seeds };
        for seed in seeds {
            let looking = Looking {
                lines: arguments.trace,
                thoroughness: Thoroughness::Sampled,
            };
            let outcome = scenarios::run(scenario, seed, looking);
            failed |= report(&format!("{} (seed {seed})", scenario.name), &outcome);
        }
    }
    failed
}

fn report(what: &str, outcome: &Outcome) -> bool {
    for line in &outcome.lines {
        println!("{line}");
    }
    match &outcome.violation {
        Some(violation) => println!("{what} FAILED: {violation}"),
        None => println!("{what}: {:016x}, {:?}", outcome.hash, outcome.numbers),
    }
    outcome.violation.is_some()
}
