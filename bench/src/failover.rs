//! `tepui-bench failover`: from the death of the leader to the next offer, over the size of the
//! cluster.
//!
//! Three masters, agents that run nothing on real sockets (a hundred share a connection, each
//! with a link to every master), tasks that do not end, one framework. The framework keeps the
//! offers it gets, so the next one comes from the next leader. Agents' threads have the lowest
//! priority: in a cluster they are on other machines.

use crate::{
    ask,
    cluster::Masters,
    cpu,
    harness::statistics::quantile_of_times,
    noop_agent::{Agent, Connections, Counters, Ending, Kind},
};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tepui_scheduler_api::{Driver, Error, Event, Session, task, v1};
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
    task::JoinSet,
};

/// Options of `tepui-bench failover`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sizes of the cluster, with commas between them
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    agents: Vec<usize>,
    /// Running tasks on each agent
    #[arg(long, default_value_t = 10)]
    tasks_per_agent: usize,
    /// Deaths of a leader for each size
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Masters
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    masters: u8,
    /// Let the leader hand over to another instead of killing it
    #[arg(long)]
    planned: bool,
}

/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(300);
const CPUS: f64 = 0.1;
const MEM_MB: f64 = 32.0;

/// What the framework last saw.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Subscriptions so far, and the port of the master of the last one.
    subscriptions: u64,
    port: u16,
    /// When it last subscribed, and when the first offer after that came.
    subscribed: Option<Instant>,
    offered: Option<Instant>,
}

/// Runs the benchmark and reports.
pub(crate) async fn run(options: Options) -> Result<Value> {
    let progress = ProgressBar::no_length();
    progress.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let mut sizes = Vec::new();
    for agents in &options.agents {
        let size = measure(&options, *agents, &progress).await;
        sizes.push(size.with_context(|| format!("with {agents} agents"))?);
    }
    progress.finish_and_clear();
    Ok(json!({
        "benchmark": "failover",
        "masters": options.masters,
        "tasks_per_agent": options.tasks_per_agent,
        "rounds": options.rounds,
        "end_of_leadership": if options.planned { "handed over" } else { "kill -9" },
        "agents": "in this process, over real sockets, 100 links a connection",
        "sizes": sizes,
    }))
}

