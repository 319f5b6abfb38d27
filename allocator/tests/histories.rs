//! Random histories: the allocator and its oracle perform the same commands and must agree after
//! each one, in what they give, in the order of clients and in what everybody holds.
//!
//! A history that fails is cut down to the commands that matter and printed as a scenario.
//! `HISTORIES=n` runs n of them instead, `SEED=n` starts elsewhere.

mod oracle;
mod world;

use std::panic::{self, AssertUnwindSafe};
use world::World;

const HISTORIES: u64 = 500;
const STEPS: usize = 200;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    fn some(&mut self, all: &[&str], one_in: u64) -> Vec<String> {
        let picked: Vec<&&str> = all.iter().filter(|_| self.one_in(one_in)).collect();
        picked.into_iter().map(|it| (*it).to_owned()).collect()
    }
}

const ROLES: &[&str] = &["*", "a", "a/b", "a/c", "a/b/e", "d", "d2"];
const AGENTS: &[&str] = &["S1", "S2", "S3", "S4", "S5", "S6"];
const FRAMEWORKS: &[&str] = &["F1", "F2", "F3", "F4", "F5"];
const TOTALS: &[&str] = &[
    "cpus:4;mem:1024",
    "cpus:4;mem:1024;ports:[31000-32000]",
    "cpus:2;mem:4096;disk:1000",
    "cpus:8;mem:512;gpus:2",
    "cpus:8;mem:512",
    "cpus:1.5;mem:100;cpus(a):2;mem(a):300",
    "cpus(a):1;cpus(a>a/b):2;mem(d):500;cpus:1",
    "cpus:2;cpus!revocable:4;mem:256",
    "cpus:3;mem:256;disk(a)!shared=v1:50;disk(a):100",
    "cpus:3;mem:256;disk(a)!shared=v1:50;disk(a/b)!shared=v2:20;disk(d)!volume=v3:10",
    "cpus:2;mem:64;disk!mount=/m1:100;disk!mount=/m2:300;licences:7",
    "cpus:0.005;mem:8",
];
const CAPABILITIES: &[&str] = &[
    "REVOCABLE_RESOURCES",
    "GPU_RESOURCES",
    "SHARED_RESOURCES",
    "MULTI_ROLE",
    "RESERVATION_REFINEMENT",
    "REGION_AWARE",
];
const CONSTRAINTS: &[&str] = &[
    "rack:is:r1",
    "rack:is-not:r1",
    "rack:exists",
    "rack:not-exists",
    "HOSTNAME:matches:h[12]",
    "rack:matches:r[0-9]&cores:is:x",
    "ZONE:matches-not:z1",
    "REGION:is:r1",
    "rack:matches:(",
];
const AMOUNTS: &[&str] = &[
    "cpus:1",
    "cpus:0.5;mem:100",
    "mem:200",
    "cpus:2;mem:64;disk:50",
];

