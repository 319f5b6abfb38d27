//! Times of allocation cycles against a bare heap loop over the same numbers, in one run.
//!
//! `cargo run --release -p tepui-allocator --example cycle -- [agents] [frameworks] [roles] [rounds]`
//! (10000, 1000, 10 and 100 when absent). The heap loop knows frameworks and amounts only: it pops
//! the smallest dominant share, adds the agent, and pushes it back. Each time is the
//! least of several, so that other processes do not count.

#![allow(clippy::disallowed_types)] // The library knows no clock; this measures it with one.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    hint::black_box,
    time::{Duration, Instant as Clock},
};
use tepui_allocator::{AgentSpec, Allocator, Allotment, FrameworkSpec, Options, place};
use tepui_model::{
    AgentId, FrameworkId, Resources, Role, agent::AgentCapabilities, attribute::Attributes,
    time::Instant,
};

const REFUSE: Duration = Duration::from_secs(100_000);

/// Cpus, mem, disk in thousandths.
const AGENT: [u64; 3] = [16_000, 65_536_000, 500_000_000];

fn main() {
    let mut arguments = std::env::args().skip(1).map(|it| it.parse::<u64>());
    let mut next = |default: u64| match arguments.next() {
        None => default,
        Some(it) => it.unwrap_or_else(|error| panic!("expected a number: {error}")),
    };
    let (agents, frameworks, roles, rounds) = (next(10_000), next(1_000), next(10), next(100));
    println!("{agents} agents, {frameworks} frameworks in {roles} roles");

    let heap = (0..20).map(|_| heap_loop(agents, frameworks)).min();
    let heap = heap.unwrap_or_default();
    print("bare heap loop", heap, agents, heap);

    let mut first = Duration::MAX;
    let (mut allocator, mut offers) = (world(0, 0, 1), Vec::new());
    for _ in 0..20 {
        allocator = world(agents, frameworks, roles);
        let (took, given) = cycle(&mut allocator, 0);
        (first, offers) = (first.min(took), given);
    }
    print("first round, every agent offered", first, agents, heap);
    assert_eq!(offers.len() as u64, agents);

    let none = time(|| drop(allocator.allocate(Instant(0), u32::MAX)));
    print("nothing changed", none, agents, heap);

    let mut quickest = (Duration::MAX, Duration::MAX);
    for round in 1..=rounds {
        let declined = time(|| decline(&mut allocator, &offers));
        let (took, next) = cycle(&mut allocator, round);
        quickest = (quickest.0.min(took), quickest.1.min(declined));
        if round == rounds || round % 10 == 0 {
            let (took, declined) = std::mem::replace(&mut quickest, (Duration::MAX, Duration::MAX));
            let name = format!("round {round} (of the last ten), all declined before");
            print(&name, took, agents, heap);
            print("  the declines", declined, agents, heap);
            println!(
                "  {:.2} x the first round",
                took.as_secs_f64() / first.as_secs_f64()
            );
        }
        offers = next;
    }
    let changed = &offers[..offers.len().min(100)];
    let declined = time(|| decline(&mut allocator, changed));
    let (took, next) = cycle(&mut allocator, rounds);
    println!(
        "{} of {agents} agents changed, {} given again",
        changed.len(),
        next.len()
    );
    print("  the declines", declined, changed.len() as u64, heap);
    print("  the cycle", took, changed.len() as u64, heap);

    let (mut longest, mut count) = (Duration::MAX, 0);
    for _ in 0..10 {
        let slices = sliced(world(agents, frameworks, roles));
        let of_run = slices.iter().max().copied().unwrap_or_default();
        (longest, count) = (longest.min(of_run), slices.len());
    }
    println!("first round in {count} slices of 1000 units of work: longest {longest:?}");
}

