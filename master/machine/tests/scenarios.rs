//! Scenario files: commands in, the whole trace out. `UPDATE=1` writes what came out
//! into the files; read the difference before committing it.

mod support;

use std::fmt::Write as _;
use std::{env, fs, path::Path};

use support::command::{self, Words};
use support::{World, trace};

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no scenarios in {}", folder.display());
    let update = env::var_os("UPDATE").is_some();
    let mut different = Vec::new();
    for path in files {
        let before = fs::read_to_string(&path).expect("a scenario");
        let after = run(
            &path.file_name().expect("a name").to_string_lossy(),
            &before,
        );
        if before == after {
            continue;
        }
        if update {
            fs::write(&path, after).expect("a scenario can be written");
        } else {
            different.push(format!(
                "{}:\n{}",
                path.display(),
                first_difference(&before, &after)
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Repeats the commands of a file, and puts what came of each below it.
fn run(name: &str, text: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            let _ = writeln!(out, "{line}");
            continue;
        }
        let Some(command) = line.strip_prefix("> ") else {
            continue;
        };
        let _ = writeln!(out, "{line}");
        let trace = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            perform(&mut world, command)
        }))
        .unwrap_or_else(|_| panic!("{name}:{}: {command}", number + 1));
        out.push_str(&trace);
    }
    out
}

fn perform(world: &mut World, text: &str) -> String {
    let words = Words::parse(text);
    match words.plain(0) {
        "birth" => {
            command::configure(world, &words);
            let output = world.birth();
            trace::output(world, &output)
        }
        // As after a panic: a new machine with the connections and offers of the old one.
        "rebirth" => {
            let outputs = world.rebirth();
            outputs
                .iter()
                .map(|output| trace::output(world, output))
                .collect()
        }
        // From now on these agents answer pings.
        "pongs" => {
            for index in 1.. {
                let Some(name) = words.maybe(index) else {
                    break;
                };
                let connection = world.connection(name);
                world.pongs.insert(connection);
            }
            String::new()
        }
        // `quiet`: without heartbeats, pings and entries for the sake of their stamp.
        "tick" => {
            let quiet = words.maybe(2) == Some("quiet");
            let start = world.now;
            let mut out = String::new();
            for (at, output) in world.advance(command::duration(words.plain(1))) {
                let after = at.saturating_since(start);
                let trace = trace::output(world, &output);
                let lines: Vec<&str> = trace
                    .lines()
                    .filter(|line| {
                        let is_noise = line.ends_with(": HEARTBEAT")
                            || line.contains(": Ping ")
                            || *line == "log nothing";
                        !quiet || !is_noise
                    })
                    .collect();
                if !lines.is_empty() {
                    let _ = writeln!(out, "+{after:?}\n{}", lines.join("\n"));
                }
            }
            out
        }
        _ => {
            let input =
                command::input(world, text).unwrap_or_else(|| panic!("no command '{text}'"));
            let output = world.step(input);
            trace::output(world, &output)
        }
    }
}

fn first_difference(before: &str, after: &str) -> String {
    let mut lines = before.lines().zip(after.lines()).enumerate();
    match lines.find(|(_, (before, after))| before != after) {
        Some((number, (before, after))) => {
            format!("  line {}\n  - {before}\n  + {after}", number + 1)
        }
        None => format!(
            "  {} lines, and now {}",
            before.lines().count(),
            after.lines().count()
        ),
    }
}
