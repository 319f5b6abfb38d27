//! What went wrong in practice, each by name: a plan that leads there, and what must hold at its
//! end beside everything that the checkers watch all the time.

use crate::{
    checkers::tasks::Asked,
    clock::{MILLI, SECOND},
    network::Host,
    plan::{Act, Fault, Limits, Part, Plan, Shape},
    random::Random,
    workload::{Kind, Style},
    world::{Looking, Outcome, World, run_checked},
};
use std::collections::BTreeSet;
use tepui_model::wire::TaskState;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What must hold.
    pub invariant: &'static str,
    plan: fn(u64) -> Plan,
    check: fn(&World) -> Result<(), String>,
}

/// Runs a scenario under a seed.
pub fn run(scenario: &Scenario, seed: u64, looking: Looking) -> Outcome {
    run_checked((scenario.plan)(seed), looking, scenario.check)
}

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "unexpected_messages",
        invariant: "no message of an agent or framework stops the leader, whatever it says",
        plan: unexpected_messages,
        check: |world| leaders(world, 1).and(works(world, 2, 40)),
    },
    Scenario {
        name: "crashed_framework",
        invariant: "a framework that crashes takes nobody down",
        plan: crashed_framework,
        check: |world| works(world, 0, 60),
    },
    Scenario {
        name: "stuck_election",
        invariant: "after any partition somebody leads within two election time-outs",
        plan: stuck_election,
        check: |world| works(world, 0, 10),
    },
    Scenario {
        name: "slow_reader",
        invariant: "a framework that does not read stalls neither the master nor the others",
        plan: slow_reader,
        check: |world| works(world, 1, 60),
    },
    Scenario {
        name: "lost_kill",
        invariant: "a KILL that was taken ends its task, though leaders and links die",
        plan: lost_kill,
        check: |world| {
            let killed = world.core.checkers.updates.count(TaskState::TaskKilled);
            at_least(killed, 5, "tasks killed")
        },
    },
    Scenario {
        name: "agent_crashes",
        invariant: "crashes of an agent leave no container behind and double none",
        plan: agent_crashes,
        check: |world| works(world, 0, 40),
    },
    Scenario {
        name: "persistent_data",
        invariant: "persistent data is destroyed by DESTROY alone",
        plan: persistent_data,
        check: |world| works(world, 1, 5),
    },
    Scenario {
        name: "slow_operations",
        invariant: "an agent tells of the end of an operation until its framework has heard it",
        plan: slow_operations,
        check: |world| works(world, 0, 20),
    },
    Scenario {
        name: "slow_agent",
        invariant: "tasks are not called lost while their agent is only slow",
        plan: slow_agent,
        check: |world| {
            let updates = &world.core.checkers.updates;
            let lost = [
                TaskState::TaskLost,
                TaskState::TaskUnreachable,
                TaskState::TaskGone,
            ];
            let lost: u64 = lost.into_iter().map(|it| updates.count(it)).sum();
            match lost {
                0 => works(world, 0, 40),
                lost => Err(format!("{lost} tasks were called lost")),
            }
        },
    },
    Scenario {
        name: "dead_tasks",
        invariant: "a new leader carries no more of dead tasks than the rings hold",
        plan: dead_tasks,
        check: no_dead_tasks,
    },
    Scenario {
        name: "overcommit",
        invariant: "neither failovers nor executors nor shared volumes make resources twice",
        plan: overcommit,
        check: |world| {
            let plans = || world.core.checkers.tasks.iter().map(|it| &it.plan);
            let lived = |id: &str| world.core.checkers.lives.get(id).is_some();
            let of = |id: &str| {
                plans()
                    .filter(|it| it.volume.as_deref() == Some(id))
                    .count()
            };
            let executors = plans().filter(|it| it.executor.is_some() && lived(&it.id));
            let shared = plans().filter_map(|it| it.volume.as_deref());
            works(world, 0, 20)
                .and(at_least(
                    executors.count() as u64,
                    10,
                    "tasks under executors ran",
                ))
                .and(at_least(
                    shared.map(of).max().unwrap_or(0) as u64,
                    2,
                    "tasks on a volume",
                ))
        },
    },
    Scenario {
        name: "returning_agents",
        invariant: "an agent that was unreachable comes back with all that it has",
        plan: returning_agents,
        check: |world| {
            let lived = |id: &str| world.core.checkers.lives.get(id).is_some();
            let tasks = world.core.checkers.tasks.iter().map(|it| &it.plan);
            let executors = tasks.filter(|it| it.executor.is_some() && lived(&it.id));
            let executors = executors.count() as u64;
            works(world, 0, 20).and(at_least(executors, 10, "tasks under executors ran"))
        },
    },
    Scenario {
        name: "maintenance",
        invariant: "machines that are down run and are offered nothing, and come back",
        plan: maintenance,
        check: |world| {
            let inverse = world.core.checkers.offers.inverse;
            at_least(inverse, 5, "inverse offers").and(works(world, 0, 20))
        },
    },
    Scenario {
        name: "registers",
        invariant: "variables are linearizable, and leases live as long as they say",
        plan: registers,
        check: |world| {
            let answered = world.core.checkers.registers.answered();
            at_least(answered as u64, 200, "calls to the state service answered")
        },
    },
    Scenario {
        name: "restored_backup",
        invariant: "what runs is adopted by a cluster that is restored from a backup",
        plan: restored_backup,
        check: |world| {
            let stays = |it: &&Asked| it.at < 19 * SECOND && it.plan.runs_for.is_none();
            let tasks = || world.core.checkers.tasks.iter().filter(stays);
            let killed = |id: &str| {
                let life = world.core.checkers.lives.get(id);
                life.is_some_and(|it| it.ended.is_some_and(|(_, killed)| killed))
            };
            if let Some(task) = tasks().find(|it| killed(&it.plan.id) && !it.kill) {
                return Err(format!(
                    "{} was killed and nobody asked for that",
                    task.plan.id
                ));
            }
            let masters = world.masters.iter().filter_map(|it| it.process.as_ref());
            let incarnation = masters.map(|it| it.committed.cluster().incarnation).min();
            match incarnation {
                Some(2) => at_least(tasks().count() as u64, 8, "tasks were to stay")
                    .and(works(world, 0, 40)),
                other => Err(format!("the cluster is in incarnation {other:?}")),
            }
        },
    },
    Scenario {
        name: "lost_ends",
        invariant: "a framework hears of the end of every task, though only a lost agent knew",
        plan: lost_ends,
        check: |world| works(world, 0, 20),
    },
    Scenario {
        name: "old_leader",
        invariant: "an agent that starts again obeys no leader older than it has seen",
        plan: old_leader,
        check: |world| works(world, 0, 10),
    },
    Scenario {
        name: "old_registrations",
        invariant: "a registration that waited on a link for long says nothing of today",
        plan: old_registrations,
        check: |world| works(world, 0, 10),
    },
    Scenario {
        name: "panics",
        invariant: "a panic of the machine costs one connection, and nothing that was decided",
        plan: panics,
        check: |world| leaders(world, 1).and(works(world, 0, 60)),
    },
    Scenario {
        name: "quota",
        invariant: "no role passes its quota, and none starves below it",
        plan: quota,
        check: |world| works(world, 0, 10).and(works(world, 1, 10)),
    },
    Scenario {
        name: "refused_offers",
        invariant: "what a framework refuses is not offered to it again before its time",
        plan: |seed| {
            let frameworks = vec![Style::batch(), Style::of(Kind::Picky)];
            plan(shape(seed, frameworks), Vec::new())
        },
        check: |world| works(world, 0, 40),
    },
    Scenario {
        name: "never_declines",
        invariant: "a framework that never declines does not starve the rest",
        plan: never_declines,
        check: |world| works(world, 1, 20),
    },
    Scenario {
        name: "hoarders",
        invariant: "offers that lie are taken back when somebody waits for them, without a time-out",
        plan: hoarders,
        check: |world| works_late(world, 1, 20 * SECOND, 20),
    },
    Scenario {
        name: "rough_manners",
        invariant: "what nobody was offered is not launched, and who wants offers again gets some",
        plan: rough_manners,
        check: |world| {
            let undisturbed = works_late(world, 1, 25 * SECOND, 5);
            works(world, 0, 15)
                .and(undisturbed)
                .and(works(world, 2, 15))
        },
    },
    Scenario {
        name: "drains",
        invariant: "an agent that is drained becomes empty, and one that is taken back works again",
        plan: drains,
        check: |world| works(world, 0, 40).and(works_late(world, 0, 45 * SECOND, 20)),
    },
    Scenario {
        name: "withdrawn_agents",
        invariant: "an agent that was deactivated stays so until it is reactivated, whatever happens",
        plan: withdrawn_agents,
        check: |world| works(world, 0, 20),
    },
    Scenario {
        name: "weights",
        invariant: "roles get what their weights say, whoever leads",
        plan: weights,
        check: |world| {
            let late = |framework| ran_since(world, framework, 30 * SECOND);
            let (light, heavy) = (late(0), late(1));
            match light > 10 && heavy * 10 >= light * 15 {
                true => Ok(()),
                false => Err(format!(
                    "a weight of 3 ran {heavy} tasks, one of 1 ran {light}"
                )),
            }
        },
    },
    Scenario {
        name: "failover_timeout",
        invariant: "a framework is removed after its failover_timeout and not before, across leaders",
        plan: failover_timeout,
        check: failed_over,
    },
    Scenario {
        name: "mass_return",
        invariant: "all agents come back to a new leader, at the pace that it bears",
        plan: mass_return,
        check: |world| works(world, 0, 20),
    },
    Scenario {
        name: "members_replaced",
        invariant: "members are replaced one by one until none of the first is left, under load",
        plan: members_replaced,
        check: nobody_of_the_first,
    },
    Scenario {
        name: "full_disks",
        invariant: "a full disk stops a master or an agent, and loses nothing",
        plan: full_disks,
        check: |world| works(world, 0, 20),
    },
    Scenario {
        name: "upgrade",
        invariant: "masters are upgraded one by one, the cluster's version rises once all can",
        plan: upgrade,
        check: |world| {
            let state = world.masters.iter().filter_map(|it| it.process.as_ref());
            match state.map(|it| it.committed.cluster_version()).min() {
                Some(tepui_state::SYNTHETIC_VERSION) => Ok(()),
                other => Err(format!("the cluster is at version {other:?}")),
            }
        },
    },
    Scenario {
        name: "forgotten_agents",
        invariant: "agents that are there are never forgotten, however long the cluster lives",
        plan: |seed| {
            let mut shape = shape(seed, vec![Style::service(1)]);
            shape.agents = 2;
            // Agents are collected every quarter of an hour.
            shape.length = 920 * SECOND;
            plan(shape, Vec::new())
        },
        check: |world| works_late(world, 0, 0, 20),
    },
];