fn print(name: &str, took: Duration, agents: u64, heap: Duration) {
    let each = took / u32::try_from(agents.max(1)).unwrap_or(u32::MAX);
    let ratio = took.as_secs_f64() / heap.as_secs_f64();
    println!("{name}: {took:?}, {each:?} an agent, {ratio:.1} x the heap loop");
}

fn time(run: impl FnOnce()) -> Duration {
    let start = Clock::now();
    run();
    start.elapsed()
}

fn world(agents: u64, frameworks: u64, roles: u64) -> Allocator {
    let mut allocator = Allocator::new(Options::default(), 1);
    for at in 0..frameworks {
        let spec = FrameworkSpec {
            roles: [Role::from(format!("role-{}", at % roles))].into(),
            active: true,
            ..FrameworkSpec::default()
        };
        let id = FrameworkId::from(format!("00000000-0000-0000-0000-000000000000-{at:04}"));
        allocator.add_framework(&id, spec);
    }
    let total = Resources::parse("cpus:16;mem:65536;disk:500000;ports:[31000-32000]", "*");
    let total = total.expect("resources");
    for at in 0..agents {
        let spec = AgentSpec {
            hostname: format!("host-{at}").into(),
            attributes: Attributes::default(),
            domain: None,
            capabilities: AgentCapabilities::all(),
            total: total.clone(),
        };
        allocator.add_agent(&agent_id(at), spec, true);
    }
    allocator
}

fn agent_id(at: u64) -> AgentId {
    AgentId::from(format!("00000000-0000-0000-0000-000000000000-S{at}"))
}

fn cycle(allocator: &mut Allocator, round: u64) -> (Duration, Vec<Allotment>) {
    let start = Clock::now();
    let cycle = allocator.allocate(Instant(round), u32::MAX);
    (start.elapsed(), cycle.allotments)
}

fn decline(allocator: &mut Allocator, offers: &[Allotment]) {
    for it in offers {
        allocator.recover(
            Instant(0),
            &it.framework,
            &it.agent,
            &it.resources,
            Some(REFUSE),
        );
    }
}

fn sliced(mut allocator: Allocator) -> Vec<Duration> {
    let mut slices = Vec::new();
    loop {
        let start = Clock::now();
        let cycle = allocator.allocate(Instant(0), 1000);
        slices.push(start.elapsed());
        if !cycle.more {
            return slices;
        }
    }
}

/// A dominant share: part of whole.
#[derive(PartialEq, Eq)]
struct Share(u64, u64);

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Share) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Share) -> Ordering {
        let left = u128::from(self.0) * u128::from(other.1);
        left.cmp(&(u128::from(other.0) * u128::from(self.1)))
    }
}

fn heap_loop(agents: u64, frameworks: u64) -> Duration {
    let ids: Vec<AgentId> = (0..agents).map(agent_id).collect();
    let totals: Vec<[u64; 3]> = ids.iter().map(|_| AGENT).collect();
    let start = Clock::now();
    let mut order: Vec<(u64, usize)> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| (place(1, 1, false, id), at))
        .collect();
    order.sort_unstable();
    let total = totals.iter().fold([0; 3], |sum: [u64; 3], it| {
        [sum[0] + it[0], sum[1] + it[1], sum[2] + it[2]]
    });
    let mut allocated = vec![[0_u64; 3]; frameworks as usize];
    let mut given = Vec::new();
    let mut heap: BinaryHeap<Reverse<(Share, usize)>> = (0..frameworks as usize)
        .map(|it| Reverse((Share(0, 1), it)))
        .collect();
    for (_, agent) in order {
        let Some(Reverse((_, framework))) = heap.pop() else {
            break;
        };
        given.push((framework, agent));
        let held = &mut allocated[framework];
        let mut largest = Share(0, 1);
        for (at, held) in held.iter_mut().enumerate() {
            *held += totals[agent][at];
            largest = largest.max(Share(*held, total[at]));
        }
        heap.push(Reverse((largest, framework)));
    }
    black_box(given);
    start.elapsed()
}
