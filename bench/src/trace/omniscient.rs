//! A scheduler that sees every machine and every job: what offers are compared with.

use super::Job;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

/// Jobs that it looks at behind the first that does not fit.
const BACKFILL: usize = 50;

/// An amount of cpus (thousandths) and memory (MB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Thousandths.
    pub(crate) cpus: i64,
    /// MB.
    pub(crate) mem: i64,
}

impl Size {
    /// Of one task.
    pub(crate) fn of(job: &Job) -> Size {
        Size {
            cpus: job.cpus_millis as i64,
            mem: job.mem_mb as i64,
        }
    }

    /// Whether the other fits.
    pub(crate) fn holds(self, other: Size) -> bool {
        self.cpus >= other.cpus && self.mem >= other.mem
    }

    /// How many of the other fit.
    pub(crate) fn times(self, other: Size) -> u64 {
        let by = |all: i64, each: i64| if each > 0 { all / each } else { i64::MAX };
        by(self.cpus, other.cpus)
            .min(by(self.mem, other.mem))
            .max(0) as u64
    }
}

/// When the first task of a job began, and when the last one ended: seconds of the trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    /// [`f64::MAX`] when none did.
    pub(crate) started: f64,
    /// 0 when none did.
    pub(crate) ended: f64,
}

impl Ran {
    /// It did not run.
    pub(crate) const NOT: Ran = Ran {
        started: f64::MAX,
        ended: 0.0,
    };

    /// Some of its tasks did.
    pub(crate) fn add(&mut self, started: f64, ended: f64) {
        self.started = self.started.min(started);
        self.ended = self.ended.max(ended);
    }
}

/// Tasks of one job that began together on one machine: when they end in nanoseconds, where, of
/// which job, how many.
pub(crate) type Ending = Reverse<(u64, u32, u32, u64)>;

/// Seconds as whole nanoseconds, which have an order.
pub(crate) fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Places tasks the moment that they come and fit anywhere, first come first served, with those
/// behind that fit meanwhile.
pub(crate) fn omniscient(jobs: &[Job], machine: Size, agents: usize) -> Vec<Ran> {
    let mut free = vec![machine; agents];
    let mut ran = vec![Ran::NOT; jobs.len()];
    let mut running: BinaryHeap<Ending> = BinaryHeap::new();
    let mut missing: VecDeque<(u32, u64)> = VecDeque::new();
    let mut arrived = 0;
    loop {
        let arrival = jobs.get(arrived).map(|it| nanos(it.submit));
        let ending = running.peek().map(|it| it.0.0);
        let Some(now) = [arrival, ending].into_iter().flatten().min() else {
            return ran;
        };
        let mut changed = Vec::new();
        while let Some(Reverse((at, agent, job, count))) = running.peek().copied()
            && at <= now
        {
            running.pop();
            let size = Size::of(&jobs[job as usize]);
            let it = &mut free[agent as usize];
            it.cpus += size.cpus * count as i64;
            it.mem += size.mem * count as i64;
            changed.push(agent);
        }
        let waited = missing.len();
        while let Some(job) = jobs.get(arrived).filter(|it| nanos(it.submit) <= now) {
            missing.push_back((arrived as u32, job.tasks));
            arrived += 1;
        }
        changed.sort_unstable();
        changed.dedup();
        let seconds = now as f64 / 1e9;
        for (at, (job, count)) in missing.iter_mut().enumerate() {
            // Who waited already fits on nothing but what became free; who comes, anywhere.
            if at >= BACKFILL && at < waited {
                continue;
            }
            let it = &jobs[*job as usize];
            let mut place = |agent: u32| {
                let size = Size::of(it);
                let room = &mut free[agent as usize];
                let fits = room.times(size).min(*count);
                if fits > 0 {
                    room.cpus -= size.cpus * fits as i64;
                    room.mem -= size.mem * fits as i64;
                    *count -= fits;
                    ran[*job as usize].add(seconds, seconds + it.duration);
                    let end = nanos(seconds + it.duration);
                    running.push(Reverse((end, agent, *job, fits)));
                }
                *count > 0
            };
            match at < waited {
                true => changed.iter().copied().all(&mut place),
                false => (0..agents as u32).all(&mut place),
            };
        }
        missing.retain(|it| it.1 > 0);
    }
}