// ------------------------------------------------------------ what must hold at the end

fn at_least(found: u64, least: u64, what: &str) -> Result<(), String> {
    match found >= least {
        true => Ok(()),
        false => Err(format!("only {found} {what}, at least {least} were to be")),
    }
}

/// A framework got its work done meanwhile.
fn works(world: &World, framework: usize, least: u64) -> Result<(), String> {
    works_late(world, framework, 0, least)
}

/// The same of what it asked for after a time.
fn works_late(world: &World, framework: usize, since: u64, least: u64) -> Result<(), String> {
    let ran = ran_since(world, framework, since);
    at_least(ran, least, &format!("tasks of framework {framework} ran"))
}

/// Tasks of a framework that were asked for after a time and ran.
fn ran_since(world: &World, framework: usize, since: u64) -> u64 {
    let checkers = &world.core.checkers;
    let asked = checkers.tasks.iter();
    let asked = asked.filter(|it| it.plan.framework == framework && it.at >= since);
    let ran = asked.filter(|it| checkers.lives.get(&it.plan.id).is_some());
    ran.count() as u64
}

fn leaders(world: &World, most: usize) -> Result<(), String> {
    let terms = world.core.checkers.history.terms();
    match terms <= most {
        true => Ok(()),
        false => Err(format!(
            "{terms} terms, and nothing was wrong with a leader"
        )),
    }
}

