//! `trace`: jobs of a trace on a cluster, against a scheduler that sees everything.
//!
//! The trace's time runs faster than the clock. Each user in a tier is a framework in the tier's
//! role, on a connection of its own: it launches what it has in the order of arrival as commands
//! `sleep N`, refuses for a second what it cannot use, and suppresses when it has nothing.

use super::{
    client::{Client, Heard},
    cluster::{self, Cluster, MASTER, MASTERS, TRANSPORT},
};
use crate::{
    ask,
    harness::{
        parameters::number,
        point::Measure,
        stop,
        workload::{ANY, By, Goal, NO_BOUND, Workload},
    },
    noop_agent::{Ending, Kind},
    trace::{
        self, Job, OMNISCIENT, TIERS,
        omniscient::{Ran, Size, omniscient},
        parameters,
    },
};
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tepui_scheduler_api::{call, task, v1};
use tokio::{sync::mpsc, task::JoinSet};

const WAIT: &str = "wait of a job, on the cluster";
const RESPONSE: &str = "response of a job, on the cluster";

/// Seconds for which a framework refuses what it cannot use.
const REFUSE: f64 = 1.0;
/// Jobs that wait for their framework to look, and news for the clock.
const QUEUE: usize = 4096;
/// Longest time, beside that of the longest task, in which nothing ends.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) static WORKLOAD: Workload = Workload {
    name: "trace",
    about: "jobs of a trace (a CSV file, or drawn from the seed) run on a cluster, faster than \
            they are written down; response times, in the trace's seconds, beside those of a \
            scheduler that sees everything",
    parameters: &[
        cluster::agents(50),
        number(
            "cpus",
            24,
            1,
            1_024,
            "cpus of each agent, with 4 GB for each of them",
        ),
        parameters::FILE,
        parameters::jobs(500),
        parameters::users(10),
        parameters::FULL_PERCENT,
        parameters::longest(1_800),
        number(
            "speed",
            60,
            1,
            10_000,
            "seconds of the trace that go by in one",
        ),
        TRANSPORT,
        MASTERS,
        MASTER,
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 1,
    goals: &[Goal {
        metric: RESPONSE,
        by: By::Ratio(OMNISCIENT.1),
        must: NO_BOUND,
        aim: 1.5,
        sizes: ANY,
    }],
    memory: |values| cluster::memory(values, values.number("jobs") * 4),
    run: |measure| cluster::block_on(run(measure)),
};

async fn run(measure: &mut Measure) -> Result<()> {
    let agents = measure.number("agents");
    let speed = measure.number("speed") as f64;
    let cpus = measure.number("cpus") as i64 * 1_000;
    let machine = Size {
        cpus,
        mem: cpus * 4,
    };
    let jobs: Arc<[Job]> = trace::jobs(measure, machine, agents)?.into();
    let kind = Kind {
        cpus: machine.cpus as f64 / 1e3,
        mem_mb: machine.mem as f64,
        ending: Ending::AfterSleep,
    };
    let cluster = Cluster::start(measure, |_| kind).await?;
    set_weights(&cluster.masters).await?;
    let (news, heard) = mpsc::channel(QUEUE);
    let mut frameworks = JoinSet::new();
    let owners = subscribe(measure, &cluster, &jobs, speed, news, &mut frameworks).await?;
    let ran = play(measure, &jobs, speed, &owners, heard, &mut frameworks).await?;
    let ideal = omniscient(&jobs, machine, agents as usize);
    // An interrupted run is held against the same jobs.
    let ideal: Vec<Ran> = ideal.iter().zip(&ran).map(either_ran).collect();
    trace::measure_responses(measure, &jobs, (WAIT, RESPONSE), &ran);
    trace::measure_responses(measure, &jobs, OMNISCIENT, &ideal);
    measure.is_denominator(OMNISCIENT.0);
    measure.is_denominator(OMNISCIENT.1);
    let tasks: u64 = jobs.iter().map(|it| it.tasks).sum();
    measure.count(RESPONSE, "tasks", tasks as f64);
    measure.count(RESPONSE, "frameworks", frameworks.len() as f64);
    frameworks.shutdown().await;
    Ok(())
}

fn either_ran((ideal, ran): (&Ran, &Ran)) -> Ran {
    match ran.ended > 0.0 {
        true => *ideal,
        false => Ran::NOT,
    }
}

