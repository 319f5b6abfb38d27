//! `tepui-bench replay` as others use it: files in, lines out, a partner on a pipe; and what it
//! gives beside dominant resource fairness computed here from nothing but the papers.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn replay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tepui-bench"));
    command.args(["replay", "--agent-order=id"]);
    command
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay")
}

/// Every `.in` gives its `.out`; `TEPUI_GOLDEN=write` writes those anew.
#[test]
fn golden_files() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "in") {
            continue;
        }
        let output = replay().arg(&path).output().unwrap();
        assert!(output.status.success(), "{path:?}: {output:?}");
        let expected = path.with_extension("out");
        if std::env::var_os("TEPUI_GOLDEN").is_some() {
            std::fs::write(&expected, &output.stdout).unwrap();
        }
        let given = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            given,
            std::fs::read_to_string(&expected).unwrap(),
            "{path:?}"
        );
        count += 1;
    }
    assert!(count >= 2);
}

/// A partner that speaks over pipes and waits for each answer.
struct Partner {
    input: std::process::ChildStdin,
    output: BufReader<std::process::ChildStdout>,
    child: std::process::Child,
}

impl Partner {
    fn start() -> Partner {
        let mut command = replay();
        command
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Partner {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn say(&mut self, line: &Value) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn cycle(&mut self) -> Vec<Value> {
        self.say(&json!({"op": "cycle", "advance_s": 1}));
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        answer["allotments"].as_array().expect(&line).clone()
    }

    fn end(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

/// Hierarchical dominant resource fairness, written for this test: shares as fractions, summed
/// over everything that is held whenever one is needed. Sections 4 of the DRF paper and of the
/// H-DRF paper; a role that has both frameworks and roles below it has its frameworks in a role
/// `.` of their own (behaviour of Mesos).
#[derive(Default)]
struct Fairness {
    total: [u128; 2],
    weights: BTreeMap<String, u128>,
    /// Roles by framework.
    frameworks: BTreeMap<String, String>,
    /// By framework: cpus and memory in thousandths.
    held: BTreeMap<String, [u128; 2]>,
}

impl Fairness {
    /// From the root to the framework.
    fn path(&self, framework: &str) -> Vec<String> {
        let role = &self.frameworks[framework];
        let mut path: Vec<String> = Vec::new();
        for part in role.split('/') {
            let parent = path.last().map_or(String::new(), |it| format!("{it}/"));
            path.push(format!("{parent}{part}"));
        }
        let is_inner = |it: &String| it.starts_with(&format!("{role}/"));
        if self.frameworks.values().any(is_inner) {
            path.push(format!("{role}/."));
        }
        path.push(format!("{role}//{framework}"));
        path
    }

    /// The weighted dominant share of a node: as a numerator over the product of all denominators.
    fn share(&self, node: &str) -> f64 {
        let mut sum = [0; 2];
        for (framework, held) in &self.held {
            if self.path(framework).iter().any(|it| it == node) {
                sum[0] += held[0];
                sum[1] += held[1];
            }
        }
        let share = |at: usize| sum[at] as f64 / self.total[at] as f64;
        let weight = self.weights.get(node).copied().unwrap_or(1);
        f64::max(share(0), share(1)) / weight as f64
    }

    /// Whether somebody else should have been served, who would have taken it.
    fn complaint(&self, served: &str, wanting: &[&String]) -> Option<String> {
        let path = self.path(served);
        for other in wanting {
            let theirs = self.path(other);
            let fork = path.iter().zip(&theirs).position(|(a, b)| a != b)?;
            let (ours, their) = (self.share(&path[fork]), self.share(&theirs[fork]));
            if their < ours - 1e-9 {
                let (one, two) = (&path[fork], &theirs[fork]);
                return Some(format!(
                    "{one} has {ours} and was served before {two} with {their}"
                ));
            }
        }
        None
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Random clusters; each agent goes to a framework than which nobody who wants something has less,
/// at every level of the roles, at the moment at which it is given.
#[test]
fn whoever_is_served_has_least_at_every_level() {
    for seed in 0..12 {
        let mut random = Random(seed * 7_919 + 1);
        let mut fairness = Fairness::default();
        let mut partner = Partner::start();
        let roles = ["a", "b", "b/x", "b/y", "c/z", "c/w/v"];
        for role in roles {
            if random.below(2) == 0 {
                let weight = 1 + random.below(4);
                partner.say(&json!({"op": "weight", "role": role, "weight": weight}));
                fairness.weights.insert(role.to_owned(), weight.into());
            }
        }
        for at in 0..3 + random.below(8) {
            let (id, role) = (format!("f{at}"), roles[random.below(6) as usize]);
            partner.say(&json!({"op": "framework", "id": id, "roles": [role]}));
            fairness.held.insert(id.clone(), [0; 2]);
            fairness.frameworks.insert(id, role.to_owned());
        }
        let agents = 5 + random.below(30);
        for at in 0..agents {
            let (cpus, mem) = (1 + random.below(16), 64 * (1 + random.below(64)));
            let resources = json!({"cpus": cpus, "mem": mem});
            let id = format!("s{at:03}");
            partner.say(&json!({"op": "agent", "id": id, "resources": resources}));
            fairness.total[0] += u128::from(cpus) * 1000;
            fairness.total[1] += u128::from(mem) * 1000;
        }
        let mut suppressed: Option<String> = None;
        for _ in 0..12 {
            let given = partner.cycle();
            let mut last = String::new();
            for it in &given {
                let text = |name: &str| it[name].as_str().unwrap().to_owned();
                let (agent, framework) = (text("agent"), text("framework"));
                assert!(last < agent, "agents are not in the order of their ids");
                last = agent;
                let wanting = fairness.frameworks.keys();
                let wanting: Vec<_> = wanting
                    .filter(|it| suppressed.as_ref() != Some(it))
                    .collect();
                assert!(wanting.contains(&&framework), "{framework} wants nothing");
                if let Some(complaint) = fairness.complaint(&framework, &wanting) {
                    panic!("seed {seed}: {complaint}");
                }
                let held = fairness.held.get_mut(&framework).unwrap();
                for (at, name) in ["cpus", "mem"].into_iter().enumerate() {
                    let amount = it["resources"][name].as_f64().unwrap_or(0.0);
                    held[at] += (amount * 1000.0).round() as u128;
                }
            }
            // Some is declined without a filter, some used in part, the rest kept on offer.
            for it in &given {
                let part = |op: &str| {
                    json!({"op": op, "agent": it["agent"], "framework": it["framework"],
                        "role": it["role"]})
                };
                let cpus = it["resources"]["cpus"].as_f64().unwrap_or(0.0);
                let mem = it["resources"]["mem"].as_f64().unwrap_or(0.0);
                let framework = it["framework"].as_str().unwrap();
                let held = fairness.held.get_mut(framework).unwrap();
                let mut give_back = |cpus: f64, mem: f64| {
                    held[0] -= (cpus * 1000.0).round() as u128;
                    held[1] -= (mem * 1000.0).round() as u128;
                };
                match random.below(3) {
                    0 => {
                        partner.say(&part("decline"));
                        give_back(cpus, mem);
                    }
                    1 => {
                        let used = f64::min(0.5, cpus);
                        let mut line = part("use");
                        line["resources"] = json!({"cpus": used});
                        partner.say(&line);
                        give_back(cpus - used, mem);
                    }
                    _ => {}
                }
            }
            if let Some(it) = suppressed.take() {
                let role = &fairness.frameworks[&it];
                partner.say(&json!({"op": "revive", "framework": it, "role": role}));
            } else if random.below(2) == 0 && fairness.frameworks.len() > 1 {
                let at = random.below(fairness.frameworks.len() as u64) as usize;
                let (it, role) = fairness.frameworks.iter().nth(at).unwrap();
                partner.say(&json!({"op": "suppress", "framework": it, "role": role}));
                suppressed = Some(it.clone());
            }
        }
        partner.end();
    }
}