fn no_dead_tasks(world: &World) -> Result<(), String> {
    let leader = world
        .leader()
        .and_then(|it| world.masters[it].process.as_ref());
    let Some(process) = leader else {
        return Err("nobody leads".to_owned());
    };
    let ended = process
        .committed
        .tasks()
        .filter(|(_, _, row)| !row.unreachable && tepui_state::is_terminal(row.state))
        .count();
    match ended {
        0 => works(world, 0, 200),
        ended => Err(format!(
            "{ended} tasks that ended and were acknowledged are kept"
        )),
    }
}

fn failed_over(world: &World) -> Result<(), String> {
    let removed = |number: usize| {
        let asked = world.core.checkers.tasks.iter();
        asked
            .filter(|it| it.plan.framework == number)
            .any(|it| world.core.checkers.tasks.is_removed(&it.framework_id))
    };
    match (removed(0), removed(1)) {
        (false, true) => Ok(()),
        (true, _) => Err("framework 0 came back in time and was removed".to_owned()),
        (_, false) => Err("framework 1 was away for too long and was not removed".to_owned()),
    }
}

fn nobody_of_the_first(world: &World) -> Result<(), String> {
    let first: BTreeSet<u64> = (1..=world.masters.len() as u64).collect();
    let left = world
        .masters
        .iter()
        .filter(|it| first.contains(&it.body.id));
    match left.count() {
        0 => works(world, 0, 60),
        left => Err(format!("{left} of the first members are left")),
    }
}

// ------------------------------------------------------------ how to get there

/// Whoever leads then dies, with what its disk had not synced when the `power` fails.
fn crash_leader(at: u64, power: bool, lasts: u64) -> (u64, Part) {
    fault(
        at,
        Fault::CrashMaster {
            master: 0,
            lead: true,
            power,
            lasts,
        },
    )
}

fn fault(at: u64, fault: Fault) -> (u64, Part) {
    (at, Part::Fault(fault))
}

fn shape(seed: u64, frameworks: Vec<Style>) -> Shape {
    Shape {
        frameworks,
        length: 40 * SECOND,
        ..Shape::calm(seed)
    }
}

