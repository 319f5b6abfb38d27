//! `launch`: accepted launches to acknowledged RUNNING, sustained.

use super::{
    client::Client,
    cluster::{self, Cluster, MASTER, MASTERS, TRANSPORT},
    load::{self, Counts, Limits, Pace},
};
use crate::{
    cpu, floor,
    harness::{
        parameters::number,
        point::Measure,
        result::Unit,
        workload::{ANY, By, Goal, NO_BOUND, Workload},
    },
    noop_agent::{Ending, Kind},
};
use anyhow::{Result, bail};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::task::JoinSet;

const RATE: &str = "launches";
const LEADER: &str = "leader's CPU a launch";
const MASTERS_CPU: &str = "CPU of all masters a launch";
const OWN: &str = "CPU of agents and frameworks a launch";
const APPEND: &str = "synced append of an ACCEPT";
const BARE: &str = "launches by synced appends";
const MEMORY: &str = "private memory of the largest master";

/// Seconds before the first that counts.
const WARM_UP: u64 = 3;

pub(super) static WORKLOAD: Workload = Workload {
    name: "launch",
    about: "frameworks fill every offer with tasks that run nothing and end at once; counted are \
            those whose RUNNING came and was acknowledged, a sample a second",
    parameters: &[
        cluster::agents(1_000),
        number(
            "frameworks",
            1,
            1,
            1_000,
            "frameworks, on a connection each",
        ),
        cluster::tasks_per_accept("most tasks of one ACCEPT"),
        number(
            "alive",
            Limits::ALIVE,
            1,
            1_000_000,
            "tasks of each framework that were launched and have not ended, at most",
        ),
        TRANSPORT,
        MASTERS,
        MASTER,
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 60,
    goals: &[
        Goal {
            metric: RATE,
            by: By::Value,
            must: 5_000.0,
            aim: 5_000.0,
            sizes: ANY,
        },
        Goal {
            metric: LEADER,
            by: By::Value,
            must: NO_BOUND,
            aim: 40e-6,
            sizes: ANY,
        },
        Goal {
            metric: RATE,
            by: By::Ratio(BARE),
            must: NO_BOUND,
            aim: 0.5,
            sizes: ANY,
        },
    ],
    memory: |values| cluster::memory(values, 200_000),
    run: |measure| cluster::block_on(run(measure)),
};

async fn run(measure: &mut Measure) -> Result<()> {
    let per_accept = measure.number("tasks_per_accept");
    let folder = tempfile::Builder::new().prefix("tepui-bench-").tempdir()?;
    let bytes = load::task_bytes();
    for _ in 0..10 {
        let took = floor::synced_append(folder.path(), bytes * per_accept as usize, 50)?;
        measure.time(APPEND, took);
        let rate = per_accept as f64 / took.as_secs_f64();
        measure.sample(BARE, Unit::PerSecond, rate);
    }
    measure.count(APPEND, "bytes", (bytes as u64 * per_accept) as f64);
    measure.is_denominator(APPEND);
    measure.is_denominator(BARE);
    let cluster = Cluster::start(measure, |_| Kind::ending(Ending::AtOnce)).await?;
    let (pace, counts) = (Arc::new(Pace::default()), Arc::new(Counts::default()));
    let mut frameworks = JoinSet::new();
    for at in 0..measure.number("frameworks") {
        let limits = Limits {
            alive: measure.number("alive"),
            ..Limits::of(&measure.values)
        };
        let name = format!("load-{at}");
        let transport = measure.values.text("transport");
        let client = Client::subscribe(&cluster.masters, transport, &name, "*").await?;
        frameworks.spawn(load::launch(
            client,
            name,
            limits,
            pace.clone(),
            counts.clone(),
        ));
    }
    let names = Names::default();
    measure.begin(RATE, WARM_UP + measure.repeats);
    sustain(measure, &cluster, &counts, &mut frameworks, &names).await?;
    cluster.measure_memory(measure, MEMORY)?;
    frameworks.shutdown().await;
    Ok(())
}

/// Metrics of [`sustain`].
pub(super) struct Names {
    pub(super) rate: String,
    pub(super) has_costs: bool,
}

impl Default for Names {
    fn default() -> Names {
        Names {
            rate: RATE.to_owned(),
            has_costs: true,
        }
    }
}

/// Counts what runs, second by second; whether the run goes on.
pub(super) async fn sustain(
    measure: &mut Measure,
    cluster: &Cluster,
    counts: &Counts,
    frameworks: &mut JoinSet<Result<()>>,
    names: &Names,
) -> Result<bool> {
    let take = || -> Result<_> {
        let own = cpu::used(std::process::id())?;
        let running = counts.running.load(Ordering::Relaxed);
        let launched = counts.launched.load(Ordering::Relaxed);
        let accepts = counts.accepts.load(Ordering::Relaxed);
        Ok((running, launched, accepts, cluster.cpu()?, own))
    };
    let mut before = take()?;
    for second in 0..WARM_UP + measure.repeats {
        let at = tokio::time::Instant::now();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            Some(ended) = frameworks.join_next() => {
                ended??;
                bail!("a framework ended while it was measured");
            }
        }
        let seconds = at.elapsed().as_secs_f64();
        let now = take()?;
        if second >= WARM_UP {
            let running = (now.0 - before.0) as f64;
            let tasks = (now.1 - before.1) as f64;
            let accepts = (now.2 - before.2) as f64;
            measure.sample(&names.rate, Unit::PerSecond, running / seconds);
            measure.count(&names.rate, "tasks an ACCEPT", tasks / accepts.max(1.0));
            measure.count(&names.rate, "bytes a task", load::task_bytes() as f64);
            let masters = now.3.iter().zip(&before.3);
            let used: Vec<Duration> = masters.map(|(after, before)| *after - *before).collect();
            if names.has_costs && running > 0.0 {
                if let Some(busiest) = used.iter().max() {
                    let all: Duration = used.iter().sum();
                    let each = |it: Duration| it.as_secs_f64() / running;
                    measure.sample(LEADER, Unit::Seconds, each(*busiest));
                    measure.sample(MASTERS_CPU, Unit::Seconds, each(all));
                }
                let own = now.4.saturating_sub(before.4).as_secs_f64();
                measure.sample(OWN, Unit::Seconds, own / running);
            }
        }
        before = now;
        if !measure.step() {
            return Ok(false);
        }
    }
    let failed = counts.failed.load(Ordering::Relaxed);
    if failed > 0 {
        measure.note(format!(
            "{failed} tasks ended in another way than they should"
        ));
    }
    Ok(true)
}