fn command(random: &mut Random) -> String {
    let (agent, framework) = (random.pick(AGENTS), random.pick(FRAMEWORKS));
    let (role, amount) = (random.pick(ROLES), random.pick(AMOUNTS));
    let (holding, total) = (random.below(1000), random.pick(TOTALS));
    match random.below(100) {
        0..16 => "allocate".to_owned(),
        16..28 => format!("allocate budget={}", random.below(20)),
        28..43 => format!(
            "decline ~{holding} {}",
            random.pick(&["0", "0.5", "1", "2", "5", "9"])
        ),
        43..48 => format!("return ~{holding}"),
        48..54 => format!("use ~{holding} {amount} {}", random.pick(&["1", "3", "20"])),
        54..57 => format!(
            "reserve ~{holding} {amount} {}",
            random.pick(&["a", "a/b", "d"])
        ),
        57..63 => format!("tick {}", random.pick(&["0.3", "1", "2.5", "6"])),
        63..68 => set_agent(random, agent, total),
        70..71 => format!("remove-agent {agent}"),
        68..70 | 71..72 => format!("total {agent} {total}"),
        72..74 => format!("activate-agent {agent}"),
        74..75 => format!("deactivate-agent {agent}"),
        75..82 => set_framework(random, framework),
        82..83 => format!("remove-framework {framework}"),
        83..84 => format!("deactivate {framework}"),
        84..85 => format!("activate {framework}"),
        85..86 => format!(
            "{} {framework}",
            random.pick(&["pause", "resume", "resume"])
        ),
        86..87 => match random.below(3) {
            0 => format!("{} {framework}", random.pick(&["dormant", "awake"])),
            1 => format!("unclaim {agent}"),
            _ => format!(
                "claim {agent} {framework} {role} {}",
                random.pick(&["1", "4", "30"])
            ),
        },
        87..88 => format!("suppress {framework} {}", random.some(ROLES, 4).join(" ")),
        88..91 => format!("revive {framework} {}", random.some(ROLES, 4).join(" ")),
        91..93 => format!("hold {framework} {agent} {role} {total}"),
        93..95 => format!(
            "weight {role} {}",
            random.pick(&["0.000001", "0.5", "1", "2", "1000"])
        ),
        95..97 => set_quota(random),
        97..98 => {
            let hosts = random.pick(&["off", "off", "h1,h2", "S1,S2,S3,S4,S5,S6"]);
            format!("whitelist {hosts}")
        }
        98..99 => "request".to_owned(),
        _ => "allocate".to_owned(),
    }
}

fn set_agent(random: &mut Random, agent: &str, total: &str) -> String {
    let mut line = format!("agent {agent} {total}");
    if random.one_in(3) {
        line += &format!(" host=h{}", random.below(4));
    }
    if random.one_in(2) {
        line += &format!(
            " attributes={}",
            random.pick(&["rack:r1", "rack:r2;cores:8", "rack:3"])
        );
    }
    if random.one_in(4) {
        line += &format!(" domain={}", random.pick(&["r1/z1", "r1/z2", "r2/z1"]));
    }
    if random.one_in(8) {
        line += &format!(" can={}", random.pick(&["MULTI_ROLE", "HIERARCHICAL_ROLE"]));
    }
    if random.one_in(8) {
        line += " inactive";
    }
    line
}

fn set_framework(random: &mut Random, framework: &str) -> String {
    let mut roles = random.some(ROLES, 3);
    if roles.is_empty() {
        roles.push("a".to_owned());
    }
    let mut line = format!("framework {framework} roles={}", roles.join(","));
    let can = random.some(CAPABILITIES, 2);
    if !can.is_empty() {
        line += &format!(" can={}", can.join(","));
    }
    let suppressed = random.some(ROLES, 9);
    if !suppressed.is_empty() {
        line += &format!(" suppressed={}", suppressed.join(","));
    }
    for role in roles {
        if random.one_in(6) {
            let minimum = random.pick(&["none", "disk:1", "cpus:1|mem:500", "gpus:1|licences:3"]);
            line += &format!(" min={role}:{minimum}");
        }
        while random.one_in(8) {
            line += &format!(" constraint={role}|{}", random.pick(CONSTRAINTS));
        }
    }
    if random.one_in(8) {
        line += " inactive";
    }
    line
}

fn set_quota(random: &mut Random) -> String {
    let role = random.pick(&["a", "a", "d", "*", "d2", "a/b", "a/c", "a/b/e"]);
    let quota = random.pick(&[
        "none",
        "none",
        "guarantees=cpus:3;mem:300",
        "guarantees=cpus:20;disk:250 limits=cpus:20;disk:500",
        "limits=cpus:2",
        "limits=cpus:0;gpus:1",
        "guarantees=mem:600;licences:3 limits=mem:2000;disk:60",
        "guarantees=cpus:2",
        "guarantees=cpus:6;mem:500 limits=cpus:7",
    ]);
    format!("quota {role} {quota}")
}

