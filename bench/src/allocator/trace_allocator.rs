//! `trace-allocator`: jobs of a trace, placed by offers, against a scheduler that sees everything.
//!
//! Time is the trace's: nothing waits for a clock. Users are frameworks in the roles of their
//! tiers; each places what it has in the order of arrival, declines what it does not use for 5 s,
//! and suppresses when it has nothing. Beside it the same jobs are placed at every moment, at
//! once, by somebody who knows every machine and every job: what is lost to offers is the
//! difference.

use super::{
    bare,
    world::{self, World},
};
use crate::{
    harness::{
        parameters::number,
        point::Measure,
        stop,
        workload::{ANY, By, Goal, NO_BOUND, Workload},
    },
    trace::{
        self, Job, TIERS,
        omniscient::{Ending, Ran, Size, nanos, omniscient},
        parameters,
    },
};
use anyhow::{Result, bail};
use core::time::Duration;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};
use tepui_allocator::{Allotment, FrameworkSpec};
use tepui_model::{FrameworkId, Resource, Resources, Role, Scalar, time::Instant};

const OFFERS: &str = "response of a job, by offers";
const WAIT: &str = "wait of a job, by offers";
const CYCLE: &str = "cycle";

const REFUSE: Duration = Duration::from_secs(5);
/// Seconds of the trace's time after the last arrival in which all must have ended.
const MOST_SECONDS: f64 = 30.0 * 24.0 * 3600.0;

pub(super) static WORKLOAD: Workload = Workload {
    name: "trace-allocator",
    about: "jobs of a trace (a CSV file, or drawn from the seed) run on machines that the allocator \
            alone offers, in the trace's time; response times beside those of a scheduler that \
            sees everything",
    parameters: &[
        world::agents(500),
        parameters::FILE,
        parameters::jobs(2_000),
        parameters::users(50),
        parameters::FULL_PERCENT,
        parameters::longest(86_400),
        number(
            "cpus",
            32,
            1,
            1_024,
            "cpus of each machine, with 4 GB for each of them",
        ),
        number(
            "interval_ms",
            1_000,
            10,
            60_000,
            "trace's time between two cycles",
        ),
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 1,
    goals: &[Goal {
        metric: OFFERS,
        by: By::Ratio(trace::OMNISCIENT.1),
        must: NO_BOUND,
        aim: 1.1,
        sizes: ANY,
    }],
    memory: |values| {
        // Some tens of tasks a job at a time; the longest jobs have thousands.
        values.number("agents") * (world::AGENT_BYTES + values.number("users") * 64)
            + values.number("jobs") * 4_000
    },
    run,
};

fn run(measure: &mut Measure) -> Result<()> {
    let agents = measure.number("agents");
    let cpus = measure.number("cpus") as i64 * 1_000;
    let machine = Size {
        cpus,
        mem: cpus * 4,
    };
    let jobs = trace::jobs(measure, machine, agents)?;
    bare::measure(
        measure,
        agents,
        jobs.len().min(world::MAX_FRAMEWORKS as usize) as u64,
    );
    let by_offers = Offers::new(measure, &jobs, machine, agents).run(measure)?;
    let Some(by_offers) = by_offers else {
        return Ok(());
    };
    let ideal = omniscient(&jobs, machine, agents as usize);
    trace::measure_responses(measure, &jobs, (WAIT, OFFERS), &by_offers);
    trace::measure_responses(measure, &jobs, trace::OMNISCIENT, &ideal);
    measure.count(OFFERS, "jobs", jobs.len() as f64);
    let tasks: u64 = jobs.iter().map(|it| it.tasks).sum();
    measure.count(OFFERS, "tasks", tasks as f64);
    Ok(())
}

fn resources(each: Size, count: u64) -> Resources {
    let count = count as i64;
    let mut all = Resources::new();
    all.push(Resource::scalar(
        "cpus",
        Scalar::from_millis(each.cpus * count),
    ));
    all.push(Resource::scalar(
        "mem",
        Scalar::from_units(each.mem * count),
    ));
    all
}

struct Framework {
    id: FrameworkId,
    role: Role,
    /// Jobs with tasks that have no place, and how many.
    missing: VecDeque<(u32, u64)>,
}

struct Offers<'a> {
    jobs: &'a [Job],
    world: World,
    frameworks: Vec<Framework>,
    /// Which framework a job is of.
    owners: Vec<u32>,
    running: BinaryHeap<Ending>,
    ran: Vec<Ran>,
}

