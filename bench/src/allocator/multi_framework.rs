//! `multi-framework`: services, builds and analytics together, until every task has a place.

use super::{
    bare,
    world::{self, AGENT_BYTES, FRAMEWORK_BYTES, World},
};
use crate::harness::{
    parameters::number,
    point::{Measure, Took, take},
    result::Unit,
    workload::Workload,
};
use anyhow::{Result, bail};
use core::time::Duration;
use tepui_allocator::{Allotment, FrameworkSpec};
use tepui_model::{Resources, Role};

const CYCLE: &str = "cycle";
const ROUNDS: &str = "rounds until all is placed";
const TOGETHER: &str = "allocator until all is placed";
/// With so many rounds something is stuck.
const MOST_ROUNDS: u64 = 10_000;
/// What Mesos' frameworks use when they say nothing.
const REFUSE: Duration = Duration::from_secs(5);

pub(super) static WORKLOAD: Workload = Workload {
    name: "multi-framework",
    about: "services, builds and analytics take what they need of what they are offered, decline \
            the rest for 5 s, and suppress when they have all: rounds and time until all tasks \
            are placed",
    parameters: &[
        number("agents", 80, 1, 100_000, "agents of 64 cpus and 488 GB"),
        number(
            "services",
            4,
            0,
            1_000,
            "frameworks with many small tasks of 0.1 cpus and 200 MB",
        ),
        number("service_tasks", 4_000, 1, 100_000, "tasks of each"),
        number(
            "builds",
            500,
            0,
            10_000,
            "build servers with tasks of 0.5 cpus and 2 GB",
        ),
        number("build_tasks", 5, 1, 100_000, "tasks of each"),
        number(
            "analytics",
            50,
            0,
            10_000,
            "analytics with tasks of 1 cpu and 8 GB",
        ),
        number("analytics_tasks", 20, 1, 100_000, "tasks of each"),
        number(
            "tasks_per_offer",
            100,
            1,
            100_000,
            "most tasks that one offer is used for",
        ),
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 5,
    goals: &[],
    memory: |values| {
        let frameworks = ["services", "builds", "analytics"].map(|it| values.number(it));
        let frameworks: u64 = frameworks.iter().sum();
        values.number("agents") * (AGENT_BYTES + frameworks * 64) + frameworks * FRAMEWORK_BYTES
    },
    run,
};

/// One framework and what it still has to place.
struct Client {
    missing: u64,
    task: Resources,
}

fn clients(measure: &Measure) -> Vec<(Role, Client)> {
    let mut all = Vec::new();
    for (name, tasks, resources) in [
        ("services", "service_tasks", "cpus:0.1;mem:200"),
        ("builds", "build_tasks", "cpus:0.5;mem:2048"),
        ("analytics", "analytics_tasks", "cpus:1;mem:8192"),
    ] {
        let role = Role::from(name);
        let task = world::resources(resources).allocate(&role);
        for _ in 0..measure.number(name) {
            let missing = measure.number(tasks);
            let task = task.clone();
            all.push((role.clone(), Client { missing, task }));
        }
    }
    all
}

fn run(measure: &mut Measure) -> Result<()> {
    let agents = measure.number("agents");
    let frameworks = clients(measure).len() as u64;
    if frameworks == 0 {
        bail!("services, builds and analytics are all 0; expected a framework");
    }
    bare::measure(measure, agents, frameworks);
    measure.begin("placing", measure.repeats);
    for _ in 0..measure.repeats {
        place_all(measure)?;
        if !measure.step() {
            break;
        }
    }
    Ok(())
}

fn place_all(measure: &mut Measure) -> Result<()> {
    let mut world = World::new(measure.seed);
    let mut clients: Vec<Client> = Vec::new();
    for (role, client) in clients_in_order(measure) {
        let spec = FrameworkSpec {
            roles: [role].into(),
            active: true,
            ..FrameworkSpec::default()
        };
        let id = world::framework_id(clients.len() as u64);
        world.allocator.add_framework(&id, spec);
        clients.push(client);
    }
    let machine = world::resources("cpus:64;mem:499712;disk:1000000;ports:[31000-32000]");
    world.agents(measure.number("agents"), &machine);
    let most = measure.number("tasks_per_offer");
    let mut missing: u64 = clients.iter().map(|it| it.missing).sum();
    let (tasks, mut rounds, mut together) = (missing, 0, Took::default());
    let mut idle = 0;
    while missing > 0 {
        rounds += 1;
        let cycle = world.cycle();
        cycle.measured(measure, CYCLE);
        add(&mut together, cycle.took);
        let placed: u64 = missing;
        for it in &cycle.allotments {
            let client = &mut clients[world::number_of(it.framework.as_str()) as usize];
            let (took, used) = take(|| use_offer(&mut world, client, it, most));
            add(&mut together, took);
            missing -= used;
        }
        // Filters end by and by: a round without a task is no proof that all are stuck.
        idle = if placed == missing { idle + 1 } else { 0 };
        if idle > 60 || rounds >= MOST_ROUNDS {
            measure.note(format!(
                "{missing} of {tasks} tasks were not placed within {rounds} rounds"
            ));
            break;
        }
    }
    measure.sample(ROUNDS, Unit::Count, rounds as f64);
    measure.count(ROUNDS, "tasks", (tasks - missing) as f64);
    measure.each(TOGETHER, together, 1);
    Ok(())
}

/// Those with the most tasks come last, so that nobody is first by the order of arrival alone.
fn clients_in_order(measure: &Measure) -> Vec<(Role, Client)> {
    let mut all = clients(measure);
    all.reverse();
    all
}

fn add(sum: &mut Took, it: Took) {
    sum.time += it.time;
    sum.memory.bytes += it.memory.bytes;
}

/// Keeps what as many tasks need as fit, and declines the rest: how many tasks.
fn use_offer(world: &mut World, client: &mut Client, offer: &Allotment, most: u64) -> u64 {
    let mut rest = offer.allocated();
    let mut used = 0;
    while used < most.min(client.missing) && rest.try_sub(&client.task) {
        used += 1;
    }
    client.missing -= used;
    let (allocator, now) = (&mut world.allocator, world.now);
    allocator.recover(now, &offer.framework, &offer.agent, &rest, Some(REFUSE));
    if client.missing == 0 {
        allocator.suppress(&offer.framework, &[]);
    }
    used
}