fn plan(shape: Shape, mut parts: Vec<(u64, Part)>) -> Plan {
    parts.sort_by_key(|(at, _)| *at);
    Plan { shape, parts }
}

fn unexpected_messages(seed: u64) -> Plan {
    let shape = shape(
        seed,
        vec![
            Style::of(Kind::Hostile),
            Style {
                inside: true,
                ..Style::of(Kind::Hostile)
            },
            Style::batch(),
        ],
    );
    let parts = (2..38).map(|second| {
        let agent = second as usize % shape.agents;
        fault(second * SECOND, Fault::Nonsense { agent })
    });
    let parts = parts.collect();
    plan(shape, parts)
}

fn crashed_framework(seed: u64) -> Plan {
    let hasty = Style {
        failover: 0,
        ..Style::service(4)
    };
    let shape = shape(seed, vec![Style::batch(), hasty, Style::service(4)]);
    let parts = (1..10).map(|it| {
        let framework = 1 + it as usize % 2;
        let lasts = 2 * SECOND;
        fault(it * 4 * SECOND, Fault::CrashFramework { framework, lasts })
    });
    let parts = parts.collect();
    plan(shape, parts)
}

fn stuck_election(seed: u64) -> Plan {
    let mut random = Random::new(seed, "stuck election");
    let shape = Shape {
        masters: 5,
        ..shape(seed, vec![Style::batch()])
    };
    let mut parts = Vec::new();
    let mut at = 3 * SECOND;
    while at < 40 * SECOND {
        let (mut from, mut to) = (BTreeSet::new(), BTreeSet::new());
        for master in 0..shape.masters {
            match random.chance(500) {
                true => from.insert(Host::Master(master)),
                false => to.insert(Host::Master(master)),
            };
        }
        let lasts = random.between(SECOND / 5, 4 * SECOND);
        parts.push(fault(
            at,
            Fault::Cut {
                from,
                to,
                both_ways: random.chance(400),
                lasts,
            },
        ));
        at += random.between(SECOND / 5, 2 * SECOND);
    }
    plan(shape, parts)
}

fn slow_reader(seed: u64) -> Plan {
    let shape = Shape {
        limits: Limits {
            stream_queue: 100,
            ..Limits::WIDE
        },
        ..shape(seed, vec![Style::batch(), Style::batch()])
    };
    let lasts = 30 * SECOND;
    let slow = Fault::SlowReader {
        framework: 0,
        lasts,
    };
    plan(shape, vec![fault(3 * SECOND, slow)])
}

fn lost_kill(seed: u64) -> Plan {
    let mut random = Random::new(seed, "lost kill");
    let shape = shape(seed, vec![Style::service(8), Style::service(6)]);
    let mut parts = Vec::new();
    let mut at = 4 * SECOND;
    while at < 38 * SECOND {
        parts.push((at, Part::Act(Act::Kill { framework: 0 })));
        let host = Host::Agent(random.index(shape.agents));
        parts.push(fault(at + random.below(20 * MILLI), Fault::Break { host }));
        if random.chance(300) {
            let lasts = random.between(SECOND / 2, 2 * SECOND);
            let crash = Fault::CrashMaster {
                master: 0,
                lead: true,
                power: random.chance(500),
                lasts,
            };
            parts.push(fault(at + random.below(20 * MILLI), crash));
        }
        at += random.between(SECOND, 3 * SECOND);
    }
    plan(shape, parts)
}

fn agent_crashes(seed: u64) -> Plan {
    let mut random = Random::new(seed, "agent crashes");
    let shape = Shape {
        limits: Limits::NARROW,
        ..shape(seed, vec![Style::batch(), Style::service(6)])
    };
    let mut parts = Vec::new();
    let mut at = 2 * SECOND;
    while at < 39 * SECOND {
        let agent = random.index(shape.agents);
        let lasts = random.between(10 * MILLI, 2 * SECOND);
        parts.push(fault(at, Fault::CrashAgent { agent, lasts }));
        at += random.between(50 * MILLI, SECOND);
    }
    plan(shape, parts)
}

fn persistent_data(seed: u64) -> Plan {
    let mut random = Random::new(seed, "persistent data");
    let shape = shape(
        seed,
        vec![
            greedy("other"),
            Style::of(Kind::Reserver),
            // What it reserves is not for the role above.
            Style {
                role: "other/x".to_owned(),
                ..Style::of(Kind::Reserver)
            },
        ],
    );
    let mut parts = Vec::new();
    let mut at = 3 * SECOND;
    while at < 39 * SECOND {
        let agent = random.index(shape.agents);
        let lasts = random.between(SECOND / 10, 3 * SECOND);
        parts.push(fault(
            at,
            match random.below(4) {
                0 => Fault::CrashAgent { agent, lasts },
                1 => Fault::RebootAgent { agent, lasts },
                2 => Fault::CrashFramework {
                    framework: 1,
                    lasts,
                },
                _ => Fault::CrashMaster {
                    master: 0,
                    lead: true,
                    power: true,
                    lasts,
                },
            },
        ));
        at += random.between(SECOND, 3 * SECOND);
    }
    plan(shape, parts)
}