/// Gives the tiers their weights, as an operator would.
async fn set_weights(masters: &[String]) -> Result<()> {
    let weights: Vec<_> = TIERS
        .iter()
        .map(|it| serde_json::json!({ "role": it.name, "weight": it.weight as f64 / 1e6 }))
        .collect();
    let body = serde_json::json!({
        "type": "UPDATE_WEIGHTS",
        "update_weights": { "weight_infos": weights },
    });
    let mut answers = Vec::new();
    for master in masters {
        let address = tokio::net::lookup_host(master).await?.next();
        let address = address.with_context(|| format!("{master} has no address"))?;
        let (status, text) = ask::request(address, "POST", "/api/v1", &body.to_string()).await?;
        if status == 200 {
            return Ok(());
        }
        answers.push(format!("{master}: {status} {text}"));
    }
    bail!(
        "no master took the weights of the tiers: {}",
        answers.join("; ")
    )
}

/// What a framework says of a job's tasks.
struct News {
    job: u32,
    kind: Change,
    at: Instant,
}

enum Change {
    Started,
    Ended,
}

/// Subscribes a framework for every user in a tier; returns where each job is to be sent.
async fn subscribe(
    measure: &Measure,
    cluster: &Cluster,
    jobs: &Arc<[Job]>,
    speed: f64,
    news: mpsc::Sender<News>,
    frameworks: &mut JoinSet<Result<()>>,
) -> Result<Vec<mpsc::Sender<u32>>> {
    let mut by_user: BTreeMap<(&str, &str), mpsc::Sender<u32>> = BTreeMap::new();
    let mut owners = Vec::with_capacity(jobs.len());
    for job in jobs.iter() {
        let key = (job.tier.as_str(), job.user.as_str());
        if let Some(known) = by_user.get(&key) {
            owners.push(known.clone());
            continue;
        }
        let name = format!("{}-{}", job.tier, job.user);
        let transport = measure.values.text("transport");
        let client = Client::subscribe(&cluster.masters, transport, &name, &job.tier).await?;
        let (submit, submitted) = mpsc::channel(QUEUE);
        let framework = Framework {
            client,
            jobs: jobs.clone(),
            speed,
            missing: VecDeque::new(),
            made: 0,
            news: news.clone(),
        };
        frameworks.spawn(framework.run(submitted));
        by_user.insert(key, submit.clone());
        owners.push(submit);
    }
    Ok(owners)
}

