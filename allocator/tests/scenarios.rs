//! Scenarios: one text file per rule, commands in, allotments out, each also compared with the
//! oracle. `UPDATE=1 cargo test -p tepui-allocator --test scenarios` writes the answers anew.
//!
//! Lines that start with `#` are comments, lines that start with `->` are answers.

mod oracle;
mod world;

use std::{fs, path::Path};

#[test]
fn scenarios_give_what_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE").is_some();
    let mut count = 0;
    let mut wrong = Vec::new();
    let entries = fs::read_dir(&folder).unwrap();
    let mut paths: Vec<_> = entries.map(|it| it.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let before = fs::read_to_string(&path).unwrap();
        let after = run(&before);
        count += 1;
        if update {
            fs::write(&path, &after).unwrap();
        } else if before != after {
            let name = path.file_name().unwrap().display();
            wrong.push(format!("{name} gives:\n{after}"));
        }
    }
    assert!(count > 10, "only {count} scenarios in {}", folder.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn run(text: &str) -> String {
    let options = text.lines().find(|it| it.starts_with("options"));
    let mut world = world::World::new(options.unwrap_or("options"), 1);
    let mut output = String::new();
    for line in text.lines().filter(|it| !it.starts_with("->")) {
        output.push_str(line);
        output.push('\n');
        if line.is_empty() || line.starts_with('#') || line.starts_with("options") {
            continue;
        }
        for answer in world.run(line) {
            output.push_str(&format!("-> {answer}\n"));
        }
    }
    output
}