/// Agents die while the ends of operations wait to be acknowledged, and what they have on their
/// disks is written anew all the time.
fn slow_operations(seed: u64) -> Plan {
    let mut random = Random::new(seed, "slow operations");
    let reserver = |role: &str| Style {
        role: role.to_owned(),
        slow_ack: 6 * SECOND,
        ..Style::of(Kind::Reserver)
    };
    let shape = Shape {
        limits: Limits {
            records: 2,
            ..Limits::WIDE
        },
        ..shape(
            seed,
            vec![
                Style::batch(),
                reserver("a"),
                reserver("b"),
                reserver("c"),
                reserver("d"),
            ],
        )
    };
    let mut parts = Vec::new();
    let mut at = 2 * SECOND;
    while at < 39 * SECOND {
        let agent = random.index(shape.agents);
        let host = Host::Agent(agent);
        let lasts = random.between(SECOND / 10, SECOND);
        parts.push(match random.below(3) {
            0 => fault(at, Fault::Break { host }),
            1 => crash_leader(at, false, lasts),
            _ => fault(at, Fault::CrashAgent { agent, lasts }),
        });
        at += random.between(SECOND / 2, 2 * SECOND);
    }
    plan(shape, parts)
}

fn slow_agent(seed: u64) -> Plan {
    let mut random = Random::new(seed, "slow agent");
    let shape = shape(seed, vec![Style::batch(), Style::service(6)]);
    let mut parts = Vec::new();
    let mut at = 3 * SECOND;
    while at < 38 * SECOND {
        // Well below the ten seconds of unanswered pings.
        let lasts = random.between(SECOND, 6 * SECOND);
        let host = Host::Agent(random.index(shape.agents));
        parts.push(fault(
            at,
            Fault::Pause {
                host,
                lead: false,
                lasts,
            },
        ));
        at += 7 * SECOND;
    }
    plan(shape, parts)
}

fn dead_tasks(seed: u64) -> Plan {
    let busy = Style {
        most: 40,
        ..Style::batch()
    };
    let shape = Shape {
        length: 60 * SECOND,
        limits: Limits {
            records: 100,
            ..Limits::WIDE
        },
        ..shape(seed, vec![busy])
    };
    let crash = |at| {
        let lasts = SECOND;
        fault(
            at,
            Fault::CrashMaster {
                master: 0,
                lead: true,
                power: false,
                lasts,
            },
        )
    };
    plan(
        shape,
        vec![crash(20 * SECOND), crash(40 * SECOND), crash(58 * SECOND)],
    )
}

/// Batches of one role that hold all they can.
fn greedy(role: &str) -> Style {
    Style {
        role: role.to_owned(),
        most: 16,
        ..Style::batch()
    }
}

fn overcommit(seed: u64) -> Plan {
    let mut random = Random::new(seed, "overcommit");
    let shape = Shape {
        agents: 2,
        ..shape(
            seed,
            vec![
                greedy("a"),
                greedy("b"),
                Style::of(Kind::Reserver),
                Style::of(Kind::Executors),
            ],
        )
    };
    let mut parts = Vec::new();
    let mut at = 3 * SECOND;
    while at < 39 * SECOND {
        let lasts = random.between(SECOND / 10, 2 * SECOND);
        parts.push(fault(
            at,
            match random.below(3) {
                0 => Fault::CrashMaster {
                    master: 0,
                    lead: true,
                    power: random.chance(500),
                    lasts,
                },
                1 => Fault::CutLeader {
                    clients: false,
                    one_way: random.chance(300),
                    lasts,
                },
                _ => Fault::Break {
                    host: Host::Agent(random.index(2)),
                },
            },
        ));
        at += random.between(SECOND, 4 * SECOND);
    }
    plan(shape, parts)
}

/// Agents are cut off for longer than five pings, while they work and hold all they can.
fn returning_agents(seed: u64) -> Plan {
    let mut random = Random::new(seed, "returning agents");
    let shape = Shape {
        agents: 3,
        length: 60 * SECOND,
        ..shape(
            seed,
            vec![
                greedy("a"),
                Style::of(Kind::Executors),
                Style::of(Kind::Executors),
            ],
        )
    };
    let masters: BTreeSet<Host> = (0..shape.masters).map(Host::Master).collect();
    let mut parts = Vec::new();
    for agent in 0..shape.agents {
        let mut at = random.between(4 * SECOND, 8 * SECOND);
        while at < 55 * SECOND {
            let lasts = random.between(11 * SECOND, 15 * SECOND);
            let cut = Fault::Cut {
                from: masters.clone(),
                to: [Host::Agent(agent)].into(),
                both_ways: random.chance(700),
                lasts,
            };
            parts.push(fault(at, cut));
            at += lasts + random.between(2 * SECOND, 6 * SECOND);
        }
    }
    plan(shape, parts)
}

