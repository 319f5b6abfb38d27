//! `tepui-bench commit`: what it costs to make something durable on a majority of the masters.
//!
//! Writers set variables of the state service, each its own, one after the other: a write passes
//! through the whole master (decoding, machine, log, disk, peers, view) and is answered when it is
//! committed. The leader itself measures the part from the proposal of an entry until it is
//! committed (the newest thousand of them). The floor is what no implementation could save: a round trip to a peer and a synced
//! append, with as many masters syncing to the same disk at once.

use crate::{ask, cluster::Masters, floor, harness::statistics::quantile_of_times};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tepui_scheduler_api::state::{Expect, State, Written};
use tokio::task::JoinSet;

/// Options of `tepui-bench commit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Writers at once, with commas between the numbers
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000])]
    writers: Vec<usize>,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bytes: u32,
    /// Seconds that are measured for each number of writers, after one tenth of them as warm-up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Masters
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    masters: u8,
}

/// Writers that share a connection.
const WRITERS_PER_CLIENT: usize = 50;

/// Runs the benchmark and reports.
pub(crate) async fn run(options: Options) -> Result<Value> {
    let folder = tempfile::Builder::new().prefix("tepui-bench-").tempdir()?;
    let masters = Masters::start(folder.path(), options.masters.into()).await?;
    let addresses = masters.addresses().to_vec();
    let bytes = options.bytes as usize;
    // Written once before it is measured, so that a leader is there and connections are open.
    write_all(&addresses, 1, bytes, Duration::from_millis(500)).await?;
    let sync = floor::concurrent_appends(folder.path(), bytes, 300, options.masters.into())?;
    let round_trip = floor::round_trip(2000)?;
    let floor = sync + round_trip;
    let mut rounds = Vec::new();
    for writers in &options.writers {
        if *writers == 0 {
            bail!("--writers: expected at least 1");
        }
        write_all(
            &addresses,
            *writers,
            bytes,
            Duration::from_secs(options.seconds) / 10,
        )
        .await?;
        let leader = addresses[ask::leader(&addresses).await?];
        let before = ask::metrics(leader).await?;
        let began = Instant::now();
        let time = Duration::from_secs(options.seconds);
        let times = write_all(&addresses, *writers, bytes, time).await?;
        let took = began.elapsed().as_secs_f64();
        let after = ask::metrics(leader).await?;
        let since = |name: &str| -> Result<f64> {
            let both = after.get(name).zip(before.get(name));
            let (after, before) = both.with_context(|| format!("the master lacks {name}"))?;
            Ok(after - before)
        };
        let at = |part: f64| quantile_of_times(&times, part) * 1e6;
        let committed = after.get("registrar/state_store_ms/p50");
        let committed = committed.context("the leader measured no commit")? * 1e3;
        let over_floor = |us: f64| us / (floor.as_secs_f64() * 1e6);
        let (writes, entries) = (since("tepui/log/writes")?, since("tepui/log/entries")?);
        rounds.push(json!({
            "writers": writers,
            "writes_per_second": times.len() as f64 / took,
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "p50_over_floor": over_floor(at(0.5)),
            "proposed_to_committed_p50_us": committed,
            "proposed_to_committed_over_floor": over_floor(committed),
            "entries_per_sync": entries / writes.max(1.0),
            "writes_per_sync": times.len() as f64 / writes.max(1.0),
            "log_bytes_per_write": since("tepui/log/bytes")? / times.len().max(1) as f64,
            "changes_of_leader": since("tepui/raft/term")?,
        }));
    }
    Ok(json!({
        "benchmark": "commit",
        "masters": options.masters,
        "bytes": options.bytes,
        "floor": {
            "concurrent_synced_append_us": sync.as_secs_f64() * 1e6,
            "loopback_round_trip_us": round_trip.as_secs_f64() * 1e6,
        },
        "rounds": rounds,
    }))
}

/// The time that each write took.
async fn write_all(
    masters: &[SocketAddr],
    writers: usize,
    bytes: usize,
    time: Duration,
) -> Result<Vec<Duration>> {
    let until = Instant::now() + time;
    let mut all = JoinSet::new();
    let mut state = None;
    for writer in 0..writers {
        if writer % WRITERS_PER_CLIENT == 0 {
            let names = masters.iter().map(SocketAddr::to_string);
            state = Some(State::new(names)?);
        }
        let Some(state) = state.clone() else { continue };
        all.spawn(async move {
            let mut times = Vec::new();
            let name = format!("writer-{writer}");
            while Instant::now() < until {
                let began = Instant::now();
                let value = vec![b'v'; bytes];
                match state.set(&name, value, Expect::Any).await? {
                    Written::Done(_) => times.push(began.elapsed()),
                    Written::Conflict(_) => bail!("a write without a condition met a conflict"),
                }
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = all.join_next().await {
        times.extend(ended??);
    }
    Ok(times)
}
