//! `tepui-bench launch`: the rate at which launches become acknowledged RUNNING.

use crate::{
    ask,
    cluster::Masters,
    cpu, floor,
    noop_agent::{Agent, Connections, Counters, Ending, Kind},
};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tepui_scheduler_api::{Driver, Event, Session, Transport, task, v1};
use tokio::task::JoinSet;

/// Options of `tepui-bench launch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Agents that run nothing, each on a connection of its own
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// Frameworks, each on a connection of its own
    #[arg(long, default_value_t = 1)]
    frameworks: usize,
    /// Most tasks of one ACCEPT
    #[arg(long, default_value_t = 10)]
    tasks_per_accept: usize,
    /// Seconds that are measured, after one tenth of them as warm-up
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Masters to start
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    masters: u8,
    /// Masters that run already, instead of those started here
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    master: Vec<SocketAddr>,
    /// Speak the v1 HTTP API instead of gRPC
    #[arg(long)]
    http: bool,
}

/// Resources of one task: 24 cpus hold 240 of them at a time.
const CPUS: f64 = 0.1;
const MEM_MB: f64 = 32.0;

/// What the frameworks of a run count together.
#[derive(Debug, Default)]
struct Accepted {
    launches: AtomicU64,
    accepts: AtomicU64,
}

/// Runs the benchmark and reports.
pub(crate) async fn run(options: Options) -> Result<Value> {
    let folder = tempfile::Builder::new().prefix("tepui-bench-").tempdir()?;
    let started = match options.master.is_empty() {
        true => Some(Masters::start(folder.path(), options.masters.into()).await?),
        false => None,
    };
    let masters = match &started {
        Some(started) => started.addresses().to_vec(),
        None => options.master.clone(),
    };

    let progress = ProgressBar::new(options.agents as u64);
    progress.set_style(ProgressStyle::with_template(
        "{msg:32} {bar:30} {pos}/{len}",
    )?);
    progress.set_message("agents register");
    let counters = Arc::new(Counters::default());
    // Ended before the master is, so that its end is no news to them.
    let mut workload = JoinSet::new();
    let connections = Arc::new(Connections::new(&masters, options.agents)?);
    for index in 0..options.agents {
        let agent = Agent::new(index, Kind::ending(Ending::AtOnce), counters.clone());
        for master in 0..masters.len() {
            let link = agent.clone().keep_link(connections.clone(), master);
            workload.spawn(async {
                link.await;
                Ok(())
            });
        }
    }
    let registered = wait(&progress, &counters.attached, options.agents as u64);
    unbroken(&mut workload, registered).await??;

    let accepted = Arc::new(Accepted::default());
    for index in 0..options.frameworks {
        let info = task::framework("root", format!("bench-{index}"));
        let transport = if options.http {
            Transport::Http
        } else {
            Transport::Grpc
        };
        let session = Session::start(
            tepui_scheduler_api::Options::new(masters.iter().map(SocketAddr::to_string), info)
                .transport(transport),
        )?;
        let accepted = accepted.clone();
        let most = options.tasks_per_accept;
        workload.spawn(async move {
            let framework = framework(index, session, most, accepted).await;
            framework.with_context(|| format!("framework {index}"))
        });
    }

    let term = ask::term(&masters).await.unwrap_or_default();
    let measured = async {
        progress.set_message("warm-up");
        tokio::time::sleep(Duration::from_secs(options.seconds.div_ceil(10))).await;
        let before = Sample::take(&counters, &accepted, started.as_ref())?;
        progress.set_length(options.seconds);
        for second in 0..options.seconds {
            progress.set_position(second);
            let running = counters.running.load(Ordering::Relaxed) - before.running;
            progress.set_message(format!("{} launches", running));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let after = Sample::take(&counters, &accepted, started.as_ref())?;
        anyhow::Ok((before, after))
    };
    let (before, after) = unbroken(&mut workload, measured).await??;
    workload.shutdown().await;
    progress.finish_and_clear();
    let changes = ask::term(&masters).await.unwrap_or_default() - term;

    let time = after.at.duration_since(before.at).as_secs_f64();
    let launches = after.running - before.running;
    if launches == 0 {
        bail!("no launch was acknowledged as RUNNING within {time:.0} s");
    }
    let accepts = after.accepts - before.accepts;
    let per_launch = |used: Duration| used.as_secs_f64() * 1e6 / launches as f64;
    let bytes = example_task().encoded_len();
    let append = floor::synced_append(folder.path(), bytes * options.tasks_per_accept, 200)?;
    let round_trip = floor::round_trip(2000)?;
    let mut largest = None;
    for id in started.iter().flat_map(Masters::ids) {
        largest = largest.max(Some(cpu::private_memory(id)?));
    }
    Ok(json!({
        "benchmark": "launch",
        "agents": options.agents,
        "frameworks": options.frameworks,
        "transport": if options.http { "http" } else { "grpc" },
        "masters": masters.len(),
        "seconds": time,
        "launches": launches,
        "launches_per_second": launches as f64 / time,
        "tasks_per_accept": (after.launches - before.launches) as f64 / (accepts as f64).max(1.0),
        "bytes_per_task": bytes,
        "changes_of_leader": changes,
        "all_masters_cpu_us_per_launch": per_launch(after.masters_cpu() - before.masters_cpu()),
        "busiest_master_cpu_us_per_launch": per_launch(after.busiest_since(&before)),
        "agents_and_frameworks_cpu_us_per_launch": per_launch(after.own_cpu.saturating_sub(before.own_cpu)),
        "largest_master_private_memory_bytes": largest,
        "floor": {
            "synced_append_of_one_accept_us": append.as_secs_f64() * 1e6,
            "loopback_round_trip_us": round_trip.as_secs_f64() * 1e6,
        },
        "synced_appends_per_second_over_launches_per_second":
            options.tasks_per_accept as f64 / append.as_secs_f64() / (launches as f64 / time),
    }))
}

/// Waits for `done`; an error when an agent or a framework ends before.
async fn unbroken<T>(
    workload: &mut JoinSet<Result<()>>,
    done: impl Future<Output = T>,
) -> Result<T> {
    tokio::select! {
        done = done => Ok(done),
        Some(ended) = workload.join_next() => {
            ended??;
            bail!("an agent or a framework ended while it was measured")
        }
    }
}

async fn wait(progress: &ProgressBar, counter: &AtomicU64, target: u64) -> Result<()> {
    let started = Instant::now();
    loop {
        let reached = counter.load(Ordering::Relaxed);
        progress.set_position(reached);
        if reached >= target {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(120) {
            bail!("only {reached} of {target} agents registered within two minutes");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All counters at one moment.
struct Sample {
    at: Instant,
    running: u64,
    launches: u64,
    accepts: u64,
    /// Of each master that was started here.
    master_cpu: Vec<Duration>,
    own_cpu: Duration,
}

impl Sample {
    fn take(counters: &Counters, accepted: &Accepted, masters: Option<&Masters>) -> Result<Sample> {
        let ids = masters.into_iter().flat_map(Masters::ids);
        let master_cpu = ids.map(cpu::used).collect::<Result<_>>()?;
        Ok(Sample {
            at: Instant::now(),
            running: counters.running.load(Ordering::Relaxed),
            launches: accepted.launches.load(Ordering::Relaxed),
            accepts: accepted.accepts.load(Ordering::Relaxed),
            master_cpu,
            own_cpu: cpu::used(std::process::id())?,
        })
    }

    fn masters_cpu(&self) -> Duration {
        self.master_cpu.iter().sum()
    }

    /// CPU time since `before` of the master that used the most: the leader.
    fn busiest_since(&self, before: &Sample) -> Duration {
        let pairs = self.master_cpu.iter().zip(&before.master_cpu);
        pairs
            .map(|(after, before)| *after - *before)
            .max()
            .unwrap_or_default()
    }
}

fn example_task() -> v1::TaskInfo {
    let offer = v1::Offer {
        agent_id: v1::AgentId {
            value: format!("{}-S100", uuid::Uuid::nil()),
        },
        ..Default::default()
    };
    task::task("bench-0-1000000", &offer, CPUS, MEM_MB, task::shell("true"))
}

/// Fills every offer with tasks.
async fn framework(
    index: usize,
    session: Session,
    most: usize,
    accepted: Arc<Accepted>,
) -> Result<()> {
    let Session { driver, mut events } = session;
    let mut next = 0u64;
    while let Some(event) = events.next().await {
        if let Event::Offers(offers) = event? {
            for offer in offers {
                next = fill(index, &driver, &offer, most, next, &accepted).await?;
            }
        }
    }
    Ok(())
}

async fn fill(
    index: usize,
    driver: &Driver,
    offer: &v1::Offer,
    most: usize,
    mut next: u64,
    accepted: &Accepted,
) -> Result<u64> {
    let room =
        |name: &str, each: f64| (task::amount(&offer.resources, name) / each).floor() as usize;
    let count = room("cpus", CPUS).min(room("mem", MEM_MB)).min(most);
    let mut tasks = Vec::with_capacity(count);
    for _ in 0..count {
        let id = format!("bench-{index}-{next}");
        next += 1;
        tasks.push(task::task(id, offer, CPUS, MEM_MB, task::shell("true")));
    }
    accepted.launches.fetch_add(count as u64, Ordering::Relaxed);
    accepted.accepts.fetch_add(1, Ordering::Relaxed);
    // No filter: what is left is offered again at once.
    let filters = v1::Filters {
        refuse_seconds: Some(0.0),
    };
    driver
        .launch(offer, tasks, Some(filters))
        .await
        .context("launching")?;
    Ok(next)
}
