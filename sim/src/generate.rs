//! Plans from a seed: the shape of a cluster, and what is done to it.

use crate::{
    clock::{MILLI, SECOND},
    network::{Host, Quality},
    plan::{Act, Fault, Limits, Part, Plan, Shape, Timing},
    random::Random,
    workload::Style,
};
use std::collections::BTreeSet;

/// What a plan is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A few seconds of computing for hundreds of them.
    Small,
    /// Five masters, a hundred agents, ten frameworks.
    Large,
}

impl Plan {
    /// A plan with faults of every kind.
    pub fn draw(seed: u64, size: Size) -> Plan {
        let mut random = Random::new(seed, "plan");
        let mut shape = shape(seed, size, &mut random);
        let mut parts = Vec::new();
        // Half of the faults of a run are of a few kinds, so that the rare ones meet themselves.
        let favourites: Vec<u64> = (0..3).map(|_| random.below(KINDS)).collect();
        let mean = *random.pick(&[SECOND / 2, SECOND, 2 * SECOND, 4 * SECOND]);
        let mut at = 2 * SECOND;
        loop {
            at += random.between(mean / 4, mean * 2);
            if at >= shape.length {
                break;
            }
            let kind = match random.chance(500) {
                true => *random.pick(&favourites),
                false => random.below(KINDS),
            };
            parts.push((at, Part::Fault(fault(kind, &shape, &mut random))));
        }
        let mut at = 3 * SECOND;
        loop {
            at += random.between(SECOND, 8 * SECOND);
            if at >= shape.length {
                break;
            }
            parts.push((at, Part::Act(act(&shape, &mut random))));
        }
        parts.sort_by_key(|(at, _)| *at);
        let leaps = parts
            .iter()
            .filter(|(_, it)| matches!(it, Part::Fault(Fault::Leap { .. })));
        shape.leaps = leaps.count() as u64;
        Plan { shape, parts }
    }
}

fn shape(seed: u64, size: Size, random: &mut Random) -> Shape {
    let (masters, agents, frameworks) = match size {
        Size::Small => (
            *random.pick(&[3, 3, 3, 5, 1]),
            random.between(2, 5) as usize,
            random.between(2, 4) as usize,
        ),
        Size::Large => (5, 100, 10),
    };
    let frameworks = (0..frameworks).map(|number| Style::draw(random, number));
    Shape {
        seed,
        masters,
        agents,
        frameworks: frameworks.collect(),
        leaps: 0,
        keepers: random.between(0, 3) as usize,
        length: random.between(20, 60) * SECOND,
        settle: 120 * SECOND,
        quality: Quality {
            delay_min: MILLI / 20,
            delay_max: *random.pick(&[MILLI / 2, 2 * MILLI, 20 * MILLI]),
            loss: *random.pick(&[0, 10, 50]),
            doubled: *random.pick(&[0, 10, 50]),
            late: *random.pick(&[0, 10, 50]),
        },
        sync: *random.pick(&[
            (MILLI / 5, 2 * MILLI),
            (MILLI, 10 * MILLI),
            (MILLI / 10, 50 * MILLI),
        ]),
        drift: *random.pick(&[0, 1_000_000, 100_000_000]),
        timing: Timing {
            offer_timeout: *random.pick(&[None, Some(5 * SECOND), Some(20 * SECOND)]),
            ..Timing::QUICK
        },
        limits: match random.chance(500) {
            true => Limits::NARROW,
            false => Limits {
                keep_log: *random.pick(&[0, 64 << 10, 16 << 20]),
                stream_queue: *random.pick(&[400, 32_768]),
                ..Limits::WIDE
            },
        },
    }
}

/// Kinds of faults.
const KINDS: u64 = 27;

fn host(shape: &Shape, random: &mut Random) -> Host {
    match random.below(2) {
        0 => Host::Master(random.index(shape.masters)),
        _ => Host::Agent(random.index(shape.agents)),
    }
}

fn group(random: &mut Random, all: &[Host]) -> (BTreeSet<Host>, BTreeSet<Host>) {
    let (mut from, mut to) = (BTreeSet::new(), BTreeSet::new());
    for host in all {
        match random.chance(500) {
            true => from.insert(*host),
            false => to.insert(*host),
        };
    }
    (from, to)
}

/// How long something lasts: mostly short against the time-outs, sometimes long.
fn lasts(random: &mut Random) -> u64 {
    match random.below(10) {
        0..=3 => random.between(50 * MILLI, SECOND),
        4..=7 => random.between(SECOND, 6 * SECOND),
        8 => random.between(6 * SECOND, 16 * SECOND),
        _ => random.between(16 * SECOND, 45 * SECOND),
    }
}