async fn measure(options: &Options, agents: usize, progress: &ProgressBar) -> Result<Value> {
    let folder = tempfile::Builder::new().prefix("tepui-bench-").tempdir()?;
    progress.set_message(format!("{agents} agents: starting masters"));
    let mut masters = Masters::start(folder.path(), options.masters.into()).await?;
    let addresses = masters.addresses().to_vec();
    let counters = Arc::new(Counters::default());
    let elsewhere = Elsewhere::new()?;
    let connections = {
        let _on = elsewhere.handle().enter();
        Arc::new(Connections::new(&addresses, agents)?)
    };
    let mut workload = JoinSet::new();

    let info = task::framework("root", "failover");
    let info = v1::FrameworkInfo {
        failover_timeout: Some(3600.0),
        ..info
    };
    let session =
        tepui_scheduler_api::Options::new(addresses.iter().map(SocketAddr::to_string), info);
    let (seen, mut watched) = watch::channel(Seen::default());
    let tasks = options.tasks_per_agent;
    let (start, started) = watch::channel(false);
    // A thread of its own: thousands of agents are not in the process of a real one.
    let (ended, end) = oneshot::channel();
    let (_stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let run = async {
            let session = Session::start(session)?;
            tokio::select! {
                result = framework(session, tasks, seen, started) => result,
                _ = stopped => Ok(()),
            }
        };
        let alone = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let result = alone
            .context("a runtime for the framework")
            .and_then(|it| it.block_on(run));
        // Nobody listens when the measurement is over.
        let _ = ended.send(result);
    });
    workload.spawn(async move { end.await? });
    let first = watched.wait_for(|it| it.subscriptions > 0);
    let port = tokio::time::timeout(PATIENCE, first).await??.port;
    let leader = index_of(&addresses, port)?;
    let formed = ask::term(&addresses).await?;
    let empty = memory(&masters, leader)?;

    for index in 0..agents {
        let agent = Agent::new(index, Kind::ending(Ending::Never), counters.clone());
        for master in 0..addresses.len() {
            let link = agent.clone().keep_link(connections.clone(), master);
            let endless = async {
                link.await;
                Ok(())
            };
            workload.spawn_on(endless, elsewhere.handle());
        }
    }
    let count = agents as u64;
    reach(
        &mut workload,
        &counters,
        progress,
        "registered",
        |it| it.attached.load(Ordering::Relaxed),
        count,
    )
    .await?;
    let burst = memory(&masters, leader)?;
    let idle = settled(&masters, leader, progress).await?;
    start.send_replace(true);
    let running = count * tasks as u64;
    reach(
        &mut workload,
        &counters,
        progress,
        "tasks run",
        |it| it.running.load(Ordering::Relaxed),
        running,
    )
    .await?;
    let busy = settled(&masters, leader, progress).await?;
    let filled = ask::term(&addresses).await?;

    let (mut gaps, mut silences) = (Vec::new(), Vec::new());
    let mut returns = Vec::new();
    let mut bytes = 0;
    let mut unchanged = 0;
    for round in 0..options.rounds {
        progress.set_message(format!("{agents} agents: failover {}", round + 1));
        // Everybody, the killed one of the last round included, knows who leads.
        for address in &addresses {
            follows(*address).await?;
        }
        reach(
            &mut workload,
            &counters,
            progress,
            "linked to every master",
            |it| it.links.load(Ordering::Relaxed) / addresses.len() as u64,
            count,
        )
        .await?;
        let leader = ask::leader(&addresses).await?;
        let attached = counters.attached.load(Ordering::Relaxed);
        let bytes_before = counters.attach_bytes.load(Ordering::Relaxed);
        let unchanged_before = counters.unchanged.load(Ordering::Relaxed);
        let subscriptions = watched.borrow().subscriptions;
        let died = Instant::now();
        if options.planned {
            ask::transfer(addresses[leader]).await?;
        } else {
            masters.kill(leader);
        }
        // Alone, it is its own successor.
        if addresses.len() == 1 && !options.planned {
            masters.restart(leader).await?;
        }
        let again = watched.wait_for(|it| it.subscriptions > subscriptions && it.offered.is_some());
        let seen = tokio::time::timeout(PATIENCE, again)
            .await
            .context("no offer after the death of the leader")??
            .clone();
        silences.push(seen.subscribed.unwrap_or(died) - died);
        gaps.push(seen.offered.unwrap_or(died) - died);
        reach(
            &mut workload,
            &counters,
            progress,
            "attached again",
            |it| it.attached.load(Ordering::Relaxed) - attached,
            count,
        )
        .await?;
        returns.push(died.elapsed());
        bytes += counters.attach_bytes.load(Ordering::Relaxed) - bytes_before;
        unchanged += counters.unchanged.load(Ordering::Relaxed) - unchanged_before;
        if masters.id(leader).is_none() {
            masters.restart(leader).await?;
        }
    }
    workload.shutdown().await;
    let per = |total: u64, base: u64, count: u64| total.saturating_sub(base) / count.max(1);
    let frames = (options.rounds as u64 * count).max(1);
    Ok(json!({
        "agents": agents,
        "tasks": running,
        "changes_of_leader_while_filling": filled - formed,
        "end_to_subscribed_ms": distribution(&silences),
        "end_to_first_offer_ms": distribution(&gaps),
        "end_to_all_attached_ms": distribution(&returns),
        "attach_bytes_per_agent": bytes as f64 / frames as f64,
        "attached_by_digest": unchanged as f64 / frames as f64,
        "leader_memory_bytes": {
            "empty": empty,
            "per_agent_right_after_the_burst": per(burst, empty, count),
            "per_idle_agent": per(idle, empty, count),
            "per_running_task": per(busy, idle, running),
        },
    }))
}

/// Threads for agents, which are on other machines than masters and frameworks: they take the
/// processor time that those leave.
struct Elsewhere(Option<Runtime>);

impl Elsewhere {
    /// Nice value of its threads: a tenth of the share of others.
    const BEHIND: i32 = 10;

    fn new() -> Result<Elsewhere> {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .on_thread_start(|| {
                // To Linux "this process" is the calling thread. Lower is always allowed.
                let _ = rustix::process::setpriority_process(None, Elsewhere::BEHIND);
            })
            .build()?;
        Ok(Elsewhere(Some(threads)))
    }

    fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("it lives").handle()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(threads) = self.0.take() {
            // What still runs is not waited for.
            threads.shutdown_background();
        }
    }
}

fn memory(masters: &Masters, index: usize) -> Result<u64> {
    cpu::private_memory(masters.id(index).context("the leader lives")?)
}

/// Memory of a master that has come to rest: what a burst needed is given back after a while.
async fn settled(masters: &Masters, index: usize, progress: &ProgressBar) -> Result<u64> {
    /// Readings, a [`REST`] apart, that differ by less than a hundredth.
    const ALIKE: usize = 5;
    const REST: Duration = Duration::from_secs(1);
    const READINGS: usize = 60;
    progress.set_message("waiting until the leader's memory rests");
    let mut readings = vec![memory(masters, index)?];
    while readings.len() < READINGS {
        tokio::time::sleep(REST).await;
        readings.push(memory(masters, index)?);
        let last = readings.rchunks(ALIKE).next().unwrap_or_default();
        let (least, most) = (last.iter().min(), last.iter().max());
        if let (ALIKE, Some(least), Some(most)) = (last.len(), least, most)
            && (most - least) * 100 < *most
        {
            break;
        }
    }
    readings.pop().context("there is one")
}

fn index_of(addresses: &[SocketAddr], port: u16) -> Result<usize> {
    let found = addresses.iter().position(|it| it.port() == port);
    found.with_context(|| format!("no master of ours has port {port}"))
}