impl<'a> Offers<'a> {
    fn new(measure: &Measure, jobs: &'a [Job], machine: Size, agents: u64) -> Offers<'a> {
        let mut world = World::new(measure.seed);
        for (tier, weight) in TIERS.iter().map(|it| (it.name, it.weight)) {
            world.allocator.set_weight(Role::from(tier), weight);
        }
        world.agents(agents, &resources(machine, 1));
        let mut by_user: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let mut frameworks: Vec<Framework> = Vec::new();
        let mut owners = Vec::new();
        for job in jobs {
            let next = frameworks.len() as u32;
            let at = *by_user.entry((&job.tier, &job.user)).or_insert(next);
            owners.push(at);
            if at != next {
                continue;
            }
            let (id, role) = (
                world::framework_id(next.into()),
                Role::from(job.tier.as_str()),
            );
            let spec = FrameworkSpec {
                roles: [role.clone()].into(),
                suppressed: [role.clone()].into(),
                active: true,
                ..FrameworkSpec::default()
            };
            world.allocator.add_framework(&id, spec);
            let missing = VecDeque::new();
            frameworks.push(Framework { id, role, missing });
        }
        Offers {
            jobs,
            world,
            frameworks,
            owners,
            running: BinaryHeap::new(),
            ran: vec![Ran::NOT; jobs.len()],
        }
    }

    /// None when it was interrupted.
    fn run(mut self, measure: &mut Measure) -> Result<Option<Vec<Ran>>> {
        let interval = measure.number("interval_ms") as f64 / 1e3;
        measure.begin("jobs of the trace", self.jobs.len() as u64);
        let (mut arrived, mut now) = (0, 0.0);
        let last = self.jobs.last().map_or(0.0, |it| it.submit);
        let mut unplaced: u64 = 0;
        loop {
            self.world.now = Instant(nanos(now));
            self.end_tasks();
            while let Some(job) = self.jobs.get(arrived).filter(|it| it.submit <= now) {
                let framework = &mut self.frameworks[self.owners[arrived] as usize];
                if framework.missing.is_empty() {
                    self.world.allocator.revive(&framework.id, &[]);
                }
                framework.missing.push_back((arrived as u32, job.tasks));
                unplaced += job.tasks;
                arrived += 1;
                measure.reached(arrived as u64);
            }
            if unplaced > 0 {
                let cycle = self.world.cycle_at_once();
                cycle.measured(measure, CYCLE);
                for it in &cycle.allotments {
                    unplaced -= self.place(it, now);
                }
            }
            if unplaced == 0 && arrived == self.jobs.len() {
                return Ok(Some(self.ran));
            }
            if stop::asked() {
                return Ok(None);
            }
            if now > last + MOST_SECONDS {
                bail!("{unplaced} tasks had no place {MOST_SECONDS} s after the last job came");
            }
            now += interval;
            // Nobody waits: on to the next arrival.
            if unplaced == 0
                && let Some(next) = self.jobs.get(arrived)
            {
                now = now.max((next.submit / interval).ceil() * interval);
            }
        }
    }

    fn end_tasks(&mut self) {
        while let Some(Reverse((at, agent, job, count))) = self.running.peek().copied()
            && at <= self.world.now.as_nanos()
        {
            self.running.pop();
            let framework = &self.frameworks[self.owners[job as usize] as usize];
            let part = resources(Size::of(&self.jobs[job as usize]), count);
            let part = part.allocate(&framework.role);
            let agent = world::agent_id(agent.into());
            let (allocator, now) = (&mut self.world.allocator, self.world.now);
            allocator.recover(now, &framework.id, &agent, &part, None);
        }
    }

    /// Uses an offer for what is missing, in the order of arrival: how many tasks.
    fn place(&mut self, offer: &Allotment, now: f64) -> u64 {
        let at = world::number_of(offer.framework.as_str()) as usize;
        let agent = world::number_of(offer.agent.as_str()) as u32;
        let framework = &mut self.frameworks[at];
        let millis = |it: Option<Scalar>| it.map_or(0, Scalar::as_millis);
        let mut free = Size {
            cpus: millis(offer.resources.cpus()),
            mem: millis(offer.resources.mem()) / 1_000,
        };
        let all = free;
        let mut placed = 0;
        for (job, missing) in &mut framework.missing {
            let (size, duration) = {
                let it = &self.jobs[*job as usize];
                (Size::of(it), it.duration)
            };
            let count = free.times(size).min(*missing);
            if count == 0 {
                continue;
            }
            free.cpus -= size.cpus * count as i64;
            free.mem -= size.mem * count as i64;
            *missing -= count;
            placed += count;
            self.ran[*job as usize].add(now, now + duration);
            self.running
                .push(Reverse((nanos(now + duration), agent, *job, count)));
        }
        framework.missing.retain(|it| it.1 > 0);
        let used = Size {
            cpus: all.cpus - free.cpus,
            mem: all.mem - free.mem,
        };
        let rest = offer
            .allocated()
            .difference(&resources(used, 1).allocate(&framework.role));
        let (allocator, time) = (&mut self.world.allocator, self.world.now);
        allocator.recover(time, &offer.framework, &offer.agent, &rest, Some(REFUSE));
        if framework.missing.is_empty() {
            allocator.suppress(&offer.framework, &[]);
        }
        placed
    }
}
