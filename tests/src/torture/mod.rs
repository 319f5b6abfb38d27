//! Torture: real masters and agents, each in a network namespace of its own, under a real
//! workload, while processes are killed and paused, links cut and disks filled; then a check of
//! what the clients saw and of what ran.
//!
//! Everything lives in network and mount namespaces made for the run, which end with it; see
//! [`net`]. The binary `torture` is its command line.

pub mod faults;
pub mod foreign;
pub mod history;
pub mod net;
pub mod nodes;
pub mod registers;
pub mod workload;

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seconds of faults, more when each kind takes longer; a settled start and an end without faults come in addition.
    pub seconds: u64,
    /// Masters, one to five.
    pub masters: usize,
    /// Agents, one to nine.
    pub agents: usize,
    /// Frameworks, every other one over HTTP.
    pub frameworks: usize,
    /// Tasks that each framework keeps going.
    pub tasks: usize,
    /// So many tasks of a hundred run in Docker.
    pub docker: u64,
    /// Interpreters of frameworks that are not ours: what carries each, and what runs it.
    pub foreign: Vec<(&'static str, String)>,
    /// Clients of the state service.
    pub registers: u64,
    /// Kinds of faults to draw from; see [`faults::Fault`].
    pub faults: Vec<faults::Fault>,
    /// Draws faults, their victims and their lengths.
    pub seed: u64,
    /// Where logs and state go.
    pub folder: PathBuf,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Faults injected, by name, each with the longest time without any offer, in seconds.
    pub faults: BTreeMap<&'static str, (u32, f64)>,
    /// Tasks by how they ended.
    pub tasks: BTreeMap<String, u64>,
    /// Calls to the state service that were answered.
    pub calls: usize,
    /// What must not have happened.
    pub violations: Vec<String>,
}

/// How long the cluster may take to form, and to come to rest after the last fault.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs it; progress goes to standard output.
///
/// # Errors
/// What kept the run from being one; what the checker found is in the report.
pub async fn run(options: Options) -> Result<Report> {
    std::fs::create_dir_all(options.folder.join("lives"))?;
    let mut cluster = nodes::Nodes::start(&options).await?;
    let leader = cluster.leader(PATIENCE).await.context("a first leader")?;
    cluster.attached(PATIENCE).await?;
    println!(
        "==> {} masters, {} agents; master {leader} leads",
        options.masters, options.agents
    );

    let history = Arc::new(history::History::new());
    let mut frameworks = Vec::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for index in 0..options.frameworks {
        let settings = workload::Settings {
            index,
            masters: cluster.master_addresses(),
            tasks: options.tasks,
            lives: options.folder.join("lives"),
            docker: options.docker,
            seed: options.seed ^ (index as u64) << 32,
        };
        let framework = workload::run(settings, history.clone(), stopped.clone());
        frameworks.push(tokio::spawn(framework));
    }
    for (kind, python) in &options.foreign {
        let settings = foreign::Settings {
            kind,
            python: python.clone(),
            masters: cluster.master_addresses(),
            tasks: options.tasks,
            lives: options.folder.join("lives"),
            seed: options.seed,
        };
        let framework = foreign::run(settings, history.clone(), stopped.clone());
        frameworks.push(tokio::spawn(framework));
    }
    let calls = Arc::new(registers::Calls::default());
    let mut clients = Vec::new();
    for client in 0..options.registers {
        let masters = cluster.master_addresses();
        let (calls, stopped) = (calls.clone(), stopped.clone());
        let client = registers::run(client, masters, options.seed, calls, stopped);
        clients.push(tokio::spawn(client));
    }
    history.offered_after(Instant::now(), PATIENCE).await?;

    let result = torment(&options, &mut cluster, &history).await;
    println!("==> no more faults: everything has to come to its end");
    stop.send_replace(true);
    let mut violations = Vec::new();
    for (index, framework) in frameworks.into_iter().enumerate() {
        match tokio::time::timeout(PATIENCE, framework).await {
            Ok(ended) => ended??,
            Err(_) => violations.push(format!("framework {index} waits for tasks in vain")),
        }
    }
    for client in clients {
        client.await??;
    }
    violations.extend(calls.check());
    let faults = result?;
    if let Err(error) = cluster.at_rest(PATIENCE).await {
        violations.push(format!("{error:#}"));
    }
    let lives = history::lives(&options.folder.join("lives"))?;
    violations.extend(history.check(&lives));
    violations.extend(cluster.panics());
    Ok(Report {
        faults,
        tasks: history.ends(),
        calls: calls.answered(),
        violations,
    })
}

/// Injects one fault after the other until the time is over.
async fn torment(
    options: &Options,
    cluster: &mut nodes::Nodes,
    history: &history::History,
) -> Result<BTreeMap<&'static str, (u32, f64)>> {
    if options.faults.is_empty() {
        bail!("no faults to draw from");
    }
    let mut random = workload::Random::new(options.seed);
    let mut counts: BTreeMap<&'static str, (u32, f64)> = BTreeMap::new();
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut round = 0;
    while Instant::now() < end || round < options.faults.len() {
        // Each kind once, then by chance.
        let fault = match options.faults.get(round) {
            Some(fault) => *fault,
            None => options.faults[random.below(options.faults.len() as u64) as usize],
        };
        round += 1;
        let began = Instant::now();
        let victim = faults::inject(fault, cluster, &mut random)
            .await
            .with_context(|| fault.name())?;
        let leader = cluster.leader(PATIENCE).await?;
        cluster.attached(PATIENCE).await?;
        history.offered_after(Instant::now(), PATIENCE).await?;
        let gap = history.offered_after(began, PATIENCE).await?;
        println!(
            "    {:18} {victim:4} {:5.2} s without offers at most, master {leader} leads, {} tasks ended",
            fault.name(),
            gap.as_secs_f64(),
            history.ended(),
        );
        let count = counts.entry(fault.name()).or_default();
        count.0 += 1;
        count.1 = count.1.max(gap.as_secs_f64());
    }
    Ok(counts)
}