fn maintenance(seed: u64) -> Plan {
    let shape = shape(seed, vec![Style::batch(), Style::service(8)]);
    let act = |at: u64, act| (at * SECOND, Part::Act(act));
    let schedule = |agents: &[usize]| Act::Schedule {
        agents: agents.iter().copied().collect(),
    };
    let parts = vec![
        act(4, schedule(&[0, 1])),
        act(9, Act::MachineDown { agent: 0 }),
        crash_leader(12 * SECOND, true, SECOND),
        act(16, schedule(&[0, 2])),
        act(19, Act::MachineUp { agent: 0 }),
        act(22, Act::MachineDown { agent: 2 }),
        fault(24 * SECOND, Fault::StepDown),
        fault(
            25 * SECOND,
            Fault::CrashAgent {
                agent: 2,
                lasts: 2 * SECOND,
            },
        ),
        act(30, schedule(&[1, 3])),
        act(33, Act::MachineUp { agent: 2 }),
    ];
    plan(shape, parts)
}

fn registers(seed: u64) -> Plan {
    let mut random = Random::new(seed, "registers");
    let shape = Shape {
        keepers: 5,
        ..shape(seed, vec![Style::batch()])
    };
    let mut parts = Vec::new();
    let mut at = 3 * SECOND;
    while at < 39 * SECOND {
        let lasts = random.between(SECOND / 10, 3 * SECOND);
        let part = match random.below(5) {
            // It stands still, and then believes for a moment that it leads.
            4 => {
                let (host, lead) = (Host::Master(0), true);
                parts.push(fault(at + MILLI, Fault::Pause { host, lead, lasts }));
                let cut = Fault::CutLeader {
                    clients: false,
                    one_way: false,
                    lasts: lasts + SECOND,
                };
                fault(at, cut)
            }
            0 => crash_leader(at, random.chance(500), lasts),
            1 => fault(at, Fault::StepDown),
            2 => fault(
                at,
                Fault::Pause {
                    host: Host::Master(0),
                    lead: true,
                    lasts,
                },
            ),
            _ => fault(
                at,
                Fault::CutLeader {
                    clients: false,
                    one_way: random.chance(500),
                    lasts,
                },
            ),
        };
        parts.push(part);
        at += random.between(SECOND, 4 * SECOND);
    }
    plan(shape, parts)
}

fn restored_backup(seed: u64) -> Plan {
    let shape = shape(seed, vec![Style::batch(), Style::service(8)]);
    plan(
        shape,
        vec![
            fault(12 * SECOND, Fault::Backup),
            // Some agents come back later than their frameworks ask for their tasks.
            pause(20 * SECOND, Host::Agent(0), 4 * SECOND),
            pause(20 * SECOND, Host::Agent(2), 5 * SECOND),
            fault(20 * SECOND, Fault::Restore { lasts: SECOND / 2 }),
            crash_leader(32 * SECOND, true, SECOND),
        ],
    )
}

fn pause(at: u64, host: Host, lasts: u64) -> (u64, Part) {
    let lead = false;
    fault(at, Fault::Pause { host, lead, lasts })
}

fn lost_ends(seed: u64) -> Plan {
    let mut random = Random::new(seed, "lost ends");
    let slow = |role: &str, partition_aware| Style {
        role: role.to_owned(),
        slow_ack: 6 * SECOND,
        partition_aware,
        ..Style::batch()
    };
    let shape = shape(seed, vec![slow("a", true), slow("b", false)]);
    let mut parts = Vec::new();
    let mut at = 5 * SECOND;
    while at < 39 * SECOND {
        let agent = random.index(shape.agents);
        let lasts = random.between(SECOND / 10, 2 * SECOND);
        parts.push(fault(at, Fault::WipeAgent { agent, lasts }));
        if random.chance(300) {
            parts.push(crash_leader(at + random.below(SECOND), false, SECOND));
        }
        at += random.between(SECOND, 4 * SECOND);
    }
    plan(shape, parts)
}

/// A leader is cut off from the others and stands still; when it goes on it believes for a moment
/// that it leads, and agents that were started again meanwhile have been waiting at its door.
fn old_leader(seed: u64) -> Plan {
    let mut random = Random::new(seed, "old leader");
    let shape = Shape {
        limits: Limits {
            records: 4,
            ..Limits::WIDE
        },
        ..shape(seed, vec![Style::batch(), Style::service(6)])
    };
    let mut parts = Vec::new();
    for round in 0..5 {
        let at = (3 + 7 * round) * SECOND;
        let lasts = 5 * SECOND;
        let cut = Fault::CutLeader {
            clients: false,
            one_way: false,
            lasts,
        };
        parts.push(fault(at, cut));
        parts.push(fault(
            at + MILLI,
            Fault::Pause {
                host: Host::Master(0),
                lead: true,
                lasts: 3 * SECOND,
            },
        ));
        for agent in 0..shape.agents {
            let at = at + random.between(2 * SECOND, 5 * SECOND / 2);
            let lasts = 10 * MILLI;
            parts.push(fault(at, Fault::CrashAgent { agent, lasts }));
        }
    }
    plan(shape, parts)
}