/// Submits each job when it is time, until all have ended or the run is interrupted.
async fn play(
    measure: &Measure,
    jobs: &[Job],
    speed: f64,
    owners: &[mpsc::Sender<u32>],
    mut news: mpsc::Receiver<News>,
    frameworks: &mut JoinSet<Result<()>>,
) -> Result<Vec<Ran>> {
    let longest = jobs.iter().map(|it| it.duration).fold(0.0, f64::max);
    let patience = PATIENCE + Duration::from_secs_f64(longest / speed);
    let mut running: Vec<u64> = jobs.iter().map(|it| it.tasks).collect();
    let mut ran = vec![Ran::NOT; jobs.len()];
    let (mut submitted, mut ended) = (0, 0);
    let start = Instant::now();
    let mut last_news = start;
    let mut look = tokio::time::interval(Duration::from_millis(500));
    measure.begin("jobs of the trace", jobs.len() as u64);
    while ended < jobs.len() {
        let arrival = async {
            match jobs.get(submitted) {
                Some(job) => {
                    let at = start + Duration::from_secs_f64(job.submit / speed);
                    tokio::time::sleep_until(at.into()).await;
                    owners[submitted].reserve().await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // One that has ended says below why.
            Ok(place) = arrival => {
                place.send(submitted as u32);
                submitted += 1;
            }
            Some(it) = news.recv() => {
                last_news = it.at;
                let at = it.at.saturating_duration_since(start).as_secs_f64() * speed;
                let job = it.job as usize;
                match it.kind {
                    Change::Started => ran[job].started = ran[job].started.min(at),
                    Change::Ended => {
                        running[job] -= 1;
                        if running[job] == 0 {
                            ran[job].ended = at;
                            ended += 1;
                            measure.reached(ended as u64);
                        }
                    }
                }
            }
            Some(it) = frameworks.join_next() => {
                it??;
                bail!("a framework ended before its jobs did");
            }
            _ = look.tick() => {
                if stop::asked() {
                    break;
                }
                let waits = ran.iter().zip(jobs).take(submitted).any(|it| it.0.ended == 0.0);
                if waits && last_news.elapsed() > patience {
                    bail!("no task began or ended for {patience:?}; {ended} jobs have ended");
                }
                if !waits {
                    last_news = Instant::now();
                }
            }
        }
    }
    Ok(ran)
}

/// A user in a tier.
struct Framework {
    client: Client,
    jobs: Arc<[Job]>,
    speed: f64,
    /// Jobs with tasks that were not launched, and how many.
    missing: VecDeque<(u32, u64)>,
    /// Tasks that were.
    made: u64,
    news: mpsc::Sender<News>,
}

impl Framework {
    async fn run(mut self, mut submitted: mpsc::Receiver<u32>) -> Result<()> {
        // SUBSCRIBED comes first; before it there is nobody to call.
        let first = self.client.next().await?;
        self.client.calls.call(call::suppress(Vec::new())).await?;
        self.heard(first).await?;
        loop {
            tokio::select! {
                job = submitted.recv() => {
                    let Some(job) = job else {
                        return Ok(());
                    };
                    let idle = self.missing.is_empty();
                    let tasks = self.jobs[job as usize].tasks;
                    self.missing.push_back((job, tasks));
                    if idle {
                        self.client.calls.call(call::revive(Vec::new())).await?;
                    }
                }
                heard = self.client.next() => self.heard(heard?).await?,
            }
        }
    }

    async fn heard(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Offers(offers) => self.answer(offers).await,
            Heard::Update(status) => self.update(&status).await,
            Heard::Rescind(_) | Heard::Other => Ok(()),
        }
    }

    async fn answer(&mut self, offers: Vec<v1::Offer>) -> Result<()> {
        let had = !self.missing.is_empty();
        let mut unused = Vec::new();
        for offer in offers {
            let tasks = self.place(&offer);
            match tasks.is_empty() {
                true => unused.push(offer.id),
                false => self.client.calls.launch(&offer, tasks).await?,
            }
        }
        if !unused.is_empty() {
            self.client.calls.decline(unused, REFUSE).await?;
        }
        if had && self.missing.is_empty() {
            self.client.calls.call(call::suppress(Vec::new())).await?;
        }
        Ok(())
    }

    /// The missing tasks that fit into an offer, in the order of arrival.
    fn place(&mut self, offer: &v1::Offer) -> Vec<v1::TaskInfo> {
        let amount = |name: &str, unit: f64| {
            let amount = task::amount(&offer.resources, name) * unit;
            amount.round() as i64
        };
        let mut free = Size {
            cpus: amount("cpus", 1e3),
            mem: amount("mem", 1.0),
        };
        let mut tasks = Vec::new();
        for (at, missing) in &mut self.missing {
            let job = &self.jobs[*at as usize];
            let size = Size::of(job);
            let count = free.times(size).min(*missing);
            free.cpus -= size.cpus * count as i64;
            free.mem -= size.mem * count as i64;
            *missing -= count;
            for _ in 0..count {
                self.made += 1;
                let id = format!("{at}-{}", self.made);
                let sleep = format!("sleep {:.3}", job.duration / self.speed);
                let (cpus, mem) = (size.cpus as f64 / 1e3, size.mem as f64);
                tasks.push(task::task(id, offer, cpus, mem, task::shell(sleep)));
            }
        }
        self.missing.retain(|it| it.1 > 0);
        tasks
    }

    async fn update(&mut self, status: &v1::TaskStatus) -> Result<()> {
        let id = &status.task_id.value;
        let kind = match status.state() {
            v1::TaskState::TaskStaging | v1::TaskState::TaskStarting => return Ok(()),
            v1::TaskState::TaskRunning => Change::Started,
            v1::TaskState::TaskFinished => Change::Ended,
            other => bail!("task {id} became {}", other.as_str_name()),
        };
        let job = id.split('-').next().and_then(|it| it.parse().ok());
        let job = job.with_context(|| format!("an update of {id}, which was not launched"))?;
        let at = Instant::now();
        // Who listens has ended when this cannot be sent.
        let _ = self.news.send(News { job, kind, at }).await;
        Ok(())
    }
}