fn options(random: &mut Random) -> String {
    let mut line = "options".to_owned();
    if random.one_in(4) {
        line += &format!(" min={}", random.pick(&["cpus:1", "disk:10|cpus:0.1"]));
    }
    if random.one_in(3) {
        line += " region=r1";
    }
    if random.one_in(3) {
        line += " gpu_filter=off";
    }
    if random.one_in(4) {
        line += " excluded=gpus,mem";
    }
    if random.one_in(5) {
        line += " order=id";
    }
    line
}

/// Where the two disagree, and all that happened until then and why, as a scenario.
struct Failure {
    at: usize,
    scenario: String,
}

/// Runs the commands up to the first on which the two disagree: the number of allotments.
fn run(options: &str, commands: &[String]) -> Result<usize, Failure> {
    let mut world = World::new(options, 7);
    let mut given = 0;
    let mut scenario = format!("{options}\n");
    for (at, line) in commands.iter().enumerate() {
        let line = match line.split_once('~') {
            None => line.clone(),
            Some((before, rest)) => {
                let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let count = world.holdings().len();
                if count == 0 {
                    continue;
                }
                let at = number.parse::<usize>().unwrap() % count;
                let name = world.holdings().nth(at).unwrap().to_owned();
                format!("{before}{name} {rest}")
            }
        };
        let result = panic::catch_unwind(AssertUnwindSafe(|| world.run(&line)));
        scenario += &format!("{line}\n");
        match result {
            Ok(answer) => {
                given += answer.iter().filter(|it| it.contains(" gets of ")).count();
                scenario.extend(answer.iter().map(|it| format!("-> {it}\n")));
            }
            Err(error) => {
                let text = error.downcast_ref::<String>().cloned();
                let text = text.or_else(|| error.downcast_ref::<&str>().map(|it| (*it).to_owned()));
                scenario += &text.unwrap_or_default();
                return Err(Failure { at, scenario });
            }
        }
    }
    Ok(given)
}

/// Leaves out commands while the history still fails.
fn shrink(options: &str, mut commands: Vec<String>) -> Vec<String> {
    let mut chunk = commands.len() / 2;
    while chunk > 0 {
        let mut from = 0;
        while from < commands.len() {
            let mut fewer = commands.clone();
            fewer.drain(from..(from + chunk).min(commands.len()));
            match run(options, &fewer) {
                Ok(_) => from += chunk,
                Err(failure) => {
                    fewer.truncate(failure.at + 1);
                    commands = fewer;
                }
            }
        }
        chunk /= 2;
    }
    commands
}

#[test]
fn the_oracle_agrees_after_every_step_of_random_histories() {
    let number = |name: &str, default| {
        let text = std::env::var_os(name);
        let text = text.map(|it| it.into_string().expect(name));
        text.map_or(default, |it| it.parse().expect(name))
    };
    let (histories, first) = (number("HISTORIES", HISTORIES), number("SEED", 0));
    // Panics are expected while a failing history is cut down.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut given = 0;
    let mut failure = None;
    for seed in first..first + histories {
        let mut random = Random(seed);
        let options = options(&mut random);
        // Quotas concern everything: a third of the histories lives with them throughout.
        let quotas = if random.one_in(3) { 3 } else { 0 };
        let mut commands: Vec<String> = (0..quotas).map(|_| set_quota(&mut random)).collect();
        commands.extend((quotas..STEPS).map(|_| command(&mut random)));
        match run(&options, &commands) {
            Ok(allotments) => given += allotments,
            Err(it) => {
                let commands = shrink(&options, commands[..=it.at].to_vec());
                let shrunk = run(&options, &commands).map_err(|it| it.scenario);
                failure = Some(format!(
                    "seed {seed}:\n{}",
                    shrunk.expect_err("still fails")
                ));
                break;
            }
        }
    }
    panic::set_hook(hook);
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    // Histories in which nothing is ever given would prove nothing.
    assert!(given as u64 > 10 * histories, "only {given} allotments");
}