/// Links to followers hear that they are there and not who leads, so that agents register on
/// them; a while later one of these followers leads.
fn old_registrations(seed: u64) -> Plan {
    let mut random = Random::new(seed, "old registrations");
    let mut shape = shape(seed, vec![Style::batch(), Style::service(6)]);
    shape.length = 60 * SECOND;
    shape.quality.delay_min = 10 * MILLI;
    shape.quality.delay_max = 200 * MILLI;
    let agents: BTreeSet<Host> = (0..shape.agents).map(Host::Agent).collect();
    let mut parts = Vec::new();
    for round in 0..14 {
        let at = (4 + 4 * round) * SECOND;
        for master in 0..shape.masters {
            let host = Host::Master(master);
            parts.push(fault(at, Fault::Break { host }));
            let cut = Fault::Cut {
                from: [host].into(),
                to: agents.clone(),
                both_ways: false,
                lasts: random.between(1500 * MILLI, 3 * SECOND),
            };
            // About when they have come back.
            let back = random.between(250 * MILLI, 600 * MILLI);
            parts.push(fault(at + back, cut));
        }
        parts.push(crash_leader(at + 3200 * MILLI, false, SECOND / 4));
    }
    plan(shape, parts)
}

fn panics(seed: u64) -> Plan {
    let mut random = Random::new(seed, "panics");
    let shape = Shape {
        keepers: 2,
        ..shape(
            seed,
            vec![Style::batch(), Style::service(8), Style::of(Kind::Reserver)],
        )
    };
    let mut parts = Vec::new();
    let mut at = 3 * SECOND;
    while at < 39 * SECOND {
        parts.push(fault(at, Fault::Panic));
        at += random.between(SECOND / 2, 3 * SECOND);
    }
    plan(shape, parts)
}

fn quota(seed: u64) -> Plan {
    let shape = shape(seed, vec![greedy("a"), greedy("b")]);
    let act = |at: u64, cpus| {
        let role = "a".to_owned();
        let force = true;
        (at * SECOND, Part::Act(Act::Quota { role, cpus, force }))
    };
    let parts = vec![
        act(2, Some(4)),
        act(12, Some(12)),
        act(20, Some(2)),
        act(34, None),
        crash_leader(25 * SECOND, false, SECOND),
    ];
    plan(shape, parts)
}

fn never_declines(seed: u64) -> Plan {
    let mut shape = shape(seed, vec![Style::of(Kind::Silent), Style::batch()]);
    shape.timing.offer_timeout = Some(4 * SECOND);
    plan(shape, Vec::new())
}

/// One who never answers has everything, with the time that it takes, when another one comes.
fn hoarders(seed: u64) -> Plan {
    let mut shape = shape(seed, vec![Style::of(Kind::Silent), Style::batch()]);
    shape.timing.offer_timeout = None;
    let away = Fault::CrashFramework {
        framework: 1,
        lasts: 15 * SECOND,
    };
    plan(shape, vec![fault(2 * SECOND, away)])
}

fn rough_manners(seed: u64) -> Plan {
    let mut random = Random::new(seed, "rough manners");
    let rough = |role: &str| Style {
        role: role.to_owned(),
        ..Style::of(Kind::Rough)
    };
    let shape = shape(seed, vec![rough("a"), rough("b"), Style::batch()]);
    let mut parts = Vec::new();
    let mut at = 4 * SECOND;
    while at < 38 * SECOND {
        // The other one keeps its subscription, and what it said on it.
        let framework = 0;
        parts.push(fault(at, Fault::TakeOver { framework }));
        at += random.between(4 * SECOND, 8 * SECOND);
    }
    plan(shape, parts)
}

/// Each agent is drained in turn, and comes back.
fn drains(seed: u64) -> Plan {
    let shape = Shape {
        length: 60 * SECOND,
        ..shape(
            seed,
            vec![greedy("a"), Style::service(8), Style::of(Kind::Rough)],
        )
    };
    let mut parts = Vec::new();
    for agent in 0..shape.agents {
        let at = (4 + 9 * agent as u64) * SECOND;
        let mark_gone = false;
        parts.push((at, Part::Act(Act::Drain { agent, mark_gone })));
        parts.push((at + 8 * SECOND, Part::Act(Act::Reactivate { agent })));
    }
    // The last one stays as it is.
    parts.push(crash_leader(8 * SECOND, false, SECOND));
    plan(shape, parts)
}

