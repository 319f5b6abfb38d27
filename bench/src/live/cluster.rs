//! Masters and agents of a run, or those that are there already.

use super::client::TRANSPORTS;
use crate::{
    cluster::Masters,
    cpu, floor,
    harness::{
        parameters::{Parameter, Values, choice, number, text},
        point::Measure,
        result::Unit,
        stop,
    },
    noop_agent::{Agent, Connections, Counters, Kind},
};
use anyhow::{Result, bail};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// How long agents may take to register.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of a no-op agent with its links and tasks, and of its rows in masters, about.
const AGENT_BYTES: u64 = 60_000;
/// Bytes of a task in three copies of the state of each master, about.
const TASK_BYTES: u64 = 6_000;

/// The metric of the round trip.
pub(super) const ROUND_TRIP: &str = "loopback round trip";

pub(super) const MASTER: Parameter = text(
    "master",
    "HOST:PORT of any Mesos v1 masters, with commas between; none are started, and their agents are used",
);
pub(super) const MASTERS: Parameter =
    number("masters", 3, 1, 5, "masters to start, with synced logs");

/// How frameworks speak to masters.
pub(super) const TRANSPORT: Parameter = transport(TRANSPORTS);

/// The same from a list of its own.
pub(super) const fn transport(of: &'static [&'static str]) -> Parameter {
    choice("transport", of, "gRPC, HTTP with protobuf or with JSON")
}

/// How many tasks frameworks launch at once; `help` says whose.
pub(super) const fn tasks_per_accept(help: &'static str) -> Parameter {
    number("tasks_per_accept", 10, 1, 240, help)
}

pub(super) const fn agents(default: u64) -> Parameter {
    number("agents", default, 1, 100_000, "agents that run nothing")
}

/// About what a run with so many tasks takes.
pub(super) fn memory(values: &Values, tasks: u64) -> u64 {
    let masters = values.number("masters");
    (200 << 20) + values.number("agents") * AGENT_BYTES + tasks * TASK_BYTES * (masters + 1) / 2
}

/// A cluster; what was started ends with it.
pub(super) struct Cluster {
    /// `HOST:PORT` of each master.
    pub(super) masters: Vec<String>,
    // Agents end before masters do, whose end is no news to them then.
    agents: JoinSet<()>,
    started: Option<Masters>,
    _folder: TempDir,
}

impl Cluster {
    /// Starts what the parameters say; `kind` says what the agent of a number is like. Measures a loopback round trip meanwhile.
    pub(super) async fn start(
        measure: &mut Measure,
        kind: impl Fn(u64) -> Kind,
    ) -> Result<Cluster> {
        let folder = tempfile::Builder::new().prefix("tepui-bench-").tempdir()?;
        let round_trip = floor::round_trip(2000)?;
        measure.time(ROUND_TRIP, round_trip);
        measure.is_denominator(ROUND_TRIP);
        let given = measure.values.text("master").to_owned();
        if !given.is_empty() {
            let part = |it: &str| {
                let it = it.trim();
                it.strip_prefix("http://")
                    .unwrap_or(it)
                    .trim_end_matches('/')
                    .to_owned()
            };
            return Ok(Cluster {
                masters: given.split(',').map(part).collect(),
                agents: JoinSet::new(),
                started: None,
                _folder: folder,
            });
        }
        let count = measure.number("masters") as usize;
        let started = Masters::start(folder.path(), count).await?;
        let mut cluster = Cluster {
            masters: started
                .addresses()
                .iter()
                .map(SocketAddr::to_string)
                .collect(),
            agents: JoinSet::new(),
            started: Some(started),
            _folder: folder,
        };
        cluster.start_agents(measure, kind).await?;
        Ok(cluster)
    }

    async fn start_agents(
        &mut self,
        measure: &mut Measure,
        kind: impl Fn(u64) -> Kind,
    ) -> Result<()> {
        let count = measure.number("agents");
        let addresses = self.started.as_ref().map_or(&[][..], Masters::addresses);
        let connections = Arc::new(Connections::new(addresses, count as usize)?);
        let counters = Arc::new(Counters::default());
        measure.begin("agents register", count);
        for at in 0..count {
            let agent = Agent::new(at as usize, kind(at), counters.clone());
            for master in 0..addresses.len() {
                self.agents
                    .spawn(agent.clone().keep_link(connections.clone(), master));
            }
        }
        let since = Instant::now();
        loop {
            let attached = counters.attached.load(Ordering::Relaxed);
            measure.reached(attached);
            if attached >= count {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                bail!("only {attached} of {count} agents registered within {PATIENCE:?}");
            }
            if stop::asked() {
                bail!("interrupted while agents registered");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Processor time of each master so far; empty when they are somebody else's.
    pub(super) fn cpu(&self) -> Result<Vec<Duration>> {
        let ids = self.started.iter().flat_map(Masters::ids);
        ids.map(cpu::used).collect()
    }

    /// Notes what the largest master keeps.
    pub(super) fn measure_memory(&self, measure: &mut Measure, name: &str) -> Result<()> {
        let mut largest = None;
        for id in self.started.iter().flat_map(Masters::ids) {
            largest = largest.max(Some(cpu::private_memory(id)?));
        }
        if let Some(it) = largest {
            measure.sample(name, Unit::Bytes, it as f64);
        }
        Ok(())
    }
}

/// Runs a workload on threads of its own.
pub(super) fn block_on(run: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run);
    // What still runs is not waited for.
    runtime.shutdown_background();
    result
}
