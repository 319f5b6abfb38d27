//! The shape of the workspace: who may use whom, and which crates stay pure.
//!
//! Reads `cargo metadata` and the sources, so that a forbidden arrow or a clock in a pure
//! crate fails here and not in a review.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// The arrows of the design: a crate and what of ours it may use. What is not drawn does
/// not exist. `bench` and `tests` may use everything; nothing uses them.
const ARROWS: &[(&str, &[&str])] = &[
    ("tepui-proto", &[]),
    ("tepui-model", &["tepui-proto"]),
    ("tepui-auth", &["tepui-model"]),
    ("tepui-allocator", &["tepui-model"]),
    ("tepui-state", &["tepui-model"]),
    ("tepui-replication-node", &[]),
    ("tepui-replication", &["tepui-replication-node"]),
    ("tepui-server", &["tepui-proto", "tepui-auth"]),
    ("tepui-scheduler-api", &["tepui-model", "tepui-proto"]),
    (
        "tepui-master-machine",
        &[
            "tepui-model",
            "tepui-auth",
            "tepui-allocator",
            "tepui-state",
        ],
    ),
    ("tepui-agent-machine", &["tepui-model", "tepui-auth"]),
    ("tepui-containerizer", &["tepui-model"]),
    ("tepui-shim", &[]),
    (
        "tepui-master",
        &[
            "tepui-master-machine",
            "tepui-state",
            "tepui-replication",
            "tepui-server",
        ],
    ),
    (
        "tepui-agent",
        &["tepui-agent-machine", "tepui-containerizer", "tepui-server"],
    ),
    (
        "tepui-sim",
        &[
            "tepui-model",
            "tepui-allocator",
            "tepui-state",
            "tepui-replication-node",
            "tepui-master-machine",
            "tepui-agent-machine",
        ],
    ),
    (
        "tepui-cli",
        &[
            "tepui-model",
            "tepui-proto",
            "tepui-scheduler-api",
            "tepui-master",
            "tepui-agent",
        ],
    ),
];

/// May use everything.
const TOPS: &[&str] = &["tepui-bench", "tepui-tests"];

/// Crates without tokio, clock, I/O and randomness, and where their sources are.
const PURE: &[(&str, &str)] = &[
    ("tepui-model", "model"),
    ("tepui-auth", "auth"),
    ("tepui-allocator", "allocator"),
    ("tepui-state", "state"),
    ("tepui-replication-node", "replication/node"),
    ("tepui-master-machine", "master/machine"),
    ("tepui-agent-machine", "agent/machine"),
    // What runs it (arguments, threads, a clock) is beside its sources.
    ("tepui-sim", "sim"),
];

/// Crates that a pure crate may not even name as a dependency.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "rand",
    "fastrand",
    "getrandom",
    "uuid",
    "reqwest",
    "axum",
    "hyper",
    "rocksdb",
    "bollard",
    "rustix",
    "libc",
    "nix",
    "mio",
    "socket2",
    "async-std",
    "flume",
    "crossbeam-channel",
    "chrono",
    "jiff",
    "time",
];

/// Words that a pure crate's source may not contain.
const IMPURE_WORDS: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime::now",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::io::",
    "RandomState",
    "thread_rng",
    "println!",
    "eprintln!",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests live one level below the root")
        .to_owned()
}

/// Name of each package of the workspace with the names of its normal dependencies.
fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name").to_owned();
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let normal = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .map(str::to_owned)
            .collect();
        packages.insert(name, normal);
    }
    packages
}

#[test]
fn only_the_arrows_of_the_design_exist() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    let drawn: BTreeSet<&str> = ARROWS
        .iter()
        .map(|(name, _)| *name)
        .chain(TOPS.iter().copied())
        .collect();
    assert_eq!(ours, drawn, "every crate has its place in the drawing");
    let mut wrong = Vec::new();
    for (name, dependencies) in &packages {
        if TOPS.contains(&name.as_str()) {
            continue;
        }
        let allowed = ARROWS
            .iter()
            .find(|(known, _)| known == name)
            .map_or(&[][..], |(_, allowed)| *allowed);
        for dependency in dependencies.iter().filter(|it| ours.contains(it.as_str())) {
            if !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that the design does not draw: {wrong:?}"
    );
}

#[test]
fn pure_crates_name_no_impure_dependency() {
    let packages = packages();
    for (name, _) in PURE {
        let dependencies = &packages[*name];
        for impure in IMPURE_CRATES {
            assert!(
                !dependencies.contains(*impure),
                "{name} depends on {impure}"
            );
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder of sources can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn pure_crates_use_no_clock_file_network_or_chance() {
    let mut wrong = Vec::new();
    for (_, folder) in PURE {
        let mut files = Vec::new();
        sources(&root().join(folder).join("src"), &mut files);
        assert!(!files.is_empty(), "{folder} has sources");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source can be read");
            // Tests inside a pure crate may print and read scenario files.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap_or_default();
                for word in IMPURE_WORDS.iter().filter(|word| line.contains(**word)) {
                    wrong.push(format!("{}:{}: {word}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "impure words: {wrong:#?}");
}

#[test]
fn every_source_file_says_what_it_is() {
    let mut silent = Vec::new();
    let folders = packages();
    assert!(!folders.is_empty());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root()).expect("the root can be read") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|it| it.to_str())
            .unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            sources(&path, &mut files);
        }
    }
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source can be read");
        if !text.lines().take(3).any(|line| line.starts_with("//!")) {
            silent.push(file);
        }
    }
    assert!(
        silent.is_empty(),
        "files that do not open with //!: {silent:#?}"
    );
}