fn distribution(samples: &[Duration]) -> Value {
    let at = |part: f64| quantile_of_times(samples, part) * 1e3;
    json!({ "p50": at(0.5), "p99": at(0.99), "min": at(0.0), "max": at(1.0) })
}

async fn reach(
    workload: &mut JoinSet<Result<()>>,
    counters: &Counters,
    progress: &ProgressBar,
    what: &str,
    count: impl Fn(&Counters) -> u64,
    target: u64,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let reached = count(counters);
        if reached >= target {
            return Ok(());
        }
        if let Some(ended) = workload.try_join_next() {
            ended??;
            bail!("the framework or an agent ended");
        }
        if started.elapsed() > PATIENCE {
            bail!("only {reached} of {target} {what} within {PATIENCE:?}");
        }
        progress.set_message(format!("{reached} of {target} {what}"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the master at `address` leads or knows who does.
async fn follows(address: SocketAddr) -> Result<()> {
    let started = Instant::now();
    loop {
        if let Ok(true) = ask::knows_leader(address).await {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!("the master at {address} knows of no leader");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Which task is where, and whether it was heard of.
#[derive(Debug, Default)]
struct Placed {
    by_agent: BTreeMap<String, HashMap<String, bool>>,
}

impl Placed {
    fn on(&self, agent: &str) -> usize {
        self.by_agent.get(agent).map_or(0, HashMap::len)
    }

    fn add(&mut self, agent: &str, task: &str) {
        let tasks = self.by_agent.entry(agent.to_owned()).or_default();
        tasks.insert(task.to_owned(), false);
    }

    fn heard(&mut self, status: &v1::TaskStatus) {
        let Some(agent) = &status.agent_id else {
            return;
        };
        let tasks = self.by_agent.entry(agent.value.clone()).or_default();
        if matches!(
            status.state(),
            v1::TaskState::TaskRunning | v1::TaskState::TaskStaging
        ) {
            tasks.insert(status.task_id.value.clone(), true);
        } else {
            tasks.remove(&status.task_id.value);
        }
    }

    fn forget_unheard(&mut self) {
        for tasks in self.by_agent.values_mut() {
            tasks.retain(|_, heard| *heard);
        }
    }
}

/// Once told to start, fills every agent with its tasks. What it is offered otherwise it keeps.
async fn framework(
    session: Session,
    tasks: usize,
    seen: watch::Sender<Seen>,
    mut started: watch::Receiver<bool>,
) -> Result<()> {
    let Session { driver, mut events } = session;
    let mut placed = Placed::default();
    let mut next = 0u64;
    // Answered one by one between events: who does not read is taken for stuck.
    let mut kept = VecDeque::new();
    loop {
        let waits = !*started.borrow();
        let event = tokio::select! {
            biased;
            event = events.next() => event.context("the session ended")??,
            changed = started.changed(), if waits => {
                changed?;
                continue;
            }
            () = std::future::ready(()), if !waits && !kept.is_empty() => {
                launch(&driver, &mut placed, &mut next, tasks, kept.pop_front()).await?;
                continue;
            }
        };
        match event {
            Event::Subscribed { master, .. } => {
                let now = Instant::now();
                let port = master.and_then(|it| u16::try_from(it.port).ok());
                seen.send_modify(|it| {
                    it.subscriptions += 1;
                    it.port = port.unwrap_or_default();
                    it.subscribed = Some(now);
                    it.offered = None;
                });
                // What runs all the same is told by the reconciliation that follows.
                placed.forget_unheard();
            }
            Event::Update(status) => placed.heard(&status),
            Event::Offers(offers) => {
                let now = Instant::now();
                seen.send_modify(|it| {
                    it.offered.get_or_insert(now);
                });
                kept.extend(offers);
            }
            // What was offered before is no more.
            Event::Disconnected { .. } => kept.clear(),
            _ => {}
        }
    }
}

/// Fills an offer with the tasks that its agent has not got yet.
async fn launch(
    driver: &Driver,
    placed: &mut Placed,
    next: &mut u64,
    tasks: usize,
    offer: Option<v1::Offer>,
) -> Result<()> {
    let Some(offer) = offer else { return Ok(()) };
    let agent = &offer.agent_id.value;
    let missing = tasks.saturating_sub(placed.on(agent));
    if missing == 0 {
        return Ok(());
    }
    let all = (0..missing).map(|_| {
        *next += 1;
        let id = format!("task-{next}");
        placed.add(agent, &id);
        let command = task::shell("sleep 1000000");
        task::task(id, &offer, CPUS, MEM_MB, command)
    });
    let all: Vec<_> = all.collect();
    let filters = v1::Filters {
        refuse_seconds: Some(0.0),
    };
    match driver.launch(&offer, all, Some(filters)).await {
        // It is heard of, or placed again.
        Ok(()) | Err(Error::Disconnected(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