fn fault(kind: u64, shape: &Shape, random: &mut Random) -> Fault {
    let master = random.index(shape.masters);
    let agent = random.index(shape.agents);
    let framework = random.index(shape.frameworks.len());
    let masters: Vec<Host> = (0..shape.masters).map(Host::Master).collect();
    let lasts = lasts(random);
    match kind {
        0 | 1 => Fault::CrashMaster {
            master,
            lead: random.chance(700),
            power: random.chance(500),
            lasts,
        },
        2 => Fault::Pause {
            host: Host::Master(master),
            lead: random.chance(700),
            lasts: lasts.min(20 * SECOND),
        },
        3 => Fault::Pause {
            host: Host::Agent(agent),
            lead: false,
            lasts,
        },
        4 | 5 => Fault::CrashAgent { agent, lasts },
        6 => Fault::RebootAgent { agent, lasts },
        7 => Fault::WipeAgent { agent, lasts },
        8 => Fault::CrashFramework { framework, lasts },
        9 => Fault::TakeOver { framework },
        10 => Fault::SlowReader { framework, lasts },
        11 => {
            let (from, to) = group(random, &masters);
            Fault::Cut {
                from,
                to,
                both_ways: random.chance(500),
                lasts,
            }
        }
        12 => {
            let mut all = masters;
            all.extend((0..shape.agents).map(Host::Agent));
            all.extend((0..shape.frameworks.len()).map(Host::Framework));
            let (from, to) = group(random, &all);
            Fault::Cut {
                from,
                to,
                both_ways: random.chance(700),
                lasts,
            }
        }
        13 | 14 => Fault::CutLeader {
            clients: random.chance(400),
            one_way: random.chance(300),
            lasts,
        },
        15 => {
            // One agent away from everybody, or from everybody's point of view.
            let agents: BTreeSet<Host> = [Host::Agent(agent)].into();
            let masters: BTreeSet<Host> = masters.into_iter().collect();
            let (from, to) = match random.chance(500) {
                true => (agents, masters),
                false => (masters, agents),
            };
            Fault::Cut {
                from,
                to,
                both_ways: random.chance(500),
                lasts,
            }
        }
        16 => Fault::Break {
            host: host(shape, random),
        },
        17 => Fault::SlowDisk {
            master,
            factor: random.between(5, 200),
            lasts,
        },
        18 => Fault::FailSync { master, lasts },
        19 => Fault::FullDisk {
            host: host(shape, random),
            lasts,
        },
        20 => Fault::LoseDisk { master, lasts },
        21 => match random.below(3) {
            0 => Fault::Leap {
                host: Host::Master(master),
                by: random.between(SECOND / 10, SECOND),
            },
            1 => Fault::Drift {
                host: host(shape, random),
                drift: random.below(2 * shape.drift.unsigned_abs() + 1) as i64 - shape.drift,
            },
            _ => Fault::WallClock {
                host: host(shape, random),
                error: random.below(20_000_000) as i64 - 10_000_000,
            },
        },
        22 => Fault::Transfer { to: master },
        24 => Fault::Nonsense { agent },
        26 => Fault::Panic,
        25 => Fault::Upgrade {
            master,
            lasts: lasts.min(SECOND),
        },
        _ => Fault::StepDown,
    }
}

fn act(shape: &Shape, random: &mut Random) -> Act {
    let roles = ["a", "b", "c"];
    let role = (*random.pick(&roles)).to_owned();
    let agent = random.index(shape.agents);
    let framework = random.index(shape.frameworks.len());
    match random.below(23) {
        20 | 21 => Act::Reserve { agent, role },
        22 => Act::Unreserve { agent, role },
        0..=3 => Act::Quota {
            role,
            cpus: random.chance(600).then(|| random.between(1, 12)),
            force: random.chance(700),
        },
        4 | 5 => Act::Weight {
            role,
            micro: random.between(1, 5) * 1_000_000,
        },
        6 => Act::Drain {
            agent,
            mark_gone: random.chance(200),
        },
        7 => Act::Deactivate { agent },
        8..=10 => Act::Reactivate { agent },
        11 if random.chance(300) => Act::Gone { agent },
        12 if random.chance(300) => Act::Teardown { framework },
        13 => Act::RaiseVersion,
        16 | 17 => Act::Schedule {
            agents: (0..shape.agents).filter(|_| random.chance(300)).collect(),
        },
        18 if random.chance(500) => Act::MachineDown { agent },
        18 | 19 => Act::MachineUp { agent },
        _ => Act::Kill { framework },
    }
}
