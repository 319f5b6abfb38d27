//! `flatness`: whether launches are as fast in a full cluster as in an empty one.

use super::{
    client::Client,
    cluster::{self, Cluster, MASTER, MASTERS, TRANSPORT},
    launch::{Names, sustain},
    load::{self, Counts, Limits, Pace},
};
use crate::{
    harness::{
        parameters::number,
        point::Measure,
        result::Unit,
        statistics::median,
        workload::{ANY, By, Goal, NO_BOUND, Workload},
    },
    noop_agent::{Ending, Kind},
};
use anyhow::{Result, bail};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tokio::task::JoinSet;

const EMPTY: &str = "launches at 10 % full";
const FULL: &str = "launches at 90 % full";

pub(super) static WORKLOAD: Workload = Workload {
    name: "flatness",
    about: "the rate of launches while 10 % and while 90 % of the agents are full of tasks that \
            stay, each in a cluster of its own",
    parameters: &[
        cluster::agents(500),
        number(
            "tasks_per_agent",
            100,
            1,
            1_000,
            "tasks that stay on each full agent",
        ),
        cluster::tasks_per_accept("most tasks of one ACCEPT of the load"),
        TRANSPORT,
        MASTERS,
        MASTER,
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 20,
    goals: &[Goal {
        metric: FULL,
        by: By::Ratio(EMPTY),
        must: NO_BOUND,
        aim: 0.9,
        sizes: ANY,
    }],
    memory: |values| {
        let tasks = values.number("agents") * values.number("tasks_per_agent");
        cluster::memory(values, tasks + 50_000)
    },
    run: |measure| cluster::block_on(run(measure)),
};

async fn run(measure: &mut Measure) -> Result<()> {
    if !measure.values.text("master").is_empty() {
        bail!("flatness fills agents of its own; run it without master");
    }
    for (percent, metric) in [(10, EMPTY), (90, FULL)] {
        if !one(measure, percent, metric).await? {
            return Ok(());
        }
    }
    Ok(())
}

async fn one(measure: &mut Measure, percent: u64, metric: &str) -> Result<bool> {
    let full = (measure.number("agents") * percent / 100).max(1);
    let (cluster, filler) = filled(measure, full).await?;
    let (pace, counts) = (Arc::new(Pace::default()), Arc::new(Counts::default()));
    let mut frameworks = JoinSet::new();
    frameworks.spawn(load::keep(filler));
    let transport = measure.values.text("transport");
    let client = Client::subscribe(&cluster.masters, transport, "load", "load").await?;
    let limits = Limits::of(&measure.values);
    frameworks.spawn(load::launch(
        client,
        "load".into(),
        limits,
        pace,
        counts.clone(),
    ));
    let names = Names {
        rate: metric.to_owned(),
        has_costs: false,
    };
    measure.begin(metric, measure.repeats);
    let goes_on = sustain(measure, &cluster, &counts, &mut frameworks, &names).await?;
    let tasks = full * measure.number("tasks_per_agent");
    measure.count(metric, "tasks that stay", tasks as f64);
    frameworks.shutdown().await;
    Ok(goes_on)
}

/// A cluster of which the first `full` agents are full, and the framework that fills them.
pub(super) async fn filled(measure: &mut Measure, full: u64) -> Result<(Cluster, Client)> {
    let kind = |at| match at >= full {
        true => Kind::ending(Ending::AtOnce),
        false => Kind::ending(Ending::Never),
    };
    let cluster = Cluster::start(measure, kind).await?;
    let per_agent = measure.number("tasks_per_agent");
    let client = Client::subscribe(&cluster.masters, "grpc", "filler", "filler").await?;
    measure.begin("filling agents", full * per_agent);
    let since = Instant::now();
    // A rate for each tenth, to be told which of them was slow.
    let parts = Mutex::new((Vec::new(), Instant::now()));
    let tenth = (full * per_agent / 10).max(1);
    let progress = |running: u64| {
        measure.reached(running);
        if running.is_multiple_of(tenth) {
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            let took = parts.1.elapsed().as_secs_f64();
            parts.0.push(tenth as f64 / took);
            parts.1 = Instant::now();
        }
    };
    let client = load::fill_agents(client, full, per_agent, progress).await?;
    let took = since.elapsed();
    let rates = parts.into_inner().unwrap_or_else(PoisonError::into_inner).0;
    let rate = median(&rates);
    if rate.is_finite() {
        let name = format!("launches while {full} agents were filled");
        for it in rates {
            measure.sample(&name, Unit::PerSecond, it);
        }
        measure.count(&name, "seconds", took.as_secs_f64());
    }
    Ok((cluster, client))
}
