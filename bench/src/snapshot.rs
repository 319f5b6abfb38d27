//! `tepui-bench snapshot`: a master joins a large cluster and is sent all of its state.
//!
//! The store of a cluster of that size is made on the disk, a master started on it, and another one
//! joins. Meanwhile a client of the state service writes without a pause: the longest time that a
//! write takes is what others notice of the snapshot.

use crate::{
    ask,
    cluster::{self, Process},
    cpu,
    harness::statistics::quantile_of_times,
    large_state,
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tepui_scheduler_api::state::{Expect, State};

/// Options of `tepui-bench snapshot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Agents
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    agents: u32,
    /// Running tasks on each agent
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    tasks_per_agent: u32,
    /// Seconds of writes before the other master joins
    #[arg(long, default_value_t = 5)]
    before: u64,
}

/// How long the other master may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at memory and members.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the benchmark and reports.
pub(crate) async fn run(options: Options) -> Result<Value> {
    let folder = tempfile::Builder::new().prefix("tepui-bench-").tempdir()?;
    let home = folder.path().join("master-0");
    let (agents, tasks) = (options.agents as usize, options.tasks_per_agent as usize);
    eprintln!("making the store of {agents} agents with {tasks} tasks each");
    let made = tokio::task::spawn_blocking({
        let home = home.clone();
        move || large_state::make(&home, agents, tasks)
    })
    .await??;

    eprintln!("starting a master on {} rows", made.rows);
    let began = Instant::now();
    let raft = cluster::free_address()?;
    let leader = cluster::start_master(folder.path(), &home, raft, &[]).await?;
    let leads = async {
        while ask::leader(&[leader.address]).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, leads)
        .await
        .context("the master does not lead")?;
    let start = began.elapsed();

    let stop = Arc::new(AtomicBool::new(false));
    let probe = tokio::spawn(probe(leader.address.to_string(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(options.before)).await;
    let resting = cpu::private_memory(leader.id())?;

    eprintln!("another master joins");
    let joined = Instant::now();
    let other_raft = cluster::free_address()?;
    let join = format!("--join={raft}");
    let other_home = folder.path().join("master-1");
    let other = cluster::start_master(folder.path(), &other_home, other_raft, &[join]).await?;
    let (leader_peak, other_peak) = until_it_votes(&leader, &other).await?;
    let took = joined.elapsed();
    let other_resting = cpu::private_memory(other.id())?;
    stop.store(true, Ordering::Release);
    let writes = probe.await??;

    let of = |part: &dyn Fn(&(Instant, Duration)) -> bool| {
        let times: Vec<_> = writes.iter().filter(|it| part(it)).map(|it| it.1).collect();
        let at = |fraction: f64| quantile_of_times(&times, fraction) * 1e3;
        json!({
            "writes": times.len(),
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
            "max_ms": at(1.0),
        })
    };
    Ok(json!({
        "benchmark": "snapshot",
        "agents": agents,
        "tasks": agents * tasks,
        "rows": made.rows,
        "row_bytes": made.bytes,
        "seconds_to_start_on_them": start.as_secs_f64(),
        "seconds_to_join": took.as_secs_f64(),
        "rows_per_second": made.rows as f64 / took.as_secs_f64(),
        "leader_memory_bytes": {
            "before": resting,
            "added_while_sending": leader_peak.saturating_sub(resting),
            "per_row": resting as f64 / made.rows.max(1) as f64,
        },
        "follower_memory_bytes": {
            "peak": other_peak,
            "after": other_resting,
            "per_row": other_resting as f64 / made.rows.max(1) as f64,
        },
        "writes_before": of(&|it| it.0 < joined),
        "writes_while_sending": of(&|it| it.0 >= joined),
    }))
}

/// Waits for the other master to be a voter; the most memory of each meanwhile.
async fn until_it_votes(leader: &Process, other: &Process) -> Result<(u64, u64)> {
    let began = Instant::now();
    let mut peaks = (0, 0);
    loop {
        peaks.0 = peaks.0.max(cpu::private_memory(leader.id())?);
        peaks.1 = peaks.1.max(cpu::private_memory(other.id())?);
        let (_, list) = ask::request(leader.address, "GET", "/tepui/v1/masters", "").await?;
        let list: Value = serde_json::from_str(&list)?;
        let masters = list["masters"].as_array().into_iter().flatten();
        if masters.filter(|it| it["votes"] == true).count() == 2 {
            return Ok(peaks);
        }
        if began.elapsed() > PATIENCE {
            bail!("the other master did not catch up within {PATIENCE:?}: {list}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Writes without a pause; when each write began and what it took.
async fn probe(master: String, stop: Arc<AtomicBool>) -> Result<Vec<(Instant, Duration)>> {
    let state = State::new([master])?;
    let mut writes = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let began = Instant::now();
        drop(state.set("probe", vec![b'v'; 256], Expect::Any).await?);
        writes.push((began, began.elapsed()));
    }
    Ok(writes)
}