fn withdrawn_agents(seed: u64) -> Plan {
    let mut random = Random::new(seed, "withdrawn agents");
    let shape = shape(seed, vec![Style::batch(), Style::of(Kind::Rough)]);
    let mut parts = Vec::new();
    for agent in 0..2 {
        let deactivate = Act::Deactivate { agent };
        parts.push(((3 + agent as u64) * SECOND, Part::Act(deactivate)));
    }
    let mut at = 6 * SECOND;
    while at < 39 * SECOND {
        let agent = random.index(shape.agents);
        let lasts = random.between(SECOND / 10, SECOND);
        parts.push(match random.below(5) {
            0 => fault(at, Fault::RebootAgent { agent, lasts }),
            1 => fault(at, Fault::CrashAgent { agent, lasts }),
            // Longer than five pings: it is unreachable.
            2 => pause(at, Host::Agent(agent), 13 * SECOND),
            3 => fault(at, Fault::Panic),
            _ => crash_leader(at, random.chance(500), lasts),
        });
        at += random.between(SECOND, 4 * SECOND);
    }
    plan(shape, parts)
}

/// Two roles want more than there is; the leader that was told of their weights dies.
fn weights(seed: u64) -> Plan {
    let insatiable = |role| Style {
        most: 200,
        ..greedy(role)
    };
    let shape = Shape {
        agents: 2,
        length: 90 * SECOND,
        ..shape(seed, vec![insatiable("a"), insatiable("b")])
    };
    let role = "b".to_owned();
    let micro = 3_000_000;
    let weight = (3 * SECOND, Part::Act(Act::Weight { role, micro }));
    let crash = crash_leader(15 * SECOND, false, SECOND);
    plan(shape, vec![weight, crash])
}

fn failover_timeout(seed: u64) -> Plan {
    let patient = |failover| Style {
        failover,
        ..Style::service(4)
    };
    let shape = Shape {
        length: 60 * SECOND,
        ..shape(seed, vec![patient(25), patient(25), Style::batch()])
    };
    let away = |framework, lasts| Fault::CrashFramework { framework, lasts };
    let crash = |at| crash_leader(at, false, SECOND);
    let parts = vec![
        fault(5 * SECOND, away(0, 18 * SECOND)),
        fault(5 * SECOND, away(1, 45 * SECOND)),
        crash(10 * SECOND),
        crash(16 * SECOND),
    ];
    plan(shape, parts)
}

fn mass_return(seed: u64) -> Plan {
    let shape = Shape {
        agents: 60,
        limits: Limits {
            invitations: 4,
            ..Limits::WIDE
        },
        ..shape(seed, vec![Style::batch(), Style::service(20)])
    };
    let lasts = 2 * SECOND;
    let crash = |at, power| {
        fault(
            at,
            Fault::CrashMaster {
                master: 0,
                lead: true,
                power,
                lasts,
            },
        )
    };
    plan(
        shape,
        vec![
            crash(8 * SECOND, false),
            crash(16 * SECOND, true),
            fault(24 * SECOND, Fault::StepDown),
            fault(30 * SECOND, Fault::Transfer { to: 1 }),
        ],
    )
}

fn members_replaced(seed: u64) -> Plan {
    let shape = Shape {
        length: 50 * SECOND,
        limits: Limits {
            keep_log: 0,
            ..Limits::WIDE
        },
        ..shape(seed, vec![Style::batch(), Style::service(4)])
    };
    let lose = |at: u64, master| {
        let lasts = SECOND;
        fault(at * SECOND, Fault::LoseDisk { master, lasts })
    };
    plan(shape, vec![lose(8, 0), lose(20, 1), lose(32, 2)])
}

fn full_disks(seed: u64) -> Plan {
    let shape = shape(seed, vec![Style::batch(), Style::service(4)]);
    let full = |at: u64, host, lasts: u64| {
        let lasts = lasts * SECOND;
        fault(at * SECOND, Fault::FullDisk { host, lasts })
    };
    let parts = vec![
        full(5, Host::Master(0), 6),
        full(14, Host::Agent(0), 5),
        full(18, Host::Agent(1), 20),
        full(24, Host::Master(1), 4),
        full(32, Host::Master(2), 4),
    ];
    plan(shape, parts)
}

fn upgrade(seed: u64) -> Plan {
    let shape = shape(seed, vec![Style::batch(), Style::service(4)]);
    let newer = |at: u64, master| {
        let lasts = SECOND;
        fault(at * SECOND, Fault::Upgrade { master, lasts })
    };
    let raise = |at: u64| (at * SECOND, Part::Act(Act::RaiseVersion));
    let parts = vec![
        newer(6, 0),
        raise(9),
        newer(12, 1),
        raise(16),
        newer(19, 2),
        raise(26),
        crash_leader(32 * SECOND, false, SECOND),
    ];
    plan(shape, parts)
}
